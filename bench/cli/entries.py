"""The systems of the settings as rows of the results, each that converts in its own process."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.errors import UserError
from bench.files import write_json
from bench.objects import build, locate
from bench.provenance import PROJECT, code_changed, loaded_code
from bench.stages.convert import Entry, settings_fingerprint
from bench.stages.guard import guarded
from bench.stages.isolated import Facts, Isolated
from bench.stages.worker import BrokenMessage
from bench.systems import SYSTEM, facts_of


def built_entries(config: DictConfig) -> list[Entry]:
    """The systems of the settings, all built in this process."""
    return [_built_here(name, node) for name, node in _systems(config)]


@dataclass(frozen=True)
class Started:
    """The systems of a run, as far as they are built.

    Attributes:
        config: the run's settings.
        folder: the run's folder.
        isolated: systems that convert in a process of their own, by name.
        identities: of these, the hash of their settings and of the files that they name.
    """

    config: DictConfig
    folder: Path
    isolated: dict[str, Isolated]
    identities: dict[str, str]

    def entries(self) -> list[Entry]:
        """The rows of the results, in the order of the settings.

        Each system is built once, so that a wrong setting stops the run before hours of work. Only
        the first stays: the others are built again when they convert, one in memory at a time. What
        a process says of its system is kept in the run's folder, so that nothing is built where
        nothing is left to convert.

        Raises:
            UserError: if a system cannot be built.
        """
        entries = []
        for name, node in _systems(self.config):
            system = self.isolated.get(name)
            if system is None or system.facts.kind != SYSTEM:
                entries.append(_built_here(name, node))
                continue
            facts = system.facts
            if system is not next(iter(self.isolated.values())):
                system.close()
            entry = Entry(name, system, plain(node), facts.code)
            record = {"settings": self.identities[name], **facts.to_json()}
            write_json(_facts_path(self.folder, name), record)
            entries.append(entry)
        return entries


@contextmanager
def started(config: DictConfig, folder: Path) -> Iterator[Started]:
    """Begins to build the first system that must be; all processes end with the block.

    Raises:
        UserError: names a setting that cannot be recorded, such as NaN.
    """
    with ExitStack() as stack:
        isolated: dict[str, Isolated] = {}
        identities: dict[str, str] = {}
        for name, node in _systems(config) if config.isolated else ():
            if not _only_picks_files(name, node):
                identities[name] = _identity(name, node)
                known = None if config.overwrite else _known_facts(folder, name, identities[name])
                isolated[name] = Isolated(name, plain(node), config.trial_seconds, known)
                stack.callback(isolated[name].close)
        first = next(iter(isolated.values()), None)
        if first is not None and not first.known:
            first.start()
        yield Started(config, folder, isolated, identities)


def plain(node: Any) -> dict[str, Any]:
    """A configuration as plain Python, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def _built_here(name: str, node: DictConfig) -> Entry:
    with guarded():
        system = build(node, f"system {name}")
        facts_of(system, f"system {name}")
    return Entry(name, system, plain(node), loaded_code(node._target_))


def _systems(config: DictConfig) -> list[tuple[str, DictConfig]]:
    if not config.system:
        raise UserError("no system to run; name at least one: system=world")
    return [(str(name), node) for name, node in config.system.items()]


def _only_picks_files(name: str, node: DictConfig) -> bool:
    """Whether it is a class of this project that converts nothing: it is built in this process."""
    target = str(node.get("_target_"))
    if target.partition(".")[0] not in PROJECT:
        return False
    return not hasattr(locate(target, f"system {name}"), "convert")


def _facts_path(folder: Path, system: str) -> Path:
    return folder / "conversions" / system / "system.json"


def _identity(name: str, node: DictConfig) -> str:
    """Hash of a system's settings and of the files that they name."""
    return settings_fingerprint(Entry(name, Isolated(name, {}), plain(node)), seed=0)


def _known_facts(folder: Path, name: str, identity: str) -> Facts | None:
    """What is known of a system with these settings and the code of now, or None."""
    try:
        record = json.loads(_facts_path(folder, name).read_bytes())
        if record.pop("settings") != identity:
            return None
        facts = Facts.from_json(record)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, BrokenMessage):
        return None
    return facts if not code_changed(facts.code or {}) else None
