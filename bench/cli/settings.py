"""Reads the settings of the command line: Hydra composes them, this module checks them."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException, ValidationError

from bench.cli.executor import checked_executor
from bench.devices import check_device
from bench.errors import UserError, choose_one_of
from bench.files import package_folder
from bench.objects import TARGET

FOLDER = Path(__file__).parents[1] / "conf"
GROUPS = ("system", "suite", "judge", "report")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
MANIFEST = ".jsonl"  # the ending of a trial list
PROGRESS = ("bars", "json", "none")
A_PATH = "a path; leave it out for the default"


def _must_be(what: str) -> Any:
    return field(metadata={"must": what})


@dataclass
class Settings:
    """The settings with a single value; `bench/conf/config.yaml` describes each."""

    name: str = _must_be("a name of letters, digits and . _ + - only")
    outputs: str = _must_be(A_PATH)
    cache: str = _must_be(A_PATH)
    corpora: str = _must_be(A_PATH)
    seed: int = _must_be("a whole number")
    limit: int | None = _must_be("a positive number of trials, or null")
    overwrite: bool = _must_be("true or false")
    allow_changed: bool = _must_be("true or false")
    isolated: bool = _must_be("true or false")
    trial_seconds: float | None = _must_be("a positive number of seconds, or null")
    wavs: str | None = _must_be("a folder of finished conversions, or null")
    root: str | None = _must_be("the folder of a corpus, or null")
    shard: str | None = _must_be("i/n with 1 ≤ i ≤ n, such as 2/8, or null")
    progress: str = _must_be("bars, json or none")


def _check_values(config: DictConfig) -> None:
    """Checks and converts the settings of `Settings`.

    Raises:
        UserError: names the setting, its value and what it must be.
    """
    typed = OmegaConf.structured(Settings)
    for known in fields(Settings):
        value, must = config[known.name], known.metadata["must"]
        try:
            typed[known.name] = value
            value = typed[known.name]
            if isinstance(value, str) and not value.strip():
                raise ValueError
            if known.name == "name" and not NAME.fullmatch(value):
                raise ValueError
            if known.name == "shard" and value is not None:
                from bench.run.shards import Shard  # imports torch

                Shard.parse(value)
            if known.name == "progress" and value not in PROGRESS:
                raise ValueError
            numeric = known.name in ("limit", "trial_seconds") and value is not None
            if numeric and not 0 < value < float("inf"):
                raise ValueError
        except (ValidationError, ValueError) as error:
            raise UserError(f"{known.name}={config[known.name]!r}: must be {must}") from error
        config[known.name] = value
    check_device(config.device)


def _package(name: str) -> str:
    """Resolves `${package:NAME}` in a YAML: the folder of an importable package."""
    if (folder := package_folder(name)) is None:
        raise UserError(f"${{package:{name}}}: no package {name!r} can be imported")
    return str(folder)


OmegaConf.register_new_resolver("package", _package, replace=True)


def options(group: str) -> dict[str, str]:
    """The known names of a group, each with the comment on the first line of its YAML."""
    sentences = {}
    for path in sorted((FOLDER / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        first = next((line for line in lines if not line.startswith("# @package")), "")
        sentences[path.stem] = first.removeprefix("#").strip() if first.startswith("#") else ""
    return sentences


def load(overrides: Sequence[str]) -> DictConfig:
    """The settings with the command line's overrides.

    In a group, a dotted path names any importable class: `system='[world,my_package.MySystem]'`.

    Raises:
        UserError: names the override that is not understood, and the known names.
    """
    manifests: dict[str, str] = {}
    expanded = [part for override in overrides for part in _expand(override, manifests)]
    if any(o.startswith("wavs=") and o != "wavs=null" for o in overrides):
        expanded += _around_wavs(overrides)
    _check_names(expanded)
    try:
        config = deepcopy(_composed(tuple(expanded)))
        _add_manifests(config, manifests)
        if manifests and not any(o.lstrip("+").startswith("name=") for o in overrides):
            config.name = next(iter(manifests))
        OmegaConf.to_container(config, resolve=True)
    except OverrideParseException as error:
        raise UserError(
            f"{error.override!r} is not a setting; write name=value, and quote lists: "
            "system='[source,world]'"
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{_reason(error)}; `vcbench ls` lists what is known") from error
    _note_changes(config, overrides)
    for group in GROUPS:
        for name in config[group]:
            if not NAME.fullmatch(str(name)):
                raise UserError(f"{group} {name!r}: a name has letters, digits and . _ + - only")
    _check_values(config)
    checked_executor(config.executor, config.judge)
    return config


@lru_cache(maxsize=64)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def _note_changes(config: DictConfig, overrides: Sequence[str]) -> None:
    """Adds the user's changes to a publication's judges to the preset's deviations.

    Raises:
        UserError: if the preset has settings for a judge that the user left out.
    """
    if config.preset.get("publication") is None:
        return
    for name, node in config.judge.items():
        if "_target_" not in node:
            raise UserError(
                f"preset={config.preset.name} is about judge {name}, which judge=… leaves out; "
                "name it too, or take preset=offline"
            )
    changed = [o for o in overrides if o.lstrip("+~").startswith("judge")]
    notes = [f"Set on the command line: {o}".replace("${", "\\${") for o in changed]
    config.preset.deviations = [*config.preset.deviations, *notes]


def _add_manifests(config: DictConfig, manifests: dict[str, str]) -> None:
    """Adds the suites that were given as trial lists; the setting `root` is their corpus folder."""
    for name, path in manifests.items():
        if name in config.suite:
            raise UserError(
                f"suite {path} and suite {name} would both be called {name!r}; rename the file"
            )
        if config.root is None:
            raise UserError(f"suite={path} needs the folder of its recordings: root=FOLDER")
        with open_dict(config.suite):
            config.suite[name] = {
                TARGET: "bench.trials.Suite.load",
                "manifest": path,
                "root": "${root}",
            }


def _expand(override: str, manifests: dict[str, str]) -> list[str]:
    """Turns each dotted path among a group's names into a setting.

    Args:
        override: as the user wrote it.
        manifests: trial lists among the suites are added to it, name → path.
    """
    group, _, value = override.partition("=")
    if group.lstrip("+") == "preset":
        return [_known_preset(override)]
    if group == "executor" and value not in (known := options("executor")):
        raise UserError(f"unknown executor {value!r}; {choose_one_of(value, known)}")
    listed = re.fullmatch(r"\[([^\[\]{}]*)\]|([^\[\]{},]*)", value)
    if group not in GROUPS or listed is None:
        return [override]
    names = [name.strip() for name in (listed[1] or listed[2] or "").split(",") if name.strip()]
    known = options(group)
    if group == "suite":
        for path in (name for name in names if name.endswith(MANIFEST)):
            manifests[_suite_name(path)] = path.strip("'\"")
        names = [name for name in names if not name.endswith(MANIFEST)]
    dotted = list(dict.fromkeys(name for name in names if "." in name))
    for name in set(names) - set(dotted) - set(known):
        raise UserError(
            f"unknown {group} {name!r}; {choose_one_of(name, known)}; "
            f"or the dotted path of a class: {group}=my_package.MyClass"
        )
    plain = [name for name in names if name not in dotted]
    classes = [f"+{group}.{_snake(path.rpartition('.')[2])}.{TARGET}={path}" for path in dotted]
    return [f"{group}=[{','.join(plain)}]", *classes]


def _suite_name(path: str) -> str:
    """The name of a suite that is given as a trial list: the file's, without its version."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", re.sub(r"\.v\d+$", "", Path(path).stem)) or "suite"


def _known_preset(override: str) -> str:
    """Returns the override; raises UserError unless it names a preset or is [] (none)."""
    value = override.partition("=")[2].strip("'\"")
    name = value.strip("[]").strip("'\" ")
    known = options("preset")
    if value != "[]" and name not in known:
        raise UserError(f"unknown preset {name!r}; {choose_one_of(name, known)}")
    return override


def _check_names(overrides: Sequence[str]) -> None:
    """Raises UserError if two entries of a group would have one name.

    Args:
        overrides: as `_expand` returns them.
    """
    entries: dict[tuple[str, str], list[str]] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in GROUPS:
            for name in filter(None, value.strip("[]").split(",")):
                if name not in (alike := entries.setdefault((key, name), [])):
                    alike.append(name)
        elif added := re.fullmatch(r"\+(\w+)\.([^.]+)\._target_", key):
            entries.setdefault((added[1], added[2]), []).append(value)
    for (group, name), alike in entries.items():
        if len(alike) > 1:
            raise UserError(
                f"{group} {alike[0]} and {group} {alike[1]} would both be called {name!r}; "
                f"in place of {alike[1]} write +{group}.other_name._target_={alike[1]}"
            )


def _around_wavs(overrides: Sequence[str]) -> list[str]:
    """Expands `wavs=FOLDER`: a system named after the folder, with the floor and the ceiling."""
    folder = next(o for o in overrides if o.startswith("wavs=")).partition("=")[2].strip("'\" ")
    if not folder:
        raise UserError(f"wavs={folder!r}: must be a folder; leave it out for none")
    given = {name: value for name, _, value in (o.partition("=") for o in overrides)}
    others = re.split(r"[\[\], ]+", given.get("system", "source,target"))
    name = re.sub(r"[^A-Za-z0-9_]", "_", Path(folder).resolve().name).strip("_") or "wavs"
    name = name if name[0].isalpha() and name not in others else f"wavs_{name}"
    more = [
        f"+system.{name}._target_=bench.systems.Wavs",
        f"+system.{name}.folder=${{wavs}}",
    ]
    if "system" not in given:
        more.append("system=[source,target]")
    if "name" not in given:
        more.append(f"name={name}")
    return more


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _reason(error: Exception) -> str:
    """The useful sentence of a configuration error, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    details = ("full_key", "object_type", "reference_type")
    sentences = [line for line in lines if line and not line.startswith(details)]
    return " ".join(sentences[:2]).rstrip(".")
