"""SqueezeFormer's parts against formulas written out."""

import torch
from torch.nn import functional as F

from takin_vc.frontends.squeezeformer import RepConv1d, linear_attention, rotate
from takin_vc.mel import frame_mask


@torch.no_grad()
def test_branches_add_up_to_one_kernel():
    """Kernels of ones, batch norms that scale by 2: one kernel of 2 4 4 4 2, and a bias."""
    conv = RepConv1d(1, 5, (3,)).eval()
    for branch in conv.branches:
        branch.conv.weight.fill_(1.0)
        branch.norm.running_var.fill_(0.25 - branch.norm.eps)
        branch.norm.running_mean.fill_(1.0)
    x, mask = torch.randn(1, 1, 12), torch.ones(1, 12, dtype=torch.bool)
    kernel = torch.tensor([[[2.0, 4.0, 4.0, 4.0, 2.0]]])
    expected = F.conv1d(x, kernel, padding=2) - 4.0  # each mean of 1, scaled by 2, is taken away
    torch.testing.assert_close(conv(x, mask), expected)
    conv.fuse()
    torch.testing.assert_close(conv(x, mask), expected)


def test_batch_norm_statistics_leave_padding_out():
    torch.manual_seed(0)
    conv = RepConv1d(3, 5).train()
    lengths = torch.tensor([9, 4])
    mask = frame_mask(lengths, 9)
    x = torch.randn(2, 3, 9) * mask[:, None]
    y = conv(x, mask)
    frames = conv.branches[0].conv(x).transpose(1, 2)[mask]  # (13, 3)
    torch.testing.assert_close(conv.branches[0].norm.running_mean, 0.1 * frames.mean(0))
    normal = y.transpose(1, 2)[mask]
    torch.testing.assert_close(normal.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(normal.var(0, unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    assert (y.transpose(1, 2)[~mask] == 0).all()


def test_linear_attention_is_its_double_sum():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 4)  # each (heads, L, D)
    mask = frame_mask(torch.tensor([4]), 6)

    def f(x):
        return torch.where(x > 0, x + 1, x.exp())

    def turned(x, position):
        """Pairs (x_d, x_{d + D/2}) turned by position * 10000^(-2d / D)."""
        out = torch.empty(4)
        for d in range(2):
            angle = torch.tensor(position * 10000.0 ** (-2 * d / 4))
            out[d] = x[d] * angle.cos() - x[d + 2] * angle.sin()
            out[d + 2] = x[d] * angle.sin() + x[d + 2] * angle.cos()
        return out

    y = linear_attention(q[None], k[None], v[None], mask)[0]
    for head in range(2):
        for i in range(6):
            above, below = torch.zeros(4), torch.zeros(())
            for j in range(4):  # frames 4 and 5 are padding
                fq, fk = f(q[head, i]), f(k[head, j])
                above += turned(fq, i) @ turned(fk, j) * v[head, j]
                below += fq @ fk
            torch.testing.assert_close(y[head, i], above / below, atol=1e-5, rtol=1e-5)


def test_rotated_products_depend_on_distance_alone():
    torch.manual_seed(0)
    q = rotate(torch.randn(8).expand(20, 8))
    k = rotate(torch.randn(8).expand(20, 8))
    products = q @ k.T
    torch.testing.assert_close(products[3, 7], products[11, 15])
    assert abs(float(products[3, 7] - products[3, 8])) > 1e-4
