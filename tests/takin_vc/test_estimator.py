"""The U-Net: padding, preparation, guidance, its size at full width, and that it learns."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from takin_vc.estimator import UNetEstimator
from takin_vc.flow import ConditionalFlow

TINY = {
    "n_mels": 4,
    "context_dim": 6,
    "memory_dim": 5,
    "hidden": 16,
    "blocks": 4,
    "resnet_blocks": 1,
    "half_rate_blocks": 2,
    "heads": 2,
}


def tiny(**settings: object) -> UNetEstimator:
    """A small network in which nothing is 0 that training would move."""
    torch.manual_seed(0)
    estimator = UNetEstimator(**{**TINY, **settings}).eval()
    for parameter in estimator.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, 0, 0.1)
    return estimator


def inputs(batch: int = 2, frames: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 4, frames, generator=g),
        torch.rand(batch, generator=g),
        torch.randn(batch, frames, 6, generator=g),
        torch.randn(batch, 5, generator=g),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"memory_fusion": "gated"},
        {"memory_fusion": None},
        {"half_rate_blocks": 0},
        {"half_rate_blocks": 4},
        {"blocks": 5, "half_rate_blocks": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("frames", [8, 9])
@torch.no_grad()
def test_padding_changes_no_valid_frame(settings, frames):
    estimator = tiny(**settings)
    xt, t, context, memory = inputs(3, frames)
    memory = None if estimator.null_memory is None else memory
    lengths = torch.tensor([frames, 5, 4])
    mask = torch.arange(frames) < lengths[:, None]
    batched = estimator(
        xt.masked_fill(~mask[:, None], 1e3),
        t,
        context.masked_fill(~mask[:, :, None], 1e3),
        memory,
        mask,
    )
    for i, length in enumerate(lengths):
        one = slice(i, i + 1)
        alone = estimator(
            xt[one, :, :length],
            t[one],
            context[one, :length],
            None if memory is None else memory[one],
        )
        torch.testing.assert_close(batched[one, :, :length], alone, atol=1e-4, rtol=0)
        assert not batched[i, :, length:].any()


@torch.no_grad()
def test_no_mask_is_a_mask_of_valid_frames():
    estimator = tiny()
    mask = torch.ones(2, 9, dtype=torch.bool)
    torch.testing.assert_close(estimator(*inputs()), estimator(*inputs(), mask))


@pytest.mark.parametrize("fusion", ["film", "gated"])
@torch.no_grad()
def test_prepared_condition_equals_recomputation(fusion):
    estimator = tiny(memory_fusion=fusion)
    xt, t, context, memory = inputs()
    mask = torch.arange(9) < torch.tensor([9, 6])[:, None]
    prepared = estimator.prepare(context, memory, mask)
    for time in (t, 1 - t):
        expected = estimator(xt, time, context, memory, mask)
        assert torch.equal(estimator.velocity(xt, time, prepared), expected)


@pytest.mark.parametrize("fusion", ["film", "gated"])
@torch.no_grad()
def test_every_input_moves_the_velocity(fusion):
    estimator = tiny(memory_fusion=fusion)
    arguments = inputs()
    before = estimator(*arguments)
    for i in range(4):
        changed = list(arguments)
        changed[i] = changed[i] + 0.5
        assert (estimator(*changed) - before).abs().max() > 1e-3


@torch.no_grad()
def test_a_dropped_condition_is_the_null_condition_whatever_it_was():
    estimator = tiny()
    xt, t, context, memory = inputs()
    drop = torch.tensor([True, False])
    before = estimator(xt, t, context, memory, drop=drop)
    after = estimator(xt, t, -context, 3 - memory, drop=drop)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    null = estimator.null_context.expand_as(context), estimator.null_memory.expand_as(memory)
    torch.testing.assert_close(before[0], estimator(xt, t, *null)[0])
    torch.testing.assert_close(before[1], estimator(xt, t, context, memory)[1])


@torch.no_grad()
def test_guided_velocities_of_one_batch_equal_two_calls():
    """One Euler step of guided sampling, against both branches computed apart."""
    estimator = tiny()
    x0, _, context, memory = inputs()
    mask = torch.arange(9) < torch.tensor([9, 6])[:, None]
    condition = estimator.prepare(context, memory, mask)
    null = estimator.prepare(context, memory, mask, drop=torch.ones(2, dtype=torch.bool))
    x = ConditionalFlow().sample(
        estimator.velocity, x0, condition, null=null, steps=1, guidance=0.7
    )
    start = torch.zeros(2)
    conditioned = estimator.velocity(x0, start, condition)
    unconditioned = estimator.velocity(x0, start, null)
    assert (conditioned - unconditioned).abs().max() > 1e-3
    torch.testing.assert_close(x, x0 + 1.7 * conditioned - 0.7 * unconditioned)


@torch.no_grad()
def test_the_same_seed_gives_the_same_sample_in_any_batch():
    estimator = tiny()
    _, _, context, memory = inputs(2)
    noise = [torch.randn(1, 4, 9, generator=torch.Generator().manual_seed(s)) for s in (5, 6)]

    def sample(x0: Tensor, context: Tensor, memory: Tensor) -> Tensor:
        drop = torch.ones(len(x0), dtype=torch.bool)
        return ConditionalFlow().sample(
            estimator.velocity,
            x0,
            estimator.prepare(context, memory),
            null=estimator.prepare(context, memory, drop=drop),
            steps=4,
        )

    both = sample(torch.cat(noise), context, memory)
    assert torch.equal(both, sample(torch.cat(noise), context, memory))
    for i in range(2):
        one = sample(noise[i], context[i : i + 1], memory[i : i + 1])
        torch.testing.assert_close(both[i], one[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_bfloat16_keeps_the_noises_precision_and_nearly_the_result():
    """A relative error of 1.2 % in one velocity."""
    estimator = tiny()
    xt, t, context, memory = inputs()
    exact = estimator(xt, t, context, memory)
    coarse = estimator.bfloat16()(xt, t, context.bfloat16(), memory.bfloat16())
    assert coarse.dtype == torch.float32
    assert (coarse - exact).norm() / exact.norm() < 0.02


def full_size(**settings: object) -> UNetEstimator:
    """The paper's size, without memory for it."""
    with torch.device("meta"):
        return UNetEstimator(n_mels=100, context_dim=1024, memory_dim=1024, **settings)


def guided_step_flops(estimator: UNetEstimator, frames: int) -> int:
    """Floating-point operations of one guided Euler step, preparation left out.

    Tensors on `meta` hold no values: any reading of one by the host would fail.
    """
    with torch.device("meta"), torch.no_grad():
        context, memory = torch.empty(1, frames, 1024), torch.empty(1, 1024)
        mask, drop = torch.ones(1, frames, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
        condition = estimator.prepare(context, memory, mask)
        null = estimator.prepare(context, memory, mask, drop)
        x0 = torch.empty(1, 100, frames)
        with FlopCounterMode(display=False) as counter:
            x = ConditionalFlow().sample(estimator.velocity, x0, condition, null=null, steps=1)
    assert x.shape == x0.shape
    return counter.get_total_flops()


def test_the_papers_size_is_290_million_parameters():
    """Counted by hand for hidden C = 1280, kernels of 3, biases left out:

    13 ResBlocks of 6 C^2, 10 attentions of 4 C^2, 4 joins, 2 rate changes of 2 C^2, time 2 C^2 and
    13 x 2 C^2, 10 FiLMs of 1024 x 2 C, and the ends (100 + 1024 + 100) x 3 C.
    """
    c = 1280
    products = c * c * (13 * 6 + 10 * 4 + 4 * 2 + 2 * 2 + 2 + 13 * 2)
    products += 10 * 1024 * 2 * c + (100 + 1024 + 100) * 3 * c
    parameters = sum(p.numel() for p in full_size().parameters())
    assert parameters == pytest.approx(products, rel=1e-3)
    assert 200e6 < parameters < 300e6


def test_a_step_reads_no_value_on_the_host_and_ten_of_ten_seconds_cost_6_tflop():
    """937 frames are 10 s at 93.75 Hz. A constant rate costs a third more."""
    assert 10 * guided_step_flops(full_size(), 937) == pytest.approx(6.4e12, rel=0.01)
    constant = full_size(half_rate_blocks=0)
    assert 10 * guided_step_flops(constant, 937) == pytest.approx(8.7e12, rel=0.01)


def test_the_whole_sampling_loop_is_one_graph():
    """No graph break: neither a host synchronisation nor a branch on data."""
    estimator = tiny(blocks=2, half_rate_blocks=0, resnet_blocks=1)
    x0, _, context, memory = inputs()
    mask = torch.arange(9) < torch.tensor([9, 6])[:, None]
    drop = torch.ones(2, dtype=torch.bool)

    def sample(x0: Tensor, context: Tensor, memory: Tensor) -> Tensor:
        condition = estimator.prepare(context, memory, mask)
        null = estimator.prepare(context, memory, mask, drop)
        return ConditionalFlow().sample(
            estimator.velocity, x0, condition, null=null, steps=2, solver="heun"
        )

    with torch.no_grad():
        graphed = torch.compile(sample, backend="eager", fullgraph=True)(x0, context, memory)
        torch.testing.assert_close(graphed, sample(x0, context, memory))


def test_one_batch_is_memorised():
    """The same data, noise and times again and again: the loss falls from above 1 to near 0."""
    torch.manual_seed(0)
    estimator = UNetEstimator(**{**TINY, "hidden": 32})
    flow = ConditionalFlow()
    _, _, context, memory = inputs(2, 12)
    x1 = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(2))
    mask = torch.arange(12) < torch.tensor([12, 7])[:, None]
    optimiser = torch.optim.AdamW(estimator.parameters(), lr=3e-3, weight_decay=0)

    def velocity(xt: Tensor, t: Tensor, condition: tuple[Tensor, Tensor]) -> Tensor:
        return estimator(xt, t, *condition, mask)

    losses = []
    for _ in range(150):
        generator = torch.Generator().manual_seed(3)
        loss = flow.loss(velocity, x1, (context, memory), mask, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1
    assert losses[-1] < 1e-3 * losses[0]


def test_every_parameter_learns():
    """Both items of the batch, one dropped: the null condition has a gradient as well."""
    estimator = tiny(memory_fusion="gated").train()
    estimator(*inputs(), drop=torch.tensor([True, False])).square().mean().backward()
    for name, parameter in estimator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"half_rate_blocks": 3}, r"half_rate_blocks \(3\) must be from 0 to blocks \(4\)"),
        ({"half_rate_blocks": 6}, r"half_rate_blocks \(6\) must be from 0 to blocks \(4\)"),
        ({"memory_fusion": "sum"}, "unknown memory_fusion 'sum'; there are film, gated and None"),
        ({"heads": 3}, r"heads \(3\) must divide dim \(16\)"),
        ({"hidden": 15, "heads": 3}, r"hidden \(15\) must be even"),
        ({"kernel_size": 4}, r"kernel_size \(4\) must be odd"),
    ],
)
def test_sizes_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        UNetEstimator(**{**TINY, **settings})


def test_memory_given_or_missing_against_the_networks_make_is_named():
    xt, t, context, memory = inputs()
    with pytest.raises(ValueError, match="no memory was given to a network with a memory fusion"):
        tiny()(xt, t, context, None)
    with pytest.raises(ValueError, match="a memory was given to a network with no memory fusion"):
        tiny(memory_fusion=None)(xt, t, context, memory)
