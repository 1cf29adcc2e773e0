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


# A DiffVC of a few kilobytes.
SMALL_DIFFVC = {
    "encoder": {
        "channels": 16,
        "filters": 24,
        "heads": 2,
        "layers": 2,
        "kernel": 3,
        "window": 4,
        "postnet": 8,
    },
    "decoder": {"channels": 16, "condition": 8, "speaker": 256},
}


def diffvc_shapes(
    encoder: dict[str, int] | None = None, decoder: dict[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published DiffVC checkpoint, as its modules list them.

    Args:
        encoder, decoder: sizes as in `SMALL_DIFFVC`; None for the published ones.
    """
    sizes = encoder or {
        "channels": 192,
        "filters": 768,
        "heads": 2,
        "layers": 6,
        "kernel": 3,
        "window": 4,
        "postnet": 128,
    }
    unet = decoder or {"channels": 256, "condition": 128, "speaker": 256}
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, out: int | None = None) -> None:
        """A weight, and a bias of `out` channels, or of the first axis."""
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (out or shape[0],)

    def channel_norm(name: str, channels: int) -> None:
        shapes[f"{name}.gamma"] = shapes[f"{name}.beta"] = (channels,)

    def block(name: str, channels: int, out: int, kernel: int = 3) -> None:
        layer(f"{name}.block.0", out, channels, kernel, kernel)
        layer(f"{name}.block.1", out)

    C, filters, postnet = sizes["channels"], sizes["filters"], sizes["postnet"]
    mel = "encoder.encoder"
    layer(f"{mel}.init_proj", C, 80, 1)
    for n in range(3):
        layer(f"{mel}.prenet.conv_layers.{n}", C, C, 5)
        channel_norm(f"{mel}.prenet.norm_layers.{n}", C)
    layer(f"{mel}.prenet.proj", C, C, 1)
    for n in range(sizes["layers"]):
        attention = f"{mel}.encoder.attn_layers.{n}"
        for part in "qkvo":
            layer(f"{attention}.conv_{part}", C, C, 1)
        for part in "kv":
            distances = (1, 2 * sizes["window"] + 1, C // sizes["heads"])
            shapes[f"{attention}.emb_rel_{part}"] = distances
        channel_norm(f"{mel}.encoder.norm_layers_1.{n}", C)
        channel_norm(f"{mel}.encoder.norm_layers_2.{n}", C)
        layer(f"{mel}.encoder.ffn_layers.{n}.conv_1", filters, C, sizes["kernel"])
        layer(f"{mel}.encoder.ffn_layers.{n}.conv_2", C, filters, sizes["kernel"])
    layer(f"{mel}.term_proj", 80, C, 1)
    layer("encoder.postnet.init_conv", postnet, 1, 1, 1)
    block("encoder.postnet.res_block.block1", postnet, postnet, kernel=7)
    block("encoder.postnet.res_block.block2", postnet, postnet, kernel=7)
    layer("encoder.postnet.res_block.res", postnet, postnet, 1, 1)
    layer("encoder.postnet.final_conv", 1, postnet, 1, 1)

    D, condition = unet["channels"], unet["condition"]
    base = "decoder.estimator"
    layer(f"{base}.mlp.0", 4 * D, D)
    layer(f"{base}.mlp.2", D, 4 * D)
    quarter = condition // 4
    layer(f"{base}.ref_block.mlp1.1", quarter, D)
    layer(f"{base}.ref_block.mlp2.1", 2 * quarter, D)
    for name, inputs, out in (
        ("block11", 1, 2),
        ("block12", quarter, 2),
        ("block21", quarter, 4),
        ("block22", 2 * quarter, 4),
        ("block31", 2 * quarter, 8),
        ("block32", 4 * quarter, 8),
    ):
        layer(f"{base}.ref_block.{name}.0", out * quarter, inputs, 3, 3)
        layer(f"{base}.ref_block.{name}.1", out * quarter)
    layer(f"{base}.ref_block.final_conv", condition, 4 * quarter, 1, 1)
    layer(f"{base}.cond_block.0", 4 * condition, D + unet["speaker"] + condition)
    layer(f"{base}.cond_block.2", condition, 4 * condition)

    def residual(name: str, channels: int, out: int) -> None:
        layer(f"{name}.mlp.1", out, D)
        block(f"{name}.block1", channels, out)
        block(f"{name}.block2", out, out)
        if channels != out:
            layer(f"{name}.res_conv", out, channels, 1, 1)

    def attend(name: str, channels: int) -> None:
        shapes[f"{name}.fn.g"] = (1,)
        shapes[f"{name}.fn.fn.to_qkv.weight"] = (384, channels, 1, 1)
        layer(f"{name}.fn.fn.to_out", channels, 128, 1, 1)

    for n, (inputs, out) in enumerate(((2 + condition, D), (D, 2 * D), (2 * D, 4 * D))):
        residual(f"{base}.downs.{n}.0", inputs, out)
        residual(f"{base}.downs.{n}.1", out, out)
        attend(f"{base}.downs.{n}.2", out)
        if n < 2:
            layer(f"{base}.downs.{n}.3.conv", out, out, 3, 3)
    residual(f"{base}.mid_block1", 4 * D, 4 * D)
    attend(f"{base}.mid_attn", 4 * D)
    residual(f"{base}.mid_block2", 4 * D, 4 * D)
    for n, (inputs, out) in enumerate(((8 * D, 2 * D), (4 * D, D))):
        residual(f"{base}.ups.{n}.0", inputs, out)
        residual(f"{base}.ups.{n}.1", out, out)
        attend(f"{base}.ups.{n}.2", out)
        layer(f"{base}.ups.{n}.3.conv", out, out, 4, 4)
    block(f"{base}.final_block", D, D)
    layer(f"{base}.final_conv", 1, D, 1, 1)
    return shapes


def random_diffvc(seed: int = 0) -> dict[str, Tensor]:
    """A small DiffVC with random weights, among them none that let its attention explode."""
    state = random_tensors(diffvc_shapes(**SMALL_DIFFVC), seed)
    for name, values in state.items():
        if name.endswith("to_qkv.weight"):  # the output grows with the product of q, k and v
            values *= 0.03
    return state


SMALL_FREEVC = {
    "features": SMALL["hidden"],
    "channels": 8,
    "latent": 6,
    "speaker": 256,
    "posterior_layers": 3,
    "flow_layers": 2,
    "flows": 2,
    "vocoder": 16,
}


def freevc_shapes(
    features: int = 1024,
    channels: int = 192,
    latent: int = 192,
    speaker: int = 256,
    posterior_layers: int = 16,
    flow_layers: int = 4,
    flows: int = 4,
    vocoder: int = 512,
) -> dict[str, tuple[int, ...]]:
    """Names and shapes under "model" of a FreeVC checkpoint that conversion needs."""
    shapes: dict[str, tuple[int, ...]] = {}

    def plain(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def normalised(name: str, *shape: int) -> None:
        shapes[f"{name}.bias"], shapes[f"{name}.weight_v"] = shape[:1], shape
        shapes[f"{name}.weight_g"] = (shape[0], 1, 1)

    def wave_net(name: str, layers: int) -> None:
        for n in range(layers):
            normalised(f"{name}.in_layers.{n}", 2 * channels, channels, 5)
            out = channels if n == layers - 1 else 2 * channels
            normalised(f"{name}.res_skip_layers.{n}", out, channels, 1)

    plain("enc_p.pre", channels, features, 1)
    wave_net("enc_p.enc", posterior_layers)
    plain("enc_p.proj", 2 * latent, channels, 1)
    for n in range(0, 2 * flows, 2):
        plain(f"flow.flows.{n}.pre", channels, latent // 2, 1)
        wave_net(f"flow.flows.{n}.enc", flow_layers)
        normalised(f"flow.flows.{n}.enc.cond_layer", 2 * channels * flow_layers, speaker, 1)
        plain(f"flow.flows.{n}.post", latent // 2, channels, 1)
    decoder = hifigan_shapes(latent, channels=vocoder, rates=(10, 8, 2, 2))
    for name, shape in decoder.items():
        if name.startswith(("ups", "resblocks")):  # its ends are not weight-normalised
            shapes[f"dec.{name}"] = shape
    plain("dec.conv_pre", vocoder, latent, 7)
    plain("dec.cond", vocoder, speaker, 1)
    shapes["dec.conv_post.weight"] = (1, vocoder // 16, 7)
    return shapes


def write_freevc(folder: Path, seed: int = 0) -> dict[str, str]:
    """Writes a small FreeVC with its WavLM and speaker encoder; settings for `FreeVC`."""
    state = random_tensors(freevc_shapes(**SMALL_FREEVC), seed)
    state["enc_p.proj.weight"] *= 0.3  # its second half is exponentiated
    state["enc_q.pre.weight"] = torch.zeros(3, 3)  # training alone needs it
    torch.save({"model": state, "iteration": 1, "optimizer": None}, folder / "freevc.pth")
    torch.save({"cfg": {}, "model": microsoft_wavlm(seed)}, folder / "wavlm.pt")
    encoder = random_tensors(
        {
            **{f"lstm.weight_ih_l{n}": (1024, 256 if n else 40) for n in range(3)},
            **{f"lstm.weight_hh_l{n}": (1024, 256) for n in range(3)},
            **{f"lstm.bias_{part}_l{n}": (1024,) for part in ("ih", "hh") for n in range(3)},
            "linear.weight": (256, 256),
            "linear.bias": (256,),
            "similarity_weight": (1,),
            "similarity_bias": (1,),
        },
        seed,
    )
    torch.save({"step": 1, "model_state": encoder}, folder / "speaker.pt")
    return {
        "weights": str(folder / "freevc.pth"),
        "wavlm": str(folder / "wavlm.pt"),
        "speaker": str(folder / "speaker.pt"),
    }
