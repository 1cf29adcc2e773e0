"""Judges of these tests compute on the CPU, even if there is a GPU: the tests inspect models."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def no_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="module", autouse=True)
def process_settings_kept() -> Iterator[None]:
    """Importing speechbrain here switches no TF32 on for the tests that follow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB_DISABLE_QUIRKS", "allow_tf32")
        yield
