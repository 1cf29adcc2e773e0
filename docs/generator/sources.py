"""Reads what the reference says from its sources: docstrings and the comments of YAML files."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml
from omegaconf import OmegaConf

from bench.cli.settings import FOLDER
from bench.objects import DECLARATIONS, TARGET, locate
from bench.run.judges import DeclaredJudge

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$", re.MULTILINE)


@dataclass(frozen=True)
class Key:
    """One setting in a YAML file.

    Attributes:
        name: its dotted path, without the name of the group's entry.
        value: as it is written in the file.
        meaning: its comment, or what the docstring of its class says of the argument.
    """

    name: str
    value: str
    meaning: str


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; "" without rows."""
    body = [" | ".join(escaped(cell).replace("|", "\\|") or "–" for cell in row) for row in rows]
    if not body:
        return ""
    lines = [" | ".join(head), "|".join("---" for _ in head), *body]
    return "\n".join(f"| {line} |" if line[0] != "-" else f"|{line}|" for line in lines) + "\n"


def escaped(text: str) -> str:
    """The text with `<` outside of code escaped: it would begin an HTML tag."""
    parts = re.split(r"(`+[^`]*`+)", text.strip())
    return "".join(p if p.startswith("`") else p.replace("<", "\\<") for p in parts)


def code(text: object) -> str:
    """The text as Markdown code; "" stays."""
    mark = "``" if "`" in str(text) else "`"
    return f"{mark}{text}{mark}" if str(text) else ""


def as_sentence(text: str) -> str:
    """The text as a sentence; a first word that is a name stays as it is."""
    text = " ".join(text.split())
    name = re.match(r"\S*[._A-Z0-9]\S", text)
    return f"{text if name else upper(text)}." if text else ""


def upper(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def lower(text: str) -> str:
    """The text with a small letter at its beginning."""
    return text[:1].lower() + text[1:]


def page(parts: Sequence[str]) -> str:
    """The parts of a page; empty ones are left out."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def summary(thing: Any) -> str:
    """The docstring without its sections: paragraphs on one line each, lists, examples as code."""
    text = SECTION.split(inspect.getdoc(thing) or "")[0]
    return "\n\n".join(map(_block, text.strip().split("\n\n")))


def _block(text: str) -> str:
    if text.startswith("- "):
        return "\n".join(escaped(" ".join(i.split())) for i in re.split(r"\n(?=- )", text))
    if all(line.startswith("    ") for line in text.splitlines()):
        return f"```text\n{dedent(text)}\n```"
    return escaped(" ".join(text.split()))


def entries(thing: Any, section: str = "Args") -> dict[str, str]:
    """Name → description in a section of a docstring."""
    parts = SECTION.split(inspect.getdoc(thing) or "")
    named: dict[str, str] = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        for line in text.splitlines() if title == section else ():
            if match := re.match(r"    (\w[\w, ]*): (.*)", line):
                names = match[1].split(", ")
                named.update(dict.fromkeys(names, match[2]))
            elif line.strip():
                named.update({name: f"{named[name]} {line.strip()}" for name in names})
    return {k: v if ". " in v else v.removesuffix(".") for k, v in named.items()}


def keys_of(path: Path, group: str = "", name: str = "") -> list[Key]:
    """The settings in a YAML file, in their order.

    Args:
        path: the file.
        group: the group of a file that has a `# @package _global_`, such as "suite".
        name: of the entry whose settings are wanted; "" for those of the whole file.
    """
    text = path.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in (group, name):
        found = [value for key, value in node.value if key.value == step]
        node = found[0] if found else node
    return list(_keys(node, text.splitlines(), text))


def _keys(
    node: yaml.MappingNode, lines: Sequence[str], text: str, prefix: str = "", outer: str = ""
) -> Iterator[Key]:
    """The keys under a node.

    Args:
        node: a mapping.
        lines: of the file.
        text: of the file.
        prefix: of the keys' names.
        outer: what the comment of the mapping says, for keys without another meaning.
    """
    target = next((v.value for k, v in node.value if k.value == TARGET), "")
    arguments = _arguments(target)
    for key, value in node.value:
        if key.value in (TARGET, "defaults", *DECLARATIONS):
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and not value.flow_style and value.value:
            line = key.start_mark.line
            about = lines[line].partition("#")[2].strip() or _above(line, lines)
            yield from _keys(value, lines, text, f"{name}.", about)
            continue
        end = value.end_mark
        comment = "" if end.line >= len(lines) else lines[end.line][end.column :].strip()
        written = " ".join(text[value.start_mark.index : end.index].split())
        line = key.start_mark.line
        meanings = (comment.lstrip("# "), arguments.get(key.value), _above(line, lines), outer)
        yield Key(name, written, next(filter(None, meanings), ""))


def _above(line: int, lines: Sequence[str]) -> str:
    """The comment on the lines above a line."""
    comment: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        comment.insert(0, lines[line].lstrip("# "))
    return " ".join(comment)


def _arguments(target: str) -> dict[str, str]:
    """Argument → what the class or function, or a base class, says of it."""
    if not target:
        return {}
    thing = locate(target, target)
    described: dict[str, str] = {}
    for owner in reversed(inspect.getmro(thing) if inspect.isclass(thing) else (thing,)):
        if owner is not object:
            described |= entries(owner) | entries(owner, "Attributes")
    return described


def settings_of(group: str, name: str) -> Mapping[str, Any]:
    """The settings of an entry of a group, as a run has them by default.

    A value that must be given, ???, is "given".
    """
    path = FOLDER / group / f"{name}.yaml"
    entry = yaml.safe_load(path.read_text(encoding="utf-8"))[name]
    whole = OmegaConf.create({**_defaults(), group: {name: entry}})
    for key in keys_of(path, group, name):
        if key.value == "???":
            OmegaConf.update(whole, f"{group}.{name}.{key.name}", "given")
    settings: Any = OmegaConf.to_container(whole[group][name], resolve=True)
    return settings


@cache
def _defaults() -> dict[str, Any]:
    """The settings of config.yaml, as they are written."""
    return yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))


def metrics_of(judge: str) -> tuple[str, ...]:
    """The metrics of a judge by its default settings."""
    settings = settings_of("judge", judge)
    return DeclaredJudge(settings).measured(judge, "").metrics
