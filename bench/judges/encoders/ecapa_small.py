"""A small ECAPA-TDNN trained by this project: a second speaker encoder that installs.

The network is that of `bench.judges.encoders.ecapa` with a quarter of the channels. It was trained
on speech of LibriSpeech, speechocean762, Common Voice and AN4 by `benchmarks.speaker_judge`, and is
part of no system. `bench/judges/data/ecapa_small/README.md` is its card.
"""

from pathlib import Path

import torch
from torch import Tensor

from bench.judges.encoders.ecapa import ECAPA, EcapaTDNN
from bench.weights import Weights
from bench.weights import find as weights
from bench.weights.state import load_state, read_state

NAME = "small ECAPA-TDNN"
HOW = "install takin-vc-bench again"
CHANNELS = 256
TRAINED = Path(__file__).parents[1] / "data" / "ecapa_small" / "encoder.safetensors"
TRAINED_SHA256 = "91915a6e2dc926e49b2d9e0ad6bb579aca68154a09ea87f7f04873280e42c05a"


class SmallECAPA(ECAPA):
    """Speaker embeddings (192,) by the small ECAPA-TDNN; cosines lie in [-1, 1].

    Args:
        weights: an `encoder.safetensors` of `benchmarks.speaker_judge.train`; None for the
            installed one.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not embeddings.

    Raises:
        UserError: if `weights` does not exist, or, on first use, if it holds other tensors.
    """

    NAME = "ecapa_small"
    VERSION = 1

    @property
    def networks(self) -> tuple[str, ...]:
        return ("ecapa-small",)

    @staticmethod
    def _find(given: str | None) -> Weights:
        return weights.find(
            NAME,
            given=given,
            candidates=[TRAINED],
            how=HOW,
            sha256=None if given else TRAINED_SHA256,
            licence="MIT",
        )

    @staticmethod
    def _load(path: Path) -> EcapaTDNN:
        stored = read_state(path, NAME, HOW)
        floats = {
            name: value.float()
            for name, value in stored.items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        state = {**stored, **floats}
        with torch.device("meta"):  # shapes only: every value comes from the file
            model = EcapaTDNN(CHANNELS)
        load_state(model.network, state, path, NAME, HOW)
        return model.requires_grad_(False).eval()
