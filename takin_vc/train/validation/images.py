"""Mel spectrograms as TensorBoard shows them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Log mel that is white, about the most of real speech: the same in every image, to compare steps.
LOUDEST = 1.0
GAP = 2  # rows between two spectrograms


def mel_image(mels: Sequence[Tensor], silence: float) -> Tensor:
    """Log mels one above the other, on one axis of time; the shorter ones end in silence.

    Args:
        mels: (n_mels, L) each, of any lengths.
        silence: log mel that is black.

    Returns:
        (1, H, L) float32 on the CPU, in [0, 1]: H is all bands and a white gap of `GAP` rows
        between any two, the lowest band of each mel at its bottom, L that of the longest.
    """
    frames = max(mel.shape[1] for mel in mels)
    rows: list[Tensor] = []
    for mel in mels:
        grey = ((mel.float().cpu() - silence) / (LOUDEST - silence)).clamp(0, 1)
        rows += [torch.ones(GAP, frames), F.pad(grey, (0, frames - mel.shape[1])).flip(0)]
    return torch.cat(rows[1:])[None]
