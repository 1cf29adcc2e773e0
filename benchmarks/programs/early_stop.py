"""Measures how often Whisper's transcript ends before the speech does.

    python -m benchmarks.programs.early_stop outputs/mini --every 1

Every conversion of a run whose words are the source's is transcribed in three ways: as the judge
does it (greedy, no time stamps), greedy with time stamps, and by openai-whisper's own `transcribe`
at temperature 0. A transcript ends early if its alignment with the text ends in at least three
deletions: words that come after everything that was transcribed.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import jiwer
import torch
import whisper
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.audio import load
from bench.judges.nn.batches import full_precision
from bench.judges.normalisers import normalise
from bench.judges.recognisers.whisper import SAMPLE_RATE, Whisper
from bench.run.folder import read_report

FEWEST = 3  # words deleted at the end


def missing_at_the_end(text: str, hypothesis: str) -> int:
    """How many words of `text` come after everything that `hypothesis` has of it."""
    alignment = jiwer.process_words(text, hypothesis).alignments[0]
    last = alignment[-1] if alignment else None
    return last.ref_end_idx - last.ref_start_idx if last and last.type == "delete" else 0


def decoders(judge: Whisper) -> dict[str, Callable[[torch.Tensor], str]]:
    """Name → transcript of a clip (T,) at 16 kHz."""
    model = judge.network

    def stamped(samples: torch.Tensor) -> str:
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples), model.dims.n_mels)
        options = whisper.DecodingOptions(language="en", temperature=0.0, fp16=False)
        return str(whisper.decode(model, mel.to(judge.device), options).text)

    def transcribed(samples: torch.Tensor) -> str:
        result = model.transcribe(
            samples, language="en", temperature=0.0, condition_on_previous_text=False, fp16=False
        )
        return str(result["text"])

    return {
        "the judge": lambda samples: judge._decode([samples], "en")[0].text,
        "time stamps": stamped,
        "transcribe": transcribed,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every so many conversions")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    results = read_report(given.folder)
    words = {t.trial_id: t.source.text for s in results.suites.values() for t in s.trials}
    ceilings = {s for s, role in results.anchors.items() if role == "ceiling"}
    rows = results.scores.query("status == 'ok'")
    rows = rows[~rows["system"].isin(ceilings)].drop_duplicates("wav_sha256").iloc[:: given.every]
    transcribers = decoders(Whisper(device=given.device))
    counts: dict[tuple[str, str], list[int]] = {}
    for row in track(list(rows.itertuples()), description="transcribing"):
        text = normalise(words[row.trial_id])
        samples = load(given.folder / row.wav).resample(SAMPLE_RATE).samples
        for name, transcribe in transcribers.items():
            with full_precision():
                hypothesis = normalise(transcribe(samples))
            count = counts.setdefault((row.system, name), [0, 0, 0, 0])
            errors = jiwer.process_words(text, hypothesis)
            wrong = errors.substitutions + errors.deletions + errors.insertions
            early = missing_at_the_end(text, hypothesis) >= FEWEST
            for n, value in enumerate((1, early, wrong, len(text.split()))):
                count[n] += value
            if early:
                print(f"{row.system}/{row.trial_id}, {name}: {hypothesis!r} of {text!r}")
    table = Table("system", "decoding", "clips", "end early", "WER %")
    for (system, name), (clips, early, wrong, total) in counts.items():
        table.add_row(system, name, str(clips), str(early), f"{100 * wrong / total:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
