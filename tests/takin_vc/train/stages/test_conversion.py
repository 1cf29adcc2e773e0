"""The conversion stage: what its parts start from, and how its batches are varied."""

import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from takin_vc.checkpoint import load_checkpoint
from takin_vc.train.data.corpus import CorpusError
from takin_vc.train.data.formants import move_formants
from takin_vc.train.stage import TrainingError
from takin_vc.train.stages import conversion
from takin_vc.train.stages.conversion import ConversionStage
from tests.support.tiny_training import train


def test_conversion_begins_with_the_content_of_an_earlier_stage(trained, table, tmp_path):
    out, _ = trained
    shared = f"features.folder={out}/features"
    result = train(table, tmp_path, "content", shared)
    assert set(result["losses"]) >= {"mel", "adversarial", "matching", "commitment", "leak"}
    content = load_file(tmp_path / "content" / "content.safetensors")
    assert not any(name.startswith(("ssl.", "ppg.")) for name in content)
    # A conversion of one step at a rate of nearly 0, its codebook left alone, keeps it.
    still = ("conversion.settings.steps=1", "conversion.settings.learning_rate=1e-12")
    voiceprint = "conversion.train_voiceprint=true"
    train(table, tmp_path, "conversion", shared, *still, voiceprint, "conversion.codebook_steps=0")
    model = load_checkpoint(tmp_path / "conversion" / "checkpoint").model
    state = model.content.state_dict()
    pairs = {name: (state[name].float(), tensor.float()) for name, tensor in content.items()}
    moved = {name for name, (a, b) in pairs.items() if not torch.allclose(a, b, atol=2e-3)}
    assert moved <= {"quantizer.vq._codebook.embed_avg"}  # follows from the others


def test_conversion_needs_a_voiceprint_that_was_trained(trained, table, tmp_path):
    out, _ = trained
    with pytest.raises(TrainingError, match=r"train it first \(stage=voiceprint\)"):
        train(table, tmp_path, "conversion", f"features.folder={out}/features")


def test_front_ends_may_hear_every_batch_anew_then_without_noise(table, tmp_path):
    anew = ("features.stored=false", "conversion.train_voiceprint=true")
    with pytest.raises(CorpusError, match=r"features\.stored=true or features\.noise=0"):
        train(table, tmp_path, "conversion", *anew, "features.noise=0.5")
    train(table, tmp_path, "voiceprint", *anew, "features.noise=0.5")  # uses no front end
    result = train(table, tmp_path, "conversion", *anew, "features.noise=0")
    assert result["steps"] == 4
    assert math.isfinite(result["validation"]["flow"])


def first_batches(trained, table, tmp_path, *settings):
    """The first batch of the conversion stage under each of the settings, all else equal."""
    drawn = []

    def keep(self, batch, phase, apply):
        drawn.append(batch)
        return learn(self, batch, phase, apply)

    learn = ConversionStage.learn
    out = tmp_path / "own"
    out.mkdir()
    shutil.copytree(trained[0] / "voiceprint", out / "voiceprint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConversionStage, "learn", keep)
        for overrides in settings:
            shutil.rmtree(out / "conversion", ignore_errors=True)
            train(table, out, "conversion", "conversion.settings.steps=1", *overrides)
    return drawn


def test_a_target_and_its_reference_have_the_same_colour(trained, table, tmp_path):
    settings = [[f"conversion.colour_db={db}", "conversion.formants=0"] for db in (0, 4)]
    plain, coloured = first_batches(trained, table, tmp_path, *settings)
    floor = float(plain["mel"].min()) + 4  # above it no value was held at silence's
    added = {}
    for name in ("mel", "reference_mel"):
        loud = (plain[name] > floor) & (coloured[name] > floor)
        moved = torch.where(loud, coloured[name] - plain[name], torch.nan)
        added[name] = moved.nanmedian(dim=2).values
        assert float((moved - added[name][:, :, None]).nan_to_num(0).abs().max()) < 1e-4
    both = added["mel"] - added["reference_mel"]
    assert float(both.nan_to_num(0).abs().max()) < 1e-4
    assert float(added["mel"].nan_to_num(0).abs().max()) > 0.1
    assert torch.equal(plain["reference"], coloured["reference"])


def test_a_target_and_its_reference_have_the_same_tract(trained, table, tmp_path):
    given = []

    def tracts(rng, count, widest):
        # No item is shifted in the first batch; in the second each by another factor.
        factors = np.ones((count, 2), np.float32)
        if given:
            factors *= 1 + widest * (1 + np.arange(count)[:, None]) / count
        given.append(factors)
        return factors

    drawn_factors = []

    def listened(wave, factors, rate):
        drawn_factors.append(factors)
        return move_formants(wave, factors, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "tracts", tracts)
        patch.setattr(conversion, "move_formants", listened)
        settings = [[f"conversion.formants={f}", "conversion.colour_db=0"] for f in (0, 0.2, 0.3)]
        kept, still, moved = first_batches(trained, table, tmp_path, *settings)
    assert len(drawn_factors) == 4  # target and reference, in two batches
    assert torch.equal(drawn_factors[2], drawn_factors[3])
    assert torch.equal(kept["ppg"], moved["ppg"])  # the content is unchanged
    for name in ("mel", "reference_mel"):  # frames by the start or end of a recording see its edge
        assert float((still[name] - kept[name])[:, :, 2:-2].abs().median()) < 5e-3
    wave = move_formants(still["reference"], torch.from_numpy(given[1]), 16000)
    inner = slice(1600, -1600)  # beyond, one of the two saw the recording go on
    torch.testing.assert_close(wave[:, inner], moved["reference"][:, inner], atol=2e-3, rtol=0)
    change = {n: (moved[n] - still[n]).abs().mean(dim=(1, 2)) for n in ("mel", "reference_mel")}
    assert all(float(c.min()) > 0.02 for c in change.values())
