"""`vcbench baseline check NAME`: checks a system against the wrapper contract."""

from collections.abc import Callable, Mapping, Sequence

from rich.text import Text

from baselines.contract import behaviour, resources, sound
from baselines.contract.subject import (
    FAIL,
    NOTE,
    PASS,
    CheckResult,
    Clips,
    FirstFailed,
    NoSpeech,
    Subject,
)
from baselines.contract.watermark import watermark
from bench.cli.arguments import (
    Setting,
    boolean,
    first_operand,
    listed,
    number,
    parse_settings,
    whole_number,
)
from bench.cli.console import Printed
from bench.cli.settings import load
from bench.cli.verbs import systems_of
from bench.errors import UserError, choose_one_of
from bench.objects import build
from bench.systems import EXISTING, declared_facts

CHECKS: Mapping[str, Callable[[Subject], CheckResult]] = {
    "waveform": sound.waveform,
    "rate": sound.rate,
    "length": sound.length,
    "level": sound.level,
    "dc": sound.dc,
    "bandwidth": sound.bandwidth,
    "seed": behaviour.seed,
    "watermark": watermark,
    "reference": behaviour.reference,
    "inputs": behaviour.inputs,
    "state": behaviour.state,
    "memory": resources.memory,
    "writes": resources.writes,
    "globals": resources.process_state,
    "steps": resources.steps,
    "time": resources.time,
}
TRIALS = 20
CALL_SECONDS = 120.0
LONG_SECONDS, LONGER_SECONDS = 60.0, 600.0  # by default, and with long=true
KNOWN: Mapping[str, Setting] = {
    "checks": Setting(f"some of {', '.join(CHECKS)}; default: all", listed),
    "trials": Setting(f"how many are converted; default: {TRIALS}", whole_number),
    "call_seconds": Setting(f"time limit of one conversion; default: {CALL_SECONDS:g}", number),
    "long": Setting(
        f"true: a source of {LONGER_SECONDS:g} s; default: of {LONG_SECONDS:g} s", boolean
    ),
}
SETTINGS = {"baseline check": KNOWN}
STYLES = {PASS: "green", NOTE: "yellow", FAIL: "bold red"}


def check(arguments: Sequence[str]) -> int:
    """`vcbench baseline check NAME [checks=] [trials=] [long=] [call_seconds=] [setting=value …]`.

    Returns:
        1 if a check failed, else 0.

    Raises:
        UserError: if an argument is wrong, or the system cannot be built.
    """
    name, rest = first_operand(arguments, "baseline check", "a system")
    settings = parse_settings(
        [a for a in rest if a.partition("=")[0] in KNOWN or "=" not in a], "baseline check", KNOWN
    )
    overrides = [a for a in rest if a.partition("=")[0] not in KNOWN]
    chosen = _chosen(settings.get("checks"))
    for key in ("trials", "call_seconds"):
        if settings.get(key, 1) <= 0:
            raise UserError(f"{key}={settings[key]:g}: must be more than 0")
    config = load([f"system=[{name}]", *overrides])
    systems = systems_of(config)
    if len(systems) != 1:
        raise UserError(f"baseline check takes one system, not {', '.join(systems) or 'none'}")
    ((name, declared),) = systems.items()
    if declared_facts(declared, f"system {name}").kind == EXISTING:
        raise UserError(f"system {name} is audio that exists already; there is nothing to check")
    clips = Clips(build(config.known_recordings, "known_recordings"))
    out, failures = Printed(), 0
    with Subject(
        name,
        declared,
        clips,
        call_seconds=settings.get("call_seconds", CALL_SECONDS),
        trials=settings.get("trials", TRIALS),
        long_seconds=LONGER_SECONDS if settings.get("long") else LONG_SECONDS,
    ) as subject:
        if fault := subject.first().fault:
            out.print(Text(f"{name}: its first conversion {fault}"), soft_wrap=True)
            needed = "time" if subject.first().late else "waveform"
            chosen = list(dict.fromkeys([needed, *chosen]))
        for each in chosen:
            with Printed(stderr=True).status(f"{each} …"):
                result = result_of(each, subject)
            failures += result.verdict == FAIL
            line = Text.assemble(
                (f"{result.verdict:<5}", STYLES[result.verdict]), (f"{each:<10}", "bold")
            )
            out.print(line.append(result.reason), soft_wrap=True, highlight=False)
    return 1 if failures else 0


def result_of(name: str, subject: Subject) -> CheckResult:
    """The result of one check; a conversion of ordinary speech that fails is a result too."""
    try:
        return CHECKS[name](subject)
    except FirstFailed as error:
        return CheckResult(NOTE, f"not checked: {error}")
    except NoSpeech as error:
        return CheckResult(FAIL, str(error))


def _chosen(names: Sequence[str] | None) -> list[str]:
    """The checks to make, in their order.

    Raises:
        UserError: if a name is unknown.
    """
    for name in names or ():
        if name not in CHECKS:
            raise UserError(f"checks: unknown check {name!r}; {choose_one_of(name, CHECKS)}")
    return [name for name in CHECKS if names is None or name in names]
