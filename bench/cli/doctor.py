"""The verb `doctor`: tests every judge on known recordings and lists missing weights."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from bench import provenance
from bench.cli.console import Printed
from bench.cli.settings import load
from bench.errors import UserError
from bench.judges import Judge
from bench.objects import DECLARATIONS, TARGET, build, locate
from bench.run.judges import plain
from bench.trials import Utterance
from bench.weights.find import MEGABYTE, Download, WeightsMissing, short


def doctor(arguments: Sequence[str]) -> int:
    """Tests every judge on recordings with known answers.

    With --fetch it first downloads the missing weights of judges and systems.

    Returns:
        1 if a judge gives a wrong answer or a system's settings are wrong, else 0.

    Raises:
        UserError: if there are no known recordings, or a judge cannot be built.
    """
    fetch = "--fetch" in arguments
    config = load([a for a in arguments if a != "--fetch"])
    recordings: list[Utterance] = build(config.known_recordings, "known_recordings")
    if not recordings:
        raise UserError("known_recordings: there are none; name a table with recordings in it")
    out = Printed()
    machine = provenance.machine()
    out.print(
        f"[bold]machine[/] {machine['processor']}, {machine['cores']} cores, "
        f"GPU: {', '.join(machine['gpus']) or 'none'}"
    )
    out.print(
        f"[bold]known recordings[/] {len(recordings)} utterances, "
        f"{len({r.speaker for r in recordings})} speakers"
    )
    broken = [
        str(name)
        for name, node in config.system.items()
        if not _has_weights(node, str(name), fetch, out)
    ]
    wrong = []
    for name, node in config.judge.items():
        try:
            judge = _fetched(node, str(name), out) if fetch else build(node, f"judge {name}")
        except WeightsMissing as error:
            _not_available(str(name), error, out)
            continue
        with Printed(stderr=True).status(f"{name} …"):
            test = judge.self_test(recordings)
        mark = "[green]✓[/]" if test.passed else "[red]✗[/]"
        out.print(f"{mark} [bold]{name}[/]", highlight=False)
        for finding, value in test.findings.items():
            out.print(f"    {finding}: {value}", highlight=False, soft_wrap=True)
        for weights in judge.weights:
            out.print(
                f"    weights: {weights.name}, sha256 {weights.sha256[:12]}…, "
                f"{weights.licence}, {short(Path(weights.path))}",
                highlight=False,
                soft_wrap=True,
            )
        if not test.passed:
            wrong.append(str(name))
    if wrong:
        out.print(
            f"[red]{', '.join(wrong)}: wrong answers on known recordings; do not use these "
            "scores. Reinstall the package or get the weights again.[/]"
        )
    return 1 if wrong or broken else 0


def _has_weights(node: DictConfig, name: str, fetch: bool, out: Console) -> bool:
    """Shows which weights a system lacks, after downloading them if `fetch` is true.

    Returns:
        False if the system's settings are wrong. Missing weights are not an error, as for judges.
    """
    try:
        offer = getattr(locate(node["_target_"], f"system {name}"), "missing_weights", None)
        if offer is None:
            return True
        left_out = (TARGET, *DECLARATIONS)
        settings = {key: value for key, value in plain(node).items() if key not in left_out}
        for missing in offer(**settings) if fetch else ():
            if missing.download is not None:
                _download(missing.download, name, out)
        lacking = offer(**settings)
    except WeightsMissing as error:
        _not_available(name, error, out)
        return True
    except Exception as error:  # a third party's class may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        out.print(f"[red]✗[/] [bold]{name}[/]: {escape(reason)}", highlight=False, soft_wrap=True)
        return False
    for missing in lacking:
        _not_available(name, missing, out)
    if not lacking:
        out.print(f"[green]✓[/] [bold]{name}[/] has its weights", highlight=False)
    return True


def _not_available(name: str, error: WeightsMissing, out: Console) -> None:
    size = f" ({_size(error.download)})" if error.download is not None else ""
    out.print(
        f"[yellow]–[/] [bold]{name}[/] not available: {escape(str(error))}{size}",
        highlight=False,
        soft_wrap=True,
    )


def _size(download: Download) -> str:
    return f"{download.size / MEGABYTE:.0f} MB" if download.size else "size unknown"


def _download(download: Download, name: str, out: Console) -> None:
    """Shows the size of a download, then downloads it.

    Raises:
        WeightsMissing: if there is no connection.
    """
    out.print(f"[bold]{name}[/] {_size(download)}: {escape(download.how)}", soft_wrap=True)
    try:
        download.fetch()
    except UserError as failed:
        raise WeightsMissing(str(failed)) from failed


def _fetched(node: DictConfig, name: str, out: Console) -> Judge:
    """Builds the judge; missing weights are downloaded first if possible.

    Raises:
        WeightsMissing: if nothing can be downloaded, or the download is not what the judge needs.
        UserError: if there is no connection.
    """
    try:
        return build(node, f"judge {name}")
    except WeightsMissing as error:
        if error.download is None:
            raise
        _download(error.download, name, out)
        return build(node, f"judge {name}")
