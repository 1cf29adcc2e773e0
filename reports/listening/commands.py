"""The verb `vcbench stimuli`: from a run to a listening test."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.text import Text

from bench.cli.arguments import (
    Setting,
    boolean,
    listed,
    numbers,
    one_of,
    parse_settings,
    whole_number,
)
from bench.cli.console import Printed
from bench.cli.settings import load
from bench.errors import UserError, choose_one_of
from bench.results import ScoredRun
from reports.listening.wording import SCALES

USAGE = """\
vcbench stimuli run=FOLDER test=nmos|smos|ab|abx|cmos|mushra out=FOLDER [systems=a,b] [suite=…]
        [trials=24] [per_listener=…] [listeners=24] [baseline=NAME] [seed=1]
        [traps=1] [gold=2] [repeats=2] [trap_audio=two.wav,four.wav trap_ratings=2,4] [training=3]
        [skip=TRIAL,…] [unusable=refuse|skip] [wording=de|FILE.yaml] [sample_rate=…]
        [headphones=true] [code=…] [url=https://…/audio]
    a listening test: blinded and loudness-matched clips, a page, and files for webMUSHRA and P.808
vcbench stimuli plan half_width=0.1 | difference=0.2 [test=nmos] [systems=5] [trials=24]
        [ratings=FILE.csv] [run=FOLDER] [power=0.8] [seed=1]
    how many listeners and votes that takes; and where AB or CMOS tells more than MOS
"""
WHOLE = ("trials", "per_listener", "listeners", "seed", "traps", "gold", "repeats", "training",
         "sample_rate")  # fmt: skip
LEAST = {"seed": 0, "traps": 0, "gold": 0, "repeats": 0, "training": 0, "sample_rate": 8000}
REFUSE, SKIP = "refuse", "skip"  # what to do with trials that have an unusable sound

SETTINGS = {
    "stimuli": {
        "run": Setting("folder of the run, or its name", needed=True),
        "test": Setting("kind of the test", one_of(*SCALES), needed=True),
        "out": Setting("folder of the test, which is new", needed=True),
        "systems": Setting("names; default: all; nmos and smos add recordings of people", listed),
        "suite": Setting("names of suites; default: all", listed),
        "trials": Setting("how many; default: 24, or fewer in a small run", whole_number),
        "per_listener": Setting("trials of one listener; default: all", whole_number),
        "listeners": Setting("how many are expected; default: 24", whole_number),
        "baseline": Setting("for pairs: compares each system with this one; default: every pair"),
        "seed": Setting("of the choice of trials, orders and ids; default: 1", whole_number),
        "traps": Setting("clips of each listener that end with tones; default: 1", whole_number),
        "gold": Setting("clips with a known answer of each listener; default: 2", whole_number),
        "repeats": Setting("clips that each listener rates twice; default: 2", whole_number),
        "trap_audio": Setting("files of spoken instructions; default: tones", listed),
        "trap_ratings": Setting("the rating that each of these files asks for", numbers),
        "training": Setting("screens before the test that do not count; default: 3", whole_number),
        "skip": Setting("ids of trials that are left out for all systems", listed),
        "unusable": Setting(
            "skip: leave out trials with a sound that is too quiet, silent or damaged; default: "
            "refuse",
            one_of(REFUSE, SKIP),
        ),
        "wording": Setting("language (de, en) or YAML file of all texts; default: en"),
        "sample_rate": Setting(
            "of the clips in Hz; default: the highest of the sounds, 48000 at most", whole_number
        ),
        "headphones": Setting(
            "whether the page begins with a headphone check; default: true", boolean
        ),
        "code": Setting("completion code of the page; default: one made of the test's id"),
        "url": Setting(
            "address where audio/ will be, for the P.808 toolkit; default: no files for it"
        ),
        "outputs": Setting("the folder of all runs, for a run that is named"),
    }
}


def stimuli(arguments: Sequence[str]) -> int:
    """`vcbench stimuli …` and `vcbench stimuli plan …`.

    Returns:
        The exit code; 2 without arguments, when the usage is printed.

    Raises:
        UserError: if an argument is wrong, or the run has too little to rate.
    """
    if not arguments:
        print(USAGE)
        return 2
    if "=" not in arguments[0]:
        if arguments[0] != "plan":
            raise UserError(
                f"unknown stimuli verb {arguments[0]!r}; {choose_one_of(arguments[0], ('plan',))}; "
                "a test is made by: vcbench stimuli run=… test=… out=…"
            )
        from reports.listening.plan_command import plan

        return plan(arguments[1:])
    return _make(arguments)


def _make(arguments: Sequence[str]) -> int:
    settings = parse_settings(arguments, "stimuli", SETTINGS["stimuli"])
    for name in WHOLE:
        if settings.get(name, LEAST.get(name, 1)) < LEAST.get(name, 1):
            raise UserError(
                f"{name}={settings[name]}: must be {LEAST.get(name, 1)} or more; "
                "leave it out for the default"
            )
    url = settings.get("url", "")
    if url and not url.startswith(("https://", "http://")):
        raise UserError(f"url={url}: not an address; give url=https://…, where audio/ will be")
    from reports.listening.export import Presentation, unusable_trials, write_test
    from reports.listening.stimuli import Options, design_test
    from reports.listening.wording import DEFAULT, read_wording, wording_file

    kind = settings["test"]
    wording = read_wording(kind, wording_file(settings.get("wording", DEFAULT.stem)))
    options = Options(
        kind=kind,
        systems=tuple(settings.get("systems", ())),
        suites=tuple(settings.get("suite", ())),
        spoken=_spoken(settings),
        skip=tuple(settings.get("skip", ())),
        **{name: settings[name] for name in (*WHOLE, "baseline") if name in settings},
    )
    run = read(settings["run"], settings.get("outputs"))
    test = design_test(run, options, wording)
    out = Path(settings["out"])
    console = Printed(stderr=True)
    while settings.get("unusable") == SKIP and (unusable := unusable_trials(test)):
        options = replace(options, skip=(*options.skip, *unusable))
        text = f"Left out for all systems, since a sound cannot be used: {', '.join(unusable)}."
        console.print(Text(text, style="yellow"), soft_wrap=True)
        test = design_test(run, options, wording)
    with console.status(f"writing {len(test.ids)} sounds to {out} …"):
        how = Presentation(url, settings.get("code", ""), settings.get("headphones", True))
        notes = write_test(test, out, how)
    for note in (*test.notes, *notes):
        console.print(Text(note, style="yellow"), soft_wrap=True)
    screens = len(test.design.groups[0])
    print(
        f"{out}: {kind} of {', '.join(test.conditions)} over {test.trials} trials, "
        f"{len(test.design.groups)} listener groups, {screens} screens each"
    )
    print(f"give to listeners: {out / 'page' / 'index.html'} with its audio/ (or {out}/webmushra)")
    print(f"keep to yourself: {out / 'key.json'}, which says what each sound is")
    return 0


def read(name: str, outputs: str | None) -> ScoredRun:
    """The run of a folder, or of a name in the folder of all runs, with its trials."""
    from bench.run.folder import read_report

    folder = Path(name)
    if not folder.is_dir():
        folder = Path(outputs or load(()).outputs) / name
    return read_report(folder)


def _spoken(settings: dict[str, Any]) -> tuple[Any, ...]:
    """The recorded traps: as many files as ratings, and ratings of the scale."""
    from reports.listening.checks import SpokenTrap

    files, ratings = settings.get("trap_audio", []), settings.get("trap_ratings", [])
    if len(files) != len(ratings):
        raise UserError(
            f"trap_audio has {len(files)} files, trap_ratings {len(ratings)} ratings; give for "
            "each file the rating that it asks for"
        )
    lowest, highest, step = SCALES[settings["test"]]
    for path, rating in zip(files, ratings, strict=True):
        if not Path(path).is_file():
            raise UserError(f"trap_audio: no file {path}; give the recording of an instruction")
        if rating not in range(lowest, highest + 1, step):
            raise UserError(
                f"trap_ratings: {rating:g} is no rating of {settings['test']}, which has "
                f"{lowest} to {highest}"
            )
    return tuple(SpokenTrap(Path(p), r) for p, r in zip(files, ratings, strict=True))
