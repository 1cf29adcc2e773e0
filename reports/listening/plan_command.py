"""The verb `vcbench stimuli plan`: how many listeners and votes a listening test needs."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from bench.cli.arguments import Setting, number, one_of, parse_settings, whole_number
from bench.cli.console import Printed
from bench.cli.settings import load
from bench.errors import UserError
from bench.metrics import METRICS, OPINION
from bench.run.folder import read_run
from bench.run.ratings import read_ratings
from bench.stats.ratings import checked
from reports.listening.plan import (
    MOST_LISTENERS,
    Size,
    Spread,
    smallest,
    too_near,
    votes_of_preference,
)
from reports.listening.wording import SCALES

SIZES = (12, 24, 48, 96)  # trials of a listener that are tried without trials=…
SECONDS = 15  # of one screen: the clip, a pause, the rating
FEW = 0.5  # AB is proposed where it needs less than this share of the MOS test's votes
TESTS = ("nmos", "smos", "mushra")
SETTINGS = {
    "stimuli plan": {
        "half_width": Setting("of a system's interval that is wanted, in points", number),
        "difference": Setting("of two systems that must be detected, in points", number),
        "test": Setting("whose scale it is; default: nmos", one_of(*TESTS)),
        "systems": Setting("how many; default: 5, or those of the ratings", whole_number),
        "trials": Setting(f"of one listener; default: tries {SIZES}", whole_number),
        "ratings": Setting("CSV file of earlier ratings, whose spread is used; default: assumed"),
        "run": Setting("the run that these ratings are of"),
        "power": Setting("chance of detecting the difference; default: 0.8", number),
        "seed": Setting("of the simulation; default: 1", whole_number),
        "outputs": Setting("the folder of all runs, for a run that is named"),
    }
}


def plan(arguments: Sequence[str]) -> int:
    """`vcbench stimuli plan half_width= | difference= […]`.

    Raises:
        UserError: if an argument is wrong or earlier ratings cannot be used.
    """
    settings = parse_settings(arguments, "stimuli plan", SETTINGS["stimuli plan"])
    if not {"half_width", "difference"} & settings.keys():
        raise UserError(
            "stimuli plan needs half_width=0.1 (of a system's interval) or difference=0.2 (of two "
            "systems), in points of the scale"
        )
    for name, most in (("half_width", 100), ("difference", 100), ("power", 1)):
        if name in settings and not 0 < settings[name] < most:
            raise UserError(f"{name}={settings[name]:g}: must be over 0 and under {most}")
    for name, least in (("systems", 2), ("trials", 2), ("seed", 0)):
        if settings.get(name, least) < least:
            raise UserError(f"{name}={settings[name]}: must be {least} or more")
    scale = SCALES[settings.get("test", "nmos")]
    spread, means, source = _known(settings, (scale[1] - scale[0]) / 4)
    systems = settings.get("systems") or (len(means) if means is not None else 5)
    console = Printed()
    console = console if console.is_terminal else Printed(width=120)
    parts = ", ".join(f"{f.name} {getattr(spread, f.name):.2f}" for f in fields(spread))
    console.print(Text(f"Standard deviations, {source}: {parts}."))
    wanted = {
        k: settings[k] for k in ("half_width", "difference", "power", "seed") if k in settings
    }
    trials: tuple[int, ...] = (settings["trials"],) if "trials" in settings else SIZES
    if min(trials) < systems:
        if "trials" in settings:
            raise UserError(
                f"trials={trials[0]}: a listener needs one for each of {systems} systems"
            )
        trials = tuple(t for t in trials if t >= systems)
    sizes = [(t, smallest(spread, systems, t, scale=scale, **wanted)) for t in trials]
    console.print(_table(sizes, systems))
    for note in _notes(settings, spread, means, sizes):
        console.print(Text(note, style="yellow"))
    return 0


def _table(sizes: Sequence[tuple[int, Size | None]], systems: int) -> Table:
    table = Table(box=None, title=f"{systems} systems", title_justify="left")
    heads = ("trials a listener", "listeners", "votes", "minutes", "± of a mean", "difference")
    for head in heads:
        table.add_column(head, justify="right")
    for trials, size in sizes:
        if size is None:
            table.add_row(str(trials), f"over {MOST_LISTENERS}", "–", "–", "–", "–")
            continue
        table.add_row(
            str(trials),
            str(size.listeners),
            str(size.votes),
            f"{trials * SECONDS / 60:.0f}",
            f"{size.half_width:.2f}",
            f"{size.detectable:.2f}",
        )
    return table


def _notes(
    settings: dict[str, Any],
    spread: Spread,
    means: pd.Series | None,
    sizes: Sequence[tuple[int, Size | None]],
) -> list[str]:
    notes = []
    reachable = [size for _, size in sizes if size is not None]
    if len(reachable) < len(sizes):
        notes.append(
            f"Over {MOST_LISTENERS}: more listeners do not help where the trials are too few; more "
            "trials do."
        )
    best = min(reachable, key=lambda size: size.votes, default=None)
    if "difference" in settings:
        share, votes = votes_of_preference(
            settings["difference"], spread, settings.get("power", 0.8)
        )
        notes.append(
            f"AB: {share:.0%} of the votes would prefer the better of two systems that differ by "
            f"{settings['difference']:g}; {votes} votes on that pair show it."
        )
        if best is None or votes < FEW * best.votes:
            notes.append("Use test=ab or test=cmos for such a pair: MOS needs more votes for it.")
    if means is not None and best is not None:
        for better, worse, apart in too_near(means, best.detectable):
            notes.append(
                f"{better} and {worse} lie {apart:.2f} apart, nearer than the "
                f"{best.detectable:.2f} that this test detects: compare them "
                f"by test=cmos or test=ab systems={better},{worse}."
            )
    return notes


def _known(settings: dict[str, Any], stretch: float) -> tuple[Spread, pd.Series | None, str]:
    """The spread, the systems' means if ratings or a run tell them, and where they are from."""
    assumed = Spread()
    assumed = Spread(*(getattr(assumed, f.name) * stretch for f in fields(Spread)))
    if "ratings" not in settings and "run" not in settings:
        return assumed, None, "assumed (give earlier ratings: ratings=FILE.csv run=FOLDER)"
    if "run" not in settings:
        raise UserError("ratings= needs the run that was rated: run=FOLDER")
    folder = Path(settings["run"])
    if not folder.is_dir():
        folder = Path(settings.get("outputs") or load(()).outputs) / settings["run"]
    run = read_run(folder)
    if "ratings" in settings:
        path = Path(settings["ratings"])
        table, _ = checked(run, read_ratings(path), str(path))
        if (asked := table["question"].unique()).size > 1:
            raise UserError(f"{path} has the questions {', '.join(asked)}; keep the rows of one")
        table["trial_id"] = table["suite"] + "/" + table["trial_id"]
        return Spread.of_ratings(table), table.groupby("system")["rating"].mean(), f"from {path}"
    rows = run.summary[
        run.summary["metric"].map(lambda m: m in METRICS and METRICS[m].limits == OPINION)
        & ~run.summary["system"].isin(run.anchors)
    ]
    means = None
    if len(rows) and stretch == 1:
        judge, metric = rows[["judge", "metric"]].iloc[0]
        of_one = rows[(rows["judge"] == judge) & (rows["metric"] == metric)]
        means = of_one.groupby("system")["value"].mean().dropna()
        return assumed, means, f"assumed; distances of systems by {metric} ({judge})"
    return assumed, means, "assumed"
