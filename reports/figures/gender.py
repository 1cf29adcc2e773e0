"""Similarity by the genders of source and target speaker."""

from bench.metrics import METRICS
from bench.results import ScoredRun
from reports.figures.base import (
    Figure,
    finished,
    new_axes,
    row_names,
    trial_values,
)
from reports.tables import label, number, systems_of


def covers_genders(results: ScoredRun, suite: str) -> bool:
    trials = results.suites[suite].trials
    return len({(t.source.gender, t.references[0].gender) for t in trials}) == 4


def by_gender(results: ScoredRun, suite: str, judge: str, metric: str) -> Figure:
    import seaborn

    values = trial_values(results, suite, judge, metric)
    pairs = (values["source_gender"] + "→" + values["target_gender"]).rename("pair")
    cells = values["value"].groupby([values["system"], pairs])
    systems = [s for s in systems_of(results, suite) if s in set(values["system"])]
    means = cells.mean().unstack().loc[systems]
    counts = cells.size().unstack().loc[systems]
    asked = counts.max()
    texts = [
        [
            number(metric, mean) + ("" if n == asked[pair] else f"\nn={n:.0f}")
            for pair, mean, n in zip(means.columns, row, ns, strict=True)
        ]
        for row, ns in zip(means.to_numpy(), counts.fillna(0).to_numpy(), strict=True)
    ]
    ax = new_axes(0.9 + 0.5 * len(systems))
    seaborn.heatmap(
        means,
        ax=ax,
        annot=texts,
        fmt="",
        cmap="cividis",
        cbar=False,
        linewidths=2,
        xticklabels=[f"{pair}\nn={asked[pair]:.0f}" for pair in means.columns],
        yticklabels=row_names(results, systems),
    )
    ax.tick_params(length=0)
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="gender of source → target", ylabel="")
    ax.set_title(f"Mean {label(metric)} ({judge}), {suite}", x=0, ha="left")
    return finished(
        ax,
        f"gender-{judge}",
        suite,
        f"Similarity by gender, {suite}",
        f"Mean {METRICS[metric].label} by {judge} for each gender of source and target; lighter is "
        "more similar.",
    )
