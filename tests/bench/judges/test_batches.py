"""What judges do to the process that they run in: nothing that stays."""

import pytest
import torch

from bench.judges.batches import full_precision

BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.cudnn.conv)


def settings() -> list[object]:
    return [torch.get_float32_matmul_precision(), *(b.fp32_precision for b in BACKENDS)]


@pytest.fixture
def rounding():
    """TF32 on GPUs alone, as training has it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.mkldnn.matmul.fp32_precision = before


def test_full_precision_gives_back_every_setting_that_it_found(rounding):
    found = settings()
    with full_precision():
        assert torch.get_float32_matmul_precision() == "highest"
    assert settings() == found
