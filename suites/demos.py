"""Published demo pages as suites: names and texts are here, the audio stays in the user's clone.

`python -m suites.demos CLONE …` writes the manifests again from clones of everest-ai/takinvc and
yaoxunji/stablevc. Neither has a licence: none of their audio may be copied into this project.

The pages have one recording of each target speaker, the reference, which speaker similarity is
compared with. The sources' texts are Whisper base's transcripts. Two of them
(2803_154328_000004_000000 and 1919_142785_000067_000004) are also in LibriSpeech's dev-clean, word
for word. In the others five words are corrected: "mine" twice and "excellent" (transcribed as my,
my, next little), the name Grethel, and a number, which is spelled out. The readers are in dev-clean
according to LibriSpeech's SPEAKERS.TXT.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.errors import UserError
from bench.files import sha256_of
from bench.manifest import write_trials
from bench.trials import ENROLMENT, REFERENCE, Trial, Utterance
from suites.build import MANIFESTS

TEXTS = {
    "1919_142785_000067_000003": "Strain, and skim off every particle of fat, and when required "
    "for use, thicken with butter and flour, or with a little roux.",
    "1919_142785_000067_000004": "Add the wine, and, if necessary, a seasoning of cayenne, when it "
    "will be ready to serve.",
    "2803_154328_000002_000000": "Chapter twelve. Strangely liberated.",
    "2803_154328_000004_000000": "They had one night in which to prepare for death.",
    "7976_110523_000006_000000": "Once upon a time there dwelt near a large wood a poor "
    "woodcutter, with his wife and two children by his former marriage, a little boy called "
    "Hansel, and a girl named Grethel.",
    "84_121550_000015_000000": "Already my slow steps had carried me into the ancient wood so far, "
    "that I could not perceive where I had entered it.",
    "84_121550_000019_000000": "With feet I stayed, and with mine eyes I passed beyond the "
    "rivulet, to look upon the great variety of the fresh may.",
    "8842_302201_000007_000003": "And when I had come close up with them, and perceived that they "
    "had not among them mine excellent lady, I was reassured, and saluted them, asking of their "
    "pleasure.",
}
GENDERS: Mapping[str, str] = {
    **{"1919": "F", "2803": "M", "7976": "F", "84": "F", "8842": "F"},
    **{"p225": "F", "p226": "M", "p227": "M", "p228": "F", "p229": "F", "p231": "F"},
    **{"p232": "M", "p237": "M"},
}

# Source and target of the pages' comparison tables, in the tables' order.
TAKIN_VC = (
    ("1919_142785_000067_000003", "p226"),
    ("8842_302201_000007_000003", "p227"),
    ("2803_154328_000004_000000", "p228"),
    ("84_121550_000015_000000", "p229"),
    ("7976_110523_000006_000000", "p232"),
    ("84_121550_000019_000000", "p237"),
)
STABLEVC = (
    ("84_121550_000019_000000", "p225"),
    ("2803_154328_000004_000000", "p226"),
    ("84_121550_000015_000000", "p227"),
    ("2803_154328_000002_000000", "p228"),
    ("1919_142785_000067_000004", "p231"),
    ("1919_142785_000067_000003", "p232"),
)


def takin_vc(clone: Path) -> list[Trial]:
    """The comparison of Takin-VC's page; its files are WAV data, whatever their names say."""
    folder = clone / "audios" / "baseline"
    return _trials(TAKIN_VC, lambda utt: folder / f"{utt}.mp3", lambda s: folder / f"vctk_{s}.mp3")


def stablevc(clone: Path) -> list[Trial]:
    """The comparison of StableVC's page."""
    folder = clone / "audios" / "zs"
    return _trials(
        STABLEVC,
        lambda utt: folder / "source" / f"{utt}.wav",
        lambda s: folder / "target" / f"vctk_{s}.wav",
    )


DEMOS = {"demo_takin_vc": takin_vc, "demo_stablevc": stablevc}


def _trials(
    pairs: Sequence[tuple[str, str]],
    source_path: Callable[[str], Path],
    target_path: Callable[[str], Path],
) -> list[Trial]:
    trials = []
    for name, speaker in pairs:
        reader = name.partition("_")[0]
        source = _utterance(name, reader, source_path(name), TEXTS[name], "LibriTTS/dev-clean")
        reference = _utterance(f"vctk_{speaker}", speaker, target_path(speaker), "", "VCTK")
        trials.append(
            Trial(
                f"{name}-vctk_{speaker}",
                source,
                (reference,),
                (reference,),
                factors={
                    ENROLMENT: REFERENCE,
                    "gender_pair": f"{source.gender}2{reference.gender}",
                },
            )
        )
    return trials


def _utterance(name: str, speaker: str, path: Path, text: str, corpus: str) -> Utterance:
    if not path.is_file():
        raise UserError(f"no {path}; is it a clone of the demo page's repository?")
    return Utterance(name, speaker, GENDERS[speaker], path, text, sha256_of(path), corpus)


def main(clones: Sequence[str]) -> None:
    """Writes the manifests of the clones, recognised by their layout, and prints their hashes."""
    for clone in map(Path, clones):
        name = "demo_stablevc" if (clone / "audios" / "zs").is_dir() else "demo_takin_vc"
        path = MANIFESTS / f"{name}.v1.jsonl"
        write_trials(DEMOS[name](clone), path, clone)
        print(f"{sha256_of(path)}  {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
