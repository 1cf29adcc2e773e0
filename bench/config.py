"""The command line's settings: composed by Hydra, checked, and turned into objects."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.devices import torch_device
from bench.errors import UserError, choose_one_of

FOLDER = Path(__file__).parent / "conf"
GROUPS = ("system", "suite", "judge", "report")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def package_folder(name: str) -> str:
    """The folder of an importable package: what `${package:NAME}` stands for in a YAML."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"${{package:{name}}}: no package {name!r} can be imported")
    return str(Path(next(iter(spec.submodule_search_locations))))


OmegaConf.register_new_resolver("package", package_folder, replace=True)


def options(group: str) -> dict[str, str]:
    """The known names of a group, each with the sentence that its YAML begins with."""
    found = {}
    for path in sorted((FOLDER / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        first = next((line for line in lines if not line.startswith("# @package")), "")
        found[path.stem] = first.removeprefix("#").strip() if first.startswith("#") else ""
    return found


def load(overrides: Sequence[str]) -> DictConfig:
    """The settings with the command line's overrides.

    In the groups a dotted path names a class of anyone's: `system='[world,my_package.MySystem]'`.

    Raises:
        UserError: names the override that is not understood and what is known in its place.
    """
    expanded = [part for override in overrides for part in _expand(override)]
    if any(override.startswith("wavs=") for override in overrides):
        expanded += _around_wavs(overrides)
    try:
        with initialize_config_dir(str(FOLDER), version_base="1.3"):
            config = compose("config", overrides=expanded)
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
    if not isinstance(config.name, str) or not NAME.fullmatch(config.name):
        raise UserError(f"name={config.name!r}: a run's name has letters, digits and . _ + - only")
    if config.limit is not None and not (type(config.limit) is int and config.limit > 0):
        raise UserError(f"limit={config.limit!r}: must be a positive number of trials, or null")
    if type(config.seed) is not int:
        raise UserError(f"seed={config.seed!r}: must be a whole number")
    if not isinstance(config.overwrite, bool):
        raise UserError(f"overwrite={config.overwrite!r}: must be true or false")
    if not isinstance(config.allow_changed, bool):
        raise UserError(f"allow_changed={config.allow_changed!r}: must be true or false")
    torch_device(config.device)
    for name in ("outputs", "cache", "corpora"):
        if not isinstance(config[name], str):
            raise UserError(f"{name}={config[name]!r}: must be a path")
    return config


def _note_changes(config: DictConfig, overrides: Sequence[str]) -> None:
    """Adds what the user changed of a publication's judges to the preset's deviations.

    Raises:
        UserError: if the preset sets something of a judge that the user left out.
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


def build(config: DictConfig, what: str, **more: Any) -> Any:
    """The object that a YAML's `_target_` and arguments describe.

    Raises:
        UserError: if there is no such class or it does not take these arguments; errors that the
            class raises itself pass through as they are when they are a UserError.
    """
    if not isinstance(config, DictConfig) or "_target_" not in config:
        raise UserError(f"{what}: no _target_ in its settings; give the dotted path of its class")
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{what}: it needs a value: {missing[0]}=…")
    try:
        return instantiate(config, **more)
    except InstantiationException as error:
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            if isinstance(deeper, UserError):
                raise deeper from error
            cause = deeper
        reason = " ".join(str(cause).partition("\nfull_key")[0].split())
        raise UserError(f"{what} ({config._target_}): {reason}") from error


def _expand(override: str) -> list[str]:
    """Turns dotted paths among a group's names into settings of their own."""
    group, _, value = override.partition("=")
    listed = re.fullmatch(r"\[([^\[\]{}]*)\]|([^\[\]{},]*)", value)
    if group not in GROUPS or listed is None:
        return [override]
    names = [name.strip() for name in (listed[1] or listed[2] or "").split(",") if name.strip()]
    known = options(group)
    dotted = [name for name in names if "." in name]
    for name in set(names) - set(dotted) - set(known):
        raise UserError(
            f"unknown {group} {name!r}; {choose_one_of(name, known)}; "
            f"or the dotted path of a class: {group}=my_package.MyClass"
        )
    plain = [name for name in names if name not in dotted]
    own = [f"+{group}.{_snake(path.rpartition('.')[2])}._target_={path}" for path in dotted]
    return [f"{group}=[{','.join(plain)}]", *own]


def _around_wavs(overrides: Sequence[str]) -> list[str]:
    """What `wavs=FOLDER` stands for: a system of the folder's name between floor and ceiling."""
    folder = next(o for o in overrides if o.startswith("wavs=")).partition("=")[2].strip("'\"")
    name = re.sub(r"[^A-Za-z0-9_]", "_", Path(folder).resolve().name).strip("_") or "wavs"
    name = name if name[0].isalpha() else f"wavs_{name}"
    given = {override.partition("=")[0] for override in overrides}
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
    """The sentence in a configuration error that helps, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [
        x for x in lines if x and not x.startswith(("full_key", "object_type", "reference_type"))
    ]
    return " ".join(said[:2]).rstrip(".")
