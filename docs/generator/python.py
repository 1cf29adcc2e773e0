"""The page of the Python interface, made from the public names of `bench`."""

import inspect
from collections.abc import Iterator
from typing import Any

import bench
from docs.generator.sources import code, entries, page, summary, table

ORDER = ("Run", "Suite", "Trial", "Waveform", "System", "Existing", "Judge", "Metric", "compare")


def python_page() -> str:
    """Every public name of `bench` with its members."""
    parts = [
        "# Python",
        "The public names of `bench`: `import bench`, then `bench.Run`. [From a notebook or a "
        "training loop](../guide/notebook.md) has examples.",
    ]
    for name in sorted(bench.__all__, key=lambda n: (ORDER.index(n) if n in ORDER else 99, n)):
        thing = getattr(bench, name)
        protocol = getattr(thing, "_is_protocol", False)
        usage = "" if protocol else _usage(name, thing)
        parts += [f"## {name}", usage, *_described(thing)]
        for member, value in _members(thing) if inspect.isclass(thing) else ():
            if isinstance(value, property):
                parts += [f"### {name}.{member}", *_described(value)]
            else:
                function = getattr(value, "__func__", value)
                bound = not isinstance(value, staticmethod)
                parts += [f"### {name}.{member}", _usage(member, function, bound)]
                parts += _described(function)
    return page(parts)


def _members(thing: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines and describes."""
    for name, value in vars(thing).items():
        function = getattr(value, "__func__", value)
        known = isinstance(value, property) or inspect.isfunction(function)
        if known and not name.startswith("_") and inspect.getdoc(function):
            yield name, value


def _usage(name: str, function: Any, bound: bool = False) -> str:
    """A call with the defaults of its parameters."""
    parameters = [*inspect.signature(function).parameters.values()][int(bound) :]
    words, keyword_only = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            words.append("*")
        words.append(parameter.name + _default(parameter))
    return f"```text\n{name}({', '.join(words)})\n```"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ""
    text = repr(parameter.default)
    return "=…" if text.startswith("<") else f"={text}"


def _described(thing: Any) -> list[str]:
    """The docstring: its text, then its arguments or attributes, its result and its errors."""
    rows = [*entries(thing).items(), *entries(thing, "Attributes").items()]
    returns = " ".join((inspect.getdoc(thing) or "").partition("Returns:\n")[2].split())
    returns = returns.partition(" Raises: ")[0]
    errors = entries(thing, "Raises").items()
    return [
        summary(thing),
        table(("name", "meaning"), [(code(k), v) for k, v in rows]),
        f"Returns: {returns}" if returns else "",
        *(f"Raises {code(k)}: {v}" for k, v in errors),
    ]
