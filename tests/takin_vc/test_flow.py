"""The flow against closed forms, without a network."""

import math

import pytest
import torch
from torch import Tensor

from takin_vc.flow import EVALUATIONS, SOLVERS, ConditionalFlow


@pytest.fixture
def x0() -> Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def x1() -> Tensor:
    return torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_path_begins_at_the_noise_and_ends_at_the_data_plus_sigma_min_noise(x0, x1):
    flow = ConditionalFlow(sigma_min=0.1)
    torch.testing.assert_close(flow.path(x0, x1, torch.zeros(2)).xt, x0)
    torch.testing.assert_close(flow.path(x0, x1, torch.ones(2)).xt, x1 + 0.1 * x0)


def test_path_velocity_is_the_paths_slope_and_constant_in_time(x0, x1):
    """The path is straight: its slope between any two times is its velocity at all times."""
    flow = ConditionalFlow(sigma_min=0.1)
    early, late = (torch.full((2,), t, dtype=torch.float64) for t in (0.3, 0.8))
    slope = (flow.path(x0, x1, late).xt - flow.path(x0, x1, early).xt) / 0.5
    for t in (early, late):
        torch.testing.assert_close(flow.path(x0, x1, t).u, slope)
    torch.testing.assert_close(slope, x1 - 0.9 * x0)


def test_path_takes_a_time_for_each_item(x0, x1):
    flow = ConditionalFlow()
    both = flow.path(x0, x1, torch.tensor([0.25, 0.75])).xt
    torch.testing.assert_close(both[1], flow.path(x0, x1, torch.full((2,), 0.75)).xt[1])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_constant_velocity_is_followed_exactly(solver, x0):
    x = ConditionalFlow().sample(
        lambda xt, t, c: torch.full_like(xt, 3.0), x0, None, steps=7, solver=solver, guidance=0
    )
    torch.testing.assert_close(x, x0 + 3.0)


@pytest.mark.parametrize(
    ("solver", "gain"),
    # The integral of 2 + 5t over [0, 1] is 4.5; Euler's left sums over 4 steps give 2 + 5 * 3/8.
    [("euler", 2 + 5 * 3 / 8), ("midpoint", 4.5), ("heun", 4.5)],
)
def test_a_velocity_linear_in_time_is_exact_at_second_order(solver, gain, x0):
    x = ConditionalFlow().sample(
        lambda xt, t, c: (2 + 5 * t)[:, None, None].expand_as(xt),
        x0,
        None,
        steps=4,
        solver=solver,
        guidance=0,
    )
    torch.testing.assert_close(x, x0 + gain)


@pytest.mark.parametrize("solver", SOLVERS)
def test_exponential_growth_follows_the_solvers_polynomial(solver, x0):
    """dx/dt = a x: one step multiplies by exp(a h)'s Taylor polynomial of the solver's order."""
    a, steps = 1.7, 6
    h = a / steps
    factor = 1 + h if solver == "euler" else 1 + h + h**2 / 2
    x = ConditionalFlow().sample(
        lambda xt, t, c: a * xt, x0, None, steps=steps, solver=solver, guidance=0
    )
    torch.testing.assert_close(x, x0 * factor**steps)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_halving_the_step_divides_the_error_by_two_to_the_order(solver, order):
    """dx/dt = -x + sin(3t), x(0) = 1: linear, with x(1) in closed form."""
    exact = math.exp(-1) * (1 + 0.3) + (math.sin(3) - 3 * math.cos(3)) / 10
    one = torch.ones(1, 1, 1, dtype=torch.float64)

    def error(steps: int) -> float:
        x = ConditionalFlow().sample(
            lambda xt, t, c: -xt + torch.sin(3 * t)[:, None, None],
            one,
            None,
            steps=steps,
            solver=solver,
            guidance=0,
        )
        return abs(x.item() - exact)

    assert math.log2(error(64) / error(128)) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize(("solver", "evaluations"), EVALUATIONS.items())
def test_evaluations_a_step_are_as_listed(solver, evaluations, x0):
    times = []

    def velocity(xt: Tensor, t: Tensor, condition: None) -> Tensor:
        times.append(t[0].item())
        return xt

    ConditionalFlow().sample(velocity, x0, None, steps=5, solver=solver, guidance=0)
    assert len(times) == 5 * evaluations
    assert min(times) == 0
    assert max(times) <= 1


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_the_true_field_of_one_target_leads_to_it_in_any_number_of_steps(steps, x0, x1):
    """With one x1 the field is (x1 - (1 - s) x) / (1 - (1 - s) t), and its paths are straight."""
    flow = ConditionalFlow(sigma_min=0.01)

    def velocity(xt: Tensor, t: Tensor, target: Tensor) -> Tensor:
        return (target - 0.99 * xt) / (1 - 0.99 * t)[:, None, None]

    x = flow.sample(velocity, x0, x1, steps=steps, guidance=0)
    torch.testing.assert_close(x, x1 + 0.01 * x0)


def test_the_true_field_of_one_target_has_no_loss(x1):
    flow = ConditionalFlow(sigma_min=0.01)

    def velocity(xt: Tensor, t: Tensor, target: Tensor) -> Tensor:
        return (target - 0.99 * xt) / (1 - 0.99 * t)[:, None, None]

    assert flow.loss(velocity, x1, x1).item() == pytest.approx(0, abs=1e-20)


def test_loss_of_a_zero_velocity_is_the_targets_power():
    """u = x1 - (1 - s) x0 with x0 from N(0, 1): its mean square is x1^2 + (1 - s)^2."""
    flow = ConditionalFlow(sigma_min=0.2)
    x1 = torch.full((4, 10, 5000), 3.0)
    loss = flow.loss(
        lambda xt, t, c: torch.zeros_like(xt), x1, None, generator=torch.Generator().manual_seed(0)
    )
    assert loss.item() == pytest.approx(9 + 0.64, rel=0.01)


def test_guidance_extrapolates_from_the_null_condition(x0):
    """(1 + 0.7) 2 - 0.7 * 5 = -0.1."""
    condition = torch.full((2, 1, 1), 2.0, dtype=torch.float64)
    null = torch.full((2, 1, 1), 5.0, dtype=torch.float64)
    x = ConditionalFlow().sample(
        lambda xt, t, c: c.expand_as(xt), x0, condition, null=null, steps=3, guidance=0.7
    )
    torch.testing.assert_close(x, x0 - 0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_guidance_by_the_same_condition_changes_nothing(solver, x0, x1):
    def sample(guidance: float) -> Tensor:
        return ConditionalFlow().sample(
            lambda xt, t, c: torch.sin(c * xt), x0, x1, null=x1, solver=solver, guidance=guidance
        )

    torch.testing.assert_close(sample(0.7), sample(0.0))


def test_both_guidance_branches_share_one_batch_and_no_guidance_runs_one_branch(x0, x1):
    batches = []

    def velocity(xt: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        batches.append((len(xt), len(t), len(condition)))
        return xt

    ConditionalFlow().sample(velocity, x0, x1, null=-x1, steps=3, guidance=0.7)
    assert batches == [(4, 4, 4)] * 3
    batches.clear()
    ConditionalFlow().sample(velocity, x0, x1, null=-x1, steps=3, guidance=0.0)
    assert batches == [(2, 2, 2)] * 3


def test_no_guidance_never_looks_at_the_null_condition(x0, x1):
    flow = ConditionalFlow()

    def velocity(xt: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return c * xt

    without = flow.sample(velocity, x0, x1, guidance=0)
    nan = torch.full_like(x1, math.nan)
    torch.testing.assert_close(flow.sample(velocity, x0, x1, null=nan, guidance=0), without)


def test_a_structured_condition_is_doubled_leaf_by_leaf(x0, x1):
    seen = []

    def velocity(xt: Tensor, t: Tensor, condition: dict) -> Tensor:
        seen.append(condition)
        return condition["a"][0] * xt

    condition = {"a": (x1, None), "b": x0}
    null = {"a": (-x1, None), "b": 2 * x0}
    ConditionalFlow().sample(velocity, x0, condition, null=null, steps=1, guidance=1)
    torch.testing.assert_close(seen[0]["a"][0], torch.cat([x1, -x1]))
    assert seen[0]["a"][1] is None
    torch.testing.assert_close(seen[0]["b"], torch.cat([x0, 2 * x0]))


def test_padded_frames_touch_neither_loss_nor_gradient(x1):
    """Garbage in the padding of the data and of the prediction; the frames before it unchanged."""
    flow = ConditionalFlow()
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])

    def loss_and_gradient(padding: float) -> tuple[float, Tensor]:
        data = x1.masked_fill(~mask[:, None], padding).requires_grad_()
        loss = flow.loss(
            lambda xt, t, c: xt + (~mask[:, None]) * padding,
            data,
            None,
            mask,
            torch.Generator().manual_seed(3),
        )
        loss.backward()
        return loss.item(), data.grad

    clean, _ = loss_and_gradient(0.0)
    dirty, gradient = loss_and_gradient(1000.0)
    assert dirty == clean
    assert gradient[1, :, 2:].abs().max() == 0
    assert gradient[1, :, :2].abs().min() > 0


def test_loss_is_the_mean_over_valid_frames_only():
    """Perfect but for an error of 2 on every valid frame: 4, however much padding there is."""
    flow = ConditionalFlow(sigma_min=0.01)
    x1 = torch.randn(2, 3, 8, dtype=torch.float64)
    for valid in (8, 3):
        mask = (torch.arange(8) < valid).expand(2, 8)
        loss = flow.loss(
            lambda xt, t, target: (target - 0.99 * xt) / (1 - 0.99 * t)[:, None, None] + 2,
            x1,
            x1,
            mask,
        )
        assert loss.item() == pytest.approx(4)


def test_loss_repeats_with_its_seed_and_differs_between_seeds(x1):
    def loss(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        return ConditionalFlow().loss(lambda xt, t, c: xt, x1, None, generator=generator).item()

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_sampling_leaves_the_noise_as_it_was(x0):
    before = x0.clone()
    ConditionalFlow().sample(lambda xt, t, c: torch.ones_like(xt), x0, None, guidance=0)
    assert torch.equal(x0, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "rk4"}, "unknown solver 'rk4'; there are euler, midpoint, heun"),
        ({"steps": 0}, r"steps \(0\) must be at least 1"),
        ({"guidance": -0.5}, r"guidance \(-0.5\) must be at least 0"),
        ({"guidance": 0.7}, r"guidance \(0.7\) needs a null condition"),
        ({"guidance": 0.7, "null": {}}, r"condition \(Tensor\) and null \(dict\) differ"),
    ],
)
def test_bad_arguments_are_named(arguments, message, x0, x1):
    with pytest.raises(ValueError, match=message):
        ConditionalFlow().sample(lambda xt, t, c: xt, x0, x1, **arguments)


def test_sigma_min_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"sigma_min \(1.0\) must be at least 0 and less than 1"):
        ConditionalFlow(sigma_min=1.0)
