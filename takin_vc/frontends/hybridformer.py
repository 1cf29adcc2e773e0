"""HybridFormer: the speech recogniser whose encoder gives the phonetic posteriorgram (PPG).

Yang, Pan et al. 2023, "HybridFormer: improving SqueezeFormer with hybrid attention and NSR
mechanism" (arXiv 2303.08636): SqueezeFormer (Kim et al. 2022, arXiv 2206.00888) with linear
attention in some layers and softmax attention in the others (LASA), and depthwise convolutions
that train as several branches and run as one (NSR). Takin-VC uses "the 12-layer HybridFormer-base"
(both papers, §4.4), whose weights, width, frame rate and vocabulary are not public. Its authors'
repository (yygle/HybridFormer, commit 6a5735f) holds the branches, rotary positions and the search,
no encoder; that and the paper's abstract are all that was read. What is chosen, and why:

- Width 512, 8 heads, feed-forward 2048, kernel 31, 80 filter banks, halved in time before the sixth
  layer and restored before the last: WeNet's larger 12-layer SqueezeFormer recipe (the authors'
  code is written for WeNet), and 512 channels are what HiFi-Codec's decoder takes.
- Which layers attend linearly: those at 40 ms a frame (1-5 and 12), where sequences are longest;
  those at 80 ms attend by softmax.
- Linear attention: elu + 1 (Katharopoulos et al. 2020) with rotary positions in the numerator only
  (RoFormer, Su et al. 2021, equation 19). Softmax attention turns queries and keys by the same.
- The search for branches (NAS) is left out: the branches are an argument. All have stride 1 and odd
  kernels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, nn

from takin_vc.frontends.base import check_lengths
from takin_vc.frontends.squeezeformer import (
    SHORTEST,
    SUBSAMPLING,
    Block,
    RepConv1d,
    Subsampling,
    TimeReduction,
    subsampled_frames,
)
from takin_vc.layers import check_heads, masked
from takin_vc.mel import KaldiFbank, frame_mask
from takin_vc.tensors import WeightsError, load_tensors, read_tensors, reading, write_tensors

FBANK_FRAME_RATE = 100.0  # Hz: filter banks come every 10 ms


class HybridFormer(nn.Module):
    """Filter banks to one vector every 40 ms.

    Args:
        n_mels: filter banks.
        dim: channels; `heads` divides it into even widths.
        layers: blocks.
        heads: attention heads.
        reduce_at: block (from 0) before which time is halved to 80 ms a frame; None never halves.
        recover_at: block before which it is restored; after `reduce_at`.
        linear_layers: blocks that attend linearly; those at 40 ms a frame where None.
        feed_forward: width of the feed-forward modules, as a multiple of `dim`.
        kernel_size: of the depthwise convolutions.
        branch_kernels: of the parallel branches of each, smaller and odd.
        dropout: in training.
        vocabulary: outputs of the CTC head, blank first; None for none.
        fused: build the form that `fuse` gives, to load fused weights.

    Raises:
        ValueError: if the sizes do not fit each other.
    """

    fbank_mean: Tensor
    fbank_std: Tensor

    def __init__(
        self,
        *,
        n_mels: int = 80,
        dim: int = 512,
        layers: int = 12,
        heads: int = 8,
        reduce_at: int | None = 5,
        recover_at: int = 11,
        linear_layers: Sequence[int] | None = None,
        feed_forward: int = 4,
        kernel_size: int = 31,
        branch_kernels: Sequence[int] = (3, 5, 7),
        dropout: float = 0.1,
        vocabulary: int | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        if (dim // heads) % 2:
            raise ValueError(
                f"heads ({heads}) must divide dim ({dim}) into even widths, which rotary positions "
                "turn in pairs"
            )
        if n_mels < SHORTEST:
            raise ValueError(f"n_mels ({n_mels}) must be at least {SHORTEST}")
        if reduce_at is not None and not 0 <= reduce_at < recover_at < layers:
            raise ValueError(
                f"blocks must be in order: 0 <= reduce_at ({reduce_at}) < recover_at "
                f"({recover_at}) < layers ({layers}); reduce_at=None keeps time as it is"
            )
        if linear_layers is None:
            slow = range(0) if reduce_at is None else range(reduce_at, recover_at)
            linear_layers = [layer for layer in range(layers) if layer not in slow]
        self.config: dict[str, Any] = {
            "n_mels": n_mels,
            "dim": dim,
            "layers": layers,
            "heads": heads,
            "reduce_at": reduce_at,
            "recover_at": recover_at,
            "linear_layers": list(linear_layers),
            "feed_forward": feed_forward,
            "kernel_size": kernel_size,
            "branch_kernels": list(branch_kernels),
            "dropout": dropout,
            "vocabulary": vocabulary,
            "fused": fused,
        }
        self.dim = dim
        self.vocabulary = vocabulary
        self.reduce_at = reduce_at
        self.recover_at = recover_at
        # Mean and deviation of each filter bank over the training set, set by whoever trains.
        self.register_buffer("fbank_mean", torch.zeros(n_mels))
        self.register_buffer("fbank_std", torch.ones(n_mels))
        self.subsample = Subsampling(n_mels, dim, dropout)
        self.reduce = None if reduce_at is None else TimeReduction(dim)
        self.recover = None if reduce_at is None else nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                linear=layer in linear_layers,
                feed_forward=feed_forward,
                kernel_size=kernel_size,
                branch_kernels=branch_kernels,
                dropout=dropout,
                fused=fused,
            )
            for layer in range(layers)
        )
        self.ctc = None if vocabulary is None else nn.Linear(dim, vocabulary)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return FBANK_FRAME_RATE / SUBSAMPLING

    def frames(self, lengths: Tensor) -> Tensor:
        """How many frames come of `lengths` filter-bank frames."""
        return subsampled_frames(lengths)

    def forward(self, fbank: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """fbank (B, F, n_mels), mask (B, F) -> features (B, L, dim), mask (B, L); 0 on padding.

        Raises:
            ValueError: if there are fewer than 7 filter-bank frames.
        """
        if fbank.shape[1] < SHORTEST:
            raise ValueError(
                f"HybridFormer needs at least {SHORTEST} filter-bank frames (85 ms of speech), "
                f"not {fbank.shape[1]}"
            )
        # In float32: bfloat16 has steps of 1/16 among filter banks' values.
        x = (fbank.float() - self.fbank_mean.float()) / self.fbank_std.float()
        x, mask = self.subsample(x.to(self.subsample.conv.weight.dtype), mask)
        before: tuple[Tensor, Tensor] | None = None
        for layer, block in enumerate(self.blocks):
            if self.reduce is not None and layer == self.reduce_at:
                before = x, mask
                x, mask = self.reduce(x, mask)
            if self.recover is not None and before is not None and layer == self.recover_at:
                skip, mask = before
                x = x.repeat_interleave(2, dim=1)[:, : skip.shape[1]]
                x = skip + self.recover(x)
            x = block(x, mask)
        return masked(x, mask), mask

    def logits(self, features: Tensor) -> Tensor:
        """CTC logits (B, L, vocabulary) of features (B, L, dim), blank first.

        Raises:
            ValueError: if there is no CTC head.
        """
        if self.ctc is None:
            raise ValueError("this HybridFormer has no CTC head; build it with vocabulary=...")
        logits: Tensor = self.ctc(features)
        return logits

    def fuse(self) -> "HybridFormer":
        """Turns each convolution's branches and batch norms into one convolution, in place.

        For inference: the same function in evaluation mode, and no longer trainable as before.
        """
        for module in self.modules():
            if isinstance(module, RepConv1d):
                module.fuse()
        self.config["fused"] = True
        return self.eval()

    def save(self, folder: Path) -> None:
        """Writes `config.yaml` (the constructor's arguments) and `model.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        write_tensors(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "HybridFormer":
        """What `save` wrote, in evaluation mode.

        Raises:
            WeightsError: if a file is missing or does not fit.
        """
        config, weights = cls.find(folder)
        with reading(config, "no settings of a HybridFormer", "train it again"):
            model = cls(**yaml.safe_load(config.read_text(encoding="utf-8")))
        load_tensors(model, read_tensors(weights), weights)
        return model.eval()

    @staticmethod
    def find(folder: Path) -> list[Path]:
        """The two files that `save` wrote, or the WeightsError of `load`."""
        paths = [folder / "config.yaml", folder / "model.safetensors"]
        for path in paths:
            if not path.is_file():
                raise WeightsError(
                    f"{path}: no such file. The paper's HybridFormer (500,000 hours) is not "
                    "public: train one, or take a public recogniser for the PPG "
                    "(WhisperEncoderFeatures, HuBERTPosteriors)"
                )
        return paths


class HybridFormerPPG(nn.Module):
    """HybridFormer's frames as the PPG.

    The papers say neither what the PPG's channels are, nor whether it is posteriors or a
    bottleneck, and call both HybridFormer's output and its features PPG (§3.2). "bottleneck", the
    last block's output, is the default: 512 channels multiply with a 512-channel gate, where
    posteriors would multiply by nearly 0 almost everywhere.

    Args:
        hybridformer: trained, or not.
        output: "bottleneck", or "posteriors" of its CTC head.

    Raises:
        ValueError: if posteriors are asked of a HybridFormer without a CTC head.
    """

    def __init__(
        self,
        hybridformer: HybridFormer,
        *,
        output: Literal["bottleneck", "posteriors"] = "bottleneck",
    ) -> None:
        super().__init__()
        if output not in ("bottleneck", "posteriors"):
            raise ValueError(f"output must be 'bottleneck' or 'posteriors', not {output!r}")
        if output == "posteriors" and hybridformer.vocabulary is None:
            raise ValueError(
                "posteriors need a HybridFormer with a CTC head; build it with vocabulary=..."
            )
        self.fbank = KaldiFbank(n_mels=hybridformer.config["n_mels"])
        self.hybridformer = hybridformer.eval()
        self.output = output
        self.name = f"hybridformer-{hybridformer.dim}-{output}"
        self.dim = hybridformer.dim
        if output == "posteriors" and hybridformer.vocabulary is not None:
            self.dim = hybridformer.vocabulary
        self.frame_rate = hybridformer.frame_rate

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | None = None,
        *,
        output: Literal["bottleneck", "posteriors"] = "bottleneck",
    ) -> "HybridFormerPPG":
        """Random weights: `config` has `HybridFormer`'s arguments, its defaults where None."""
        return cls(HybridFormer(**(config or {})), output=output)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, output: Literal["bottleneck", "posteriors"] = "bottleneck"
    ) -> "HybridFormerPPG":
        """A HybridFormer that `HybridFormer.save` wrote, fused for inference.

        Raises:
            WeightsError: if there is none.
        """
        return cls(HybridFormer.load(Path(folder)).fuse(), output=output)

    @staticmethod
    def find_weights(folder: str | Path) -> list[Path]:
        """The two files of `from_pretrained`, or its WeightsError."""
        return HybridFormer.find(Path(folder))

    @property
    def config(self) -> dict[str, Any]:
        """What `from_config` needs to build one of this shape, plain values."""
        return {"config": dict(self.hybridformer.config), "output": self.output}

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """waveform (B, T) at 16 kHz, lengths (B,) -> features (B, L, dim), mask (B, L); 25 frames
        a second.

        Raises:
            ValueError: if a waveform is shorter than 85 ms.
        """
        shortest = self.fbank.win_length + 6 * self.fbank.hop_length
        check_lengths(waveform, lengths, shortest, self.name)
        fbank = self.fbank(waveform, lengths)
        mask = frame_mask(self.fbank.frames(lengths), fbank.shape[1])
        x, mask = self.hybridformer(fbank, mask)
        if self.output == "posteriors":
            x = masked(self.hybridformer.logits(x).float().softmax(-1).to(x.dtype), mask)
        return x, mask
