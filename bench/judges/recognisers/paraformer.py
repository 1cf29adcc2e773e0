"""Paraformer as a recogniser of Mandarin (Gao et al. 2022, arXiv 2206.08317), by FunASR's package.

It is seed-tts-eval's judge of Mandarin (`paraformer-zh` in its run_wer.py).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from bench.audio import Waveform
from bench.devices import torch_device
from bench.files import package_folder
from bench.judges import identity
from bench.judges.recognisers import Transcript
from bench.weights import Weights
from bench.weights.find import HubFiles, WeightsMissing, find_folder

SAMPLE_RATE = 16_000  # Hz
# The repository that FunASR's name `paraformer-zh` stands for on this hub, at its last change.
FILES = HubFiles(
    "funasr/paraformer-zh",
    files=(
        *("model.pt", "config.yaml", "configuration.json"),
        *("tokens.json", "seg_dict", "am.mvn"),
    ),
    revision="5ed094cdfc8f6a9b6b022bd08bc904ef862bc79e",
    size=889_000_000,
)


class Paraformer:
    """Paraformer-large, Mandarin, greedy: one clip at a time, without hot words or punctuation.

    FunASR reads model.pt with `torch.load`, which since torch 2.6 unpickles tensors only.

    Args:
        weights: a folder with the files of `FILES`; None for the hub's cache.
        device: where torch runs it; see `bench.devices.torch_device`.

    Raises:
        WeightsMissing: if the package or the weights are not there.
    """

    VERSION = 1
    networks = ("paraformer-zh",)
    languages = frozenset(("zh",))

    def __init__(self, weights: str | None = None, device: str = "auto") -> None:
        if package_folder("funasr") is None:
            raise WeightsMissing(
                "Paraformer: funasr is not installed; "
                "pip install funasr 'takin-vc-bench[mandarin]' (MIT; many dependencies)"
            )
        self.device = torch_device(device)
        self._folder, self._weights = find_folder(
            "Paraformer", FILES, given=weights, licence="FunASR Model License 1.1"
        )

    @property
    def weights(self) -> tuple[Weights, ...]:
        return self._weights

    @property
    def fingerprint(self) -> str:
        return identity("paraformer", self.VERSION, self.weights, packages=["funasr"])

    @cached_property
    def model(self) -> Any:
        """FunASR's AutoModel over the local files, loaded when first used."""
        from funasr import AutoModel

        return AutoModel(
            model=str(self._folder),
            device=str(self.device),
            ncpu=torch.get_num_threads(),
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
        )

    def transcribe(self, waveforms: Sequence[Waveform], language: str = "zh") -> list[Transcript]:
        """One transcript a waveform: characters, as FunASR writes them with spaces between."""
        return [self._transcribe(w.resample(SAMPLE_RATE)) for w in waveforms]

    def _transcribe(self, waveform: Waveform) -> Transcript:
        if not len(waveform.samples):
            return Transcript("")
        # By itself: padding in a batch moves what its encoder computes.
        results = self.model.generate(input=waveform.samples.numpy(), fs=SAMPLE_RATE, batch_size=1)
        return Transcript(str(results[0]["text"]).strip() if results else "")
