"""Readers of corpora: one for each layout, as it is unpacked from its archive."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError, shown
from bench.files import read_text
from bench.trials import Utterance
from suites.corpora.table import CorpusRecording, Faults, rows_of

GENDERS = {"f": "F", "female": "F", "m": "M", "male": "M"}
AUDIO = frozenset((".wav", ".flac", ".mp3", ".ogg", ".opus"))

NO_TEXT = "audio without transcript"
NO_AUDIO = "transcript without audio"
NO_SPEAKER = "speaker without a gender in the speaker table"
NO_TABLE = "missing speaker table, so no genders"


def librispeech(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """LibriSpeech: <split>/<speaker>/<chapter>/<id>.flac, a transcript a chapter, SPEAKERS.TXT."""
    genders = _libri_genders(root, faults)
    for split in _splits(root, splits):
        for chapter in sorted(split.glob("*/*/")):
            texts: dict[str, str] = {}
            for transcript in sorted(chapter.glob("*.trans.txt")):
                for line in read_text(transcript).splitlines():
                    name, _, text = line.strip().partition(" ")
                    texts[name] = text
            sounds = {path.stem: path for path in chapter.glob("*.flac")}
            speaker = chapter.parent.name
            for name, path in _paired(sounds, texts, faults):
                utterance = Utterance(
                    name,
                    speaker,
                    _gender(genders, speaker, faults),
                    path,
                    texts[name],
                    corpus=f"LibriSpeech/{split.name}",
                )
                yield CorpusRecording(utterance, 0.0, split.name, "en")


def libritts(
    root: Path, splits: frozenset[str], faults: Faults, corpus: str = "LibriTTS"
) -> Iterator[CorpusRecording]:
    """LibriTTS: <split>/<speaker>/<chapter>/<id>.wav with <id>.normalized.txt, speakers.tsv."""
    genders = _libri_genders(root, faults)
    for split in _splits(root, splits):
        for chapter in sorted(split.glob("*/*/")):
            sounds = {path.stem: path for path in chapter.glob("*.wav")}
            ending = ".normalized.txt"
            texts = {
                path.name.removesuffix(ending): read_text(path).strip()
                for path in chapter.glob(f"*{ending}")
            }
            speaker = chapter.parent.name
            for name, path in _paired(sounds, texts, faults):
                utterance = Utterance(
                    name,
                    speaker,
                    _gender(genders, speaker, faults),
                    path,
                    texts[name],
                    corpus=f"{corpus}/{split.name}",
                )
                yield CorpusRecording(utterance, 0.0, split.name, "en")


def libritts_r(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """LibriTTS-R: as LibriTTS."""
    return libritts(root, splits, faults, corpus="LibriTTS-R")


def vctk(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """VCTK 0.92, microphone 1: wav48_silence_trimmed/<speaker>/<id>_mic1.flac and txt/.

    p315 is left out: its texts were lost, as the corpus's README says.
    """
    genders: dict[str, str] = {}
    if table := _first(root, "speaker-info.txt"):
        for line in read_text(table).splitlines()[1:]:
            if len(cells := line.split()) >= 3:
                name = cells[0] if not cells[0].isdigit() else f"p{cells[0]}"
                genders[name] = GENDERS.get(cells[2].lower(), "")
    else:
        faults.add(NO_TABLE, root / "speaker-info.txt")
    ending = "_mic1.flac"
    sound_folder, text_folder = root / "wav48_silence_trimmed", root / "txt"
    names = {p.name for f in (sound_folder, text_folder) for p in f.glob("*/")} - {"p315"}
    for speaker in sorted(names):
        sounds = {
            path.name.removesuffix(ending): path
            for path in (sound_folder / speaker).glob(f"*{ending}")
        }
        texts = {
            path.stem: " ".join(read_text(path).split())
            for path in (text_folder / speaker).glob("*.txt")
        }
        for name, path in _paired(sounds, texts, faults):
            gender = _gender(genders, speaker, faults)
            utterance = Utterance(name, speaker, gender, path, texts[name], corpus="VCTK")
            yield CorpusRecording(utterance, 0.0, "", "en")


# From the corpus's ReadMe.txt; speakers 0001-0010 speak Chinese, 0011-0020 English.
ESD_WOMEN = frozenset(
    ("0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019")
)
ESD_EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")


def esd(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """ESD: <speaker>/<Emotion>[/<split>]/<id>.wav and <speaker>/<speaker>.txt."""
    for folder in sorted(root.rglob("00[0-9][0-9]/")):
        speaker = folder.name
        texts: dict[str, str] = {}
        for table in sorted(folder.glob("*.txt")):
            for line in _decoded(table).splitlines():
                if len(cells := line.strip().split("\t")) >= 2:
                    texts[cells[0].strip()] = cells[1].strip()
        sounds = {}
        for emotion in ESD_EMOTIONS:
            for path in (folder / emotion).rglob("*.wav"):
                split = "" if path.parent.name == emotion else path.parent.name
                if not splits or split in splits:
                    sounds[path.stem] = path
        of_splits = {n: t for n, t in texts.items() if n in sounds} if splits else texts
        for name, path in _paired(sounds, of_splits, faults):
            split = "" if path.parent.name in ESD_EMOTIONS else path.parent.name
            emotion = path.relative_to(folder).parts[0].lower()
            utterance = Utterance(
                name,
                speaker,
                "F" if speaker in ESD_WOMEN else "M",
                path,
                texts[name],
                corpus=f"ESD/{split}" if split else "ESD",
            )
            yield CorpusRecording(
                utterance, 0.0, split, "zh" if speaker <= "0010" else "en", emotion
            )


def aishell3(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """AISHELL-3: <split>/wav/<speaker>/<id>.wav, <split>/content.txt, spk-info.txt."""
    genders: dict[str, str] = {}
    if table := _first(root, "spk-info.txt"):
        for line in read_text(table).splitlines():
            if not line.startswith("#") and len(cells := line.split()) >= 3:
                genders[cells[0]] = GENDERS.get(cells[2].lower(), "")
    else:
        faults.add(NO_TABLE, root / "spk-info.txt")
    for split in _splits(root, splits):
        texts: dict[str, str] = {}
        content = split / "content.txt"
        if content.is_file():
            for line in read_text(content).splitlines():
                name, _, words = line.strip().partition("\t")
                texts[Path(name).stem] = "".join(words.split()[::2])  # characters, not their pinyin
        sounds = {path.stem: path for path in (split / "wav").glob("*/*.wav")}
        for name, path in _paired(sounds, texts, faults):
            speaker = path.parent.name
            gender = _gender(genders, speaker, faults)
            corpus = f"AISHELL-3/{split.name}"
            utterance = Utterance(name, speaker, gender, path, texts[name], corpus=corpus)
            yield CorpusRecording(utterance, 0.0, split.name, "zh")


VCC_LANGUAGES = {"E": "en", "F": "fi", "G": "de", "M": "zh"}
VCC_TABLES = {"Eng": "E", "Fin": "F", "Ger": "G", "Man": "M", "evaluation": "E"}


def vcc2020(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """VCC 2020, the public part of the EMIME bilingual corpus: …/<speaker>/<id>.wav.

    A speaker is named S or T (source, target), E, F, G or M (language), F or M (gender) and a
    number; a file by the language's letter and the sentence. All readers of English read the same
    sentences. The archive of the transcripts is unpacked into the same folder.
    """
    texts: dict[str, str] = {}
    for table in sorted(root.rglob("*transcriptions.txt")):
        letters = [letter for key, letter in VCC_TABLES.items() if f"_{key}_" in table.name]
        for line in read_text(table).splitlines():
            number, _, text = line.strip().partition(" ")
            if letters and number.isdigit():
                texts[f"{letters[0]}{number}"] = text.strip()
    for path in sorted(root.rglob("*.wav")):
        speaker = path.parent.name
        if not re.fullmatch(r"[ST][EFGM][FM]\d", speaker) or path.name.startswith("."):
            continue
        split = next(
            (s for s in ("evaluation", "groundtruth") if s in str(path.parent)), "training"
        )
        if splits and split not in splits:
            continue
        if path.stem not in texts:
            faults.add(NO_TEXT, f"{speaker}/{path.stem}")
            continue
        name = f"{speaker}-{path.stem}"
        utterance = Utterance(
            name, speaker, speaker[2], path, texts[path.stem], corpus=f"VCC2020/{split}"
        )
        yield CorpusRecording(utterance, 0.0, split, VCC_LANGUAGES.get(path.stem[0], ""))


def folder(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """A folder with one CSV: path, speaker, text, and optionally utterance_id, gender, corpus,
    split, language, emotion.
    """
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        raise UserError(f"{root}: {len(tables)} CSV files in it; a corpus folder has one")
    listed = set()
    for _, row in rows_of(tables[0], ("path", "speaker", "text")):
        split = row.get("split", "")
        path = root / row["path"]
        listed.add(path)
        if splits and split not in splits:
            continue
        if not path.resolve().is_relative_to(root.resolve()):
            faults.add("file outside the corpus folder", path)
            continue
        corpus = row.get("corpus") or root.name
        utterance = Utterance(
            row.get("utterance_id") or path.stem,
            row["speaker"],
            GENDERS.get(row.get("gender", "").lower(), ""),
            path,
            row["text"],
            corpus=f"{corpus}/{split}" if split else corpus,
        )
        language, emotion = row.get("language", ""), row.get("emotion", "")
        yield CorpusRecording(utterance, 0.0, split, language, emotion.lower())
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in AUDIO and path not in listed:
            faults.add(NO_TEXT, path.relative_to(root))


def kaldi(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """A Kaldi data folder: wav.scp, text, utt2spk and, where there is one, spk2gender.

    Paths are absolute or relative to the folder. A line of wav.scp that is a command is never run.
    """
    sounds = _pairs(root / "wav.scp")
    texts, speakers = _pairs(root / "text"), _pairs(root / "utt2spk")
    genders = {}
    if (root / "spk2gender").is_file():
        genders = {k: GENDERS.get(v.lower(), "") for k, v in _pairs(root / "spk2gender").items()}
    for name in sorted(sounds | texts):
        if name not in sounds:
            faults.add(NO_AUDIO, name)
        elif name not in texts:
            faults.add(NO_TEXT, name)
        elif name not in speakers:
            faults.add("recording without a speaker", name)
        elif sounds[name].endswith("|"):
            faults.add("command in place of a file", f"{name}: {sounds[name]}")
        else:
            speaker = speakers[name]
            path = root / sounds[name]
            utterance = Utterance(name, speaker, genders.get(speaker, ""), path, texts[name])
            yield CorpusRecording(utterance, 0.0, "")


def lhotse(root: Path, splits: frozenset[str], faults: Faults) -> Iterator[CorpusRecording]:
    """lhotse's manifests: *cuts*.jsonl(.gz), or *recordings* and *supervisions* with one ending.

    Only whole files are read: a part of a file, several sources or a command is a fault.
    """
    sounds = {}
    for path in _manifests(root, "recordings"):
        sounds.update({record["id"]: record for record in _json_lines(path)})
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = []  # supervision, its recording
    for path in _manifests(root, "cuts"):
        for cut in _json_lines(path):
            # Times in a cut's supervision count from the start of the cut.
            of_cut = cut.get("recording") or {}
            for s in cut.get("supervisions", []):
                pairs.append(({**s, "start": s["start"] + cut.get("start", 0.0)}, of_cut))
    for path in _manifests(root, "supervisions"):
        pairs += [(s, sounds.get(s["recording_id"], {})) for s in _json_lines(path)]
    with_text = {s["recording_id"] for s, _ in pairs}
    for name in sorted(sounds.keys() - with_text):
        faults.add(NO_TEXT, name)
    for supervision, recording in pairs:
        name = supervision["id"]
        if not recording:
            faults.add(NO_AUDIO, name)
            continue
        sources = recording.get("sources", [])
        if len(sources) != 1 or sources[0].get("type") != "file":
            faults.add("sound that is not one file", name)
            continue
        whole = recording["duration"]
        if supervision["start"] > 0.02 or supervision["duration"] < whole - 0.02:
            faults.add("part of a file", f"{name} (export it as a separate file)")
            continue
        path = root / sources[0]["source"]
        if not path.resolve().is_relative_to(root.resolve()):
            faults.add("file outside the corpus folder", path)
            continue
        custom = supervision.get("custom") or {}
        utterance = Utterance(
            name,
            supervision.get("speaker") or "",
            GENDERS.get((supervision.get("gender") or "").lower(), ""),
            path,
            supervision.get("text") or "",
            corpus=str(custom.get("corpus", "")),
        )
        language = (supervision.get("language") or "").lower()
        language = {"english": "en", "chinese": "zh", "mandarin": "zh"}.get(language, language)
        yield CorpusRecording(
            utterance, whole, "", language, str(custom.get("emotion", "")).lower()
        )


READERS: dict[str, Callable[[Path, frozenset[str], Faults], Iterable[CorpusRecording]]] = {
    "librispeech": librispeech,
    "libritts": libritts,
    "libritts_r": libritts_r,
    "vctk": vctk,
    "esd": esd,
    "aishell3": aishell3,
    "vcc2020": vcc2020,
    "folder": folder,
    "kaldi": kaldi,
    "lhotse": lhotse,
}


def _splits(root: Path, wanted: frozenset[str]) -> list[Path]:
    """The folders of the splits; of all splits if none is named.

    Raises:
        UserError: if one of `wanted` is missing.
    """
    for name in sorted(wanted):
        if not (root / name).is_dir():
            present = ", ".join(sorted(p.name for p in root.glob("*/"))) or "nothing"
            raise UserError(f"{root}: no split {name!r}; there is {present}")
    return [p for p in sorted(root.glob("*/")) if not wanted or p.name in wanted]


def _paired(
    sounds: dict[str, Path], texts: dict[str, str], faults: Faults
) -> Iterator[tuple[str, Path]]:
    """Id and file of recordings with audio and transcript; the others are recorded as faults."""
    for name in sorted(texts.keys() - sounds.keys()):
        faults.add(NO_AUDIO, name)
    for name in sorted(sounds.keys() - texts.keys()):
        faults.add(NO_TEXT, name)
    for name in sorted(sounds.keys() & texts.keys()):
        yield name, sounds[name]


def _gender(genders: dict[str, str], speaker: str, faults: Faults) -> str:
    """The speaker's gender; a speaker who is missing in the table is recorded once as a fault."""
    if genders and speaker not in genders:
        faults.add(NO_SPEAKER, speaker)
        genders[speaker] = ""
    return genders.get(speaker, "")


def _libri_genders(root: Path, faults: Faults) -> dict[str, str]:
    """Reader → F or M: from SPEAKERS.TXT (`id | sex | …`) or speakers.tsv (`READER GENDER …`)."""
    table = _first(root, "SPEAKERS.TXT", "SPEAKERS.txt", "speakers.tsv")
    if table is None:
        faults.add(NO_TABLE, f"SPEAKERS.TXT or speakers.tsv in {root}")
        return {}
    genders = {}
    for line in read_text(table).splitlines():
        cells = [cell.strip() for cell in re.split(r"[|\t]", line)]
        if len(cells) >= 2 and cells[0].isdigit():
            genders[cells[0]] = GENDERS.get(cells[1].lower(), "")
    return genders


def _first(root: Path, *names: str) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _decoded(path: Path) -> str:
    """The text of a file in one of the encodings of ESD's tables."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: neither UTF-8, UTF-16 nor GB 18030; save it as UTF-8")


def _pairs(path: Path) -> dict[str, str]:
    """First word of each line → the rest."""
    if not path.is_file():
        raise UserError(f"no {path.name} in {path.parent}; a Kaldi folder has one")
    lines = read_text(path).splitlines()
    return {k: v.strip() for k, _, v in (line.strip().partition(" ") for line in lines) if k}


def _manifests(root: Path, kind: str) -> list[Path]:
    return sorted(p for p in root.glob(f"*{kind}*.jsonl*") if p.name.endswith((".jsonl", ".gz")))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _json_object(f"{path}:{number}", line)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not gzip, or cut short ({error}); copy it again") from error


def _json_object(where: str, line: str) -> dict[str, Any]:
    if "\0" in line:
        raise UserError(f"{where}: not UTF-8 text (it has NUL bytes); save it as UTF-8")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be a JSON object, not {shown(record)}")
    return record
