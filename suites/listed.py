"""The protocol `listed`, and suites that are built from a local corpus at their first use.

Some published lists name recordings by ids alone: their texts, durations and audio are in the
corpus. Such a list is frozen in two steps. The ids are part of this package. The trials are dealt
from the local corpus when they are first needed, and their manifest is written beside it, with the
hash of every recording. From then on the suite is that file: a recording that changes is refused,
and two copies of one release of the corpus give the same bytes.
"""

import random
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.files import read_text
from bench.manifest import write_trials
from bench.trials import Suite, Trial, Utterance
from suites.corpora.layouts import READERS
from suites.corpora.table import CorpusRecording, Faults, gather
from suites.dealing import DealtSpeaker, deal, make_trial

TARGETS = 4  # voices that each sentence is converted to


def listed(
    recordings: Sequence[CorpusRecording],
    *,
    seed: int,
    sources: str | Path | Sequence[str],
    trials: int | None = None,
    reference_seconds: float = 5.0,
) -> list[Trial]:
    """Every sentence of a list is converted to two women and two men, never to its speaker's voice.

    Sentences of 2 to 15 s are used, as by all protocols. References, enrolment and targets are
    recordings that the list does not name. Speakers take turns as sources and as targets.

    Args:
        recordings: a corpus that has all the sentences.
        seed: of the shuffles.
        sources: the ids of recordings, or a text file with one on each line.
        trials: how many, from the first; None for all.
        reference_seconds: of each.

    Raises:
        UserError: if the corpus lacks one of the sentences, or has too few speakers with a gender.
    """
    in_file = isinstance(sources, str | Path)
    wanted = dict.fromkeys(read_text(Path(sources)).split() if in_file else sources)  # type: ignore[arg-type]
    known = {r.utterance.utterance_id for r in recordings}
    if missing := [name for name in wanted if name not in known]:
        whose = f" {sources}" if in_file else ""
        raise UserError(
            f"{len(missing)} of the {len(wanted)} sentences of the list{whose} are not in the "
            f"corpus, first {missing[0]}; is it the corpus and the split of that list?"
        )
    rng = random.Random(seed)
    speakers = deal(
        recordings,
        rng,
        reference_seconds=reference_seconds,
        source=lambda r: r.utterance.utterance_id in wanted,
        reference=lambda r: r.utterance.utterance_id not in wanted,
    )
    rng.shuffle(speakers)
    of = {g: [s for s in speakers if s.gender == g] for g in "FM"}
    if min(map(len, of.values())) < 2:
        raise UserError(
            f"{len(of['F'])} women and {len(of['M'])} men with enough recordings; listed needs two "
            "of each: is the corpus's speaker table there?"
        )
    turns = {g: _in_turn(of[g]) for g in "FM"}
    in_order = [pair for both in zip_longest(turns["F"], turns["M"]) for pair in both if pair]
    following = dict.fromkeys("FM", 0)  # the next target of each gender
    built = []
    for number in range(TARGETS):
        for position, (source, utterance) in enumerate(in_order):
            gender = "FM"[(number + position // 2) % 2]
            targets = of[gender]
            while (target := targets[following[gender] % len(targets)]).name == source.name:
                following[gender] += 1
            following[gender] += 1
            factors = {"gender_pair": f"{source.gender}2{gender}"}
            trial_id = f"{utterance.utterance_id}-{target.name}-{number}"
            built.append(
                make_trial(trial_id, utterance, source, target, reference_seconds, factors)
            )
    return built[:trials]


def _in_turn(speakers: Sequence[DealtSpeaker]) -> list[tuple[DealtSpeaker, Utterance]]:
    """Every source of every speaker: the first of each, then the second of each, …"""
    columns = [
        [(s, u) for u in sorted((u for c in s.sources.values() for u in c), key=_id)]
        for s in speakers
    ]
    return [pair for row in zip_longest(*columns) for pair in row if pair is not None]


def _id(utterance: Utterance) -> str:
    return utterance.utterance_id


def from_corpus(
    manifest: str | Path,
    *,
    root: str | Path,
    corpus: str,
    split: str,
    sources: str | Path,
    seed: int,
    reference_seconds: float = 5.0,
    recordings: int | None = None,
    name: str | None = None,
    limit: int | None = None,
) -> Suite:
    """A suite by the protocol `listed`, dealt from the local corpus at its first use.

    Args:
        manifest: where the trials are kept, with the hashes of their recordings.
        root: the corpus folder.
        corpus: a key of `suites.corpora.layouts.READERS`.
        split: the part of the corpus.
        sources: see `listed`.
        seed: see `listed`.
        reference_seconds: see `listed`.
        recordings: how many the published part has; a copy with fewer is refused. None: any number.
        name: see `Suite.load`.
        limit: see `Suite.load`.

    Raises:
        UserError: if there is no such corpus, or it is not complete.
        ManifestError: see `Suite.load`.
    """
    manifest, root = Path(manifest), Path(root)
    if not manifest.is_file():
        what = name or manifest.stem
        if not root.is_dir():
            raise UserError(
                f"suite {what}: no corpus folder at {root}; get it with "
                f"`vcbench corpus fetch {corpus}/{split}`, or choose another suite: suite=…"
            )
        faults = Faults()
        found = gather(READERS[corpus], root, faults, frozenset((split,)))
        if recordings is not None and len(found) + len(faults) < recordings:
            raise UserError(
                f"suite {what}: {len(found) + len(faults)} recordings of {split} in {root}, the "
                f"corpus has {recordings}; a list from a part of it would be another one: get it "
                f"again with `vcbench corpus fetch {corpus}/{split}`"
            )
        from suites.build import assemble  # which imports the protocols, and so this module

        settings: dict[str, Any] = {
            "seed": seed,
            "sources": sources,
            "reference_seconds": reference_seconds,
        }
        write_trials(assemble("listed", found, faults, **settings), manifest, root)
    return Suite.load(manifest, root=root, name=name, limit=limit)
