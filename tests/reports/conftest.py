"""The made-up run of the reports, and its page."""

from pathlib import Path

import pytest

from bench.results import ScoredRun
from tests.support import made_up


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> ScoredRun:
    """Eight trials of two suites by `source`, `world` and `target`."""
    return made_up.make_results(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def failed(results: ScoredRun) -> ScoredRun:
    """`results` with one failed conversion: world's of the first trial."""
    trial = results.suites["mini_cross_gender"].trials[0].trial_id
    error = "RuntimeError: out of memory"
    return made_up.failing(results, "world", "mini_cross_gender", trial, error)


@pytest.fixture(scope="session")
def page(failed: ScoredRun) -> Path:
    """report.html of `failed`, written once for all tests."""
    from reports.html.page import HtmlReport

    return HtmlReport(embed_trials=2).render(failed)
