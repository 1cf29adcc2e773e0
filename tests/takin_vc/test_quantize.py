"""The quantiser against brute force, closed forms and the library's forward."""

import pytest
import torch

from takin_vc.quantize import VectorQuantizer


def with_codebook(vectors: list[list[float]], **settings) -> VectorQuantizer:
    """A quantiser whose vectors are these, used evenly so far."""
    codebook = torch.tensor(vectors)
    quantizer = VectorQuantizer(codebook.shape[1], len(codebook), kmeans_iters=0, **settings)
    quantizer.vq._codebook.embed.copy_(codebook[None])
    quantizer.vq._codebook.embed_avg.copy_(codebook[None])
    return quantizer


def test_the_defaults_are_the_papers():
    quantizer = VectorQuantizer()
    assert quantizer.codebook.shape == (8200, 1024)
    assert quantizer.vq._codebook.decay == 0.99


def test_each_frame_becomes_its_nearest_vector():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(8, 50, kmeans_iters=0).eval()
    x = torch.randn(2, 7, 8)
    distances = (x[:, :, None] - quantizer.codebook).norm(dim=-1)  # (B, L, K)
    out = quantizer(x)
    assert torch.equal(out.codes, distances.argmin(-1))
    assert torch.equal(out.features, quantizer.codebook[out.codes])


def test_inference_finds_the_librarys_codes():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(16, 100, kmeans_iters=0).eval()
    x = torch.randn(3, 11, 16)
    features, codes, _ = quantizer.vq(x)
    out = quantizer(x)
    assert torch.equal(out.codes, codes)
    torch.testing.assert_close(out.features, features)


@pytest.mark.parametrize("training", [False, True])
def test_commitment_is_the_mean_squared_distance(training):
    quantizer = with_codebook([[0.0, 0.0], [10.0, 0.0]]).train(training)
    x = torch.tensor([[[1.0, 2.0], [9.0, 0.0]]])
    # (1 + 4 + 1 + 0) over 2 frames of 2 channels
    assert quantizer(x).commitment.item() == pytest.approx(1.5)


@pytest.mark.parametrize("training", [False, True])
def test_commitment_pulls_frames_towards_their_vectors(training):
    quantizer = with_codebook([[0.0, 0.0], [10.0, 0.0]]).train(training)
    x = torch.tensor([[[1.0, 2.0], [9.0, 0.0]]], requires_grad=True)
    quantizer(x).commitment.backward()
    # d/dx of sum (x - vector)^2 / 4
    torch.testing.assert_close(x.grad, torch.tensor([[[0.5, 1.0], [-0.5, 0.0]]]))


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_neither_loss_nor_codebook(training):
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    results = []
    for padding in (0.0, 1e3):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(4, 6, decay=0.5, kmeans_iters=0).train(training)
        x = torch.randn(2, 4, 4).masked_fill(~mask[..., None], padding)
        out = quantizer(x, mask)
        for _ in range(5):
            quantizer(x, mask)
        results.append((out.commitment, out.features, out.codes, quantizer.codebook.clone()))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
    assert (results[0][2][~mask] == -1).all()
    assert (results[0][1][~mask] == 0).all()
    valid = (x[mask] - results[0][1][mask]).square().mean()
    torch.testing.assert_close(results[0][0], valid)


def test_gradients_pass_straight_through():
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False]])
    quantizer = VectorQuantizer(4, 6, kmeans_iters=0).train()
    x = torch.randn(1, 3, 4, requires_grad=True)
    weight = torch.randn(1, 3, 4)
    (quantizer(x, mask).features * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight * mask[..., None])


def test_vectors_that_nobody_uses_are_revived():
    """Ten vectors far away from all frames: each must move to a frame."""

    def distance_of_worst_vector(dead_below: float) -> float:
        torch.manual_seed(0)
        quantizer = with_codebook(
            [[0.0, 0.0], [1.0, 1.0]] + [[100.0 + k, 100.0] for k in range(10)],
            decay=0.5,
            dead_below=dead_below,
        ).train()
        for _ in range(8):
            quantizer(torch.rand(1, 40, 2))
        return float(quantizer.codebook.amax())

    assert distance_of_worst_vector(0.1) < 1.01
    assert distance_of_worst_vector(0.0) > 90


def test_a_vector_used_less_than_once_a_batch_is_not_dead():
    """Four vectors, two frames a batch: half a use each, where EnCodec asks for two."""
    points = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]])
    quantizer = with_codebook(points.tolist()).train()
    for step in range(60):
        first = 2 * (step % 2)
        quantizer(points[None, first : first + 2])
    torch.testing.assert_close(quantizer.codebook, points, atol=1e-3, rtol=0)


def test_the_first_batch_gives_the_vectors_by_k_means():
    torch.manual_seed(0)
    clusters = torch.tensor([[0.0, 0.0], [8.0, 8.0]])
    x = (clusters[:, None] + 0.1 * torch.randn(2, 50, 2)).reshape(1, 100, 2)
    quantizer = VectorQuantizer(2, 2, dead_below=0.0).train()
    quantizer(x)
    means = x.reshape(2, 50, 2).mean(1)
    learned = quantizer.codebook[quantizer.codebook[:, 0].argsort()]
    torch.testing.assert_close(learned, means, atol=1e-3, rtol=0)


def test_a_frozen_codebook_stays_in_training():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 6, decay=0.5, kmeans_iters=0).train()
    before = quantizer.codebook.clone()
    quantizer.frozen = True
    x = torch.randn(1, 20, 4, requires_grad=True)
    out = quantizer(x)
    assert torch.equal(quantizer.codebook, before)
    assert out.features.requires_grad
    quantizer.frozen = False
    quantizer(x)
    assert not torch.equal(quantizer.codebook, before)


def test_errors_name_both_sizes():
    with pytest.raises(ValueError, match="3 channels, the codebook 4"):
        VectorQuantizer(4, 6)(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=r"dead_below \(1.0\)"):
        VectorQuantizer(4, 6, dead_below=1.0)
