"""The system under check with its inputs, and the verdict of a check."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from baselines.contract.process import Call, Probe
from bench.audio import Waveform, concatenate
from bench.errors import UserError
from bench.trials import Utterance

PASS, NOTE, FAIL = "pass", "note", "FAIL"
MAIN = "main"  # the process in which most calls are made
# Processes that are compared with the main one are forked from another server: strings have other
# hashes there, so that a result that depends on the order of a set is found.
OTHERS = ("other order", "again")
UNRELATED = 6  # pairs of a source and a reference that share no speaker and no words
SOURCE_SECONDS = 3.0
REFERENCE_SECONDS = 4.0
LONG_REFERENCE_SECONDS = 30.0
SPEAKERS = 2 * UNRELATED
QUIET = -120.0  # dB: stands for nothing at all


@dataclass(frozen=True)
class CheckResult:
    """The verdict of one check.

    Attributes:
        verdict: PASS, NOTE (worth knowing) or FAIL.
        reason: one sentence that names the value.
    """

    verdict: str
    reason: str


class NoSpeech(Exception):
    """A conversion of ordinary speech gave none; the message says which and why."""


class FirstFailed(NoSpeech):
    """The first conversion gave no speech: most checks have nothing to look at."""


class Clips:
    """The inputs: real speech of several speakers.

    Args:
        recordings: of at least `SPEAKERS` speakers.

    Attributes:
        pairs: (source, reference) of `SOURCE_SECONDS` and `REFERENCE_SECONDS`, all of different
            speakers; the first is the one that most checks convert.
        long_reference: `LONG_REFERENCE_SECONDS` of one speaker.
        other_reference: as much and as loud, of another speaker.

    Raises:
        UserError: if there are too few speakers.
    """

    def __init__(self, recordings: Sequence[Utterance]) -> None:
        speakers: dict[str, list[Utterance]] = {}
        for recording in sorted(recordings, key=lambda r: r.utterance_id):
            speakers.setdefault(recording.speaker, []).append(recording)
        if len(speakers) < SPEAKERS:
            raise UserError(
                f"known_recordings: {len(speakers)} speakers; a check needs at least {SPEAKERS}"
            )
        self._of_speaker = list(speakers.values())
        self.pairs = [
            (self.speech(2 * n, SOURCE_SECONDS), self.speech(2 * n + 1, REFERENCE_SECONDS))
            for n in range(UNRELATED)
        ]
        self.long_reference = self.speech(1, LONG_REFERENCE_SECONDS)
        other = self.speech(2, LONG_REFERENCE_SECONDS)
        gain = decibels(self.long_reference) - decibels(other)
        self.other_reference = louder(other, gain)

    def speech(self, speaker: int, seconds: float) -> Waveform:
        """The first `seconds` of a speaker's recordings, one after another and over again."""
        parts: list[Waveform] = []
        while sum(part.seconds for part in parts) < seconds:
            recordings = self._of_speaker[speaker]
            parts.append(recordings[len(parts) % len(recordings)].load())
        return concatenate(parts).first(seconds)


class Subject:
    """The system under check. Use it as a context manager: its processes end with the block.

    Args:
        name: of the system.
        settings: its configuration with `_target_`.
        clips: the inputs.
        call_seconds: how long the conversion of up to ten seconds may take; longer ones may take
            longer in proportion.
        trials: number of conversions of the check `memory`.
        long_seconds: duration of the longest input.

    Attributes:
        main_calls: all calls of the main process.
        home: what was in the home folder before.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        clips: Clips,
        *,
        call_seconds: float,
        trials: int,
        long_seconds: float,
    ) -> None:
        self.name, self.settings, self.clips = name, settings, clips
        self.call_seconds, self.trials, self.long_seconds = call_seconds, trials, long_seconds
        self._folder = tempfile.TemporaryDirectory(prefix="contract-", ignore_cleanup_errors=True)
        self._probes: dict[str, Probe] = {}
        self._calls: dict[tuple[Any, ...], Call] = {}
        self._started = 0
        self.main_calls: list[Call] = []
        self.home = entries(Path.home())

    def __enter__(self) -> "Subject":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in [*self._probes]:
            self.end(process)
        self._folder.cleanup()

    def probe(self, process: str = MAIN, settings: Mapping[str, Any] | None = None) -> Probe:
        """The process of this name; it is started if it does not run."""
        probe = self._probes.get(process)
        if probe is None or not probe.alive:
            self._started += 1
            folder = Path(self._folder.name) / f"{self._started}"
            server = int(process in OTHERS)
            probe = Probe(self.name, {**self.settings, **(settings or {})}, folder, server)
            self._probes[process] = probe
        return probe

    def end(self, process: str) -> None:
        """Ends a process; a later call starts another of its name."""
        if (probe := self._probes.pop(process, None)) is not None:
            probe.close()

    def call(
        self,
        source: Waveform,
        reference: Waveform,
        seed: int = 0,
        *,
        process: str = MAIN,
        again: int = 0,
        global_seed: int | None = None,
        count: bool = False,
    ) -> Call:
        """Converts once, or returns what the same call gave before.

        Args:
            source: gives the words.
            reference: gives the voice.
            seed: of the conversion.
            process: that converts.
            again: another number repeats a call that was made already.
            global_seed: of the global generators; `seed` if None.
            count: whether to count calls of torch modules.
        """
        key = (source.sha256, reference.sha256, seed, process, again, global_seed)
        if process == MAIN and not self.main_calls and key != self._first_key:
            self.first()
        if key not in self._calls:
            seconds = self.call_seconds * max(1.0, source.seconds / 10, reference.seconds / 10)
            call = self.probe(process).call(source, reference, seed, seconds, global_seed, count)
            self._calls[key] = call
            if process == MAIN:
                self.main_calls.append(call)
        return self._calls[key]

    @property
    def _first_key(self) -> tuple[Any, ...]:
        source, reference = self.clips.pairs[0]
        return (source.sha256, reference.sha256, 0, MAIN, 0, None)

    def first(self) -> Call:
        """The first call of the main process: the first pair with seed 0."""
        return self.call(*self.clips.pairs[0])

    def speech(
        self, source: Waveform, reference: Waveform, seed: int = 0, what: str = "", **more: Any
    ) -> Waveform:
        """The converted speech of a call.

        Args:
            source: gives the words.
            reference: gives the voice.
            seed: of the conversion.
            what: the inputs, for the error: "a source 20 dB softer".
            more: see `call`.

        Raises:
            FirstFailed: if the very first conversion failed.
            NoSpeech: if this one failed.
        """
        if fault := self.first().fault:
            raise FirstFailed(f"its first conversion {fault}")
        call = self.call(source, reference, seed, **more)
        if call.fault:
            what = what or f"{source.seconds:g} s of speech"
            raise NoSpeech(f"converting {what} {call.fault}")
        assert call.converted is not None
        return call.converted


def decibels(waveform: Waveform) -> float:
    """RMS level in dB of full scale; `QUIET` for digital silence."""
    power = float(np.mean(waveform.numpy().astype(np.float64) ** 2))
    return max(QUIET, 10 * float(np.log10(power))) if power > 0 else QUIET


def louder(waveform: Waveform, gain: float) -> Waveform:
    """The waveform with a gain in dB."""
    return Waveform.from_numpy(waveform.numpy() * 10 ** (gain / 20), waveform.sample_rate)


def difference(one: Waveform, other: Waveform) -> float:
    """Power of the difference against the first's, in dB; `QUIET` if equal, 0 if of other length.

    0 dB is about the difference of unrelated speech that is half as loud; such speech as loud as
    the first has 3 dB.
    """
    if one.sample_rate != other.sample_rate or len(one.samples) != len(other.samples):
        return 0.0
    a, b = (w.numpy().astype(np.float64) for w in (one, other))
    gap, power = float(np.mean((a - b) ** 2)), float(np.mean(a**2))
    if gap == 0 or power == 0:
        return QUIET if gap == 0 else 0.0
    return max(QUIET, 10 * float(np.log10(gap / power)))


def entries(folder: Path) -> set[Path]:
    """What lies directly in a folder; nothing if it cannot be read."""
    try:
        return set(folder.iterdir())
    except OSError:
        return set()
