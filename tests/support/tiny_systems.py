"""Small models with random weights in the formats in which systems' weights are published."""

from pathlib import Path

import torch
from torch import Tensor

from tests.support.tiny_judges import SMALL, random_tensors, unispeech_shapes

# A vocoder of a few kilobytes with kNN-VC's hop; its input is the small WavLM's.
SMALL_VOCODER = {
    "features": SMALL["hidden"],
    "projected": 16,
    "channels": 16,
    "rates": (10, 8, 2, 2),
    "kernels": (20, 16, 4, 4),
}


def microsoft_shapes(**sizes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes under "model" of `WavLM-Large.pt`.

    Args:
        sizes: see `unispeech_shapes`.
    """
    inside = "feature_extract.model."  # of UniSpeech's file, which contains a WavLM
    shapes = unispeech_shapes(**sizes)
    return {k.removeprefix(inside): v for k, v in shapes.items() if k.startswith(inside)}


def microsoft_wavlm(seed: int = 0) -> dict[str, Tensor]:
    """A small WavLM as "model" of `WavLM-Large.pt` holds it."""
    return random_tensors(microsoft_shapes(**SMALL), seed)


def hifigan_shapes(
    features: int = 80,
    projected: int | None = None,
    channels: int = 512,
    rates: tuple[int, ...] = (8, 8, 2, 2),
    kernels: tuple[int, ...] = (16, 16, 4, 4),
) -> dict[str, tuple[int, ...]]:
    """Names and shapes under "generator" of a HiFi-GAN checkpoint, as its modules list them."""
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, *shape: int, out: int) -> None:
        shapes[f"{name}.bias"] = (out,)
        shapes[f"{name}.weight_g"] = (shape[0], 1, 1)
        shapes[f"{name}.weight_v"] = shape

    if projected is not None:
        shapes["lin_pre.weight"], shapes["lin_pre.bias"] = (projected, features), (projected,)
    convolution("conv_pre", channels, projected or features, 7, out=channels)
    for n, kernel in enumerate(kernels):
        halved = channels // 2
        convolution(f"ups.{n}", channels, halved, kernel, out=halved)
        channels = halved
        for m, size in enumerate((3, 7, 11)):
            for part in ("convs1", "convs2"):
                for i in range(3):
                    name = f"resblocks.{3 * n + m}.{part}.{i}"
                    convolution(name, channels, channels, size, out=channels)
    convolution("conv_post", 1, channels, 7, out=1)
    return shapes


def write_knn_vc(folder: Path, seed: int = 0) -> dict[str, str]:
    """Writes a small WavLM and a small vocoder in the release's formats; settings for `KNNVC`."""
    torch.save({"cfg": {}, "model": microsoft_wavlm(seed)}, folder / "wavlm.pt")
    generator = random_tensors(hifigan_shapes(**SMALL_VOCODER), seed + 1)  # type: ignore[arg-type]
    torch.save({"generator": generator}, folder / "vocoder.pt")
    return {"wavlm": str(folder / "wavlm.pt"), "vocoder": str(folder / "vocoder.pt")}
