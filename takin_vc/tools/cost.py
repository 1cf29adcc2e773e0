"""Counts parameters and multiply-accumulates of every part of a model, and lists its shapes.

    python -m takin_vc.tools.cost model=acl
    python -m takin_vc.tools.cost model=mini seconds=5 model.steps=4

Nothing is computed: the parts run on tensors that have shapes and no values.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from whisper.audio import mel_filters

from takin_vc.config import ConfigError, build_model, is_number, load
from takin_vc.flow import EVALUATIONS
from takin_vc.frontends.base import SAMPLE_RATE
from takin_vc.inputs import SHORTEST_REFERENCE, SHORTEST_SOURCE
from takin_vc.model import TakinVC

WHISPER_MELS = (80, 128)  # bands that there are Whispers for


@dataclass(frozen=True)
class Part:
    """What one part of a model costs for one conversion.

    Attributes:
        name: of the part.
        shapes: of input and output, batch 1.
        parameters: how many it has.
        trained: how many of these the conversion stage trains.
        macs: multiply-accumulates of its matrix products and convolutions; Fourier transforms,
            norms and activations are left out.
    """

    name: str
    shapes: str
    parameters: int
    trained: int
    macs: int


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    return sdpa_flop_count(query, key, value)


# The counter of torch 2.11 knows every form of attention but the one that runs on CPUs.
ATTENTION_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}


def multiply_accumulates(run: Callable[[], Any]) -> tuple[Any, int]:
    """What `run` returns, and the multiply-accumulates of its matrix products and convolutions."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_CPU) as counter:
        output = run()
    return output, counter.get_total_flops() // 2  # it counts a multiplication and an addition


def summarise(config: Mapping[str, Any], seconds: float, reference_seconds: float) -> list[Part]:
    """The costs of converting `seconds` of source with `reference_seconds` of reference.

    Args:
        config: the model's settings.
        seconds: of source; counted in one piece, however long.
        reference_seconds: of reference.

    Raises:
        ConfigError: if the settings describe no model, or the model converts nothing so short.
    """
    for name, value, least in (
        ("seconds", seconds, SHORTEST_SOURCE),
        ("reference_seconds", reference_seconds, SHORTEST_REFERENCE),
    ):
        if not is_number(value, least):
            raise ConfigError(f"{name}={value}; it must be a number from {least} on")
    # whisper keeps the filters that it has read: they must be read before tensors are fake.
    for n_mels in WHISPER_MELS:
        mel_filters("cpu", n_mels)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        return _parts(build_model(config).eval(), seconds, reference_seconds)


def _parts(model: TakinVC, seconds: float, reference_seconds: float) -> list[Part]:
    content, mel = model.content, model.mel
    parts: list[Part] = []

    def count(name: str, module: nn.Module, arrow: str, run: Callable[[], Any]) -> Any:
        output, macs = multiply_accumulates(run)
        shape = _shape(output)
        weights = list(module.parameters())
        parts.append(
            Part(
                name,
                f"{arrow} -> {shape}",
                sum(w.numel() for w in weights),
                sum(w.numel() for w in weights if w.requires_grad),
                macs,
            )
        )
        return output

    source, lengths = _speech(seconds, SAMPLE_RATE)
    streams = []
    for name, front_end in (("content.ssl", content.ssl), ("content.ppg", content.ppg)):
        if isinstance(front_end, nn.Module):
            streams += count(
                name, front_end, _shape(source), lambda part=front_end: part(source, lengths)
            )
        else:
            streams += [None, None]
    fusion = nn.ModuleList(
        part for name, part in content.named_children() if name not in ("ssl", "ppg")
    )
    fused = nn.Module()
    fused.parts = fusion
    shapes = " and ".join(_shape(x) for x in streams[::2] if x is not None)
    encoded = content.forward_features(*streams)
    count("content fusion", fused, shapes, lambda: content.forward_features(*streams).features)

    reference, reference_lengths = _speech(reference_seconds, SAMPLE_RATE)
    tokens_dim, vector = mel.n_mels, None
    if isinstance(model.voiceprint, nn.Module):
        voiceprint = model.voiceprint
        vector = count(
            "voiceprint",
            voiceprint,
            _shape(reference),
            lambda: voiceprint(reference, reference_lengths),
        )
        tokens_dim += vector.shape[1]
    frames = int(seconds * mel.frame_rate)
    tokens = torch.zeros(1, int(reference_seconds * mel.frame_rate), tokens_dim)
    context_dim = content.dim + tokens_dim - mel.n_mels
    if model.timbre is not None:
        timbre = model.timbre
        context_dim = timbre.dim
        count(
            "timbre",
            timbre,
            f"{_shape(encoded.features)} and {_shape(tokens)}",
            lambda: timbre(encoded.features, None, tokens, None),
        )
    memory = None
    if model.memory is not None:
        part = model.memory
        memory = count("memory", part, _shape(tokens), lambda: part(tokens))

    # What depends on the condition alone is computed once, the velocity at every step; under
    # guidance both are computed twice.
    branches = 2 if model.guidance > 0 else 1
    evaluations = model.steps * EVALUATIONS[model.solver] * branches
    noise, context = torch.zeros(1, mel.n_mels, frames), torch.zeros(1, frames, context_dim)
    prepared, once = multiply_accumulates(lambda: model.estimator.prepare(context, memory))
    velocity = count(
        "estimator",
        model.estimator,
        f"{_shape(noise)} and {_shape(context)}",
        lambda: model.estimator.velocity(noise, torch.zeros(1), prepared),
    )
    one = parts.pop()
    parts.append(
        Part(
            f"estimator x {evaluations}",
            one.shapes,
            one.parameters,
            one.trained,
            one.macs * evaluations + once * branches,
        )
    )
    count("vocoder", model.vocoder, _shape(velocity), lambda: model.vocoder(velocity))
    return parts


def table(parts: Sequence[Part], seconds: float) -> str:
    """The parts and their sum, a line each; multiply-accumulates per second of source."""
    total = Part(
        "all",
        "",
        sum(p.parameters for p in parts),
        sum(p.trained for p in parts),
        sum(p.macs for p in parts),
    )
    lines = [("part", "parameters", "trained", "GMAC/s", "shapes")]
    for part in [*parts, total]:
        lines.append(
            (
                part.name,
                f"{part.parameters / 1e6:.2f} M",
                f"{part.trained / 1e6:.2f} M",
                f"{part.macs / seconds / 1e9:.2f}",
                part.shapes,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {parameters:>{widths[1]}}  {trained:>{widths[2]}}  "
        f"{macs:>{widths[3]}}  {shapes}".rstrip()
        for name, parameters, trained, macs, shapes in lines
    )


def _speech(seconds: float, sample_rate: int) -> tuple[Tensor, Tensor]:
    samples = int(seconds * sample_rate)
    return torch.zeros(1, samples), torch.tensor([samples])


def _shape(output: Any) -> str:
    """The shape of the (first) tensor, written as B x L x C."""
    tensor = output[0] if isinstance(output, tuple) else output
    return " x ".join(str(int(size)) for size in tensor.shape)


def main(arguments: Sequence[str]) -> None:
    """Prints the table for Hydra overrides."""
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        return
    try:
        config = load(arguments)
        parts = summarise(config["model"], config["seconds"], config["reference_seconds"])
    except ValueError as error:  # of settings, ours or a part's
        sys.exit(f"error: {error}")
    print(
        f"{config['seconds']:g} s of source, {config['reference_seconds']:g} s of reference, "
        "batch 1; multiply-accumulates per second of source"
    )
    print(table(parts, config["seconds"]))


if __name__ == "__main__":
    main(sys.argv[1:])
