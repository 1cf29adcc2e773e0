"""Times the report of 1000 trials by 5 systems: `python -m benchmarks.programs.report`.

Prints how long report.html takes to be written, its size, and how long headless Chromium takes to
load it and to sort, filter and unfold its trials. The scores are invented, the sounds the embedded
corpus'.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bench.results import ScoredRun
from reports.html.page import HtmlReport
from tests.support.browser import Chromium
from tests.support.made_up import make_results, rescored

SUITE = "mini_cross_gender"
ACT = """(async () => {
    const control = document.querySelector("%s");
    const start = performance.now();
    %s
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    return performance.now() - start;
})()"""
ACTS = {
    "sort": (
        ".order",
        "control.value = control.options.length - 1; control.dispatchEvent(new Event('change'));",
    ),
    "filter": (".filter", "control.value = 'f2m'; control.dispatchEvent(new Event('input'));"),
    "open 250 trials": (".unfold", "control.click();"),
}


def repeated(folder: Path, trials: int = 1000, systems: int = 5) -> ScoredRun:
    """The trials of an embedded suite several times, under other names and with other scores."""
    names = {f"system_{i}": "world" for i in range(systems - 2)}
    run = make_results(folder, 72, names, [SUITE])
    suite = run.suites[SUITE]
    copies, tables = [], []
    for copy in range(-(-trials // 72)):
        part = suite.trials[: min(72, trials - 72 * copy)]
        copies += [dataclasses.replace(t, trial_id=f"{t.trial_id}-{copy:02d}") for t in part]
        table = run.scores[run.scores["trial_id"].isin([t.trial_id for t in part])].copy()
        table["trial_id"] += f"-{copy:02d}"
        noise = np.random.default_rng(copy).normal(0, 0.05, len(table))
        table["secs_resemblyzer.secs"] += noise
        tables.append(table)
    return dataclasses.replace(
        rescored(run, pd.concat(tables, ignore_index=True)),
        suites={SUITE: dataclasses.replace(suite, trials=tuple(copies))},
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        results = repeated(Path(name) / "run")
        start = time.perf_counter()
        path = HtmlReport().render(results)
        seconds = time.perf_counter() - start
        print(f"written in {seconds:.1f} s, {path.stat().st_size / 1e6:.1f} MB")
        with Chromium() as browser:
            browser.size(1400)
            start = time.perf_counter()
            browser.open(path)
            print(f"loaded in {time.perf_counter() - start:.2f} s")
            for act, (selector, does) in ACTS.items():
                print(f"{act}: {browser.run(ACT % (selector, does)):.0f} ms")
            print(f"messages: {browser.messages or 'none'}")


if __name__ == "__main__":
    main()
