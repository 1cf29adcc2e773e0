"""Measures a whole run on one and on several GPUs, against a loop over the same trials.

    python -m benchmarks.programs.efficiency                          # 600 trials on 1 and 2 GPUs
    python -m benchmarks.programs.efficiency --cards 1 2 4 --sources 136 --json efficiency.json
    python -m benchmarks.programs.efficiency --max-seconds 5 --limit-seconds 360
    python -m benchmarks.programs.efficiency --tiny --model none --sources 4 --targets 2  # no GPU
    python -m benchmarks.programs.efficiency --table efficiency.json  # as Markdown

The system is `takin_vc` in the shape `acl` (none: one that plays the source faster), the judges are
WavLM-Large SECS, HuBERT-large WER and UTMOS, all with random weights of full size (with --tiny, the
first two are of a few kilobytes). Each measurement is a process of its own:

    loop     one trial after another: convert, then each judge on that trial (seed-vc's eval.py)
    N cards  `vcbench run`, one process a card: shard=i/N, and a merge after it
    N ray    `vcbench run executor=ray`, where Ray is installed

Each process of every "N cards" has OMP_NUM_THREADS and MKL_NUM_THREADS = cores // the largest of
--cards, and at least 1. So 1 card has as many threads a process as N cards have, and only the
number of cards differs. Otherwise each process would start a thread a core, and they would compete
for the cores. The loop, the merge and Ray keep their own numbers of threads. The file of --json has
the number as "threads_per_process".

"work" is the time that the stages took, from the lines of progress=json, of the slowest process.
Loading is what is left of the whole time: imports, models, reports. Ray's workers load at the same
time: there the work begins with the first trials that are converted, and is extended by their
share.
Efficiency is the work of one card / (N × the work of N cards). Busy is the share of time in which
the GPU ran a kernel, as nvidia-smi polls it, during the work.

The file of --json is written after every measurement. One that fails is recorded with its error,
and the others go on.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.programs.efficiency_parts import (
    Measured,
    MeasurementFailed,
    line,
    measured,
    table,
    write,
)

JUDGES = ("secs_wavlm_large", "wer_hubert_large", "utmos")
NAME, CHECKPOINT = "efficiency", "checkpoint"
NO_RAY = "Ray is not installed"


class RandomJudge:
    """A judge of `benchmarks.programs.random_judges` as a class that settings can name.

    Args:
        name: of the judge.
        device: where it runs.
        tiny: of a few kilobytes, but for UTMOS.
    """

    def __init__(self, name: str, device: str = "auto", tiny: bool = False) -> None:
        self.judge = random_judge(name, device, tiny)
        self.reads = self.judge.reads
        self.metrics = self.judge.metrics
        self.needs_source_words = self.judge.needs_source_words
        self.fingerprint = self.judge.fingerprint
        self.weights = self.judge.weights

    def score(self, items: Sequence[Any]) -> Any:
        """See `bench.judges.Judge`."""
        return self.judge.score(items)


def random_judge(name: str, device: str, tiny: bool) -> Any:
    """The judge of this name, with random weights."""
    from bench.devices import torch_device
    from benchmarks.programs import random_judges

    where = str(torch_device(device))
    with tempfile.TemporaryDirectory() as folder:
        [(_, judge)] = list(random_judges.make(Path(folder), where, tiny, [name]))
    return judge


def main(arguments: Sequence[str] | None = None) -> dict[str, Measured]:
    """Prints a line a measurement; with --json it also writes them to a file."""
    given = parsed(arguments)
    if given.loop is not None:
        loop(json.loads(given.loop))
        return {}
    if given.table is not None:
        print(table(given.table))
        return {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trials, seconds = prepare(
            *(folder, given.sources, given.targets, given.model),
            *(given.max_seconds, given.recordings),
        )
        print(f"{trials} trials, {given.model}; {'tiny ' * given.tiny}{', '.join(JUDGES)}")
        print(
            f"{seconds:.0f} s of sources; prepared in {time.monotonic() - begun:.0f} s", flush=True
        )
        about = {
            "model": given.model,
            "tiny_judges": given.tiny,
            "judges": JUDGES,
            "cores": cores(),
            "threads_per_process": threads_of(given.cards),
            "source_seconds": seconds,
            "max_seconds": given.max_seconds,
        }
        results: dict[str, Measured] = {}
        failures: dict[str, str] = {}
        print(
            f"{'':10}{'trials/s':>9}{'work s':>8}{'whole s':>9}{'efficiency':>11}  busy %, stages s"
        )
        for kind, count in jobs_of(given):
            name = kind if kind == "loop" else f"{count} {kind}"
            left = None
            if given.limit_seconds is not None:
                left = given.limit_seconds - (time.monotonic() - begun)
            try:
                if left is not None and left <= 0:
                    raise MeasurementFailed(f"skipped: {given.limit_seconds:g} s were over")
                results[name] = measure(kind, count, folder, trials, given, left)
                print(line(name, results[name], results.get(f"1 {kind}"), count), flush=True)
            except Exception as error:  # the others are still to be measured
                failures[name] = str(error) or repr(error)
                print(f"{name:10} {error}", flush=True)
            if given.json:
                write(given.json, results, failures, about)
        return results


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cards", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--sources", type=int, default=50)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--recordings", type=Path, help="a CSV as the embedded corpus has")
    parser.add_argument("--max-seconds", type=float, help="recordings are cut to this length")
    parser.add_argument("--loop-trials", type=int, default=60, help="of the loop; 0: no loop")
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--shards", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--model", default="acl", help="a shape of takin_vc, or none")
    parser.add_argument("--tiny", action="store_true", help="SECS and WER of a few kilobytes")
    parser.add_argument(
        "--limit-seconds",
        type=float,
        help="of the program: it then ends the measurement that runs, and skips the others",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary one")
    parser.add_argument("--table", type=Path, help="print the file of --json as Markdown, and end")
    parser.add_argument("--loop", help=argparse.SUPPRESS)  # the process of the loop
    return parser.parse_args(arguments)


def jobs_of(given: argparse.Namespace) -> list[tuple[str, int]]:
    """What to measure, in this order: (loop, cards or ray; number of cards)."""
    kinds = [*["cards"] * given.shards, *["ray"] * given.ray]
    jobs = [("loop", 1)] if given.loop_trials else []
    return jobs + [(kind, count) for kind in kinds for count in given.cards]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(cards: Sequence[int]) -> int:
    """Numeric threads of each process: an equal share of the cores where most processes run."""
    return max(1, cores() // max(cards, default=1))


def measure(
    kind: str,
    count: int,
    folder: Path,
    trials: int,
    given: argparse.Namespace,
    seconds: float | None,
) -> Measured:
    """Makes one measurement.

    Args:
        kind: loop, cards or ray.
        count: of cards.
        folder: of `prepare`.
        trials: how many there are.
        given: the command line.
        seconds: after which it is ended.

    Raises:
        MeasurementFailed: if it fails.
    """
    if kind == "loop":
        return run_loop(folder, min(given.loop_trials, trials), given.tiny, seconds)
    if kind == "cards":
        return run_shards(folder, trials, count, given.tiny, seconds, threads_of(given.cards))
    if importlib.util.find_spec("ray") is None:
        raise MeasurementFailed(NO_RAY)
    return run_ray(folder, trials, count, given.tiny, seconds)


def prepare(
    folder: Path,
    sources: int,
    targets: int,
    model: str,
    max_seconds: float | None = None,
    listed: Path | None = None,
) -> tuple[int, float]:
    """Writes the list of trials and the checkpoint.

    Args:
        folder: for both.
        sources: number of sources.
        targets: number of targets that each is converted to.
        model: a shape of takin_vc, or none.
        max_seconds: recordings are cut to this length; their transcripts stay.
        listed: the recordings, see `suites.corpora.table.read_csv`; None: the embedded corpus.

    Returns:
        The number of trials, and the seconds of all sources.
    """
    if (folder / "outputs").exists():
        sys.exit(f"{folder} has results of an earlier call; give another folder")
    from bench.manifest import write_trials
    from benchmarks.programs.loop import crossed
    from suites.build import MINI
    from suites.corpora.table import read_csv

    recordings = [
        cut(r.utterance, r.seconds, max_seconds, folder / "recordings")
        for r in read_csv(listed or MINI / "utterances.csv")
    ]
    try:
        suite = crossed(recordings, sources, targets)
    except (IndexError, ZeroDivisionError):
        sys.exit(f"{len(recordings)} recordings are too few for {sources} sources")
    write_trials(suite.trials, folder / "crossed.jsonl", "/")
    if model != "none" and not (folder / CHECKPOINT / "model.safetensors").is_file():
        from takin_vc.checkpoint import Checkpoint, save_checkpoint
        from takin_vc.config import build_model, load
        from takin_vc.tools.speed import randomise

        config = load([f"model={model}"])["model"]
        built = build_model(config).eval()
        randomise(built)
        save_checkpoint(folder / CHECKPOINT, Checkpoint(built, config, frozenset()))
    return len(suite.trials), sum(t.source.seconds or 0.0 for t in suite.trials)


def cut(utterance: Any, seconds: float, most: float | None, folder: Path) -> Any:
    """The utterance with its duration; longer ones than `most` are written to the folder, cut."""
    if most is None or seconds <= most:
        return replace(utterance, seconds=seconds)
    from bench.audio import Waveform
    from bench.files import sha256_of

    sound = utterance.load()
    path = folder / f"{utterance.utterance_id}.wav"
    rate = sound.sample_rate
    Waveform(sound.samples[: round(most * rate)], rate).save(path)
    return replace(utterance, path=path.absolute(), seconds=most, sha256=sha256_of(path))


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


def run_loop(folder: Path, trials: int, tiny: bool, seconds: float | None = None) -> Measured:
    """Measures the loop in a process of its own."""
    about = json.dumps({"folder": str(folder), "trials": trials, "tiny": tiny})
    command = [sys.executable, "-m", "benchmarks.programs.efficiency", "--loop", about]
    return measured(trials, [(command, {"CUDA_VISIBLE_DEVICES": "0"})], seconds=seconds)


def run_shards(
    folder: Path, trials: int, cards: int, tiny: bool, seconds: float | None, threads: int
) -> Measured:
    """Measures one process a card, each with this many numeric threads, then merges them."""
    common = [sys.executable, "-m", "bench", "run", *settings(folder, tiny), f"name={NAME}-{cards}"]
    cache = f"cache={folder / f'cards-{cards}.sqlite'}"  # nothing is known from before
    shards = [[f"shard={card + 1}/{cards}"] if cards > 1 else [] for card in range(cards)]
    share = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    commands = [
        ([*common, cache, *shard], {"CUDA_VISIBLE_DEVICES": str(card), **share})
        for card, shard in enumerate(shards)
    ]
    result = measured(trials, commands, cards, seconds=seconds)
    if cards > 1:
        whole = folder / "outputs" / f"{NAME}-{cards}"
        merge = ["merge", str(whole), f"out={whole}-whole", cache, "progress=json"]
        left = None if seconds is None else max(0.0, seconds - result.whole)
        merged = measured(trials, [([sys.executable, "-m", "bench", *merge], {})], seconds=left)
        result.stages["merge"] = merged.work
        result.work += merged.work
        result.whole += merged.whole
    return result


def run_ray(
    folder: Path, trials: int, cards: int, tiny: bool, seconds: float | None = None
) -> Measured:
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
    variables = {
        "CUDA_VISIBLE_DEVICES": visible,
        # Ray ends workers where little memory seems left; a virtual machine's may grow with use.
        "RAY_memory_monitor_refresh_ms": "0",
    }
    commands = [(command, variables)]
    return measured(trials, commands, cards, overlapped=True, seconds=seconds)


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
    secs, wer, quality = (random_judge(name, "auto", tiny) for name in JUDGES)
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


if __name__ == "__main__":
    main()
