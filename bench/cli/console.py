"""What the verbs print goes through these: a reader that goes away does not end the command."""

import os
from typing import IO

from rich.console import Console


class Printed(Console):
    """rich's console. After a broken pipe (`vcbench gate … | head`) it prints to nowhere.

    rich itself would exit with 1: a gate that passes would end as a regression, and files that are
    written after the table would be missing.
    """

    def on_broken_pipe(self) -> None:
        """See `rich.console.Console`."""
        silence(self.file)


def silence(stream: IO[str]) -> None:
    """Sends all that is still written to a stream to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
