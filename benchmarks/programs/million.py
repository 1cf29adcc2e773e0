"""Sends a million trials through the scheduler of `executor=ray`, with a system and a judge that do
nothing, kills it at half and resumes it.

    python -m benchmarks.programs.million                       # 1,000,000 trials, needs Ray
    python -m benchmarks.programs.million --trials 20000
    python -m benchmarks.programs.million --trials 20000 --here # workers in this process, no Ray
    python -m benchmarks.programs.million --sizes               # bytes, from small runs

What is real: the trials in memory (each with 5 of 150,000 recordings), the actors, the conversion
log, the score cache, the keys of scores. What is not: no sound is read or written, so that the hash
of a converted sound is that of its record. Printed are trials per second, of the wall and of this
process's processor time, the peak of its memory, and how many records and scores are on disk.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = 150_000
SUITE, SYSTEM, JUDGE = "million", "null", "null_judge"
HASH_OF_TRIAL = "{:064x}"
SMALL_RUNS = (10_000, 20_000)
SMALL_LISTS = (200_000, 300_000)  # of trials in memory, over all `RECORDINGS`
WAV_SECONDS, WAV_RATE, WAV_HEADER = 7.0, 24_000, 44  # of a conversion: a mean of read speech


class NullConverter:
    """A `bench.stages.remote.ConvertWorker` that converts nothing.

    Args:
        folder: of the run.
        seed: of the run.
    """

    def __init__(self, folder: str, seed: int) -> None:
        self.seed = seed

    def hello(self) -> Any:
        """Says that it is there."""
        from bench.stages.messages import Answer

        return Answer({"host": "here", "pid": os.getpid()})

    def convert(self, task: Any, suite: str, trials: Sequence[Any]) -> Any:
        """The records that a conversion of each trial would have."""
        from bench.stages.convert import Conversion, trial_seed, wav_of
        from bench.stages.messages import Answer, trial_in

        start = time.monotonic()
        records, digests = [], {}
        for trial in map(trial_in, trials):
            seed = trial_seed(trial.trial_id, self.seed)
            digest = HASH_OF_TRIAL.format(int(trial.trial_id[1:]))
            record = Conversion(
                trial.trial_id,
                "ok",
                trial.fingerprint,
                task["fingerprint"],
                seed,
                wav=wav_of(SYSTEM, suite, trial.trial_id),
                wav_sha256=digest,
                elapsed_seconds=0.5,
                audio_seconds=2.0 + seed % 1000 / 100,
                sample_rate=24000,
                peak=0.5,
                clipped=0.0,
                origin="0123456789ab on a simulated machine, 1 cores, 1 threads",
            )
            digests[digest] = digest
            records.append(record.to_json())
        return Answer({"records": records, "digests": digests}, time.monotonic() - start)

    def close(self) -> Any:
        """Has nothing to end."""
        from bench.stages.messages import Answer

        return Answer()


class NullJudge:
    """A `bench.stages.remote.JudgeWorker` that judges nothing."""

    def hello(self) -> Any:
        """Says that it is there."""
        from bench.stages.messages import Answer

        return Answer({"host": "here", "pid": os.getpid()})

    def load(self) -> Any:
        """The facts of a judge that reads the conversion and the enrolment."""
        from bench.stages.messages import Answer
        from bench.stages.remote import JudgeFacts

        reads = frozenset({"converted", "enrolment"})
        return Answer(JudgeFacts("null", reads, ("secs",), False, "null", ()).to_json())

    def score(self, rows: Sequence[Any]) -> Any:
        """One number a row."""
        from bench.stages.messages import Answer

        start = time.monotonic()
        columns = [{"secs": 0.5, "enrolments": 2} for _ in rows]
        return Answer(columns, time.monotonic() - start)

    def close(self) -> Any:
        """Has nothing to end."""
        from bench.stages.messages import Answer

        return Answer()


class NullSounds:
    """Takes a recording's path for its hash; see `bench.stages.pipeline.SoundHashes`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def samples(
        self, rows: Sequence[Any], reads: frozenset[str], digests: Mapping[str, str]
    ) -> dict[str, str]:
        """See `bench.stages.pipeline.SoundHashes`."""
        from bench.stages.sounds import wav_path

        known = {wav_path(self.folder, r.conversion.wav): r.conversion.wav_sha256 for r in rows}
        paths = [str(u.path) for row in rows for u in row.trial.enrolment]
        return known | dict(zip(paths, paths, strict=True))


class Here:
    """A `bench.stages.pool.Backend` whose workers are in this process; nothing overlaps."""

    def __enter__(self) -> "Here":
        self.calls: dict[int, Any] = {}
        self.number = 0
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, program: Any, needs: Any) -> Any:
        """See `bench.stages.pool.Backend`."""
        from bench.objects import locate

        return locate(program.target, "worker")(*program.arguments)

    def call(self, worker: Any, method: str, *arguments: Any) -> int:
        """See `bench.stages.pool.Backend`."""
        from bench.stages.messages import encoded_call

        self.number += 1
        self.calls[self.number] = (worker, encoded_call(method, arguments))
        return self.number

    def wait(self, calls: Sequence[int], seconds: float) -> list[int]:
        """See `bench.stages.pool.Backend`."""
        return list(calls[:1])

    def answer(self, call: int) -> Any:
        """See `bench.stages.pool.Backend`."""
        from bench.stages.messages import Answer, answered, decoded_call

        worker, message = self.calls.pop(call)
        method, arguments = decoded_call(message)
        return Answer.decoded(answered(lambda: getattr(worker, method)(*arguments)).encoded())

    def end(self, worker: Any) -> None:
        """See `bench.stages.pool.Backend`."""


def suite_of(trials: int) -> Any:
    """A suite of so many trials over shared recordings."""
    from bench.trials import Suite, Trial, Utterance

    count = min(RECORDINGS, max(trials, 10))
    recordings = [
        Utterance(
            f"u{n}",
            f"s{n % 2000}",
            "FM"[n % 2],
            Path(f"/corpus/s{n % 2000}/u{n}.wav"),
            "a sentence of about ten words that a recording contains",
            HASH_OF_TRIAL.format(n),
            "corpus/test",
            5.0 + n % 97 / 10,
        )
        for n in range(count)
    ]
    return Suite(
        SUITE,
        tuple(
            Trial(
                f"t{n}",
                recordings[n % count],
                (recordings[(7 * n + 1) % count],),
                (recordings[(7 * n + 2) % count], recordings[(7 * n + 3) % count]),
                (recordings[(n + 4) % count],),
                factors={"gender_pair": "F2M"},
            )
            for n in range(trials)
        ),
        "0" * 64,
    )


def work(folder: Path, trials: int, workers: int, here: bool) -> dict[str, float]:
    """Converts and judges what is not done yet; the figures of this process."""
    from bench.stages.cache import ScoreCache
    from bench.stages.convert import Entry
    from bench.stages.pipeline import Conversions, JudgeQueue, run_pipeline
    from bench.stages.pool import Needs, Pool, Program
    from bench.stages.recorded import RecordedConversions
    from bench.stages.remote import SystemTask
    from bench.systems import SYSTEM as CONVERTS
    from bench.systems import Facts

    begun = time.monotonic()
    suite = suite_of(trials)
    listed = time.monotonic()
    entry = Entry(SYSTEM, None, {"_target_": "null"}, Facts(CONVERTS))
    cache = ScoreCache(folder / "scores.sqlite")

    def backend() -> Any:
        if here:
            return Here()
        from bench.stages.ray import RayBackend

        return RayBackend(None)

    log = RecordedConversions(entry, "f" * 64, suite, folder, has_file=lambda wav: True)
    kept = trials - len(log.to_convert())
    read = time.monotonic()
    print(f"{kept} trials are converted already", file=sys.stderr, flush=True)
    with log, backend() as started:
        if not here:
            started.resources()  # waits until Ray is there
        name = "benchmarks.programs.million"
        needs = Needs(0.1)
        done = [0, 0]

        def count(part: int, steps: int) -> None:
            done[part] += steps

        convert = Pool(
            started, "convert", Program(f"{name}.NullConverter", (str(folder), 0)), needs, workers
        )
        judge = Pool(
            started, "judge", Program(f"{name}.NullJudge", ()), needs, workers, first="load"
        )
        task = SystemTask(SYSTEM, entry.settings, entry.facts, "f" * 64)
        conversions = Conversions([log], {SYSTEM: task}, convert, {SYSTEM: lambda n: count(0, n)})
        judging = JudgeQueue(
            JUDGE, judge, [log], cache, NullSounds(folder), folder, lambda n: count(1, n)
        )
        ready, cpu = time.monotonic(), time.process_time()
        run_pipeline(started, conversions, [judging], cache, folder, print)
        end, cpu_end = time.monotonic(), time.process_time()
    cache.close()
    new = trials - kept
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "kept": kept,
        "converted": new,
        "scored": judging.scored,
        "list_seconds": listed - begun,
        "log_seconds": read - listed,
        "start_seconds": ready - read,
        "work_seconds": end - ready,
        "cpu_seconds": cpu_end - cpu,
        "trials_per_second": new / (end - ready),
        "trials_per_cpu_second": new / max(cpu_end - cpu, 1e-9),
        "peak_gib": peak,
    }


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Prints the figures of both halves; with --json it also writes them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="workers in this process")
    parser.add_argument("--whole", action="store_true", help="no kill at half")
    parser.add_argument("--sizes", action="store_true", help="measure two small runs, no Ray")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--list", type=int, help=argparse.SUPPRESS)  # see memory_of_list
    parser.add_argument("--work", help=argparse.SUPPRESS)  # the folder of the process that works
    given = parser.parse_args(arguments)
    if given.work is not None:
        print(json.dumps(work(Path(given.work), given.trials, given.workers, given.here)))
        return []
    if given.sizes:
        lists = [(count, float(output_of("--list", str(count)))) for count in SMALL_LISTS]
        print(sizes_table(given.trials, [sizes(count) for count in SMALL_RUNS], lists))
        return []
    if given.list is not None:
        print(memory_of_list(given.list))
        return []
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log = folder / "conversions" / SYSTEM / f"{SUITE}.jsonl"
        if not given.whole:
            half = killed_at_half(command(given, folder), log, given.trials)
            print(f"killed with {half['records']:,.0f} records, {half['trials_per_second']:,.0f}/s")
            results.append(half)
        done = subprocess.run(
            command(given, folder), check=True, stdout=subprocess.PIPE, text=True, env=environment()
        )
        results.append(json.loads(done.stdout.splitlines()[-1]))
        for key, value in results[-1].items():
            print(f"{key:22}{value:14,.2f}")
        records, scores = counted(log, folder / "scores.sqlite")
        print(f"{records:,} records and {scores:,} scores of {given.trials:,} trials")
        if (records, scores) != (given.trials, given.trials):
            sys.exit("something was lost, or done twice")
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    return results


def output_of(*arguments: str) -> str:
    """The last line that this program prints, run as another process."""
    command = [sys.executable, "-m", "benchmarks.programs.million", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment())
    return done.stdout.splitlines()[-1]


def memory_of_list(trials: int) -> int:
    """The peak of this process's memory with so many trials and an index of records, in bytes."""
    from bench.stages.convert import Entry
    from bench.stages.pipeline import run_pipeline
    from bench.stages.recorded import RecordedConversions
    from bench.systems import SYSTEM as CONVERTS
    from bench.systems import Facts

    assert run_pipeline  # it imports what a run imports
    entry = Entry(SYSTEM, None, {"_target_": "null"}, Facts(CONVERTS))
    with tempfile.TemporaryDirectory() as folder:
        log = RecordedConversions(entry, "f" * 64, suite_of(trials), Path(folder))
        assert len(log.to_convert()) == trials
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sizes(trials: int) -> dict[str, float]:
    """Bytes that a small run without Ray leaves on disk and needs in memory beside its list."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = output_of("--here", "--trials", str(trials), "--work", str(folder))
        log = folder / "conversions" / SYSTEM / f"{SUITE}.jsonl"
        return {
            "trials": trials,
            "log": log.stat().st_size,
            "cache": (folder / "scores.sqlite").stat().st_size,
            "run": json.loads(run)["peak_gib"] * 2**30 - float(output_of("--list", str(trials))),
        }


def sizes_table(
    trials: int, runs: Sequence[Mapping[str, float]], lists: Sequence[tuple[int, float]]
) -> str:
    """Bytes of a run of one system and one judge, as a table in Markdown.

    What grows between two measurements grows on at the same rate. The rows in flight do not: their
    number is bounded.

    Args:
        trials: of the run.
        runs: two of `sizes`, the smaller first.
        lists: two numbers of trials and `memory_of_list` of each, the smaller first.
    """
    small, large = runs
    rows = ["| what | bytes a trial | all |", "|---|---|---|"]
    for key, name in {"log": "conversion log", "cache": "score cache, with one judge"}.items():
        each = (large[key] - small[key]) / (large["trials"] - small["trials"])
        whole = large[key] + each * (trials - large["trials"])
        rows.append(f"| {name} | {each:,.0f} | {whole / 1e9:,.2f} GB |")
    wav = WAV_HEADER + 2 * WAV_RATE * WAV_SECONDS
    rows.append(f"| sounds of {WAV_SECONDS:g} s | {wav:,.0f} | {wav * trials / 1e9:,.0f} GB |")
    (first, before), (second, after) = lists
    each = (after - before) / (second - first)
    whole = after + each * (trials - second)
    rows.append(f"| driver: list of trials, libraries | {each:,.0f} | {whole / 1e9:,.2f} GB |")
    rows.append(f"| driver: rows in flight, up to | | {max(large['run'], 0) / 1e9:,.2f} GB |")
    return "\n".join(rows)


def environment() -> dict[str, str]:
    """The environment of the process that works."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def command(given: argparse.Namespace, folder: Path) -> list[str]:
    """The command of the process that works."""
    here = ["--here"] if given.here else []
    program = [sys.executable, "-m", "benchmarks.programs.million"]
    sizes = ["--trials", str(given.trials), "--workers", str(given.workers)]
    return [*program, *sizes, *here, "--work", str(folder)]


def killed_at_half(command: Sequence[str], log: Path, trials: int) -> dict[str, float]:
    """Runs the command and kills it when half of the records are on disk."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    first, first_size, record = 0.0, 0, 0
    while process.poll() is None:
        time.sleep(0.02)
        size = log.stat().st_size if log.is_file() else 0
        if size and not first:
            first, first_size = time.monotonic(), size
            with log.open("rb") as file:
                record = len(file.readline())
        if record and size >= record * trials / 2:
            process.send_signal(signal.SIGKILL)
    now = time.monotonic()
    process.wait()
    if process.returncode != -signal.SIGKILL:
        sys.exit(f"it ended with {process.returncode} before it was killed")
    records = log.read_bytes().count(b"\n")
    rate = (records - first_size / record) / max(now - first, 1e-9)
    return {"records": records, "trials_per_second": rate}


def counted(log: Path, scores: Path) -> tuple[int, int]:
    """The number of records and of scores on disk."""
    import sqlite3

    with log.open("rb") as file:
        records = sum(1 for _ in file)
    database = sqlite3.connect(scores)
    [(count,)] = database.execute("SELECT count(*) FROM checked_scores")
    database.close()
    return records, count


if __name__ == "__main__":
    main()
