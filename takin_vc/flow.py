"""Conditional flow matching: the straight path from noise to mel, its loss, and its integration.

Knows no network. A velocity is any function `velocity(xt (B, C, L), t (B,), condition)` that gives
(B, C, L); the condition is whatever that function takes, and is only handed through.

What the paper states and what was chosen:
    Path. ACL eq. 3: sigma_t = 1 - (1 - sigma_min) t, mu_t = t x1, with sigma_min = 1e-4; its loss
        has the velocity that belongs to it. ICLR eq. 3 exchanges sigma_t and mu_t, which would lead
        from the data to the noise and contradicts its loss (eq. 4): ACL's is used.
    Solver. Not stated. Euler by default, as in the sister paper StableVC; steps are 10 in ACL's
        tables and 50 in ICLR's.
    Guidance. Both print a coefficient of 0.7 and no formula. Here (1 + w) v_condition - w v_null,
        as Seed-VC has it (`modules/flow_matching.py` at d334fb7, also 0.7), so that w = 0 is none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

Velocity: TypeAlias = Callable[[Tensor, Tensor, Any], Tensor]
Field: TypeAlias = Callable[[Tensor, float], Tensor]


class PathPoint(NamedTuple):
    """A point on the path between noise and data.

    Attributes:
        xt: where the path is at time t, (B, C, L).
        u: the path's velocity dxt/dt there, (B, C, L).
    """

    xt: Tensor
    u: Tensor


@dataclass(frozen=True)
class Loss:
    """The loss of the conversion stage (ACL eq. 5).

    Attributes:
        total: flow + commitment_weight x commitment.
        flow: of the conditional flow matching.
        commitment: of the content's quantiser.
    """

    total: Tensor
    flow: Tensor
    commitment: Tensor


class ConditionalFlow:
    """Optimal-transport flow matching (Lipman et al. 2023, eq. 22-23; Takin-VC ACL eq. 3-4).

    Args:
        sigma_min: standard deviation of the noise that is left at t = 1, in [0, 1).

    Raises:
        ValueError: if sigma_min is out of range.
    """

    def __init__(self, *, sigma_min: float = 1e-4) -> None:
        if not 0 <= sigma_min < 1:
            raise ValueError(f"sigma_min ({sigma_min}) must be at least 0 and less than 1")
        self.sigma_min = sigma_min

    def path(self, x0: Tensor, x1: Tensor, t: Tensor) -> PathPoint:
        """The straight path from x0 at t = 0 to x1 + sigma_min x0 at t = 1.

        Args:
            x0: noise, (B, C, L).
            x1: data, (B, C, L).
            t: times in [0, 1], (B,).
        """
        t = t[:, None, None]
        xt = (1 - (1 - self.sigma_min) * t) * x0 + t * x1
        u = x1 - (1 - self.sigma_min) * x0
        return PathPoint(xt, u)

    def loss(
        self,
        velocity: Velocity,
        x1: Tensor,
        condition: Any,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Mean squared error of the velocity over the valid frames, at random times.

        One time a batch item, uniform in [0, 1); noise from N(0, I). Padded frames are kept out of
        the prediction and of the target alike, and the mean is over the valid frames only.

        Args:
            velocity: what is trained.
            x1: data, (B, C, L).
            condition: handed to `velocity`.
            mask: (B, L), True on valid frames; None where all are.
            generator: of the noise and the times, on any device; torch's global one where None.

        Returns:
            A scalar; 0 is perfect.
        """
        source = x1.device if generator is None else generator.device
        x0 = torch.randn(x1.shape, generator=generator, device=source).to(x1)
        t = torch.rand(len(x1), generator=generator, device=source).to(x1)
        xt, u = self.path(x0, x1, t)
        if mask is None:
            return (velocity(xt, t, condition) - u).square().mean()
        valid = mask[:, None]
        xt = xt.masked_fill(~valid, 0.0)
        error = (velocity(xt, t, condition) - u).masked_fill(~valid, 0.0)
        return error.square().sum() / (mask.sum() * x1.shape[1])

    def sample(
        self,
        velocity: Velocity,
        x0: Tensor,
        condition: Any,
        *,
        null: Any = None,
        steps: int = 10,
        solver: str = "euler",
        guidance: float = 0.7,
    ) -> Tensor:
        """Integrates the velocity from t = 0 to t = 1 in equal steps.

        With guidance the field is (1 + w) v(x, t, condition) - w v(x, t, null), and both velocities
        come from one call on a batch of 2 B: the condition's half first. Nothing in the loop waits
        for the device, so the whole of it can be captured in a CUDA graph.

        Args:
            velocity: what is integrated.
            x0: noise, (B, C, L); left as it is.
            condition: handed to `velocity`; with guidance a tensor whose first axis is the batch,
                or tuples and dicts of such tensors and of None.
            null: the condition of no condition, of the same structure; unused without guidance.
            steps: at least 1.
            solver: "euler" (1 evaluation a step, order 1), "midpoint" or "heun" (2, order 2).
            guidance: w, at least 0; 0 is none, and then `velocity` sees the batch once.

        Returns:
            x at t = 1, (B, C, L).

        Raises:
            ValueError: for an unknown solver, no steps, negative guidance, or guidance with a null
                that is missing or of another structure.
        """
        if solver not in SOLVERS:
            raise ValueError(f"unknown solver {solver!r}; there are {', '.join(SOLVERS)}")
        if steps < 1:
            raise ValueError(f"steps ({steps}) must be at least 1")
        if guidance < 0:
            raise ValueError(f"guidance ({guidance}) must be at least 0")
        if guidance > 0 and null is None:
            raise ValueError(f"guidance ({guidance}) needs a null condition; 0 needs none")

        batch = len(x0)
        if guidance == 0:

            def field(x: Tensor, t: float) -> Tensor:
                return velocity(x, x.new_full((batch,), t), condition).to(x)

        else:
            both = _concatenate(condition, null)

            def field(x: Tensor, t: float) -> Tensor:
                v = velocity(torch.cat([x, x]), x.new_full((2 * batch,), t), both).to(x)
                conditioned, unconditioned = v.chunk(2)
                return (1 + guidance) * conditioned - guidance * unconditioned

        step = SOLVERS[solver]
        x = x0
        for i in range(steps):
            x = x + step(field, x, i / steps, 1 / steps)
        return x


def euler(field: Field, x: Tensor, t: float, dt: float) -> Tensor:
    """The change of x over [t, t + dt] by its velocity at the start."""
    return dt * field(x, t)


def midpoint(field: Field, x: Tensor, t: float, dt: float) -> Tensor:
    """The change of x over [t, t + dt] by the velocity half-way along an Euler step."""
    half = x + dt / 2 * field(x, t)
    return dt * field(half, t + dt / 2)


def heun(field: Field, x: Tensor, t: float, dt: float) -> Tensor:
    """The change of x over [t, t + dt] by the mean velocity of both ends of an Euler step."""
    start = field(x, t)
    return dt / 2 * (start + field(x + dt * start, t + dt))


SOLVERS: dict[str, Callable[[Field, Tensor, float, float], Tensor]] = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
}
# Velocity evaluations a step, each on twice the batch with guidance: for cost tables.
EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2}


def _concatenate(first: Any, second: Any) -> Any:
    """Two conditions of one structure as one of twice the batch.

    Raises:
        ValueError: where their structures differ.
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if first is None and second is None:
        return None
    if type(first) is type(second):
        if isinstance(first, dict) and first.keys() == second.keys():
            return {key: _concatenate(first[key], second[key]) for key in first}
        if isinstance(first, tuple) and len(first) == len(second):
            parts = [_concatenate(a, b) for a, b in zip(first, second, strict=True)]
            # A named tuple takes its fields one by one, a plain one takes them all at once.
            return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    raise ValueError(
        f"condition ({type(first).__name__}) and null ({type(second).__name__}) "
        "differ in structure; make both with the same call"
    )
