"""Reads the words of a listening test: instructions, questions, scales and buttons."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserError
from bench.files import read_text

FOLDER = Path(__file__).parent / "wording"
DEFAULT = FOLDER / "en.yaml"
ANSWERS = "{answers}"  # in page.trap: which number of tones asks for which answer

# Lowest and highest rating and the step between ratings.
SCALES: Mapping[str, tuple[int, int, int]] = {
    "nmos": (1, 5, 1),
    "smos": (1, 5, 1),
    "ab": (-1, 1, 1),
    "abx": (-1, 1, 1),
    "cmos": (-3, 3, 1),
    "mushra": (0, 100, 1),
}


@dataclass(frozen=True)
class Wording:
    """The words of one kind of test.

    Attributes:
        language: ISO 639 code.
        page: key → text, for buttons and messages.
        instructions: what listeners read before the test.
        question: on every screen.
        labels: rating → its name, from the highest rating to the lowest.
    """

    language: str
    page: Mapping[str, str]
    instructions: str
    question: str
    labels: Mapping[int, str]


def read_wording(kind: str, path: Path = DEFAULT) -> Wording:
    """Reads the words for a kind of test; keys of `page` that are missing are English.

    Raises:
        UserError: if the file is no such YAML, or a label of the scale is missing.
    """
    words, english = _mapping(path), _mapping(DEFAULT)
    try:
        of_kind = words["kinds"][kind]
        labels = {int(k): str(v) for k, v in of_kind["labels"].items()}
        page = {**english["page"], **words.get("page", {})}
        read = Wording(
            str(words["language"]),
            {key: " ".join(str(text).split()) for key, text in page.items()},
            " ".join(str(of_kind["instructions"]).split()),
            " ".join(str(of_kind["question"]).split()),
            dict(sorted(labels.items(), reverse=True)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: no usable wording of {kind} ({error}); copy {DEFAULT.name} of "
            "reports/listening/wording and change the texts, not the keys"
        ) from error
    lowest, highest, step = SCALES[kind]
    if kind != "mushra" and set(read.labels) != set(range(lowest, highest + 1, step)):
        raise UserError(
            f"{path}: the labels of {kind} are {sorted(read.labels)}; it has the ratings "
            f"{lowest} to {highest}"
        )
    if ANSWERS not in read.page["trap"]:
        raise UserError(
            f"{path}: page.trap has no {ANSWERS}; it must say which number of tones asks for what"
        )
    return read


def wording_file(name: str) -> Path:
    """The file of a setting: the name of a language that is included ("de"), or a path."""
    included = FOLDER / f"{name}.yaml"
    return included if name.isalpha() and included.is_file() else Path(name)


def trap_notice(wording: Wording, answers: Mapping[int, int]) -> str:
    """What listeners read about traps by tones; the same on every screen.

    Args:
        wording: the words.
        answers: number of tones → rating.
    """
    listed = ", ".join(f"{tones} – {wording.labels[rating]}" for tones, rating in answers.items())
    return wording.page["trap"].replace(ANSWERS, listed)


def scale(kind: str, wording: Wording) -> dict[str, Any]:
    """The scale as test.json has it."""
    lowest, highest, step = SCALES[kind]
    return {
        "lowest": lowest,
        "highest": highest,
        "step": step,
        "labels": {str(value): name for value, name in wording.labels.items()},
    }


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise UserError(
            f"there is no wording at {path}; give {known}, or a YAML file like {DEFAULT.name}"
        )
    try:
        words = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(words, dict):
        raise UserError(f"{path}: no wording; it needs the keys language, page and kinds")
    return words
