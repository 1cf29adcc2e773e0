"""PocketSphinx hears each sound as if it were the first, and names what is missing."""

import shutil

import pytest
import torch

from bench.audio import Waveform, concatenate
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.pocketsphinx import PocketSphinx
from bench.judges.wer import WER, error_counts
from bench.metrics import METRICS
from bench.weights import WeightsMissing, package_folder

installed = pytest.mark.skipif(
    package_folder("pocketsphinx") is None, reason="pocketsphinx is an extra: pip install it"
)


@pytest.fixture(scope="module")
def short(recordings):
    """The recordings with the fewest words of five speakers: 2 to 3 s each."""
    fewest = {}
    for recording in sorted(recordings, key=lambda r: (len(r.text), r.utterance_id)):
        fewest.setdefault(recording.speaker, recording)
    return list(fewest.values())[:5]


@pytest.fixture
def model(tmp_path):
    """A copy of the model, which a test may change."""
    return shutil.copytree(package_folder("pocketsphinx") / "model" / "en-us", tmp_path / "en-us")


@installed
def test_a_transcript_does_not_depend_on_what_was_heard_before(short):
    waveforms = [r.load() for r in short]
    together = PocketSphinx().transcribe(waveforms)
    assert len({t.text for t in together}) == len(short)
    assert PocketSphinx().transcribe(waveforms[::-1])[::-1] == together
    assert [PocketSphinx().transcribe([w])[0] for w in waveforms[:2]] == together[:2]


@installed
def test_one_decoder_for_all_would_move_transcripts(short):
    """Why each sound has a decoder of its own: after other sounds it scores the same sound anew."""
    from bench.judges.pocketsphinx import _decoder

    waveforms = [r.load() for r in short[:2]]
    decoder = _decoder(PocketSphinx()._folder)
    scores = []
    for waveform in (waveforms[0], waveforms[1], waveforms[0]):
        decoder.start_utt()
        samples = (waveform.samples * 32767).round().to(torch.int16)
        decoder.process_raw(samples.numpy().tobytes(), full_utt=True)
        decoder.end_utt()
        scores.append(decoder.hyp().best_score)
    assert scores[0] != scores[2]


@installed
def test_it_hears_more_of_what_is_said_than_of_what_is_not(recordings):
    clear = [r for r in recordings if r.speaker == "5789"]
    clear = sorted(clear, key=lambda r: len(r.text))[:2]
    own, other = WER(PocketSphinx()).score(
        [
            Converted("own", converted=clear[0].load(), text=clear[0].text),
            Converted("other", converted=clear[0].load(), text=clear[1].text),
        ]
    )
    assert own["word_errors"] / own["words"] < 0.5
    assert other["word_errors"] / other["words"] > 0.8
    assert own["hypothesis"] == own["hypothesis"].lower()
    used = {c for m in ("wer", "cer") for c in (METRICS[m].numerator, METRICS[m].denominator)}
    assert used | {"raw_word_errors", "raw_words"} <= set(own)


@installed
def test_sound_without_words_has_none():
    silence = Waveform(torch.zeros(16000), 16000)
    nothing = Waveform(torch.zeros(0), 16000)
    click = Waveform(torch.tensor([0.5]), 16000)
    inaudible = Waveform(torch.full((16000,), 1e-6), 16000)
    heard = PocketSphinx().transcribe([silence, nothing, click, inaudible])
    assert [t.text for t in heard] == ["", "", "", ""]


@installed
def test_another_rate_is_resampled_and_loud_sound_is_clipped_not_wrapped(short):
    clip = short[0].load()
    [plain] = PocketSphinx().transcribe([clip])
    at_48k = clip.resample(48000)
    loud = Waveform(clip.samples / clip.peak * 1.2, clip.sample_rate)
    for changed in (at_48k, loud):
        [heard] = PocketSphinx().transcribe([changed])
        counts = error_counts(plain.text, heard.text)
        assert counts["word_errors"] <= 0.5 * counts["words"]


@installed
def test_speech_behind_30_s_of_a_pause_is_heard(short):
    clip = short[0].load().resample(16000)
    torch.manual_seed(0)
    pause = Waveform(1e-3 * torch.randn(30 * 16000), 16000)
    alone, after = PocketSphinx().transcribe([clip, concatenate([pause, clip])])
    counts = error_counts(alone.text, after.text)
    assert counts["word_errors"] <= 0.5 * counts["words"]


@installed
def test_the_identity_is_of_every_file_that_is_read(model):
    bundled = PocketSphinx()
    copied = PocketSphinx(str(model))
    assert copied.fingerprint == bundled.fingerprint
    assert copied.weights[0].sha256 == bundled.weights[0].sha256
    assert len(copied.weights[0].sha256) == 64
    (model / "en-us-phone.lm.bin").write_bytes(b"not read")
    assert PocketSphinx(str(model)).fingerprint == bundled.fingerprint
    dictionary = model / "cmudict-en-us.dict"
    dictionary.write_text(dictionary.read_text() + "takin T AA K IH N\n")
    changed = PocketSphinx(str(model))
    assert changed.fingerprint != bundled.fingerprint
    (model / "en-us" / "noisedict").write_text("<s> SIL\n</s> SIL\n<sil> SIL\n")
    assert PocketSphinx(str(model)).fingerprint != changed.fingerprint


@installed
def test_a_dictionary_that_lacks_the_words_fails_the_self_test(model, short):
    (model / "cmudict-en-us.dict").write_text("takin T AA K IH N\n")
    test = WER(PocketSphinx(str(model)), max_wer=0.5).self_test(short[:2])
    assert not test.passed
    assert "(at most 50%)" in test.findings["WER of real recordings"]


@installed
def test_a_folder_that_is_no_model_is_named(model, short, tmp_path):
    with pytest.raises(UserError, match=r"holds no en-us; correct `weights`"):
        PocketSphinx(str(tmp_path / "nowhere"))
    (model / "en-us" / "mdef").write_bytes(b"cut short")
    broken = PocketSphinx(str(model))
    with pytest.raises(UserError, match=r"holds no model that PocketSphinx can read \(.+\)"):
        broken.transcribe([short[0].load()])
    (model / "en-us.lm.bin").unlink()
    with pytest.raises(UserError, match=r"holds no en-us\.lm\.bin; correct `weights`"):
        PocketSphinx(str(model))


def test_without_the_package_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setattr("bench.judges.pocketsphinx.package_folder", lambda name: None)
    with pytest.raises(WeightsMissing, match=r"pip install 'takin-vc-bench\[pocketsphinx\]'") as e:
        PocketSphinx()
    assert e.value.download is None
