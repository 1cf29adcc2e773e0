"""Defines the errors that a user can fix: the command line shows them without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A fault of the input, the settings or the machine; the message says how to fix it."""


def choose_one_of(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown `name`: the most similar known name, then all names."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}known: {', '.join(known) or 'none'}"


def shown(value: object, longest: int = 80) -> str:
    """The value as an error message quotes it: on one line, cut at `longest` characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of a third party's class, or nested too deeply
        text = f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]}…"
