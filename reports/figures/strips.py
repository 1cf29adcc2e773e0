"""Spectrograms of one trial by every system, one above the other."""

from collections.abc import Mapping

from bench import audio
from bench.audio import AudioError, Waveform
from bench.results import ScoredRun
from reports.figures.base import (
    Figure,
    finished,
    new_axes,
    short,
)
from reports.spectrogram import spectrogram
from reports.tables import systems_of

MOST_STRIPS = 6  # systems in a figure


def strips(results: ScoredRun, suite: str) -> Figure | None:
    """Spectrograms of the suite's first trial that everyone converted, one under the other."""
    scores = results.scores[results.scores["suite"] == suite]
    converted = scores[scores["status"] == "ok"]
    systems = [s for s in systems_of(results, suite) if s not in results.anchors][:MOST_STRIPS]
    counts = converted.groupby("trial_id")["system"].nunique()
    complete = set(counts.index[counts == scores["system"].nunique()])
    wavs = converted.set_index(["trial_id", "system"])["wav"]
    for trial in results.suites[suite].trials:
        if trial.trial_id not in complete:
            continue
        paths = [results.folder / wavs[trial.trial_id, system] for system in systems]
        inputs = [utterance.path for utterance in (trial.source, *trial.references)]
        if not all(path.is_file() for path in (*paths, *inputs)):
            continue
        try:
            sounds = {"source": trial.source.load(), "reference": trial.reference()}
            sounds |= {short(s): audio.load(p) for s, p in zip(systems, paths, strict=True)}
        except AudioError:
            continue
        return _drawn(trial.trial_id, sounds, suite)
    return None


def _drawn(trial_id: str, sounds: Mapping[str, Waveform], suite: str) -> Figure:
    longest = max(sound.seconds for sound in sounds.values())
    ax = new_axes(0.6 + 0.62 * len(sounds))
    for n, sound in enumerate(sounds.values()):
        ax.imshow(
            spectrogram(sound),
            cmap="Greys",
            vmin=0,
            vmax=1,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0, sound.seconds, -n - 0.45, -n + 0.45),
        )
    ax.set_xlim(0, longest)
    ax.set_ylim(-len(sounds) + 0.5, 0.5)
    ax.set_yticks([-n for n in range(len(sounds))], list(sounds))
    ax.grid(False)
    ax.set(xlabel="seconds", ylabel="", title=f"{trial_id}, {suite}")
    return finished(
        ax,
        "strips",
        suite,
        f"Spectrograms of one trial, {suite}",
        f"{trial_id}, the first trial that every system converted: 0–8 kHz (mel) upwards in "
        "each strip, dark where there is energy, on one time scale.",
    )
