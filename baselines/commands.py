"""The verb `vcbench baseline`."""

from collections.abc import Sequence

from bench.errors import UserError, choose_one_of

BASELINE = """\
vcbench baseline check NAME [checks=level,seed] [trials=20] [long=true] [call_seconds=120]
        [system.NAME.key=value …]
    check a system against the wrapper contract: one verdict a line
"""
VERBS = ("check",)


def baseline(arguments: Sequence[str]) -> int:
    """`vcbench baseline check`: works on the systems of a comparison.

    Returns:
        The exit code; 2 without arguments, when the usage is printed.

    Raises:
        UserError: if an argument is wrong.
    """
    if not arguments:
        print(BASELINE)
        return 2
    verb, *rest = arguments
    if verb not in VERBS:
        raise UserError(f"unknown baseline verb {verb!r}; {choose_one_of(verb, VERBS)}")
    from baselines.contract.commands import check  # torch comes with it

    return check(rest)
