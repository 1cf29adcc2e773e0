"""Model weights: finding, downloading and reading them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """A file of weights that a judge or a system uses.

    Attributes:
        name: what they are, as their authors call them.
        path: where they are on this machine.
        sha256: hash of the file.
        licence: under which they may be used.
    """

    name: str
    path: str
    sha256: str
    licence: str
