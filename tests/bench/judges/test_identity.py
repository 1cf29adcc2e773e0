"""What changes a judge's fingerprint, and what does not."""

from importlib import metadata

import pytest

from bench.errors import UserError
from bench.judges import identity
from bench.judges.dnsmos import DNSMOS
from bench.judges.encoders.campplus import CAMPPlusEncoder
from bench.judges.encoders.commonaccent import HUB as COMMONACCENT
from bench.judges.encoders.commonaccent import CommonAccent
from bench.judges.encoders.ecapa import ECAPA
from bench.judges.encoders.hubert_emotion import HUB as EMOTION
from bench.judges.encoders.hubert_emotion import HuBERTEmotion
from bench.judges.encoders.resemblyzer import Resemblyzer
from bench.judges.encoders.wavlm_ecapa import WavLMLargeECAPA
from bench.judges.encoders.wavlm_xvector import WavLMXVector
from bench.judges.energy import Energy
from bench.judges.integrity import Integrity
from bench.judges.prosody import Prosody
from bench.judges.recognisers.ctc import CTC
from bench.judges.recognisers.whisper import Whisper
from bench.judges.scoreq import SCOREQ
from bench.judges.secs import SECS
from bench.judges.style import AccentSimilarity, EmotionSimilarity
from bench.judges.target_prosody import TargetProsody
from bench.judges.utmos import UTMOS22
from bench.judges.wer import WER
from bench.weights import Weights

WEIGHTS = Weights("net", "/a/net.pt", "0" * 64, "MIT")


@pytest.fixture
def other_version(monkeypatch):
    """Lets one package have another version."""
    installed = metadata.version

    def change(package: str) -> None:
        monkeypatch.setattr(
            metadata, "version", lambda name: "9.9" if name == package else installed(name)
        )

    return change


@pytest.fixture
def folder(tmp_path):
    """Files that stand for weights: a fingerprint needs their hashes only."""
    names = ("config.json", "preprocessor_config.json", "vocab.json", "model.safetensors")
    for name in {*names, *COMMONACCENT.files, *EMOTION.files}:
        (tmp_path / name).write_text("{}")
    (tmp_path / "net.pt").write_bytes(b"weights")
    return tmp_path


MAKERS = {
    "dnsmos": lambda folder: DNSMOS(),
    "ecapa": lambda folder: ECAPA(str(folder / "net.pt")),
    "resemblyzer": lambda folder: Resemblyzer(str(folder / "net.pt")),
    "wavlm_ecapa": lambda folder: WavLMLargeECAPA(str(folder / "net.pt")),
    "campplus": lambda folder: CAMPPlusEncoder(str(folder / "net.pt")),
    "scoreq": lambda folder: SCOREQ(str(folder / "net.pt")),
    "xvector": lambda folder: WavLMXVector(str(folder)),
    "energy": lambda folder: Energy(),
    "integrity": lambda folder: Integrity(),
    "prosody": lambda folder: Prosody(),
    "target_prosody": lambda folder: TargetProsody(),
    "ctc": lambda folder: CTC("owner/ctc", str(folder)),
    "whisper": lambda folder: Whisper(weights=str(folder / "net.pt")),
    "accent": lambda folder: AccentSimilarity(CommonAccent(str(folder))),
    "emotion": lambda folder: EmotionSimilarity(HuBERTEmotion(str(folder))),
    "secs": lambda folder: SECS(Resemblyzer(str(folder / "net.pt"))),
    "utmos": lambda folder: UTMOS22(str(folder / "net.pt")),
    "wer": lambda folder: WER(Whisper(weights=str(folder / "net.pt"))),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_judge_follows_what_resamples_its_sounds(name, folder, other_version):
    judge = MAKERS[name](folder)
    before = judge.fingerprint
    other_version("jinja2")
    assert judge.fingerprint == before
    other_version("soxr")
    assert judge.fingerprint != before


def test_it_follows_every_part_and_not_the_path():
    whole = identity("net", 1, [WEIGHTS], {"rate": 1}, ["numpy"])
    others = [
        identity("other", 1, [WEIGHTS], {"rate": 1}, ["numpy"]),
        identity("net", 2, [WEIGHTS], {"rate": 1}, ["numpy"]),
        identity("net", 1, [], {"rate": 1}, ["numpy"]),
        identity("net", 1, [WEIGHTS], {"rate": 2}, ["numpy"]),
        identity("net", 1, [WEIGHTS], {"rate": 1}),
    ]
    assert len({whole, *others}) == 6
    moved = Weights("net", "/b/net.pt", "0" * 64, "MIT")
    assert identity("net", 1, [moved], {"rate": 1}, ["numpy", "soxr"]) == whole


def test_a_setting_that_json_cannot_hold_is_named():
    with pytest.raises(UserError, match=r"settings\.rate = nan: not a finite number"):
        identity("net", 1, settings={"rate": float("nan")})
