"""Does a checkpoint know its training voices by heart?

    python -m benchmarks.programs.known_voices CHECKPOINT path/to/training/utterances.csv

One protocol for voices that it was trained on and for those of the embedded corpus: the reference
is the first 5 s of a recording, the rest of the same recording is what SECS compares with, and the
words come from the embedded corpus. What the trained voices are nearer is learnt by heart; a model
that reads the reference does as well on either.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from bench.audio import Waveform, load
from bench.judges.encoders.resemblyzer import Resemblyzer
from suites.build import MINI
from suites.corpora.table import utterances
from takin_vc.checkpoint import load_checkpoint
from takin_vc.config import ConfigError
from takin_vc.model import TakinVC
from takin_vc.tensors import WeightsError
from takin_vc.train.data.corpus import CorpusError, names_of, read_recordings

REFERENCE_SECONDS = 5.0
LEAST_SECONDS = 9.0  # of a recording: 5 s to give and 4 to compare with
WORDS_SECONDS = 6.0
VOICES = 18


def one_a_speaker(recordings: Sequence[tuple[str, Path]], count: int) -> list[Waveform]:
    """The first recording of each speaker that is long enough, of speakers spread over the list."""
    found: dict[str, Path] = {}
    for speaker, path in recordings:
        if speaker not in found and soundfile.info(path).duration >= LEAST_SECONDS:
            found[speaker] = path
    names = sorted(found)
    spread = np.linspace(0, len(names) - 1, count).round().astype(int) if names else []
    return [load(found[names[i]]) for i in sorted(set(spread))]


def likeness(
    model: TakinVC, encoder: Resemblyzer, voices: Sequence[Waveform], words: Sequence[Waveform]
) -> tuple[np.ndarray, np.ndarray]:
    """SECS of each voice's conversion, and of its true reference: (N,) each."""
    cut = [round(REFERENCE_SECONDS * voice.sample_rate) for voice in voices]
    given = [Waveform(v.samples[:n], v.sample_rate) for v, n in zip(voices, cut, strict=True)]
    rest = [Waveform(v.samples[n:], v.sample_rate) for v, n in zip(voices, cut, strict=True)]
    spoken = []
    for i, reference in enumerate(given):
        # Half the list further on: where the voices are of this list, never the voice's own words.
        speech = model.convert(words[(i + len(words) // 2) % len(words)], reference, seed=i)
        spoken.append(Waveform(speech.samples, speech.sample_rate))
    converted, truth, wanted = map(encoder.embed, (spoken, given, rest))
    return (converted * wanted).sum(1), (truth * wanted).sum(1)


def main(arguments: Sequence[str]) -> int:
    """Prints mean SECS and its standard error for both kinds of voices; 1 if it cannot."""
    if len(arguments) != 2:
        print((__doc__ or "").strip())
        return 0 if {"-h", "--help"} & set(arguments) else 1
    try:
        checkpoint = load_checkpoint(arguments[0])
        recordings = read_recordings([arguments[1]])
    except (ConfigError, WeightsError, CorpusError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    model = checkpoint.model.eval()
    own = utterances(MINI / "utterances.csv")
    trained = [
        (r.speaker, r.path)
        for r in recordings
        if r.speaker and names_of([r]) <= checkpoint.trained_on
    ]
    unknown = [(u.speaker, u.path) for u in own]
    words = [voice.first(WORDS_SECONDS) for voice in one_a_speaker(unknown, VOICES)]
    encoder = Resemblyzer()
    for kind, heard in (("trained on", trained), ("unknown", unknown)):
        voices = one_a_speaker(heard, VOICES)
        if not voices:
            print(f"{kind}: no recording of such a voice is {LEAST_SECONDS:g} s long")
            continue
        found, ceiling = likeness(model, encoder, voices, words)
        error = found.std(ddof=1) / len(found) ** 0.5
        print(
            f"{kind}: {len(found)} voices, SECS {found.mean():.3f} ± {error:.3f}, "
            f"of their true references {ceiling.mean():.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
