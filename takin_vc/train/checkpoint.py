"""The state file of a training: everything that a run needs to resume with the same numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from takin_vc.train.stage import TrainingError

STATE = "state.pt"
FORMAT = 2

# Settings that may differ between two runs of one training, by their last names.
FREE_TO_CHANGE = (
    "steps",
    "minutes",
    "log_every",
    "save_minutes",
    "validate_minutes",
    "judges",
    "graphs",
    "folder",
    "out",
    "device",
    "threads",
)


class TrainingState:
    """Weights, their moving average and optimisers, saved to and loaded from one file.

    Args:
        module: everything that is trained or follows from training.
        average: the moving average of the exported part.
        optimizers: by name.
        folder: where the file is.
        described: settings that determine the outcome, plain values. A file of other settings is
            refused, those of `FREE_TO_CHANGE` excepted.

    Attributes:
        path: the file.
        saved: step of the last checkpoint; 0: none.
    """

    def __init__(
        self,
        module: nn.Module,
        average: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
        folder: Path,
        described: Mapping[str, Any],
    ) -> None:
        self.module, self.average, self.optimizers = module, average, optimizers
        self.path, self.described = folder / STATE, _comparable(described)
        self.saved = 0

    def save(self, step: int, seconds: float) -> None:
        """Writes the file; if that fails, the file before it stays.

        Raises:
            TrainingError: if the file cannot be written.
        """
        state = {
            "format": FORMAT,
            "step": step,
            "seconds": seconds,
            "described": json.dumps(self.described),
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
        }
        temporary = self.path.with_name(f".{self.path.name}.part")
        try:
            torch.save(state, temporary)
            temporary.replace(self.path)
        except (OSError, RuntimeError) as error:
            kept = f"that of step {self.saved} stays" if self.saved else "there is none before it"
            raise TrainingError(f"cannot write {self.path} ({error}); {kept}") from error
        finally:
            temporary.unlink(missing_ok=True)
        self.saved = step

    def resume(self, device: torch.device) -> tuple[int, float]:
        """Loads the file, and returns its steps and seconds; 0 and 0 if there is no file.

        Raises:
            TrainingError: if the file is damaged, or of another format or other settings.
        """
        if not self.path.is_file():
            return 0, 0.0
        try:
            # One of several processes on a CPU has the device "cpu:0", which torch.load refuses.
            where = torch.device("cpu") if device.type == "cpu" else device
            state = torch.load(self.path, map_location=where, weights_only=True)
            version, old = state["format"], json.loads(state["described"])
        except Exception as error:  # whatever a damaged file makes torch raise
            raise TrainingError(
                f"{self.path} is no whole checkpoint ({type(error).__name__}: {error}); remove it "
                "to start anew"
            ) from error
        if version != FORMAT:
            raise TrainingError(
                f"{self.path} is of format {version}, this version resumes format {FORMAT}: "
                "finish it with the version that began it, or remove it to start anew"
            )
        for key in sorted(old.keys() | self.described.keys()):
            if old.get(key) != self.described.get(key):
                raise TrainingError(
                    f"{self.path} was made with {key}={old.get(key)!r}, not "
                    f"{self.described.get(key)!r}; take its settings, or another folder (out=...)"
                )
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.saved = int(state["step"])
        return self.saved, float(state["seconds"])


def _comparable(described: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted names, without those of `FREE_TO_CHANGE`."""
    flat: dict[str, Any] = {}
    for key, value in described.items():
        if key in FREE_TO_CHANGE:
            continue
        if isinstance(value, Mapping):
            flat |= _comparable(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
