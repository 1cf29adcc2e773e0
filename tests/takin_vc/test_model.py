"""The whole model: what a conversion depends on, and what it does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from takin_vc.chunks import content_in_chunks, vocode_in_chunks
from takin_vc.config import build_model, load
from takin_vc.inputs import InputError, Speech
from tests.support import tiny_models as tiny

SOURCE, REFERENCE = tiny.speech(1.0, 0), tiny.speech(1.5, 3)


def convert(model, source: Speech = SOURCE, reference: Speech = REFERENCE, seed: int = 0) -> Tensor:
    return model.convert(source, reference, seed=seed).samples


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def test_converted_speech_is_loud_enough():
    samples = convert(tiny.model())
    assert samples.dtype == torch.float32
    assert float(samples.std()) > 0.01
    assert float(samples.abs().max()) <= 1


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
def test_converted_speech_is_as_long_as_its_source(sample_rate):
    source = tiny.speech(1.237, sample_rate=sample_rate)
    converted = tiny.model().convert(source, REFERENCE, seed=0)
    assert converted.sample_rate == 16000
    seconds = len(converted.samples) / 16000
    assert 0 <= 1.237 - seconds <= 0.0101  # a frame is 10 ms


def test_a_seed_gives_one_conversion_and_another_seed_another():
    assert torch.equal(convert(tiny.model(), seed=5), convert(tiny.model(), seed=5))
    assert difference(convert(tiny.model(), seed=5), convert(tiny.model(), seed=6)) > 0.01


def test_source_and_reference_matter():
    before = convert(tiny.model())
    assert difference(before, convert(tiny.model(), source=tiny.speech(1.0, 1))) > 0.01
    assert difference(before, convert(tiny.model(), reference=tiny.speech(1.5, 4))) > 0.01


@pytest.mark.parametrize("overrides", [(), ("model.content.fusion=iclr", "model.guidance=0")])
def test_a_batch_converts_like_its_items_alone_in_any_order(overrides):
    model = tiny.model(*overrides)
    sources = [tiny.speech(seconds, i) for i, seconds in enumerate((1.0, 0.62, 1.31))]
    references = [tiny.speech(seconds, 5 + i) for i, seconds in enumerate((0.8, 1.7, 0.5))]
    alone = [
        convert(model, s, r, seed)
        for seed, (s, r) in enumerate(zip(sources, references, strict=True))
    ]
    for order in ([0, 1, 2], [2, 0, 1]):
        batch = model.convert_batch(
            [sources[i] for i in order], [references[i] for i in order], seeds=order
        )
        for i, converted in zip(order, batch, strict=True):
            assert converted.samples.shape == alone[i].shape
            assert difference(converted.samples, alone[i]) < 1e-4


@pytest.mark.parametrize(
    "override",
    [
        "model.content.ppg=null",
        "model.content.ssl=null",
        "model.content.quantizer=null",
        "model.content.fusion=iclr",
        "model.timbre=null",
        "model.voiceprint=null",
        "model.memory=null",
        "model.memory.final_convolution=true",
        "model.estimator.memory_fusion=gated",
        "model.shuffle=false",
        "model.shuffle_memory=false",
        "model.reference_seconds=1",
        "model.steps=3",
        "model.solver=midpoint",
        "model.guidance=0",
    ],
)
def test_every_switch_is_one_override_and_has_an_effect(override):
    model = tiny.new(override)
    # The weights that both have are the same, so that only the switch differs.
    full = tiny.model().state_dict()
    state = model.state_dict()
    same = {
        name: full[name] for name in state if name in full and full[name].shape == state[name].shape
    }
    model.load_state_dict(same, strict=False)
    assert difference(convert(model), convert(tiny.model())) > 1e-4


def test_without_timbre_voiceprint_and_memory_the_reference_has_no_effect():
    model = tiny.model("model.timbre=null", "model.voiceprint=null", "model.memory=null")
    other = tiny.speech(2.0, 4)
    assert torch.equal(convert(model), convert(model, reference=other))
    assert difference(convert(model), convert(model, source=tiny.speech(1.0, 1))) > 0.01


def test_without_timbre_and_memory_only_the_voiceprint_has_an_effect():
    model = tiny.model("model.timbre=null", "model.memory=null")
    other = tiny.speech(2.0, 4)
    assert difference(convert(model), convert(model, reference=other)) > 1e-3
    model = tiny.new("model.timbre=null", "model.memory=null")
    model.voiceprint.forward = lambda waveform, lengths: torch.ones(len(waveform), 16)
    assert torch.equal(convert(model), convert(model, reference=other))


def test_shuffling_changes_nothing_where_only_the_cross_attention_sees_it():
    shuffled = convert(tiny.model("model.shuffle_memory=false"))
    ordered = convert(tiny.model("model.shuffle=false"))
    assert difference(shuffled, ordered) < 1e-4
    assert difference(convert(tiny.model()), ordered) > 1e-3  # the memory's convolutions can tell


def test_reference_seconds_is_the_reference_cut_by_hand():
    cut = Speech(REFERENCE.samples[:16000], 16000)
    assert torch.equal(
        convert(tiny.model("model.reference_seconds=1")), convert(tiny.model(), reference=cut)
    )


LONG = ("model.content.ssl=null", "model.steps=2")  # WavLM normalises a whole recording


def test_chunks_of_what_sees_only_its_neighbours_are_the_whole():
    whole = tiny.new(*LONG)
    chunked = tiny.new(*LONG, "model.chunk_seconds=6", "model.overlap_seconds=1.9")
    for model in (whole, chunked):
        tiny.forget_attention(model)
    source = tiny.speech(13.3)
    assert len(chunked.mel_chunks.starts(1330)) == 3
    assert difference(convert(whole, source), convert(chunked, source)) < 1e-4


def test_chunks_of_the_content_are_the_whole():
    whole = tiny.new(*LONG)
    chunked = tiny.new(*LONG, "model.chunk_seconds=6", "model.overlap_seconds=1.9")
    for model in (whole, chunked):
        tiny.forget_attention(model)
    waveforms = torch.stack([tiny.speech(13.3, 1).samples, tiny.speech(13.3, 2).samples])
    lengths = torch.tensor([13 * 16000 + 4800, 8 * 16000])
    with torch.no_grad():
        one, many = (
            content_in_chunks(model.content, waveforms, lengths, model.content_chunks)
            for model in (whole, chunked)
        )
    assert torch.equal(one.mask, many.mask)
    assert difference(one.features, many.features) < 1e-4


def test_a_long_source_has_no_seam_and_converts_alike_in_a_batch():
    # With attention, chunks differ from the whole; they must still join.
    model = tiny.model("model.chunk_seconds=3", "model.overlap_seconds=0.8")
    sources = [tiny.speech(7.1, 0), tiny.speech(1.0, 1), tiny.speech(3.4, 2)]
    references = [REFERENCE] * 3
    alone = [convert(model, source, seed=i) for i, source in enumerate(sources)]
    for converted, other in zip(
        model.convert_batch(sources, references, seeds=[0, 1, 2]), alone, strict=True
    ):
        assert difference(converted.samples, other) < 1e-4
    steps = alone[0].diff().abs()
    starts = model.mel_chunks.starts(710)
    seams = [start * 160 + s for start in starts[1:] for s in range(0, 80 * 160, 160)]
    typical = steps.quantile(0.999)
    assert all(float(steps[seam - 2 : seam + 2].max()) < 2 * typical for seam in seams)


def test_vocoder_in_chunks_is_the_vocoder_whole():
    model = tiny.new("model.chunk_seconds=3", "model.overlap_seconds=0.8")
    mel = torch.randn(2, 20, 700) - 6
    lengths = torch.tensor([700, 310])
    with torch.no_grad():
        whole = model.vocoder(mel, lengths)
        chunked = vocode_in_chunks(model.vocoder, mel, lengths, model.mel_chunks.size)
    torch.testing.assert_close(chunked, whole, atol=1e-4, rtol=0)


def test_stages_are_entered_once_each_in_order():
    entered = []

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        entered.append(name)
        yield

    tiny.model().convert(SOURCE, REFERENCE, seed=0, stage=stage)
    assert entered == ["content", "timbre", "flow", "vocoder"]


def test_parts_may_be_in_bfloat16():
    model = tiny.new()
    before = convert(model)
    for part in (model.timbre, model.memory, model.estimator, model.vocoder):
        part.bfloat16()
    after = convert(model)
    assert after.dtype == torch.float32
    assert 0 < float((before - after).abs().mean()) < 0.05


def noisy(samples: Tensor, sample_rate: int = 16000) -> Speech:
    return Speech(samples, sample_rate)


@pytest.mark.parametrize("what", ["source", "reference"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Speech(torch.zeros(0), 16000), "is empty: it has no samples"),
        (Speech(torch.zeros(16000), 16000), "is silent: its peak is under -70 dBFS"),
        (Speech(torch.full((16000,), torch.nan), 16000), "is not finite"),
        (Speech(torch.ones(2, 16000), 16000), r"has shape \(2, 16000\); it must be mono"),
        (Speech(torch.ones(16000), 0), "has a sample rate of 0 Hz"),
        (Speech(torch.ones(500), 16000), r"is too short: 0.031 s \(500 samples at 16000 Hz\)"),
    ],
)
def test_speech_that_cannot_be_used_is_named(what, bad, message):
    given = {"source": SOURCE, "reference": REFERENCE, what: bad}
    with pytest.raises(InputError, match=f"the {what} {message}"):
        tiny.model().convert(**given, seed=0)


def test_a_batch_of_nothing_is_nothing():
    assert tiny.model().convert_batch([], [], seeds=[]) == []


def test_a_batch_needs_a_reference_and_a_seed_a_source():
    with pytest.raises(ValueError, match="2 sources, 1 references and 2 seeds"):
        tiny.model().convert_batch([SOURCE, SOURCE], [REFERENCE], seeds=[0, 1])


def test_a_model_in_training_does_not_convert():
    model = tiny.new().train()
    with pytest.raises(RuntimeError, match=r"call eval\(\) first"):
        convert(model)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.vocoder.sample_rate=24000"], r"differ in sample_rate \(16000 and 24000\)"),
        (["model.mel.hop_length=200"], r"differ in hop_length \(200 and 160\)"),
        (["model.vocoder.n_mels=80"], r"differ in n_mels \(20 and 80\)"),
        (["model.solver=rk4"], "unknown solver 'rk4'; there are euler, midpoint, heun"),
        (["model.steps=0"], r"steps \(0\) must be at least 1"),
        (["model.reference_seconds=0.1"], r"reference_seconds \(0.1\) must be at least 0.25"),
        (["model.overlap_seconds=20"], r"overlap \(320000\) .* third of size \(480000\)"),
    ],
)
def test_settings_that_do_not_fit_name_the_values(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_model(load(["model=tiny", *overrides])["model"])


def training_batch(model):
    sources = [tiny.speech(0.3, 0), tiny.speech(0.25, 1)]
    references = [tiny.speech(0.5, 2), tiny.speech(0.3, 3)]
    return model.prepare(sources, references, targets=True)


def test_training_takes_the_loss_on_one_batch_to_near_zero():
    torch.manual_seed(0)
    model = build_model(load(["model=tiny"])["model"]).train()
    batch = training_batch(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=150)
    losses = []
    for _ in range(150):
        # The same noise, times and dropout at every step: there is one answer to learn.
        loss = model.loss(batch, generator=torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.flow.detach()))
    assert losses[0] > 1
    assert losses[-1] < 0.01


def test_loss_is_the_flows_and_a_hundredth_of_the_quantisers():
    model = tiny.new()
    loss = model.loss(training_batch(model), generator=torch.Generator().manual_seed(0))
    assert float(loss.commitment) > 0
    torch.testing.assert_close(loss.total, loss.flow + 0.01 * loss.commitment)


def test_a_dropped_condition_has_no_effect():
    model = tiny.new("model.condition_dropout=1.0")
    batch = training_batch(model)
    other = replace(batch, reference=batch.reference.flip(0), reference_mel=batch.reference_mel + 1)

    def loss(batch):
        return model.loss(batch, generator=torch.Generator().manual_seed(0)).flow

    assert torch.equal(loss(batch), loss(other))
    model.condition_dropout = 0.0
    assert not torch.equal(loss(batch), loss(other))


def test_everything_learns_but_front_ends_and_vocoder():
    model = tiny.new("model.condition_dropout=0.0").train()
    model.loss(training_batch(model), generator=torch.Generator().manual_seed(0)).total.backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("content.ssl.", "content.ppg.", "vocoder."))
        unused = name in ("estimator.null_context", "estimator.null_memory")
        assert parameter.requires_grad != frozen, name
        if not frozen and not unused:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name


def test_loss_needs_a_target():
    model = tiny.model()
    with pytest.raises(ValueError, match=r"prepare\(\.\.\., targets=True\)"):
        model.loss(model.prepare([SOURCE], [REFERENCE]))
