"""Scoring the same pairs one at a time and with the harness, at the size of the papers' judges.

    python -m benchmarks.judges_gpu                          # a GPU; full size, random weights
    python -m benchmarks.judges_gpu --sources 20 --targets 12
    python -m benchmarks.judges_gpu --device cpu --tiny --sources 2 --targets 3   # to try it

The loop is Plachtaa/seed-vc's eval.py (see `benchmarks.loop`): WavLM-Large SECS, HuBERT-large WER
and DNSMOS (its real weights; the loop's on the CPU, as speechmos has it), and more judges, a pair
at a time. Both do the same with the same models; what differs is printed beside how much faster
the harness is.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench import score
from bench.cache import ScoreCache
from bench.judges import Converted, batches
from bench.judges.dnsmos import DNSMOS
from bench.score import score_rows
from benchmarks import random_judges
from benchmarks.loop import Pair, converted, crossed, one_at_a_time
from benchmarks.test_judges import AsPublished
from suites.build import MINI
from suites.corpora import utterances


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sources", type=int, default=20)
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--judges", nargs="*", help="names; None for all")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=("highest", "high"), default="highest")
    parser.add_argument("--tiny", action="store_true", help="models of a few kilobytes")
    arguments = parser.parse_args()
    batches.PRECISION = arguments.precision
    device = arguments.device
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    recordings = utterances(MINI / "utterances.csv")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        judges = random_judges.make(folder, device, arguments.tiny) | {
            "dnsmos": DNSMOS(device=device)
        }
        rows = converted(crossed(recordings, arguments.sources, arguments.targets), folder)
        print(
            f"{name}, {torch.get_num_threads()} threads, precision {arguments.precision}; "
            f"{arguments.sources} sources x {arguments.targets} targets = {len(rows)} pairs"
        )
        print(f"{'judge':22}{'loop s':>10}{'ours s':>10}{'times':>8}{'again s':>10}  difference")
        total = [0.0, 0.0]
        for judge_name, judge in judges.items():
            if arguments.judges and judge_name not in arguments.judges:
                continue
            loop, ours = compare(judge_name, judge, rows, folder, arguments.batch_size, device)
            total = [total[0] + loop, total[1] + ours]
        print(f"{'all':22}{total[0]:10.2f}{total[1]:10.2f}{total[0] / total[1]:8.1f}")
        own = ("secs_wavlm_large", "wer_hubert_large", "dnsmos")
        print(f"seed-vc's eval.py scores with {', '.join(own)}.")


def compare(
    name: str, judge: Any, rows: list[score.Row], folder: Path, batch_size: int, device: str
) -> tuple[float, float]:
    """Prints a judge's line; the seconds of the loop and of the harness."""
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
    if recogniser:
        moved = sum(c["hypothesis"] != p.hypothesis for c, p in zip(columns, pairs, strict=True))
        told = f"{moved} of {len(rows)} transcripts"
    else:
        column = "secs_reference" if encoder else next(iter(columns[0]))
        wanted = [p.secs if encoder else p.ovrl for p in pairs]
        told = f"{max(abs(c[column] - w) for c, w in zip(columns, wanted, strict=True)):.1e}"
    print(f"{name:22}{loop:10.2f}{ours:10.2f}{loop / ours:8.1f}{again:10.2f}  {told}", flush=True)
    return loop, ours


def forget() -> None:
    """Sounds in memory, as a new process has none."""
    score._load.cache_clear()
    score._reference.cache_clear()


def seconds(work: Callable[[], object], device: str) -> float:
    """How long it takes, the GPU's work included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
