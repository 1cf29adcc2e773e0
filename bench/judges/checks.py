"""Checks a judge's settings before it is built, so that a mistake ends a run before it converts."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.devices import torch_device
from bench.errors import UserError, choose_one_of, shown
from bench.trials import Suite

OURS = "bench.judges."
SHOWN = 5  # languages in a message
JUDGES_OF = {"en": "wer_whisper_base", "zh": "cer_whisper_base"}  # what to take instead


def check_settings(
    settings: Mapping[str, Any], where: str, locate: Callable[[str], Any] | None = None
) -> None:
    """Checks the settings of a judge and of the models in it; no weights are looked for or loaded.

    A class may have a static method `check_settings(settings)`, which raises a UserError about
    settings that its constructor would refuse. It receives the settings that are set, by name.

    Args:
        settings: plain Python: `_target_` and the arguments of its class, some of which may be
            such mappings too.
        where: what they are called on the command line, for the error: "judge.dnsmos".
        locate: dotted path → the class, its modules imported; None to check without the classes.

    Raises:
        UserError: names the setting, its value and what is known.
    """
    path = settings.get("_target_")
    arguments = {k: v for k, v in settings.items() if not k.startswith("_")}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            check_settings(value, f"{where}.{name}", locate)
    if not isinstance(path, str):
        return
    try:
        if path.startswith(OURS):
            _check_common(arguments)
        if locate is not None:
            target = locate(path)
            _check_names(target, arguments, "_args_" in settings)
            check = getattr(target, "check_settings", None)
            if check is not None:
                check(arguments)
    except UserError as error:
        raise UserError(f"{where}.{error}") from error


def check_choices(name: str, chosen: Any, known: Iterable[str]) -> None:
    """Raises UserError unless `chosen` lists some of `known`, none of them twice."""
    known = list(known)
    several = "both" if len(known) == 2 else "several"
    wrong = f"name {' or '.join(known)}, or {several}"
    if isinstance(chosen, str) or not isinstance(chosen, Sequence):
        raise UserError(f"{name}={shown(chosen)}: must be a list; {wrong}")
    values = list(chosen)
    if not values or any(value not in known for value in values):
        raise UserError(f"{name}={shown(values)}: {wrong}")
    if len(set(values)) < len(values):
        raise UserError(f"{name}={shown(values)}: each at most once")


def check_number(
    settings: Mapping[str, Any], name: str, least: float, most: float = math.inf
) -> None:
    """Raises UserError unless the setting, where it is set, is a number from `least` to `most`."""
    value = settings.get(name, least)
    if type(value) not in (int, float) or not least <= value <= most:
        to = f" to {most:g}" if most < math.inf else " or more"
        raise UserError(f"{name}={shown(value)}: must be a number, {least:g}{to}")


def languages_of(
    settings: Mapping[str, Any], locate: Callable[[str], Any]
) -> frozenset[str] | None:
    """The languages that a judge can judge by its settings; it is not built.

    Those of its class (`bench.judges.Judge.languages`) that the models in its settings share.

    Args:
        settings: see `check_settings`.
        locate: dotted path → the class, its modules imported.

    Returns:
        ISO 639 codes, or None for any language.
    """
    parts = [languages_of(v, locate) for v in settings.values() if isinstance(v, Mapping)]
    path = settings.get("_target_")
    if isinstance(path, str):
        target = locate(path)
        decide = getattr(target, "languages_for", None)
        parts.append(decide(settings) if decide else getattr(target, "languages", None))
    return common_languages(*parts)


def common_languages(*parts: Iterable[str] | None) -> frozenset[str] | None:
    """The languages that all parts know; None is any language."""
    known = [frozenset(part) for part in parts if part is not None]
    return frozenset.intersection(*known) if known else None


def check_languages(name: str, languages: Iterable[str] | None, suites: Iterable[Suite]) -> None:
    """Raises UserError if a suite has speech in a language that the judge cannot judge.

    Args:
        name: the judge's.
        languages: see `bench.judges.Judge.languages`.
        suites: what it would judge.
    """
    if languages is None:
        return
    known = sorted(languages)
    for suite in suites:
        for trial in suite.trials:
            if trial.language not in known:
                listed = ", ".join(known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
                listed = listed or "no language: its recogniser and normalisations differ"
                transcribes = name.startswith(("wer", "cer")) or not known
                judges = JUDGES_OF.get(trial.language) if transcribes else None
                way = f"take judge={judges} for it" if judges else "leave the judge out"
                if transcribes:
                    way += ", or set its recogniser's language and its normalisations"
                raise UserError(
                    f"judge {name} measures {listed}, but suite {suite.name} is in "
                    f"{trial.language} (trial {trial.trial_id}); {way}"
                )


def _check_common(arguments: Mapping[str, Any]) -> None:
    """The arguments that mean the same in every class of this package."""
    if "device" in arguments:
        torch_device(arguments["device"])
    batch_size = arguments.get("batch_size", 1)
    if type(batch_size) is not int or batch_size < 1:
        raise UserError(f"batch_size={shown(batch_size)}: must be a whole number, at least 1")
    weights = arguments.get("weights")
    if weights is not None and not (
        isinstance(weights, str) and weights and Path(weights).expanduser().exists()
    ):
        raise UserError(
            f"weights={shown(weights)}: no such file or folder; correct it, or set it to null"
        )


def _check_names(target: Any, arguments: Mapping[str, Any], more: bool) -> None:
    """Raises UserError if the class does not take these arguments, or needs others.

    Args:
        target: a class or function.
        arguments: by name.
        more: whether there are others, by position.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # no Python function
        return
    kinds = inspect.Parameter
    if not any(p.kind is kinds.VAR_KEYWORD for p in parameters.values()):
        names = [n for n, p in parameters.items() if p.kind is not kinds.VAR_POSITIONAL]
        for name in arguments:
            if name not in names:
                raise UserError(f"{name}: no such setting; {choose_one_of(name, names)}")
    for name, parameter in parameters.items():
        needed = parameter.default is kinds.empty and parameter.kind in (
            kinds.POSITIONAL_OR_KEYWORD,
            kinds.KEYWORD_ONLY,
        )
        if needed and not more and name not in arguments:
            raise UserError(f"{name}: it needs a value")


def networks_of(judge: Any, name: str) -> list[str] | None:
    """The names of a judge's networks; None if it declares none.

    Raises:
        UserError: if they are no texts.
    """
    declared = getattr(judge, "networks", None)
    if declared is None:
        return None
    names = [] if isinstance(declared, str) else list(declared)
    if isinstance(declared, str) or not all(isinstance(n, str) and n.strip() for n in names):
        raise UserError(
            f"judge {name}: networks is {shown(declared)}; it must be a tuple of names such as "
            "('whisper-base',), empty where it judges with no network"
        )
    return names
