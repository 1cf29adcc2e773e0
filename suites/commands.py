"""The verbs `vcbench corpus` and `vcbench suite`."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from bench.cli.settings import load
from bench.cli.verbs import suites_of, systems_of
from bench.errors import UserError, choose_one_of
from bench.files import sha256_of
from bench.manifest import read_trials, write_trials
from bench.systems import declared_facts
from bench.validity.exposure import in_short
from suites import build, importers
from suites.check import duplicates, exposures
from suites.corpora import fetch
from suites.corpora.catalogue import CORPORA
from suites.corpora.layouts import READERS
from suites.corpora.table import CorpusRecording, Faults, gather, read_index, write_index
from suites.protocols import PROTOCOLS

SHOWN_DUPLICATES = 20

CORPUS = """\
vcbench corpus ls
    what can be read and fetched, from where, under which licence
vcbench corpus fetch librispeech/test-clean [to=corpora]
    download and unpack
vcbench corpus index librispeech root=FOLDER out=FILE.csv [split=test-clean] [bad=skip|stop]
    a table of its recordings, from which lists are built in seconds
"""
SUITE = """\
vcbench suite build cross_gender corpus=librispeech root=FOLDER out=trials.jsonl [index=FILE.csv]
        [split=test-clean] [seed=1] [trials=1200] [bad=skip|stop] [workers=4] …
    a trial list by one of the protocols; unseen_speakers leaves out whom the systems named by
    system=… or trained_on=… have heard, or mixes them with the unseen where strata=true
vcbench suite import freevc list=pairs.txt root=FOLDER out=trials.jsonl
    somebody else's list as a suite
vcbench suite check NAME system=NAME [train=FOLDER]
    has the system heard these speakers; are these recordings in that folder?
"""


def corpus(arguments: Sequence[str]) -> int:
    """`vcbench corpus ls | fetch | index`."""
    return _verb("corpus", arguments, {"ls": _ls, "fetch": _fetch, "index": _index}, CORPUS)


def suite(arguments: Sequence[str]) -> int:
    """`vcbench suite build | import | check`."""
    verbs = {"build": _build, "import": _import, "check": _check}
    return _verb("suite", arguments, verbs, SUITE)


def _verb(
    name: str,
    arguments: Sequence[str],
    verbs: Mapping[str, Callable[[Sequence[str]], int]],
    usage: str,
) -> int:
    if not arguments:
        print(usage)
        return 2
    if arguments[0] not in verbs:
        raise UserError(
            f"unknown {name} verb {arguments[0]!r}; {choose_one_of(arguments[0], verbs)}"
        )
    return verbs[arguments[0]](arguments[1:])


def _ls(arguments: Sequence[str]) -> int:
    for name, known in CORPORA.items():
        print(f"{name}: {known.licence}, {known.home}")
        for part, archive in known.archives.items():
            print(f"  {name}/{part}  {fetch.size(archive.bytes)}")
    print(f"without a download: {', '.join(sorted(READERS.keys() - CORPORA.keys()))}")
    return 0


def _fetch(arguments: Sequence[str]) -> int:
    what, settings = _first("corpus fetch", "a corpus", arguments)
    given = _settings(settings, {"to": str})
    to = Path(given.get("to", load(()).corpora))
    for path in fetch.fetch(what, to, Console(stderr=True)):
        print(path)
    return 0


def _index(arguments: Sequence[str]) -> int:
    name, settings = _first("corpus index", "a corpus", arguments)
    given = _settings(
        settings,
        {"root": str, "out": str, "split": str, "bad": str, "workers": int},
        ("root", "out"),
    )
    faults = _faults(given)
    recordings = _recordings(name, given, faults)
    write_index(recordings, Path(given["out"]), Path(given["root"]))
    _say(faults)
    speakers = len({r.speaker for r in recordings})
    print(f"{given['out']}: {len(recordings)} recordings, {speakers} speakers")
    return 0


def _build(arguments: Sequence[str]) -> int:
    protocol, settings = _first("suite build", "a protocol", arguments)
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; {choose_one_of(protocol, PROTOCOLS)}")
    systems = [s for s in settings if s.lstrip("+").startswith(("system=", "system."))]
    given = _settings(
        [s for s in settings if s not in systems],
        {
            **dict.fromkeys(("corpus", "root", "out", "index", "split", "bad"), str),
            **dict.fromkeys(("seed", "trials", "workers", "references"), int),
            "reference_seconds": float,
            "strata": _boolean,
            **dict.fromkeys(("trained_on", "languages", "lengths"), _list),
        },
        ("corpus", "root", "out"),
    )
    root, out = Path(given["root"]), Path(given["out"])
    faults = _faults(given)
    own: dict[str, Any] = {"seed": given.get("seed", 1), "trials": given.get("trials", 1200)}
    for name in ("reference_seconds", "references", "strata", "languages"):
        if name in given:
            own[name] = given[name]
    if systems or "trained_on" in given:
        declared = _training_data(load(systems)).values() if systems else ()
        own["trained_on"] = frozenset(given.get("trained_on", ())).union(*declared)
    if "lengths" in given:
        own["lengths"] = tuple(map(_number, given["lengths"]))
    _takes(protocol, PROTOCOLS[protocol], own)
    recordings = _recordings(given["corpus"], given, faults)
    with Console(stderr=True).status(f"hashing the recordings of {out} …"):
        trials = build.assemble(protocol, recordings, faults, given.get("workers", 4), **own)
    write_trials(trials, out, root)
    _say(faults)
    print(f"{out}: {len(trials)} trials, sha256 {sha256_of(out)}")
    print(
        f"run it: vcbench run suite=[] +suite.mine._target_=bench.trials.Suite.load "
        f"+suite.mine.manifest={out} +suite.mine.root={root}"
    )
    return 0


def _import(arguments: Sequence[str]) -> int:
    form, settings = _first("suite import", "a format", arguments)
    if form not in importers.IMPORTERS:
        raise UserError(f"unknown format {form!r}; {choose_one_of(form, importers.IMPORTERS)}")
    given = _settings(
        settings,
        dict.fromkeys(("list", "root", "out", "source_root", "target_root", "corpus"), str),
        ("list", "root", "out"),
    )
    root, out = Path(given.pop("root")), Path(given.pop("out"))
    listed = Path(given.pop("list"))
    _takes(form, importers.IMPORTERS[form], given)
    trials = importers.IMPORTERS[form](listed, root, **given)
    number = write_trials(trials, out, root)
    print(f"{out}: {number} trials, sha256 {sha256_of(out)}")
    return 0


def _check(arguments: Sequence[str]) -> int:
    name, settings = _first("suite check", "a suite", arguments)
    train = [Path(s.partition("=")[2]) for s in settings if s.startswith("train=")]
    rest = [s for s in settings if not s.startswith("train=")]
    config = load([f"suite=[{name}]", "limit=null", *rest])
    systems = _training_data(config)
    if not systems:
        raise UserError("no system to check; name one: system=world")
    out = Console()
    leaked = False
    for key, node in config.suite.items():
        table = Table(box=None, pad_edge=False, title=str(key), title_justify="left")
        for head in ("system", "trained on", "unseen", "seen", "unknown", "first seen"):
            table.add_column(head, overflow="fold")
        for system, declared in systems.items():
            # Who speaks stands in the manifest: no audio is needed.
            trials = read_trials(Path(node.manifest), Path(node.root), files=False)
            found = exposures(trials, declared)
            leaked |= bool(found.seen)
            table.add_row(
                system,
                in_short(declared),
                *(str(n) for n in (found.unseen, len(found.seen), found.unknown)),
                ", ".join(found.seen[:3]) or "–",
            )
        out.print(table)
    for checked in suites_of(config) if train else ():
        for folder in train:
            same = duplicates(checked.utterances.values(), folder)
            leaked |= bool(same)
            out.print(
                f"{folder}: {len(same)} of {len(checked.utterances)} recordings of {checked.name} "
                "are in it" + (":" if same else ""),
                highlight=False,
                soft_wrap=True,
            )
            for utterance_id, path in list(same.items())[:SHOWN_DUPLICATES]:
                out.print(f"  {utterance_id} = {path}", highlight=False, soft_wrap=True)
    return 1 if leaked else 0


def _training_data(config: DictConfig) -> dict[str, frozenset[str]]:
    """What each system of the settings declares that it was trained on; none is built."""
    facts = {
        name: declared_facts(settings, f"system {name}")
        for name, settings in systems_of(config).items()
    }
    return {name: known.trained_on for name, known in facts.items() if not known.role}


def _recordings(name: str, given: Mapping[str, Any], faults: Faults) -> list[CorpusRecording]:
    """Of the corpus's folder, or of its index where one is given."""
    splits = frozenset(s for s in given.get("split", "").split(",") if s)
    root = Path(given["root"])
    if "index" in given:
        return read_index(Path(given["index"]), root, splits)
    if name not in READERS:
        raise UserError(f"unknown corpus {name!r}; {choose_one_of(name, READERS)}")
    with Console(stderr=True).status(f"reading {root} …"):
        return gather(READERS[name], root, faults, splits, given.get("workers", 4))


def _faults(given: Mapping[str, Any]) -> Faults:
    bad = given.get("bad", "skip")
    if bad not in ("skip", "stop"):
        raise UserError(f"bad={bad!r}: must be skip or stop")
    return Faults(stop=bad == "stop")


def _say(faults: Faults) -> None:
    for line in faults.lines():
        Console(stderr=True).print(
            line, style="yellow", markup=False, highlight=False, soft_wrap=True
        )


def _first(verb: str, noun: str, arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    if not arguments or "=" in arguments[0]:
        raise UserError(f"vcbench {verb} needs {noun} first")
    return arguments[0], arguments[1:]


def _settings(
    arguments: Sequence[str], known: Mapping[str, Callable[[str], Any]], needed: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of name=value arguments."""
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in known:
            raise UserError(f"{argument!r} is no setting here; {choose_one_of(name, known)}")
        try:
            given[name] = known[name](value)
        except ValueError as error:
            raise UserError(f"{argument!r}: {value!r} is not a number") from error
    for name in needed:
        if name not in given:
            raise UserError(f"{name}=… is missing; known settings: {', '.join(known)}")
    return given


def _takes(name: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises UserError unless the function has parameters of these names."""
    known = signature(function).parameters
    for key in given:
        if key not in known:
            raise UserError(f"{name} takes no {key}=…; {choose_one_of(key, known)}")


def _boolean(value: str) -> bool:
    if value not in ("true", "false"):
        raise UserError(f"{value!r} must be true or false")
    return value == "true"


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.strip("[]").split(",") if part.strip()]


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise UserError(f"{value!r} is not a number") from error
