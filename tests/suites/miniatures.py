"""Writes miniatures of the corpora in their real layouts, with the embedded speech."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import soundfile

from suites.embedded import MINI

with (MINI / "utterances.csv").open(encoding="utf-8", newline="") as file:
    SPEECH = list(csv.DictReader(file))
BY_SPEAKER = {}
for row in SPEECH:
    BY_SPEAKER.setdefault(row["speaker"], []).append(row)
WOMEN = [s for s, rows in BY_SPEAKER.items() if rows[0]["gender"] == "F"]
MEN = [s for s, rows in BY_SPEAKER.items() if rows[0]["gender"] == "M"]


def put(row, path, start=0):
    """The recording of `row` at `path`, in the format that its ending says.

    A WAV has 2 s of it, beginning at the sample `start`: another number is another recording.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    source = MINI / row["path"]
    if path.suffix == ".flac":
        shutil.copyfile(source, path)
    else:
        samples, rate = soundfile.read(source, dtype="int16")
        soundfile.write(
            path, samples[start : start + 2 * rate], rate, subtype="PCM_16", format="WAV"
        )


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)


def librispeech(root: Path, speakers=(WOMEN[0], MEN[0])):
    table = ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
    for speaker in speakers:
        rows = BY_SPEAKER[speaker]
        table += f"{speaker:5}| {rows[0]['gender']} | test-clean       | 8.00  | Some Body\n"
        for row in rows:
            chapter = row["utterance_id"].split("-")[1]
            folder = root / "test-clean" / speaker / chapter
            put(row, folder / f"{row['utterance_id']}.flac")
            with (folder / f"{speaker}-{chapter}.trans.txt").open("a") as file:
                file.write(f"{row['utterance_id']} {row['text']}\n")
    write(root / "SPEAKERS.TXT", table)
    return root


def libritts(root: Path, speakers=(WOMEN[0], MEN[0]), count=2):
    table = "READER\tGENDER\tSUBSET\tNAME\n"
    for speaker in speakers:
        rows = BY_SPEAKER[speaker][:count]
        table += f"{speaker}\t{rows[0]['gender']}\ttest-clean\tSome Body\n"
        for number, row in enumerate(rows):
            chapter = row["utterance_id"].split("-")[1]
            name = f"{speaker}_{chapter}_{number:06d}_000000"
            path = root / "test-clean" / speaker / chapter / f"{name}.wav"
            put(row, path)
            write(path.with_name(f"{name}.normalized.txt"), row["text"].capitalize() + ".")
            write(path.with_name(f"{name}.original.txt"), row["text"].capitalize() + "!")
    write(root / "speakers.tsv", table)
    return root


# utterance → prompt's voice, prompt's text, voice, text. The sentences were written for this test.
SEED_TTS_EVAL = {
    "en": {
        "common_voice_en_101-common_voice_en_102": (
            *("en-us+f2", "The library closes at nine on weekdays."),
            *("en-us+m3", "A quick breakfast is better than no breakfast at all."),
        ),
        "common_voice_en_203-common_voice_en_204": (
            *("en-us+m1", "My sister has three cats, and all of them are lazy."),
            *("en-us+f4", "Don't forget to water the plants tomorrow morning."),
        ),
    },
    "zh": {
        "00000101-00000102": (
            *("cmn+f2", "图书馆晚上九点关门。"),
            *("cmn+m3", "今天天气很好，我们去公园散步。"),
        ),
        "00000203-00000204": (
            *("cmn+m1", "我妹妹养了三只猫，它们都很懒。"),
            *("cmn+f4", "明天早上别忘了给花浇水！"),
        ),
    },
}


def seed_tts_eval(root: Path, speak=None):
    """seed-tts-eval's test set: `{en,zh}/{meta,non_para_reconstruct_meta}.lst` and its recordings.

    Args:
        root: the folder.
        speak: text, voice, path → a WAV of the sentence; None for embedded speech that says
            something else.
    """
    rows = iter(SPEECH)
    for language, trials in SEED_TTS_EVAL.items():
        folder = root / language
        lists = {"meta": "", "non_para_reconstruct_meta": ""}
        for name, (prompt_voice, prompt_text, voice, text) in trials.items():
            prompt, wav = f"prompt-wavs/{name.partition('-')[0]}.wav", f"wavs/{name}.wav"
            for said, by, path in ((prompt_text, prompt_voice, prompt), (text, voice, wav)):
                if speak is None:
                    put(next(rows), folder / path)
                else:
                    speak(said, by, folder / path)
            lists["meta"] += f"{name}|{prompt_text}|{prompt}|{text}\n"
            lists["non_para_reconstruct_meta"] += f"{name}|{prompt_text}|{prompt}|{text}|{wav}\n"
        for listed, lines in lists.items():
            write(folder / f"{listed}.lst", lines)
    return root


def vctk(root: Path):
    table = "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n"
    for name, speaker in (("p225", WOMEN[0]), ("p226", MEN[0]), ("p315", MEN[1])):
        gender = BY_SPEAKER[speaker][0]["gender"]
        table += f"{name}  23  {gender}    English    Southern England\n"
        for number, row in enumerate(BY_SPEAKER[speaker][:2], 1):
            for mic in ("mic1", "mic2"):
                put(row, root / "wav48_silence_trimmed" / name / f"{name}_{number:03d}_{mic}.flac")
            if name != "p315":
                write(root / "txt" / name / f"{name}_{number:03d}.txt", row["text"] + " \n")
    write(root / "speaker-info.txt", table)
    return root


EMOTIONS = {"Neutral": "中立", "Angry": "生气", "Happy": "快乐", "Sad": "伤心", "Surprise": "惊喜"}


def esd(root: Path, split=False, neutral=1):
    """One recording of each emotion a speaker; with more neutral ones, four speakers."""
    inner = root / "Emotion Speech Dataset"
    speakers = [("0001", WOMEN[0], "gb18030"), ("0011", MEN[0], "utf-16")]
    if neutral > 1:
        speakers += [("0002", WOMEN[1], "gb18030"), ("0012", MEN[1], "utf-8")]
    for name, speaker, encoding in speakers:
        lines = []
        numbers = [(e, n) for e in EMOTIONS for n in range(neutral if e == "Neutral" else 1)]
        for position, (emotion, number) in enumerate(numbers):
            utterance_id = f"{name}_{list(EMOTIONS).index(emotion) * 350 + 1 + number:06d}"
            row = BY_SPEAKER[speaker][position % len(BY_SPEAKER[speaker])]
            folder = inner / name / emotion / ("test" if split else "")
            put(row, folder / f"{utterance_id}.wav", start=100 * position)
            text = "我很好" + "啊" * position if name < "0011" else f"{position} {row['text']}"
            lines.append(f"{utterance_id}\t{text}\t{EMOTIONS[emotion]}\n")
        write(inner / name / f"{name}.txt", "".join(lines), encoding)
    return inner


def aishell3(root: Path):
    write(
        root / "spk-info.txt",
        "# speaker\tage group\tgender\taccent\n"
        "SSB0005\tB\tfemale\tnorth\nSSB0009\tB\tmale\tsouth\n",
    )
    lines = ""
    for name, speaker in (("SSB0005", WOMEN[0]), ("SSB0009", MEN[0])):
        for number, row in enumerate(BY_SPEAKER[speaker][:2], 1):
            file = f"{name}{number:04d}.wav"
            put(row, root / "train" / "wav" / name / file)
            lines += f"{file}\t广 guang3 州 zhou1 女 nv3\n"
    write(root / "train" / "content.txt", lines)
    return root


def vcc2020(root: Path, count=6):
    """English readers of the same sentences, and readers of Finnish and Mandarin."""
    folders = {
        "SEF1": ("vcc2020_database_training_source", "E"),
        "SEM1": ("vcc2020_database_training_source", "E"),
        "TFF1": ("vcc2020_database_training_target_task2", "F"),
        "TMM1": ("vcc2020_database_training_target_task2", "M"),
    }
    texts = root / "vcc2020_database_transcriptions" / "transcriptions_training"
    for key, letter in (("Eng", "E"), ("Fin", "F"), ("Man", "M")):
        lines = "".join(f"1{n:04d} sentence {n} of {letter}\n" for n in range(1, count + 1))
        write(texts / f"vcc2020_database_training_{key}_transcriptions.txt", lines)
    for speaker, (folder, letter) in folders.items():
        real = (WOMEN if speaker[2] == "F" else MEN)[int(speaker[0] == "T")]
        for number, row in enumerate(BY_SPEAKER[real][:count], 1):
            put(row, root / folder / speaker / f"{letter}1{number:04d}.wav")
    return root


def folder(root: Path, rows=SPEECH[:3], columns=("path", "speaker", "text")):
    lines = ",".join(columns) + "\n"
    for row in rows:
        put(row, root / f"{row['utterance_id']}.wav")
        cells = {**row, "path": f"{row['utterance_id']}.wav"}
        lines += ",".join(cells[c] for c in columns) + "\n"
    write(root / "corpus.csv", lines)
    return root


def lhotse(root: Path, form="recordings", packed=True):
    recordings, supervisions = [], []
    for row in SPEECH[:3]:
        put(row, root / "audio" / f"{row['utterance_id']}.flac")
        seconds = soundfile.info(root / "audio" / f"{row['utterance_id']}.flac").duration
        recordings.append(
            {
                "id": f"rec-{row['utterance_id']}",
                "sources": [
                    {
                        "type": "file",
                        "channels": [0],
                        "source": f"audio/{row['utterance_id']}.flac",
                    }
                ],
                "sampling_rate": 16000,
                "num_samples": round(seconds * 16000),
                "duration": seconds,
            }
        )
        supervisions.append(
            {
                "id": row["utterance_id"],
                "recording_id": f"rec-{row['utterance_id']}",
                "start": 0.0,
                "duration": seconds,
                "channel": 0,
                "text": row["text"],
                "language": "English",
                "speaker": row["speaker"],
                "gender": "female" if row["gender"] == "F" else "male",
                "custom": {"emotion": "Neutral"},
            }
        )
    if form == "recordings":
        tables = {"x_recordings_test": recordings, "x_supervisions_test": supervisions}
    else:
        cuts = [
            {"id": f"cut-{n}", "start": 0.0, "duration": r["duration"], "channel": 0}
            | {"supervisions": [s], "recording": r, "type": "MonoCut"}
            for n, (r, s) in enumerate(zip(recordings, supervisions, strict=True))
        ]
        tables = {"x_cuts_test": cuts}
    for name, records in tables.items():
        text = "".join(json.dumps(r) + "\n" for r in records)
        if packed:
            with gzip.open(root / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
                file.write(text)
        else:
            write(root / f"{name}.jsonl", text)
    return root
