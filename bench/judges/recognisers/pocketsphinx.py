"""PocketSphinx as a recogniser (Huggins-Daines et al. 2006): GMM-HMMs and an n-gram model.

Far less accurate than the neural recognisers and kin to none of them: no system is likely to have
been trained by it or to hear with it, so that it can confirm the order that they find.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from bench.audio import Waveform
from bench.files import fingerprint, package_folder, sha256_of
from bench.judges import identity
from bench.judges.recognisers import Transcript
from bench.weights import Weights
from bench.weights.find import WeightsMissing

SAMPLE_RATE = 16_000  # Hz: what the model was trained on
MODEL = Path("model", "en-us")  # in the package's folder; in there are:
ACOUSTIC, LANGUAGE, DICTIONARY = "en-us", "en-us.lm.bin", "cmudict-en-us.dict"


class PocketSphinx:
    """PocketSphinx with the US English model of its package and its default search.

    A transcript depends on nothing but its sound: each one has a decoder of its own. One decoder
    for all would carry its noise estimate and the order of its Gaussians over from one utterance to
    the next; it has no call that resets the second, and reading the model anew takes a quarter of a
    second. The cepstral mean is the utterance's own (`cmn: batch`, in the model's settings).

    Raises:
        WeightsMissing: if the package is not installed.
    """

    VERSION = 1

    def __init__(self) -> None:
        self._folder, self._weights = _find()

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def fingerprint(self) -> str:
        return identity("pocketsphinx", self.VERSION, self.weights, packages=["pocketsphinx"])

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

    return Decoder(
        samprate=SAMPLE_RATE,
        hmm=str(folder / ACOUSTIC),
        lm=str(folder / LANGUAGE),
        dict=str(folder / DICTIONARY),
        loglevel="FATAL",
    )


def _find() -> tuple[Path, Weights]:
    """The folder of the package's model, and one hash over all files in it that are read."""
    package = package_folder("pocketsphinx")
    if package is None or not (package / MODEL).is_dir():
        raise WeightsMissing(
            "PocketSphinx: not installed; pip install 'takin-vc-bench[pocketsphinx]' (29 MB)"
        )
    folder = package / MODEL
    acoustic = sorted(file for file in (folder / ACOUSTIC).rglob("*") if file.is_file())
    files = [folder / LANGUAGE, folder / DICTIONARY, *acoustic]
    hashes = [[file.relative_to(folder).as_posix(), sha256_of(file)] for file in files]
    weights = Weights("PocketSphinx en-us", str(folder), fingerprint(hashes), "BSD-2-Clause")
    return folder, weights
