"""Executors: what converts and scores a run. `local` is `bench.run.run` itself; `ray` is here.

    executor=ray executor.address=auto executor.convert.workers=4 executor.convert.gpus=0.5

The scores do not depend on the executor: it fills the conversion logs and the score cache of the
run, from which `Run.score` writes the tables.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import floor
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.files import JsonLog
from bench.run.judges import DeclaredJudge, plain
from bench.run.memory import (
    CONVERT,
    FILE,
    GPU_STEPS,
    MARGIN,
    GpuPlan,
    MeasuredMemory,
    card_gib,
    declared_gib,
    share_cards,
)
from bench.run.systems import is_declared
from bench.stages.convert import Entry, settings_fingerprint
from bench.stages.pipeline import Conversions, FolderHashes, JudgeQueue, run_pipeline
from bench.stages.pool import Needs, Pool, Program
from bench.stages.recorded import FAILED, RecordedConversions
from bench.stages.remote import JudgeFacts, SystemTask
from bench.stages.store import SHARED, STORE, FileStore, remove_abandoned
from bench.systems import EXISTING
from bench.trials import Suite
from bench.weights.find import WeightsMissing

if TYPE_CHECKING:
    from bench.run.run import Run

CONVERTER = "bench.stages.remote.ConvertWorker"
JUDGE = "bench.stages.remote.JudgeWorker"
# Ray puts a worker on the fullest GPU with room for it: two converters of 0.5 would share one.
CONVERT_SHARE = 0.52
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
        memory: GiB of each GPU that all workers on it may need; None for all but a margin.
    """

    address: str | None = None
    convert: StageSettings = field(default_factory=StageSettings)
    judge: StageSettings = field(default_factory=StageSettings)
    judges: Mapping[str, StageSettings] = field(default_factory=dict)
    files: str = SHARED
    memory: float | None = None

    def __post_init__(self) -> None:
        if self.files not in (SHARED, STORE):
            raise UserError(f"files={self.files!r}: must be {SHARED} or {STORE}")

    def of(self, kind: str) -> StageSettings:
        """The settings of a kind of workers: "convert", or a judge."""
        return self.convert if kind == CONVERT else self.judges.get(kind, self.judge)


def gpu_plan(
    settings: RaySettings,
    needs: Mapping[str, float | None],
    card: float | None,
    gpus: float,
    *,
    converts: bool = True,
) -> GpuPlan | str:
    """Which workers share a GPU; or, as a text, why their memory cannot decide on it.

    A share that is set goes before the need. The conversion needs half of a card unless its share
    is set: its need is not known before a system is built.

    Args:
        settings: the shares that are set, and the budget.
        needs: judge → GiB of a worker; None if unknown, 0 without a GPU.
        card: GiB of the smallest card; None if unknown.
        gpus: of the cluster.
        converts: whether the run converts; otherwise the judges have the GPUs alone.

    Raises:
        UserError: if a judge does not fit on a card alone.
    """
    if gpus < 1:
        return "there is no GPU"
    budget = settings.memory
    if budget is None:
        if card is None:
            return "the memory of the GPUs is not known; set executor.memory"
        budget = card * (1 - MARGIN)
    asked = {**({CONVERT: budget / 2} if converts else {}), **needs}
    fixed = {k: g for k in asked if (g := settings.of(k).gpus) is not None}
    if unknown := [k for k, need in asked.items() if need is None and k not in fixed]:
        return (
            f"not known what {', '.join(unknown)} need; a run measures it if they use torch, else "
            f"set executor.judges.{unknown[0]}.gpus"
        )
    of_plan = {
        kind: need or 0.0
        for kind, need in asked.items()
        if (0 < fixed[kind] < 1 if kind in fixed else need)
    }
    return share_cards(
        of_plan, budget, int(gpus), {k: share for k, share in fixed.items() if k in of_plan}
    )


def planned(
    settings: RaySettings,
    judges: Sequence[str],
    cpus: float,
    gpus: float,
    plan: GpuPlan | None = None,
    *,
    converts: bool = True,
) -> dict[str, tuple[int, Needs]]:
    """The number of workers and what each needs, by stage: "convert", and the names of judges.

    Without a plan each GPU gets one converter on `CONVERT_SHARE` of it, and one worker of each
    judge on an equal share of the rest. Without GPUs half of the cores convert, and the judges
    share the others. If nothing is converted, the judges have everything.

    Args:
        settings: any number that is set there is kept.
        judges: their names.
        cpus: of the cluster.
        gpus: of the cluster.
        plan: decides on shares and numbers of workers (see `gpu_plan`); what is not in it gets no
            GPU.
        converts: see `gpu_plan`.
    """
    of_cores, of_gpus = (0.5, CONVERT_SHARE) if judges else (1.0, 1.0)  # for the conversion
    if not converts:
        of_cores, of_gpus = 0.0, 0.0
    workers_of = {}
    for name in (*[CONVERT] * converts, *judges):
        stage = settings.of(name)
        share = of_cores if name == CONVERT else (1.0 - of_cores) / len(judges)
        of_gpu = of_gpus if name == CONVERT else (1.0 - of_gpus) / len(judges)
        gpu_share = stage.gpus
        if gpu_share is None and plan is not None:
            gpu_share = plan.shares.get(name, 0.0)
        elif gpu_share is None:  # never rounded up: all shares of a GPU must fit on it
            gpu_share = floor(of_gpu * GPU_STEPS) / GPU_STEPS if gpus >= 1 else 0.0
        workers = stage.workers
        if workers is None and plan is not None and name in plan.shares:
            workers = plan.workers(name)
        elif workers is None:
            places = gpus if gpu_share else cpus * share / max(stage.cpus, 0.01)
            workers = max(1, int(places))
        workers_of[name] = workers, Needs(stage.cpus, gpu_share)
    return workers_of


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
        self._backend: Any = None  # in the block of `begun`

    def _ray(self) -> Any:
        from bench.stages.ray import RayBackend

        return RayBackend(self.settings.address)

    def check(self) -> None:
        """Raises UserError if Ray is missing, before anything is read."""
        from bench.stages.ray import imported_ray

        imported_ray()

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Begins to start the cluster, for `execute` inside of the block; it ends with the block.

        Raises:
            UserError: if `executor.address` names no cluster.
        """
        if self._backend is not None:
            yield
            return
        try:
            with self._connect() as self._backend:
                yield
        finally:
            self._backend = None
            if self.settings.files == STORE:
                remove_abandoned()  # of workers that were killed, on this machine

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
            stack.enter_context(self.begun())
            backend = self._backend
            resources = backend.resources()
            memory = MeasuredMemory(run.cache.parent / FILE)
            plan = self._planned(judges, resources, memory, progress.note, convert)
            store = None if is_shared else FileStore(backend, folder)
            conversions = None
            if convert:
                arguments = (worker_folder, seed, run.trial_seconds, run.isolated)
                converts = any(entry.facts.kind != EXISTING for entry in entries)
                program = Program(CONVERTER, arguments, forks=run.isolated and converts)
                workers, needs = plan[CONVERT]
                pool = Pool(backend, CONVERT, program, needs, workers, remark)
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
            try:
                run_pipeline(backend, conversions, judgings, scores, folder, remark)
            finally:
                for judging in judgings:
                    pool = judging.pool
                    memory.add(plain(judges[judging.name].settings), pool.gpu_gib, pool.card_gib)
                memory.save()
            if convert:
                for log in logs:
                    if text := _failed(log):
                        progress.note(text)
        return {j.name: (judges[j.name], j.unavailable or j.facts or "") for j in judgings}

    def _planned(
        self,
        judges: Mapping[str, Any],
        resources: Mapping[str, float],
        memory: MeasuredMemory,
        note: Callable[[str], None],
        converts: bool,
    ) -> dict[str, tuple[int, Needs]]:
        """See `planned`; says how the GPUs are shared."""
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        plan: GpuPlan | str | None = None
        if gpus >= 1:
            needs: dict[str, float | None] = {}
            for name, judge in judges.items():
                settings = plain(judge.settings)
                gib = memory.of(settings)
                needs[name] = declared_gib(settings) if gib is None else gib
            if self.settings.address is None:  # the cluster is this machine
                card = card_gib() or memory.card_gib
            else:
                card = memory.card_gib or card_gib()
            plan = gpu_plan(self.settings, needs, card, gpus, converts=converts)
            why = f"equally: {plan}" if isinstance(plan, str) else f"by memory: {plan}"
            note(f"{gpus:g} GPUs are shared {why}")
        chosen = plan if isinstance(plan, GpuPlan) else None
        return planned(self.settings, list(judges), cpus, gpus, chosen, converts=converts)


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
