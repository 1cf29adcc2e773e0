"""The verbs `vcbench corpus` and `vcbench suite`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from bench.cli.arguments import (
    Setting,
    boolean,
    check_parameters,
    first_operand,
    listed,
    number,
    numbers,
    one_of,
    parse_settings,
    run_verb,
    whole_number,
)
from bench.cli.console import Printed
from bench.cli.settings import load
from bench.cli.verbs import suites_of, systems_of
from bench.errors import UserError, choose_one_of
from bench.files import sha256_of
from bench.manifest import read_trials, write_trials
from bench.objects import build as build_object
from bench.stats.crossed import MIN_SPEAKERS
from bench.systems import declared_facts
from bench.validity.exposure import in_short
from bench.weights.download import size_in_words
from suites import build, importers
from suites.check import duplicates, exposures
from suites.corpora import fetch
from suites.corpora.catalogue import DOWNLOADS
from suites.corpora.layouts import READERS
from suites.corpora.table import CorpusRecording, Faults, gather, read_index, write_index
from suites.dealing import ENROLMENTS
from suites.protocols import PROTOCOLS

SHOWN_DUPLICATES = 20

CORPUS = """\
vcbench corpus ls
    the corpora that can be read and fetched, with address and licence
vcbench corpus fetch librispeech/test-clean [to=corpora]
    download and unpack
vcbench corpus index librispeech root=FOLDER out=FILE.csv [split=test-clean] [bad=skip|stop]
    write a table of its recordings; lists are built from it in seconds
"""
SUITE = """\
vcbench suite build cross_gender corpus=librispeech root=FOLDER out=trials.jsonl [index=FILE.csv]
        [split=test-clean] [seed=1] [trials=1200] [bad=skip|stop] [workers=4] …
    write a trial list by one of the protocols; unseen_speakers leaves out the training speakers
    named by system=… or trained_on=…, or mixes them with unseen ones where strata=true
vcbench suite import freevc list=pairs.txt root=FOLDER out=trials.jsonl
    convert a published list to a suite; seed_tts takes swap=true (the prompt is converted to the
    other voice) and language=… where the list's folder is called neither en nor zh
vcbench suite check NAME system=NAME [train=FOLDER]
    count the trials whose speakers are in the system's training data, and the suite's
    recordings that are in a training folder
"""

ROOT = Setting("folder of the corpus", needed=True)
OUT = Setting("file of the trial list", needed=True)
SPLIT = Setting("parts of the corpus, separated by commas; default: all")
BAD = Setting(
    "skip (default): leaves out unusable recordings and counts them; stop: stops at the first",
    one_of("skip", "stop"),
)
WORKERS = Setting("threads that read and hash files; default: 4", whole_number)
SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "corpus ls": {},
    "corpus fetch": {"to": Setting("folder of all corpora; default: the setting corpora")},
    "corpus index": {
        "root": ROOT,
        "out": Setting("CSV file of the recordings", needed=True),
        "split": SPLIT,
        "bad": BAD,
        "workers": WORKERS,
    },
    "suite build": {
        "corpus": Setting("name of the layout of its folder: see `vcbench corpus ls`", needed=True),
        "root": ROOT,
        "out": OUT,
        "index": Setting("CSV file that `vcbench corpus index` wrote; default: the folder is read"),
        "split": SPLIT,
        "bad": BAD,
        "workers": WORKERS,
        "seed": Setting("of the shuffles; default: 1", whole_number),
        "trials": Setting(
            "how many; default: 1200, and for listed what its list gives", whole_number
        ),
        "reference_seconds": Setting("length of each reference; default: the protocol's", number),
        "references": Setting("how many for each source; for grid", whole_number),
        "lengths": Setting("of the references in seconds; for reference_length", numbers),
        "languages": Setting("of the sources; for cross_lingual; default: all", listed),
        "sources": Setting("file of the sources' ids, one a line; for listed"),
        "trained_on": Setting("training data that unseen_speakers leaves out", listed),
        "strata": Setting(
            "true: as many seen speakers as unseen ones; for unseen_speakers", boolean
        ),
    },
    "suite import": {
        "list": Setting("the published list", needed=True),
        "root": ROOT,
        "out": OUT,
        "corpus": Setting("name of the layout of its folder, which has the texts"),
        "language": Setting("of the recordings, such as zh; for seed_tts"),
        "swap": Setting(
            "true: converts the prompt to the voice of the other recording; for seed_tts", boolean
        ),
        "source_root": Setting("folder of the sources, relative to root; for vce"),
        "target_root": Setting("folder of the targets, relative to root; for vce and voiceprivacy"),
    },
    "suite check": {"train": Setting("folder of training audio that is searched for copies")},
}


def corpus(arguments: Sequence[str]) -> int:
    """`vcbench corpus ls | fetch | index`: lists, downloads and indexes corpora.

    Returns:
        The exit code; 2 without arguments, when the usage is printed.

    Raises:
        UserError: if an argument is wrong, or a corpus cannot be downloaded or read.
    """
    return run_verb("corpus", arguments, {"ls": _ls, "fetch": _fetch, "index": _index}, CORPUS)


def suite(arguments: Sequence[str]) -> int:
    """`vcbench suite build | import | check`: builds, imports and checks trial lists.

    Returns:
        The exit code; 2 without arguments, when the usage is printed.

    Raises:
        UserError: if an argument is wrong, or a corpus or a list cannot be used.
    """
    verbs = {"build": _build, "import": _import, "check": _check}
    return run_verb("suite", arguments, verbs, SUITE)


def _ls(arguments: Sequence[str]) -> int:
    parse_settings(arguments, "corpus ls", SETTINGS["corpus ls"])
    for name, download in DOWNLOADS.items():
        print(f"{name}: {download.corpus.licence}, {download.corpus.home}")
        for part, archive in download.archives.items():
            print(f"  {name}/{part}  {size_in_words(archive.bytes)}")
    print(f"without a download: {', '.join(sorted(READERS.keys() - DOWNLOADS.keys()))}")
    return 0


def _fetch(arguments: Sequence[str]) -> int:
    what, rest = first_operand(arguments, "corpus fetch", "a corpus")
    settings = parse_settings(rest, "corpus fetch", SETTINGS["corpus fetch"])
    to = Path(settings.get("to", load(()).corpora))
    for path in fetch.fetch(what, to, Printed(stderr=True)):
        print(path)
    return 0


def _index(arguments: Sequence[str]) -> int:
    name, rest = first_operand(arguments, "corpus index", "a corpus")
    settings = parse_settings(rest, "corpus index", SETTINGS["corpus index"])
    faults = _faults(settings)
    recordings = _recordings(name, settings, faults)
    write_index(recordings, Path(settings["out"]), Path(settings["root"]))
    _print_faults(faults)
    speakers = len({r.speaker for r in recordings})
    print(f"{settings['out']}: {len(recordings)} recordings, {speakers} speakers")
    return 0


def _build(arguments: Sequence[str]) -> int:
    protocol, rest = first_operand(arguments, "suite build", "a protocol")
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; {choose_one_of(protocol, PROTOCOLS)}")
    systems = [s for s in rest if s.lstrip("+").startswith(("system=", "system."))]
    settings = parse_settings(
        [s for s in rest if s not in systems], "suite build", SETTINGS["suite build"]
    )
    root, out = Path(settings["root"]), Path(settings["out"])
    faults = _faults(settings)
    of_protocol: dict[str, Any] = {"seed": 1, "trials": 1200}
    if "sources" in settings:  # the list says how many
        of_protocol = {"seed": 1, "sources": settings["sources"]}
    for name in ("seed", "trials", "reference_seconds", "references", "strata", "languages"):
        if name in settings:
            of_protocol[name] = settings[name]
    if systems or "trained_on" in settings:
        declared = _trained_on(load(systems)).values() if systems else ()
        of_protocol["trained_on"] = frozenset(settings.get("trained_on", ())).union(*declared)
    if "lengths" in settings:
        of_protocol["lengths"] = tuple(settings["lengths"])
    check_parameters(protocol, PROTOCOLS[protocol], of_protocol)
    recordings = _recordings(settings["corpus"], settings, faults)
    workers = settings.get("workers", 4)
    with Printed(stderr=True).status(f"hashing the recordings of {out} …"):
        trials = build.assemble(protocol, recordings, faults, workers, **of_protocol)
    write_trials(trials, out, root)
    _print_faults(faults)
    sources = {t.source.speaker for t in trials}
    used = len(sources | {t.speaker for t in trials})
    known = len({r.speaker for r in recordings})
    print(f"{out}: {len(trials)} trials, {used} of {known} speakers, sha256 {sha256_of(out)}")
    if min(len(sources), len({t.speaker for t in trials})) < MIN_SPEAKERS:
        _warn(
            f"few speakers have enough recordings (a reference, a target and {ENROLMENTS} more): "
            f"with under {MIN_SPEAKERS} sources or targets a report has no intervals"
        )
    print(f"run it: vcbench run suite={out} root={root} limit=null")
    return 0


def _import(arguments: Sequence[str]) -> int:
    form, rest = first_operand(arguments, "suite import", "a format")
    if form not in importers.IMPORTERS:
        raise UserError(f"unknown format {form!r}; {choose_one_of(form, importers.IMPORTERS)}")
    settings = parse_settings(rest, "suite import", SETTINGS["suite import"])
    listing, root, out = (Path(settings.pop(name)) for name in ("list", "root", "out"))
    check_parameters(form, importers.IMPORTERS[form], settings)
    trials = importers.IMPORTERS[form](listing, root, **settings)
    count = write_trials(trials, out, root)
    print(f"{out}: {count} trials, sha256 {sha256_of(out)}")
    return 0


def _check(arguments: Sequence[str]) -> int:
    name, rest = first_operand(arguments, "suite check", "a suite")
    train = [Path(s.partition("=")[2]) for s in rest if s.startswith("train=")]
    overrides = [s for s in rest if not s.startswith("train=")]
    config = load([f"suite=[{name}]", "limit=null", *overrides])
    trained_on = _trained_on(config)
    if not trained_on:
        raise UserError("no system to check; name one: system=world")
    out = Printed()
    contaminated = False
    for suite_name, node in config.suite.items():
        table = Table(box=None, pad_edge=False, title=str(suite_name), title_justify="left")
        for head in ("system", "trained on", "unseen", "seen", "unknown", "first seen"):
            table.add_column(head, overflow="fold")
        for system, declared in trained_on.items():
            if not Path(node.manifest).is_file():  # some are built at their first use
                build_object(node, f"suite {suite_name}", name=str(suite_name), limit=None)
            # The manifest names the speakers: no audio is needed.
            trials = read_trials(Path(node.manifest), Path(node.root), files=False)
            counts = exposures(trials, declared)
            contaminated |= bool(counts.seen)
            table.add_row(
                system,
                in_short(declared),
                *(str(n) for n in (counts.unseen, len(counts.seen), counts.unknown)),
                ", ".join(counts.seen[:3]) or "–",
            )
        out.print(table)
    for checked in suites_of(config) if train else ():
        for folder in train:
            copies = duplicates(checked.utterances.values(), folder)
            contaminated |= bool(copies)
            out.print(
                f"{folder}: {len(copies)} of {len(checked.utterances)} recordings of "
                f"{checked.name} are in it" + (":" if copies else ""),
                highlight=False,
                soft_wrap=True,
            )
            for utterance_id, path in list(copies.items())[:SHOWN_DUPLICATES]:
                out.print(f"  {utterance_id} = {path}", highlight=False, soft_wrap=True)
    return 1 if contaminated else 0


def _trained_on(config: DictConfig) -> dict[str, frozenset[str]]:
    """System → its declared training data, for each system that converts; none is built."""
    facts = {
        name: declared_facts(settings, f"system {name}")
        for name, settings in systems_of(config).items()
    }
    return {name: known.trained_on for name, known in facts.items() if not known.role}


def _recordings(name: str, settings: Mapping[str, Any], faults: Faults) -> list[CorpusRecording]:
    """The recordings of the corpus's folder, or of its index where one is given."""
    splits = frozenset(s for s in settings.get("split", "").split(",") if s)
    root = Path(settings["root"])
    if "index" in settings:
        return read_index(Path(settings["index"]), root, splits)
    if name not in READERS:
        raise UserError(f"unknown corpus {name!r}; {choose_one_of(name, READERS)}")
    with Printed(stderr=True).status(f"reading {root} …"):
        return gather(READERS[name], root, faults, splits, settings.get("workers", 4))


def _faults(settings: Mapping[str, Any]) -> Faults:
    return Faults(stop=settings.get("bad", "skip") == "stop")


def _print_faults(faults: Faults) -> None:
    for line in faults.lines():
        _warn(line)


def _warn(line: str) -> None:
    Printed(stderr=True).print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
