"""Parses the arguments of verbs that do not use Hydra: operands, and settings `name=value`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from bench.errors import UserError, choose_one_of

Converter = Callable[[str], Any]


@dataclass(frozen=True)
class Setting:
    """One setting of a verb; the reference of the command line is made of these.

    A module with verbs has them in `SETTINGS`: "corpus index" → name → `Setting`.

    Attributes:
        about: what it is, with its unit and its default.
        convert: converts its text; it raises ValueError with what is wrong with the value.
        needed: whether it must be given.
    """

    about: str
    convert: Converter = str
    needed: bool = False

    def __call__(self, text: str) -> Any:
        """The converted text."""
        return self.convert(text)


def parse(
    arguments: Sequence[str],
    verb: str,
    known: Mapping[str, Converter],
    needed: Sequence[str] = (),
) -> tuple[list[str], dict[str, Any]]:
    """Splits arguments into operands and settings, in any order.

    A path may contain "=": an argument with a slash before its first "=" is an operand. If a
    setting is given twice, the last one counts.

    Args:
        arguments: those after the verb.
        verb: its name, for errors: "compare", "suite build".
        known: name of each setting → what converts its text, such as a `Setting`. A converter
            raises ValueError with what is wrong with the value ("'x' is not a number").
        needed: settings that must be given, besides each `Setting` that says so.

    Returns:
        The operands in their order, and the converted values of the settings that were given.

    Raises:
        UserError: if a setting is unknown, has no value or a wrong one, or a needed one is missing.
    """
    operands: list[str] = []
    settings: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or "/" in name:
            operands.append(argument)
            continue
        if name not in known:
            raise UserError(f"{verb} has no setting {name!r}; {choose_one_of(name, known)}")
        if not value:
            raise UserError(f"{name}= needs a value; leave it out for the default")
        try:
            settings[name] = known[name](value)
        except ValueError as error:
            raise UserError(f"{name}={value}: {error}") from error
    declared = [n for n, known_as in known.items() if getattr(known_as, "needed", False)]
    for name in (*needed, *declared):
        if name not in settings:
            raise UserError(f"{name}=… is missing; {verb} knows the settings {', '.join(known)}")
    return operands, settings


def parse_settings(
    arguments: Sequence[str],
    verb: str,
    known: Mapping[str, Converter],
    needed: Sequence[str] = (),
) -> dict[str, Any]:
    """As `parse`, for arguments that are all settings.

    Raises:
        UserError: also if one is an operand.
    """
    operands, settings = parse(arguments, verb, known, needed)
    if operands:
        raise UserError(
            f"{verb}: {operands[0]!r} is not a setting; write name=value; "
            f"{choose_one_of(operands[0], known)}"
        )
    return settings


def first_operand(arguments: Sequence[str], verb: str, noun: str) -> tuple[str, Sequence[str]]:
    """The first argument, which must be an operand, and the rest.

    Args:
        arguments: those after the verb.
        verb: its name, for the error: "suite build".
        noun: what the operand is, for the error: "a protocol".

    Raises:
        UserError: if there is no argument or the first is a setting.
    """
    if not arguments or "=" in arguments[0]:
        raise UserError(f"vcbench {verb} needs {noun} first")
    return arguments[0], arguments[1:]


def run_verb(
    noun: str,
    arguments: Sequence[str],
    verbs: Mapping[str, Callable[[Sequence[str]], int]],
    usage: str,
) -> int:
    """Runs the verb that the arguments begin with; without any, prints the usage and returns 2.

    Args:
        noun: before the verbs, such as "suite".
        arguments: the verb and its own arguments.
        verbs: name → function of the verb's arguments that returns an exit code.
        usage: one line or more for each verb.

    Raises:
        UserError: if there is no such verb.
    """
    if not arguments:
        print(usage)
        return 2
    name, *rest = arguments
    if name not in verbs:
        raise UserError(f"unknown {noun} verb {name!r}; {choose_one_of(name, verbs)}")
    return verbs[name](rest)


def check_parameters(name: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raises UserError, about `name`, unless the function has parameters of the settings' names."""
    known = signature(function).parameters
    for key in settings:
        if key not in known:
            raise UserError(f"{name} takes no {key}=…; {choose_one_of(key, known)}")


def whole_number(text: str) -> int:
    """Converts "24"."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def number(text: str) -> float:
    """Converts "2.5"; infinities and NaN are refused."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def boolean(text: str) -> bool:
    """Converts "true" and "false"."""
    return one_of("true", "false")(text) == "true"


def listed(text: str) -> list[str]:
    """Converts "a,b" and "[a, b]"."""
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def numbers(text: str) -> list[float]:
    """Converts "1,2.5" and "[1, 2.5]"."""
    return [number(part) for part in listed(text)]


@dataclass(frozen=True)
class OneOf:
    """A converter that takes one of these values only."""

    values: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """The text, if it is one of the values."""
        if text not in self.values:
            raise ValueError(f"must be {' or '.join(self.values)}")
        return text


def one_of(*values: str) -> OneOf:
    """A converter that takes one of these values only."""
    return OneOf(values)
