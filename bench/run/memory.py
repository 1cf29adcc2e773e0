"""Decides which workers share a GPU, by the memory that each needs.

The need of a judge is what its workers measured in an earlier run, else what its classes declare
(`gpu_gib`). Ray knows shares of a GPU, not bytes: a worker's share is its need / the budget.
"""

import inspect
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.files import fingerprint, read_text, write_json
from bench.objects import TARGET, locate

CONVERT = "convert"
GPU_STEPS = 10_000  # Ray counts GPUs to four decimals
MARGIN = 0.1  # of a card, left free: the longest sound of a run may need more than was measured
FILE = "gpu_memory.json"  # beside the score cache


@dataclass(frozen=True)
class GpuPlan:
    """Which kinds of workers are on each card.

    Attributes:
        cards: the kinds on each card, largest first.
        shares: kind → share of a GPU of each of its workers, (0, 1], whole steps of 1/`GPU_STEPS`.
        waiting: kinds that have no room beside the others: they start when one has ended.
    """

    cards: tuple[tuple[str, ...], ...]
    shares: Mapping[str, float]
    waiting: tuple[str, ...] = ()

    def workers(self, kind: str) -> int:
        """How many workers of a kind there are, at least 1."""
        return max(1, sum(kind in card for card in self.cards))

    def __str__(self) -> str:
        counts: dict[tuple[str, ...], int] = {}
        for card in self.cards:
            counts[card] = counts.get(card, 0) + 1
        parts = [
            f"{count} × ({', '.join(f'{kind} {self.shares[kind]:.0%}' for kind in card)})"
            for card, count in counts.items()
            if card
        ]
        waits = f"; waits for room: {', '.join(self.waiting)}" if self.waiting else ""
        return (" and ".join(parts) or "nothing runs on them") + waits


def share_cards(
    needs: Mapping[str, float],
    budget: float,
    cards: int,
    fixed: Mapping[str, float] | None = None,
) -> GpuPlan:
    """Puts workers on cards: first-fit decreasing, the conversion first.

    As many cards convert as leave room for every judge. Each judge gets one worker; then a second,
    and so on, on every card with room. What is left of the cards goes to the conversion: its share
    is then above one half wherever the judges need less, so that Ray cannot put two of its workers
    on one card.

    Args:
        needs: kind → GiB of a worker, above 0; "convert" is the conversion, the others are judges.
        budget: GiB of each card, above 0.
        cards: how many, at least 1.
        fixed: kind → share of a card that the user has set, in (0, 1); it goes before the need.

    Raises:
        UserError: names a judge that does not fit on a card alone, and what to do.
    """
    fixed = fixed or {}
    steps = {kind: max(1, ceil(need / budget * GPU_STEPS - 1e-6)) for kind, need in needs.items()}
    for kind, step in steps.items():
        if step > GPU_STEPS and kind not in fixed:
            what = "the conversion" if kind == CONVERT else f"judge {kind}"
            setting = CONVERT if kind == CONVERT else f"judges.{kind}"
            raise UserError(
                f"{what} needs {needs[kind]:.1f} GiB of a GPU, the budget is {budget:.1f} GiB; "
                f"raise executor.memory, set executor.{setting}.gpus=1, or use device=cpu"
            )
    steps |= {kind: floor(share * GPU_STEPS + 1e-6) for kind, share in fixed.items()}
    judges = sorted((kind for kind in steps if kind != CONVERT), key=lambda k: (-steps[k], k))
    most = cards if CONVERT in steps else 0
    for converting in range(most, min(most, 1) - 1, -1):
        on_cards = [[CONVERT] if card < converting else [] for card in range(cards)]
        free = [GPU_STEPS - sum(steps[kind] for kind in card) for card in on_cards]
        waiting = [kind for kind in judges if not _placed(kind, steps, on_cards, free, 1)]
        if not waiting:
            break
    for kind in judges:
        if kind not in waiting:
            _placed(kind, steps, on_cards, free, cards)
    if CONVERT in steps and CONVERT not in fixed:
        steps[CONVERT] += min(f for f, card in zip(free, on_cards, strict=True) if CONVERT in card)
    return GpuPlan(
        tuple(tuple(sorted(card, key=lambda k: (-steps[k], k))) for card in on_cards),
        {kind: step / GPU_STEPS for kind, step in steps.items()},
        tuple(waiting),
    )


def _placed(
    kind: str, steps: Mapping[str, int], cards: list[list[str]], free: list[int], most: int
) -> bool:
    """Puts a worker on the first cards with room, until `most` cards have one; whether one has."""
    for number, card in enumerate(cards):
        if sum(kind in other for other in cards) >= most:
            break
        if kind not in card and free[number] >= steps[kind]:
            card.append(kind)
            free[number] -= steps[kind]
    return any(kind in card for card in cards)


def declared_gib(settings: Any) -> float | None:
    """What the classes of a judge's settings declare to need together, in GiB; None if unknown.

    A class declares it as `gpu_gib`. One that is set to the CPU needs none, and neither does a
    judge of this package without a setting `device`.
    """
    if isinstance(settings, Mapping):
        parts = [declared_gib(value) for value in settings.values()]
        if isinstance(path := settings.get(TARGET), str):
            parts.append(0.0 if settings.get("device") == "cpu" else _of_class(path))
    elif isinstance(settings, Sequence) and not isinstance(settings, str):
        parts = [declared_gib(value) for value in settings]
    else:
        return 0.0
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _of_class(path: str) -> float | None:
    kind = locate(path, "judge")
    declared = getattr(kind, "gpu_gib", None)
    if isinstance(declared, int | float) and isfinite(declared) and declared >= 0:
        return float(declared)
    try:
        names = inspect.signature(kind).parameters
    except (TypeError, ValueError):
        return None
    return 0.0 if path.startswith("bench.judges.") and "device" not in names else None


class MeasuredMemory:
    """The file of what workers needed in earlier runs; a damaged one is measured anew.

    Args:
        path: of the file.

    Attributes:
        card_gib: memory of the smallest card that was seen; None if unknown.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gib: dict[str, float] = {}
        self.card_gib: float | None = None
        try:
            content = json.loads(read_text(path)) if path.is_file() else {}
            self._gib = {str(k): _gib(v) for k, v in content.get("needs", {}).items()}
            self.card_gib = _gib(content["card"]) if content.get("card") else None
        except (UserError, AttributeError, TypeError, ValueError):
            self._gib = {}

    @staticmethod
    def key(settings: Any) -> str:
        """Stands for a judge: a hash of its settings."""
        return fingerprint(settings)

    def of(self, settings: Any) -> float | None:
        """GiB that a judge with these settings has needed; None if it was not measured."""
        return self._gib.get(self.key(settings))

    def add(self, settings: Any, gib: float, card_gib: float) -> None:
        """Adds a measurement; the largest counts. 0 is none."""
        if gib > 0:
            self._gib[self.key(settings)] = round(max(gib, self.of(settings) or 0.0), 3)
        if card_gib > 0:
            self.card_gib = round(min(card_gib, self.card_gib or card_gib), 3)

    def save(self) -> None:
        """Writes the file."""
        if self._gib:
            write_json(self._path, {"card": self.card_gib, "needs": self._gib})


def _gib(value: Any) -> float:
    if not isinstance(value, int | float) or not isfinite(value) or value <= 0:
        raise ValueError(f"{value!r} is no memory")
    return float(value)


def card_gib() -> float | None:
    """Memory of the smallest GPU of this machine in GiB, from nvidia-smi; None if it has none."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return min(float(line) for line in done.stdout.splitlines()) / 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
