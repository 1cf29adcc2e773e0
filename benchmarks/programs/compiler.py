"""The fast path beside `torch.compile`: is what was written by hand worth its lines?

    python -m benchmarks.programs.compiler model=acl out=compiler.csv
    python -m benchmarks.programs.compiler model=mini parts=flow,vocoder seconds=2,10 modes=default
    python -m benchmarks.programs.compiler model=tiny device=cpu backend=eager seconds=0.5

Random weights, batch 1. A row is one variant of one part:

    eager, FORMAT         the plain part, launched kernel by kernel
    MODE, FORMAT          the plain part under torch.compile(mode=MODE)
    default + graph       the same in mode "default", recorded by hand as one CUDA graph
    graph, FORMAT         the plain part recorded as it is
    rewritten + graph     the hand-written part without its Triton kernels, compiled and recorded
    fast, no graph        the hand-written part, launched kernel by kernel
    fast                  the hand-written part as `takin_vc.fast.model.accelerate` makes it

FORMAT is float32, tf32 (32 bits, factors of products rounded to 10), bfloat16, or mixed: for each
part that which the hand-written path uses. The part "kernels" has each Triton kernel beside the
PyTorch that it must agree with, eager and compiled, all by 20 calls in one graph, per call. "end"
is a whole conversion, preparation included.

Each row has milliseconds (median and smallest), the seconds of its first three calls (which
compile), the largest and the relative difference of its output from the plain part in strict 32
bits, and what went wrong. Rows are printed as Markdown, and written to `out` as they come.

Compiling is most of the time. `jobs` parts compile side by side; a part is timed only while no
other one computes or compiles.

Settings, beside the model's own (`model=acl model.steps=20 ...`):
    parts              a list: content,ssl,ppg,voiceprint,timbre,memory,flow,vocoder,kernels,end
    modes              of torch.compile: default,reduce-overhead (max-autotune-no-cudagraphs)
    seconds            of source, for the parts: 10
    end_seconds        of source, end to end: 10,2,30
    reference_seconds  4
    device             cpu or cuda: cuda where there is one
    backend            of torch.compile: inductor; eager where there is no compiler
    repeats            30
    row_seconds        120: a variant that takes longer to compile or run is a row without a time
    part_seconds       540: a part that takes longer is stopped; its rows so far stay
    jobs               1: processes side by side, each with one part, or one length end to end, so
                       that a crash costs one part; 0: all in this process
    out                a CSV file: none
"""

import dataclasses
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from benchmarks.programs.compiler_parts import (
    END,
    ComparedPart,
    conversions,
    kernel_parts,
    model_parts,
    without_length_checks,
    without_triton,
)
from benchmarks.programs.compiler_rows import OutOfTime, TimingRow, TimingTable, Turns, within
from takin_vc.config import build_model, load
from takin_vc.fast.graphs import Replayed
from takin_vc.fast.model import tf32
from takin_vc.model import TakinVC
from takin_vc.tools.speed import randomise

PARTS = (
    "content",
    "ssl",
    "ppg",
    "voiceprint",
    "timbre",
    "memory",
    "flow",
    "vocoder",
    "kernels",
    END,
)
MODES = ("default", "reduce-overhead", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class CompilerSettings:
    """What is measured; see the module."""

    parts: Sequence[str] = PARTS
    modes: Sequence[str] = MODES[:2]
    seconds: Sequence[float] = (10.0,)
    end_seconds: Sequence[float] = (10.0, 2.0, 30.0)
    reference_seconds: float = 4.0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    backend: str = "inductor"
    repeats: int = 30
    row_seconds: float = 120.0
    part_seconds: float = 540.0
    jobs: int = 1
    out: Path | None = None
    lock: Path | None = None


@dataclass(frozen=True)
class Variant:
    """One way to compute a part.

    Attributes:
        name: of the row.
        build: gives a function without arguments, whose first calls may compile.
        around: entered while it is built and runs.
        fresh: forget what was compiled before.
    """

    name: str
    build: Callable[[], Callable[[], Tensor]]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    fresh: bool = True


def parse(arguments: Sequence[str]) -> tuple[CompilerSettings, list[str]]:
    """The settings of this program, and the rest for `takin_vc.config.load`.

    Raises:
        ValueError: if a value makes no sense.
    """
    kinds: dict[str, Callable[[str], Any]] = {
        "parts": lambda text: tuple(text.split(",")),
        "modes": lambda text: tuple(filter(None, text.split(","))),
        "seconds": lambda text: tuple(map(float, text.split(","))),
        "end_seconds": lambda text: tuple(map(float, text.split(","))),
        "repeats": int,
        "row_seconds": float,
        "part_seconds": float,
        "reference_seconds": float,
        "jobs": int,
        "out": Path,
        "lock": Path,
    }
    values: dict[str, Any] = {}
    rest = []
    names = [f.name for f in dataclasses.fields(CompilerSettings)]
    for argument in arguments:
        name, _, text = argument.partition("=")
        if name in names:
            try:
                values[name] = kinds.get(name, str)(text)
            except ValueError as error:
                raise ValueError(f"{argument}: not a value of {name}") from error
        elif name.lstrip("+~").startswith("model"):
            rest.append(argument)
        else:
            raise ValueError(f"{argument} is no setting; there are model=, {'=, '.join(names)}=")
    settings = CompilerSettings(**values)
    for what, given, known in (("part", settings.parts, PARTS), ("mode", settings.modes, MODES)):
        if unknown := [value for value in given if value not in known]:
            raise ValueError(f"no {what} {unknown[0]!r}; there are {', '.join(known)}")
    return settings, rest


def built(overrides: Sequence[str], device: str) -> TakinVC:
    """The model on the device, with random weights."""
    torch.manual_seed(0)
    with torch.device(device):  # on the CPU it takes a minute
        model = build_model(load(overrides)["model"])
    model = model.to(device).eval()
    randomise(model)
    return model


def compiled(
    function: Callable[..., Any], settings: CompilerSettings, mode: str
) -> Callable[..., Any]:
    """The function under torch.compile, for one shape at a time.

    What mode "reduce-overhead" gives lies in the memory of its graph: it is copied.
    """
    if settings.backend != "inductor":
        return torch.compile(function, backend=settings.backend)
    run = torch.compile(function, mode=mode)
    if mode != "reduce-overhead":
        return run

    def step(*inputs: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        outputs = run(*inputs, **named)
        return _pytree.tree_map_only(Tensor, Tensor.clone, outputs)

    return step


@contextmanager
def without_graphs() -> Iterator[None]:
    """Hand-written graphs are not recorded: their functions run kernel by kernel."""
    replay = Replayed.__call__
    Replayed.__call__ = lambda self, *inputs: self.function(*inputs)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Replayed.__call__ = replay  # type: ignore[method-assign]


def variants(part: ComparedPart, settings: CompilerSettings) -> Iterator[Variant]:
    """The ways to compute a part, the safest first."""

    def around(form: str, *others: Callable[[], AbstractContextManager[Any]]) -> Any:
        def entered() -> AbstractContextManager[Any]:
            stack = ExitStack()
            stack.enter_context(tf32(form == "tf32"))
            for other in others:
                stack.enter_context(other())
            return stack

        return entered

    def plain(form: str, mode: str | None, graph: bool) -> Callable[[], Callable[[], Tensor]]:
        def build() -> Callable[[], Tensor]:
            wrap = (lambda f: f) if mode is None else (lambda f: compiled(f, settings, mode))
            function = part.plain(form, wrap)
            if not graph:
                return lambda: function(*part.inputs)
            replay = Replayed(lambda *given: (function(*given),), alone=True)
            return lambda: replay(*part.inputs)[0]

        return build

    for form in part.forms:
        yield Variant(f"eager, {form}", plain(form, None, False), around(form))
    hand = part.forms[0]
    if part.fast is not None:
        fast = part.fast
        yield Variant("fast", fast, around("float32"))
        if not part.recorded:
            yield Variant("fast, no graph", fast, around("float32", without_graphs))
    for form in part.forms:
        for mode in settings.modes:
            if part.recorded and mode == "reduce-overhead":
                continue
            yield Variant(f"{mode}, {form}", plain(form, mode, False), around(form))
            if mode == "default" and not part.recorded:
                name = f"default + graph, {form}"
                yield Variant(name, plain(form, mode, True), around(form), fresh=False)
    if part.rewritten is not None:
        rewritten = part.rewritten
        yield Variant(
            "rewritten + graph",
            lambda: rewritten(lambda f: compiled(f, settings, "default")),
            around("tf32" if hand == "tf32" else "float32", without_triton),
        )
    if not part.recorded:
        yield Variant(f"graph, {hand}", plain(hand, None, True), around(hand))


def measured(
    variant: Variant,
    row: TimingRow,
    expected: Tensor,
    settings: CompilerSettings,
    turns: Turns,
    calls: int = 1,
) -> None:
    """Fills a row in; whatever goes wrong becomes its note."""

    def finish() -> None:
        if settings.device == "cuda":
            torch.cuda.synchronize()

    def timed(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        finish()
        return time.perf_counter() - start

    if variant.fresh:
        torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    try:
        with torch.no_grad(), variant.around():
            start = time.perf_counter()
            with within(settings.row_seconds):
                call = variant.build()
                outputs = [call() for _ in range(3)]
                finish()
            row.first_calls_s = time.perf_counter() - start
            result, target = outputs[-1].float().cpu(), expected.float().cpu()
            if result.shape != target.shape:
                row.note = f"shape {tuple(result.shape)}, not {tuple(target.shape)};"
            length = min(result.shape[-1], target.shape[-1])
            difference = result[..., :length] - target[..., :length]
            row.largest_difference = float(difference.abs().max())
            row.relative_difference = float(difference.norm() / target.norm())
            with turns.alone(), within(settings.row_seconds):
                times = [timed(call) for _ in range(settings.repeats + 2)][2:]
            row.median_ms = 1000 * statistics.median(times) / calls
            row.fastest_ms = 1000 * min(times) / calls
    except OutOfTime:
        row.note += f" took over {settings.row_seconds:g} s"
    except Exception as error:
        row.note += f" {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    breaks = counters["graph_break"]
    if breaks:
        row.note += f" {len(breaks)} kinds of graph breaks ({next(iter(breaks)).strip()[:80]!r})"
    if skips := counters["inductor"]["cudagraph_skips"]:
        row.note += f" {skips} graphs skipped"
    row.note = " ".join(row.note.split())


def run(settings: CompilerSettings, overrides: Sequence[str], table: TimingTable) -> None:
    """Measures the parts in this process."""
    turns = Turns(settings.lock)
    name = name_of(overrides)
    model = built(overrides, settings.device)
    for what in settings.parts:
        if what == END:
            _run_end(model, name, settings, table, turns)
            continue
        for seconds in settings.seconds:
            with torch.no_grad(), tf32(False):
                if what == "kernels":
                    parts = kernel_parts(model, seconds)
                else:
                    parts = model_parts(model, what, seconds, settings.reference_seconds)
            for part in parts:
                try:
                    with torch.no_grad(), tf32(False):
                        target = part.plain("float32", lambda f: f)(*part.inputs)
                except Exception as error:
                    note = f"the plain part fails: {' '.join(str(error).split())[:200]}"
                    table.add(TimingRow(name, part.name, seconds, "eager, float32", note=note))
                    continue
                for variant in variants(part, settings):
                    row = TimingRow(name, part.name, seconds, variant.name)
                    measured(variant, row, target, settings, turns, part.calls)
                    table.add(row)


def _run_end(
    model: TakinVC, name: str, settings: CompilerSettings, table: TimingTable, turns: Turns
) -> None:
    """Whole conversions: each variant at each length, so that it compiles as it would in use."""
    ways = conversions(
        model,
        settings.reference_seconds,
        settings.modes,
        lambda mode: lambda function: compiled(function, settings, mode),
    )
    plain = ways[0][1]()
    with tf32(False):
        expected = {seconds: plain(seconds).clone() for seconds in settings.end_seconds}
    for way, build in ways:
        torch._dynamo.reset()
        convert = functools.cache(build)  # one model for all lengths

        def of(seconds: float, convert: Any = convert) -> Callable[[], Callable[[], Tensor]]:
            return lambda: functools.partial(convert(), seconds)

        around = without_graphs if way == "fast, no graph" else nullcontext
        for seconds in settings.end_seconds:
            row = TimingRow(name, END, seconds, way)
            with tf32(False):
                attempt = Variant(way, of(seconds), around, fresh=False)
                measured(attempt, row, expected[seconds], settings, turns)
            table.add(row)


def name_of(overrides: Sequence[str]) -> str:
    """What rows call the model."""
    return " ".join(overrides).removeprefix("model=") or "acl"


def run_apart(
    settings: CompilerSettings, arguments: Sequence[str], name: str, table: TimingTable
) -> None:
    """Measures each part, and each length end to end, in a process of its own."""
    waiting = []
    for part in settings.parts:
        lengths = [f"{s:g}" for s in settings.end_seconds] if part == END else [""]
        waiting += [(part, length) for length in lengths]
    threads = max(1, (os.cpu_count() or 1) // settings.jobs)
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
    running: list[tuple[str, float, subprocess.Popen[bytes]]] = []
    with tempfile.NamedTemporaryFile() as lock:
        while waiting or running:
            while waiting and len(running) < settings.jobs:
                part, length = waiting.pop(0)
                command = [sys.executable, "-m", "benchmarks.programs.compiler", *arguments]
                command += [f"parts={part}", *[f"end_seconds={length}"] * bool(length)]
                child = subprocess.Popen([*command, f"lock={lock.name}"], env=environment)
                running.append((f"{part} {length}".strip(), time.perf_counter(), child))
            time.sleep(0.2)
            for job in list(running):
                label, start, child = job
                spent = time.perf_counter() - start
                if child.poll() is None and spent < settings.part_seconds:
                    continue
                running.remove(job)
                note = f"the process ended with {child.returncode}" if child.returncode else ""
                if child.returncode is None:
                    child.kill()
                    child.wait()
                    note = f"stopped after {settings.part_seconds:g} s"
                if note:
                    table.add(TimingRow(name, label, 0.0, "all that is missing", note=note))
                print(f"<!-- {label}: {spent:.0f} s -->", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Measures and prints; settings that make no sense end the program with one line."""
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        return
    try:
        settings, overrides = parse(arguments)
        load(overrides)
    except ValueError as error:
        sys.exit(f"error: {error}")
    table = TimingTable(settings.out)
    if settings.lock is None:
        where = torch.cuda.get_device_name() if settings.device == "cuda" else "CPU"
        print(f"{name_of(overrides)} on {where}, torch {torch.__version__}, {settings}\n")
        table.begin()
    if settings.lock is not None or settings.jobs < 1:
        with without_length_checks():
            run(settings, overrides, table)
    else:
        run_apart(settings, arguments, name_of(overrides), table)


if __name__ == "__main__":
    main(sys.argv[1:])
