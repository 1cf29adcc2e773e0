"""The figures of a report: small SVGs, one suite each, in colours for the colour-blind."""

from collections.abc import Mapping

import pandas as pd

from bench.metrics import INTELLIGIBILITY, NATURALNESS, SIMILARITY, SPEED, leading
from bench.results import ScoredRun
from bench.stats.pooling import TIMING, measures_of
from reports.figures.base import ANCHOR, PALETTE, Figure, colours, style
from reports.figures.distribution import distribution
from reports.figures.gender import by_gender, covers_genders
from reports.figures.length import by_length
from reports.figures.speed import speed
from reports.figures.steps import by_steps, steps_of
from reports.figures.strips import strips
from reports.figures.tradeoff import trade_off

__all__ = ["ANCHOR", "PALETTE", "Figure", "colours", "draw"]

# The families whose leading metrics are drawn against sampling steps.
STEPPED = (SIMILARITY, INTELLIGIBILITY, NATURALNESS, SPEED)


def draw(results: ScoredRun, slices: Mapping[tuple[str, str], pd.DataFrame]) -> list[Figure]:
    """Draws every figure that the run has the numbers for, suite by suite.

    Args:
        results: the run.
        slices: see `reports.slices.slices`.
    """
    figures = []
    with style():
        for suite in results.suites:
            measures = measures_of(results.summary[results.summary["suite"] == suite])
            error_rates = leading(measures, [INTELLIGIBILITY])
            for judge, metric in leading(measures, [SIMILARITY]):
                figures.append(distribution(results, suite, judge, metric))
                sliced = slices.get((suite, "reference_seconds"))
                if sliced is not None:
                    figures.append(by_length(results, suite, judge, metric, sliced))
                for other in error_rates:
                    figures.append(trade_off(results, suite, (judge, metric), other))
                if covers_genders(results, suite):
                    figures.append(by_gender(results, suite, judge, metric))
            for judge, metric in error_rates:
                figures.append(distribution(results, suite, judge, metric))
            if (TIMING, "rtf") in measures:
                figures.append(speed(results, suite))
            for judge, metric in leading(measures, STEPPED):
                if len(swept := steps_of(results, suite, judge, metric)) > 1:
                    figures.append(by_steps(results, suite, judge, metric, swept))
            if (spectrograms := strips(results, suite)) is not None:
                figures.append(spectrograms)
    return figures
