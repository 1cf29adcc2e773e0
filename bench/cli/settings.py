"""The command line's settings: composed by Hydra, checked, and turned into objects."""

import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.devices import torch_device
from bench.errors import UserError, choose_one_of

FOLDER = Path(__file__).parents[1] / "conf"
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
    if any(o.startswith("wavs=") and o != "wavs=null" for o in overrides):
        expanded += _around_wavs(overrides)
    _check_names(expanded)
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
    if not isinstance(config.isolated, bool):
        raise UserError(f"isolated={config.isolated!r}: must be true or false")
    limit = config.trial_seconds
    if limit is not None and (isinstance(limit, bool | str) or not 0 < limit < float("inf")):
        raise UserError(f"trial_seconds={limit!r}: must be a positive number of seconds, or null")
    for name in ("outputs", "cache", "corpora", *(["wavs"] if config.wavs is not None else [])):
        if not isinstance(config[name], str) or not config[name].strip():
            raise UserError(
                f"{name}={config[name]!r}: must be a path; leave it out for the default"
            )
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
        UserError: if its module cannot be imported, if there is no such class, or if it does not
            take these arguments; errors that the class raises itself pass through as they are when
            they are a UserError.
    """
    if not isinstance(config, DictConfig) or "_target_" not in config:
        raise UserError(f"{what}: no _target_ in its settings; give the dotted path of its class")
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{what}: it needs a value: {missing[0]}=…")
    for target in _targets(OmegaConf.to_container(config, resolve=True)):
        locate(target, what)
    try:
        return instantiate(config, **more)
    except InstantiationException as error:
        chained: BaseException = error
        while (deeper := chained.__cause__ or chained.__context__) is not None:
            if isinstance(deeper, UserError):
                raise deeper from error
            chained = deeper
        if error.__cause__ is None:  # Hydra's own
            reason = " ".join(str(error).partition("\nfull_key")[0].split())
        else:
            reason = _with_causes(error.__cause__)
        raise UserError(f"{what} ({config._target_}): {reason}") from error
    except SystemExit as error:
        raise UserError(f"{what} ({config._target_}): {_with_causes(error)}") from error


def locate(path: str, what: str) -> Any:
    """The class or function of a dotted path, its modules imported.

    Hydra's own search hides why an import failed: it reports the attribute that the package lacks
    because its module could not be imported.

    Args:
        path: "package.module.Class" or "package.module.Class.method".
        what: what it is for, for the error: "system world".

    Raises:
        UserError: with the module and the reason, if a module is missing or its import fails in
            any way but Ctrl-C; with the nearest known name, if a module or class lacks a name. A
            UserError that a module raises itself passes through.
    """
    name, *rest = path.split(".")
    located: Any = _import(name, path, what)
    if located is None:
        raise UserError(
            f"{what} ({path}): no module {name!r}; install the package that has it, or add the "
            "folder that holds it to PYTHONPATH"
        )
    for part in rest:
        owner, name = name, f"{name}.{part}"
        try:
            located = getattr(located, part)
            continue
        except AttributeError:
            pass
        except Exception as error:  # a package that imports its modules on first use
            raise _import_failed(name, path, what, error) from error
        module = _import(name, path, what) if isinstance(located, ModuleType) else None
        if module is None:
            raise UserError(
                f"{what} ({path}): {owner} has no {part!r}; {choose_one_of(part, _names(located))}"
            )
        located = module
    return located


def _targets(node: Any) -> Iterator[str]:
    """Every dotted path among plain settings, the outermost first."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _targets(part)


def _import(name: str, path: str, what: str) -> ModuleType | None:
    """The module; None where there is none of this name."""
    try:
        return import_module(name)
    except (KeyboardInterrupt, UserError):
        raise
    except BaseException as error:  # also SystemExit, and the panics of compiled packages
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            return None
        raise _import_failed(name, path, what, error) from error


def _import_failed(name: str, path: str, what: str, error: BaseException) -> UserError:
    return UserError(
        f"{what} ({path}): importing {name} failed: {_with_causes(error)}; "
        f"for the traceback: python -c 'import {name}'"
    )


def _with_causes(error: BaseException) -> str:
    """The error and the one that it was first raised from, on one line.

    Not those that were being handled when it was raised: they may have nothing to do with it.
    """
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    lines = [
        f"{type(e).__name__}: {' '.join(str(e).split())}".removesuffix(": ") for e in (error, first)
    ]
    return lines[0] if lines[1] in lines[0] else ", caused by ".join(lines)


def _names(owner: Any) -> list[str]:
    """What a module defines itself, or a class has: what a mistyped name may have meant."""
    names = [name for name in vars(owner) if not name.startswith("_")]
    if not isinstance(owner, ModuleType):
        return names
    module = owner.__name__
    return [name for name in names if getattr(vars(owner)[name], "__module__", None) == module]


def _expand(override: str) -> list[str]:
    """Turns dotted paths among a group's names into settings of their own."""
    group, _, value = override.partition("=")
    if group.lstrip("+") == "preset":
        return [_known_preset(override)]
    listed = re.fullmatch(r"\[([^\[\]{}]*)\]|([^\[\]{},]*)", value)
    if group not in GROUPS or listed is None:
        return [override]
    names = [name.strip() for name in (listed[1] or listed[2] or "").split(",") if name.strip()]
    known = options(group)
    dotted = list(dict.fromkeys(name for name in names if "." in name))
    for name in set(names) - set(dotted) - set(known):
        raise UserError(
            f"unknown {group} {name!r}; {choose_one_of(name, known)}; "
            f"or the dotted path of a class: {group}=my_package.MyClass"
        )
    plain = [name for name in names if name not in dotted]
    own = [f"+{group}.{_snake(path.rpartition('.')[2])}._target_={path}" for path in dotted]
    return [f"{group}=[{','.join(plain)}]", *own]


def _known_preset(override: str) -> str:
    """The override; raises UserError unless it names a preset, or [] for none."""
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
    """What `wavs=FOLDER` stands for: a system of the folder's name between floor and ceiling."""
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
    """The sentence in a configuration error that helps, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [
        x for x in lines if x and not x.startswith(("full_key", "object_type", "reference_type"))
    ]
    return " ".join(said[:2]).rstrip(".")
