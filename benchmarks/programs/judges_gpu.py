"""Times scoring one pair at a time against the harness, with models of the papers' sizes.

    python -m benchmarks.programs.judges_gpu             # on a GPU; full size, random weights
    python -m benchmarks.programs.judges_gpu --sources 12 --targets 10 --json judges.json
    python -m benchmarks.programs.judges_gpu --judges wer_whisper_large_v3 --sources 4 --targets 4
    python -m benchmarks.programs.judges_gpu --device cpu --tiny --sources 2 --targets 3   # a trial

The loop is Plachtaa/seed-vc's eval.py (see `benchmarks.programs.loop`): WavLM-Large SECS,
HuBERT-large WER and DNSMOS (with its real weights; the loop runs it on the CPU, as speechmos does),
and more judges, one pair at a time. Both use the same models. The difference of their scores is
printed, and how much faster the harness is. Whisper large-v3 only runs if it is named: its loop
takes seconds a pair.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.files import write_json
from bench.judges import Converted
from bench.judges.dnsmos import DNSMOS
from bench.judges.nn import batches
from bench.stages import score, sounds
from bench.stages.cache import ScoreCache
from bench.stages.score import score_rows
from benchmarks.programs import random_judges
from benchmarks.programs.loop import AsPublished, Pair, converted, crossed, one_at_a_time
from suites.build import MINI
from suites.corpora.table import utterances

SEED_VC = ("secs_wavlm_large", "wer_hubert_large", "dnsmos")  # the judges of seed-vc's eval.py


def main() -> None:
    """Prints a line per judge; with --json it also writes the figures to a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sources", type=int, default=20)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--judges", nargs="*", help="names; None for all but Whisper large-v3")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=("highest", "high"), default="highest")
    parser.add_argument("--tiny", action="store_true", help="models of a few kilobytes")
    parser.add_argument("--json", type=Path, help="where to keep the figures, judge by judge")
    arguments = parser.parse_args()
    batches.PRECISION = arguments.precision
    device = arguments.device
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    recordings = utterances(MINI / "utterances.csv")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = converted(crossed(recordings, arguments.sources, arguments.targets), folder)
        print(
            f"{name}, {torch.get_num_threads()} threads, precision {arguments.precision}; "
            f"{arguments.sources} sources x {arguments.targets} targets = {len(rows)} pairs"
        )
        print(f"{'judge':22}{'loop s':>10}{'ours s':>10}{'times':>8}{'again s':>10}  difference")
        results: dict[str, dict[str, float]] = {}
        begun = time.perf_counter()
        for judge_name, judge in _judges(folder, device, arguments.tiny, arguments.judges):
            ready = time.perf_counter()
            figures = compare(judge_name, judge, rows, folder, arguments.batch_size, device)
            results[judge_name] = {"ready_seconds": ready - begun} | figures
            print(_line(judge_name, results[judge_name]), flush=True)
            if arguments.json:
                figures_of_run = {
                    "device": name,
                    "torch": torch.__version__,
                    "threads": torch.get_num_threads(),
                    "cores": os.cpu_count(),
                    "random_weights": "tiny" if arguments.tiny else "full size",
                    "precision": arguments.precision,
                    "batch_size": arguments.batch_size,
                    "sources": arguments.sources,
                    "targets": arguments.targets,
                    "pairs": len(rows),
                    "judges": results,
                    "all": _total(results),
                    "seed_vc": _total({n: results[n] for n in SEED_VC if n in results}),
                }
                write_json(arguments.json, figures_of_run)
            begun = time.perf_counter()
        print(_line("all", _total(results)))
        if set(SEED_VC) < set(results):
            print(_line("as seed-vc's eval.py", _total({n: results[n] for n in SEED_VC})))


def _judges(
    folder: Path, device: str, tiny: bool, names: list[str] | None
) -> Iterator[tuple[str, Any]]:
    """Yields the judges of these names; they are loaded one at a time."""
    others = None if names is None else [name for name in names if name != "dnsmos"]
    yield from random_judges.make(folder, device, tiny, others)
    if names is None or "dnsmos" in names:
        yield "dnsmos", DNSMOS(device=device)


def _total(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """The sums of the judges' seconds, and their ratios."""
    keys = ("loop_seconds", "harness_seconds", "again_seconds")
    sums = {key: sum(figures[key] for figures in results.values()) for key in keys}
    return sums | _ratios(sums)


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    """The speed of the harness relative to the loop, and of the cache relative to the harness."""
    return {
        "times": seconds["loop_seconds"] / max(seconds["harness_seconds"], 1e-9),
        "times_again": seconds["harness_seconds"] / max(seconds["again_seconds"], 1e-9),
    }


def _line(name: str, figures: dict[str, float]) -> str:
    comparison = ""
    if "transcripts_moved" in figures:
        comparison = (
            f"{figures['transcripts_moved']:.0f} of {figures['transcripts']:.0f} transcripts"
        )
    elif "difference" in figures:
        comparison = f"{figures['difference']:.1e}"
    return (
        f"{name:22}{figures['loop_seconds']:10.2f}{figures['harness_seconds']:10.2f}"
        f"{figures['times']:8.1f}{figures['again_seconds']:10.3f}  {comparison}"
    )


def compare(
    name: str, judge: Any, rows: list[score.Row], folder: Path, batch_size: int, device: str
) -> dict[str, float]:
    """Seconds of the loop, of the harness and of the cache, and how much their scores differ."""
    encoder, recogniser = getattr(judge, "encoder", None), getattr(judge, "recogniser", None)
    quality = None if encoder or recogniser else judge
    looped = AsPublished(judge) if isinstance(judge, DNSMOS) else quality
    for model in (encoder, recogniser, quality):
        if hasattr(model, "batch_size"):
            model.batch_size = batch_size
    warm = rows[:2]
    one_at_a_time(warm, folder, encoder, recogniser, looped)
    clips = [r.trial.source.load() for r in rows[:: max(1, len(rows) // batch_size)]]
    if encoder:
        encoder.embed(clips)
    elif recogniser:
        recogniser.transcribe(clips)
    else:
        judge.score([Converted("t", converted=clip) for clip in clips])
    pairs: list[Pair] = []
    loop = seconds(
        lambda: pairs.extend(one_at_a_time(rows, folder, encoder, recogniser, looped)), device
    )
    cache = ScoreCache(folder / f"{name}.sqlite")
    columns: list[Any] = []
    forget()
    ours = seconds(lambda: columns.extend(score_rows(rows, name, judge, folder, cache)), device)
    forget()
    again = seconds(lambda: score_rows(rows, name, judge, folder, cache), device)
    cache.close()
    figures = {"loop_seconds": loop, "harness_seconds": ours, "again_seconds": again}
    figures |= _ratios(figures)
    if recogniser:
        moved = sum(c["hypothesis"] != p.hypothesis for c, p in zip(columns, pairs, strict=True))
        return figures | {"transcripts_moved": moved, "transcripts": len(rows)}
    column = "secs_reference" if encoder else next(iter(columns[0]))
    wanted = [p.secs if encoder else p.ovrl for p in pairs]
    apart = max(abs(c[column] - w) for c, w in zip(columns, wanted, strict=True))
    return figures | {"difference": apart}


def forget() -> None:
    """Clears the sounds in memory, as in a new process."""
    sounds._load.cache_clear()
    sounds._reference.cache_clear()


def seconds(work: Callable[[], object], device: str) -> float:
    """How many seconds `work` takes, including its work on the GPU."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
