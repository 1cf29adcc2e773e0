"""A run made up for the reports: real recordings of the embedded corpus, invented scores."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.audio import Waveform
from bench.run.results import Results
from bench.stats.pooling import Measured, summarise
from bench.trials import Suite

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "suites" / "manifests"
CORPUS = ROOT / "suites" / "data" / "mini"
NO_WEIGHTS = "UTMOS22 strong: no weights (looked at utmos.pt); download them from the authors"

JUDGES = {
    "secs_resemblyzer": Measured(("secs", "source_secs", "nearer_target")),
    "wer_whisper_base": Measured(("wer", "cer"), needs_source_words=True),
    "dnsmos": Measured(("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")),
    "prosody": Measured(("f0_correlation", "f0_rmse", "duration_ratio"), needs_source_words=True),
    "utmos": Measured(("utmos",), unavailable=NO_WEIGHTS),
}
RECORDINGS = {"source": True, "target": False}
LEVEL = {"source": (0.55, 0.85), "world": (0.66, 0.70), "target": (0.86, 0.52)}


def make_results(
    folder: Path,
    limit: int | None = 8,
    systems: dict[str, str] | None = None,
    suites: Sequence[str] = ("mini_cross_gender", "mini_reference_length"),
) -> Results:
    """A run of `limit` trials a suite.

    Args:
        folder: where its wavs are written.
        limit: trials a suite; None for all.
        systems: systems besides the recordings → one that they behave like.
        suites: names of embedded suites.
    """
    systems = {"world": "world"} if systems is None else systems
    loaded = {s: Suite.load(MANIFESTS / f"{s}.v2.jsonl", root=CORPUS, limit=limit) for s in suites}
    rng = np.random.default_rng(0)
    rows = []
    for system in ("source", *systems, "target"):
        for suite in loaded.values():
            rows += [_row(folder, rng, system, suite.name, t, systems) for t in suite.trials]
    scores = pd.DataFrame(rows)
    return Results(
        name="made_up",
        folder=folder,
        scores=scores,
        summary=summarise(scores, JUDGES, RECORDINGS),
        suites=loaded,
        provenance=PROVENANCE,
        anchors={"source": "floor", "target": "ceiling"},
    )


def _row(folder, rng, system, suite, trial, systems):  # type: ignore[no-untyped-def]
    secs, source_secs = LEVEL[systems.get(system, system)] + rng.normal(0, 0.04, 2)
    words = trial.source.text.split()
    hypothesis = list(words)
    if system in systems:
        spoilt = rng.integers(len(words))
        hypothesis[spoilt : spoilt + 1] = ["banana"]
    converted = {"source": trial.source, "target": trial.target}.get(system, trial.source).load()
    if system in systems:  # cut a little, so that it is another file than the source
        converted = Waveform(
            converted.samples[: len(converted.samples) - 800], converted.sample_rate
        )
    wav = Path("wav") / system / suite / f"{trial.trial_id}.wav"
    converted.save(folder / wav)
    says = RECORDINGS.get(system, True)
    return {
        "system": system,
        "suite": suite,
        "trial_id": trial.trial_id,
        "status": "ok",
        "error": "",
        "source_speaker": trial.source.speaker,
        "target_speaker": trial.speaker,
        "source_gender": trial.source.gender,
        "target_gender": trial.references[0].gender,
        **{f"factor.{k}": v for k, v in trial.factors.items()},
        "wav": wav.as_posix(),
        "sample_rate": converted.sample_rate,
        "peak": converted.peak,
        "clipped": 0.0,
        "elapsed_seconds": converted.seconds * 0.3 if system in systems else float("nan"),
        "audio_seconds": converted.seconds,
        "secs_resemblyzer.secs": secs,
        "secs_resemblyzer.source_secs": source_secs,
        "secs_resemblyzer.nearer_target": float(secs > source_secs),
        "wer_whisper_base.hypothesis": " ".join(hypothesis).capitalize() + "." if says else None,
        "wer_whisper_base.word_errors": float(system in systems) if says else float("nan"),
        "wer_whisper_base.words": len(words) if says else float("nan"),
        "wer_whisper_base.char_errors": 4.0 * (system in systems) if says else float("nan"),
        "wer_whisper_base.chars": len(trial.source.text) if says else float("nan"),
        **{f"dnsmos.{c}": 3.0 + rng.normal(0, 0.2) for c in ("ovrl", "sig", "bak", "p808")},
        "prosody.f0_correlation": 0.9 if says else float("nan"),
        "prosody.f0_rmse": 1.2 if says else float("nan"),
        "prosody.duration_ratio": 1.0 if says else float("nan"),
    }


def failing(results: Results, system: str, suite: str, trial_id: str, error: str) -> Results:
    """The same run with one failed conversion."""
    scores = results.scores.copy()
    row = (
        (scores["system"] == system) & (scores["suite"] == suite) & (scores["trial_id"] == trial_id)
    )
    assert row.sum() == 1
    judged = [c for c in scores.columns if "." in c and not c.startswith("factor.")]
    scores.loc[row, ["status", "error", "wav"]] = ["failed", error, ""]
    scores.loc[row, [*judged, "elapsed_seconds", "audio_seconds"]] = float("nan")
    return replace(results, scores=scores, summary=summarise(scores, JUDGES, RECORDINGS))


PROVENANCE = {
    "created": "2025-01-02T03:04:05+00:00",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "packages": {"torch": "2.11.0", "pandas": "2.3.0"},
    "machine": {"processor": "A processor", "cores": 2, "gpus": []},
    "judges": {
        "secs_resemblyzer": {
            "fingerprint": "f" * 64,
            "metrics": ["secs", "source_secs", "nearer_target"],
            "weights": [
                {
                    "name": "Resemblyzer speaker encoder",
                    "path": "weights/pretrained.pt",
                    "sha256": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
                    "licence": "Apache-2.0",
                }
            ],
        },
        "utmos": {"unavailable": NO_WEIGHTS},
    },
    "systems": {"world": {"settings": {"strength": 1.0}, "trained_on": []}},
    "suites": {"mini_cross_gender": {"sha256": "fffd5134", "trials": 8}},
    "settings": {"seed": 0},
}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Eight trials of two suites by `source`, `world` and `target`."""
    return make_results(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def failed(results: Results) -> Results:
    """`results` with one failed conversion: world's of the first trial."""
    trial = results.suites["mini_cross_gender"].trials[0].trial_id
    return failing(results, "world", "mini_cross_gender", trial, "RuntimeError: out of memory")


@pytest.fixture(scope="session")
def page(failed: Results) -> Path:
    """report.html of `failed`, written once for all tests."""
    from reports.html.page import HtmlReport

    return HtmlReport(embed_trials=2).render(failed)
