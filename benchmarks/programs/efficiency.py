"""Measures a whole run on one and on several GPUs, against a loop over the same trials.

    python -m benchmarks.programs.efficiency                          # 600 trials on 1 and 2 GPUs
    python -m benchmarks.programs.efficiency --cards 1 2 4 --sources 136 --json efficiency.json
    python -m benchmarks.programs.efficiency --tiny --model none --sources 4 --targets 2  # no GPU

The system is `takin_vc` in the shape `acl` (none: one that plays the source faster), the judges are
WavLM-Large SECS, HuBERT-large WER and DNSMOS; all but DNSMOS have random weights of full size. Each
measurement is a process of its own:

    loop     one trial after another: convert, then each judge on that trial (seed-vc's eval.py)
    N cards  `vcbench run`, one process a card: shard=i/N, and a merge after it
    N ray    `vcbench run executor=ray`, where Ray is installed

"work" is the time that the stages took, from the lines of progress=json, of the slowest process.
Loading is what is left of the whole time: imports, models, reports.
Efficiency is the work of one card / (N × the work of N cards). Busy is the share of time in which
the GPU ran a kernel, as nvidia-smi polls it, during the work.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
JUDGES = ("secs_wavlm_large", "wer_hubert_large", "dnsmos")
POLL_MILLISECONDS = 200
NAME, CHECKPOINT = "efficiency", "checkpoint"


class RandomJudge:
    """A judge of `benchmarks.programs.random_judges` as a class that settings can name.

    Args:
        name: of the judge.
        device: where it runs.
        tiny: of a few kilobytes.
    """

    def __init__(self, name: str, device: str = "auto", tiny: bool = False) -> None:
        self.judge = made(name, device, tiny)
        self.reads = self.judge.reads
        self.metrics = self.judge.metrics
        self.needs_source_words = self.judge.needs_source_words
        self.fingerprint = self.judge.fingerprint
        self.weights = self.judge.weights

    def score(self, items: Sequence[Any]) -> Any:
        """See `bench.judges.Judge`."""
        return self.judge.score(items)


def made(name: str, device: str, tiny: bool) -> Any:
    """The judge of this name; its weights are random but for DNSMOS."""
    from bench.devices import torch_device
    from bench.judges.dnsmos import DNSMOS
    from benchmarks.programs import random_judges

    where = str(torch_device(device))
    if name == "dnsmos":
        return DNSMOS(device=where)
    with tempfile.TemporaryDirectory() as folder:
        [(_, judge)] = list(random_judges.make(Path(folder), where, tiny, [name]))
    return judge


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


def main(arguments: Sequence[str] | None = None) -> dict[str, Measured]:
    """Prints a line a measurement; with --json it also writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cards", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--loop-trials", type=int, default=60, help="of the loop; 0: no loop")
    parser.add_argument(
        "--ray", action=argparse.BooleanOptionalAction, help="default: if it is there"
    )
    parser.add_argument("--model", default="acl", help="a shape of takin_vc, or none")
    parser.add_argument("--tiny", action="store_true", help="judges of a few kilobytes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary one")
    parser.add_argument("--loop", help=argparse.SUPPRESS)  # the process of the loop
    given = parser.parse_args(arguments)
    if given.loop is not None:
        loop(json.loads(given.loop))
        return {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trials = prepare(folder, given.sources, given.targets, given.model)
        ray = given.ray if given.ray is not None else bool(importlib.util.find_spec("ray"))
        results: dict[str, Measured] = {}
        print(f"{trials} trials, {given.model}; {'tiny ' * given.tiny}{', '.join(JUDGES)}")
        print(
            f"{'':10}{'trials/s':>9}{'work s':>8}{'whole s':>9}{'efficiency':>11}  busy %, stages s"
        )
        jobs: list[tuple[str, int]] = [("loop", 1)] if given.loop_trials else []
        jobs += [(kind, n) for kind in ("cards", *["ray"] * ray) for n in given.cards]
        for kind, count in jobs:
            if kind == "loop":
                result = run_loop(folder, min(given.loop_trials, trials), given.tiny)
            elif kind == "cards":
                result = run_shards(folder, trials, count, given.tiny)
            else:
                result = run_ray(folder, trials, count, given.tiny)
            name = "loop" if kind == "loop" else f"{count} {kind}"
            results[name] = result
            print(line(name, result, results.get(f"1 {kind}"), count), flush=True)
            if given.json:
                write(given.json, results, given.model, given.tiny)
        return results


def prepare(folder: Path, sources: int, targets: int, model: str) -> int:
    """Writes the list of trials and the checkpoint; the number of trials."""
    from bench.manifest import write_trials
    from benchmarks.programs.loop import crossed
    from suites.build import MINI
    from suites.corpora.table import utterances

    suite = crossed(utterances(MINI / "utterances.csv"), sources, targets)
    write_trials(suite.trials, folder / "crossed.jsonl", "/")
    if model != "none":
        from takin_vc.checkpoint import Checkpoint, save_checkpoint
        from takin_vc.config import build_model, load
        from takin_vc.tools.speed import randomise

        config = load([f"model={model}"])["model"]
        built = build_model(config).eval()
        randomise(built)
        save_checkpoint(folder / CHECKPOINT, Checkpoint(built, config, frozenset()))
    return len(suite.trials)


def settings(folder: Path, tiny: bool) -> list[str]:
    """The command line of `vcbench run`."""
    target = "benchmarks.programs.efficiency.RandomJudge"
    judges = [
        f"+judge.{name}.{key}={value}"
        for name in JUDGES
        for key, value in {
            "_target_": target,
            "name": name,
            "device": "${device}",
            "tiny": str(tiny).lower(),
        }.items()
    ]
    system = (
        ["system=benchmarks.programs.loop.Faster"]
        if not (folder / CHECKPOINT).is_dir()
        else ["system=takin_vc", f"system.takin_vc.checkpoint={folder / CHECKPOINT}"]
    )
    return [
        *(f"outputs={folder / 'outputs'}", f"suite={folder / 'crossed.jsonl'}", "root=/"),
        *("limit=null", "progress=json", "report=[]", "judge=[]", *system, *judges),
    ]


def run_loop(folder: Path, trials: int, tiny: bool) -> Measured:
    """Measures the loop in a process of its own."""
    about = json.dumps({"folder": str(folder), "trials": trials, "tiny": tiny})
    command = [sys.executable, "-m", "benchmarks.programs.efficiency", "--loop", about]
    return measured(trials, [(command, {"CUDA_VISIBLE_DEVICES": "0"})])


def run_shards(folder: Path, trials: int, cards: int, tiny: bool) -> Measured:
    """Measures one process a card, then merges them."""
    common = [sys.executable, "-m", "bench", "run", *settings(folder, tiny), f"name={NAME}-{cards}"]
    cache = f"cache={folder / f'cards-{cards}.sqlite'}"  # nothing is known from before
    shards = [[f"shard={card + 1}/{cards}"] if cards > 1 else [] for card in range(cards)]
    commands = [
        ([*common, cache, *shard], {"CUDA_VISIBLE_DEVICES": str(card)})
        for card, shard in enumerate(shards)
    ]
    result = measured(trials, commands, cards)
    if cards > 1:
        whole = folder / "outputs" / f"{NAME}-{cards}"
        merge = ["merge", str(whole), f"out={whole}-whole", cache, "progress=json"]
        merged = measured(trials, [([sys.executable, "-m", "bench", *merge], {})])
        result.stages["merge"] = merged.work
        result.work += merged.work
        result.whole += merged.whole
    return result


def run_ray(folder: Path, trials: int, cards: int, tiny: bool) -> Measured:
    """Measures `executor=ray` on some of the cards."""
    command = [
        *(
            sys.executable,
            "-m",
            "bench",
            "run",
            *settings(folder, tiny),
            f"name={NAME}-ray-{cards}",
        ),
        *("executor=ray", f"cache={folder / f'ray-{cards}.sqlite'}"),
        *([f"executor.convert.workers={cards}"] if tiny else []),  # of a CPU
    ]
    visible = ",".join(map(str, range(cards)))
    return measured(trials, [(command, {"CUDA_VISIBLE_DEVICES": visible})], cards, overlapped=True)


def measured(
    trials: int,
    commands: Sequence[tuple[Sequence[str], Mapping[str, str]]],
    cards: int = 1,
    overlapped: bool = False,
) -> Measured:
    """Runs commands at the same time and reads their progress.

    Args:
        trials: how many they work on together.
        commands: each with its environment variables.
        cards: how many GPUs they use.
        overlapped: whether stages run at the same time: the work is then from the first step to the
            last one.

    Raises:
        SystemExit: if a command fails; shows the end of its output.
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
            )
            for command, variables in commands
        ]
        spans: list[dict[str, list[float]]] = [{} for _ in processes]
        ends: list[list[str]] = [[] for _ in processes]
        threads = [
            threading.Thread(target=read_progress, args=(p, s, e), daemon=True)
            for p, s, e in zip(processes, spans, ends, strict=True)
        ]
        for thread in threads:
            thread.start()
        codes = [process.wait() for process in processes]
        for thread in threads:
            thread.join()
        whole = time.monotonic() - start
    for code, tail in zip(codes, ends, strict=True):
        if code:
            sys.exit(f"a process ended with {code}:\n" + "".join(tail[-30:]))
    if overlapped:
        times = [t for of_process in spans for span in of_process.values() for t in span]
        spans = [{"convert and score": [min(times), max(times)]}] if times else [{}]
    names = list(dict.fromkeys(name for of_process in spans for name in of_process))
    stages = {n: max(s[n][1] - s[n][0] for s in spans if n in s) for n in names}
    work = max(sum(end - begin for begin, end in of.values()) for of in spans)
    result = Measured(trials, whole, work, stages)
    _add_busy(result, polled.samples, spans, start, cards)
    return result


def read_progress(
    process: "subprocess.Popen[str]", spans: dict[str, list[float]], tail: list[str]
) -> None:
    """Reads lines of progress=json: the time of the first and of the last line of each stage."""
    assert process.stderr is not None
    for text in process.stderr:
        now = time.monotonic()
        tail.append(text)
        del tail[:-30]
        try:
            progress = json.loads(text)
            stage = progress["stage"]
        except (ValueError, KeyError, TypeError):
            continue
        if stage in ("check", "report"):
            continue
        name = " ".join([stage, *([progress["judge"]] if stage == "score" else [])])
        spans.setdefault(name, [now, now])[1] = now


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


def loop(about: Mapping[str, Any]) -> None:
    """Converts and scores one trial after another, in this process; writes its progress."""
    from bench.objects import build
    from bench.stages.convert import Entry, convert_trial, settings_fingerprint, warm_up
    from bench.stages.sounds import Row
    from bench.trials import Suite
    from benchmarks.programs.loop import one_at_a_time

    folder, trials, tiny = Path(about["folder"]), about["trials"], about["tiny"]
    suite = Suite.load(folder / "crossed.jsonl", root="/")
    # Spread over all sources and targets.
    chosen = [suite.trials[n * len(suite.trials) // trials] for n in range(trials)]
    described = (
        {"_target_": "benchmarks.programs.loop.Faster"}
        if not (folder / CHECKPOINT).is_dir()
        else {"_target_": "takin_vc.system.TakinVCSystem", "checkpoint": str(folder / CHECKPOINT)}
    )
    entry = Entry("loop", build(described, "system loop"), described)
    secs, wer, quality = (made(name, "auto", tiny) for name in JUDGES)
    fingerprint = settings_fingerprint(entry, 0)
    outputs = folder / "loop"

    def scored(trial: Any) -> None:
        record = convert_trial(entry, trial, suite.name, outputs, fingerprint, 0)
        row = Row("loop", suite.name, True, trial, record)
        one_at_a_time([row], outputs, secs.encoder, wer.recogniser, quality)

    warm_up(entry.system, chosen[0], 0)
    scored(chosen[0])  # untimed, as the harness's warm-ups
    for done, trial in enumerate((None, *chosen)):
        if trial is not None:
            scored(trial)
        progress = {"stage": "convert", "system": "loop", "done": done, "total": trials}
        print(json.dumps(progress), file=sys.stderr, flush=True)


def line(name: str, result: Measured, one: Measured | None, count: int) -> str:
    """A line of the table."""
    efficiency = ""
    if one is not None and count > 1:
        efficiency = f"{one.work / (count * max(result.work, 1e-9)):.2f}"
    busy = " ".join(f"{share:.0f}" for share in result.busy.values()) or "–"
    stages = ", ".join(
        f"{stage} {seconds:.1f}"
        + (f" ({result.busy_stages[stage]:.0f} %)" if stage in result.busy_stages else "")
        for stage, seconds in result.stages.items()
    )
    rate = result.trials / max(result.work, 1e-9)
    return (
        f"{name:10}{rate:9.2f}{result.work:8.1f}{result.whole:9.1f}{efficiency:>11}  "
        f"{busy}; {stages}"
    )


def write(path: Path, results: Mapping[str, Measured], model: str, tiny: bool) -> None:
    """Writes the measurements as JSON."""
    from bench.files import write_json
    from bench.provenance import origin

    figures = {
        name: {**vars(result), "trials_per_second": result.trials / max(result.work, 1e-9)}
        for name, result in results.items()
    }
    about = {"origin": origin(), "model": model, "tiny_judges": tiny}
    write_json(path, {**about, "results": figures})


if __name__ == "__main__":
    main()
