"""Checks the settings `executor.*` and makes the executor of a run from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from bench.errors import UserError, choose_one_of

if TYPE_CHECKING:
    from bench.run.executors import RayExecutor

LOCAL = "local"


@dataclass
class StageNode:
    """The settings of the workers of a stage; `bench/conf/executor/ray.yaml` describes each."""

    workers: int | None = None
    gpus: float | None = None
    cpus: float = 1.0


@dataclass
class RayNode:
    """The settings of `executor=ray`."""

    name: str = "ray"
    address: str | None = None
    convert: StageNode = field(default_factory=StageNode)
    judge: StageNode = field(default_factory=StageNode)
    judges: dict[str, Any] = field(default_factory=dict)
    files: str = "shared"
    memory: float | None = None


MUST = {
    "workers": "a positive whole number, or null",
    "gpus": "a whole number, a share such as 0.5, or null",
    "cpus": "a positive number",
    "memory": "a positive number of GiB, or null",
    "address": "null, auto or HOST:PORT",
    "files": "shared or store",
}


def checked_executor(node: DictConfig, judges: Mapping[str, Any]) -> None:
    """Checks and converts the settings of an executor.

    Args:
        node: changed to values of the right types.
        judges: of the run, by name.

    Raises:
        UserError: names the setting, its value and what it must be.
    """
    if node.name == LOCAL:
        if more := sorted(set(node) - {"name"}):
            raise UserError(
                f"executor.{more[0]}={node[more[0]]!r}: executor=local has no such setting; "
                "name the executor too: executor=ray"
            )
        return
    typed = OmegaConf.structured(RayNode)
    known = [part.name for part in fields(RayNode)]
    if more := sorted(set(node) - set(known)):
        raise UserError(f"executor.{more[0]}: {choose_one_of(more[0], known)}")
    for name in ("address", "convert", "judge", "files", "memory"):
        _convert(node, typed, name, "executor")
    for name in node.judges:
        if name not in judges:
            raise UserError(f"executor.judges.{name}: {choose_one_of(str(name), judges)}")
        stage = OmegaConf.structured(StageNode)
        stage.merge_with(node.judge)
        for key in node.judges[name]:
            _convert(node.judges[name], stage, key, f"executor.judges.{name}")
        node.judges[name] = stage


def _convert(node: DictConfig, typed: Any, name: str, path: str) -> None:
    """Puts a value into a structured node, and back as that node's type."""
    value = node[name]
    if isinstance(value, DictConfig):
        for key in value:
            _convert(value, typed[name], str(key), f"{path}.{name}")
        return
    try:
        typed[name] = value
        value = typed[name]
        if name == "files" and value not in ("shared", "store"):
            raise ValueError
        if name not in ("address", "files") and value is not None:
            # A worker on several GPUs has whole ones; a share is of one.
            whole = name == "gpus" and (value < 1 or value == int(value))
            if not (0 <= value < float("inf")) or (name == "gpus" and not whole):
                raise ValueError
            if name != "gpus" and value == 0:
                raise ValueError
        if value == "":
            raise ValueError
    except ConfigKeyError as error:
        raise UserError(f"{path}.{name}: {choose_one_of(name, list(typed))}") from error
    except (OmegaConfBaseException, ValueError, OverflowError) as error:
        must = MUST.get(name, "a group of settings")
        raise UserError(f"{path}.{name}={node[name]!r}: must be {must}") from error
    node[name] = value


def executor_of(config: DictConfig) -> "RayExecutor | None":
    """The executor that the settings describe; None for this process.

    Raises:
        UserError: if it needs a package that is missing.
    """
    if config.executor.name == LOCAL:
        return None
    from bench.run.executors import RayExecutor, RaySettings, StageSettings  # imports torch

    node: Any = OmegaConf.to_container(config.executor, resolve=True)
    executor = RayExecutor(
        RaySettings(
            node["address"],
            StageSettings(**node["convert"]),
            StageSettings(**node["judge"]),
            {name: StageSettings(**stage) for name, stage in node["judges"].items()},
            node["files"],
            node["memory"],
        )
    )
    executor.check()
    return executor
