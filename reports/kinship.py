"""Marks numbers by judges that are kin to a system, and says what the marks stand for."""

from collections.abc import Iterable, Mapping

import pandas as pd

from bench.validity.kinship import Kinship

DAGGER = "†"  # marks a judge that is kin to one of the systems: see `bench.validity.kinship`
# Columns of a comparison, see `with_kinship`: sentences on the judge's kinships, "" for none; and
# whether the better side is judged by its own network, the other not.
KIN, FAVOURED = "kin", "favoured"


def with_kinship(table: pd.DataFrame, kin: Mapping[tuple[str, str], Kinship]) -> pd.DataFrame:
    """A comparison with the columns `KIN` and `FAVOURED`, which its renderings look at.

    Args:
        table: see `bench.stats.compare.compare`.
        kin: (a baseline's or a candidate's label, judge) → how they are kin.
    """
    if table.empty:
        return table

    def of(row: pd.Series, side: str) -> Kinship | None:
        return kin.get((str(row[side]), str(row["judge"])))

    def sentences(row: pd.Series) -> str:
        both = ((side, of(row, side)) for side in ("baseline", "candidate"))
        return "; ".join(k.sentence(str(row[s]), str(row["judge"])) for s, k in both if k)

    def favoured(row: pd.Series) -> bool:
        sides = {"better": ("candidate", "baseline"), "worse": ("baseline", "candidate")}
        won = sides.get(str(row["verdict"]).partition(" ")[0])
        if won is None:
            return False
        winner, loser = (of(row, side) for side in won)
        return bool(winner and winner.same_network and not (loser and loser.same_network))

    rows = [row for _, row in table.iterrows()]
    return table.assign(
        **{KIN: [sentences(row) for row in rows], FAVOURED: [favoured(row) for row in rows]}
    )


def kinship_note(table: pd.DataFrame) -> list[str]:
    """The sentence that says what the daggers of a comparison stand for; none without daggers."""
    cases = dict.fromkeys(part for text in table.get(KIN, ()) for part in text.split("; ") if part)
    return [f"{DAGGER} the judge is kin to the system: {'; '.join(cases)}."] if cases else []


def cases(kin: Mapping[tuple[str, str], Kinship], pairs: Iterable[tuple[str, str]]) -> str:
    """The kinships of pairs of system and judge in words; systems with the same one together.

    Args:
        kin: see `bench.validity.kinship.kinships`.
        pairs: those to be named; each is in `kin`.
    """
    alike: dict[tuple[str, str, str, str, str], list[tuple[str, str]]] = {}
    for pair in pairs:
        how = kin[pair]
        key = (how.grade, how.network.name, how.network.use, how.judged_by, pair[1])
        alike.setdefault(key, []).append(pair)
    return "; ".join(
        kin[same[0]].sentence([system for system, _ in same], same[0][1]) for same in alike.values()
    )
