"""Content: words and expression of the source, frame by frame, with as little of its timbre as
possible.

Takin-VC §3.2: two frozen models encode the source. A speech recogniser's features (PPG) hold the
words and hardly the voice; a self-supervised model's features (SSL) hold expression too, and lose
their timbre by vector quantisation. A small convolution learns to put the second into the first.

    waveform (B, T) -> ssl (B, L1, C1) -> quantizer -> conv -.
                    -> ppg (B, L2, C2) ---------------------- fusion -> content (B, L2, dim)

The front ends are in `takin_vc.frontends`; their protocol is `takin_vc.frontends.base`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from takin_vc.frontends.base import FrameFeatures
from takin_vc.layers import FrameConv, masked
from takin_vc.quantize import VectorQuantizer


@dataclass(frozen=True, eq=False)
class Content:
    """The output of the content encoder.

    Attributes:
        features: (B, L, dim), 0 on padding.
        mask: (B, L), True on valid frames.
        commitment: the quantiser's commitment loss, a scalar; 0 without a quantiser.
        codes: the quantiser's codes, (B, L1) at the rate of the SSL, -1 on padding; None without.
    """

    features: Tensor
    mask: Tensor
    commitment: Tensor
    codes: Tensor | None = None


class HybridContentEncoder(nn.Module):
    """Fuses the recogniser's features with the quantised self-supervised ones (§3.2, equation 1 of
    each paper).

    acl:  content = LeakyReLU_0.2(Conv1d(VQ(ssl))) * ppg, the first factor interpolated to the
        PPG's frames
    iclr: content = ReLU(Conv1d(a_ssl * VQ(ssl) + a_ppg * ppg)), a_ssl and a_ppg learned

    ACL §4.4 has "several convolutional layers, an activation layer, and weighted summation", which
    fits ICLR's equation better than ACL's; the equations are followed, with one convolution. Not
    stated, and chosen: kernel 3; linear interpolation; ICLR's quantised SSL is interpolated before
    the sum, and its weights start at 1/2 each. Where the equations need equal channels and a front
    end has others, a linear layer without bias brings it to `dim`; HybridFormer's 512 need none.
    Without `ssl` the content of `acl` is the PPG, without `ppg` it is the left factor; `iclr` loses
    a term (ACL table 3, w/o SSL and w/o ppg).

    Both front ends are frozen: no gradients, always in evaluation mode.

    Args:
        ssl: self-supervised front end; None is the ablation w/o ssl.
        ppg: recogniser's front end; None is the ablation w/o ppg.
        quantizer: of the SSL features; None leaves them as they are.
        dim: channels of the content. 512 is what HiFi-Codec's decoder takes.
        fusion: "acl" or "iclr".
        kernel_size: of the convolution; odd.

    Raises:
        ValueError: if neither front end is given, or sizes do not fit.
    """

    def __init__(
        self,
        ssl: FrameFeatures | None,
        ppg: FrameFeatures | None,
        quantizer: VectorQuantizer | None,
        *,
        dim: int = 512,
        fusion: Literal["acl", "iclr"] = "acl",
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if ssl is None and ppg is None:
            raise ValueError("content needs a front end: ssl and ppg are both None")
        if fusion not in ("acl", "iclr"):
            raise ValueError(f"fusion must be 'acl' or 'iclr', not {fusion!r}")
        if ssl is not None and quantizer is not None and ssl.dim != quantizer.dim:
            raise ValueError(f"{ssl.name} has {ssl.dim} channels, the quantizer {quantizer.dim}")
        self.ssl = ssl
        self.ppg = ppg
        self.quantizer = quantizer if ssl is not None else None
        self.dim = dim
        self.fusion = fusion
        self.frame_rate = (ppg or ssl).frame_rate  # type: ignore[union-attr]
        self.ppg_projection = None if ppg is None else _projection(ppg.dim, dim)
        self.ssl_projection: nn.Module | None = None
        self.conv: FrameConv | None = None
        if fusion == "iclr":
            self.ssl_projection = None if ssl is None else _projection(ssl.dim, dim)
            self.ssl_weight = nn.Parameter(torch.tensor(0.5))
            self.ppg_weight = nn.Parameter(torch.tensor(0.5))
            self.conv = FrameConv(dim, dim, kernel_size)
        elif ssl is not None:
            self.conv = FrameConv(ssl.dim, dim, kernel_size)
        for front_end in (ssl, ppg):
            if isinstance(front_end, nn.Module):
                front_end.requires_grad_(False).eval()

    @property
    def name(self) -> str:
        """The front ends, for results."""
        return " + ".join(part.name for part in (self.ssl, self.ppg) if part is not None)

    def train(self, mode: bool = True) -> "HybridContentEncoder":
        """As usual, except that the front ends stay in evaluation mode."""
        super().train(mode)
        for front_end in (self.ssl, self.ppg):
            if isinstance(front_end, nn.Module):
                front_end.eval()
        return self

    def forward(self, waveform: Tensor, lengths: Tensor) -> Content:
        """The content of each waveform.

        Args:
            waveform: (B, T) at 16 kHz, in [-1, 1].
            lengths: samples of each, (B,).
        """
        with torch.no_grad():
            ssl = (None, None) if self.ssl is None else self.ssl(waveform, lengths)
            ppg = (None, None) if self.ppg is None else self.ppg(waveform, lengths)
        return self.forward_features(*ssl, *ppg)

    def forward_features(
        self,
        ssl_features: Tensor | None,
        ssl_mask: Tensor | None,
        ppg_features: Tensor | None,
        ppg_mask: Tensor | None,
    ) -> Content:
        """As `forward`, from the front ends' features: they are frozen and can be prepared once.

        Args:
            ssl_features: (B, L1, C1), None without an SSL front end.
            ssl_mask: (B, L1).
            ppg_features: (B, L2, C2), None without a PPG front end.
            ppg_mask: (B, L2).

        Raises:
            ValueError: if features are given for a front end that is not there, or the reverse.
        """
        for name, front_end, given in (
            ("ssl", self.ssl, ssl_features),
            ("ppg", self.ppg, ppg_features),
        ):
            if (front_end is None) != (given is None):
                raise ValueError(
                    f"this content encoder has {'no ' * (front_end is None)}{name} front end, "
                    f"and {name} features are {'missing' if given is None else 'given'}"
                )
        mask = ssl_mask if ppg_mask is None else ppg_mask
        assert mask is not None
        codes = None
        commitment = torch.zeros((), device=mask.device)
        ssl, ppg = ssl_features, ppg_features
        if ssl is not None and self.quantizer is not None:
            quantized = self.quantizer(ssl, ssl_mask)
            ssl, codes, commitment = quantized.features, quantized.codes, quantized.commitment
        if ppg is not None and self.ppg_projection is not None:
            ppg = self.ppg_projection(ppg)
        if self.fusion == "acl":
            features = self._multiply(ssl, ssl_mask, ppg, mask)
        else:
            features = self._add(ssl, ssl_mask, ppg, mask)
        return Content(masked(features, mask), mask, commitment, codes)

    def _multiply(
        self, ssl: Tensor | None, ssl_mask: Tensor | None, ppg: Tensor | None, mask: Tensor
    ) -> Tensor:
        """ACL, equation 1."""
        if ssl is None or ssl_mask is None or self.conv is None:
            assert ppg is not None
            return ppg
        gate = F.leaky_relu(self.conv(ssl, ssl_mask), 0.2)
        return gate if ppg is None else resize_frames(gate, ssl_mask, mask) * ppg

    def _add(
        self, ssl: Tensor | None, ssl_mask: Tensor | None, ppg: Tensor | None, mask: Tensor
    ) -> Tensor:
        """ICLR, equation 1."""
        terms = []
        if ssl is not None and ssl_mask is not None and self.ssl_projection is not None:
            ssl = self.ssl_projection(ssl)
            terms.append(self.ssl_weight * resize_frames(ssl, ssl_mask, mask))
        if ppg is not None:
            terms.append(self.ppg_weight * ppg)
        assert self.conv is not None
        return F.relu(self.conv(torch.stack(terms).sum(0), mask))


def resize_frames(features: Tensor, mask: Tensor, new_mask: Tensor) -> Tensor:
    """Stretches each utterance's valid frames over its valid frames in `new_mask`, linearly.

    For one utterance the same as `F.interpolate(mode="linear")`, whatever the padding.

    Args:
        features: (B, L, C).
        mask: (B, L), True on the first frames of each.
        new_mask: (B, L'), True on the first frames of each.

    Returns:
        (B, L', C); 0 on padding.
    """
    lengths, new_lengths = mask.sum(1, keepdim=True), new_mask.sum(1, keepdim=True)
    index = torch.arange(new_mask.shape[1], device=features.device)
    position = (index + 0.5) * (lengths / new_lengths.clamp(min=1)) - 0.5  # (B, L')
    position = torch.minimum(position.clamp(min=0), (lengths - 1).clamp(min=0))
    left = position.floor().long()
    right = torch.minimum(left + 1, (lengths - 1).clamp(min=0))
    weight = (position - left)[..., None].to(features.dtype)

    def at(frames: Tensor) -> Tensor:
        return features.gather(1, frames[..., None].expand(-1, -1, features.shape[2]))

    return masked(torch.lerp(at(left), at(right), weight), new_mask)


def _projection(channels: int, dim: int) -> nn.Module:
    return nn.Identity() if channels == dim else nn.Linear(channels, dim, bias=False)
