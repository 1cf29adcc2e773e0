"""Lists of trials for the questions of docs/model/questions.md, and their tables.

    python -m benchmarks.programs.questions RECORDINGS.csv OUT

It reads a CSV of recordings in many languages (`utterance_id, speaker, gender, path, text, seconds,
corpus`; a corpus ends in the language as Common Voice writes it, "Common Voice 6.1 zh-CN"; "AN4" is
English) and the embedded corpus. It writes four lists into OUT, and beside them all sounds that
they name, cut and disturbed:

- languages.jsonl: references of 3 s in many languages for English sources, enrolment from other
  recordings of the speaker;
- halves.jsonl: the first half of a recording is the reference and the second half the enrolment,
  since the English speakers of that corpus have one recording each;
- sources.jsonl: sources in many languages for English references;
- disturbed.jsonl: references of 3 s with noise or through a telephone's band.

All conditions of a list (the factor `condition`) have the same slots. In a slot only that differs
which the list is about: the same source for each reference, or the same reference for each source.
`benchmarks.programs.questions_scores` compares the conditions of a run.
"""

import random
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, zip_longest
from pathlib import Path

import numpy as np
from scipy.signal import butter, sosfiltfilt

from bench.audio import Waveform, load
from bench.errors import UserError
from bench.files import sha256_of
from bench.manifest import write_trials
from bench.trials import Trial, Utterance
from suites.build import MINI
from suites.corpora.table import read_csv, rows_of

RATE = 16_000  # Hz
AN4, ENGLISH, LIBRISPEECH = "English (AN4)", "English", "English (LibriSpeech)"
# Languages of Common Voice in groups that have 20 speakers with two recordings.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Romance, Germanic, Celtic": (
        *("ca", "es", "fr", "it", "pt", "ro", "de", "nl", "sv", "fy"),
        *("cy", "ga", "br"),
    ),
    "Slavic, Baltic": ("ru", "pl", "cs", "sl", "hsb", "lv", "lt"),
    "Uralic, Turkic and others": ("et", "hu", "fi", "eu", "ka", "tr", "ky", "tt", "mn", "el"),
    "South Asia": ("ta", "hi", "pa", "or", "as", "dv"),
    "East, South-East Asia": ("zh", "ja", "vi", "th", "id", "cnh"),
    "Near East, Africa": ("ar", "fa", "kab", "mt", "rw", "lg"),
}
# That Whisper knows, so that it can transcribe sources in them.
TRANSCRIBED = (
    *("ca", "es", "fr", "it", "pt", "ro", "de", "nl", "sv", "cy", "br", "ru", "pl", "cs", "sl"),
    *("lv", "lt", "et", "hu", "fi", "eu", "ka", "tr", "tt", "mn", "el", "ta", "hi", "pa", "as"),
    *("ja", "vi", "th", "id", "zh", "ar", "fa", "mt", "en"),
)
REFERENCE_SECONDS = 3.0
HALF_SECONDS = 2.2  # of reference and of enrolment where both come from one recording
SHORTEST_ENROLMENT = 2.0  # s
SOURCE_SECONDS = (4.0, 7.5)  # of English sources
SHORT_SOURCES = (3.0, 6.0)  # s, of sources in other languages
LANGUAGES_SLOTS, HALVES_SLOTS, SOURCES_SLOTS, DISTURBED_SLOTS = 20, 18, 12, 18
SNRS = (20, 10)  # dB
BAND = (300, 3400)  # Hz, of a telephone
LOWEST_HZ = 50.0  # under which pink noise grows no further


@dataclass(frozen=True)
class Recording:
    """A recording in one of the groups.

    Attributes:
        utterance: as in the corpus.
        seconds: its duration.
        group: the name of its condition; "" for a language of no group.
    """

    utterance: Utterance
    seconds: float
    group: str


def read_recordings(table: Path) -> list[Recording]:
    """The recordings of a CSV, see the module; those with an unstated gender are left out.

    Raises:
        UserError: names file and line of what is wrong.
    """
    group_of = {language: group for group, of in GROUPS.items() for language in of}
    needed = ("utterance_id", "speaker", "gender", "path", "text", "seconds", "corpus")
    recordings = []
    for line, row in rows_of(table, needed):
        language, group = "en", AN4
        if row["corpus"] != "AN4":
            ending = re.search(r" ([a-z]{2,3})(-[A-Za-z]+)?( \(.*\))?$", row["corpus"])
            if ending is None:
                raise UserError(f"{table}:{line}: corpus {row['corpus']!r} ends in no language")
            language = ending[1]
            # Cantonese and the two kinds of Mandarin are all "zh" there.
            group = "" if ending[2] == "-HK" else group_of.get(language, "")
            group = ENGLISH if language == "en" else group
        if row["gender"] in ("F", "M"):
            utterance = Utterance(
                *(row["utterance_id"], row["speaker"], row["gender"], table.parent / row["path"]),
                row["text"],
                corpus=row["corpus"],
                language=language,
            )
            recordings.append(Recording(utterance, float(row["seconds"]), group))
    return recordings


def embedded() -> list[Recording]:
    """The recordings of the embedded corpus."""
    return [
        Recording(r.utterance, r.seconds, LIBRISPEECH) for r in read_csv(MINI / "utterances.csv")
    ]


def pink(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with frequency, (count,)."""
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / RATE), LOWEST_HZ)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) / np.sqrt(frequencies), count)


def white(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of the same power at all frequencies, (count,)."""
    return rng.standard_normal(count)


def noisy(noise: Callable[..., np.ndarray], snr: float) -> Callable[[np.ndarray], np.ndarray]:
    """Adds noise at `snr` dB (root mean squares of the whole), always the same."""

    def add(samples: np.ndarray) -> np.ndarray:
        sound = noise(len(samples), np.random.default_rng(0))
        level = np.sqrt(np.mean(samples**2) / np.mean(sound**2)) * 10 ** (-snr / 20)
        return samples + level * sound

    return add


def narrow(samples: np.ndarray) -> np.ndarray:
    """Without what is outside of a telephone's band, (T,)."""
    return sosfiltfilt(butter(4, BAND, "band", fs=RATE, output="sos"), samples)


DISTURBANCES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "clean": lambda samples: samples,
    **{f"white {snr} dB": noisy(white, snr) for snr in SNRS},
    **{f"pink {snr} dB": noisy(pink, snr) for snr in SNRS},
    "300-3400 Hz": narrow,
}


class Sounds:
    """Writes the recordings of the lists into `folder`/audio, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "audio"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Utterance] = {}

    def store(
        self,
        utterance: Utterance,
        mark: str = "",
        part: slice = slice(None),
        change: Callable[[np.ndarray], np.ndarray] = DISTURBANCES["clean"],
    ) -> Utterance:
        """The utterance, or a changed part of it whose id ends in `mark`, as a stored file."""
        name = re.sub(r"[^A-Za-z0-9_+-]+", "-", f"{utterance.utterance_id}{mark}")
        if name not in self._known:
            samples = load(utterance.path).resample(RATE).numpy()[part].astype(np.float64)
            samples = change(samples)
            samples = samples / max(1.0, np.abs(samples).max() / 0.99)
            path = self.folder / f"{name}.wav"
            Waveform.from_numpy(samples, RATE).save(path)
            self._known[name] = replace(
                utterance,
                utterance_id=name,
                path=path,
                sha256=sha256_of(path),
                seconds=len(samples) / RATE,
            )
        return self._known[name]


@dataclass(frozen=True)
class Voice:
    """A speaker's recordings: `first` is reference or source, the others enrolment."""

    first: Recording
    others: tuple[Recording, ...]

    @property
    def speaker(self) -> str:
        return self.first.utterance.speaker


def voices(
    recordings: Sequence[Recording],
    rng: random.Random,
    first: tuple[float, float],
    others: int,
) -> dict[str, Iterator[Voice]]:
    """Gender → endless speakers, with the languages in turn.

    Args:
        recordings: of one condition.
        rng: of the order of speakers.
        first: the shortest and the longest duration of the first recording, the speaker's longest
            of these.
        others: how many other recordings of `SHORTEST_ENROLMENT` or more a speaker needs.
    """
    by_speaker: dict[tuple[str, str], list[Recording]] = defaultdict(list)
    for recording in sorted(recordings, key=lambda r: (-r.seconds, r.utterance.utterance_id)):
        utterance = recording.utterance
        by_speaker[utterance.speaker, utterance.language].append(recording)
    by_language: dict[str, dict[str, list[Voice]]] = {g: defaultdict(list) for g in "FM"}
    for (_, language), longest_first in sorted(by_speaker.items()):
        fitting = [r for r in longest_first if first[0] <= r.seconds <= first[1]]
        if not fitting:
            continue
        rest = [r for r in longest_first if r is not fitting[0]]
        rest = [r for r in rest if r.seconds >= SHORTEST_ENROLMENT]
        if len(rest) >= others:
            voice = Voice(fitting[0], tuple(rest[: max(others, 2)]))
            by_language[fitting[0].utterance.gender][language].append(voice)
    turns: dict[str, Iterator[Voice]] = {}
    for gender, languages in by_language.items():
        for of_language in languages.values():
            rng.shuffle(of_language)
        dealt = [v for row in zip_longest(*languages.values()) for v in row if v is not None]
        turns[gender] = cycle(dealt)
    return turns


def next_voice(turns: Mapping[str, Iterator[Voice]], gender: str, not_by: str = "") -> Voice:
    """The next speaker of that gender who is not `not_by`.

    Raises:
        UserError: if there is none.
    """
    for _ in range(2):
        voice = next(turns[gender], None)
        if voice is not None and voice.speaker != not_by:
            return voice
    raise UserError(f"a condition has no other speaker of gender {gender} than {not_by or 'none'}")


def english_sources(recordings: Sequence[Recording], rng: random.Random, slots: int) -> list[Voice]:
    """One source for each slot: women and men, and all speakers, in turn."""
    of: dict[str, list[list[Voice]]] = {"F": [], "M": []}
    speakers: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        speakers[recording.utterance.speaker].append(recording)
    for _, spoken in sorted(speakers.items()):
        fitting = [r for r in spoken if SOURCE_SECONDS[0] <= r.seconds <= SOURCE_SECONDS[1]]
        rng.shuffle(fitting)
        others = [[r for r in spoken if r is not source][:2] for source in fitting]
        of[spoken[0].utterance.gender].append(
            [Voice(s, tuple(o)) for s, o in zip(fitting, others, strict=True)]
        )
    turns = []
    for lists in of.values():
        rng.shuffle(lists)
        turns.append([v for row in zip_longest(*lists) for v in row if v is not None])
    dealt = [v for row in zip(*turns, strict=False) for v in row]
    if len(dealt) < slots:
        raise UserError(f"{len(dealt)} English sources; {slots} are needed")
    return dealt[:slots]


def trial(
    sounds: Sounds,
    slot: int,
    condition: str,
    source: Voice,
    references: Sequence[Utterance],
    enrolment: Sequence[Utterance],
    seconds: float | None,
) -> Trial:
    """A trial of one slot and one condition; their names are its id."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", condition).strip("_")
    return Trial(
        f"{slot:02d}-{name}",
        sounds.store(source.first.utterance),
        tuple(references),
        tuple(enrolment),
        tuple(sounds.store(r.utterance) for r in source.others),
        None,
        seconds,
        {"condition": condition},
    )


def languages_list(of: Mapping[str, list[Recording]], sounds: Sounds) -> Iterator[Trial]:
    """References of many languages, enrolment from other recordings."""
    rng = random.Random(1)
    sources = english_sources(of[LIBRISPEECH], rng, LANGUAGES_SLOTS)
    for condition in (AN4, LIBRISPEECH, *GROUPS):
        turns = voices(of[condition], rng, (REFERENCE_SECONDS, np.inf), 1)
        for slot, source in enumerate(sources):
            voice = next_voice(turns, "FMMM"[slot // 2 % 4], source.speaker)
            reference = sounds.store(voice.first.utterance)
            enrolment = [sounds.store(r.utterance) for r in voice.others]
            yield trial(sounds, slot, condition, source, [reference], enrolment, REFERENCE_SECONDS)


def halves_list(of: Mapping[str, list[Recording]], sounds: Sounds) -> Iterator[Trial]:
    """Reference and enrolment are parts of one recording."""
    rng = random.Random(2)
    sources = english_sources(of[LIBRISPEECH], rng, HALVES_SLOTS)
    length = round(HALF_SECONDS * RATE)
    europe, rest = list(GROUPS)[:3], list(GROUPS)[3:]
    pooled = {ENGLISH: [ENGLISH], "Europe but English": europe, "Asia, Africa": rest}
    for condition, groups in pooled.items():
        recordings = [r for group in groups for r in of[group]]
        turns = voices(recordings, rng, (2 * HALF_SECONDS, np.inf), 0)
        for slot, source in enumerate(sources):
            voice = next_voice(turns, "FMM"[slot // 2 % 3], source.speaker)
            whole = voice.first.utterance
            reference = sounds.store(whole, "-first", slice(length))
            enrolment = sounds.store(whole, "-last", slice(-length, None))
            yield trial(sounds, slot, condition, source, [reference], [enrolment], None)


def sources_list(of: Mapping[str, list[Recording]], sounds: Sounds) -> Iterator[Trial]:
    """Sources of many languages, English references of 5 s."""
    rng = random.Random(3)
    known = {
        group: [r for r in of[group] if r.utterance.language in TRANSCRIBED]
        for group in (ENGLISH, *GROUPS)
    }
    turns = voices(of[LIBRISPEECH], rng, (5.0, np.inf), 2)
    targets = [next_voice(turns, "FM"[slot % 2]) for slot in range(SOURCES_SLOTS)]
    for condition, recordings in known.items():
        turns = voices(recordings, rng, SHORT_SOURCES, 0)
        for slot, target in enumerate(targets):
            source = next_voice(turns, "FMMM"[slot // 2 % 4], target.speaker)
            reference = sounds.store(target.first.utterance)
            enrolment = [sounds.store(r.utterance) for r in target.others]
            yield trial(sounds, slot, condition, source, [reference], enrolment, 5.0)


def disturbed_list(of: Mapping[str, list[Recording]], sounds: Sounds) -> Iterator[Trial]:
    """English references of 3 s, disturbed; the enrolment is clean."""
    rng = random.Random(4)
    sources = english_sources(of[LIBRISPEECH], rng, DISTURBED_SLOTS)
    turns = voices(of[LIBRISPEECH], rng, (REFERENCE_SECONDS, np.inf), 2)
    targets = [
        next_voice(turns, "FM"[slot // 2 % 2], source.speaker)
        for slot, source in enumerate(sources)
    ]
    start = slice(round(REFERENCE_SECONDS * RATE))
    for condition, change in DISTURBANCES.items():
        for slot, (source, target) in enumerate(zip(sources, targets, strict=True)):
            mark = f"-{condition}"
            reference = sounds.store(target.first.utterance, mark, start, change)
            enrolment = [sounds.store(r.utterance) for r in target.others]
            yield trial(sounds, slot, condition, source, [reference], enrolment, None)


LISTS: Mapping[str, Callable[..., Iterator[Trial]]] = {
    "languages": languages_list,
    "halves": halves_list,
    "sources": sources_list,
    "disturbed": disturbed_list,
}


def build(table: Path, out: Path) -> None:
    """Writes the four lists and their sounds into `out`, and prints what they have.

    Raises:
        UserError: if a table or a sound cannot be used.
    """
    if not table.is_file():
        raise UserError(f"no file at {table}")
    of: dict[str, list[Recording]] = defaultdict(list)
    for recording in (*read_recordings(table), *embedded()):
        of[recording.group].append(recording)
    sounds = Sounds(out)
    for name, make in LISTS.items():
        trials = list(make(of, sounds))
        # One after another through the slots, so that the first n trials are balanced.
        trials.sort(key=lambda t: t.trial_id.partition("-")[0])
        path = out / f"{name}.jsonl"
        write_trials(trials, path, out)
        conditions = len({t.factors["condition"] for t in trials})
        print(f"{path}: {len(trials)} trials, {conditions} conditions")


def main(arguments: Sequence[str]) -> int:
    """Builds the lists; 1 if that fails."""
    if len(arguments) != 2:
        print((__doc__ or "").strip())
        return 0 if {"-h", "--help"} & set(arguments) else 1
    try:
        build(*map(Path, arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
