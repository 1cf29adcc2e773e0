"""Trains variants of the conversion stage after the same number of steps, and compares them.

    P="python -m benchmarks.programs.variants"
    $P plan.yaml outputs/variants --trials held_out.jsonl --root held_out
    $P plan.yaml outputs/variants --table                        # of a finished comparison

The plan is a YAML file. For a curve over the number of training speakers:

    common: [recipe=ablation, "data=[known.csv,more.csv]", "held_out.speakers=[libri-2416]"]
    parts: takin_vc/weights/mini     # a checkpoint whose voiceprint and vocoder all have
    seeds: [0, 1, 2]
    variants:                        # name: its settings; the first is what others differ from
      all: []
      speakers_1000: [conversion.speakers=1000]
      speakers_365: [conversion.speakers=365]

Features are prepared once for all. Each variant is trained with each seed, several at a time
(--at-once), converts all trials, and is judged in one run of the benchmark. Values and differences
are means over the seeds; their 95% intervals are over the speakers of the trials, for these seeds.
The values of the single seeds stand beside them. Trials count that all checkpoints converted (n).
Take a recipe that sets steps: in minutes a busy machine takes fewer. A call that was ended resumes.
The checkpoints are for this comparison: they declare what their conversion stage was trained on,
not the parts.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from bench.errors import UserError
from bench.files import write_json
from bench.metrics import METRICS, Measure
from bench.run.folder import read_run
from bench.stats.compare import benjamini_hochberg
from bench.stats.crossed import Crossed
from bench.stats.pooling import judge_table, measures_in
from takin_vc.checkpoint import load_checkpoint
from takin_vc.config import ConfigError
from takin_vc.tensors import WeightsError, write_tensors

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("voiceprint", "vocoder")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")  # of a variant: a system's, without dots
RUN = "judged"
TAIL = 3000  # characters of the output of a process that failed


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        common: settings of every training.
        parts: a checkpoint whose voiceprint and vocoder every variant has; "" if `common` has
            `start`, or the variants need none.
        seeds: of the trainings of each variant.
        variants: name → its own settings.
    """

    common: tuple[str, ...]
    parts: str
    seeds: tuple[int, ...]
    variants: Mapping[str, tuple[str, ...]]


def read_plan(path: Path) -> Plan:
    """A plan from its YAML file.

    Raises:
        UserError: names what is wrong in it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    known = {"common", "parts", "seeds", "variants"}
    if not isinstance(content, dict) or set(content) - known or not content.get("variants"):
        raise UserError(f"{path}: it must have variants, and may have common, parts and seeds")
    variants, seeds = content["variants"], content.get("seeds", [0])
    if not isinstance(variants, dict) or not all(NAME.fullmatch(str(name)) for name in variants):
        raise UserError(f"{path}: variants are names, of letters, digits and _ + -, and settings")
    settings = {str(name): _settings(path, name, given) for name, given in variants.items()}
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise UserError(f"{path}: seeds must be a list of whole numbers: [0, 1, 2]")
    common = _settings(path, "common", content.get("common"))
    return Plan(common, str(content.get("parts") or ""), tuple(dict.fromkeys(seeds)), settings)


def _settings(path: Path, name: object, given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise UserError(f"{path}: {name}: settings are a list of name=value")
    return tuple(given)


@dataclass(frozen=True)
class Training:
    """A variant's training with one seed, in a folder.

    Attributes:
        name: variant and seed; also that of the system in the run.
        arguments: of `python -m takin_vc.train`.
        folder: where it trains.
    """

    name: str
    arguments: tuple[str, ...]
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "conversion" / "checkpoint"

    @property
    def finished(self) -> bool:
        return (self.folder / "conversion" / "result.json").is_file()

    def output(self) -> str:
        """The end of what it printed."""
        return (self.folder / "output.txt").read_text(errors="replace")[-TAIL:].strip()


def planned(plan: Plan, out: Path) -> list[Training]:
    """All trainings: the first seed of every variant, then the second of every one …"""
    trainings = []
    for seed in plan.seeds:
        for variant, settings in plan.variants.items():
            name = _system(variant, seed)
            folder = out / name
            features = f"features.folder={out / 'features'}"
            fixed = ("stage=conversion", f"out={folder}", features, f"seed={seed}")
            trainings.append(Training(name, (*plan.common, *settings, *fixed), folder))
    return trainings


def _system(variant: str, seed: int) -> str:
    return f"{variant}-{seed}"


def write_parts(checkpoint: str, folder: Path) -> None:
    """Writes the voiceprint and the vocoder of a checkpoint as the stages that train them do.

    Raises:
        UserError: if the checkpoint cannot be read or the files cannot be written.
    """
    try:
        model = load_checkpoint(checkpoint).model
        for part in PARTS:
            path = folder / part / f"{part}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(model.get_submodule(part).state_dict(), path)
    except (AttributeError, ConfigError, WeightsError, OSError) as error:
        raise UserError(f"parts: {checkpoint}: {error}") from error


def prepare(plan: Plan, trainings: Sequence[Training], out: Path) -> None:
    """Prepares what the trainings share: the features, and the parts where the plan has some.

    Raises:
        UserError: if that fails.
    """
    if plan.parts:
        write_parts(plan.parts, out / "parts")
    of_features: dict[tuple[str, ...], Training] = {}
    for training, settings in zip(trainings, plan.variants.values(), strict=False):
        about = tuple(s for s in settings if s.startswith(("features.", "model.content", "recipe")))
        of_features.setdefault(about, training)
    for training in of_features.values():  # one after another: they write to the same folder
        process = begin(training, ("stage=features",))
        try:
            code = process.wait()
        finally:
            stop([process])
        if code:
            what = f"the features of {training.name}: exit code {code}"
            raise UserError(f"{what}\n{training.output()}")


def check_settings(trainings: Sequence[Training]) -> None:
    """Compares the settings with those of earlier calls in the same folders, and notes them.

    Raises:
        UserError: if a training began with other settings: its result would be taken for another's.
    """
    for training in trainings:
        path = training.folder / "settings.json"
        settings = [*training.arguments]
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != settings:
            raise UserError(
                f"{training.folder} was trained with other settings (settings.json); name another "
                "folder, or remove it"
            )
        training.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def begin(training: Training, more: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Starts a training's process; it resumes what an earlier one has left."""
    shared = training.folder.parent / "parts"
    for part in PARTS if shared.is_dir() else ():
        link = training.folder / part
        if not link.is_symlink():
            link.symlink_to(shared / part, target_is_directory=True)
    with (training.folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "takin_vc.train", *training.arguments, *more],
            env=_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ends those that run."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait()


def train(trainings: Sequence[Training], at_once: int) -> list[str]:
    """Trains all that are not finished, so many at a time; the names of those that failed."""
    waiting = [training for training in trainings if not training.finished]
    running: dict[str, tuple[Training, subprocess.Popen[bytes]]] = {}
    failed = []
    start = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                training = waiting.pop(0)
                running[training.name] = training, begin(training)
            time.sleep(0.2)
            for training, process in [*running.values()]:
                if process.poll() is None:
                    continue
                del running[training.name]
                state = "trained" if training.finished else "failed"
                print(f"{time.monotonic() - start:6.1f} s  {training.name}: {state}", flush=True)
                if not training.finished:
                    failed.append(training.name)
                    print(training.output(), file=sys.stderr)
    finally:
        stop(process for _, process in running.values())
    return failed


def judge(
    trainings: Sequence[Training], out: Path, trials: Path, root: Path, judges: Sequence[str]
) -> None:
    """Converts the trials with every trained checkpoint and the anchors, in one run.

    Raises:
        UserError: if the run fails.
    """
    systems = [
        setting
        for t in trainings
        for setting in (
            f"+system.{t.name}._target_=takin_vc.system.TakinVCSystem",
            f"+system.{t.name}.checkpoint={t.checkpoint}",
        )
    ]
    run = (f"name={RUN}", f"outputs={out}", f"suite={trials}", f"root={root}", "limit=null")
    what = ("system=[source,target]", f"judge=[{','.join(judges)}]", "report=[]", "progress=none")
    command = [sys.executable, "-m", "bench", "run", *run, *what, *systems]
    if code := subprocess.run(command, env=_environment(), check=False).returncode:
        raise UserError(f"vcbench run failed with exit code {code}")


def rows_of(scores: pd.DataFrame, plan: Plan, measure: Measure) -> list[dict[str, object]]:
    """A metric of each variant: mean over the seeds, of each seed, difference from the first.

    Args:
        scores: the score table of the run.
        plan: its variants and seeds; a variant without any finished training is left out.
        measure: a judge and one of its metrics.
    """
    name, metric = measure[0], METRICS[measure[1]]
    known = set(scores["system"])
    columns = [
        (variant, seed, _system(variant, seed))
        for variant in plan.variants
        for seed in plan.seeds
        if _system(variant, seed) in known
    ]
    trials = scores[scores["system"] == columns[0][2]].set_index("trial_id")
    numerators, denominators = np.full((2, len(trials), len(columns)), np.nan)
    for k, (_, _, system) in enumerate(columns):
        of_system = scores[scores["system"] == system].set_index("trial_id").loc[trials.index]
        terms = metric.terms(judge_table(of_system, name)).reindex(trials.index)
        numerators[:, k], denominators[:, k] = terms["numerator"], terms["denominator"]
    measured = np.isfinite(numerators).all(axis=1)  # by all: the differences are paired
    numerators, denominators = numerators[measured], denominators[measured]
    speakers = [trials.loc[measured, f"{role}_speaker"].tolist() for role in ("source", "target")]
    crossed = Crossed(*speakers)
    variants = list(dict.fromkeys(variant for variant, _, _ in columns))
    means = np.array([[v == variant for v, _, _ in columns] for variant in variants], dtype=float)
    means /= means.sum(axis=1, keepdims=True)
    unbounded = [metric.unbounded] * len(columns)
    values = crossed.contrasts(numerators, denominators, means, unbounded)
    others = crossed.contrasts(numerators, denominators, means[1:] - means[0], unbounded)
    q = benjamini_hochberg(np.array([e.p_of_no_difference() for e in others]))
    with np.errstate(invalid="ignore"):  # NaN if no trial was measured for all
        ratios = numerators.sum(axis=0) / denominators.sum(axis=0)
    rows: list[dict[str, object]] = []
    for i, variant in enumerate(variants):
        row: dict[str, object] = {
            "variant": variant,
            "n": int(measured.sum()),
            "value": values[i].value,
            "interval": metric.clip(values[i].interval()),
            "seeds": [float(ratios[k]) for k, (v, _, _) in enumerate(columns) if v == variant],
        }
        if i:
            difference = others[i - 1]
            row["difference"] = difference.value
            row["difference_interval"] = metric.clip_difference(difference.interval())
            row["q"] = float(q[i - 1])
        rows.append(row)
    return rows


def markdown(measure: Measure, rows: Sequence[Mapping[str, object]]) -> str:
    """A table of one metric."""
    metric = METRICS[measure[1]]
    digits = max(metric.decimals, 1)

    def number(value: object, sign: str = "", more: int = 0) -> str:
        return f"{value:{sign}.{digits + more}f}"

    def interval(bounds: object, more: int = 0) -> str:
        assert isinstance(bounds, tuple)
        return f"[{', '.join(number(bound, more=more) for bound in bounds)}]"

    heads = (f"{metric.label} ({measure[0]})", "n", "mean of the seeds", "of each seed")
    lines = [f"| {' | '.join([*heads, 'difference', 'q'])} |", "|---|---|---|---|---|---|"]
    for row in rows:
        seeds = row["seeds"]
        assert isinstance(seeds, list)
        cells = [
            str(row["variant"]),
            str(row["n"]),
            f"{number(row['value'])} {interval(row['interval'])}",
        ]
        cells.append(", ".join(number(seed, more=1) for seed in seeds))
        if "difference" in row:
            bounds = interval(row["difference_interval"], more=1)
            cells += [f"{number(row['difference'], '+', 1)} {bounds}", f"{row['q']:.2g}"]
        else:
            cells += ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _nan_as_null(value: object) -> object:
    """For JSON: a comparison of few speakers has no intervals."""
    if isinstance(value, Mapping):
        return {key: _nan_as_null(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nan_as_null(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path, help="folder of the trainings and of the run")
    parser.add_argument("--trials", type=Path, help="a list of trials, of speakers held out")
    parser.add_argument("--root", type=Path, help="the folder of its recordings")
    parser.add_argument("--judges", nargs="*", default=["secs_resemblyzer", "secs_ecapa_small"])
    parser.add_argument("--at-once", type=int, default=1, help="trainings that share the machine")
    parser.add_argument("--table", action="store_true", help="only print the tables again")
    parser.add_argument("--json", type=Path, help="write the tables' numbers too")
    given = parser.parse_args(arguments)
    if not given.table and (given.trials is None or given.root is None):
        parser.error("give --trials and --root")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, judges and prints a table for each metric; 1 if a part fails."""
    given = parsed(arguments)
    out = given.out.resolve()
    failed: list[str] = []
    try:
        plan = read_plan(given.plan)
        if not given.table:
            trainings = planned(plan, out)
            check_settings(trainings)
            if not all(training.finished for training in trainings):
                prepare(plan, trainings, out)
                failed = train(trainings, max(1, given.at_once))
            done = [training for training in trainings if training.finished]
            if not done:
                raise UserError("no variant was trained")
            judge(done, out, given.trials.resolve(), given.root.resolve(), given.judges)
        scores = read_run(out / RUN).scores
        if not any(
            _system(v, s) in set(scores["system"]) for v in plan.variants for s in plan.seeds
        ):
            raise UserError(f"{out / RUN} has none of the plan's variants")
        results = {
            f"{judge}.{name}": rows_of(scores, plan, (judge, name))
            for judge, name in measures_in(scores.dropna(axis="columns", how="all").columns)
            if judge in given.judges
        }
        for key, rows in results.items():
            print(f"\n{markdown((key.rpartition('.')[0], key.rpartition('.')[2]), rows)}")
        if given.json:
            write_json(given.json, _nan_as_null(results))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
