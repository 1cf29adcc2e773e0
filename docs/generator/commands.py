"""The page of the command line, made from the verbs and their settings."""

import inspect
import re
from collections.abc import Mapping
from importlib import import_module

from bench import __main__ as command_line
from bench.cli import VERBS
from bench.cli.arguments import OneOf, Setting
from bench.objects import locate
from docs.generator.sources import as_sentence, code, lower, page, summary, table, upper

# Modules that have the settings of further verbs.
MORE = ("baselines.contract.commands", "reports.listening.plan_command")
# Verbs that take the settings of a run → their flags.
HYDRA = {
    "run": "`-m` (or `--multirun`) makes one run for every combination of the settings that have "
    "several values.",
    "convert": "",
    "score": "",
    "report": "",
    "doctor": "`--fetch` downloads the missing weights of the judges and systems first.",
}
TYPES = {
    "str": "text",
    "boolean": "true or false",
    "whole_number": "whole number",
    "number": "number",
    "numbers": "numbers, separated by commas",
    "listed": "names, separated by commas",
}


def cli() -> str:
    """Every verb with its settings."""
    usage = command_line.USAGE
    about = dict(re.findall(r"^  (\w+) +(\S.*)$", usage.partition("\nSettings")[0], re.MULTILINE))
    modules = [import_module(path.rpartition(".")[0]) for path in VERBS.values()]
    settings: dict[str, Mapping[str, Setting]] = {}
    for module in (*modules, *map(import_module, MORE)):
        settings |= getattr(module, "SETTINGS", {})
    parts = [
        "# Command line",
        "A command is `vcbench VERB`, then settings `name=value` in any order. A list is written "
        "`name=a,b` or `name='[a,b]'`. `vcbench` without a verb prints the verbs.",
        "Exit codes: 0 done, 1 a check failed, 2 a mistake that is named, 3 undecided, 130 stopped "
        "by Ctrl-C. An error is one line: the value, the reason, the way out. "
        "`VCBENCH_TRACEBACK=1` shows the traceback instead.",
    ]
    for verb, path in VERBS.items():
        module, function = import_module(path.rpartition(".")[0]), locate(path, verb)
        parts += [f"## {verb}", _described(function)]
        parts += [_fenced(command) for command in re.findall(r"vcbench .*", about[verb])]
        if verb in HYDRA:
            parts.append(f"It takes [the settings of a run](settings.md). {HYDRA[verb]}")
        for name, known in settings.items():
            if name.partition(" ")[0] == verb:
                parts += [f"### {name}" if name != verb else "", _usage(name, module)]
                rows = [(code(n), _kind(s), _needed(s)) for n, s in known.items()]
                parts.append(table(("setting", "value", "meaning"), rows) or "No settings.")
    return page(parts)


def _described(function: object) -> str:
    """What a verb does and returns; a docstring may begin with its usage."""
    usage, text = "", summary(function)
    if match := re.match(r"`(vcbench [^`]*)`(\.|: )", text):
        usage, text = _fenced(match[1]), text[match.end() :].strip()
    result = " ".join((inspect.getdoc(function) or "").partition("Returns:\n")[2].split())
    result = result.partition(" Raises:")[0]
    returns = f"Exit code: {lower(result)}" if result and "exit code" not in result else ""
    return "\n\n".join(filter(None, (upper(text), usage, returns)))


def _fenced(command: str) -> str:
    return f"```text\n{command}\n```"


def _usage(verb: str, module: object) -> str:
    """What a module's usage text says of a verb: a command, then indented lines about it."""
    texts = [v for v in vars(module).values() if isinstance(v, str) and v.startswith("vcbench ")]
    for block in re.split(r"\n(?=vcbench )", "\n".join(texts)):
        command, *about = re.split(r"\n    (?! )", block, maxsplit=1)
        words = command.split()[1:]
        of_verb = [w for w in words[:2] if re.fullmatch(r"[a-z]+", w) and w in verb.split()]
        if " ".join(of_verb) == verb:
            return f"{_fenced(command)}\n\n{as_sentence(''.join(about))}"
    return ""


def _kind(setting: Setting) -> str:
    if isinstance(setting.convert, OneOf):
        return " or ".join(map(code, setting.convert.values))
    return TYPES[getattr(setting.convert, "__name__", "")]


def _needed(setting: Setting) -> str:
    return f"{setting.about}; needed" if setting.needed else setting.about
