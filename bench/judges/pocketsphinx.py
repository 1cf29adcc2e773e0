"""PocketSphinx as a recogniser (Huggins-Daines et al. 2006): GMM-HMMs and a trigram model.

Far less accurate than the neural recognisers and kin to none of them: no system is likely to have
been trained by it or to hear with it, so that it can confirm the order that they find.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.audio import Waveform
from bench.errors import UserError
from bench.files import fingerprint, sha256_of
from bench.judges import Weights, versions
from bench.judges.recognisers import Transcript
from bench.weights import WeightsMissing, package_folder

SAMPLE_RATE = 16_000  # Hz: what the model was trained on
# In the folder of a model: the acoustic model (a folder), the language model, the dictionary.
ACOUSTIC, LANGUAGE, DICTIONARY = "en-us", "en-us.lm.bin", "cmudict-en-us.dict"


class PocketSphinx:
    """PocketSphinx with its own US English model, its default search, in lower case.

    A transcript depends on nothing but its sound: each one has a decoder of its own. One decoder
    for all would carry its noise estimate and the order of its Gaussians over from one utterance to
    the next; it has no call that resets the second, and reading the model anew takes a quarter of a
    second. The cepstral mean is the utterance's own (`cmn: batch`, in the model's settings).

    Args:
        weights: a folder that is laid out like the package's `model/en-us`; None for that one.
    """

    VERSION = 1

    def __init__(self, weights: str | None = None) -> None:
        self._folder, self._weights = _find(weights)

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def fingerprint(self) -> str:
        code = versions("pocketsphinx")
        return fingerprint(["pocketsphinx", self.VERSION, self._weights.sha256, *code])

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """What it hears in each waveform: words of its dictionary, no punctuation."""
        return [Transcript(self._hear(w.resample(SAMPLE_RATE))) for w in waveforms]

    def _hear(self, waveform: Waveform) -> str:
        samples = (waveform.samples.clamp(-1, 1) * 32767).round().to(torch.int16)
        if not samples.any():  # digital silence has no cepstral mean: it would hear a random word
            return ""
        decoder = _decoder(self._folder)
        decoder.start_utt()
        decoder.process_raw(samples.numpy().tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        return "" if best is None else str(best.hypstr)


def _decoder(folder: Path):  # type: ignore[no-untyped-def]
    """A decoder that has heard nothing yet."""
    from pocketsphinx import Decoder

    try:
        return Decoder(
            samprate=SAMPLE_RATE,
            hmm=str(folder / ACOUSTIC),
            lm=str(folder / LANGUAGE),
            dict=str(folder / DICTIONARY),
            loglevel="FATAL",
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{folder} holds no model that PocketSphinx can read ({error}); "
            "correct `weights`, or set it to null"
        ) from error


def _find(given: str | None) -> tuple[Path, Weights]:
    """The folder of the model, and one hash over all files in it that are read.

    Raises:
        WeightsMissing: if the package is not installed.
        UserError: if the folder lacks a part of the model.
    """
    name = "PocketSphinx US English"
    package = package_folder("pocketsphinx")
    if package is None:
        raise WeightsMissing(
            "PocketSphinx: not installed; pip install 'takin-vc-bench[pocketsphinx]' (29 MB)"
        )
    folder = package / "model" / "en-us" if given is None else Path(given).expanduser()
    for part in (ACOUSTIC, LANGUAGE, DICTIONARY):
        if not (folder / part).exists():
            way = "correct `weights`, or set it to null" if given else "reinstall pocketsphinx"
            raise UserError(f"{name}: {folder} holds no {part}; {way}")
    files = [folder / LANGUAGE, folder / DICTIONARY]
    files += sorted(file for file in (folder / ACOUSTIC).rglob("*") if file.is_file())
    hashes = [[file.relative_to(folder).as_posix(), sha256_of(file)] for file in files]
    return folder, Weights(name, str(folder), fingerprint(hashes), "BSD-2-Clause")
