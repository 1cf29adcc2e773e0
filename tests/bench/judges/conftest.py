"""Judges of these tests compute on the CPU, even if there is a GPU: the tests inspect models."""

from collections.abc import Iterator

import pytest
import torch

from bench.trials import Utterance


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


@pytest.fixture(scope="session")
def brief(recordings: list[Utterance]) -> list[Utterance]:
    """The three shortest recordings of 5 s or more: what a noise ladder takes in least time."""
    long = [(r.load().seconds, r.utterance_id, r) for r in recordings]
    return [r for *_, r in sorted(item for item in long if item[0] >= 5.0)[:3]]
