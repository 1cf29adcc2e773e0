"""The training loop: one for every stage.

A stage says what is trained and what a step does; the loop does the rest: processes and precision
(accelerate), learning rate, moving average, checkpoints, logs, and an end by steps or by the clock.

On a GPU a step is captured in a CUDA graph once for every shape of batch and then replayed: its
thousands of small kernels take a slow processor longer to launch than a fast GPU to run.

Everything random in step k follows from the seed, k and the process, so a run that resumes goes on
as if it had never stopped: the same losses, bit for bit on one machine. Only where the end is set
by the clock does the schedule follow the clock.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from takin_vc.tensors import WeightsError

STATE = "state.pt"
FORMAT = 2

Apply = Callable[[str, Tensor], Tensor]


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says what is kept and how to go on."""


@dataclass(frozen=True)
class Settings:
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


class Log(Protocol):
    """Where a stage may write what a person wants to see or hear: TensorBoard's writer."""

    def add_audio(self, tag: str, samples: Tensor, step: int, sample_rate: int) -> None: ...

    def add_image(self, tag: str, image: Tensor, step: int) -> None: ...


class Stage(Protocol):
    """What is trained."""

    @property
    def module(self) -> nn.Module:
        """All that a checkpoint must hold."""
        ...

    @property
    def averaged(self) -> nn.Module:
        """The part of `module` whose moving average is exported."""
        ...

    def groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Parameters by the name of their optimiser."""
        ...

    def draw(self, step: int, process: int) -> dict[str, Tensor]:
        """The batch of a step, on the device."""
        ...

    def phase(self, step: int) -> str | None:
        """Which of the stage's ways to learn holds at a step: those of one name and one shape of
        batch do the same operations; None where they wait for the device or differ."""
        ...

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """One step: computes losses, has each applied to its group, and says what to log."""
        ...

    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> Mapping[str, float]:
        """What the averaged part is worth on speech that is held out.

        It may draw random numbers: those of the training stay as they were.
        """
        ...

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """Writes the averaged part for use."""
        ...


def train(
    stage: Stage,
    settings: Settings,
    folder: Path,
    *,
    described: Mapping[str, Any],
    accelerator: Accelerator,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains to the end of the schedule, from `folder`'s checkpoint on where there is one.

    Args:
        stage: on the accelerator's device.
        settings: how long and how fast.
        folder: of checkpoint, logs and export.
        described: settings that the outcome follows from, plain values: a checkpoint of others is
            refused, those of `FREE_TO_CHANGE` excepted.
        accelerator: processes, device and precision.
        report: takes a line for the person who waits.

    Returns:
        What came of it: steps, minutes, losses, validation.

    Raises:
        TrainingError: if a loss is not finite, the disk is full, or the checkpoint is of other
            settings or another format; the last checkpoint stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device, process = accelerator.device, accelerator.process_index
    groups = {name: list(parameters) for name, parameters in stage.groups().items()}
    optimizers = {
        name: torch.optim.AdamW(
            parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=device.type == "cuda",
            capturable=device.type == "cuda",
        )
        for name, parameters in groups.items()
    }
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:  # on the device: a captured step reads it there
            group["lr"] = torch.tensor(settings.learning_rate, device=device)
    average = copy.deepcopy(stage.averaged).requires_grad_(False)
    run = _Run(stage.module, average, optimizers, folder, _comparable(described))
    step, seconds = run.resume(device)
    if step:
        report(f"goes on at step {step}, {seconds / 60:.1f} minutes trained")
    stage.module.train()
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(average.parameters(), stage.averaged.parameters(), strict=True)
        if theirs.requires_grad
    ]
    mine: list[Tensor] = [a for a, _ in pairs]
    theirs: list[Tensor] = [b for _, b in pairs]

    def apply(name: str, loss: Tensor) -> Tensor:
        """Backward, mean over processes, clip, step; returns the gradient's norm."""
        loss.backward()
        if accelerator.num_processes > 1:
            _average_gradients(groups[name], accelerator)
        norm = nn.utils.clip_grad_norm_(groups[name], settings.clip)
        optimizers[name].step()
        optimizers[name].zero_grad(set_to_none=True)
        return norm

    def learn(batch: dict[str, Tensor], phase: str | None) -> dict[str, Tensor]:
        with accelerator.autocast():
            return stage.learn(batch, phase, apply)

    # Gradients are exchanged between processes outside of any graph.
    captured = settings.graphs and device.type == "cuda" and accelerator.num_processes == 1
    steps: Any = _Captured(learn) if captured else learn
    writer = _writer(folder) if accelerator.is_main_process else None
    sums: dict[str, Tensor] = {}
    count = 0
    last: dict[str, float] = {}

    def flush() -> None:
        """Means since the last time; the one place where the device is waited for."""
        nonlocal sums, count, last
        if not count:
            return
        values = torch.stack([value.float() / count for value in sums.values()]).tolist()
        last = dict(zip(sums, values, strict=True))
        sums, count = {}, 0
        broken = [name for name, value in last.items() if not math.isfinite(value)]
        if broken:
            kept = f"the checkpoint of step {run.saved} stays" if run.saved else "none was written"
            raise TrainingError(
                f"{', '.join(broken)} not finite by step {step}; {kept}. Lower learning_rate "
                f"({settings.learning_rate:g}) or clip ({settings.clip:g}), and start again"
            )

    def validate() -> dict[str, float]:
        with _random_numbers_kept(device):
            found = dict(stage.validate(average, step, writer))
        _write_validation(folder, step, found, writer, report)
        return found

    started = time.monotonic() - seconds
    pauses = 0.0

    def elapsed() -> float:
        return time.monotonic() - started - pauses

    next_save = elapsed() + 60 * settings.save_minutes
    every = settings.validate_minutes
    next_validation = math.inf if every is None else elapsed() + 60 * every
    while True:
        progress = settings.progress(step, elapsed())
        if accelerator.num_processes > 1:
            progress = _agreed(progress, accelerator)
        if progress >= 1:
            break
        rate = settings.rate(step, progress)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"].fill_(rate)
        batch = stage.draw(step, process)
        torch.manual_seed(hash((settings.seed, step, process)) % 2**63)
        values = steps(batch, stage.phase(step))
        if settings.average:
            decay = min(settings.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(mine, theirs, 1 - decay)
        for name, value in values.items():
            value = value.detach()
            sums[name] = value.clone() if name not in sums else sums[name] + value
        count += 1
        step += 1
        if step % settings.log_every == 0:
            flush()
            seconds = elapsed()
            line = {"step": step, "minutes": round(seconds / 60, 3), "rate": rate, **last}
            if accelerator.is_main_process:
                with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                if writer is not None:
                    for name, mean in last.items():
                        writer.add_scalar(f"train/{name}", mean, step)
                if step % (10 * settings.log_every) == 0:
                    told = "  ".join(f"{name} {mean:.4g}" for name, mean in last.items())
                    report(f"step {step}  {seconds / 60:.1f} min  {told}")
        now = elapsed()
        if now >= next_save or now >= next_validation:
            flush()
            _copy_buffers(stage.averaged, average)
            if now >= next_save:
                if accelerator.is_main_process:
                    run.save(step, now)
                next_save = now + 60 * settings.save_minutes
            if now >= next_validation:
                if accelerator.is_main_process:
                    validate()
                next_validation = now + 60 * (math.inf if every is None else every)
            pauses += elapsed() - now
    flush()
    seconds = elapsed()
    if not settings.average:
        average.load_state_dict(stage.averaged.state_dict())
    _copy_buffers(stage.averaged, average)
    result: dict[str, Any] = {"steps": step, "minutes": round(seconds / 60, 2), "losses": last}
    if accelerator.is_main_process:
        run.save(step, seconds)
        result["validation"] = validate()
        try:
            stage.export(average, folder, result)
            (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        except (OSError, WeightsError) as error:
            raise TrainingError(
                f"cannot export to {folder}: {error}; {run.path} is whole"
            ) from error
    if writer is not None:
        writer.close()
    return result


class _Captured:
    """Steps as CUDA graphs, one for each phase and shape of batch; the first few of each run
    plainly, so that libraries choose their kernels and optimisers have their state."""

    PLAIN = 3

    def __init__(self, learn: Callable[[dict[str, Tensor], str | None], dict[str, Tensor]]) -> None:
        self.learn = learn
        self.seen: dict[Any, int] = {}
        self.graphs: dict[
            Any, tuple[torch.cuda.CUDAGraph, dict[str, Tensor], dict[str, Tensor]]
        ] = {}
        self.pool: Any = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()

    def __call__(self, batch: dict[str, Tensor], phase: str | None) -> dict[str, Tensor]:
        key = (phase, *(tuple(tensor.shape) for tensor in batch.values()))
        if key in self.graphs:
            graph, inputs, outputs = self.graphs[key]
            for name, tensor in batch.items():
                inputs[name].copy_(tensor)
            graph.replay()
            return outputs
        self.seen[key] = self.seen.get(key, 0) + 1
        if phase is None or self.seen[key] <= self.PLAIN:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                outputs = self.learn(batch, phase)
            torch.cuda.current_stream().wait_stream(self.stream)
            return outputs
        inputs = {name: tensor.clone() for name, tensor in batch.items()}
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            outputs = self.learn(inputs, phase)
        self.graphs[key] = graph, inputs, outputs
        graph.replay()
        return outputs


class _Run:
    """The checkpoint of a training."""

    def __init__(
        self,
        module: nn.Module,
        average: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
        folder: Path,
        described: dict[str, Any],
    ) -> None:
        self.module, self.average, self.optimizers = module, average, optimizers
        self.path, self.described = folder / STATE, described
        self.saved = 0

    def save(self, step: int, seconds: float) -> None:
        """Writes the checkpoint, whole or not at all."""
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
        """Step and seconds of the checkpoint, which is loaded; 0 and 0 where there is none."""
        if not self.path.is_file():
            return 0, 0.0
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
            made, old = state["format"], json.loads(state["described"])
        except Exception as error:  # whatever a damaged file makes torch raise
            raise TrainingError(
                f"{self.path} is no whole checkpoint ({type(error).__name__}: {error}); remove it "
                "to start anew"
            ) from error
        if made != FORMAT:
            raise TrainingError(
                f"{self.path} is of format {made}, this version goes on with format {FORMAT}: "
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


def _comparable(described: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted names, without those that may change between two runs of a training."""
    flat: dict[str, Any] = {}
    for key, value in described.items():
        if key in FREE_TO_CHANGE:
            continue
        if isinstance(value, Mapping):
            flat |= _comparable(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _average_gradients(parameters: list[nn.Parameter], accelerator: Accelerator) -> None:
    """Gradients become their means over the processes, in one exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    joined = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
    at = 0
    for gradient in gradients:
        gradient.copy_(joined[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()


def _agreed(progress: float, accelerator: Accelerator) -> float:
    """The progress of the slowest process, so that all stop at one step."""
    mine = torch.tensor([progress], device=accelerator.device, dtype=torch.float64)
    gathered: Tensor = accelerator.gather(mine)
    return float(gathered.min())


@contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    """Torch's random numbers, of the CPU and of the device, go on afterwards as if nothing were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    for old, new in zip(target.buffers(), source.buffers(), strict=True):
        old.copy_(new)


def _write_validation(
    folder: Path,
    step: int,
    found: Mapping[str, float],
    writer: Any,
    report: Callable[[str], None],
) -> None:
    if not found:
        return
    with (folder / "validation.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **found}) + "\n")
    if writer is not None:
        for name, value in found.items():
            writer.add_scalar(f"validation/{name}", value, step)
    report(f"step {step}  held out: " + "  ".join(f"{k} {v:.4g}" for k, v in found.items()))


def _writer(folder: Path) -> Any:
    """TensorBoard's, where it is installed (`pip install 'takin-vc-bench[train]'`)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
