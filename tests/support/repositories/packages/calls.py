"""What the adapter under test called, with its arguments."""

from typing import Any

CALLS: list[tuple[str, dict[str, Any]]] = []


def record(name: str, arguments: dict[str, Any]) -> None:
    """Adds a call, without `self`."""
    CALLS.append((name, {k: v for k, v in arguments.items() if k not in ("self", "__class__")}))
