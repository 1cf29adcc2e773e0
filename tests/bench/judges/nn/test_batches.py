"""What judges do to the process that they run in, and what it can do to them: nothing."""

import pytest
import torch

from bench.guard import precision_parts
from bench.judges.nn.batches import full_precision


def settings() -> list[object]:
    cudnn = torch.backends.cudnn
    flags = [cudnn.enabled, cudnn.benchmark, cudnn.deterministic]
    autocast = [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")]
    return [*(part.fp32_precision for part in precision_parts()), *flags, *autocast]


@pytest.fixture(autouse=True)
def restored():
    before = [part.fp32_precision for part in precision_parts()]
    yield
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = True, False
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for part, value in zip(precision_parts(), before, strict=True):
        part.fp32_precision = value
    for device in ("cpu", "cuda"):
        torch.set_autocast_enabled(device, False)


# torch has an older and a newer way to set the same, and refuses to read the older one where the
# newer has been used.
@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (None, None, None),
        (torch.backends.cuda.matmul, "allow_tf32", True),
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends.cudnn, "benchmark", True),
        (torch.backends.cudnn, "enabled", False),
        (torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        (torch.backends.cudnn.conv, "fp32_precision", "ieee"),
        (torch.backends.cudnn.rnn, "fp32_precision", "ieee"),
        (torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
        (torch.backends, "fp32_precision", "tf32"),
        (torch, "set_float32_matmul_precision", "medium"),
        (torch, "set_autocast_enabled", ("cpu", True)),
    ],
)
def test_full_precision_is_full_whatever_it_finds_and_gives_it_back(part, name, value):
    if part is torch:
        getattr(torch, name)(*([value] if isinstance(value, str) else value))
    elif part is not None:
        setattr(part, name, value)
    before = settings()
    with full_precision():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
        precisions = ["ieee"] * len(precision_parts())
        assert settings() == [*precisions, True, False, False, False, False]
        product = torch.full((32, 32), 1 / 3) @ torch.full((32, 32), 1 / 3)
        assert product.dtype == torch.float32
    assert settings() == before
