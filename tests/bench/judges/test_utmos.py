"""UTMOS22 strong against SpeechMOS, and the promises of its judge.

The weights are random but full-size, in the published format. With these weights SpeechMOS v1.2.0
(commit ed25eacbfa42b99156c36ebec67a733b5dbb9b79) gave SPEECHMOS_SCORES; with its folder in the
environment variable SPEECHMOS_DIR it is run again with ours. Largest difference seen: 4.3e-6
(torch 2.11, CPU).
"""

import functools
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from omegaconf import OmegaConf
from torch import Tensor

import bench
import suites
from bench.audio import Waveform
from bench.errors import UserError
from bench.judges import Converted, utmos
from bench.judges.nn import wav2vec2 as wave
from bench.judges.utmos import UTMOS22
from bench.trials import Utterance
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import random_utmos, utmos_shapes

CONF = Path(bench.__file__).parent / "conf" / "judge" / "utmos.yaml"
# What SpeechMOS gave for `clips_to_compare` with `random_utmos` (torch 2.11, CPU).
SPEECHMOS_SCORES = [4.713329, 4.204270, 4.379681, 3.751959, 3.912355, 4.076991]
RECORDINGS = sorted((Path(suites.__file__).parent / "data" / "mini" / "flac").rglob("*.flac"))


def empty_state() -> dict[str, Tensor]:
    """The published format in a file of some kilobytes: every tensor one stored zero."""
    return {name: torch.zeros(1).expand(shape) for name, shape in utmos_shapes().items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("utmos") / utmos.FILE
    torch.save(random_utmos(), path)
    yield path
    path.unlink()  # 400 MB: too large to wait for pytest's clean-up


@pytest.fixture(scope="module")
def judge(weights: Path) -> UTMOS22:
    return UTMOS22(str(weights))


@pytest.fixture
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any downloaded weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    search = functools.partial(try_to_load_from_cache, cache_dir=tmp_path / "hf")
    monkeypatch.setattr(utmos, "try_to_load_from_cache", search)
    return tmp_path


def speech(number: int, samples: int, start: int = 8000) -> Waveform:
    """A piece of a real recording, 16 kHz."""
    whole = utterance(number).load()
    return Waveform(whole.samples[start : start + samples], whole.sample_rate)


def utterance(number: int) -> Utterance:
    path = RECORDINGS[number]
    return Utterance(path.stem, path.parent.name, "", path, "")


def scored(judge: UTMOS22, clips: list[Waveform]) -> list[float]:
    rows = judge.score([Converted(f"trial-{n}", converted=clip) for n, clip in enumerate(clips)])
    assert all(row.keys() == {"utmos"} for row in rows)
    return [row["utmos"] for row in rows]  # type: ignore[misc]


def judge_with(network: object, path: Path) -> UTMOS22:
    """The judge around another network: a function from samples (B, T) to scores (B,)."""
    path.touch()
    judge = UTMOS22(str(path))
    judge.model = lambda samples, lengths: network(samples)  # type: ignore[assignment, operator]
    return judge


# -- the network ---------------------------------------------------------------------------------


def clips_to_compare() -> list[Waveform]:
    """Gliding buzzes of 49 frames (SpeechMOS pads odd numbers), 50, 24, one, one and two."""
    clips = []
    for n, size in enumerate([16000, 16320, 8001, 400, 719, 720]):
        seconds = torch.arange(size, dtype=torch.float64) / 16000
        phase = 2 * torch.pi * ((90 + 30 * n) * seconds + 20 * seconds**2)
        buzz = sum(torch.sin(h * phase) / h for h in range(1, 21))
        clips.append(Waveform((0.1 * buzz).float(), 16000))
    return clips


def test_scores_are_those_that_speechmos_gave_with_the_same_weights(judge: UTMOS22) -> None:
    assert scored(judge, clips_to_compare()) == pytest.approx(SPEECHMOS_SCORES, abs=1e-3)


@pytest.mark.skipif("SPEECHMOS_DIR" not in os.environ, reason="SPEECHMOS_DIR is not set")
def test_scores_are_those_that_speechmos_gives_now(
    judge: UTMOS22, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def modules() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] == "speechmos"]

    for name in modules():
        monkeypatch.delitem(sys.modules, name)  # a package of the same name holds DNSMOS
    monkeypatch.syspath_prepend(os.environ["SPEECHMOS_DIR"])
    from speechmos.utmos22.strong.model import UTMOS22Strong

    for name in modules():
        del sys.modules[name]
    original = UTMOS22Strong().eval()
    original.load_state_dict(torch.load(weights, weights_only=True))
    clips = clips_to_compare()
    with torch.inference_mode():
        expected = [original(clip.samples[None], 16000).item() for clip in clips]
    print(f"SpeechMOS: {expected}")
    assert expected == pytest.approx(SPEECHMOS_SCORES, abs=1e-3)
    differences = [abs(a - b) for a, b in zip(scored(judge, clips), expected, strict=True)]
    print(f"max abs difference {max(differences):.1e}")
    assert max(differences) < 1e-4


def test_every_published_tensor_is_used() -> None:
    with torch.device("meta"):
        network = utmos.StrongLearner()
    ours = {wave.fairseq_name(k): tuple(v.shape) for k, v in network.state_dict().items()}
    assert ours == utmos_shapes()


def test_a_projection_of_zero_scores_the_middle_of_the_scale(tmp_path: Path) -> None:
    # All weights zero: the mean over frames is 0, which stands for a MOS of 3; bias 0.5 for 4.
    state = empty_state() | {"projection.2.bias": torch.tensor([0.5])}
    state |= {"wav2vec2.encoder.pos_conv.0.weight_v": torch.ones(768, 48, 128)}  # it is normalised
    torch.save(state, tmp_path / "w.pt")
    assert scored(UTMOS22(str(tmp_path / "w.pt")), [speech(0, 4000)]) == pytest.approx([4.0])


# -- the same number whatever the path -------------------------------------------------------------


def test_a_score_depends_on_nothing_but_its_clip(judge: UTMOS22, weights: Path) -> None:
    sizes = [2000, 3200, 2000, 2501, 2000, 3200, 2000]
    clips = [speech(n, size) for n, size in enumerate(sizes)]
    with torch.inference_mode():
        alone = [judge.model(clip.samples[None]).item() for clip in clips]
    assert max(alone) - min(alone) > 0.1
    for batch_size, order in [
        (1, [6, 5, 4, 3, 2, 1, 0]),
        (3, [0, 1, 2, 3, 4, 5, 6]),
        (16, [3, 0, 6, 1, 5, 2, 4]),
    ]:
        other = UTMOS22(str(weights), batch_size=batch_size)
        other.model = judge.model
        expected = [alone[n] for n in order]
        assert scored(other, [clips[n] for n in order]) == pytest.approx(expected, abs=1e-5)


def test_padding_would_move_the_score(judge: UTMOS22) -> None:
    clip = speech(0, 4000)
    padded = Waveform(torch.nn.functional.pad(clip.samples, (0, 4000)), 16000)
    first, second = scored(judge, [clip, padded])
    assert abs(first - second) > 0.01


def test_clips_of_like_length_share_a_batch(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def network(samples: Tensor) -> Tensor:
        seen.append(tuple(samples.shape))
        return samples[:, 0]

    judge = judge_with(network, tmp_path / "w.pt")
    judge.batch_size = 2
    clips = [
        Waveform(torch.full((size,), float(n)), 16000)
        for n, size in enumerate([500, 600, 500, 500, 601])
    ]
    assert scored(judge, clips) == [0, 1, 2, 3, 4]
    assert seen == [(2, 601), (2, 500), (1, 500)]


def test_speech_at_another_rate_is_resampled_to_16_khz(tmp_path: Path) -> None:
    judge = judge_with(lambda samples: samples.new_tensor([samples.shape[1]]), tmp_path / "w.pt")
    assert scored(judge, [Waveform(torch.zeros(48000), 48000)]) == [16000]
    assert scored(judge, [Waveform(torch.zeros(22050), 22050)]) == [16000]


def test_gpu_rounding_is_off_while_scoring_and_restored_after(tmp_path: Path) -> None:
    seen = []

    def network(samples: Tensor) -> Tensor:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return samples[:, 0]

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        scored(judge_with(network, tmp_path / "w.pt"), [speech(0, 400)])
        assert seen == [("highest", False)]
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


# -- what cannot be scored -------------------------------------------------------------------------


def test_a_clip_shorter_than_one_frame_has_no_score(judge: UTMOS22) -> None:
    short, enough = scored(judge, [speech(0, 399), speech(0, 400)])
    assert short is None
    assert isinstance(enough, float)


def test_nothing_to_score_gives_no_rows(judge: UTMOS22) -> None:
    assert judge.score([]) == []


def test_a_score_that_is_not_finite_stops_with_the_trials_name(tmp_path: Path) -> None:
    judge = judge_with(lambda samples: samples[:, 0] * float("nan"), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"trial B7: UTMOS is nan; .*w\.pt"):
        judge.score([Converted("B7", converted=speech(0, 400))])


def test_a_batch_holds_at_least_one_clip() -> None:
    with pytest.raises(ValueError, match=r"batch_size \(0\) must be at least 1"):
        UTMOS22(batch_size=0)


# -- weights ---------------------------------------------------------------------------------------


def test_missing_weights_say_in_one_line_how_to_get_them(no_caches: Path) -> None:
    with pytest.raises(WeightsMissing) as caught:
        UTMOS22()
    message = str(caught.value)
    assert "\n" not in message
    location = no_caches / "torch" / "hub" / "checkpoints" / "utmos22_strong_step7459_v1.pt"
    assert message.endswith(
        f"curl -L --create-dirs -o {location} https://github.com/tarepan/SpeechMOS/releases/"
        "download/v1.0.0/utmos22_strong_step7459_v1.pt"
    )


def test_a_given_file_that_is_missing_is_not_replaced_by_another(no_caches: Path) -> None:
    checkpoints = no_caches / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / utmos.FILE).touch()
    with pytest.raises(UserError, match=r"no file at here\.pt; correct `weights`"):
        UTMOS22("here.pt")


def test_weights_are_loaded_from_torch_hubs_cache(no_caches: Path) -> None:
    location = no_caches / "torch" / "hub" / "checkpoints" / utmos.FILE
    location.parent.mkdir(parents=True)
    location.touch()
    (file,) = UTMOS22().weights
    assert file.path == str(location)
    assert file.licence == "MIT"


def test_weights_are_loaded_from_the_hugging_face_cache(no_caches: Path) -> None:
    repository = no_caches / "hf" / "models--k2-fsa--TTS_eval_models"
    location = repository / "snapshots" / "0123abcd" / "mos" / utmos.FILE
    location.parent.mkdir(parents=True)
    location.touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    assert UTMOS22().weights[0].path == str(location)


def test_the_fingerprint_follows_the_weights_and_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one.pt", tmp_path / "other.pt"
    one.write_text("1")
    other.write_text("2")
    same = UTMOS22(str(one)).fingerprint
    assert UTMOS22(str(one), batch_size=3).fingerprint == same
    assert UTMOS22(str(other)).fingerprint != same
    monkeypatch.setattr(UTMOS22, "VERSION", UTMOS22.VERSION + 1)
    assert UTMOS22(str(one)).fingerprint != same


def test_the_network_is_loaded_once_and_not_before_the_first_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    class Loudness(torch.nn.Module):
        def forward(self, samples: Tensor, lengths: Tensor) -> Tensor:
            return samples.square().mean(dim=1)

    monkeypatch.setattr(utmos, "load", lambda path: loaded.append(path) or Loudness())
    (tmp_path / "w.pt").touch()
    judge = UTMOS22(str(tmp_path / "w.pt"))
    assert judge.fingerprint
    assert loaded == []
    scored(judge, [speech(0, 400)])
    scored(judge, [speech(1, 400)])
    assert loaded == [str(tmp_path / "w.pt")]


class Intruder:
    """What a state dict never holds."""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([torch.zeros(1)], r"it holds a list, no state dict"),
        (Intruder(), r"it cannot be read as tensors \(.+\)"),
        ({"model": empty_state()}, r"domain_emb is missing, not float32 \(1, 128\)"),
        (
            empty_state() | {"blstm.weight_hh_l0": torch.zeros(8, 2)},
            r"blstm\.weight_hh_l0 is float32 \(8, 2\), not float32 \(2048, 512\)",
        ),
        (
            empty_state() | {"wav2vec2.encoder.layers.3.fc1.bias": torch.zeros(3072).half()},
            r"wav2vec2\.encoder\.layers\.3\.fc1\.bias is float16 \(3072,\), not float32",
        ),
        (
            {k: v for k, v in empty_state().items() if k != "wav2vec2.encoder.pos_conv.0.weight_g"},
            r"wav2vec2\.encoder\.pos_conv\.0\.weight_g is missing, not float32 \(1, 1, 128\)",
        ),
        (empty_state() | {"judge_emb": 288}, r"judge_emb is a int, not float32 \(1, 128\)"),
        (empty_state() | {"phonemes": torch.zeros(1)}, r"it has a tensor 'phonemes' too many"),
    ],
)
def test_another_file_is_refused_by_its_first_difference(
    tmp_path: Path, content: object, complaint: str
) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    judge = UTMOS22(str(path))  # it may be constructed: nothing is read yet
    with pytest.raises(UserError, match=complaint) as caught:
        scored(judge, [speech(0, 400)])
    message = str(caught.value)
    assert message.startswith(f"{path} is not UTMOS22 strong: ")
    assert message.endswith(f"get it from {utmos.URL}")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"not found", b"PK\x03\x04 cut short"])
def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(
        UserError, match=r"w\.pt is not UTMOS22 strong: it cannot be read"
    ) as caught:
        utmos.load(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


# -- the self-test ---------------------------------------------------------------------------------


def roughness(samples: Tensor) -> Tensor:
    """Mean squared step over mean square: 2 for white noise, a tenth or so for speech."""
    return samples.diff(dim=1).square().mean(dim=1) / samples.square().mean(dim=1)


@pytest.mark.parametrize(
    ("network", "passed"),
    [
        (lambda samples: 4.5 - 1.5 * roughness(samples), True),
        (lambda samples: 2.5 - 1.5 * roughness(samples), False),  # recordings sound bad to it
        (lambda samples: 4.5 - 0.5 * roughness(samples), False),  # hardly detects the noise
        (lambda samples: 4.5 + 1.5 * roughness(samples), False),  # likes noise
        (lambda samples: 4.5 - 3 * (roughness(samples) > 1), False),  # does not detect it at 20 dB
        (lambda samples: torch.full((len(samples),), 3.5), False),
    ],
)
def test_the_noise_ladder_wants_good_recordings_and_falling_scores(
    tmp_path: Path, network: object, passed: bool
) -> None:
    judge = judge_with(network, tmp_path / "w.pt")
    result = judge.self_test([utterance(n) for n in range(0, 120, 8)])
    assert result.passed == passed
    assert result.findings["recordings"] == "6, the first 4 s of each"


def test_noise_is_added_at_the_ratio_asked_for() -> None:
    clip = speech(0, 64000)
    for snr in (20, 10, 0):
        noisy = utmos.with_noise(clip, snr, torch.Generator().manual_seed(0))
        noise = noisy.samples - clip.samples
        ratio = clip.samples.square().mean() / noise.square().mean()
        assert 10 * ratio.log10().item() == pytest.approx(snr, abs=0.1)


def test_random_weights_fail_the_self_test(judge: UTMOS22, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utmos, "LADDER_SECONDS", 1.0)
    result = judge.self_test([utterance(0)])
    assert not result.passed
    assert "clean" in result.findings["noise ladder"]


def test_the_self_test_needs_a_recording(judge: UTMOS22) -> None:
    with pytest.raises(ValueError, match="at least one recording"):
        judge.self_test([])


@pytest.mark.weights
def test_published_weights_pass_the_self_test() -> None:
    try:
        judge = UTMOS22()
    except WeightsMissing as error:
        pytest.skip(str(error))
    result = judge.self_test([utterance(n) for n in range(len(RECORDINGS))])
    assert result.passed, result.findings


# -- the configuration -----------------------------------------------------------------------------


def test_the_configuration_lists_every_argument(tmp_path: Path) -> None:
    config = OmegaConf.merge({"device": "auto"}, OmegaConf.load(CONF))
    parameters = inspect.signature(UTMOS22).parameters
    assert {**config.utmos} == {
        "_target_": "bench.judges.utmos.UTMOS22",
        **{name: parameter.default for name, parameter in parameters.items()},
    }
    (tmp_path / "w.pt").touch()
    judge = hydra.utils.instantiate(config.utmos, weights=str(tmp_path / "w.pt"))
    assert isinstance(judge, UTMOS22)
