"""The training loop: one for every stage.

A stage defines what is trained and what a step does. The loop does the rest: processes and
precision (accelerate), learning rate, moving average, checkpoints, logs, and an end by steps or by
the clock. On a GPU, steps are captured in CUDA graphs (`takin_vc.train.graphs`).

Everything random in step k follows from the seed, k and the process. So a run that resumes gives
the same losses as one that was never stopped, bit for bit on one machine. Only where the clock sets
the end does the schedule follow the clock.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from takin_vc.tensors import WeightsError
from takin_vc.train.checkpoint import TrainingState
from takin_vc.train.graphs import CapturedSteps
from takin_vc.train.stage import Stage, TrainingError


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast to train.

    Attributes:
        seed: of everything random.
        steps: to the end of the schedule; None: the clock alone ends it.
        minutes: likewise, of training, validation and checkpoints excepted, over all runs of a
            resumed training; None: the steps alone. The first to come counts.
        learning_rate: after the warm-up.
        final_learning_rate: at the end, in terms of `learning_rate`; half a cosine leads there.
        warmup_steps: in which the rate rises linearly.
        betas: of AdamW.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: decay of the moving average of the parameters, which is what is validated and
            exported; it begins lower. 0 is none.
        log_every: steps between two lines of the log.
        save_minutes: between two checkpoints.
        validate_minutes: between two validations; None: at the end alone.
        graphs: on one GPU, capture steps in CUDA graphs.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1e-4
    final_learning_rate: float = 0.01
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    log_every: int = 50
    save_minutes: float = 5.0
    validate_minutes: float | None = None
    graphs: bool = True

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise TrainingError("training needs an end: give steps, minutes or both")

    def progress(self, step: int, seconds: float) -> float:
        """How far the schedule is after `step` steps and `seconds`: 1 or more is its end."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(step / self.steps)
        if self.minutes is not None:
            parts.append(seconds / (60 * self.minutes))
        return max(parts)

    def rate(self, step: int, progress: float) -> float:
        """The learning rate."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        fall = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return (
            self.learning_rate
            * warm
            * (self.final_learning_rate + (1 - self.final_learning_rate) * fall)
        )


class Trainer:
    """Trains a stage to the end of its schedule, from the checkpoint in `folder` if there is one.

    Args:
        stage: on the accelerator's device.
        settings: how long and how fast.
        folder: of checkpoint, logs and export; created if missing.
        described: settings that determine the outcome, plain values: a checkpoint of others is
            refused, except those of `takin_vc.train.checkpoint.FREE_TO_CHANGE`.
        accelerator: processes, device and precision.
        facts: about the training, plain values, for `result.json`.
        report: receives lines of progress.

    Attributes:
        steps: steps trained so far, those of earlier runs included.
        average: the moving average of the stage's exported part.
        losses: mean losses of the last line of the log, by name.

    Raises:
        TrainingError: if the checkpoint is damaged, or of other settings or another format.
    """

    def __init__(
        self,
        stage: Stage,
        settings: TrainingSettings,
        folder: Path,
        *,
        described: Mapping[str, Any],
        accelerator: Accelerator,
        facts: Mapping[str, Any] | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stage, self.settings, self.folder = stage, settings, folder
        self.facts = dict(facts or {})
        self.accelerator, self.report = accelerator, report
        self.device = accelerator.device
        self.groups = {name: list(parameters) for name, parameters in stage.groups().items()}
        self.optimizers = _optimizers(self.groups, settings, self.device)
        self.average = copy.deepcopy(stage.averaged).requires_grad_(False)
        self.state = TrainingState(stage.module, self.average, self.optimizers, folder, described)
        self.steps, seconds = self.state.resume(self.device)
        if self.steps:
            report(f"resuming at step {self.steps}, {seconds / 60:.1f} minutes trained")
        self.clock = _Clock(seconds)
        self.losses: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}  # of each logged value, since the last line
        self._summed = 0  # steps in these sums
        self._rate = 0.0
        pairs = [
            (averaged, current)
            for averaged, current in zip(
                self.average.parameters(), stage.averaged.parameters(), strict=True
            )
            if current.requires_grad
        ]
        self._averaged: list[Tensor] = [averaged for averaged, _ in pairs]
        self._current: list[Tensor] = [current for _, current in pairs]
        # Processes exchange gradients, which no graph can hold.
        captured = settings.graphs and self.device.type == "cuda" and accelerator.num_processes == 1
        self._learn: Any = CapturedSteps(self._learn_eagerly) if captured else self._learn_eagerly
        self._writer = _writer(folder) if accelerator.is_main_process else None

    def run(self) -> dict[str, Any]:
        """Trains to the end of the schedule, then validates and exports.

        Returns:
            Steps, minutes, losses, and on the main process the validation.

        Raises:
            TrainingError: if a loss is not finite or the disk is full; the last checkpoint stays.
        """
        settings = self.settings
        self.stage.module.train()
        self.clock.start()
        next_save = self.clock.seconds + 60 * settings.save_minutes
        validate_seconds = 60 * (
            math.inf if settings.validate_minutes is None else settings.validate_minutes
        )
        next_validation = self.clock.seconds + validate_seconds
        while (progress := self._progress()) < 1:
            self.step(settings.rate(self.steps, progress))
            if self.steps % settings.log_every == 0:
                self.log()
            now = self.clock.seconds
            if now >= next_save or now >= next_validation:
                self.clock.stop()
                self._collect()
                if now >= next_save:
                    self.save()
                    next_save = now + 60 * settings.save_minutes
                if now >= next_validation:
                    self.validate()
                    next_validation = now + validate_seconds
                self.clock.start()
        self._collect()
        self.clock.stop()
        result: dict[str, Any] = {
            "steps": self.steps,
            "minutes": round(self.clock.seconds / 60, 2),
            "losses": self.losses,
        }
        self.save()
        if self.accelerator.is_main_process:
            result["validation"] = self.validate()
            self._export(result)
        if self._writer is not None:
            self._writer.close()
        return result

    def step(self, rate: float) -> None:
        """Trains on the batch of the next step, and moves the average.

        Args:
            rate: the learning rate.
        """
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"].fill_(rate)
        self._rate = rate
        process = self.accelerator.process_index
        batch = self.stage.draw(self.steps, process)
        torch.manual_seed(hash((self.settings.seed, self.steps, process)) % 2**63)
        values = self._learn(batch, self.stage.phase(self.steps))
        if self.settings.average:
            decay = min(self.settings.average, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self._averaged, self._current, 1 - decay)
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = value.clone() if name not in self._sums else self._sums[name] + value
        self._summed += 1
        self.steps += 1

    def log(self) -> None:
        """Writes the mean losses since the last line, and reports every tenth line.

        Raises:
            TrainingError: if a loss is not finite.
        """
        self._collect()
        if not self.accelerator.is_main_process:
            return
        minutes = self.clock.seconds / 60
        line = {
            "step": self.steps,
            "minutes": round(minutes, 3),
            "rate": self._rate,
            **self.losses,
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._writer is not None:
            for name, mean in self.losses.items():
                self._writer.add_scalar(f"train/{name}", mean, self.steps)
        if self.steps % (10 * self.settings.log_every) == 0:
            means = "  ".join(f"{name} {mean:.4g}" for name, mean in self.losses.items())
            self.report(f"step {self.steps}  {minutes:.1f} min  {means}")

    def save(self) -> None:
        """Writes the checkpoint; only the main process does.

        Raises:
            TrainingError: if it cannot be written; the one before it stays.
        """
        self._complete_average()
        if self.accelerator.is_main_process:
            self.state.save(self.steps, self.clock.seconds)

    def validate(self) -> dict[str, float]:
        """Validates the moving average on held-out speech; only the main process does.

        The random numbers of the training stay as they were.

        Returns:
            Values by name; they are also written to `validation.jsonl` and reported.
        """
        self._complete_average()
        if not self.accelerator.is_main_process:
            return {}
        with _random_state_kept(self.device):
            values = dict(self.stage.validate(self.average, self.steps, self._writer))
        if not values:
            return values
        with (self.folder / "validation.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.steps, **values}) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"validation/{name}", value, self.steps)
        line = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.report(f"step {self.steps}  held out: {line}")
        return values

    def _learn_eagerly(self, batch: dict[str, Tensor], phase: str | None) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            return self.stage.learn(batch, phase, self._apply)

    def _apply(self, name: str, loss: Tensor) -> Tensor:
        """Backward, mean over processes, clip, step; returns the gradient's norm."""
        loss.backward()
        if self.accelerator.num_processes > 1:
            _average_gradients(self.groups[name], self.accelerator)
        norm = nn.utils.clip_grad_norm_(self.groups[name], self.settings.clip)
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)
        return norm

    def _collect(self) -> None:
        """Turns the sums into mean losses. Only here does the loop wait for the device."""
        if not self._summed:
            return
        sums, count = self._sums, self._summed
        means = torch.stack([value.float() / count for value in sums.values()]).tolist()
        self.losses = dict(zip(sums, means, strict=True))
        self._sums, self._summed = {}, 0
        broken = [name for name, mean in self.losses.items() if not math.isfinite(mean)]
        if broken:
            saved = self.state.saved
            kept = f"the checkpoint of step {saved} stays" if saved else "none was written"
            raise TrainingError(
                f"{', '.join(broken)} not finite by step {self.steps}; {kept}. Lower learning_rate "
                f"({self.settings.learning_rate:g}) or clip ({self.settings.clip:g}), and start "
                "again"
            )

    def _progress(self) -> float:
        """How much of the schedule is done; of several processes that of the slowest."""
        progress = self.settings.progress(self.steps, self.clock.seconds)
        if self.accelerator.num_processes > 1:
            return _least(progress, self.accelerator)
        return progress

    def _complete_average(self) -> None:
        """Brings the average up to date in what is not averaged: its buffers, or all of it."""
        if not self.settings.average:
            self.average.load_state_dict(self.stage.averaged.state_dict())
        buffers = zip(self.average.buffers(), self.stage.averaged.buffers(), strict=True)
        for averaged, current in buffers:
            averaged.copy_(current)

    def _export(self, result: Mapping[str, Any]) -> None:
        try:
            self.stage.export(self.average, self.folder, result)
            path = self.folder / "result.json"
            path.write_text(json.dumps({**result, **self.facts}, indent=1), encoding="utf-8")
        except (OSError, WeightsError) as error:
            raise TrainingError(
                f"cannot export to {self.folder}: {error}; {self.state.path} is whole"
            ) from error


class _Clock:
    """Seconds of training. It stands still until `start`, and between `stop` and `start`."""

    def __init__(self, seconds: float) -> None:
        self._before = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    def start(self) -> None:
        self._since = time.monotonic()

    def stop(self) -> None:
        self._before, self._since = self.seconds, None


def _optimizers(
    groups: Mapping[str, list[nn.Parameter]], settings: TrainingSettings, device: torch.device
) -> dict[str, torch.optim.Optimizer]:
    """AdamW for each group, its learning rate a tensor on the device: a captured step reads it."""
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name, parameters in groups.items():
        optimizers[name] = torch.optim.AdamW(
            parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=device.type == "cuda",
            capturable=device.type == "cuda",
        )
        for group in optimizers[name].param_groups:
            group["lr"] = torch.tensor(settings.learning_rate, device=device)
    return optimizers


def _average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Gradients become their means over the processes, in one exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    joined = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
    at = 0
    for gradient in gradients:
        gradient.copy_(joined[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()


def _least(progress: float, accelerator: Accelerator) -> float:
    """The progress of the slowest process, so that all stop at one step."""
    local = torch.tensor([progress], device=accelerator.device, dtype=torch.float64)
    gathered: Tensor = accelerator.gather(local)
    return float(gathered.min())


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Restores torch's random state afterwards, of the CPU and of the device."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _writer(folder: Path) -> Any:
    """TensorBoard's writer, if it is installed (`pip install 'takin-vc-bench[train]'`)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
