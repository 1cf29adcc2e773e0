"""The command line: `vcbench <verb> [Hydra overrides]`, also `python -m bench`."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.cli import VERBS
from bench.cli.console import silence
from bench.errors import UserError, choose_one_of
from bench.objects import locate

USAGE = """\
vcbench <verb> [setting=value ...]

  run       convert, score and report: the embedded benchmark by default
  convert   run the systems only
  score     run the judges only, over what is converted
  merge     join the shards of a run: vcbench merge outputs/mine out=outputs/whole
  report    write the reports of a scored run again
  compare   compare two runs or systems: vcbench compare outputs/old outputs/new by=gender_pair
  gate      may a candidate replace a baseline? exits with 0 yes, 1 no, 3 cannot tell
  history   a metric over all runs: vcbench history system=takin_vc metrics=secs,wer
  agreement which metric agrees with listeners? vcbench agreement ratings.csv run=outputs/mini
  site      leaderboards and players of many runs as a static page: vcbench site out=site
  stimuli   a listening test: vcbench stimuli run=outputs/mini test=nmos out=test
  doctor    check every judge on recordings with known answers
  ls        list systems, suites, judges, presets, metrics and runs
  corpus    list, fetch and index corpora: vcbench corpus fetch librispeech/test-clean
  suite     build, import and check trial lists: vcbench suite check mini_cross_gender system=world
  baseline  install systems in environments of their own, and check any system: vcbench baseline ls
  ratings   listeners' answers to MOS: vcbench ratings report test=listening ratings=ratings.csv

Settings are those of bench/conf/config.yaml:

  vcbench run                          everything embedded: offline, minutes on a laptop
  vcbench run name=quick limit=8 system='[source,world]' suite=mini_cross_gender
  vcbench run name=mine system='[source,target,my_package.MySystem]'
  vcbench run name=mine suite=trials.jsonl root=corpus limit=null
  vcbench run name=mine system.world.frame_period=10
  vcbench score wavs=path/to/finished/wavs suite=mini_cross_gender limit=null
  vcbench run name=paper preset=takin_paper
  vcbench run name=paper preset=takin_paper shard=2/8        part 2 of 8, on any machine
  vcbench run -m name=sweep system.takin_vc.checkpoint=a,b,c
  vcbench doctor --fetch preset=takin_paper
  vcbench report name=mine
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a verb. Classes in files of the working directory can be named: `my_systems.MySystem`.

    Exits with 0 done, 1 a check failed, 2 a mistake that is named, 3 undecided, 130 Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(USAGE)
        sys.exit(0 if arguments else 2)
    try:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # last: a file there replaces no installed module
        code = _ended(_verb(arguments[0]), arguments[1:])
    except UserError as error:
        _fail(str(error), error)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            if not error.filename:
                raise
            _fail(f"{error.filename}: {error.strerror}", error)
        path = error.filename2 or error.filename  # of a copy: from, to
        where = f" while writing {path}" if path else ""
        _fail(
            f"the disk is full{where}; free some space and run the same command again: "
            "what is finished is kept",
            error,
        )
    except KeyboardInterrupt:
        print("\nvcbench: stopped; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has gone; the command is done
        silence(sys.stdout)
    sys.exit(code)


def _ended(verb: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """The verb's exit code; code of a third party cannot end the program as if all were well."""
    try:
        return verb(arguments)
    except SystemExit as error:
        raise UserError(
            f"some code called sys.exit({error.code!r}) before the run was done; a system, judge "
            "or report must raise an error instead"
        ) from error


def _verb(name: str) -> Callable[[Sequence[str]], int]:
    if name not in VERBS:
        raise UserError(f"unknown verb {name!r}; {choose_one_of(name, VERBS)}")
    return locate(VERBS[name], "verb")


def _fail(message: str, error: BaseException) -> None:
    if os.getenv("VCBENCH_TRACEBACK"):
        raise error
    print(f"vcbench: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    import vcbench

    vcbench.main()
