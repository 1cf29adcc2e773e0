"""The reference's one vector, and how it modulates frames."""

import math

import pytest
import torch

from takin_vc.memory import FiLM, GatedFusion, TimbreMemory, modulate


def memory(**settings: object) -> TimbreMemory:
    torch.manual_seed(0)
    return TimbreMemory(10, dim=16, blocks=2, heads=2, groups=4, **settings)


@pytest.mark.parametrize("final_convolution", [False, True])
def test_padding_changes_no_memory(final_convolution):
    module = memory(final_convolution=final_convolution)
    timbre = torch.randn(3, 20, 10)
    lengths = torch.tensor([20, 7, 12])
    mask = torch.arange(20) < lengths[:, None]
    batched = module(timbre.masked_fill(~mask[:, :, None], 1e3), mask)
    for i, length in enumerate(lengths):
        torch.testing.assert_close(
            batched[i], module(timbre[i : i + 1, :length])[0], atol=1e-4, rtol=0
        )


def test_without_blocks_memory_is_the_mean_of_the_projection():
    """A kernel of 1 and no blocks: W mean(x) + b."""
    torch.manual_seed(0)
    module = TimbreMemory(10, dim=16, blocks=0, heads=2, groups=4, kernel_size=1)
    timbre = torch.randn(2, 20, 10)
    torch.testing.assert_close(module(timbre), module.input.linear(timbre.mean(1)))


def test_memory_has_no_time_axis_but_depends_on_the_order():
    """A vector per reference; shuffled frames give another one, since the module convolves."""
    module = memory()
    timbre = torch.randn(1, 20, 10)
    shuffled = timbre[:, torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    assert module(timbre).shape == (1, 16)
    assert (module(timbre) - module(shuffled)).abs().max() > 1e-3


def test_four_blocks_of_1024_are_what_the_paper_sizes():
    """ACL 3.3.1: convolution, then per block norm, qkv, output and convolution, with biases."""
    with torch.device("meta"):
        module = TimbreMemory(292)
    block = 2 * 1024 + 4 * 1024 * 1024 + 4 * 1024 + 3 * 1024 * 1024 + 1024
    expected = 3 * 292 * 1024 + 1024 + 4 * block
    assert sum(p.numel() for p in module.parameters()) == expected


def test_film_is_perez_formula_by_hand():
    """Two channels, scale (1, -1), shift (10, 20): (3, 5) becomes (3 * 2 + 10, 5 * 0 + 20)."""
    film = FiLM(1, 2)
    with torch.no_grad():
        film.modulation.weight.copy_(torch.tensor([[1.0], [-1.0], [10.0], [20.0]]))
    out = film(torch.tensor([[[3.0, 5.0]]]), torch.ones(1, 1))
    torch.testing.assert_close(out, torch.tensor([[[16.0, 20.0]]]))
    # Twice the condition: scale (2, -2), shift (20, 40).
    out = film(torch.tensor([[[3.0, 5.0]]]), 2 * torch.ones(1, 1))
    torch.testing.assert_close(out, torch.tensor([[[29.0, 35.0]]]))


def test_untrained_film_changes_nothing():
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(FiLM(3, 6)(x, torch.randn(2, 3)), x)


def test_gated_fusion_by_hand():
    """One channel: 3 + (tanh(2 * 3) sigmoid(-3)) (1 + 0.5) + 0.25."""
    fusion = GatedFusion(1, 1)
    with torch.no_grad():
        fusion.gates.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        fusion.gates.bias.zero_()
        fusion.film.modulation.weight.copy_(torch.tensor([[0.5], [0.25]]))
    out = fusion(torch.full((1, 1, 1), 3.0), torch.ones(1, 1))
    expected = 3 + math.tanh(6) / (1 + math.exp(3)) * 1.5 + 0.25
    assert out.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [FiLM, GatedFusion])
def test_prepared_fusion_equals_recomputation(kind):
    torch.manual_seed(0)
    fusion = kind(3, 6)
    torch.nn.init.normal_(next(fusion.parameters()))
    x, condition = torch.randn(2, 5, 6), torch.randn(2, 3)
    assert torch.equal(fusion.fuse(x, fusion.prepare(condition)), fusion(x, condition))


def test_modulation_is_the_same_on_every_frame():
    x = torch.ones(1, 4, 2)
    out = modulate(x, torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    torch.testing.assert_close(out, torch.tensor([5.0, 7.0]).expand(1, 4, 2))


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"heads \(3\) must divide dim \(16\)"):
        TimbreMemory(10, dim=16, heads=3, groups=4)
    with pytest.raises(ValueError, match=r"groups \(5\) must divide channels \(16\)"):
        TimbreMemory(10, dim=16, heads=2, groups=5)
