"""Writes a designed listening test: the sounds, test.json, key.json, and its presentations."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from bench import audio
from bench.audio import AudioError, Waveform
from bench.errors import UserError
from bench.files import read_text, sha256_of, write_json
from reports.listening import p808, page, webmushra
from reports.listening.checks import DEGRADED, TONES
from reports.listening.design import Sound
from reports.listening.format import AUDIO, KEY, MUSHRA, REFERENCE, SOURCE, TARGET, TEST
from reports.listening.loudness import (
    HIGHEST_PEAK,
    QUIETEST_LUFS,
    TARGET_LUFS,
    Trimmed,
    degraded,
    gain_to,
    loudness,
    low_pass,
    padded,
    trimmed,
    true_peak,
    with_tones,
)
from reports.listening.stimuli import ListeningTest

LOWEST_RATE, HIGHEST_RATE = 16_000, 48_000  # Hz; of the stimuli
WRITTEN = 946_684_800  # 2000-01-01: the date of every stimulus, whose order would say something
ROUNDED = 4  # decimals of what is recorded


@dataclass(frozen=True)
class Presentation:
    """What does not change the test itself.

    Attributes:
        url: of the folder that `audio/` will be served from, for the P.808 toolkit; "" to leave its
            files out.
        code: completion code of the page; "" for one made of the test's id.
        headphones: whether the page begins with the headphone check.
    """

    url: str = ""
    code: str = ""
    headphones: bool = True


DEFAULT = Presentation()


def write_test(test: ListeningTest, out: Path, how: Presentation = DEFAULT) -> list[str]:
    """Writes the folder of a test. An interrupted export leaves `out` as it was.

    Returns:
        Notes for the user.

    Raises:
        UserError: if `out` holds something else, or a sound cannot be used.
    """
    existing = _existing(out, test.test_id)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        (folder / AUDIO).mkdir(parents=True)
        rate = _rate(test)
        level = TARGET_LUFS
        processing, needed = _render(test, folder / AUDIO, rate, level)
        notes = []
        if needed < level:  # one sound has peaks too high for the level: all are made quieter
            level = needed
            processing, _ = _render(test, folder / AUDIO, rate, level, processing)
            notes.append(
                f"The level is {level:.1f} LUFS instead of {TARGET_LUFS:.0f}: the true peak of one "
                f"sound would be over {HIGHEST_PEAK:.0f} dBTP."
            )
        public = test.public()
        key = {**test.key(processing), "level_lufs": round(level, ROUNDED), "sample_rate": rate}
        hidden = frozenset(
            name
            for sound, name in test.ids.items()
            if test.options.kind == MUSHRA and sound.what == SOURCE
        )
        page.write_page(folder, public, test.wording, how.code, how.headphones)
        notes += webmushra.write_webmushra(folder, public, test.wording, hidden)
        if how.url:
            notes += p808.write_p808(folder, public, key, how.url)
        write_json(folder / KEY, key)
        write_json(folder / TEST, public)
        if existing:
            _move_over(folder, out)
        else:
            folder.replace(out)
    return notes


def _existing(out: Path, test_id: str) -> bool:
    """Whether `out` holds this very test.

    Raises:
        UserError: if it holds anything else.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file; give a new folder: out=…")
    if not any(out.iterdir()):
        return True
    if (out / TEST).is_file() and f'"test_id": "{test_id}"' in read_text(out / TEST):
        return True
    raise UserError(
        f"{out} is not empty and holds another test or other files, perhaps ratings; give a new "
        "folder: out=…"
    )


def _move_over(folder: Path, out: Path) -> None:
    """Replaces the files of `out` by those of `folder`; other files stay."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            target = out / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def unusable_trials(test: ListeningTest) -> list[str]:
    """The trials of a test with a sound that is too quiet, silent or damaged: "suite/trial_id".

    Nothing is written. Recordings of attention checks belong to no trial and are not named.
    """
    rate = _rate(test)

    def faulty(sounds: list[Sound]) -> list[str]:
        prepared, faults = _prepared(sounds, rate)
        quiet = [s for s, (_, samples) in prepared.items() if _quiet(loudness(samples, rate))]
        return [f"{s.suite}/{s.trial_id}" for s in (*faults, *quiet) if s.suite]

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        every = pool.map(faulty, _of_one_length(test).values())
        return list(dict.fromkeys(name for names in every for name in names))


def _quiet(lufs: float) -> str:
    """Why a sound of this loudness cannot be matched; "" if it can."""
    return "" if lufs > QUIETEST_LUFS else f"too quiet: {lufs:.1f} LUFS, under {QUIETEST_LUFS:.0f}"


def _rate(test: ListeningTest) -> int:
    """The sample rate of the stimuli in Hz."""
    paths = {path for sound in test.ids for path in sound.paths}
    rates = (soundfile.info(path).samplerate for path in paths)
    return test.options.sample_rate or min(max(*rates, LOWEST_RATE), HIGHEST_RATE)


def _of_one_length(test: ListeningTest) -> dict[tuple[str, str, bool], list[Sound]]:
    """The sounds in groups that are padded to one length: those of a trial, its voice aside."""
    groups = defaultdict(list)
    for sound in test.ids:
        voice = sound.what == REFERENCE and test.options.kind != MUSHRA
        groups[sound.suite, sound.trial_id, voice].append(sound)
    return groups


def _render(
    test: ListeningTest,
    folder: Path,
    rate: int,
    level: float,
    known: Mapping[Sound, Mapping[str, Any]] | None = None,
) -> tuple[dict[Sound, dict[str, Any]], float]:
    """Writes every sound at the level.

    Args:
        test: whose sounds are written.
        folder: of the sounds.
        rate: in Hz.
        level: in LUFS.
        known: what was done at another level, which is not measured again; None at first.

    Returns:
        What was done to each sound, and the highest level that all true peaks allow.

    Raises:
        UserError: names all sounds that are too quiet, silent or damaged.
    """

    def rendered(sounds: list[Sound]) -> dict[Sound, dict[str, Any]]:
        return _render_alike(sounds, test.ids, folder, rate, level, known or {})

    processing: dict[Sound, dict[str, Any]] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for facts in pool.map(rendered, _of_one_length(test).values()):
            processing.update(facts)
    if faults := {sound: f["fault"] for sound, f in processing.items() if "fault" in f}:
        raise _unusable(faults)
    return processing, min(level + f["headroom_db"] for f in processing.values())


def _render_alike(
    sounds: list[Sound],
    ids: Mapping[Sound, str],
    folder: Path,
    rate: int,
    level: float,
    known: Mapping[Sound, Mapping[str, Any]],
) -> dict[Sound, dict[str, Any]]:
    """Writes the sounds of one trial, all of one length and one loudness.

    Returns:
        What was done to each; of one that cannot be used, and is not written, its fault.
    """
    prepared, faults = _prepared(sounds, rate)
    facts: dict[Sound, dict[str, Any]] = {s: {"fault": fault} for s, fault in faults.items()}
    for sound, (speech, samples) in prepared.items():
        if sound in known:
            lower = level - known[sound]["lufs_after"]
            before, after = known[sound]["lufs_before"], level
            gain, peak = (known[sound][k] + lower for k in ("gain_db", "true_peak_dbtp"))
        else:
            gain, before, after = gain_to(level, samples, rate)
            if fault := _quiet(before):
                facts[sound] = {"fault": fault}
                continue
            peak = true_peak(samples) + gain
        path = folder / f"{ids[sound]}.wav"
        Waveform.from_numpy(samples * 10 ** (gain / 20), rate).save(path)
        os.utime(path, (WRITTEN, WRITTEN))
        facts[sound] = {
            "sha256": sha256_of(path),
            "gain_db": round(gain, ROUNDED),
            "lufs_before": round(before, ROUNDED),
            "lufs_after": round(after, ROUNDED),
            "true_peak_dbtp": round(peak, ROUNDED),
            "headroom_db": round(HIGHEST_PEAK - peak, ROUNDED),
            "trimmed_seconds": [round(s, ROUNDED) for s in speech.removed],
            "seconds": round(len(samples) / rate, ROUNDED),
            "sample_rate_before": speech.rate_before,
            "sample_rate": rate,
            "change": sound.change,
        }
    return facts


def _prepared(
    sounds: Sequence[Sound], rate: int
) -> tuple[dict[Sound, tuple[Trimmed, np.ndarray]], dict[Sound, str]]:
    """The sounds of one trial without silence, and padded to one length; what is wrong with the
    others."""
    cut, faults = {}, {}
    for sound in sounds:
        try:
            cut[sound] = _changed(_load(sound), sound.change, rate)
        except AudioError as error:
            faults[sound] = error.fault
    whole = [len(c.samples) for sound, c in cut.items() if sound.what != TARGET]
    length = max(whole or [len(c.samples) for c in cut.values()], default=0)
    prepared = {}
    for sound, speech in cut.items():
        if len(speech.samples) > length:  # another sentence of the target speaker
            speech = _changed(_load(sound), sound.change, rate, length)
        prepared[sound] = speech, padded(speech.samples, length, rate)
    return prepared, faults


def _unusable(faults: Mapping[Sound, str]) -> UserError:
    """Names every sound, its fault and the way out."""
    named = []
    for sound, fault in faults.items():
        trial = f"{sound.system or sound.what} of {sound.suite}/{sound.trial_id}"
        what = trial if sound.suite else ", ".join(map(str, sound.paths))
        named.append(f"{what} ({fault})")
    trials = dict.fromkeys(f"{sound.suite}/{sound.trial_id}" for sound in faults if sound.suite)
    ways = []
    if trials:
        ways.append(
            f"leave the trials out for all systems by skip={','.join(trials)}, all such trials by "
            "unusable=skip, or a system by systems=…"
        )
    if any(not sound.suite for sound in faults):
        ways.append(
            "recordings of attention checks and of the training: replace the files, or give "
            "gold=0 traps=0 training=0"
        )
    return UserError(f"sounds that cannot be used: {'; '.join(named)}; {'; '.join(ways)}")


def _load(sound: Sound) -> Waveform:
    joined = audio.concatenate([audio.load(path) for path in sound.paths])
    return joined if sound.first_seconds is None else joined.first(sound.first_seconds)


def _changed(sound: Waveform, change: str, rate: int, longest: int | None = None) -> Trimmed:
    speech = trimmed(sound, rate, longest)
    if not change:
        return speech
    if change == DEGRADED:
        samples = degraded(speech.samples, rate)
    elif change.startswith(TONES):
        samples = with_tones(speech.samples, rate, int(change.removeprefix(TONES)))
    else:
        samples = low_pass(speech.samples, rate, float(change.removeprefix("low_pass_")))
    return Trimmed(samples, speech.removed, speech.rate_before)
