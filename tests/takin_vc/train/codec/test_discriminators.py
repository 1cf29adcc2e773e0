"""Discriminators: what each can detect, and HiFi-Codec's code with the same weights."""

import importlib
import os

import pytest
import torch
from torch import nn

from takin_vc.train.codec.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiScaleDiscriminator,
    MultiScaleSTFTDiscriminator,
    PeriodDiscriminator,
)

SMALL = {
    "periods": lambda: MultiPeriodDiscriminator((2, 3), channels=(16, 32)),
    "scales": lambda: MultiScaleDiscriminator(channels=16, scales=2),
    "stft": lambda: MultiScaleSTFTDiscriminator((256, 128), channels=4),
    "bands": lambda: MultiScaleSTFTDiscriminator((256, 128), channels=4, bands=[0.1, 0.5]),
}


@pytest.fixture
def academicodec(monkeypatch: pytest.MonkeyPatch):
    """Imports modules of HiFi-Codec's repository; where to find it is the caller's business."""
    folder = os.environ.get("ACADEMICODEC_DIR")
    if not folder:
        pytest.skip(
            "set ACADEMICODEC_DIR to a copy of yangdongchao/AcademiCodec to compare with it"
        )
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module


@torch.no_grad()
def test_a_period_discriminator_sees_each_phase_by_itself():
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(3, (4, 8)).eval()
    waveform = torch.randn(1, 60)
    before = discriminator(waveform).logits  # (B, 1, rows, 3 phases)
    waveform[0, 31] += 1.0  # phase 31 mod 3 = 1
    changed = (discriminator(waveform).logits != before).flatten(0, 2).any(0)
    assert changed.tolist() == [False, True, False]


@torch.no_grad()
def test_the_second_scale_sees_pairs_averaged():
    """A tone at half the sample rate averages out: only the first scale tells it from silence."""
    torch.manual_seed(0)
    discriminator = MultiScaleDiscriminator(channels=16, scales=2).eval()
    tone = torch.ones(1, 400)
    tone[:, 1::2] = -1
    first, second = (
        float((a.logits - b.logits).abs().max())
        for a, b in zip(discriminator(tone), discriminator(0 * tone), strict=True)
    )
    assert first > 1e-5
    assert second == 0


@pytest.mark.parametrize("build", SMALL.values(), ids=list(SMALL))
def test_a_family_learns_to_tell_noise_from_a_tone(build):
    torch.manual_seed(0)
    family = build()
    tone = torch.sin(torch.arange(1600) / 5).expand(2, -1) * torch.tensor([[0.3], [0.6]])
    noise = 0.3 * torch.randn(2, 1600)
    optimizer = torch.optim.AdamW(family.parameters(), 1e-2)
    for _ in range(30):
        loss = sum(
            (1 - r.logits).square().mean() + g.logits.square().mean()
            for r, g in zip(family(tone), family(noise), strict=True)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for real, generated in zip(family(tone), family(noise), strict=True):
        assert real.logits.mean().item() > generated.logits.mean().item() + 0.3


def test_the_families_together_are_hificodecs():
    with torch.device("meta"):
        families = Discriminators().families
    assert [len(family.discriminators) for family in families] == [5, 3, 5]
    assert [d.period for d in families[0].discriminators] == [2, 3, 5, 7, 11]
    assert [d.n_fft for d in families[2].discriminators] == [1024, 2048, 512, 256, 128]


@torch.no_grad()
def test_verdicts_of_all_families_come_in_one_list():
    discriminators = Discriminators([build() for build in SMALL.values()])
    verdicts = discriminators(torch.randn(3, 1600))
    assert len(verdicts) == 8
    for verdict in verdicts:
        assert len(verdict.logits) == 3
        assert verdict.features[-1] is verdict.logits


def test_a_segment_shorter_than_the_window_is_named():
    with pytest.raises(ValueError, match=r"\(256 samples\) is longer than the segment \(200\)"):
        SMALL["stft"]()(torch.zeros(1, 200))


def ours(original: nn.Module, rename) -> dict[str, torch.Tensor]:
    return {rename(k): v for k, v in original.state_dict().items() if not k.endswith("window")}


def common(name: str) -> str:
    return name.replace("convs", "layers").replace("conv_post", "out").replace(".conv.", ".")


def spectral(name: str) -> str:
    name = common(name)
    if name.startswith("discriminators.0"):
        for old, new in (("_orig", ".original"), ("_u", ".0._u"), ("_v", ".0._v")):
            name = name.replace(f"weight{old}", f"parametrizations.weight{new}")
    return name


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_discriminators_are_hificodecs_with_its_weights(academicodec):
    torch.manual_seed(0)
    models = academicodec("academicodec.models.hificodec.models")
    stft = academicodec("academicodec.models.encodec.msstftd")
    waveform = 0.3 * torch.randn(2, 8001)
    silent = torch.zeros_like(waveform)[:, None]
    families = [
        (models.MultiPeriodDiscriminator(), MultiPeriodDiscriminator(), common),
        (models.MultiScaleDiscriminator(), MultiScaleDiscriminator(), spectral),
        (stft.MultiScaleSTFTDiscriminator(32), MultiScaleSTFTDiscriminator(), common),
    ]
    for original, family, rename in families:
        original.eval()
        family.eval().load_state_dict(ours(original, rename))
        if rename is common and family is families[2][1]:
            logits, features = original(waveform[:, None])
        else:
            logits, _, features, _ = original(waveform[:, None], silent)
        difference = max(
            float((a.flatten() - b.flatten()).abs().max())
            for x, maps, verdict in zip(logits, features, family(waveform), strict=True)
            for a, b in zip(
                [x, *maps], [verdict.logits, *verdict.features[: len(maps)]], strict=True
            )
        )
        print(f"{type(family).__name__}: largest difference {difference:.1e}")
        assert difference < 1e-5


def test_each_band_sees_its_part_of_the_spectrum_alone():
    torch.manual_seed(0)
    (discriminator,) = MultiScaleSTFTDiscriminator((256,), channels=4, bands=[0.25]).discriminators
    low = torch.sin(2 * torch.pi * 500 / 16000 * torch.arange(4000))[None]  # bin 8 of 129
    high = torch.sin(2 * torch.pi * 6000 / 16000 * torch.arange(4000))[None]  # bin 96
    silent, quiet, loud = (
        discriminator(x).features for x in (torch.zeros(1, 4000), low, low + high)
    )
    depth = len(silent) // 2  # layers of each band, and the logits
    for layer in range(depth):  # the low band: its tone, and nothing of the high one
        assert (silent[layer] - quiet[layer]).abs().max() > 1e-3
        torch.testing.assert_close(quiet[layer], loud[layer], atol=1e-3, rtol=0)
    assert (quiet[depth] - loud[depth]).abs().max() > 1e-2
