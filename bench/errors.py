"""Errors that the user can mend: shown as one line, without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something about the input, the settings or the machine that the message says how to mend."""


def choose_one_of(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown `name`: the nearest known name, then all of them."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    return f"{guess}known: {', '.join(known) or 'none'}"


def shown(value: object, longest: int = 80) -> str:
    """The value as an error message quotes it: on one line, cut where it is longer than that."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of a class of somebody else's, or nested too deeply
        text = f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]}…"
