"""Times `vcbench site` over 20 runs of 5 systems: `python -m benchmarks.programs.site [FOLDER]`.

Prints how long the site takes to be written, its sizes, and how long headless Chromium takes to
load its page at desktop and at phone width, and to filter and sort it. The scores are invented,
the sounds the embedded corpus'. With FOLDER the runs and the site stay there.
"""

import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from reports.site.page import Bounds, write_site
from reports.site.runs import read_shown
from tests.support.browser import Chromium
from tests.support.made_up import SECS, make_results, write_complete

RUNS, SYSTEMS = 20, ("world", "instance_norm", "frame_matching", "global_timbre", "takin_vc")
REPEATS = 5
ACT = """(async () => {
    const start = performance.now();
    %s
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    return performance.now() - start;
})()"""
ACTS = {
    "filter": """const system = document.querySelector("select[name=system]");
    system.value = "takin_vc"; system.dispatchEvent(new Event("change", { bubbles: true }));""",
    "sort": """document.querySelectorAll("section[data-suite] th button")[4].click();""",
}


def make_runs(folder: Path, count: int = RUNS) -> list[Path]:
    """Made-up runs of one day each, whose similarity rises from run to run."""
    first = make_results(folder / "run00", 8, dict.fromkeys(SYSTEMS, "world"))
    folders = []
    for number in range(count):
        path = folder / f"run{number:02d}"
        if number:
            shutil.copytree(folder / "run00" / "wav", path / "wav")
        scores = first.scores.copy()
        rng = np.random.default_rng(number)
        converted = scores["system"].isin(SYSTEMS)
        gain = 0.004 * number + rng.normal(0, 0.02, len(scores))
        scores.loc[converted, f"{SECS}.secs"] += gain[converted]
        run = dataclasses.replace(first, name=path.name, folder=path, scores=scores)
        created = f"2026-03-{number + 1:02d}T09:30:00+00:00"
        folders.append(write_complete(run, created=created, commit=f"{number:02x}" * 20))
    return folders


def main(folder: Path) -> None:
    """Prints the times and the sizes of the site."""
    folders = make_runs(folder / "outputs")
    start, used = time.perf_counter(), time.process_time()
    runs, _ = read_shown(folders, sounds=True, skip_damaged=False)
    out = folder / "site"
    size = write_site(runs, out, "Leaderboard", Bounds())
    seconds, used = time.perf_counter() - start, time.process_time() - used
    page = (out / "index.html").stat().st_size
    print(f"written in {seconds:.1f} s ({used:.1f} s of processor time)")
    print(f"page {page / 1e6:.2f} MB, sounds {size / 1e6:.1f} MB")
    with Chromium() as browser:
        for width in (1400, 390):
            browser.size(width)
            loads = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                browser.open(out / "index.html")
                loads.append(time.perf_counter() - start)
            print(f"loaded at {width} px in {min(loads):.2f} to {max(loads):.2f} s")
        for act, does in ACTS.items():
            print(f"{act}: {browser.run(ACT % does):.0f} ms")
        print(f"messages: {browser.messages or 'none'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
