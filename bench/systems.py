"""Defines the systems of a comparison: those that convert, and audio that exists already.

A system is declared by its settings. What a run needs to know about it (`Facts`) is known without
building it: from the record of its conversion in the run's folder, or from its class.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bench.errors import UserError, choose_one_of, shown
from bench.files import are_texts
from bench.objects import DECLARATIONS, NETWORKS, TARGET, TRAINING_DATA, locate

if TYPE_CHECKING:
    from bench.audio import Waveform
    from bench.trials import Trial

SYSTEM, EXISTING = "system", "existing"
KINDS = (SYSTEM, EXISTING)
FLOOR, CEILING = "floor", "ceiling"
ROLES = ("", FLOOR, CEILING)
UNKNOWN = frozenset({"unknown"})  # the training data of a system that does not declare any
OPTIMISED, SELECTED, CONDITIONED = "optimised", "selected", "conditioned"
CONTENT, BUILT = "content", "built"
# How a system was made with a network → a predicate of the system.
USES: Mapping[str, str] = {
    OPTIMISED: "was optimised on",
    SELECTED: "was selected by",
    CONDITIONED: "is conditioned on",
    CONTENT: "takes its content from",
    BUILT: "is built from",
}
NETWORK_KEYS = ("name", "use", "sha256")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class UsedNetwork:
    """A trained network that a system was made with, other than its own.

    Attributes:
        name: of the network with its weights, such as "ge2e-resemblyzer"; those of
            `bench.validity.kinship.NETWORKS` have a known family, any other may be named too.
        use: a key of `USES`: its output or gradient was a loss in training (optimised); its scores
            chose the checkpoint, the settings or the recipe (selected); it embeds the reference at
            conversion (conditioned); it gives the content features at conversion (content); layers
            or weights of it are in the model, or its features were the target of training (built).
        sha256: of its file of weights; "" if not given.
    """

    name: str
    use: str
    sha256: str = ""

    def to_json(self) -> dict[str, str]:
        """The value that `networks_in` reads."""
        hashed = {"sha256": self.sha256} if self.sha256 else {}
        return {"name": self.name, "use": self.use, **hashed}


def networks_in(declared: Any, what: str) -> tuple[UsedNetwork, ...]:
    """The networks that a system declares.

    Args:
        declared: a collection of mappings with the keys `name`, `use` and, optionally, `sha256`.
        what: the object that declares them, for the error.

    Raises:
        UserError: if it is something else, or a use or a key is unknown.
    """
    where = f"{what}: {NETWORKS}"
    if not isinstance(declared, Iterable) or isinstance(declared, str | bytes | Mapping):
        raise UserError(
            f"{where} is {shown(declared)}; it must be a list such as "
            "[{name: whisper-base, use: content}], empty if the system was made with no network"
        )
    return tuple(_network(item, f"{where}[{n}]") for n, item in enumerate(declared))


def _network(item: Any, where: str) -> UsedNetwork:
    if not isinstance(item, Mapping):
        raise UserError(f"{where} is {shown(item)}; write {{name: whisper-base, use: content}}")
    for key in item:
        if key not in NETWORK_KEYS:
            raise UserError(f"{where}: no key {key!r}; {choose_one_of(str(key), NETWORK_KEYS)}")
    name, use, sha256 = (item.get(key, "") for key in NETWORK_KEYS)
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{where}: name is {shown(name)}; name the network, such as whisper-base")
    if not isinstance(use, str) or use not in USES:
        raise UserError(f"{where}: use is {shown(use)}; {choose_one_of(str(use), USES)}")
    if not isinstance(sha256, str) or not (sha256 == "" or SHA256.fullmatch(sha256)):
        raise UserError(f"{where}: sha256 is {shown(sha256)}; write its 64 digits, or leave it out")
    return UsedNetwork(name.strip(), use, sha256.lower())


@runtime_checkable
class System(Protocol):
    """Converts: keeps the words of one recording and gives it the voice of another.

    Any class with these members is a system; from this package it needs only `Waveform`. Its name
    is its key in the configuration.

    Four optional members let the harness learn about a system without building it:

    - a class attribute `trained_on`, if every system of the class has the same training data;
    - a static method `training_data(**settings)`, which returns the training data of a system with
      these settings;
    - `networks`, the networks that it was made with (see `networks_in`): a class attribute, or a
      static method `networks(**settings)` that returns them; unknown by default;
    - a static method `missing_weights(**settings)`, which returns a
      `bench.weights.find.WeightsMissing` for each model that is not on this machine:
      `vcbench doctor` shows them, and `doctor --fetch` downloads them.

    A system whose packages are not those of this environment may have `versions`, a text that names
    them; it is stored with every conversion.

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

    It may have three attributes:

        role: "floor" for recordings of the source's words, "ceiling" for recordings of the target
            speaker with other words; "" (the default) for conversions. Word error rate and prosody
            against the source do not apply to a ceiling.
        trained_on: as in `System`, of the system that made the conversions; unknown by default.
        networks: likewise.
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
        networks: that it was made with; None if it declares none and they are unknown.
    """

    kind: str = SYSTEM
    trained_on: frozenset[str] = frozenset()
    role: str = ""
    code: Mapping[str, str] | None = field(default_factory=dict)
    networks: tuple[UsedNetwork, ...] | None = None

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
            "networks": self.networks_json,
        }

    @property
    def networks_json(self) -> list[dict[str, str]] | None:
        """The networks as JSON holds them; None if they are unknown."""
        return None if self.networks is None else [n.to_json() for n in self.networks]

    def declared_in(self, settings: Mapping[str, Any], what: str) -> "Facts":
        """The facts with what the settings declare in place of what the class does.

        Args:
            settings: of the system, with any of `bench.objects.DECLARATIONS`.
            what: the system's name in error messages.

        Raises:
            UserError: if something is declared in a wrong form.
        """
        facts = self
        if self.role:
            return facts
        if settings.get(TRAINING_DATA) is not None:
            facts = replace(facts, trained_on=corpora(settings[TRAINING_DATA], what))
        if settings.get(NETWORKS) is not None:
            facts = replace(facts, networks=networks_in(settings[NETWORKS], what))
        return facts

    @classmethod
    def from_json(cls, value: Any) -> "Facts":
        """The facts in an untrusted JSON value.

        Raises:
            ValueError: if it does not describe a system.
        """
        value = value if isinstance(value, dict) else {}
        kind, role = value.get("kind"), value.get("role")
        trained_on, code = value.get("trained_on"), value.get("code")
        networks = value.get("networks")
        if kind not in KINDS or role not in ROLES or not are_texts(trained_on):
            raise ValueError("facts of no system")
        if code is not None and not (isinstance(code, dict) and are_texts([*code.values()])):
            raise ValueError("code that is no table of files")
        try:
            made_with = None if networks is None else networks_in(networks, "record")
        except UserError as error:
            raise ValueError(str(error)) from error
        return cls(kind, frozenset(trained_on), role, code, made_with)


def facts_of(system: Any, what: str, settings: Mapping[str, Any] | None = None) -> Facts:
    """The facts of a built system as it and its class declare them, without its code.

    Args:
        system: any object.
        what: the system's name in error messages.
        settings: that it was built from, for its static method `networks`. What they declare
            themselves is not looked at: see `Facts.declared_in`.

    Raises:
        UserError: if it is not a system, or declares its training data, its networks or its role in
            a wrong form.
    """
    arguments = None if settings is None else _arguments(settings)
    if callable(getattr(system, "convert", None)) and hasattr(system, "trained_on"):
        networks = _networks_of(system, arguments, what)
        return Facts(SYSTEM, corpora(system.trained_on, what), networks=networks)
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
    if role:
        return Facts(EXISTING, role=role)
    trained_on = corpora(getattr(system, "trained_on", UNKNOWN), what)
    return Facts(EXISTING, trained_on, networks=_networks_of(system, arguments, what))


def declared_facts(settings: Mapping[str, Any], what: str) -> Facts:
    """The facts of a system according to its settings and its class; the system is not built.

    Training data is, in this order: `_trained_on_` among the settings; what the class's
    `training_data(**settings)` returns; the class attribute `trained_on`; else unknown. Networks
    are `_networks_` among the settings; what the class's `networks(**settings)` returns, or its
    class attribute `networks`; else unknown.

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
    arguments = _arguments(settings)
    trained_on = settings.get(TRAINING_DATA)
    if trained_on is None and callable(ask := getattr(system, "training_data", None)):
        trained_on = ask(**arguments)
    if trained_on is None:
        attribute = getattr(system, "trained_on", None)
        is_value = not isinstance(attribute, property) and not callable(attribute)
        trained_on = attribute if attribute is not None and is_value else UNKNOWN
    networks = None if NETWORKS in settings else _networks_of(system, arguments, what)
    facts = Facts(kind, corpora(trained_on, what), networks=networks)
    return facts.declared_in(settings, what)


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are arguments of the system's class."""
    return {k: v for k, v in settings.items() if k not in (TARGET, *DECLARATIONS)}


def _networks_of(
    system: Any, arguments: Mapping[str, Any] | None, what: str
) -> tuple[UsedNetwork, ...] | None:
    """The networks that a system or its class declares; None if it declares none.

    Args:
        system: a system or its class.
        arguments: of its class; None if they are not known, so that it cannot be asked.
        what: the system's name in error messages.
    """
    declared = getattr(system, "networks", None)
    if isinstance(declared, property):
        return None
    if callable(declared):
        declared = None if arguments is None else declared(**arguments)
    return None if declared is None else networks_in(declared, what)


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
