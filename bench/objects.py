"""Builds objects from settings: the dotted path of a class, and its arguments."""

from collections.abc import Iterator, Mapping
from copy import copy
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bench.errors import UserError, choose_one_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

TARGET = "_target_"  # the key of the class's dotted path among an object's settings
# Keys of a system's settings that are no arguments of its class: its training data and the networks
# that it was made with, see `bench.systems.declared_facts`. No conversion depends on them.
TRAINING_DATA = "_trained_on_"
NETWORKS = "_networks_"
DECLARATIONS = (TRAINING_DATA, NETWORKS)


def build(settings: "Mapping[str, Any] | DictConfig", what: str, **more: Any) -> Any:
    """Builds the object that settings describe: `_target_` names its class, the rest are arguments.

    Args:
        settings: as in a YAML of `bench/conf`; objects may be nested.
        what: the object's role in error messages: "system world".
        more: further arguments.

    Raises:
        UserError: if its module cannot be imported, the class does not exist, or it does not take
            these arguments. A UserError that the class raises is passed on unchanged.
    """
    from hydra.errors import InstantiationException  # Hydra's import takes time
    from hydra.utils import instantiate
    from omegaconf import DictConfig, OmegaConf, open_dict

    config = settings if isinstance(settings, DictConfig) else OmegaConf.create(dict(settings))
    if TARGET not in config:
        raise UserError(f"{what}: no _target_ in its settings; give the dotted path of its class")
    if declared := [key for key in DECLARATIONS if key in config]:
        config = copy(config)
        with open_dict(config):
            for key in declared:
                del config[key]
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
        if error.__cause__ is None:  # raised by Hydra itself
            reason = " ".join(str(error).partition("\nfull_key")[0].split())
        else:
            reason = _with_causes(error.__cause__)
        raise UserError(f"{what} ({config._target_}): {reason}") from error
    except SystemExit as error:
        raise UserError(f"{what} ({config._target_}): {_with_causes(error)}") from error


def locate(path: str, what: str) -> Any:
    """Imports the class or function of a dotted path.

    Hydra's search hides why an import failed: it reports a missing attribute of the package instead
    of the error in the module.

    Args:
        path: "package.module.Class" or "package.module.Class.method".
        what: its role, for the error: "system world".

    Raises:
        UserError: with the module and the reason, if a module is missing or its import fails in
            any way but Ctrl-C; with the nearest known name, if a module or class lacks a name. A
            UserError that a module raises itself passes through.
    """
    name, *rest = path.split(".")
    located: Any = _import(name, path, what)
    if located is None:
        raise UserError(
            f"{what} ({path}): no module {name!r}; install the package that has it, or call "
            f"vcbench in the folder that has {name}.py"
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
    """Every `_target_` in plain settings, the outermost first."""
    if isinstance(node, dict):
        if isinstance(node.get(TARGET), str):
            yield node[TARGET]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _targets(part)


def _import(name: str, path: str, what: str) -> ModuleType | None:
    """Imports the module; None if no module has this name.

    Raises:
        UserError: if the module exists but its import fails.
    """
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
    """The error and its first explicit cause, on one line.

    Errors that were being handled when it was raised are left out: they may be unrelated.
    """
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    lines = [
        f"{type(e).__name__}: {' '.join(str(e).split())}".removesuffix(": ") for e in (error, first)
    ]
    return lines[0] if lines[1] in lines[0] else ", caused by ".join(lines)


def _names(owner: Any) -> list[str]:
    """The public names that a class has or a module defines: candidates for a mistyped name."""
    names = [name for name in vars(owner) if not name.startswith("_")]
    if not isinstance(owner, ModuleType):
        return names
    module = owner.__name__
    return [name for name in names if getattr(vars(owner)[name], "__module__", None) == module]
