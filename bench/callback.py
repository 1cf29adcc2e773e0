"""Benchmarks a model during its training: a small suite every so often, compared with before.

Each call is a run in a folder of its own, so `vcbench history`, `compare`, `gate` and `report` work
on them. docs/guide/training-callback.md has examples.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.errors import UserError, choose_one_of
from bench.files import JsonLog
from bench.guard import ModulesChanged, guarded, modules_guarded
from bench.judges import Judge
from bench.metrics import METRICS, leading
from bench.results import ScoredRun
from bench.run.folder import RUN, read_run
from bench.run.judges import DeclaredJudge
from bench.run.run import Run
from bench.stats.gate import EXIT, PASS, REGRESSION, Decision, Rules, decide
from bench.stats.history import HEADLINE
from bench.stats.pooling import measures_of
from bench.stats.sides import Side
from bench.trials import Suite

CALLS = "calls.jsonl"  # one record a call, in the folder of the training
BEST, FIRST = "best", "first"
PREFIX = "vcbench"  # of the names of logged values

# Receives the values of a call by name, and the step.
Log = Callable[[Mapping[str, float], int], object]


@dataclass(frozen=True)
class Evaluation:
    """The result of one call.

    Attributes:
        step: of the training.
        run: the scored run; `run.summary`, `run.scores` and `run.report()` have everything.
        decision: of the gate, against the baseline; None if there is nothing to compare with yet.
        best: whether this is the best call so far (see `Benchmark`).
        stop: whether the training should stop.
        values: what was logged, by name.
    """

    step: int
    run: Run
    decision: Decision | None
    best: bool
    stop: bool
    values: Mapping[str, float]


class Benchmark:
    """Runs suites with a model in memory, every so many steps of its training.

    The training is not disturbed: the modes, gradients and devices of the model's modules, the
    states of all random generators, the grad mode, autocast and the process state are as before
    the call. The model converts in evaluation mode, without gradients and without autocast; a
    system that wants autocast enters it in `convert`.

    A call is the best so far if it is not worse than the best before it by the gate, converts what
    that one converted, and its differences, each divided by its margin, add up to an improvement.

    Args:
        folder: of the training; each call is a run in it, "step_00001000".
        suites: a few trials: `bench.Suite.load(…, limit=16)`.
        judges: name → judge, as for `bench.Run.score`. They stay in memory between calls; a
            `DeclaredJudge` is built in each call.
        system: makes a `bench.System` from the model; None if the model is a system.
        every: steps between two calls. A loop that skips steps calls at the next step that it sees.
        against: what a call is compared with: "best" or "first" of the earlier calls, or a scored
            run: its folder, or folder:system.
        rules: margins and the rest of the gate's rules; by default those of bench/conf/gate.yaml.
        log: each is called with the values of a call and the step: `to_tensorboard`, `to_wandb`,
            `to_mlflow`, or any function.
        stop_after: regressions in a row after which the training should stop; None for never.
        anchors: recordings that are scored in each call as well:
            {"source": "baselines.anchors.Source"}. Their scores are cached.
        name: of the system in the runs.
        resume: continue the calls that are in the folder. A call of the same step is replaced;
            calls of later steps are ignored.

    Raises:
        UserError: if the folder has calls and `resume` is false, or a setting is wrong.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        suites: Sequence[Suite],
        judges: Mapping[str, Judge | DeclaredJudge],
        system: Callable[[Any], Any] | None = None,
        every: int = 1000,
        against: str | Path = BEST,
        rules: Rules | None = None,
        log: Sequence[Log] = (),
        stop_after: int | None = None,
        anchors: Mapping[str, Any] | None = None,
        name: str = "model",
        resume: bool = False,
    ) -> None:
        for option, value in (("every", every), ("stop_after", stop_after)):
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"{option} is {value!r}; it must be a whole number from 1")
        self.folder = Path(folder).absolute()
        self.suites = list(suites)
        self.judges = dict(judges)
        self.system = system
        self.every = every
        self.rules = rules or Rules.load()
        self.log = list(log)
        self.stop_after = stop_after
        self.anchors = dict(anchors or {})
        self.name = name
        self.last: Evaluation | None = None
        self._against = str(against)
        self._named = None if self._against in (BEST, FIRST) else self._named_run(self._against)
        self._calls = JsonLog(self.folder / CALLS)
        self._known = self._calls.read()
        self._seen: int | None = None
        if self._known and not resume:
            raise UserError(
                f"{self.folder} has the calls of a training up to step "
                f"{max(call['step'] for call in self._known)}; give another folder, or resume=True "
                "to continue it"
            )

    def __call__(self, step: int, model: Any) -> bool:
        """Evaluates the model if a call is due; call it after each step, on one process.

        The first evaluation raises its errors. Later ones turn them into a warning, so that a full
        disk does not end a training.

        Args:
            step: of the training; 0 is never due.
            model: a system, or what `system` makes one from: a module, a collection of modules, or
                anything else.

        Returns:
            Whether the training should stop. `last` has the details.

        Raises:
            ModulesChanged: if the system changed weights of the model: the training would continue
                with others.
        """
        before = step - 1 if self._seen is None else self._seen
        self._seen = step
        if step < 1 or step // self.every <= before // self.every:
            return False
        try:
            return self.evaluate(step, model).stop
        except ModulesChanged:
            raise
        except Exception as error:
            if self.last is None:
                raise
            reason = " ".join(str(error).split())
            warnings.warn(
                f"step {step} was not benchmarked, the training continues: {reason}", stacklevel=2
            )
            return False

    def evaluate(self, step: int, model: Any) -> Evaluation:
        """Evaluates the model now.

        Args:
            step: of the training.
            model: as in `__call__`.

        Raises:
            UserError: as the stages of `bench.Run`; if every conversion failed, or the runs cannot
                be compared.
            ModulesChanged: as in `__call__`.
        """
        begin = time.monotonic()
        with guarded(), modules_guarded(modules_of(model)), _plain_torch():
            system = model if self.system is None else self.system(model)
            run = Run(
                self.folder / f"step_{step:08d}",
                suites=self.suites,
                systems={self.name: system, **self.anchors},
            )
            run.check(self.judges)
            run.convert(overwrite=True)
            run.score(self.judges)
            self._check_converted(run)
            evaluation = self._compared(step, run, begin)
        for log in self.log:
            log(evaluation.values, step)
        self.last = evaluation
        return evaluation

    def _check_converted(self, run: Run) -> None:
        """Raises UserError if every conversion of the model failed: nothing was measured."""
        rows = run.scores[run.scores["system"] == self.name]
        if (rows["status"] == "failed").all():
            first = rows.iloc[0]
            raise UserError(
                f"{self.name} failed on all {len(rows)} trials, first {first['trial_id']}: "
                f"{first['error']}"
            )

    def _compared(self, step: int, run: Run, begin: float) -> Evaluation:
        """Compares a scored run with the baseline and with the best, and records the call."""
        earlier = sorted(
            {call["step"]: call for call in self._known if call["step"] < step}.values(),
            key=lambda call: call["step"],
        )
        candidate = Side(run.name, run.scored, self.name)
        best = self._side_of([call for call in earlier if call["best"]][::-1])
        against_best = None if best is None else decide(best, candidate, self.rules)
        decision = against_best
        if self._named is not None:
            decision = decide(self._named, candidate, self.rules)
        elif self._against == FIRST and (first := self._side_of(earlier)) is not None:
            decision = decide(first, candidate, self.rules)
        is_best = against_best is None or is_better(against_best)
        outcome = None if decision is None else decision.outcome
        record = {
            "step": step,
            "run": run.name,
            "against": None if decision is None else decision.baseline,
            "outcome": outcome,
            "best": is_best,
        }
        with self._calls as calls:
            calls.append(record)
        self._known.append(record)
        outcomes = [*(call["outcome"] for call in earlier), outcome]
        stop = self.stop_after is not None and (
            outcomes[-self.stop_after :] == [REGRESSION] * self.stop_after
        )
        values = self._values(run.scored, decision) | {
            f"{PREFIX}/best": float(is_best),
            f"{PREFIX}/seconds": time.monotonic() - begin,
        }
        return Evaluation(step, run, decision, is_best, stop, values)

    def _side_of(self, calls: Sequence[Mapping[str, Any]]) -> Side | None:
        """The first of the calls whose run folder is still there; None if there is none."""
        for call in calls:
            folder = self.folder / Path(call["run"]).name
            if (folder / RUN).is_file():
                return Side(folder.name, read_run(folder), self.name)
        return None

    def _named_run(self, text: str) -> Side:
        """The system of a run that is given as FOLDER or FOLDER:system."""
        folder, _, system = text.rpartition(":")
        if not folder or (Path(text) / RUN).is_file():
            folder, system = text, ""
        run = read_run(Path(folder))
        known = run.systems
        if not system and self.name in known:
            system = self.name
        elif not system and len(known) == 1:
            [system] = known
        if system not in known:
            raise UserError(
                f"against={text}: say which system is meant, {folder}:SYSTEM; "
                f"{choose_one_of(system, known)}"
            )
        return Side(f"{run.name}:{system}", run, system)

    def _values(self, scored: ScoredRun, decision: Decision | None) -> dict[str, float]:
        """Leading metrics with their intervals, failures, and how many checks had each outcome."""
        rows = scored.summary[scored.summary["system"] == self.name]
        measures = measures_of(rows)
        shown = {*leading(measures, HEADLINE)}
        shown |= {(judge, metric) for judge, metric in measures if metric in self.rules.margins}
        values: dict[str, float] = {}
        for row in rows.to_dict("records"):
            suite = f"{PREFIX}/{row['suite']}"
            values[f"{suite}/failed"] = float(row["failed"])
            if (row["judge"], row["metric"]) not in shown or not row["n"]:
                continue
            name = f"{suite}/{row['metric']}/{row['judge']}"
            numbers = {name: row["value"], f"{name}/low": row["low"], f"{name}/high": row["high"]}
            values |= {name: float(value) for name, value in numbers.items() if pd.notna(value)}
        if decision is not None:
            for outcome in EXIT:
                count = sum(check.outcome == outcome for check in decision.checks)
                values[f"{PREFIX}/gate/{outcome}"] = float(count)
        return values


def is_better(decision: Decision) -> bool:
    """Whether the candidate is better than the baseline: see `Benchmark`."""
    total = 0.0
    for check in decision.checks:
        if check.outcome == REGRESSION or (check.row is None and check.outcome != PASS):
            return False
        if check.row is not None and not check.row["slice"] and check.row["margin"] > 0:
            sign = 1 if METRICS[check.row["metric"]].higher_is_better else -1
            total += sign * check.row["effect"] / check.row["margin"]
    return total > 0


def modules_of(model: Any) -> list[torch.nn.Module]:
    """The modules that a model consists of.

    Args:
        model: a module; a mapping, list or tuple of modules; or an object that has these as
            attributes, such as a system.
    """
    if isinstance(model, torch.nn.Module):
        return [model]
    if isinstance(model, Mapping | list | tuple):
        parts = list(model.values()) if isinstance(model, Mapping) else list(model)
    else:
        parts = [*getattr(model, "__dict__", {}).values()]
        parts += [p for part in parts if isinstance(part, list | tuple) for p in part]
        parts += [p for part in parts if isinstance(part, dict) for p in part.values()]
    return [part for part in parts if isinstance(part, torch.nn.Module)]


@contextmanager
def _plain_torch() -> Iterator[None]:
    """The block runs with torch's settings of a new process, as conversions of `vcbench run` do."""
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


def to_tensorboard(writer: Any) -> Log:
    """Logs to a `torch.utils.tensorboard.SummaryWriter`."""

    def log(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def to_wandb(run: Any) -> Log:
    """Logs to a run of Weights & Biases, `wandb.init(…)`.

    The values have an axis of their own, "vcbench/step", so they need not come in the order of the
    steps that the training itself logs.
    """
    run.define_metric(f"{PREFIX}/step")
    run.define_metric(f"{PREFIX}/*", step_metric=f"{PREFIX}/step")
    return lambda values, step: run.log({**values, f"{PREFIX}/step": step})


def to_mlflow(client: Any, run_id: str) -> Log:
    """Logs to a run of an `mlflow.MlflowClient`; `mlflow.active_run().info.run_id` is the id."""

    def log(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            client.log_metric(run_id, name.replace("+", "_"), value, step=step)

    return log
