"""PocketSphinx transcribes each sound independently of earlier sounds."""

import shutil

import pytest
import torch

from bench.audio import Waveform
from bench.files import package_folder
from bench.judges import Converted
from bench.judges.recognisers.pocketsphinx import PocketSphinx, _decoder
from bench.judges.wer import WER, error_counts
from bench.metrics import METRICS
from bench.weights.find import WeightsMissing

installed = pytest.mark.skipif(
    package_folder("pocketsphinx") is None, reason="pocketsphinx is an extra: pip install it"
)


@pytest.fixture(scope="module")
def short(recordings):
    """The recordings with the fewest words of four speakers."""
    fewest = {}
    for recording in sorted(recordings, key=lambda r: (len(r.text), r.utterance_id)):
        fewest.setdefault(recording.speaker, recording)
    return list(fewest.values())[:4]


@pytest.fixture(scope="module")
def transcripts(short):
    """Their transcripts, one after another."""
    return PocketSphinx().transcribe([r.load() for r in short])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's model, which a test may change, instead of the package's."""
    model = package_folder("pocketsphinx") / "model"
    shutil.copytree(model, tmp_path / "model")
    monkeypatch.setattr(
        "bench.judges.recognisers.pocketsphinx.package_folder", lambda name: tmp_path
    )
    return tmp_path / "model" / "en-us"


@installed
def test_a_transcript_does_not_depend_on_earlier_sounds(short, transcripts):
    waveforms = [r.load() for r in short]
    assert len({t.text for t in transcripts}) == len(short)
    assert PocketSphinx().transcribe(waveforms[::-1])[::-1] == transcripts


@installed
def test_one_decoder_for_all_would_score_the_same_sound_anew(short):
    """Why each sound has a new decoder."""
    decoder = _decoder(package_folder("pocketsphinx") / "model" / "en-us")
    first, second = (
        (r.load().samples * 32767).round().to(torch.int16).numpy().tobytes() for r in short[:2]
    )
    scores = []
    for samples in (first, second, first):
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        scores.append(decoder.hyp().best_score)
    assert scores[0] != scores[2]


@installed
def test_the_error_rate_is_low_for_the_right_text_and_high_for_another(recordings):
    clear = sorted((r for r in recordings if r.speaker == "5789"), key=lambda r: len(r.text))[:2]
    matching, other = WER(PocketSphinx()).score(
        [
            Converted("matching", converted=clear[0].load(), text=clear[0].text),
            Converted("other", converted=clear[0].load(), text=clear[1].text),
        ]
    )
    assert matching["word_errors"] / matching["words"] < 0.5
    assert other["word_errors"] / other["words"] > 0.8
    assert matching["hypothesis"] == matching["hypothesis"].lower()
    used = {c for m in ("wer", "cer") for c in (METRICS[m].numerator, METRICS[m].denominator)}
    assert used | {"raw_word_errors", "raw_words"} <= set(matching)


@installed
def test_sound_without_words_has_none():
    silence = Waveform(torch.zeros(16000), 16000)
    nothing = Waveform(torch.zeros(0), 16000)
    click = Waveform(torch.tensor([0.5]), 16000)
    inaudible = Waveform(torch.full((16000,), 1e-6), 16000)
    silent = PocketSphinx().transcribe([silence, nothing, click, inaudible])
    assert [t.text for t in silent] == ["", "", "", ""]


@installed
def test_another_rate_is_resampled_and_loud_sound_clipped_not_wrapped(short, transcripts):
    clip = short[0].load()
    loud = Waveform(clip.samples / clip.peak * 1.2, clip.sample_rate)
    for changed in PocketSphinx().transcribe([clip.resample(48000), loud]):
        counts = error_counts(transcripts[0].text, changed.text)
        assert counts["word_errors"] <= 0.5 * counts["words"]


@installed
def test_the_identity_is_of_every_file_that_is_read(package):
    before = PocketSphinx()
    assert len(before.weights[0].sha256) == 64
    (package / "en-us-phone.lm.bin").write_bytes(b"not read")
    assert PocketSphinx().fingerprint == before.fingerprint
    with (package / "cmudict-en-us.dict").open("a") as file:
        file.write("takin T AA K IH N\n")
    changed = PocketSphinx()
    assert changed.fingerprint != before.fingerprint
    (package / "en-us" / "noisedict").write_text("<s> SIL\n</s> SIL\n<sil> SIL\n")
    assert PocketSphinx().fingerprint != changed.fingerprint


@installed
def test_a_dictionary_that_lacks_the_words_fails_the_self_test(package, short):
    (package / "cmudict-en-us.dict").write_text("takin T AA K IH N\n")
    test = WER(PocketSphinx(), max_wer=0.6).self_test(short[:2])
    assert not test.passed
    assert "(at most 60%)" in test.findings["WER of real recordings"]


def test_without_the_package_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setattr("bench.judges.recognisers.pocketsphinx.package_folder", lambda name: None)
    with pytest.raises(WeightsMissing, match=r"pip install 'takin-vc-bench\[pocketsphinx\]'"):
        PocketSphinx()
