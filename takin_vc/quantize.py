"""Vector quantisation: each frame becomes the nearest of a few thousand learned vectors, which
removes timbre."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from takin_vc.layers import masked
from takin_vc.mel import frame_mask


@dataclass(frozen=True, eq=False)
class Quantized:
    """Frames after quantisation.

    Attributes:
        features: the codebook's vector for each frame, (B, L, C); 0 on padding. Gradients pass
            straight through to the input.
        codes: which vector that is, (B, L) int64 in [0, K); -1 on padding.
        commitment: mean squared distance of the valid frames from their vectors, a scalar.
    """

    features: Tensor
    codes: Tensor
    commitment: Tensor


class VectorQuantizer(nn.Module):
    """EnCodec's quantiser with one codebook of 8200 vectors of 1024 channels (ACL §3.2, §4.4).

    The commitment loss is ACL's equation 5, where the sum runs over N = 1 quantisers. As in EnCodec
    (Défossez et al. 2022, §3.2), vectors are moving averages (decay 0.99) of the frames
    that chose them, they start as the k-means of the first batch (50 iterations), unused ones are
    replaced, gradients pass straight through, and the commitment loss is a mean over frames and
    channels.

    What follows, and the paper does not say: neither the vectors nor a frozen WavLM receive
    gradients, so with both the commitment loss trains nothing, whatever its weight; it shows how
    well the codebook fits.

    EnCodec replaces a vector that fewer than 2 frames a batch choose. With 8200 vectors and
    batches of a few thousand frames no vector reaches that, and every step would replace them all.
    Here a vector is dead when its moving average of uses falls below `dead_below` times an even
    share of the frames; it restarts at a random frame of the batch with an even share, so a
    replacement that nobody chooses lives ln(1 / dead_below) / (1 - decay) batches: 230.

    Args:
        dim: channels of a frame and of a codebook vector.
        codebook_size: vectors, K.
        decay: of the moving averages, per training batch.
        kmeans_iters: iterations of the first batch's k-means; 0 starts with random vectors.
        dead_below: share of an even use under which a vector is replaced; 0 never replaces.
        frozen: keep the codebook as it is while the rest trains (stage 2 in ICLR figure 2; ACL
            equation 5 trains it on). May be set later.
    """

    def __init__(
        self,
        dim: int = 1024,
        codebook_size: int = 8200,
        *,
        decay: float = 0.99,
        kmeans_iters: int = 50,
        dead_below: float = 0.1,
        frozen: bool = False,
    ) -> None:
        # It imports torch's compiler, a second: models without a quantiser do not wait for it.
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        if not 0 <= dead_below < 1:
            raise ValueError(f"dead_below ({dead_below}) must be in [0, 1)")
        self.dim = dim
        self.codebook_size = codebook_size
        self.dead_below = dead_below
        self.frozen = frozen
        self.vq = VectorQuantize(
            dim,
            codebook_size,
            decay=decay,
            kmeans_init=kmeans_iters > 0,
            kmeans_iters=kmeans_iters,
            threshold_ema_dead_code=dead_below,
            rotation_trick=False,
        )
        # The library starts at zeros where k-means is to come; an untrained model should still give
        # different codes to different frames.
        codebook = self.vq._codebook
        codebook.embed.copy_(torch.randn_like(codebook.embed))
        codebook.embed_avg.copy_(codebook.embed)

    # Needed only to continue training, and can be computed again: checkpoints leave it out.
    derived = ("vq._codebook.embed_avg",)

    def derive(self) -> None:
        """Computes the sums, whose means the vectors are, from the vectors and their counts."""
        codebook = self.vq._codebook
        codebook.embed_avg.copy_(codebook.embed * codebook.cluster_size[..., None])

    @property
    def codebook(self) -> Tensor:
        """The vectors, (K, C)."""
        codebook: Tensor = self.vq._codebook.embed[0]
        return codebook

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Quantized:
        """x (B, L, C), mask (B, L), True on valid frames -> Quantized. Training updates the
        codebook.

        Raises:
            ValueError: if x has other channels than the codebook.
        """
        if x.shape[-1] != self.dim:
            raise ValueError(f"features have {x.shape[-1]} channels, the codebook {self.dim}")
        if mask is None:
            mask = frame_mask(x.new_full((len(x),), x.shape[1], dtype=torch.long), x.shape[1])
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            inputs = x.detach().float()
            if self.training and not self.frozen:
                vectors, codes = self._learn(inputs, mask)
            else:
                codes = self._nearest(inputs)
                vectors = self.codebook[codes]
            vectors = masked(vectors.to(x.dtype), mask)
        distance = (x - vectors).float().square().mean(-1)
        commitment = distance.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)
        if x.requires_grad:
            vectors = masked(x + (vectors - x).detach(), mask)
        return Quantized(vectors, codes.masked_fill(~mask, -1), commitment)

    def _nearest(self, x: Tensor) -> Tensor:
        """Codes (B, L) of x (B, L, C), as the library's forward finds them, which stops the GPU."""
        codebook = self.codebook
        return (codebook.square().sum(-1) - 2 * x @ codebook.T).argmin(-1)

    def _learn(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, L, C) and codes (B, L) of x, before x moves the codebook."""
        codebook = self.vq._codebook
        even_use = codebook.cluster_size.mean()
        codebook.threshold_ema_dead_code = self.dead_below * even_use
        codebook.reset_cluster_size = even_use
        vectors, codes, _ = self.vq(x, mask=mask)
        return vectors, codes
