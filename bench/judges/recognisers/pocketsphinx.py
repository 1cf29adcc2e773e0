"""PocketSphinx as a recogniser (Huggins-Daines et al. 2006): GMM-HMMs and an n-gram model.

Far less accurate than the neural recognisers and unrelated to all of them. No system is likely to
use it or to be trained with it, so that it can confirm the order of systems that they measure.
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

    A transcript depends on its sound alone: each utterance has a new decoder. A shared decoder
    would carry its noise estimate and the order of its Gaussians over from one utterance to the
    next; no call resets the second, and reading the model again takes a quarter of a second. The
    cepstral mean is that of the utterance (`cmn: batch`, in the model's settings).

    Raises:
        WeightsMissing: if the package is not installed.
    """

    VERSION = 1
    networks = ("pocketsphinx-en-us",)
    languages = frozenset(("en",))

    def __init__(self) -> None:
        self._folder, self._weights = _find()

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (self._weights,)

    @property
    def fingerprint(self) -> str:
        return identity("pocketsphinx", self.VERSION, self.weights, packages=["pocketsphinx"])

    def transcribe(self, waveforms: Sequence[Waveform], language: str = "en") -> list[Transcript]:
        """One transcript a waveform: words of its dictionary, no punctuation."""
        return [Transcript(self._decode(w.resample(SAMPLE_RATE))) for w in waveforms]

    def _decode(self, waveform: Waveform) -> str:
        samples = (waveform.samples.clamp(-1, 1) * 32767).round().to(torch.int16)
        if not samples.any():  # digital silence has no cepstral mean: a random word would result
            return ""
        decoder = _decoder(self._folder)
        decoder.start_utt()
        decoder.process_raw(samples.numpy().tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        return "" if best is None else str(best.hypstr)


def _decoder(folder: Path):  # type: ignore[no-untyped-def]
    """A new decoder."""
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
