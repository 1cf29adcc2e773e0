"""Reads the two files of an exported listening test, `test.json` and `key.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError, choose_one_of
from bench.files import read_text
from reports.listening.format import (
    FORMAT,
    KEY,
    KINDS,
    PAIRS,
    REFERENCE,
    SOURCE,
    TEST,
)

RECORDED = (SOURCE, REFERENCE)  # what a hidden reference may be


@dataclass(frozen=True)
class ExportedTest:
    """A listening test as it was exported.

    Attributes:
        folder: of the test.
        test_id: identifies the export.
        kind: one of `reports.listening.format.KINDS`.
        lowest, highest, step: of the scale.
        labels: text of an answer → its value.
        screens: screen → its stimuli, in order.
        references: screen → the stimulus that is played as the reference; only where there is one.
        groups: the screens of each group of listeners, in order.
        language: of the instructions.
        run: name of the run that was rated.
        stimuli: stimulus → the facts of the key: system, suite, trial_id, source_speaker,
            target_speaker, gender_pair, what.
        roles: screen → one of `TRIAL`, `TRAP`, `GOLD`, `REPEAT`, `TRAINING`.
        expected: screen → the rating that a trap or gold screen asks for; only where it is known.
        repeats: screen → the screen that it repeats.
        processing: the rest of the key: what was done to the sounds, level, sample rate.
    """

    folder: Path
    test_id: str
    kind: str
    lowest: float
    highest: float
    step: float
    labels: Mapping[str, float]
    screens: Mapping[str, tuple[str, ...]]
    references: Mapping[str, str]
    groups: tuple[tuple[str, ...], ...]
    language: str
    run: str
    stimuli: Mapping[str, Mapping[str, str]]
    roles: Mapping[str, str]
    expected: Mapping[str, float]
    repeats: Mapping[str, str]
    processing: Mapping[str, Any]

    @property
    def paired(self) -> bool:
        """Whether one answer compares two stimuli."""
        return self.kind in PAIRS

    @classmethod
    def load(cls, folder: Path) -> "ExportedTest":
        """Loads the test.

        Raises:
            UserError: if a file is missing or damaged, or the key belongs to another test.
        """
        public, key = _read(folder / TEST), _read(folder / KEY)
        if key.get("test_id") != public.get("test_id"):
            raise UserError(
                f"{folder / 'key.json'} is the key of test {key.get('test_id')!r}, not of "
                f"{public.get('test_id')!r}; give the folder of one export"
            )
        try:
            if public["kind"] not in KINDS:
                raise UserError(
                    f"{folder / 'test.json'}: unknown kind {public['kind']!r}; "
                    f"{choose_one_of(str(public['kind']), KINDS)}"
                )
            scale = public["scale"]
            screens = {s["screen"]: tuple(s["stimuli"]) for s in public["screens"]}
            of_key = key["screens"]
            test = cls(
                folder,
                str(public["test_id"]),
                public["kind"],
                float(scale["lowest"]),
                float(scale["highest"]),
                float(scale["step"]),
                _labels(scale.get("labels") or {}),
                screens,
                {s["screen"]: s["reference"] for s in public["screens"] if s.get("reference")},
                tuple(tuple(group) for group in public["groups"]),
                str(public.get("language", "")),
                str(key.get("run", "")),
                {
                    name: {k: "" if v is None else str(v) for k, v in facts.items()}
                    for name, facts in key["stimuli"].items()
                },
                {screen: of_key[screen]["role"] for screen in screens},
                {
                    screen: float(of_key[screen]["expected"])
                    for screen in screens
                    if of_key[screen].get("expected") is not None
                },
                {s: of_key[s]["repeats"] for s in screens if of_key[s].get("repeats")},
                {k: v for k, v in key.items() if k not in ("stimuli", "screens")},
            )
            unknown = [s for screen in screens.values() for s in screen if s not in test.stimuli]
            unknown += [s for group in test.groups for s in group if s not in screens]
            unknown += [s for s in test.repeats.values() if s not in screens]
            unknown += [s for s in public.get("training", ()) if s not in screens]
            for facts in test.stimuli.values():
                facts["system"], facts["what"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{folder}: test.json and key.json are no exported test ({error!r}); export it "
                "again: vcbench stimuli"
            ) from error
        if unknown:
            raise UserError(
                f"{folder}: key.json or test.json does not describe {unknown[0]!r}; give the files "
                "of one export"
            )
        return test

    def hidden_reference(self, screen: str) -> str | None:
        """The stimulus of a MUSHRA screen that is the reference itself; None if there is none."""
        reference = self.references.get(screen)
        stimuli = self.screens[screen]
        if reference in stimuli:
            return reference
        return next((s for s in stimuli if self.stimuli[s]["what"] in RECORDED), None)

    def facts(self, stimulus: str, screen: str = "") -> dict[str, str]:
        """What agreement and statistics need of a stimulus: system, suite, trial, speakers.

        An anchor has no trial in the key: it gets that of the other stimuli of its screen.
        """
        known = self.stimuli[stimulus]
        of_trial = known
        if not known.get("trial_id") and screen:
            beside = (self.stimuli[s] for s in self.screens[screen])
            of_trial = next((s for s in beside if s.get("trial_id")), known)
        names = ("suite", "trial_id", "source_speaker", "target_speaker", "gender_pair")
        facts = {name: of_trial.get(name, "") for name in names}
        return {"system": known["system"] or known["what"], **facts, "what": known["what"]}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"there is no {path}; test=FOLDER is the folder that vcbench stimuli wrote, with "
            "test.json and key.json"
        )
    try:
        contents = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); export the test again") from error
    if not isinstance(contents, dict):
        raise UserError(f"{path} is no exported test: it holds no mapping")
    if contents.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {contents.get('format')!r}, and this version reads {FORMAT}; "
            "export the test again, or use the version that wrote it"
        )
    return contents


def _labels(labels: Any) -> dict[str, float]:
    """Text of each answer → its value, from {"5": "Excellent"} or ["Bad", "Poor", …]."""
    if isinstance(labels, Mapping):
        return {str(text).strip().lower(): float(value) for value, text in labels.items()}
    return {}
