"""One small corpus, and one training of every stage on it, for all tests of the training."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_training import STAGES, train, write_corpus


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of the corpus's recordings."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def trained(
    table: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder of a training, not to be changed, and the result of each of its stages."""
    out = tmp_path_factory.mktemp("out")
    return out, {stage: train(table, out, stage) for stage in STAGES}
