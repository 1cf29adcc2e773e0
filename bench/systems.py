"""What is compared: systems, finished conversions, and recordings as floor and ceiling."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bench.audio import Waveform
from bench.errors import UserError
from bench.trials import Trial, Utterance


@runtime_checkable
class System(Protocol):
    """Says the words of one recording in the voice of another.

    Any class with this method is a system; it needs nothing of this package but `Waveform`. Its
    name is its key in the configuration.

    A class whose systems need downloads may have `missing_weights(**settings)`, which builds
    nothing and returns a `bench.weights.find.WeightsMissing` for each model that is not on this
    machine: `vcbench doctor` shows them, and `doctor --fetch` downloads them.

    Attributes:
        trained_on: corpora and splits whose speakers it has heard ("LibriTTS/train-clean-100");
            empty where it was trained on nothing, {"unknown"} where nobody says.
    """

    @property
    def trained_on(self) -> frozenset[str]: ...

    def convert(self, source: Waveform, reference: Waveform, *, seed: int) -> Waveform:
        """The words of `source` in the voice of `reference`.

        Args:
            source: as recorded, at its own sample rate.
            reference: speech of the target speaker, at its own sample rate.
            seed: for whatever is drawn at random; the same seed gives the same audio.

        Returns:
            The converted speech, at the system's own sample rate.
        """
        ...


@runtime_checkable
class Recording(Protocol):
    """A row of real recordings instead of conversions: a floor or a ceiling for the judges.

    Attributes:
        says_source_words: False where the recording has words of its own, so that word error rate
            and prosody against the source mean nothing.
    """

    says_source_words: bool

    def recording(self, trial: Trial) -> Utterance | None:
        """The recording that stands in this row for `trial`; None where the corpus has none."""
        ...


@runtime_checkable
class Finished(Protocol):
    """Conversions that somebody has made already.

    Attributes:
        trained_on: as of a `System`.
    """

    @property
    def trained_on(self) -> frozenset[str]: ...

    def finished(self, suite: str, trial: Trial) -> Path:
        """The file that holds the conversion of `trial`.

        Raises:
            FileNotFoundError: if there is none; it counts as a failed conversion.
        """
        ...


SYSTEM, RECORDING, FINISHED = "system", "recording", "finished"
KINDS = (SYSTEM, RECORDING, FINISHED)


def facts_of(system: Any, what: str) -> dict[str, Any]:
    """Kind (of `KINDS`) and training data of a system, as JSON.

    Args:
        system: any object.
        what: it is called in an error.

    Raises:
        UserError: if it is no system, or declares its training data in a form that is none.
    """
    if isinstance(system, Recording):
        return {"kind": RECORDING, "trained_on": []}
    kind = SYSTEM if callable(getattr(system, "convert", None)) else FINISHED
    if not isinstance(system, System | Finished):
        raise UserError(
            f"{what}: {type(system).__name__} is no system; it needs "
            "convert(source, reference, *, seed) and trained_on, see bench/systems.py"
        )
    return {"kind": kind, "trained_on": sorted(declared(system.trained_on, what))}


def declared(trained_on: Any, what: str) -> frozenset[str]:
    """The corpora that a system declares.

    Args:
        trained_on: a collection of texts.
        what: declares them, for the error.

    Raises:
        UserError: if it is something else: a single text would be taken for its letters.
    """
    texts = isinstance(trained_on, Iterable) and not isinstance(trained_on, str | bytes | Mapping)
    items = list(trained_on) if texts else []
    if not texts or not all(isinstance(item, str) and item.strip() for item in items):
        raise UserError(
            f"{what}: trained_on is {str(trained_on)[:80]!r}; it must be a set or list of corpora, "
            "such as {'LibriTTS/train-clean-100'}, empty where nothing was trained, {'unknown'} "
            "where nobody says"
        )
    return frozenset(items)


class Wavs:
    """A folder of finished conversions: <folder>/<trial_id>.wav or <folder>/<suite>/<trial_id>.wav.

    Any format that libsndfile reads will do; names end as `endings` say, the first that is there.

    Args:
        folder: where they are.
        pattern: how they are called, where {trial_id}, {source} and {reference} (utterance ids) and
            {speaker} (the target) stand for the trial's; with an ending, only that is looked for.
        trained_on: what the system that made them has heard; unknown where nobody says.
        published: what its authors printed, metric → value, and `by`: where. It stands in the
            report beside what was measured here.
    """

    endings = ("", ".wav", ".flac", ".mp3", ".ogg")

    def __init__(
        self,
        folder: str,
        pattern: str = "{trial_id}",
        trained_on: Iterable[str] = ("unknown",),
        published: Mapping[str, float | str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.pattern = pattern
        self.published = dict(published or {})
        self.trained_on = declared(trained_on, f"wavs in {folder}")
        if not self.folder.is_dir():
            raise UserError(f"no folder of finished conversions at {folder}; check wavs=")

    def finished(self, suite: str, trial: Trial) -> Path:
        """See `Finished`."""
        name = self.pattern
        for field, value in (
            ("trial_id", trial.trial_id),
            ("source", trial.source.utterance_id),
            ("reference", trial.references[0].utterance_id),
            ("speaker", trial.speaker),
        ):
            name = name.replace(f"{{{field}}}", value)
        for place in (self.folder / suite, self.folder):
            for ending in self.endings:
                path = place / f"{name}{ending}"
                if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()):
                    return path
        raise FileNotFoundError(f"no {name} in {self.folder}")
