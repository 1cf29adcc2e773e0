"""Content: front ends beside their own projects' models, fusion by hand, no effect of padding."""

import copy

import pytest
import torch
import whisper
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    HubertConfig,
    HubertForCTC,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)
from whisper.model import AudioEncoder

from takin_vc.content import (
    HuBERTPosteriors,
    HybridContentEncoder,
    HybridFormerPPG,
    WavLMFeatures,
    WhisperEncoderFeatures,
    _standardise,
    resize_frames,
)
from takin_vc.frontends.hybridformer import HybridFormer
from takin_vc.mel import frame_mask
from takin_vc.quantize import VectorQuantizer
from takin_vc.tensors import MissingWeights, WeightsError

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")

TINY = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_hidden_layers": 8,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}  # as Large
GROUP_NORM = {"feat_extract_norm": "group", "do_stable_layer_norm": False}  # as Base
NORMS = pytest.mark.parametrize("norm", [LAYER_NORM, GROUP_NORM], ids=["layer", "group"])
HYBRIDFORMER = {
    "dim": 16,
    "heads": 2,
    "layers": 3,
    "reduce_at": 1,
    "recover_at": 2,
    "kernel_size": 7,
    "branch_kernels": [3],
    "vocabulary": 5,
}
LENGTHS = (9000, 16000, 4321)


def speech(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Noise that swells, and zeros after each utterance."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.tensor(lengths)
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    waveform *= torch.linspace(0.2, 1, max(lengths))
    return waveform * frame_mask(counts, max(lengths)), counts


def wavlm(norm: dict = LAYER_NORM) -> WavLMFeatures:
    torch.manual_seed(0)
    return WavLMFeatures.from_config({**TINY, **norm})


def hubert(norm: dict = LAYER_NORM) -> HuBERTPosteriors:
    torch.manual_seed(0)
    return HuBERTPosteriors.from_config({**TINY, **norm, "vocab_size": 9})


def whisper_encoder(**settings) -> WhisperEncoderFeatures:
    torch.manual_seed(0)
    return WhisperEncoderFeatures.from_config(n_state=32, n_head=4, n_layer=3, **settings)


def hybridformer(output: str = "bottleneck") -> HybridFormerPPG:
    torch.manual_seed(0)
    return HybridFormerPPG.from_config(HYBRIDFORMER, output=output)


FRONT_ENDS = {
    "wavlm large": lambda: wavlm(LAYER_NORM),
    "wavlm base": lambda: wavlm(GROUP_NORM),
    "hubert large": lambda: hubert(LAYER_NORM),
    "hubert base": lambda: hubert(GROUP_NORM),
    "whisper": whisper_encoder,
    "whisper, normalised": lambda: whisper_encoder(layer=2, normalize=True),
    "hybridformer": hybridformer,
    "hybridformer, posteriors": lambda: hybridformer("posteriors"),
}
EVERY_FRONT_END = pytest.mark.parametrize(
    "build", FRONT_ENDS.values(), ids=[name.replace(" ", "-") for name in FRONT_ENDS]
)


# ---------------------------------------------------------------------------- front ends


@torch.no_grad()
@EVERY_FRONT_END
def test_padding_never_changes_valid_frames(build):
    front_end = build()
    waveform, lengths = speech()
    features, mask = front_end(waveform, lengths)
    assert features.shape == (*mask.shape, front_end.dim)
    for row, length in enumerate(lengths):
        alone, whole = front_end(waveform[row : row + 1, :length], lengths[row : row + 1])
        frames = alone.shape[1]
        assert whole.all()
        assert mask[row].tolist() == [True] * frames + [False] * (mask.shape[1] - frames)
        assert float((features[row, :frames] - alone[0]).abs().max()) < 1e-4
        assert (features[row, frames:] == 0).all()


@torch.no_grad()
@EVERY_FRONT_END
def test_frame_rate_is_frames_per_second(build):
    front_end = build()
    longer, shorter = (front_end(*speech((n,)))[0].shape[1] for n in (48000, 16000))
    assert (longer - shorter) / 2 == front_end.frame_rate


@torch.no_grad()
@EVERY_FRONT_END
def test_config_and_weights_rebuild_a_front_end(build):
    front_end = build()
    torch.manual_seed(99)
    again = type(front_end).from_config(**front_end.config)
    again.load_state_dict(front_end.state_dict())
    assert again.name == front_end.name
    assert torch.equal(again(*speech())[0], front_end(*speech())[0])


@torch.no_grad()
@EVERY_FRONT_END
@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_bfloat16_changes_features_by_a_few_percent_at_most(build, how):
    """Eight bits of mantissa round by 0.4 % at most, some dozen times over."""
    front_end = build()
    waveform, lengths = speech()
    expected, _ = front_end(waveform, lengths)
    if how == "cast":
        for part in ("model", "encoder", "hybridformer"):
            getattr(front_end, part, nn.Identity()).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        found, _ = front_end(waveform, lengths)
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize(
    ("build", "shortest"),
    [(wavlm, 400), (hubert, 400), (whisper_encoder, 400), (hybridformer, 1360)],
)
def test_too_short_speech_is_named_also_within_a_batch(build, shortest):
    front_end = build()
    assert front_end(*speech((shortest,)))[1].sum() == 1
    for lengths in ((shortest - 1,), (16000, shortest - 1)):
        with pytest.raises(ValueError, match=f"at least {shortest} samples.*not {shortest - 1}"):
            front_end(*speech(lengths))


@torch.no_grad()
@NORMS
def test_wavlm_layer_6_is_the_output_of_the_sixth_transformer_layer(norm):
    """`hidden_states[0]` of transformers is what enters layer 1: `[6]` is what leaves layer 6."""
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**TINY, **norm)).eval()
    waveform, lengths = speech((16000,))
    x = waveform
    if norm is LAYER_NORM:  # such models hear speech of mean 0 and variance 1
        x = _standardise(waveform, frame_mask(lengths, 16000))
    full = model(x, attention_mask=torch.ones_like(x).long(), output_hidden_states=True)
    sixth = []
    hook = model.encoder.layers[5].register_forward_hook(lambda *call: sixth.append(call[2][0]))
    model(x, attention_mask=torch.ones_like(x).long())
    hook.remove()
    features, _ = WavLMFeatures(copy.deepcopy(model), layer=6)(waveform, lengths)
    difference = float((features - full.hidden_states[6]).abs().max())
    print(f"WavLM layer 6, {norm['feat_extract_norm']} norm: largest difference {difference:.1e}")
    assert len(full.hidden_states) == 9
    assert torch.equal(full.hidden_states[6], sixth[0])
    assert torch.equal(features, sixth[0])
    for other in (5, 7, 8):
        assert float((features - full.hidden_states[other]).abs().max()) > 1e-2


def test_waveforms_are_normalised_as_the_published_preprocessor_does():
    waveform, lengths = speech()
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True)(
        [w[:n].numpy() for w, n in zip(waveform, lengths, strict=True)],
        sampling_rate=16000,
        padding=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).input_values
    ours = _standardise(waveform, frame_mask(lengths, 16000))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_layers_past_the_chosen_one_are_neither_run_nor_kept():
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**TINY, **LAYER_NORM)).eval()
    for layer in model.encoder.layers[6:]:
        for weight in layer.parameters():
            weight.fill_(float("nan"))
    model.encoder.layer_norm.weight.fill_(float("nan"))
    weights = sum(p.numel() for p in model.parameters())
    one_layer = sum(p.numel() for p in model.encoder.layers[7].parameters())
    features = WavLMFeatures(model, layer=6)
    assert features(*speech())[0].isfinite().all()
    assert len(features.model.encoder.layers) == 6
    kept = sum(p.numel() for p in features.parameters())
    assert kept == weights - 2 * one_layer - 2 * TINY["hidden_size"]


@torch.no_grad()
def test_padding_would_reach_group_norm():
    """Why Base models run each length apart: in a plain batch the shorter utterance changes."""
    model = wavlm(GROUP_NORM).model
    waveform, lengths = speech((16000, 9000))
    batch = model(waveform, attention_mask=frame_mask(lengths, 16000).long()).last_hidden_state
    alone = model(waveform[1:, :9000]).last_hidden_state
    assert float((batch[1, : alone.shape[1]] - alone[0]).abs().max()) > 1e-2


@torch.no_grad()
def test_hubert_posteriors_are_the_ctc_heads():
    torch.manual_seed(0)
    model = HubertForCTC(HubertConfig(**TINY, **GROUP_NORM, vocab_size=9)).eval()
    waveform, lengths = speech((16000,))
    posteriors, _ = HuBERTPosteriors(model)(waveform, lengths)
    torch.testing.assert_close(posteriors, model(waveform).logits.softmax(-1))
    torch.testing.assert_close(posteriors.sum(-1), torch.ones(1, 49))


@torch.no_grad()
def test_whisper_hears_30_seconds_as_openai_whisper_does():
    torch.manual_seed(0)
    encoder = AudioEncoder(n_mels=80, n_ctx=1500, n_state=32, n_head=4, n_layer=2).eval()
    waveform, lengths = speech((480000,))
    waveform[:, -400:] = 0  # Whisper reflects the end of its 30 s; in silence that changes nothing
    theirs_mel = whisper.log_mel_spectrogram(waveform)
    theirs = encoder(theirs_mel)
    front_end = WhisperEncoderFeatures(encoder)
    mel, _ = front_end.log_mel(waveform, lengths)
    ours, _ = front_end(waveform, lengths)
    print(
        f"Whisper: largest difference {float((mel - theirs_mel).abs().max()):.1e} in log mel, "
        f"{float((ours - theirs).abs().max()):.1e} after the encoder"
    )
    torch.testing.assert_close(mel, theirs_mel, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_whispers_log_mel_of_short_speech_is_that_of_the_padded_clip():
    waveform, lengths = speech((16000,))
    padded = whisper.log_mel_spectrogram(whisper.pad_or_trim(waveform))
    mel, mask = whisper_encoder().log_mel(waveform, lengths)
    assert mask.sum() == 100
    torch.testing.assert_close(mel, padded[..., :100], atol=1e-5, rtol=0)


@torch.no_grad()
def test_whisper_gives_the_asked_layer_and_drops_the_rest():
    front_end = whisper_encoder(layer=2)
    assert len(front_end.encoder.blocks) == 2
    waveform, lengths = speech((16000,))
    mel, _ = front_end.log_mel(waveform, lengths)
    encoder = front_end.encoder
    x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
    x = x + encoder.positional_embedding[:50]
    for block in encoder.blocks:
        x = block(x)
    torch.testing.assert_close(front_end(waveform, lengths)[0], x)


@torch.no_grad()
def test_normalised_whisper_frames_have_mean_0_and_variance_1():
    features, mask = whisper_encoder(normalize=True)(*speech())
    for row in range(len(features)):
        frames = features[row][mask[row]]
        torch.testing.assert_close(frames.mean(0), torch.zeros(32), atol=1e-5, rtol=0)
        torch.testing.assert_close(frames.var(0, unbiased=False), torch.ones(32), atol=1e-3, rtol=0)


@torch.no_grad()
def test_whispers_own_files_are_read(tmp_path):
    torch.manual_seed(0)
    encoder = AudioEncoder(n_mels=80, n_ctx=100, n_state=64, n_head=1, n_layer=2).eval()
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    state["decoder.ln.weight"] = torch.ones(64)
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": state}, tmp_path / "small.pt")
    front_end = WhisperEncoderFeatures.from_pretrained(str(tmp_path / "small.pt"))
    waveform, lengths = speech((16000,))
    expected, _ = WhisperEncoderFeatures(encoder)(waveform, lengths)
    assert torch.equal(front_end(waveform, lengths)[0], expected)


def test_whisper_refuses_more_than_its_positions():
    front_end = whisper_encoder(n_ctx=50)
    assert front_end(*speech((16000,)))[0].shape[1] == 50
    with pytest.raises(ValueError, match=r"at most 1 s at a time, not 1.5 s; cut"):
        front_end(*speech((24000,)))


@torch.no_grad()
def test_hybridformer_gives_its_last_block_or_its_posteriors():
    waveform, lengths = speech((16000,))
    bottleneck, posteriors = hybridformer(), hybridformer("posteriors")
    features, _ = bottleneck(waveform, lengths)
    assert features.shape == (1, 23, 16)
    expected = bottleneck.hybridformer.logits(features).softmax(-1)
    found, _ = posteriors(waveform, lengths)
    torch.testing.assert_close(found, expected)
    assert posteriors.dim == 5


@torch.no_grad()
def test_a_saved_hybridformer_comes_back_fused(tmp_path):
    trained = hybridformer()
    trained.hybridformer.save(tmp_path)
    front_end = HybridFormerPPG.from_pretrained(tmp_path)
    assert front_end.hybridformer.config["fused"]
    found, expected = (f(*speech())[0] for f in (front_end, trained))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_published_weights_load_from_a_folder_without_the_later_layers(tmp_path):
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**TINY, **GROUP_NORM)).eval()
    model.save_pretrained(tmp_path)
    features = WavLMFeatures.from_pretrained(str(tmp_path))
    waveform, lengths = speech((16000,))
    full = model(waveform, output_hidden_states=True).hidden_states[6]
    assert torch.equal(features(waveform, lengths)[0], full)


def test_weights_that_are_not_here_say_how_to_get_them(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"WavLM: .* holds no config\.json; put it there"):
        WavLMFeatures.from_pretrained(str(tmp_path))
    with pytest.raises(WeightsError, match=r"Whisper nosuch: no weights .*name a \.pt file or one"):
        WhisperEncoderFeatures.from_pretrained("nosuch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"Whisper small: .*whisper\.load_model\('small'\)"):
        WhisperEncoderFeatures.from_pretrained("small")
    with pytest.raises(WeightsError, match="not public: train one"):
        HybridFormerPPG.from_pretrained(tmp_path)


def test_layers_and_outputs_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"layer \(9\) must be at most 8"):
        WavLMFeatures.from_config({**TINY, **LAYER_NORM}, layer=9)
    with pytest.raises(ValueError, match=r"layer \(0\) must be between 1 and the model's 8"):
        WavLMFeatures(WavLMModel(WavLMConfig(**TINY)), layer=0)
    with pytest.raises(ValueError, match="adapter"):
        WavLMFeatures(WavLMModel(WavLMConfig(**TINY, add_adapter=True)))
    with pytest.raises(ValueError, match=r"layer \(4\) must be between 1 and the encoder's 3"):
        whisper_encoder(layer=4)
    with pytest.raises(ValueError, match="'bottleneck' or 'posteriors', not 'logits'"):
        hybridformer("logits")
    with pytest.raises(ValueError, match="CTC head; build it with vocabulary"):
        HybridFormerPPG(HybridFormer(**{**HYBRIDFORMER, "vocabulary": None}), output="posteriors")


# ---------------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("new", [3, 7, 8, 20])
def test_frames_are_stretched_as_torch_interpolates(new):
    torch.manual_seed(0)
    x = torch.randn(2, 7, 5)
    whole = torch.ones(2, 7, dtype=torch.bool)
    expected = F.interpolate(x.transpose(1, 2), size=new, mode="linear").transpose(1, 2)
    found = resize_frames(x, whole, torch.ones(2, new, dtype=torch.bool))
    torch.testing.assert_close(found, expected)


def test_each_utterance_is_stretched_over_its_own_frames():
    torch.manual_seed(0)
    lengths, new_lengths = torch.tensor([6, 3]), torch.tensor([4, 9])
    mask, new_mask = frame_mask(lengths, 6), frame_mask(new_lengths, 9)
    x = torch.randn(2, 6, 5).masked_fill(~mask[..., None], 1e3)
    found = resize_frames(x, mask, new_mask)
    for row in range(2):
        valid = x[row : row + 1, : lengths[row]].transpose(1, 2)
        expected = F.interpolate(valid, size=int(new_lengths[row]), mode="linear")[0].T
        torch.testing.assert_close(found[row, : new_lengths[row]], expected)
        assert (found[row, new_lengths[row] :] == 0).all()


# ---------------------------------------------------------------------------- fusion


class Prepared(nn.Module):
    """Stands in for a front end whose features are given."""

    def __init__(self, dim: int, frame_rate: float) -> None:
        super().__init__()
        self.name = f"prepared-{dim}"
        self.dim = dim
        self.frame_rate = frame_rate
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = lengths // 4
        features = waveform[:, ::4, None].expand(-1, -1, self.dim) * self.weight
        return features, frame_mask(frames, features.shape[1])


def valid(frames: int) -> Tensor:
    return torch.ones(1, frames, dtype=torch.bool)


@torch.no_grad()
def test_acl_fusion_by_hand():
    """LeakyReLU_0.2(Conv1d(VQ(ssl))) * ppg, two channels, four SSL frames over two of the PPG."""
    quantizer = VectorQuantizer(2, 2, kmeans_iters=0)
    quantizer.vq._codebook.embed.copy_(torch.tensor([[[1.0, 2.0], [-3.0, 1.0]]]))
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(2, 25), quantizer, dim=2).eval()
    # kernel 3: the first channel is the frame before plus the frame after of channel 0,
    # the second is 10 times this frame's channel 1, less 25
    encoder.conv.linear.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 1, 0], [0, 0, 0, 10, 0, 0]]))
    encoder.conv.linear.bias.copy_(torch.tensor([0.0, -25.0]))
    ssl = torch.tensor([[[1.1, 2.0], [0.9, 1.9], [-3.0, 1.2], [-2.5, 1.0]]])
    # VQ:            1  2        1  2        -3  1        -3  1
    # convolved:     0+1  -5     1-3  -5     1-3  -15     -3+0  -15
    # leaky:         1    -1     -0.4 -1     -0.4 -3      -0.6  -3
    # two frames:    0.3  -1                 -0.5  -3
    ppg = torch.tensor([[[10.0, 100.0], [20.0, 200.0]]])
    content = encoder.forward_features(ssl, valid(4), ppg, valid(2))
    expected = torch.tensor([[[3.0, -100.0], [-10.0, -600.0]]])
    torch.testing.assert_close(content.features, expected)
    assert content.codes.tolist() == [[0, 0, 1, 1]]
    # squared distances 0.01, 0.01 + 0.01, 0.04, 0.25 over 8 numbers
    assert content.commitment.item() == pytest.approx(0.32 / 8)


@torch.no_grad()
def test_iclr_fusion_by_hand():
    """ReLU(Conv1d(a_ssl VQ(ssl) + a_ppg ppg)), one channel."""
    quantizer = VectorQuantizer(1, 2, kmeans_iters=0)
    quantizer.vq._codebook.embed.copy_(torch.tensor([[[1.0], [-2.0]]]))
    encoder = HybridContentEncoder(
        Prepared(1, 50), Prepared(1, 25), quantizer, dim=1, fusion="iclr"
    ).eval()
    assert (encoder.ssl_weight.item(), encoder.ppg_weight.item()) == (0.5, 0.5)
    encoder.ssl_weight.fill_(3.0)
    encoder.ppg_weight.fill_(0.1)
    encoder.conv.linear.weight.copy_(torch.tensor([[1.0, 2.0, 0.0]]))  # frame before, this frame
    encoder.conv.linear.bias.fill_(1.0)
    ssl = torch.tensor([[[0.8], [1.1], [-1.8], [0.9]]])
    ppg = torch.tensor([[[10.0], [20.0]]])
    # VQ 1 1 -2 1, over two frames 1 and -0.5; the sums 3 + 1 = 4 and -1.5 + 2 = 0.5
    # convolved 2 * 4 + 1 = 9 and 4 + 2 * 0.5 + 1 = 6
    content = encoder.forward_features(ssl, valid(4), ppg, valid(2))
    torch.testing.assert_close(content.features, torch.tensor([[[9.0], [6.0]]]))
    encoder.conv.linear.weight.neg_()
    content = encoder.forward_features(ssl, valid(4), ppg, valid(2))
    assert (content.features == 0).all()  # ReLU of -7 and -4


@torch.no_grad()
def test_without_ssl_acl_content_is_the_ppg():
    encoder = HybridContentEncoder(None, Prepared(3, 25), VectorQuantizer(2, 2), dim=3)
    ppg = torch.randn(1, 4, 3)
    content = encoder.forward_features(None, None, ppg, valid(4))
    assert torch.equal(content.features, ppg)
    assert content.commitment == 0
    assert content.codes is None
    assert encoder.quantizer is None
    assert encoder.name == "prepared-3"


@torch.no_grad()
def test_without_ppg_acl_content_is_the_gate_at_the_ssls_rate():
    encoder = HybridContentEncoder(Prepared(2, 50), None, None, dim=3, kernel_size=1)
    ssl = torch.randn(1, 5, 2)
    content = encoder.forward_features(ssl, valid(5), None, None)
    expected = F.leaky_relu(encoder.conv.linear(ssl), 0.2)
    torch.testing.assert_close(content.features, expected)
    assert encoder.frame_rate == 50


@torch.no_grad()
def test_iclr_leaves_out_the_missing_term():
    ppg_only = HybridContentEncoder(None, Prepared(3, 25), None, dim=3, fusion="iclr")
    ppg = torch.randn(1, 4, 3)
    content = ppg_only.forward_features(None, None, ppg, valid(4))
    torch.testing.assert_close(content.features, F.relu(ppg_only.conv(0.5 * ppg)))
    ssl_only = HybridContentEncoder(Prepared(3, 50), None, None, dim=3, fusion="iclr")
    content = ssl_only.forward_features(ppg, valid(4), None, None)
    torch.testing.assert_close(content.features, F.relu(ssl_only.conv(0.5 * ppg)))


@torch.no_grad()
def test_other_widths_are_brought_to_dim_and_equal_ones_are_not():
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(3, 25), None, dim=4)
    assert isinstance(encoder.ppg_projection, nn.Linear)
    assert encoder.forward_features(
        torch.randn(1, 6, 2), valid(6), torch.randn(1, 3, 3), valid(3)
    ).features.shape == (1, 3, 4)
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(4, 25), None, dim=4)
    assert isinstance(encoder.ppg_projection, nn.Identity)


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["acl", "iclr"])
@pytest.mark.parametrize("missing", [None, "ssl", "ppg"])
def test_padding_never_changes_the_content(fusion, missing):
    torch.manual_seed(0)
    encoder = HybridContentEncoder(
        None if missing == "ssl" else wavlm(),
        None if missing == "ppg" else hybridformer(),
        VectorQuantizer(16, 12, kmeans_iters=0),
        dim=16,
        fusion=fusion,
    ).eval()
    waveform, lengths = speech()
    content = encoder(waveform, lengths)
    for row, length in enumerate(lengths):
        alone = encoder(waveform[row : row + 1, :length], lengths[row : row + 1])
        frames = alone.features.shape[1]
        assert content.mask[row].sum() == frames
        difference = content.features[row, :frames] - alone.features[0]
        assert float(difference.abs().max()) < 1e-4
        assert (content.features[row, frames:] == 0).all()


def test_front_ends_are_frozen_and_the_rest_learns():
    torch.manual_seed(0)
    encoder = HybridContentEncoder(
        wavlm(), hybridformer(), VectorQuantizer(16, 12, kmeans_iters=0), dim=16
    ).train()
    assert not encoder.ssl.training
    assert not encoder.ppg.training
    assert encoder.quantizer.training
    before = encoder.quantizer.codebook.clone()
    content = encoder(*speech())
    content.features.square().sum().backward()
    trained = [name for name, p in encoder.named_parameters() if p.grad is not None]
    assert trained == ["conv.linear.weight", "conv.linear.bias"]
    assert not torch.equal(encoder.quantizer.codebook, before)


def test_prepared_features_give_the_same_content():
    encoder = HybridContentEncoder(Prepared(2, 50), Prepared(2, 25), None, dim=2).eval()
    waveform, lengths = torch.randn(2, 40), torch.tensor([40, 24])
    content = encoder(waveform, lengths)
    again = encoder.forward_features(
        *encoder.ssl(waveform, lengths), *encoder.ppg(waveform, lengths)
    )
    assert torch.equal(content.features, again.features)


def test_parts_that_do_not_fit_are_named():
    ssl, ppg = Prepared(2, 50), Prepared(3, 25)
    with pytest.raises(ValueError, match="ssl and ppg are both None"):
        HybridContentEncoder(None, None, None)
    with pytest.raises(ValueError, match="'acl' or 'iclr', not 'sum'"):
        HybridContentEncoder(ssl, ppg, None, fusion="sum")
    with pytest.raises(ValueError, match="prepared-2 has 2 channels, the quantizer 4"):
        HybridContentEncoder(ssl, ppg, VectorQuantizer(4, 2))
    with pytest.raises(ValueError, match=r"kernel_size \(2\) must be odd"):
        HybridContentEncoder(ssl, ppg, None, kernel_size=2)
    features = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="has ssl front end, and ssl features are missing"):
        HybridContentEncoder(ssl, ppg, None).forward_features(None, None, features, valid(2))
    with pytest.raises(ValueError, match="has no ssl front end, and ssl features are given"):
        HybridContentEncoder(None, ppg, None).forward_features(
            features, valid(2), features, valid(2)
        )
