"""What `benchmarks.programs.compiler` measures: a model's parts, plain and hand-written."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from takin_vc import timbre
from takin_vc.content import Content
from takin_vc.fast import kernels
from takin_vc.fast.flow import FastEstimator, FastFlow
from takin_vc.fast.graphs import FRAME_BUCKET, Replayed
from takin_vc.fast.model import PARTS, FastContent, RecordedVoiceprint, accelerate, tf32
from takin_vc.fast.vocoder import FastBigVGAN
from takin_vc.flow import ConditionalFlow
from takin_vc.model import TakinVC
from takin_vc.timbre import CAMPPlusVoiceprint, MelVoiceprint, timbre_tokens
from takin_vc.tools.speed import noise

END = "end"
KERNEL_CALLS = 20  # in one graph: one call takes less than its launch
Wrap = Callable[[Any], Any]  # a function to itself, or to itself compiled


@dataclass(frozen=True)
class ComparedPart:
    """A part of the model with its inputs.

    Attributes:
        name: of the row.
        inputs: as the plain part in 32 bits takes them.
        plain: of a form ("float32", "tf32", "bfloat16") and what wraps its functions: the part.
        forms: that are measured, the hand-written path's first.
        fast: gives the hand-written part as a function without arguments; None: there is none.
        rewritten: likewise, its functions wrapped, Triton's kernels to be left out.
        calls: of the part in one call of these functions.
        recorded: whether the functions record a graph themselves.
    """

    name: str
    inputs: tuple[Tensor, ...]
    plain: Callable[[str, Wrap], Callable[..., Tensor]]
    forms: Sequence[str] = ("bfloat16",)
    fast: Callable[[], Callable[[], Tensor]] | None = None
    rewritten: Callable[[Wrap], Callable[[], Tensor]] | None = None
    calls: int = 1
    recorded: bool = False


@contextmanager
def without_length_checks() -> Iterator[None]:
    """Voiceprints read no lengths: that waits for the device, and breaks compiled code in two."""
    check = timbre._check_lengths
    timbre._check_lengths = lambda lengths: None
    try:
        yield
    finally:
        timbre._check_lengths = check


@contextmanager
def without_triton() -> Iterator[None]:
    """The hand-written parts use the PyTorch that stands beside their kernels."""
    runs = kernels._runs_triton
    kernels._runs_triton = lambda _: False
    try:
        yield
    finally:
        kernels._runs_triton = runs


def cast(module: nn.Module, form: str) -> nn.Module:
    """A copy whose weights have the form's precision."""
    module = copy.deepcopy(module)
    return module.bfloat16() if form == "bfloat16" else module


def low(*tensors: Tensor, form: str = "bfloat16") -> tuple[Tensor, ...]:
    """The tensors, those of 32 bits in the form's precision."""
    if form != "bfloat16":
        return tensors
    return tuple(x.bfloat16() if x.dtype == torch.float32 else x for x in tensors)


def front_end(module: Any, form: str) -> Any:
    """A copy of a front end whose network, but not its filter bank, has the form's precision."""
    module = copy.deepcopy(module)
    if form == "bfloat16":
        for name in ("model", "encoder", "hybridformer"):
            if hasattr(module, name):
                getattr(module, name).bfloat16()
    return module


def model_parts(
    model: TakinVC, name: str, seconds: float, reference_seconds: float
) -> list[ComparedPart]:
    """The part of this name with the inputs of a conversion; none where the model has no such."""
    module = getattr(model.content, name) if name in ("ssl", "ppg") else None
    if module is None and name != "flow" and getattr(model, name, None) is None:
        return []
    rate = model.sample_rate
    batch = model.prepare([noise(seconds, rate, 0)], [noise(reference_seconds, rate, 1000)])
    waveform, lengths = batch.source, batch.source_lengths
    reference = (batch.reference, batch.reference_lengths)
    if name in ("ssl", "ppg"):
        return [_front_end_part(model, name, (waveform, lengths))]
    if name == "content":
        return [_content_part(model, (waveform, lengths))]
    if name == "voiceprint":
        return [_voiceprint_part(model, reference)]
    content = model.content(waveform, lengths)
    if name in ("timbre", "memory"):
        vector = None if model.voiceprint is None else model.voiceprint(*reference)
        mel = (batch.reference_mel - model.mel_mean) / model.mel_std
        tokens = timbre_tokens(mel, vector, None, shuffle=False)
        if name == "memory":
            return [_simple_part(model, name, (tokens,))]
        return [_simple_part(model, name, (content.features, content.mask, tokens))]
    context, memory = model.condition(batch, content, torch.Generator(model.device).manual_seed(0))
    frames = int(batch.mel_lengths[0])
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, model.mel.n_mels, frames, generator=generator).to(model.device)
    if name == "flow":
        inputs = (start, context) if memory is None else (start, context, memory)
        return [_flow_part(model, inputs)]
    mel = _integrator(model, model.estimator, model.flow, lambda f: f)(start, context, memory)
    return [_vocoder_part(model, (mel * model.mel_std + model.mel_mean,))]


def _front_end_part(model: TakinVC, name: str, inputs: tuple[Tensor, ...]) -> ComparedPart:
    module = getattr(model.content, name)

    def plain(form: str, wrap: Wrap) -> Callable[..., Tensor]:
        run = wrap(front_end(module, form).forward)
        return lambda waveform, lengths: run(waveform, lengths)[0]

    def hand(wrap: Wrap) -> Callable[[], Tensor]:
        part = getattr(FastContent(model.content).part, name)
        run = wrap(part.forward)
        replay = Replayed(lambda *given: tuple(run(*given)), alone=True)

        def call() -> Tensor:
            with tf32(name == "ppg"):
                return replay(*inputs)[0]

        return call

    forms = ("float32" if name == "ssl" else "tf32", "bfloat16")
    return ComparedPart(name, inputs, plain, forms, lambda: hand(lambda f: f), hand)


def _content_part(model: TakinVC, inputs: tuple[Tensor, ...]) -> ComparedPart:
    def plain(form: str, wrap: Wrap) -> Callable[..., Tensor]:
        content: Any = model.content if form == "float32" else PlainContent(model.content, wrap)
        return lambda *given: content(*given).features

    def fast() -> Callable[[], Tensor]:
        content = FastContent(model.content)
        frames = model.content(*inputs).features.shape[1]
        return lambda: content(*inputs).features[:, :frames]

    return ComparedPart("content", inputs, plain, ("mixed",), fast)


class PlainContent(nn.Module):
    """The content encoder with the hand-written path's precisions, its parts wrapped.

    Args:
        content: stays as it is.
        wrap: of the front ends and of what comes after them.
    """

    def __init__(self, content: Any, wrap: Wrap) -> None:
        super().__init__()
        self.part = content
        self.name, self.dim, self.frame_rate = content.name, content.dim, content.frame_rate
        self.run_ssl = None if content.ssl is None else wrap(content.ssl.forward)
        self.run_ppg = None if content.ppg is None else wrap(content.ppg.forward)
        self.run_features = wrap(self._features)  # of tensors alone, which the compiler copies

    def forward(self, waveform: Tensor, lengths: Tensor) -> Any:
        """waveform (B, T) at 16 kHz, lengths (B,) -> Content."""
        with tf32(True):
            ppg = (None, None) if self.run_ppg is None else self.run_ppg(waveform, lengths)
        with tf32(False):
            ssl = (None, None) if self.run_ssl is None else self.run_ssl(waveform, lengths)
            features, mask = self.run_features(*ssl, *ppg)
        return Content(features, mask, features.new_zeros(()))

    def _features(self, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        content = self.part.forward_features(*inputs)
        return content.features, content.mask


def _voiceprint_part(model: TakinVC, inputs: tuple[Tensor, ...]) -> ComparedPart:
    module: Any = model.voiceprint

    def plain(form: str, wrap: Wrap) -> Callable[..., Tensor]:
        def forward(waveform: Tensor, lengths: Tensor) -> Tensor:
            device = waveform.device.type
            with torch.autocast(device, torch.bfloat16, enabled=form == "bfloat16"):
                return module(waveform, lengths)

        return wrap(forward)

    def fast() -> Callable[[], Tensor]:
        part = RecordedVoiceprint(module)
        return lambda: part(*inputs)

    by_hand = isinstance(module, CAMPPlusVoiceprint | MelVoiceprint)
    return ComparedPart(
        "voiceprint", inputs, plain, ("tf32", "bfloat16"), fast if by_hand else None
    )


def _simple_part(model: TakinVC, name: str, inputs: tuple[Tensor, ...]) -> ComparedPart:
    """Timbre or memory; the fast path records the plain one, padded to buckets."""
    module: Any = getattr(model, name)

    def plain(form: str, wrap: Wrap) -> Callable[..., Tensor]:
        part = cast(module, form)
        return wrap(lambda *given: part(*low(*given, form=form), None))

    def fast() -> Callable[[], Tensor]:
        part = getattr(accelerate(model, parts=[name]), name)
        return lambda: part(*low(*inputs), None)

    return ComparedPart(name, inputs, plain, ("bfloat16",), fast)


def _integrator(
    model: TakinVC, estimator: Any, flow: ConditionalFlow, wrap: Wrap
) -> Callable[..., Tensor]:
    """The mel in units of the flow, of (noise, context, memory); see `TakinVC._sample`."""
    prepare, velocity = wrap(estimator.prepare), wrap(estimator.velocity)

    def integrate(start: Tensor, context: Tensor, memory: Tensor | None = None) -> Tensor:
        drop = torch.ones(len(start), dtype=torch.bool, device=start.device)
        return flow.sample(
            lambda xt, t, condition: velocity(xt, t, condition[0]),
            start,
            (prepare(context, memory, None, None),),
            null=(prepare(context, memory, None, drop),) if model.guidance > 0 else None,
            steps=model.steps,
            solver=model.solver,
            guidance=model.guidance,
        )

    return integrate


def _flow_part(model: TakinVC, inputs: tuple[Tensor, ...]) -> ComparedPart:
    def plain(form: str, wrap: Wrap) -> Callable[..., Tensor]:
        integrate = _integrator(model, cast(model.estimator, form), model.flow, wrap)
        return lambda start, *condition: integrate(start, *low(*condition, form=form))

    def hand(wrap: Wrap) -> Callable[[], Tensor]:
        estimator = FastEstimator(model.estimator, torch.bfloat16)
        estimator.velocity = wrap(estimator.velocity)  # type: ignore[method-assign]
        integrate = _integrator(model, estimator, FastFlow(model.flow, estimator), lambda f: f)
        return lambda: integrate(inputs[0], *low(*inputs[1:]))

    return ComparedPart("flow", inputs, plain, ("bfloat16",), lambda: hand(lambda f: f), hand)


def _vocoder_part(model: TakinVC, inputs: tuple[Tensor, ...]) -> ComparedPart:
    def plain(form: str, wrap: Wrap) -> Callable[..., Tensor]:
        vocoder: Any = cast(model.vocoder, form)
        return wrap(lambda mel: vocoder(*low(mel, form=form), None))

    def hand(wrap: Wrap) -> Callable[[], Tensor]:
        vocoder = FastBigVGAN(model.vocoder, torch.bfloat16)
        vocoder.replay = Replayed(wrap(vocoder._speak), alone=True)
        return lambda: vocoder(*inputs)

    return ComparedPart("vocoder", inputs, plain, ("bfloat16",), lambda: hand(lambda f: f), hand)


def kernel_parts(model: TakinVC, seconds: float) -> list[ComparedPart]:
    """Each kernel on shapes of the model, its PyTorch as the plain part."""
    device = model.device
    frames = int(seconds * model.mel.frame_rate)
    frames += -frames % FRAME_BUCKET
    hidden, heads = model.estimator.hidden, model.estimator.blocks[0].attention.heads  # type: ignore
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    lengths = torch.full((2,), frames - 7, dtype=torch.int32, device=device)
    gain, shift, film = draw(hidden), draw(hidden), draw(2, 2 * hidden)

    def normalize(x: Tensor, added: Tensor) -> Tensor:
        return kernels.normalize(
            x,
            gain,
            shift,
            lengths,
            added=added,
            film=film,
            silu=True,
            neighbours=True,
            dtype=x.dtype,
        )[1]

    def attend(qkv: Tensor) -> Tensor:
        return kernels.attend(qkv, heads, lengths)[:, : frames - 7]

    x, added = draw(2, frames, hidden), draw(2, frames, hidden)
    parts = [
        _kernel("normalize", normalize, (x, added)),
        _kernel("attend", attend, (draw(2, frames, 3 * hidden),)),
    ]
    one = lengths[:1]
    rate = 1
    stages: Any = list(model.vocoder.stages)
    for i, stage in enumerate(stages):
        rate *= int(stage.up.stride[0])
        channels = stage.up.out_channels
        if i not in (0, len(stages) // 2, len(stages) - 1):
            continue
        alpha, beta = draw(channels).exp(), draw(channels).exp()
        weight, bias = draw(channels, 7 * channels) / (7 * channels) ** 0.5, draw(channels)

        def snake(x: Tensor, alpha: Any = alpha, beta: Any = beta, rate: int = rate) -> Tensor:
            return kernels.snake(x, alpha, beta, one, rate)

        def convolve(
            x: Tensor, weight: Any, residual: Tensor, bias: Any = bias, rate: int = rate
        ) -> Tensor:
            y = kernels.convolve(
                x, weight, bias, one, taps=7, dilation=3, rate=rate, residual=residual
            )
            return y[:, : rate * (frames - 7)]

        wave = draw(1, frames * rate, channels)
        size = f"{channels} x {frames * rate}"
        parts.append(_kernel(f"snake {size}", snake, (wave,)))
        parts.append(_kernel(f"convolve {size}", convolve, (wave, weight, draw(*wave.shape))))
    return parts


def _kernel(name: str, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> ComparedPart:
    """A kernel, called often in one graph."""

    def often(call: Callable[..., Tensor], given: Sequence[Tensor]) -> Callable[[], Tensor]:
        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            for _ in range(KERNEL_CALLS - 1):
                call(*tensors)
            return (call(*tensors),)

        replay = Replayed(run, alone=True)
        return lambda: replay(*given)[0]

    def plain(form: str, wrap: Wrap) -> Callable[..., Tensor]:
        run: Any = None

        def pytorch(*given: Tensor) -> Tensor:
            nonlocal run
            with without_triton():
                if run is None:
                    run = often(wrap(function), low(*given, form=form))
                return run()

        return pytorch

    def fast() -> Callable[[], Tensor]:
        return often(function, low(*inputs))

    name = f"kernel {name}"
    return ComparedPart(name, inputs, plain, ("bfloat16",), fast, calls=KERNEL_CALLS, recorded=True)


def conversions(
    model: TakinVC,
    reference_seconds: float,
    modes: Sequence[str],
    compiler: Callable[[str], Wrap],
) -> list[tuple[str, Callable[[], Callable[[float], Tensor]]]]:
    """The ways to convert, each with what builds it: seconds of source to a waveform (T,)."""

    def of(build: Callable[[], TakinVC]) -> Callable[[], Callable[[float], Tensor]]:
        def ready() -> Callable[[float], Tensor]:
            converter = build()
            rate = model.sample_rate
            reference = noise(reference_seconds, rate, 1000)
            sources: dict[float, Any] = {}

            def convert(seconds: float) -> Tensor:
                if seconds not in sources:
                    sources[seconds] = noise(seconds, rate, 0)
                return converter.convert(sources[seconds], reference, seed=0).samples

            return convert

        return ready

    def mixed(wrap: Wrap) -> TakinVC:
        converter = accelerate(model, parts=())
        converter.content = PlainContent(model.content, wrap)  # type: ignore[assignment]
        if model.voiceprint is not None:
            converter.voiceprint = _Tf32(model.voiceprint, wrap)
        for name in ("timbre", "memory", "vocoder"):
            if getattr(model, name) is not None:
                module = cast(getattr(model, name), "bfloat16")
                module.forward = wrap(module.forward)  # type: ignore[method-assign]
                setattr(converter, name, module)
        estimator: Any = cast(model.estimator, "bfloat16")
        estimator.prepare, estimator.velocity = wrap(estimator.prepare), wrap(estimator.velocity)
        converter.estimator = estimator
        return converter

    hand = [name for name in PARTS if name not in ("timbre", "memory")]
    ways: list[tuple[str, Callable[[], TakinVC]]] = [
        ("eager, float32", lambda: model),
        ("eager, mixed", lambda: mixed(lambda f: f)),
        ("fast", lambda: accelerate(model)),
        ("fast, no graph", lambda: accelerate(model)),
        ("fast, timbre and memory in 32 bits, no graph", lambda: accelerate(model, parts=hand)),
    ]
    for mode in modes:
        ways.append((f"{mode}, mixed", lambda mode=mode: mixed(compiler(mode))))  # type: ignore[misc]
    return [(name, of(build)) for name, build in ways]


class _Tf32(nn.Module):
    """A voiceprint whose products may round, as in the hand-written path."""

    def __init__(self, part: Any, wrap: Wrap) -> None:
        super().__init__()
        self.dim = part.dim
        self.run = wrap(part.forward)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """As the voiceprint."""
        with tf32(True):
            return self.run(waveform, lengths)
