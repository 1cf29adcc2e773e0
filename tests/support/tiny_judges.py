"""Models with random weights in the formats in which the judges' weights are published."""

import json
from pathlib import Path

import torch
from torch import Tensor

from bench.audio import Waveform
from bench.trials import Utterance

# Of the CTC recognisers: every character is a token, "|" is the space.
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
VOCABULARY = {letter: number for number, letter in enumerate(LETTERS)}
CONVOLUTIONS = [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]  # kernel, stride: wav2vec 2.0's


def random_tensors(
    shapes: dict[str, tuple[int, ...]], seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Random weights that let signals through: neither vanishing nor exploding."""
    generator = torch.Generator(device).manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.empty(shape, device=device)
        if name.endswith("num_batches_tracked"):
            values = torch.tensor(1)
        elif name.endswith(("weight_g", "running_var")) or (
            values.ndim == 1 and name.endswith("weight")
        ):
            values.uniform_(0.5, 1.5, generator=generator)
        elif values.ndim <= 1 or name.endswith(("_emb", "grep_a", "feature_weight")):
            values.normal_(std=0.3, generator=generator)
        else:
            values.normal_(std=1.2 / values[0].numel() ** 0.5, generator=generator)
        state[name] = values
    return state


def unispeech_shapes(
    hidden: int, layers: int, heads: int, feedforward: int, conv: int, head: int = 512
) -> dict[str, tuple[int, ...]]:
    """Names and shapes in `wavlm_large_finetune.pth`, as UniSpeech's modules list them.

    Args:
        hidden, layers, heads, feedforward, conv: WavLM's sizes; 1024, 24, 16, 4096 and 512 there.
        head: channels of the ECAPA-TDNN.
    """
    wavlm = "feature_extract.model"
    shapes: dict[str, tuple[int, ...]] = {
        "feature_weight": (layers + 1,),
        f"{wavlm}.mask_emb": (hidden,),
        f"{wavlm}.post_extract_proj.weight": (hidden, conv),
        f"{wavlm}.post_extract_proj.bias": (hidden,),
        f"{wavlm}.layer_norm.weight": (conv,),
        f"{wavlm}.layer_norm.bias": (conv,),
        f"{wavlm}.encoder.pos_conv.0.bias": (hidden,),
        f"{wavlm}.encoder.pos_conv.0.weight_g": (1, 1, 128),
        f"{wavlm}.encoder.pos_conv.0.weight_v": (hidden, hidden // 16, 128),
        f"{wavlm}.encoder.layer_norm.weight": (hidden,),
        f"{wavlm}.encoder.layer_norm.bias": (hidden,),
        f"{wavlm}.encoder.layers.0.self_attn.relative_attention_bias.weight": (320, heads),
    }
    for n, (kernel, _) in enumerate(CONVOLUTIONS):
        layer = f"{wavlm}.feature_extractor.conv_layers.{n}"
        shapes[f"{layer}.0.weight"] = (conv, conv if n else 1, kernel)
        shapes[f"{layer}.2.1.weight"] = shapes[f"{layer}.2.1.bias"] = (conv,)
    for layer in (f"{wavlm}.encoder.layers.{n}" for n in range(layers)):
        for linear, size in {
            **{f"self_attn.{name}_proj": (hidden, hidden) for name in ("q", "k", "v", "out")},
            "self_attn.grep_linear": (8, hidden // heads),
            "fc1": (feedforward, hidden),
            "fc2": (hidden, feedforward),
        }.items():
            shapes[f"{layer}.{linear}.weight"], shapes[f"{layer}.{linear}.bias"] = size, size[:1]
        shapes[f"{layer}.self_attn.grep_a"] = (1, heads, 1, 1)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (hidden,)

    def conv1d(name: str, out: int, channels: int, kernel: int = 1) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, channels, kernel), (out,)

    def batch_norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    conv1d("layer1.conv", head, hidden, 5)
    batch_norm("layer1.bn", head)
    for block in ("layer2", "layer3", "layer4"):
        for part in ("Conv1dReluBn1", "Conv1dReluBn2"):
            conv1d(f"{block}.{part}.conv", head, head)
            batch_norm(f"{block}.{part}.bn", head)
        for n in range(7):
            conv1d(f"{block}.Res2Conv1dReluBn.convs.{n}", head // 8, head // 8, 3)
            batch_norm(f"{block}.Res2Conv1dReluBn.bns.{n}", head // 8)
        for name, size in {"linear1": (128, head), "linear2": (head, 128)}.items():
            shapes[f"{block}.SE_Connect.{name}.weight"] = size
            shapes[f"{block}.SE_Connect.{name}.bias"] = size[:1]
    conv1d("conv", 1536, 3 * head)
    conv1d("pooling.linear1", 128, 1536)
    conv1d("pooling.linear2", 1536, 128)
    batch_norm("bn", 3072)
    shapes["linear.weight"], shapes["linear.bias"] = (256, 3072), (256,)
    return shapes


def utmos_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes in `utmos22_strong_step7459_v1.pt`, as SpeechMOS' module lists them."""
    w2v = "wav2vec2"
    shapes: dict[str, tuple[int, ...]] = {
        "domain_emb": (1, 128),
        "judge_emb": (1, 128),
        f"{w2v}.mask_emb": (768,),
        f"{w2v}.feature_extractor.conv_layers.0.2.weight": (512,),
        f"{w2v}.feature_extractor.conv_layers.0.2.bias": (512,),
        f"{w2v}.layer_norm.weight": (512,),
        f"{w2v}.layer_norm.bias": (512,),
        f"{w2v}.post_extract_proj.weight": (768, 512),
        f"{w2v}.post_extract_proj.bias": (768,),
        f"{w2v}.encoder.pos_conv.0.bias": (768,),
        f"{w2v}.encoder.pos_conv.0.weight_g": (1, 1, 128),
        f"{w2v}.encoder.pos_conv.0.weight_v": (768, 48, 128),
        f"{w2v}.encoder.layer_norm.weight": (768,),
        f"{w2v}.encoder.layer_norm.bias": (768,),
        "projection.0.weight": (2048, 1024),
        "projection.0.bias": (2048,),
        "projection.2.weight": (1, 2048),
        "projection.2.bias": (1,),
    }
    for n, (channels, kernel) in enumerate([(1, 10), *[(512, 3)] * 4, *[(512, 2)] * 2]):
        shapes[f"{w2v}.feature_extractor.conv_layers.{n}.0.weight"] = (512, channels, kernel)
    for layer in (f"{w2v}.encoder.layers.{n}" for n in range(12)):
        for linear, size in {
            **{f"self_attn.{name}_proj": (768, 768) for name in ("q", "k", "v", "out")},
            "fc1": (3072, 768),
            "fc2": (768, 3072),
        }.items():
            shapes[f"{layer}.{linear}.weight"] = size
            shapes[f"{layer}.{linear}.bias"] = size[:1]
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (768,)
    for direction in ("", "_reverse"):
        shapes[f"blstm.weight_ih_l0{direction}"] = (2048, 768 + 128 + 128)
        shapes[f"blstm.weight_hh_l0{direction}"] = (2048, 512)
        shapes[f"blstm.bias_ih_l0{direction}"] = (2048,)
        shapes[f"blstm.bias_hh_l0{direction}"] = (2048,)
    return shapes


def random_utmos() -> dict[str, Tensor]:
    """Random weights in UTMOS22 strong's format whose scores differ from clip to clip by tenths."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in utmos_shapes().items():
        values = torch.empty(shape)
        if name.endswith("_emb"):
            values.normal_(generator=generator)
        elif name.endswith("weight_g") or (values.ndim == 1 and name.endswith("weight")):
            values.uniform_(0.5, 1.5, generator=generator)
        elif values.ndim == 1:
            values.normal_(std=0.1, generator=generator)
        else:
            values.normal_(std=1.4 / values[0].numel() ** 0.5, generator=generator)
        state[name] = values
    return state


# A WavLM of a few kilobytes under the head of the published size.
SMALL = {"hidden": 32, "layers": 2, "heads": 4, "feedforward": 64, "conv": 16}
SMALL_WAVLM = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "max_bucket_distance": 800,
}


def write_unispeech(path: Path, seed: int = 0) -> Path:
    """A small model in the format of `wavlm_large_finetune.pth`, with what training left in it."""
    state = random_tensors(unispeech_shapes(**SMALL), seed)
    state["loss_calculator.projection.weight"] = torch.zeros(7, 256)
    torch.save({"model": state}, path)
    return path


def write_hub_folder(folder: Path, model: object, vocabulary: dict[str, int] | None = None) -> Path:
    """A folder as a repository of the hub has it: config, preprocessor, weights, vocabulary."""
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    settings = {"do_normalize": vocabulary is not None, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    if vocabulary is not None:
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder


def pieces(recordings: list[Utterance], samples: list[int]) -> list[Waveform]:
    """Pieces of real speech of so many samples at 16 kHz, each of another recording."""
    clips = []
    for n, size in enumerate(samples):
        whole = recordings[7 * n % len(recordings)].load()
        clips.append(Waveform(whole.samples[4000 : 4000 + size].clone(), whole.sample_rate))
    return clips
