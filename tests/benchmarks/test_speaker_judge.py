"""Packing, disturbing and training for the small speaker judge."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

from benchmarks.speaker_judge import disturb, pack, train
from takin_vc.train.data.corpus import CorpusError


def voice(pitch: float, seed: int, seconds: float = 1.0) -> np.ndarray:
    """A hum with harmonics: the made-up speakers differ in pitch."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16000)) / 16000
    harmonics = [np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 6)) / k for k in range(1, 20)]
    return (0.1 * np.sum(harmonics, axis=0) + 0.001 * rng.normal(size=t.size)).astype(np.float32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two held-out and four other speakers, 5 recordings each, and one without a speaker."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for n in range(6):
        for k in range(5):
            name = f"s{n}-{k}"
            soundfile.write(folder / f"{name}.flac", voice(90 + 40 * n, 10 * n + k), 16000)
            rows.append([name, f"s{n}", f"{name}.flac", "AN4"])
    soundfile.write(folder / "who.flac", voice(100, 99), 16000)
    rows.append(["who", "", "who.flac", "AN4"])
    with (folder / "utterances.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["utterance_id", "speaker", "path", "corpus"], *rows])
    return folder / "utterances.csv"


@pytest.fixture(scope="module")
def packed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "HELD_OUT", {"AN4": 2})
        pack.pack([str(table)], folder, megabytes=10, shard_megabytes=0.1)
    return folder


def test_as_many_recordings_of_each_speaker_as_fit() -> None:
    assert pack.most_each([[3, 3, 3], [1]], 7) == 2
    assert pack.most_each([[3, 3, 3], [1]], 100) == 3
    assert pack.most_each([[3, 3, 3], [1]], 3) == 0


def test_what_was_packed_is_unpacked(table, packed) -> None:
    shards = sorted(packed.glob("*.bin"))
    assert len(shards) > 1
    assert all(shard.stat().st_size <= 100_000 for shard in shards)
    rows, waves = pack.unpack(packed, processes=1)
    assert len(rows) == 30  # the recording without a speaker is not among them
    originals = {
        (f"s{n}", soundfile.read(table.parent / f"s{n}-{k}.flac", dtype="int16")[0].tobytes())
        for n in range(6)
        for k in range(5)
    }
    assert {(r.speaker, w.tobytes()) for r, w in zip(rows, waves, strict=True)} == originals
    assert len({r.speaker for r in rows if r.held_out}) == 2
    assert not {r.speaker for r in rows if r.held_out} & {r.speaker for r in rows if not r.held_out}


def test_too_small_a_budget_is_refused(table, tmp_path) -> None:
    with pytest.raises(CorpusError, match="too little for one recording of each speaker"):
        pack.pack([str(table)], tmp_path, megabytes=0.01, shard_megabytes=1)


def test_a_speaker_with_few_recordings_is_not_held_out() -> None:
    class Recording:
        corpus = "Common Voice 6.1 ta"

    speakers = {"few": [Recording()] * 3, "enough": [Recording()] * 4}
    assert pack.held_out_speakers(speakers) == {"enough"}  # type: ignore[arg-type]


def test_faster_speech_is_higher_by_its_speed() -> None:
    t = torch.arange(17600) / 16000
    faster = disturb.at_speed(torch.sin(2 * math.pi * 1000 * t)[None], 16000)
    expected = torch.sin(2 * math.pi * 1100 * torch.arange(16000) / 16000)
    assert torch.allclose(faster[0], expected, atol=1e-3)


def test_noise_is_added_at_the_wanted_ratio() -> None:
    speech, noise = torch.randn(2, 8000), torch.randn(2, 8000) * 7
    added = disturb.at_ratio(speech, noise, 10, 10) - speech
    ratio = 10 * torch.log10(speech.square().mean(1) / added.square().mean(1))
    assert torch.allclose(ratio, torch.tensor(10.0), atol=0.01)


def test_a_room_keeps_the_direct_sound() -> None:
    click = torch.zeros(3, 16000)
    click[:, 100] = 1
    heard = disturb.rooms(click)
    assert torch.allclose(heard[:, 100], torch.tensor(1.0), atol=1e-4)
    assert heard[:, :99].abs().max() < 1e-4
    assert heard[:, 101:139].abs().max() < 1e-4
    tail = 10 * torch.log10(heard[:, 140:].square().sum(1))
    assert bool(((tail > -15.1) & (tail < 0.1)).all())


def test_disturbed_speech_is_finite_and_within_its_levels() -> None:
    torch.manual_seed(0)
    speech = torch.from_numpy(np.stack([voice(100 + n, n) for n in range(20)]))
    speech[3] = 0
    heard = disturb.disturb(speech)
    assert heard.shape == speech.shape
    assert bool(heard.isfinite().all())
    level = 20 * torch.log10(heard[4:].square().mean(1).sqrt())
    assert bool(((level > -40.1) & (level < -11.9)).all())


def test_every_crop_of_a_batch_is_disturbed_in_another_way() -> None:
    torch.manual_seed(0)
    same = torch.from_numpy(voice(120, 0)).repeat(6, 1)
    heard = F.normalize(disturb.disturb(same))
    likeness = (heard @ heard.T).fill_diagonal_(0)
    assert likeness.abs().max() < 0.9999


def test_masked_features_are_zeros_over_at_most_two_tenths_each_way() -> None:
    torch.manual_seed(0)
    masked = disturb.masked_features(torch.ones(50, 100, 80))
    stretches = (masked == 0).all(2).float().mean(1)
    bands = (masked == 0).all(1).float().mean(1)
    assert 0 < stretches.max() <= 0.22
    assert 0 < bands.max() <= 0.225


def test_crops_belong_to_their_speakers_and_short_ones_repeat() -> None:
    waves = [
        np.full(100, 1000, np.int16),
        np.arange(30, dtype=np.int16),
        np.full(90, 3000, np.int16),
    ]
    clips = train.Clips.of(waves, ["a", "b", "c"], torch.device("cpu"))
    crops, speaker = clips.crops(200, 60)
    crops = (crops * 32768).round()
    assert bool((crops[speaker == 0] == 1000).all())
    assert bool((crops[speaker == 2] == 3000).all())
    repeated = crops[speaker == 1]
    assert len(repeated)
    assert torch.equal(repeated[:, 30:], repeated[:, :30])
    assert bool(((repeated[:, 1:] - repeated[:, :-1]) % 30 == 1).all())


def test_speakers_are_drawn_by_the_root_of_their_seconds() -> None:
    waves = [np.zeros(900, np.int16), np.zeros(50, np.int16), np.zeros(50, np.int16)]
    clips = train.Clips.of(waves, ["a", "b", "b"], torch.device("cpu"))
    assert clips.weight.tolist() == pytest.approx([30, 5, 5])


def test_each_speed_of_a_speaker_is_a_class() -> None:
    clips = train.Clips.of([np.ones(80000, np.int16)] * 2, ["a", "b"], torch.device("cpu"))
    wave, label = train.draw(clips, 12, 0.0, 0)
    assert wave.shape == (12, 32000)
    assert set((label % 3).tolist()) == {0, 1, 2}
    assert label.max() < 6


def test_without_margin_the_loss_is_the_cross_entropy() -> None:
    torch.manual_seed(0)
    head, embeddings, label = train.Head(5), torch.randn(4, 192), torch.tensor([0, 1, 2, 4])
    cosine = F.normalize(embeddings) @ F.normalize(head.weight).T
    plain, right = head(embeddings, label, 0.0)
    assert plain.item() == pytest.approx(F.cross_entropy(30 * cosine, label).item(), rel=1e-4)
    assert right.item() == (cosine.argmax(1) == label).float().mean().item()
    assert head(embeddings, label, 0.2)[0] > plain


def test_the_schedules_at_known_points() -> None:
    assert train.learning_rate(1.0) == pytest.approx(1e-5)
    assert train.learning_rate(0.03) == pytest.approx(1.5e-3)
    assert train.margin(0.0) == 0
    assert train.margin(0.5) == 0.2
    assert train.margin(0.9) == 0.3


def test_made_up_voices_are_learnt_and_training_resumes(packed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train, "CROPS", (0.5,))
    monkeypatch.setattr(train, "LAST_CROPS", (0.5,))
    monkeypatch.setattr(train, "disturb", lambda wave: wave)
    settings = {"channels": 16, "batch": 12, "seconds": 1e9, "report_every": 15}
    settings |= {"device": torch.device("cpu"), "processes": 1}
    first = train.train(packed, tmp_path, steps=15, **settings)
    weights = (tmp_path / "state-network.safetensors").read_bytes()
    card = train.train(packed, tmp_path, steps=30, **settings)
    assert (first["step"], card["step"]) == (15, 30)
    assert [entry["step"] for entry in card["history"]] == [15, 30]
    assert card["history"][-1]["right"] > 3 / 12  # of 12 classes; by chance 1 / 12
    assert set(card["history"][-1]["eer"]) == {"all", "AN4"}
    assert (tmp_path / "state-network.safetensors").read_bytes() != weights
    assert (tmp_path / "encoder.safetensors").stat().st_size > 0


def test_a_restored_training_has_the_same_tensors(tmp_path) -> None:
    clips = train.Clips.of([np.ones(80000, np.int16)] * 2, ["a", "b"], torch.device("cpu"))
    one, other = (train.Training(16, 6, torch.device("cpu")) for _ in range(2))
    one.step(clips, 3, 0.5, 0)
    train.save(tmp_path, one, {"step": 1})
    state = {name: train.load_file(tmp_path / f"state-{name}.safetensors") for name in train.STATE}
    other.restore(state, 1)
    again = other.state()
    for name, tensors in one.state().items():
        assert tensors.keys() == again[name].keys()
        assert all(torch.equal(v, again[name][k]) for k, v in tensors.items())
