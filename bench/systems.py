"""Defines the systems of a comparison: those that convert, and audio that exists already.

A system is declared by its settings. What a run needs to know about it (`Facts`) is known without
building it: from the record of its conversion in the run's folder, or from its class.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.errors import UserError
from bench.objects import TARGET, TRAINING_DATA, locate

if TYPE_CHECKING:
    from bench.audio import Waveform
    from bench.trials import Trial

SYSTEM, EXISTING = "system", "existing"
KINDS = (SYSTEM, EXISTING)
FLOOR, CEILING = "floor", "ceiling"
ROLES = ("", FLOOR, CEILING)
UNKNOWN = frozenset({"unknown"})  # the training data of a system that does not declare any


@runtime_checkable
class System(Protocol):
    """Converts: keeps the words of one recording and gives it the voice of another.

    Any class with these members is a system; from this package it needs only `Waveform`. Its name
    is its key in the configuration.

    Three optional members let the harness learn about a system without building it:

    - a class attribute `trained_on`, if every system of the class has the same training data;
    - a static method `training_data(**settings)`, which returns the training data of a system with
      these settings;
    - a static method `missing_weights(**settings)`, which returns a
      `bench.weights.find.WeightsMissing` for each model that is not on this machine:
      `vcbench doctor` shows them, and `doctor --fetch` downloads them.

    A system that converts while speech arrives may also have `stream(source, reference, *, seed)`,
    which yields the converted speech as chunks, each a `Waveform` of the same sample rate. Each
    trial is then streamed once after `convert`, and the tables show the time to the first chunk
    and the RTF of streaming. What `convert` returns is judged.

    Attributes:
        trained_on: corpora and splits that it was trained on ("LibriTTS/train-clean-100"); empty
            if it has no training, {"unknown"} if its training data is unknown.
    """

    @property
    def trained_on(self) -> frozenset[str]: ...

    def convert(self, source: "Waveform", reference: "Waveform", *, seed: int) -> "Waveform":
        """The words of `source` in the voice of `reference`.

        Args:
            source: as recorded, (T,) at any sample rate.
            reference: speech of the target speaker, at any sample rate, also another one.
            seed: of all random numbers; the same seed gives the same audio.

        Returns:
            The converted speech, at any sample rate.

        Raises:
            Exception: any error means that this conversion failed; the run continues.
        """
        ...


@runtime_checkable
class Existing(Protocol):
    """Audio that exists already: finished conversions, or recordings as floor and ceiling.

    It may have two attributes:

        role: "floor" for recordings of the source's words, "ceiling" for recordings of the target
            speaker with other words; "" (the default) for conversions. Word error rate and prosody
            against the source do not apply to a ceiling.
        trained_on: as in `System`, of the system that made the conversions; unknown by default.
    """

    def path(self, suite: str, trial: "Trial") -> Path | None:
        """The file for `trial`; None if the corpus has no such recording.

        Raises:
            FileNotFoundError: if a conversion is missing; it counts as failed.
        """
        ...


@dataclass(frozen=True)
class Facts:
    """What a run needs to know about a system.

    Attributes:
        kind: SYSTEM or EXISTING.
        trained_on: see `System`; empty for recordings.
        role: FLOOR or CEILING for recordings, else "".
        code: identifies a third party's code (see `bench.provenance.loaded_code`); None if the code
            cannot be located: then changes to it are not detected.
    """

    kind: str = SYSTEM
    trained_on: frozenset[str] = frozenset()
    role: str = ""
    code: Mapping[str, str] | None = field(default_factory=dict)

    @property
    def has_source_words(self) -> bool:
        """Whether the audio has the words of the source."""
        return self.role != CEILING

    def to_json(self) -> dict[str, Any]:
        """The value that `from_json` reads."""
        return {
            "kind": self.kind,
            "trained_on": sorted(self.trained_on),
            "role": self.role,
            "code": None if self.code is None else dict(self.code),
        }

    @classmethod
    def from_json(cls, value: Any) -> "Facts":
        """The facts in an untrusted JSON value.

        Raises:
            ValueError: if it does not describe a system.
        """
        value = value if isinstance(value, dict) else {}
        kind, role = value.get("kind"), value.get("role")
        trained_on, code = value.get("trained_on"), value.get("code")
        if kind not in KINDS or role not in ROLES or not _are_texts(trained_on):
            raise ValueError("facts of no system")
        if code is not None and not (isinstance(code, dict) and _are_texts([*code.values()])):
            raise ValueError("code that is no table of files")
        return cls(kind, frozenset(trained_on), role, code)


def facts_of(system: Any, what: str, settings: Mapping[str, Any] | None = None) -> Facts:
    """The facts of a built system, without its code.

    Args:
        system: any object.
        what: the system's name in error messages.
        settings: of the system; training data in them overrides what the system declares.

    Raises:
        UserError: if it is not a system, or declares its training data or role in a wrong form.
    """
    declared = (settings or {}).get(TRAINING_DATA)
    if callable(getattr(system, "convert", None)) and hasattr(system, "trained_on"):
        return Facts(SYSTEM, corpora(declared or system.trained_on, what))
    if not callable(getattr(system, "path", None)) or hasattr(system, "convert"):
        raise UserError(
            f"{what}: {type(system).__name__} is no system; it needs "
            "convert(source, reference, *, seed) and trained_on, or path(suite, trial) where its "
            "audio exists already; see bench/systems.py"
        )
    role = getattr(system, "role", "")
    if role not in ROLES:
        raise UserError(
            f"{what}: role is {role!r}; it must be one of {', '.join(map(repr, ROLES))}"
        )
    trained_on = () if role else declared or getattr(system, "trained_on", UNKNOWN)
    return Facts(EXISTING, corpora(trained_on, what), role)


def declared_facts(settings: Mapping[str, Any], what: str) -> Facts:
    """The facts of a system according to its settings and its class; the system is not built.

    Training data is, in this order: `_trained_on_` among the settings; what the class's
    `training_data(**settings)` returns; the class attribute `trained_on`; else unknown.

    Args:
        settings: plain settings with `_target_`.
        what: the system's name in error messages.

    Raises:
        UserError: if the class cannot be imported, or declares something in a wrong form.
    """
    if not isinstance(target := settings.get(TARGET), str):
        raise UserError(f"{what}: no _target_ in its settings; give the dotted path of its class")
    system = locate(target, what)
    kind = SYSTEM if callable(getattr(system, "convert", None)) else EXISTING
    role = getattr(system, "role", "")
    if role in (FLOOR, CEILING):
        return Facts(EXISTING, role=role)
    arguments = {k: v for k, v in settings.items() if k not in (TARGET, TRAINING_DATA)}
    trained_on = settings.get(TRAINING_DATA)
    if trained_on is None and callable(ask := getattr(system, "training_data", None)):
        trained_on = ask(**arguments)
    if trained_on is None:
        attribute = getattr(system, "trained_on", None)
        is_value = not isinstance(attribute, property) and not callable(attribute)
        trained_on = attribute if attribute is not None and is_value else UNKNOWN
    return Facts(kind, corpora(trained_on, what))


def corpora(trained_on: Any, what: str) -> frozenset[str]:
    """The corpora that a system declares.

    Args:
        trained_on: a collection of texts.
        what: the object that declares them, for the error.

    Raises:
        UserError: if it is something else; a single text would be read as a set of letters.
    """
    collection = isinstance(trained_on, Iterable) and not isinstance(
        trained_on, str | bytes | Mapping
    )
    items = list(trained_on) if collection else []
    if not collection or not all(isinstance(item, str) and item.strip() for item in items):
        raise UserError(
            f"{what}: trained_on is {str(trained_on)[:80]!r}; it must be a set or list of corpora, "
            "such as {'LibriTTS/train-clean-100'}, empty where nothing was trained, {'unknown'} "
            "where nobody says"
        )
    return frozenset(items)


class Wavs:
    """A folder of finished conversions: <folder>/<trial_id>.wav or <folder>/<suite>/<trial_id>.wav.

    Every format that libsndfile reads is accepted. The first existing file is used, with the
    endings in the order of `endings`.

    Args:
        folder: of the files.
        pattern: of their names, in which {trial_id}, {source} and {reference} (utterance ids) and
            {speaker} (the target) are replaced by the trial's; a name may include its ending.
        trained_on: training data of the system that converted; unknown by default.
        published: the authors' values, metric → value, and `by`: where they are printed. The report
            shows them next to the values measured here.

    Raises:
        UserError: if there is no such folder.
    """

    endings = ("", ".wav", ".flac", ".mp3", ".ogg")
    role = ""

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
        self.trained_on = corpora(trained_on, f"wavs in {folder}")
        if not self.folder.is_dir():
            raise UserError(f"no folder of finished conversions at {folder}; check wavs=")

    @staticmethod
    def training_data(
        folder: str, trained_on: Iterable[str] = ("unknown",), **_: Any
    ) -> frozenset[str]:
        """See `System`."""
        return corpora(trained_on, f"wavs in {folder}")

    def path(self, suite: str, trial: "Trial") -> Path:
        """See `Existing`."""
        name = self.pattern
        for part, value in (
            ("trial_id", trial.trial_id),
            ("source", trial.source.utterance_id),
            ("reference", trial.references[0].utterance_id),
            ("speaker", trial.speaker),
        ):
            name = name.replace(f"{{{part}}}", value)
        for folder in (self.folder / suite, self.folder):
            for ending in self.endings:
                path = folder / f"{name}{ending}"
                if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()):
                    return path
        raise FileNotFoundError(f"no {name} in {self.folder}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
