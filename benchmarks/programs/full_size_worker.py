"""One process of `benchmarks.programs.full_size`: trains a stage and measures its steps.

    python -m benchmarks.programs.full_size_worker JSON

JSON is a `Job`. The process builds the stage, reports that it is ready, and waits for the file "go"
in the job's folder: many processes build at the same time, and each trains alone on its GPUs. After
every line of the log it writes what it measured to `rank-K.json` in that folder.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from takin_vc.config import load
from takin_vc.train.loop import Trainer
from takin_vc.train.run import run

HALF = "half.pt"  # a second name of the checkpoint at which the resumed training begins


@dataclass(frozen=True)
class Job:
    """What a process trains.

    Attributes:
        folder: of the files that it writes, and of the training.
        overrides: of the settings, in Hydra's form.
        stop_at: step whose checkpoint is kept for the resumed training; 0: this is the resumed one.
        complete: the state file of the training that was not interrupted, which a resumed one is
            compared with; empty for others.
        started: seconds since the epoch.
    """

    folder: str
    overrides: list[str]
    stop_at: int
    complete: str
    started: float = field(default_factory=time.time)


class MeasuredTrainer(Trainer):
    """A training loop that waits for its turn, and measures itself.

    Args:
        arguments: of `Trainer`.
        job: of this process.
        named: of `Trainer`.
    """

    def __init__(self, *arguments: Any, job: Job, **named: Any) -> None:
        self.job, self.outputs = job, Path(job.folder)
        accelerator = named["accelerator"]
        self.figures: dict[str, Any] = {
            "rank": accelerator.process_index,
            "processes": accelerator.num_processes,
            "ready_seconds": round(time.time() - job.started, 1),
            "log": [],
        }
        self._write()
        while not (self.outputs / "go").exists():
            time.sleep(0.05)
        start = time.monotonic()
        super().__init__(*arguments, **named)
        trained = sum(p.numel() for group in self.groups.values() for p in group)
        self.figures |= {
            "load_seconds": round(time.monotonic() - start, 2),
            "first_step": self.steps,
            "parameters": sum(p.numel() for p in self.stage.module.parameters()),
            "trained_parameters": trained,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
        }

    def log(self) -> None:
        """As usual; then keeps the checkpoint of `stop_at`, and writes the figures."""
        super().log()
        line = {"step": self.steps, "seconds": self.clock.seconds, "losses": self.losses}
        self.figures["log"].append(line)
        self._write()
        if self.steps == self.job.stop_at:
            self.clock.stop()
            self.save()
            self.clock.start()

    def save(self) -> None:
        """As usual, and timed; a resumed training writes no checkpoint."""
        if not self.job.stop_at:
            self._complete_average()
            return
        start = time.monotonic()
        super().save()
        if not self.accelerator.is_main_process:
            return
        self.figures["save_seconds"] = round(time.monotonic() - start, 2)
        self.figures["checkpoint_bytes"] = self.state.path.stat().st_size
        if self.steps == self.job.stop_at:
            os.link(self.state.path, self.outputs / HALF)
        else:
            self.figures["trained"] = True
        self._write()

    def _export(self, result: Mapping[str, Any]) -> None:
        """As usual, and timed; a resumed training is compared instead."""
        start = time.monotonic()
        if self.job.stop_at:
            super()._export(result)
            files = [path for path in self.folder.rglob("*.safetensors") if path.is_file()]
            self.figures["export_bytes"] = sum(path.stat().st_size for path in files)
            self.figures["export_seconds"] = round(time.monotonic() - start, 2)
        else:
            self.figures["trained"] = True
            self._write()
            state = torch.load(self.job.complete, map_location="cpu", mmap=True, weights_only=True)
            self.figures["compared"] = {
                name: differences(module.state_dict(), state[name])
                for name, module in (("module", self.stage.module), ("average", self.average))
            }
        self._write()

    def _write(self) -> None:
        """Writes the figures; a reader never sees half of them."""
        if torch.cuda.is_available():
            self.figures["reserved_bytes"] = torch.cuda.max_memory_reserved()
            self.figures["allocated_bytes"] = torch.cuda.max_memory_allocated()
        path = self.outputs / f"rank-{self.figures['rank']}.json"
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(self.figures), encoding="utf-8")
        temporary.replace(path)


def differences(
    tensors: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Compares tensors of the same names.

    Returns:
        How many there are, how many differ in any bit, and the largest absolute difference.
    """
    unequal, largest = 0, 0.0
    for name, tensor in tensors.items():
        other = others[name].to(tensor.device)
        if not torch.equal(tensor, other):
            unequal += 1
            largest = max(largest, float((tensor.double() - other.double()).abs().max()))
    return {"tensors": len(tensors), "unequal": unequal, "largest": largest}


def main(arguments: Sequence[str]) -> int:
    """Trains; 0, or 1 after a line with the error."""
    job = Job(**json.loads(arguments[0]))
    run(load(job.overrides, "train"), trainer=partial(MeasuredTrainer, job=job))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
