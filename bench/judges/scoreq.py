"""SCOREQ: predicted naturalness of synthetic speech (Ragano, Skoglund and Hines 2024, NeurIPS,
arXiv 2410.06675), without a reference.

wav2vec 2.0 base, the mean of its frames at unit length, and a line from there to the opinion. The
weights are those that its authors trained on BVCC ("adapt_nr_synthetic"). The state dict of the
file loads as it is published; files of another form are refused.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.devices import torch_device
from bench.judges import Converted, SelfTest, Value, identity
from bench.judges.ladder import noise_ladder
from bench.judges.nn import wav2vec2 as wave
from bench.judges.nn.batches import clips_of, full_precision, in_batches, mask, masked_mean, pad
from bench.trials import Utterance
from bench.weights import Weights
from bench.weights.find import WebFile, find
from bench.weights.state import load_state, read_state

NAME = "SCOREQ (synthetic, no reference)"
FILE = "adapt_nr_synthetic.pt"
URL = f"https://zenodo.org/records/13860326/files/{FILE}"
SIZE = 380_000_000  # bytes, about: wav2vec 2.0 base in single precision

# fairseq's name of a tensor that only training uses; inference-only copies leave it out.
TRAINING_ONLY = f"pt_model.ssl_model.{wave.fairseq_name(wave.TRAINING_ONLY)}"

SAMPLE_RATE = 16_000  # Hz
MULTIPLE = 320  # samples: clips get zeros behind them up to a multiple, which count as sound
SHORTEST = 2 * MULTIPLE  # samples: one frame needs 400

CLEAN_AT_LEAST, DROP_AT_LEAST = 3.0, 1.0  # of the noise ladder, as for UTMOS


class SCOREQNetwork(nn.Module):
    """The network; `embedding` is part of the published file and of training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.wav2vec2 = wave.base()
        self.embedding = nn.Linear(768, 256)
        self.opinion = nn.Linear(768, 1)

    def forward(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """samples (B, T) at 16 kHz, lengths (B,) of at least 400 -> opinions (B,), about 1 to 5."""
        output, frames = wave.forward(self.wav2vec2, samples, lengths)
        features = output.last_hidden_state.transpose(1, 2)  # (B, 768, L)
        valid = mask(frames, features.shape[2])[:, None]
        mean = masked_mean(features, valid)[..., 0]
        opinions: Tensor = self.opinion(F.normalize(mean, dim=1))[:, 0]
        return opinions


def published_name(name: str) -> str:
    """The name in the published file of the tensor `name` of a `SCOREQNetwork`."""
    part, _, rest = name.partition(".")
    if part == "wav2vec2":
        return f"pt_model.ssl_model.{wave.fairseq_name(rest)}"
    return f"{'mos_layer' if part == 'opinion' else 'pt_model.embedding_layer.1'}.{rest}"


def load(path: str | Path) -> SCOREQNetwork:
    """The network with the weights of the published file, on the CPU, ready to predict.

    Raises:
        UserError: if the file holds something else; names the first tensor that differs.
    """
    remedy = f"get it from {URL}"
    state = {TRAINING_ONLY: torch.zeros(768)} | read_state(path, NAME, remedy)
    with torch.device("meta"):  # shapes only: every value comes from the file
        model = SCOREQNetwork()
    load_state(model, state, path, NAME, remedy, published_name)
    return model.requires_grad_(False).eval()


class SCOREQ:
    """SCOREQ: `scoreq`, a predicted opinion of 1 to 5 on synthetic speech.

    Input is resampled to 16 kHz (by soxr, where the authors' code uses torchaudio). Padding of a
    batch is masked; the zeros up to a multiple of 20 ms are the authors' own.

    Args:
        weights: the published file; None for torch.hub's cache and the one of the package scoreq.
        device: where torch runs it; see `bench.devices.torch_device`.
        batch_size: most clips computed at once; changes memory and time, not scores.

    Raises:
        WeightsMissing: if the weights are not on this machine.
        UserError: at the first score, if they are something else.
    """

    VERSION = 1
    networks = ("scoreq",)
    reads = frozenset({"converted"})
    metrics = ("scoreq",)
    needs_source_words = False

    def __init__(
        self, weights: str | None = None, device: str = "auto", batch_size: int = 8
    ) -> None:
        self.device = torch_device(device)
        self.batch_size = batch_size
        hub = Path(torch.hub.get_dir()) / "checkpoints" / FILE
        of_package = Path.home() / ".cache" / "scoreq" / "pt-models" / FILE
        self.weights: tuple[Weights, ...] = (
            find(
                NAME,
                given=weights,
                candidates=[hub, of_package],
                how=WebFile(URL, hub, size=SIZE),
                sha256=None,  # its authors publish none
                licence="not stated (the code is MIT)",
            ),
        )

    @property
    def fingerprint(self) -> str:
        return identity("scoreq", self.VERSION, self.weights, packages=["transformers"])

    @cached_property
    def model(self) -> SCOREQNetwork:
        """The network, loaded when first used."""
        return load(self.weights[0].path).to(self.device)

    def score(self, items: Sequence[Converted]) -> list[dict[str, Value]]:
        clips = clips_of(items, SAMPLE_RATE)
        return [{"scoreq": min(max(value, 1.0), 5.0)} for value in self.predict(clips)]

    def predict(self, clips: Sequence[Tensor]) -> list[float]:
        """Clips (T,) at 16 kHz → the opinion on each, not clipped."""
        return in_batches([filled(clip) for clip in clips], self.batch_size, self._predict)

    def _predict(self, batch: Sequence[Tensor]) -> list[float]:
        model = self.model
        with full_precision():
            opinions: list[float] = model(*pad(batch, self.device)).tolist()
            return opinions

    def self_test(self, recordings: Sequence[Utterance]) -> SelfTest:
        """See `bench.judges.ladder.noise_ladder`."""
        return noise_ladder(
            lambda clips: self.predict([torch.from_numpy(clip) for clip in clips]),
            recordings,
            sample_rate=SAMPLE_RATE,
            at_least=CLEAN_AT_LEAST,
            drop=DROP_AT_LEAST,
        )


def filled(clip: Tensor) -> Tensor:
    """A clip (T,) with zeros behind it up to a multiple of 320 samples, at least 640."""
    return F.pad(clip, (0, max(-len(clip) % MULTIPLE, SHORTEST - len(clip))))
