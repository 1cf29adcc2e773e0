"""The verb `vcbench site`: a static page over any number of runs."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from bench.cli.arguments import Setting, boolean, listed, number, parse, whole_number
from bench.cli.console import Printed
from bench.cli.settings import load
from bench.errors import UserError
from bench.run.folder import RUN

USAGE = """\
vcbench site [RUN …] [runs=a,b] out=FOLDER [title=…] [trials=4] [megabytes=100]
        [skip_damaged=true] [outputs=…]
    leaderboards, histories and players of these runs (default: all in outputs) as a static site
"""

SETTINGS = {
    "site": {
        "runs": Setting("names or folders of runs; default: all in outputs", listed),
        "out": Setting(
            "folder of the site: a new one, or one that `vcbench site` wrote", needed=True
        ),
        "title": Setting("of the page; default: Voice conversion leaderboard"),
        "trials": Setting("of each suite that have players; default: 4", whole_number),
        "megabytes": Setting("of all sounds together; default: 100", number),
        "skip_damaged": Setting("true: leaves damaged runs out and names them", boolean),
        "outputs": Setting("the folder of all runs; default: the setting outputs"),
    }
}


def site(arguments: Sequence[str]) -> int:
    """`vcbench site [RUN …] [runs=] out= [title=] [trials=] [megabytes=] [skip_damaged=]`.

    Returns:
        The exit code; 2 without arguments, when the usage is printed.

    Raises:
        UserError: if an argument is wrong, a run is damaged, or `out` holds anything but a site.
    """
    if not arguments:
        print(USAGE)
        return 2
    operands, settings = parse(
        arguments,
        "site",
        SETTINGS["site"],
    )
    for name in ("trials", "megabytes"):
        if settings.get(name, 0) < 0:
            raise UserError(f"{name}={settings[name]}: must be 0 or more")
    outputs = Path(settings.get("outputs") or load(()).outputs)
    names = [*operands, *settings.get("runs", ())]
    folders = [Path(n) if Path(n).is_dir() else outputs / n for n in names]
    folders = folders or [path.parent for path in sorted(outputs.glob(f"*/{RUN}"))]
    if not folders:
        raise UserError(f"no run in {outputs}; make one: vcbench run")
    from reports.site.folder import check_replaceable
    from reports.site.page import INDEX, Bounds, write_site
    from reports.site.runs import read_shown

    out = Path(settings["out"]).resolve()
    check_replaceable(out)
    bounds = Bounds(
        **{name: settings[name] for name in ("trials", "megabytes") if name in settings}
    )
    console = Printed(stderr=True)
    with console.status(f"reading {len(folders)} runs …"):
        runs, left_out = read_shown(folders, bounds.trials > 0, settings.get("skip_damaged", False))
    with console.status(f"writing {len(runs)} runs to {settings['out']} …"):
        size = write_site(
            runs,
            out,
            settings.get("title", "Voice conversion leaderboard"),
            bounds,
            [line.name for line in left_out],
        )
    for line in left_out:
        console.print(Text(str(line), style="yellow"), soft_wrap=True)
    print(
        f"{Path(settings['out']) / INDEX}: {len(runs)} {'run' if len(runs) == 1 else 'runs'}, "
        f"{size / 1e6:.1f} MB of sounds"
    )
    return 0
