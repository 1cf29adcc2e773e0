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
