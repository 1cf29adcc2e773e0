"""What the training loop asks of a stage: the protocols `Stage` and `Log`, and its error."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

# Applies a loss to the parameters of a group, and gives the norm of its gradient.
Apply = Callable[[str, Tensor], Tensor]


class TrainingError(RuntimeError):
    """Training cannot continue; the message says what is kept and what to do."""


class Log(Protocol):
    """TensorBoard's writer: a stage may write sounds and images to it."""

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
        """The name of the operations of a step, by which CUDA graphs are kept.

        Two steps of one name and one shape of batch do the same operations. None: the step waits
        for the device, or its operations vary, so that it cannot be captured.
        """
        ...

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """One step: computes losses, applies each to its group, and returns scalars to log."""
        ...

    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> Mapping[str, float]:
        """Measures the averaged part on held-out speech, by name.

        It may draw random numbers: the loop restores the generators' states afterwards.
        """
        ...

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """Writes the averaged part for use."""
        ...
