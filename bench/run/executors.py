"""Executors: what converts and scores a run. `local` is `bench.run.run` itself; `ray` is here.

    executor=ray executor.address=auto executor.convert.workers=4 executor.convert.gpus=0.5

The scores do not depend on the executor: it fills the conversion logs and the score cache of the
run, from which `Run.score` writes the tables.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import floor
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.files import JsonLog
from bench.run.judges import DeclaredJudge, plain
from bench.run.systems import is_declared
from bench.stages.convert import Entry, settings_fingerprint
from bench.stages.pipeline import Conversions, FolderHashes, JudgeQueue, run_pipeline
from bench.stages.pool import Needs, Pool, Program
from bench.stages.recorded import FAILED, RecordedConversions
from bench.stages.remote import JudgeFacts, SystemTask
from bench.stages.store import SHARED, FileStore
from bench.systems import EXISTING
from bench.trials import Suite
from bench.weights.find import WeightsMissing

if TYPE_CHECKING:
    from bench.run.run import Run

CONVERTER = "bench.stages.remote.ConvertWorker"
JUDGE = "bench.stages.remote.JudgeWorker"
# Ray puts a worker on the fullest GPU with room for it: two converters of 0.5 would share one.
CONVERT_SHARE = 0.52
GPU_STEPS = 10_000  # Ray counts GPUs to four decimals
REMARKS = "remarks.jsonl"  # in the run's folder: workers that ended, batches that were halved


@dataclass(frozen=True)
class StageSettings:
    """The workers of a stage.

    Attributes:
        workers: how many; None for as many as the cluster has room for.
        gpus: of each; None for a fair share where the cluster has GPUs, else 0.
        cpus: of each.
    """

    workers: int | None = None
    gpus: float | None = None
    cpus: float = 1.0


@dataclass(frozen=True)
class RaySettings:
    """The settings of `executor=ray`.

    Attributes:
        address: None for a cluster of this machine that ends with the run; "auto"; HOST:PORT.
        convert: the workers that convert.
        judge: the workers of each judge.
        judges: judge → its settings where they differ from those of `judge`.
        files: "shared" if all machines see the run's folder and the recordings under the same
            paths; "store" to send files through Ray's object store.
    """

    address: str | None = None
    convert: StageSettings = field(default_factory=StageSettings)
    judge: StageSettings = field(default_factory=StageSettings)
    judges: Mapping[str, StageSettings] = field(default_factory=dict)
    files: str = SHARED


def planned(
    settings: RaySettings, judges: Sequence[str], cpus: float, gpus: float
) -> dict[str, tuple[int, Needs]]:
    """The number of workers and what each needs, by stage: "convert", and the names of judges.

    Each GPU gets one converter on `CONVERT_SHARE` of it, and one worker of each judge on an equal
    share of the rest. Without GPUs half of the cores convert, and the judges share the others.

    Args:
        settings: any number that is set there is kept.
        judges: their names.
        cpus: of the cluster.
        gpus: of the cluster.
    """
    half = 0.5 if judges else 1.0
    of_convert = CONVERT_SHARE if judges else 1.0
    plan = {}
    for name in ("convert", *judges):
        is_judge = name != "convert"
        stage = settings.judges.get(name, settings.judge) if is_judge else settings.convert
        share = half / len(judges) if is_judge else half
        of_gpu = (1.0 - of_convert) / len(judges) if is_judge else of_convert
        own_gpus = stage.gpus if stage.gpus is not None else (of_gpu if gpus >= 1 else 0.0)
        workers = stage.workers
        if workers is None:
            places = gpus if own_gpus else cpus * share / max(stage.cpus, 0.01)
            workers = max(1, int(places))
        if stage.gpus is None:  # never rounded up: all shares of a GPU must fit on it
            own_gpus = floor(own_gpus * GPU_STEPS) / GPU_STEPS
        plan[name] = workers, Needs(stage.cpus, own_gpus)
    return plan


class RayExecutor:
    """Converts and scores on a Ray cluster.

    Args:
        settings: the workers.
        connect: gives a backend, a context manager with `resources`; by default Ray.
    """

    def __init__(
        self, settings: RaySettings | None = None, connect: Callable[[], Any] | None = None
    ) -> None:
        self.settings = settings or RaySettings()
        self._connect = connect or self._ray

    def _ray(self) -> Any:
        from bench.stages.ray import RayBackend

        return RayBackend(self.settings.address)

    def check(self) -> None:
        """Raises UserError if Ray is missing, before anything is read."""
        from bench.stages.ray import imported_ray

        imported_ray()

    def execute(
        self,
        run: "Run",
        suites: Sequence[Suite],
        entries: Sequence[Entry],
        judges: Mapping[str, Any],
        *,
        convert: bool = False,
        overwrite: bool = False,
    ) -> dict[str, tuple[Any, JudgeFacts | str]]:
        """Converts what is not converted, and scores what is not in the score cache.

        Args:
            run: whose conversion logs and score cache are filled.
            suites: the trials.
            entries: the systems, with their facts.
            judges: name → judge.
            convert: whether to convert; otherwise only what is recorded is scored.
            overwrite: convert everything again.

        Returns:
            Judge → itself, and its facts or why it cannot judge.

        Raises:
            UserError: if a system or a judge is an object, which only this process has.
            UserError, JudgeError, OSError: see `bench.stages.pipeline.run_pipeline`.
        """
        for kind, given in (("system", run.systems), ("judge", judges)):
            for name, value in given.items():
                if not isinstance(value, DeclaredJudge) and not is_declared(value):
                    raise UserError(
                        f"executor=ray: {kind} {name} is an object; give its settings, or "
                        "executor=local"
                    )
        is_shared = self.settings.files == SHARED
        if not is_shared:
            _check_files_travel(entries)
            run.progress.note("executor=ray: files travel through Ray's object store")
        folder, seed, progress = run.folder, run.seed, run.progress
        worker_folder = str(folder) if is_shared else None
        with ExitStack() as stack:
            remark = remarks_of(run)
            logs, tasks = [], {}
            for entry in entries:
                fingerprint = settings_fingerprint(entry, seed)
                tasks[entry.name] = SystemTask(entry.name, entry.settings, entry.facts, fingerprint)
                for suite in suites:
                    log = RecordedConversions(
                        entry, fingerprint, suite, folder, overwrite=overwrite
                    )
                    logs.append(stack.enter_context(log))
            scores = run.open_cache()
            stack.callback(scores.close)
            backend = stack.enter_context(self._connect())
            resources = backend.resources()
            plan = planned(
                self.settings, list(judges), resources.get("CPU", 0), resources.get("GPU", 0)
            )
            store = None if is_shared else FileStore(backend, folder)
            conversions = None
            if convert:
                program = Program(CONVERTER, (worker_folder, seed, run.trial_seconds, run.isolated))
                workers, needs = plan["convert"]
                pool = Pool(backend, "convert", program, needs, workers, remark)
                trials = sum(len(suite.trials) for suite in suites)
                bars = {e.name: progress.task("convert", e.name, trials) for e in entries}
                conversions = Conversions(logs, tasks, pool, bars, seed, store)
            sounds = FolderHashes(folder, scores)
            rows = sum(len(log.states) for log in logs)
            judgings = []
            for name, judge in judges.items():
                program = Program(JUDGE, (name, plain(judge.settings), worker_folder))
                workers, needs = plan[name]
                pool = Pool(backend, f"judge {name}", program, needs, workers, remark, "load")
                advance = progress.task("score", name, rows)
                judgings.append(
                    JudgeQueue(name, pool, logs, scores, sounds, folder, advance, store)
                )
            run_pipeline(backend, conversions, judgings, scores, folder, remark)
            if convert:
                for log in logs:
                    if text := _failed(log):
                        progress.note(text)
        return {j.name: (judges[j.name], j.unavailable or j.facts or "") for j in judgings}


def remarks_of(run: "Run") -> Callable[[str], None]:
    """Stores remarks in the run's folder, and shows them."""

    def remark(text: str) -> None:
        with JsonLog(run.folder / REMARKS) as log:
            log.append({"remark": text})
        run.progress.note(text, caution=True)

    return remark


def known_facts(facts: JudgeFacts | str) -> JudgeFacts:
    """The facts of a judge.

    Raises:
        WeightsMissing: if it could not be built.
    """
    if isinstance(facts, str):
        raise WeightsMissing(facts)
    return facts


def _check_files_travel(entries: Sequence[Entry]) -> None:
    """Raises UserError if a system has audio in files that workers elsewhere cannot read."""
    for entry in entries:
        if entry.facts.kind == EXISTING and not entry.facts.role:
            raise UserError(
                f"executor.files=store: system {entry.name} has its audio in files of this "
                "machine; put them on a shared folder and take executor.files=shared, or "
                "executor=local"
            )


def _failed(log: RecordedConversions) -> str:
    """A note on the conversions of a log that failed; "" if none did."""
    failed = [number for number, state in enumerate(log.states) if state == FAILED]
    if not failed:
        return ""
    first = log.conversion(failed[0])
    return (
        f"{log.entry.name} failed on {len(failed)} of {len(log.states)} trials of "
        f"{log.suite.name}, first {first.trial_id}: {first.error}"
    )
