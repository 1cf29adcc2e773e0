"""Measures how fast a model converts.

`python -m takin_vc.tools.speed model=acl seconds=[2,5,10,30] batch=[1,8]`

Random weights of full size take the same time as trained ones. Every figure is the median of
`repeats` conversions after warm-ups, from speech in memory to speech in memory. "prepare" is
checks, resampling, copies and spectra; it is part of "total" and of the real-time factor (RTF).
Sources and references are noise.

Settings, beside the model's own (`model=acl model.steps=20 ...`):
    seconds            of source, a list: [2,5,10,30]
    batch              conversions at once, a list: [1]; with more than one, of the 10 s source
    reference_seconds  4
    sample_rate        of sources and references, in Hz: the model's own where null
    fast               takin_vc.fast.model.accelerate: true on a GPU
    dtype              of its products: bfloat16, float16, float32
    device             cpu or cuda: cuda where there is one
    repeats            20
    compare            false; true also converts by the plain model in 32 bits and says by how much
                       the prepared source (16 kHz) and reference mel, mel and waveform differ
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from takin_vc.config import ConfigError, build_model, is_number, load
from takin_vc.fast.model import FastTakinVC, accelerate, tf32
from takin_vc.inputs import SHORTEST_REFERENCE, SHORTEST_SOURCE, Batch, Speech
from takin_vc.model import TakinVC

STAGES = ("prepare", "content", "timbre", "flow", "vocoder")
LOWEST_RATE = 4000  # Hz
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class SpeedSettings:
    """What is measured; see the module.

    Raises:
        ConfigError: if a value makes no sense; the message says what would.
    """

    seconds: Sequence[float] = (2, 5, 10, 30)
    batch: Sequence[int] = (1,)
    reference_seconds: float = 4.0
    sample_rate: int | None = None
    fast: bool | None = None
    dtype: str = "bfloat16"
    device: str | None = None
    repeats: int = 20
    compare: bool = False

    def __post_init__(self) -> None:
        devices = ["cpu", *["cuda"] * torch.cuda.is_available()]
        rules: dict[str, tuple[Callable[[Any], bool], str]] = {
            "seconds": (
                _all(lambda value: is_number(value, SHORTEST_SOURCE)),
                f"they must be numbers from {SHORTEST_SOURCE} on: [2,5,10,30]",
            ),
            "batch": (_all(_is_count), "they must be whole numbers from 1 on: [1,8]"),
            "reference_seconds": (
                lambda value: is_number(value, SHORTEST_REFERENCE),
                f"it must be a number from {SHORTEST_REFERENCE} on",
            ),
            "sample_rate": (
                lambda value: _is_count(value) and value >= LOWEST_RATE,
                f"it must be a whole number from {LOWEST_RATE} on, in Hz",
            ),
            "fast": (_is_switch, "it must be true or false"),
            "dtype": (list(DTYPES).__contains__, f"there are {', '.join(DTYPES)}"),
            "device": (devices.__contains__, f"it must be {' or '.join(devices)} here"),
            "repeats": (_is_count, "it must be a whole number from 1 on"),
            "compare": (_is_switch, "it must be true or false"),
        }
        for setting in fields(self):
            value = getattr(self, setting.name)
            allowed, said = rules[setting.name]
            if value is not setting.default and not allowed(value):
                raise ConfigError(f"{setting.name}={value}; {said}")


@dataclass(frozen=True)
class Timing:
    """How long a batch of conversions takes, in seconds.

    Attributes:
        speech: seconds of source in it.
        total: without stops between the stages, preparation included.
        stages: each alone, the device's work included; "prepare" is checks, resampling and
            spectra, on the CPU but for a fast model.
        memory: the most that tensors took on the GPU, in bytes; 0 on the CPU.
    """

    speech: float
    total: float
    stages: Mapping[str, float]
    memory: int = 0

    @property
    def rtf(self) -> float:
        """Seconds of computing per second of speech."""
        return self.total / self.speech


def parse(arguments: Sequence[str]) -> tuple[SpeedSettings, list[str]]:
    """The settings of this program and the rest, for `takin_vc.config.load`.

    Raises:
        ConfigError: if there is no such setting, or a value makes no sense.
    """
    own: dict[str, Any] = {}
    rest = []
    names = [setting.name for setting in fields(SpeedSettings)]
    for argument in arguments:
        name, given, value = argument.partition("=")
        if given and name in names:
            try:
                own[name] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ConfigError(f"{argument}: not a value as YAML has it") from error
        elif name.lstrip("+~").startswith("model"):
            rest.append(argument)
        else:
            raise ConfigError(
                f"{argument} is no setting; there are model=, model.…=, {'=, '.join(names)}="
            )
    for name in ("seconds", "batch"):
        if name in own and not isinstance(own[name], list):
            own[name] = [own[name]]
    return SpeedSettings(**own), rest


def _all(allowed: Callable[[Any], bool]) -> Callable[[Sequence[Any]], bool]:
    """Whether a list has members, and all are allowed."""
    return lambda values: (
        isinstance(values, list | tuple) and bool(values) and all(map(allowed, values))
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and is_number(value, 1)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def randomise(model: TakinVC) -> None:
    """Weights with which nothing is trivially 0 or silent, seeded.

    Fresh models begin with modulations of 0 and a vocoder near silence.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(weight: Tensor, deviation: float) -> None:
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * deviation)

    for name, module in model.estimator.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(("modulation", "time_modulation")):
            draw(module.weight, 0.3 / module.in_features**0.5)
    for module in model.vocoder.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            inputs = module.in_channels * module.kernel_size[0] / module.stride[0]
            draw(module.weight, 0.5 / inputs**0.5)


def noise(seconds: float, sample_rate: int, seed: int) -> Speech:
    """Noise that swells and fades four times a second, as syllables do."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(round(seconds * sample_rate), generator=generator)
    times = torch.arange(len(samples)) / sample_rate
    return Speech(0.1 * samples * (0.2 + torch.sin(4 * torch.pi * times).square()), sample_rate)


def prepared(model: TakinVC, sources: Sequence[Speech], references: Sequence[Speech]) -> Batch:
    """What the model prepares, without starting the voiceprint."""
    with torch.inference_mode():
        if isinstance(model, FastTakinVC):
            return model.prepare(sources, references, start_voiceprint=False)
        return model.prepare(sources, references)


def measure(
    model: TakinVC,
    seconds: float,
    reference_seconds: float,
    batch: int,
    repeats: int,
    sample_rate: int | None = None,
) -> Timing:
    """Times conversions of `batch` sources at once, after two that only warm up."""
    rate = sample_rate or model.sample_rate
    sources = [noise(seconds, rate, seed) for seed in range(batch)]
    references = [noise(reference_seconds, rate, 1000 + seed) for seed in range(batch)]
    spent: dict[str, list[float]] = {name: [] for name in STAGES}
    totals: list[float] = []
    waits = model.device.type == "cuda"
    if waits:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        if waits:
            torch.cuda.synchronize()
        start = time.perf_counter()
        yield
        if waits:
            torch.cuda.synchronize()
        spent[name].append(time.perf_counter() - start)

    def convert(**timing: Any) -> None:
        model.convert_batch(sources, references, seeds=range(batch), **timing)

    for _ in range(2):
        convert()
    for _ in range(repeats):
        start = time.perf_counter()
        convert()  # ends with a copy to the CPU, which waits for the device
        totals.append(time.perf_counter() - start)
    for _ in range(repeats):
        with stage("prepare"):
            prepared(model, sources, references)
        convert(stage=stage)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    medians["content"] -= medians["prepare"]  # which the model counts in
    memory = torch.cuda.max_memory_allocated() if waits else 0
    return Timing(batch * seconds, statistics.median(totals), medians, memory)


def converted(
    model: TakinVC, seconds: float, reference_seconds: float, sample_rate: int | None = None
) -> dict[str, Tensor]:
    """One conversion: "source" at 16 kHz (T,), "reference mel" (n_mels, R), "mel" (n_mels, L) and
    "waveform" (T',).
    """
    rate = sample_rate or model.sample_rate
    source, reference = noise(seconds, rate, 0), noise(reference_seconds, rate, 1000)
    batch = prepared(model, [source], [reference])
    mels: list[Tensor] = []
    hook = model.vocoder.register_forward_pre_hook(lambda _, inputs: mels.append(inputs[0]))
    try:
        speech = model.convert(source, reference, seed=0)
    finally:
        hook.remove()
    return {
        "source": batch.source[0].cpu(),
        "reference mel": batch.reference_mel[0].cpu(),
        "mel": torch.cat(mels, dim=-1)[0].float().cpu(),
        "waveform": speech.samples,
    }


def relative_error(found: Tensor, expected: Tensor) -> float:
    """|found - expected| / |expected|, by the Euclidean norm."""
    return float((found - expected).norm() / expected.norm())


def main(arguments: Sequence[str]) -> None:
    """Measures and prints; settings that make no sense end the program with one line."""
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        return
    torch.manual_seed(0)
    try:
        settings, rest = parse(arguments)
        plain = build_model(load(rest)["model"])
    except ValueError as error:  # of settings, ours or a part's
        sys.exit(f"error: {error}")
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    randomise(plain)
    plain = plain.to(device).eval()
    fast = device == "cuda" if settings.fast is None else settings.fast
    model = accelerate(plain, dtype=DTYPES[settings.dtype]) if fast else plain
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"{' '.join(rest)} on {name}, torch {torch.__version__}, fast={fast}, {settings.dtype}")
    print(
        f"{plain.steps} steps ({plain.solver}), guidance {plain.guidance}, reference "
        f"{settings.reference_seconds:g} s, at {settings.sample_rate or plain.sample_rate} Hz; "
        f"milliseconds, medians of {settings.repeats}; total and RTF include prepare"
    )
    print(
        f"{'seconds':>8}{'batch':>6}"
        + "".join(f"{stage:>9}" for stage in STAGES)
        + f"{'total':>9}{'RTF':>9}{'speech/s':>10}{'GB':>7}"
    )
    jobs = [
        (seconds, batch)
        for batch in settings.batch
        for seconds in (settings.seconds if batch == 1 else [10])
    ]
    for seconds, batch in jobs:
        timing = measure(
            model,
            seconds,
            settings.reference_seconds,
            batch,
            settings.repeats,
            settings.sample_rate,
        )
        cells = "".join(f"{1000 * timing.stages[stage]:9.2f}" for stage in STAGES)
        print(
            f"{seconds:8g}{batch:6d}{cells}{1000 * timing.total:9.2f}{timing.rtf:9.5f}"
            f"{1 / timing.rtf:10.0f}{timing.memory / 1e9:7.1f}",
            flush=True,
        )
    if settings.compare:
        for seconds in settings.seconds:
            given = (seconds, settings.reference_seconds, settings.sample_rate)
            results = converted(model, *given)
            with tf32(False):
                expected = converted(plain, *given)
            errors = (
                f"{what} {relative_error(result, expected[what]):.2e}"
                for what, result in results.items()
            )
            print(
                f"{seconds:8g} s: relative difference from the plain model in 32 bits: "
                f"{', '.join(errors)}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
