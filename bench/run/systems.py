"""Builds the systems of a run to convert, one in memory at a time, or reads their records.

The facts about a system (`bench.systems.Facts`) are recorded in the run's folder when it converts,
in conversions/<system>/system.json, as the system and its class declare them. Scoring reads that
file and builds no system. What is declared now (training data, networks) replaces the record: in
the settings, by an object, or by a class of this project, which is safe to import in this process.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import UserError
from bench.files import write_json
from bench.guard import guarded
from bench.objects import TARGET, build, locate
from bench.provenance import PROJECT, code_changed, loaded_code
from bench.stages.convert import Entry, settings_fingerprint
from bench.stages.isolated import Isolated
from bench.systems import EXISTING, SYSTEM, Facts, declared_facts, facts_of

# A system of a run: an object, its class's dotted path, or plain settings with `_target_`.
SystemOrSettings = Any


class StartedSystems:
    """The systems of a run for a conversion; a context manager that ends their processes.

    Args:
        systems: name → object or settings.
        folder: of the run.
        isolated: whether systems that are given by settings convert in separate processes.
            Objects always convert in this process.
        trial_seconds: see `bench.stages.isolated.Isolated`.
        rebuild: ask every system for its facts again, even if the folder has them.

    Raises:
        UserError: names a setting that cannot be recorded, such as NaN.
    """

    def __init__(
        self,
        systems: Mapping[str, SystemOrSettings],
        folder: Path,
        *,
        isolated: bool = True,
        trial_seconds: float | None = None,
        rebuild: bool = False,
    ) -> None:
        self._systems = systems
        self._folder = folder
        self._isolated: dict[str, Isolated] = {}
        for name, system in systems.items():
            settings = settings_of(system)
            Facts().declared_in(settings, f"system {name}")  # a mistake stops the run at once
            if not isolated or not is_declared(system) or _only_has_files(name, settings):
                continue
            identity = _identity(settings, SYSTEM)
            recorded = None if rebuild else _recorded(folder, name)
            known = recorded is not None and recorded[1] == identity
            facts = recorded[0] if recorded is not None and known else None
            if facts is not None and code_changed(facts.code or {}):
                facts = None
            self._isolated[name] = Isolated(name, settings, trial_seconds, facts)

    def __enter__(self) -> "StartedSystems":
        first = next(iter(self._isolated.values()), None)
        if first is not None and not first.known:
            first.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes of the systems."""
        for system in self._isolated.values():
            system.close()

    def entries(self) -> list[Entry]:
        """The systems with their facts, in their order.

        Each system is built once, so that a wrong setting stops the run before hours of work. Only
        the first isolated system stays in memory: the others are built again when they convert.

        Raises:
            UserError: if a system cannot be built.
        """
        entries = []
        for name, system in self._systems.items():
            settings = settings_of(system)
            isolated = self._isolated.get(name)
            if isolated is None or isolated.facts.kind == EXISTING:
                entry = _built_here(name, system, settings)
            else:
                if isolated is not next(iter(self._isolated.values())):
                    isolated.close()
                entry = Entry(name, isolated, settings, isolated.facts)
            identity = _identity(settings, entry.facts.kind)
            record = {"settings": identity, **entry.facts.to_json()}
            write_json(facts_path(self._folder, name), record)
            entries.append(replace(entry, facts=_declared_now(name, system, entry.facts)))
        return entries


def recorded_entries(systems: Mapping[str, SystemOrSettings], folder: Path) -> list[Entry]:
    """The systems with their recorded facts; no system is built or imported.

    Args:
        systems: name → object or settings.
        folder: of the run.

    Raises:
        UserError: if a system's code has changed since it converted, or its record is missing
            although there are conversions.
    """
    entries = []
    for name, system in systems.items():
        recorded = _recorded(folder, name)
        if recorded is None:
            if any(facts_path(folder, name).parent.glob("*.jsonl")):
                raise UserError(
                    f"{facts_path(folder, name)} is missing or of another version; run `vcbench "
                    "convert` with the same settings: finished conversions are kept"
                )
            entries.append(Entry(name, None, settings_of(system), Facts()))
            continue
        facts, _ = recorded
        if changed := code_changed(facts.code or {}):
            raise UserError(
                f"{folder} holds {name}'s conversions made with other settings or code ({changed} "
                "has changed); give this run another name=…, or add overwrite=true to convert again"
            )
        facts = _declared_now(name, system, facts)
        entries.append(Entry(name, None, settings_of(system), facts))
    return entries


def is_declared(system: SystemOrSettings) -> bool:
    """Whether the system is given by settings, not as an object."""
    return isinstance(system, str | Mapping)


def settings_of(system: SystemOrSettings) -> dict[str, Any]:
    """The settings that a system's conversions depend on.

    For an object: its class, and its public attributes with values that JSON can store.
    """
    if isinstance(system, str):
        return {TARGET: system}
    if isinstance(system, Mapping):
        return dict(system)
    kind = type(system)
    attributes = {
        name: value
        for name, value in vars(system).items()
        if not name.startswith("_") and isinstance(value, str | int | float | bool | None)
    }
    return {TARGET: f"{kind.__module__}.{kind.__qualname__}", **attributes}


def _built_here(name: str, system: SystemOrSettings, settings: dict[str, Any]) -> Entry:
    with guarded():
        if is_declared(system):
            system = build(settings, f"system {name}")
        facts = facts_of(system, f"system {name}", settings)
    return Entry(name, system, settings, replace(facts, code=loaded_code(settings[TARGET])))


def _declared_now(name: str, system: SystemOrSettings, facts: Facts) -> Facts:
    """The recorded facts with the training data and the networks that are declared now.

    A third party's class is not imported: editing it is a change of code, and what the settings
    declare needs no class.
    """
    what, settings = f"system {name}", settings_of(system)
    if facts.role:
        return facts
    if not is_declared(system):
        current = facts_of(system, what)
        return replace(facts, trained_on=current.trained_on, networks=current.networks)
    if _is_of_project(settings):
        current = declared_facts(settings, what)
        return replace(facts, trained_on=current.trained_on, networks=current.networks)
    return facts.declared_in(settings, what)


def _is_of_project(settings: Mapping[str, Any]) -> bool:
    return str(settings.get(TARGET)).partition(".")[0] in PROJECT


def _only_has_files(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether it is a class of this project without `convert`: it is then built in this process."""
    if not _is_of_project(settings):
        return False
    return not hasattr(locate(str(settings.get(TARGET)), f"system {name}"), "convert")


def facts_path(folder: Path, system: str) -> Path:
    """Where the facts of a system are recorded."""
    return folder / "conversions" / system / "system.json"


def _identity(settings: Mapping[str, Any], kind: str) -> str:
    """Hash of a system's settings and of the files that they name."""
    return settings_fingerprint(Entry("", None, settings, Facts(kind)), seed=0)


def _recorded(folder: Path, name: str) -> tuple[Facts, str] | None:
    """The recorded facts of a system and the identity of its settings; None without a record."""
    try:
        record = json.loads(facts_path(folder, name).read_bytes())
        return Facts.from_json(record), str(record["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
