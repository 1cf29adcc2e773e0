"""Runs processes, reads their progress and polls the GPUs, for `benchmarks.programs.efficiency`."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
POLL_MILLISECONDS = 200
SHOWN_LINES = 30  # of the output of a process that failed


class MeasurementFailed(Exception):
    """A process failed or took too long; the message has the end of its output."""


@dataclass
class Measured:
    """One measurement.

    Attributes:
        trials: how many.
        whole: seconds of the processes, from start to end.
        work: seconds of all stages, of the slowest process.
        stages: seconds of each stage, of its slowest process.
        busy: card → share of the work, per cent; empty without nvidia-smi.
        busy_stages: stage → the same, over all cards.
        memory: card → MiB at most.
        over_time: (seconds since the start, share of each card), about one a second.
    """

    trials: int
    whole: float
    work: float
    stages: dict[str, float]
    busy: dict[str, float] = field(default_factory=dict)
    busy_stages: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    over_time: list[tuple[float, list[float]]] = field(default_factory=list)


class Cards:
    """Polls nvidia-smi in the background; a context manager.

    Attributes:
        samples: (time, card, per cent of time in which a kernel ran, MiB).
    """

    def __init__(self) -> None:
        self.samples: list[tuple[float, str, float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Cards":
        if shutil.which("nvidia-smi"):
            command = [
                *("nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used"),
                *("--format=csv,noheader,nounits", f"-lms={POLL_MILLISECONDS}"),
            ]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: PT018
        for line in self._process.stdout:
            try:
                card, busy, memory = line.split(",")
                self.samples.append((time.monotonic(), card.strip(), float(busy), float(memory)))
            except ValueError:
                continue  # "[N/A]", or a line of the driver's


def gpu_models() -> list[str]:
    """ "NVIDIA H200, 143771 MiB, 580.159.04" of each GPU: name, memory, driver; [] without any."""
    command = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def measured(
    trials: int,
    commands: Sequence[tuple[Sequence[str], Mapping[str, str]]],
    cards: int = 1,
    overlapped: bool = False,
    seconds: float | None = None,
) -> Measured:
    """Runs commands at the same time and reads their progress.

    Args:
        trials: how many they work on together.
        commands: each with its environment variables.
        cards: how many GPUs they use.
        overlapped: whether stages run at the same time: the work is then from the first trials that
            are converted to the last step, and as much more as these trials are of all. What is
            before is the loading of models.
        seconds: after which the processes are ended; None for no limit.

    Raises:
        MeasurementFailed: if a command fails or takes too long.
    """
    start = time.monotonic()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Cards() as polled:
        processes = [
            subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": path, **variables},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            for command, variables in commands
        ]
        spans: list[dict[str, list[float]]] = [{} for _ in processes]
        firsts: list[dict[str, tuple[float, float]]] = [{} for _ in processes]
        ends: list[list[str]] = [[] for _ in processes]
        threads = [
            threading.Thread(target=read_progress, args=of_process, daemon=True)
            for of_process in zip(processes, spans, firsts, ends, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            codes = _codes(processes, None if seconds is None else start + seconds)
        finally:
            for process in processes:
                _end(process)
        for thread in threads:
            thread.join(10)  # a process that it left behind may hold the pipe
        whole = time.monotonic() - start
    if failed := [number for number, code in enumerate(codes) if code]:
        # One that failed goes before those that were ended because of it.
        worst = next((n for n in failed if codes[n] > 0), failed[0])
        why = f"ended with {codes[worst]}" if codes[worst] > 0 else f"ended after {whole:.0f} s"
        raise MeasurementFailed(f"a process {why}:\n" + "".join(ends[worst]))
    if overlapped:
        spans = [
            {"convert and score": _overlapped(s, f)} for s, f in zip(spans, firsts, strict=True)
        ]
    result = Measured(trials, whole, *slowest(spans))
    _add_busy(result, polled.samples, spans, start, cards)
    return result


def slowest(spans: Sequence[Mapping[str, Sequence[float]]]) -> tuple[float, dict[str, float]]:
    """The slowest of several processes.

    Args:
        spans: of each process, stage → begin and end, in seconds.

    Returns:
        Seconds of all stages, and of each stage.
    """
    names = dict.fromkeys(name for of_process in spans for name in of_process)
    stages = {n: max(s[n][1] - s[n][0] for s in spans if n in s) for n in names}
    return max(sum(end - begin for begin, end in of.values()) for of in spans), stages


def _overlapped(
    spans: Mapping[str, Sequence[float]], firsts: Mapping[str, tuple[float, float]]
) -> list[float]:
    """Begin and end of the work of one process whose stages overlap."""
    times = [moment for span in spans.values() for moment in span] or [0.0]
    converted = [first for name, first in firsts.items() if name.startswith("convert")]
    begin, share = min(converted, default=(min(times), 0.0))
    if share >= 1.0:
        begin, share = min(times), 0.0
    return [max(times) - (max(times) - begin) / (1.0 - share), max(times)]


def _codes(processes: "Sequence[subprocess.Popen[str]]", end: float | None) -> list[int]:
    """The exit codes; as soon as one fails or the time is over, the others are ended."""
    while True:
        codes = [process.poll() for process in processes]
        if all(code is not None for code in codes):
            break
        if any(codes) or (end is not None and time.monotonic() > end):
            for process in processes:
                _end(process)
        time.sleep(0.05)
    return [code or 0 for code in codes]


def _end(process: "subprocess.Popen[str]") -> None:
    """Kills a process and what it has started, if it still runs."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        process.wait()


def read_progress(
    process: "subprocess.Popen[str]",
    spans: dict[str, list[float]],
    firsts: dict[str, tuple[float, float]],
    tail: list[str],
) -> None:
    """Reads lines of progress=json.

    Args:
        process: that writes them to stderr.
        spans: receives the times of the first and of the last line of each stage.
        firsts: receives the time of the first line with a step done, and which share that is.
        tail: receives the last lines of any kind.
    """
    assert process.stderr is not None
    for text in process.stderr:
        now = time.monotonic()
        tail.append(text)
        del tail[:-SHOWN_LINES]
        try:
            progress = json.loads(text)
            stage, done, total = progress["stage"], progress["done"], progress["total"]
        except (ValueError, KeyError, TypeError):
            continue
        if stage in ("check", "report"):
            continue
        name = " ".join([stage, *([progress["judge"]] if stage == "score" else [])])
        spans.setdefault(name, [now, now])[1] = now
        if done:
            firsts.setdefault(name, (now, done / max(total, 1)))


def _add_busy(
    result: Measured,
    samples: Sequence[tuple[float, str, float, float]],
    spans: Sequence[Mapping[str, Sequence[float]]],
    start: float,
    cards: int,
) -> None:
    """Adds the shares of time in which kernels ran; process i runs on card i, or one on all."""
    names = sorted({card for _, card, _, _ in samples}, key=int)[:cards]
    per_stage: dict[str, list[float]] = {}
    for number, card in enumerate(names):
        window = spans[number] if len(spans) > 1 else spans[0]
        busy = []
        for name, (begin, end) in window.items():
            inside = [b for t, c, b, _ in samples if c == card and begin <= t <= end]
            busy += inside
            per_stage.setdefault(name, []).extend(inside)
        if any(busy):
            result.busy[card] = sum(busy) / len(busy)
            result.memory[card] = max(m for _, c, _, m in samples if c == card)
    result.busy_stages = {n: sum(b) / len(b) for n, b in per_stage.items() if b}
    second = -1
    for moment, card, busy_now, _ in (sample for sample in samples if sample[1] in names):
        if int(moment - start) != second:
            second = int(moment - start)
            result.over_time.append((float(second), [0.0] * len(names)))
        result.over_time[-1][1][names.index(card)] = busy_now


def efficiency(result: Measured, one: Measured | None, cards: int) -> float | None:
    """The work of one card / (cards × the work of all); None for one card or without the former."""
    if one is None or cards == 1:
        return None
    return one.work / (cards * max(result.work, 1e-9))


def line(name: str, result: Measured, one: Measured | None, count: int) -> str:
    """A line of the output."""
    share = efficiency(result, one, count)
    busy = " ".join(f"{share:.0f}" for share in result.busy.values()) or "–"
    stages = ", ".join(
        f"{stage} {seconds:.1f}"
        + (f" ({result.busy_stages[stage]:.0f} %)" if stage in result.busy_stages else "")
        for stage, seconds in result.stages.items()
    )
    rate = result.trials / max(result.work, 1e-9)
    shown = "" if share is None else f"{share:.2f}"
    return f"{name:10}{rate:9.2f}{result.work:8.1f}{result.whole:9.1f}{shown:>11}  {busy}; {stages}"


def write(
    path: Path,
    results: Mapping[str, Measured],
    failures: Mapping[str, str],
    about: Mapping[str, Any],
) -> None:
    """Writes the measurements as JSON.

    Args:
        path: of the file.
        results: measurement → figures.
        failures: measurement → why it has none.
        about: what was measured.
    """
    from bench.files import write_json
    from bench.provenance import origin

    figures: dict[str, Any] = {
        name: {**vars(result), "trials_per_second": result.trials / max(result.work, 1e-9)}
        for name, result in results.items()
    }
    figures |= {name: {"error": why} for name, why in failures.items()}
    write_json(path, {"origin": origin(), "gpus": gpu_models(), **about, "results": figures})


def table(path: Path) -> str:
    """The file of `write` as a table in Markdown."""
    content = json.loads(path.read_text(encoding="utf-8"))
    results = content["results"]
    good = {
        name: Measured(
            **{key: figures[key] for key in ("trials", "whole", "work", "stages", "busy", "memory")}
        )
        for name, figures in results.items()
        if "error" not in figures
    }
    rows = [
        "| measurement | trials | trials a second | work, s | whole, s | efficiency "
        "| GPU busy, % | memory, GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in results.items():
        if name not in good:
            why = figures["error"].partition("\n")[0].rstrip(":").replace("|", "/")
            rows.append(f"| {name} | not measured: {why} |" + " |" * 6)
            continue
        result = good[name]
        count, _, kind = name.partition(" ")
        one = good.get(f"1 {kind}") if kind else None
        share = efficiency(result, one, int(count)) if kind else None
        cells = [
            name,
            str(result.trials),
            f"{result.trials / max(result.work, 1e-9):.2f}",
            f"{result.work:.1f}",
            f"{result.whole:.1f}",
            "" if share is None else f"{share:.2f}",
            ", ".join(f"{busy:.0f}" for busy in result.busy.values()) or "–",
            ", ".join(f"{memory / 1024:.1f}" for memory in result.memory.values()) or "–",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    where = "; ".join(sorted(set(content.get("gpus", [])))) or "no GPU"
    return "\n".join([*rows, "", f"{content.get('model')}; {where}; {content['origin']}"])
