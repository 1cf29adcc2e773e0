"""Defines utterances, trials and suites: inputs of conversions and what judges compare them with.

`bench.manifest` reads and writes the lists on disk.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from bench import audio
from bench.audio import Waveform
from bench.errors import UserError
from bench.files import encoded, json_text, sha256_of

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
SECONDS_TOLERANCE = 0.011  # s; durations in the lists of corpora are rounded to 10 ms

# The factor of trials whose enrolment is the reference itself, as in most published lists, which
# name no other recording of the speaker. In these a system that copies the reference would win.
ENROLMENT, REFERENCE = "enrolment", "reference"

ENGLISH = "en"  # the language of speech whose list names none


class ManifestError(UserError):
    """A manifest cannot be used; the message names the file, the line and the key."""


@dataclass(frozen=True)
class Utterance:
    """One recording of one speaker.

    Attributes:
        utterance_id: its name in the corpus.
        speaker: its speaker's name in the corpus.
        gender: F or M, or "" if the corpus does not say.
        path: the audio file.
        text: its transcript.
        sha256: hash of the audio file's bytes, or "" if unknown.
        corpus: with its split, "LibriSpeech/test-clean", or "" if unknown; it is compared with a
            system's `trained_on`.
        seconds: its duration, or None if unknown.
        language: of its speech and its text, an ISO 639 code: en, zh, …
    """

    utterance_id: str
    speaker: str
    gender: str
    path: Path
    text: str
    sha256: str = ""
    corpus: str = ""
    seconds: float | None = None
    language: str = ENGLISH

    @property
    def essential(self) -> str:
        """JSON of what a conversion or a score can depend on; see `Trial.fingerprint`."""
        return _essential_utterance(
            self.utterance_id, self.speaker, self.gender, self.text, self.sha256, self.language
        )

    def load(self) -> Waveform:
        """Reads its audio.

        Raises:
            AudioError: if the file cannot be used.
        """
        return audio.load(self.path)

    def difference(self) -> str | None:
        """How its file differs from `sha256` and `seconds`, or None if it does not."""
        if self.sha256:
            actual = sha256_of(self.path)
            if actual != self.sha256:
                return f"sha256 {actual[:12]}…, not {self.sha256[:12]}…"
        if self.seconds is not None:
            seconds = audio.seconds_of(self.path)
            if seconds is None:
                return None  # `load` raises the error
            if abs(seconds - self.seconds) > SECONDS_TOLERANCE:
                return f"{seconds:.2f} s long, not {self.seconds:.2f} s"
        return None


@dataclass(frozen=True)
class CheckedAudio:
    """What `Suite.check_audio` learnt of a recording.

    Attributes:
        seconds: its length.
        cautions: why it lowers scores, at most one line.
    """

    seconds: float
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One conversion: the words of `source` in the voice of `references`.

    Attributes:
        trial_id: unique in its suite; the conversion's seed is derived from it.
        source: the speech to convert.
        references: speech of the target speaker, joined in this order, then cut to
            `reference_seconds`.
        enrolment: OTHER utterances of the target speaker, which SECS compares with.
        source_enrolment: other utterances of the source speaker, which leakage is measured with;
            empty if the suite has none.
        target: one more real utterance of the target speaker, neither reference nor enrolment: the
            ceiling of speaker similarity. None if the corpus has none.
        reference_seconds: duration to which the joined references are cut; None to keep all.
        factors: the slices of the report: {"gender_pair": "F2M", "reference_seconds": "4"}.
    """

    trial_id: str
    source: Utterance
    references: tuple[Utterance, ...]
    enrolment: tuple[Utterance, ...]
    source_enrolment: tuple[Utterance, ...] = ()
    target: Utterance | None = None
    reference_seconds: float | None = None
    factors: Mapping[str, str] = field(default_factory=dict)

    @property
    def speaker(self) -> str:
        """The target speaker."""
        return self.references[0].speaker

    @property
    def language(self) -> str:
        """The language of the source, which is that of every conversion."""
        return self.source.language

    def reference(self) -> Waveform:
        """Reads the reference that the system receives, at the first recording's sample rate.

        Raises:
            AudioError: if a file cannot be used.
        """
        joined = audio.concatenate([utterance.load() for utterance in self.references])
        return joined if self.reference_seconds is None else joined.first(self.reference_seconds)

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """All its utterances: source, references, enrolments, target."""
        target = () if self.target is None else (self.target,)
        return (
            self.source,
            *self.references,
            *self.enrolment,
            *self.source_enrolment,
            *target,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of everything that a conversion or a score can depend on.

        Paths, corpus names and durations are left out, and so is the language where it is English:
        lists that name none keep their hashes. It is not kept: for a million trials it would take
        0.14 GB.
        """

        # The JSON of a dict of the parts, keys sorted; that of an utterance is made once.
        parts = {
            "enrolment": _list(self.enrolment),
            "factors": json_text(_essential(dict(self.factors)), sort_keys=True),
            "reference_seconds": json_text(self.reference_seconds),
            "references": _list(self.references),
            "source": self.source.essential,
            "source_enrolment": _list(self.source_enrolment),
            "target": "null" if self.target is None else self.target.essential,
            "trial_id": json_text(self.trial_id),
        }
        text = ", ".join(f'"{key}": {value}' for key, value in parts.items())
        return hashlib.sha256(encoded(f"{{{text}}}")).hexdigest()


def _essential(value: Any) -> Any:
    """The value without what no conversion and no score depends on."""
    if isinstance(value, dict):
        left_out = ["path", "corpus", "seconds"]
        if value.get("language") == ENGLISH:
            left_out.append("language")
        return {k: _essential(v) for k, v in value.items() if k not in left_out}
    return [_essential(v) for v in value] if isinstance(value, tuple) else value


@lru_cache(maxsize=1 << 17)
def _essential_utterance(
    utterance_id: str, speaker: str, gender: str, text: str, sha256: str, language: str
) -> str:
    values = {
        "gender": gender,
        "sha256": sha256,
        "speaker": speaker,
        "text": text,
        "utterance_id": utterance_id,
    }
    if language != ENGLISH:
        values["language"] = language
    return json_text(values, sort_keys=True)


def _list(utterances: tuple[Utterance, ...]) -> str:
    return f"[{', '.join(u.essential for u in utterances)}]"


@dataclass(frozen=True)
class Suite:
    """A frozen list of trials.

    Attributes:
        name: as in `vcbench run suite=NAME`.
        trials: in the manifest's order, which builders interleave: beginnings are balanced.
        sha256: hash of the manifest file.
        changed: ids of the recordings that differ from the manifest.
        root: the corpus folder that it was loaded from; None for other suites.
    """

    name: str
    trials: tuple[Trial, ...]
    sha256: str
    changed: tuple[str, ...] = ()
    root: Path | None = None

    @classmethod
    def load(
        cls,
        manifest: str | Path,
        *,
        root: str | Path,
        name: str | None = None,
        sha256: str | None = None,
        limit: int | None = None,
    ) -> "Suite":
        """Reads and checks a manifest: `Suite.load("trials.jsonl", root="corpus")`.

        Args:
            manifest: a JSON Lines file, one trial a line.
            root: the corpus folder; the manifest's paths are relative to it and stay inside it.
            name: the suite's name; None for the file's name without its ending and version
                ("trials" of trials.v1.jsonl).
            sha256: the hash that the manifest must have, so that changes to a frozen suite are
                detected.
            limit: how many trials to keep, from the first; None for all.

        Raises:
            ManifestError: names the file, line and key of what is wrong.
        """
        from bench.manifest import read_trials  # imported here: it imports this module

        manifest, root = Path(manifest), Path(root)
        name = re.sub(r"\.v\d+$", "", manifest.stem) if name is None else name
        if not NAME.fullmatch(name):
            raise ManifestError(
                f"suite {name!r}: a name has letters, digits and . _ + - only; give another: name=…"
            )
        if not manifest.is_file():
            raise ManifestError(f"suite {name}: no manifest at {manifest}; check `manifest`")
        actual = sha256_of(manifest)
        if sha256 is not None and actual != sha256:
            raise ManifestError(
                f"suite {name}: {manifest} has sha256 {actual[:12]}…, not the frozen "
                f"{sha256[:12]}…; restore it, or save your changes as another suite"
            )
        if not root.is_dir():
            raise ManifestError(
                f"suite {name}: no corpus folder at {root}; set `root` to it, or see "
                "`vcbench corpus ls` for those that can be fetched"
            )
        trials = tuple(islice(read_trials(manifest, root), limit))
        if not trials:
            raise ManifestError(f"{manifest}: no trials in it; a suite needs at least one")
        return cls(name, trials, actual, root=root)

    @property
    def utterances(self) -> dict[str, Utterance]:
        """Every utterance of its trials, once, by its id."""
        return {u.utterance_id: u for trial in self.trials for u in trial.utterances}

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of its sources, sorted."""
        return tuple(sorted({trial.language for trial in self.trials}))

    def check_audio(
        self,
        checked: "dict[Utterance, CheckedAudio] | None" = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> list[str]:
        """Checks that every audio file is usable and is the one that the manifest describes.

        Every recording is decoded once; one at a time is in memory.

        Args:
            checked: recordings that were checked for another suite and need not be decoded again;
                those of this suite are added.
            advance: called with 1 for every recording.

        Returns:
            Cautions about files that are usable but lower scores, one line each.

        Raises:
            ManifestError: if a file's hash differs from the manifest's, a recording is constant, or
                `reference_seconds` is longer than the references or leaves no speech of them.
            AudioError: if a file is not usable audio.
        """
        checked = {} if checked is None else checked
        cautions: list[str] = []
        seconds: dict[str, float] = {}
        cuts: dict[str, dict[float, str]] = {}  # first reference -> cuts, each of one trial
        for trial in self.trials:
            if trial.reference_seconds is not None:
                first = trial.references[0].utterance_id
                cuts.setdefault(first, {}).setdefault(trial.reference_seconds, trial.trial_id)
        for name, utterance in self.utterances.items():
            if utterance in checked and name not in cuts:
                seconds[name] = checked[utterance].seconds
                cautions += checked[utterance].cautions
                advance(1)
                continue
            if difference := utterance.difference():
                raise ManifestError(
                    f"suite {self.name}: {utterance.path} is not the recording that the manifest "
                    f"was made with ({name}: {difference}); get the corpus in "
                    "that release, or add allow_changed=true: the report will say so"
                )
            waveform = utterance.load()
            if fault := _stillness(waveform):
                raise ManifestError(
                    f"suite {self.name}: {utterance.path} ({name}) is {fault}; "
                    "replace the recording or leave its trials out"
                )
            seconds[name] = waveform.seconds
            for length, trial_id in cuts.get(name, {}).items():
                # A cut that is longer than this recording contains all of it.
                if length < waveform.seconds and (
                    fault := (cut := waveform.first(length)).fault() or _stillness(cut)
                ):
                    raise ManifestError(
                        f"suite {self.name}: trial {trial_id}: reference_seconds ({length!r}) "
                        f"leaves of {name} what is {fault}; raise it, or set it to null for all"
                    )
            caution = audio.caution(utterance.path)
            checked[utterance] = CheckedAudio(waveform.seconds, (caution,) if caution else ())
            cautions += checked[utterance].cautions
            advance(1)
        for trial in self.trials:
            available = sum(seconds[u.utterance_id] for u in trial.references)
            asked = trial.reference_seconds
            if asked is not None and asked > available + SECONDS_TOLERANCE:
                names = ", ".join(u.utterance_id for u in trial.references)
                raise ManifestError(
                    f"suite {self.name}: trial {trial.trial_id}: reference_seconds ({asked!r}) is "
                    f"longer than its references, which last {available:.2f} s ({names}); "
                    "lower it, or set it to null for all of them"
                )
        return cautions

    def with_changed_recordings(self) -> "Suite":
        """The suite with the hashes of its recordings as they are now.

        Recordings that differ from the manifest are listed in `changed`.
        """
        differing = {
            name: replace(utterance, sha256=sha256_of(utterance.path), seconds=None)
            for name, utterance in self.utterances.items()
            if utterance.difference() is not None
        }

        def current(utterances: tuple[Utterance, ...]) -> tuple[Utterance, ...]:
            return tuple(differing.get(u.utterance_id, u) for u in utterances)

        trials = tuple(
            replace(
                trial,
                source=differing.get(trial.source.utterance_id, trial.source),
                references=current(trial.references),
                enrolment=current(trial.enrolment),
                source_enrolment=current(trial.source_enrolment),
                target=None if trial.target is None else current((trial.target,))[0],
            )
            for trial in self.trials
        )
        return replace(self, trials=trials, changed=tuple(sorted(differing)))


def _stillness(waveform: Waveform) -> str | None:
    """Why the recording cannot be speech, or None."""
    if waveform.swing < audio.SILENCE_PEAK:
        return "constant: its samples hardly differ"
    return None
