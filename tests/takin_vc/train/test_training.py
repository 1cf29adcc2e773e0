"""Training, whole: every stage of the recipe `tiny`, its resuming, and what it leaves behind."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from takin_vc.checkpoint import load_checkpoint
from takin_vc.config import load
from takin_vc.frontends.hybridformer import HybridFormerPPG
from takin_vc.tensors import WeightsError
from takin_vc.train import bundle
from takin_vc.train.__main__ import main
from takin_vc.train.data.batches import generator
from takin_vc.train.data.corpus import CorpusError, Recording
from takin_vc.train.data.formants import colours, move_formants
from takin_vc.train.loop import Trainer, TrainingSettings
from takin_vc.train.run import run
from takin_vc.train.stage import TrainingError
from takin_vc.train.stages import conversion
from takin_vc.train.stages.conversion import ConversionStage
from takin_vc.train.stages.ctc import VOCABULARY, TextSampler, read_greedily, spell
from takin_vc.train.stages.voiceprint import equal_error_rate
from tests.support import tiny_models as tiny
from tests.takin_vc.train import corpus_files

STAGES = ("voiceprint", "vocoder", "conversion")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return corpus_files.make(tmp_path_factory.mktemp("corpus"))


def arguments(table, out, stage, *overrides) -> list[str]:
    fixed = ["recipe=tiny", "device=cpu", f"data={table}", f"out={out}", f"stage={stage}"]
    return [*fixed, *overrides]


def train(table, out, stage, *overrides) -> dict:
    return run(load(arguments(table, out, stage, *overrides), "train"))


def losses(out, stage) -> list[dict]:
    lines = (out / stage / "log.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    return [{k: v for k, v in line.items() if k != "minutes"} for line in told]


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, {stage: train(table, out, stage) for stage in STAGES}


def test_every_stage_trains_and_validates(trained):
    out, results = trained
    for stage, result in results.items():
        assert result["steps"] == 4
        assert result["validation"]
        assert len(losses(out, stage)) == 4
        assert (out / stage / "tensorboard").is_dir()


def test_the_stages_become_a_checkpoint_that_converts(trained, tmp_path):
    out, _ = trained
    assert bundle.main([str(out), str(tmp_path / "c")]) == 0
    loaded = load_checkpoint(tmp_path / "c")
    # The voiceprint and the vocoder are those that were trained, the flow's network has moved.
    fresh = load_checkpoint(out / "conversion" / "checkpoint")
    assert len(loaded.trained_on) == 5  # four speakers, and the corpus of those unknown
    assert set(loaded.facts) == {"conversion", "voiceprint", "vocoder"}
    speech = loaded.model.convert(tiny.speech(1.0), tiny.speech(1.0, 2), seed=0)
    assert len(speech.samples) == 16000
    assert fresh.config == loaded.config


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_goes_on_as_if_it_had_never_stopped(trained, table, tmp_path, stage):
    out, _ = trained
    if stage == "conversion":
        (tmp_path / "voiceprint").mkdir()
        source = out / "voiceprint" / "voiceprint.safetensors"
        (tmp_path / "voiceprint" / source.name).write_bytes(source.read_bytes())
        vocoder = out / "vocoder" / "vocoder.safetensors"
        (tmp_path / "vocoder").mkdir()
        (tmp_path / "vocoder" / vocoder.name).write_bytes(vocoder.read_bytes())
    shared = f"features.folder={out}/features"
    # A checkpoint at every step, and a kill after the second: its schedule is that of four steps.
    always = f"{stage}.settings.save_minutes=0"

    class Killed(Exception):
        pass

    save, count = Trainer.save, []

    def save_and_die(trainer):
        save(trainer)
        count.append(trainer.steps)
        if trainer.steps == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "save", save_and_die)
        with pytest.raises(Killed):
            train(table, tmp_path, stage, shared, always)
    assert count == [1, 2]
    train(table, tmp_path, stage, shared)
    assert losses(tmp_path, stage) == losses(out, stage)


def test_content_of_its_own_stage_is_what_conversion_begins_with(trained, table, tmp_path):
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
    own = model.content.state_dict()
    pairs = {name: (own[name].float(), tensor.float()) for name, tensor in content.items()}
    moved = {name for name, (a, b) in pairs.items() if not torch.allclose(a, b, atol=2e-3)}
    assert moved <= {"quantizer.vq._codebook.embed_avg"}  # follows from the others


def test_ctc_trains_a_recogniser_that_the_content_encoder_takes(trained, table, tmp_path):
    out, _ = trained
    result = train(table, tmp_path, "ctc", f"features.folder={out}/features")
    assert 0 < result["losses"]["ctc"] < 100
    assert result["validation"]["cer"] > 0
    ppg = HybridFormerPPG.from_pretrained(tmp_path / "ctc" / "hybridformer")
    assert ppg.dim == 16
    assert float(ppg.hybridformer.fbank_std.min()) > 0
    assert not torch.equal(ppg.hybridformer.fbank_mean, torch.zeros(80))


def test_a_text_is_spelt_and_read_again():
    codes = spell("Don't  stop, café 2!")
    logits = torch.full((1, 2 * len(codes), VOCABULARY), -9.0)
    for at, code in enumerate(codes):  # a blank between any two
        logits[0, 2 * at, code] = 0
        logits[0, 2 * at + 1, 0] = 0
    assert read_greedily(logits) == ["DON'T STOP CAF "]
    logits[0, 1] = logits[0, 0]  # a repeat is the same character
    assert read_greedily(logits) == ["DON'T STOP CAF "]


def test_batches_of_texts_are_of_one_length_and_leave_out_what_has_none():
    texts = ["A", "B", "", "C", "D"]
    spoken = [Recording(f"u{i}", "s", Path("x"), "Made", text) for i, text in enumerate(texts)]
    sampler = TextSampler(spoken, np.array([[1.0, 4.0, 1.0, 1.1, 4.2]]), batch_seconds=8.5)
    # In order of length 0, 3, 1, 4: as many as fit with the last of them, and end there.
    drawn = {tuple(sampler.draw(generator(seed)).tolist()) for seed in range(30)}
    assert drawn == {(0,), (0, 3), (3, 1), (1, 4)}
    with pytest.raises(CorpusError, match="no recording has a text"):
        TextSampler(spoken[2:3], np.array([[1.0]]), batch_seconds=8.0)


def test_a_checkpoint_of_other_settings_is_refused_and_stays(trained, table):
    out, _ = trained
    state = (out / "vocoder" / "state.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"vocoder\.batch=3, not 2"):
        train(table, out, "vocoder", "vocoder.batch=2")
    assert (out / "vocoder" / "state.pt").read_bytes() == state


@pytest.mark.parametrize(
    ("stage", "override", "said"),
    [
        ("voiceprint", "features.speeds=[1.0]", r"features\.speeds=\[1\.0, 1\.1\], not \[1\.0\]"),
        ("voiceprint", "features.sound_speeds=[]", r"features\.sound_speeds=\[0\.9\], not \[\]"),
        ("voiceprint", "held_out.speakers=1", r"held_out\.speakers=2, not 1"),
        ("voiceprint", "held_out.seed=3", r"held_out\.seed=0, not 3"),
        ("conversion", "features.noise=0", r"features\.noise=0\.5, not 0"),
    ],
)
def test_a_checkpoint_of_other_features_is_refused(trained, table, tmp_path, stage, override, said):
    out, _ = trained
    for name in {"voiceprint", stage}:
        shutil.copytree(out / name, tmp_path / name)
    with pytest.raises(TrainingError, match=said):
        train(table, tmp_path, stage, override)


def test_a_checkpoint_of_other_recordings_is_refused(trained, tmp_path):
    out, _ = trained
    shutil.copytree(out / "voiceprint", tmp_path / "voiceprint")
    fewer = corpus_files.make(tmp_path / "corpus", unlabelled=1)
    said = r"data='20 recordings, sha256 \w{12}…', not '19 recordings, sha256 \w{12}…'"
    with pytest.raises(TrainingError, match=said):
        train(fewer, tmp_path, "voiceprint")


def test_what_moves_no_number_may_change_when_a_training_goes_on(trained, tmp_path):
    out, results = trained
    shutil.copytree(out / "voiceprint", tmp_path / "voiceprint")
    moved = corpus_files.make(tmp_path / "corpus")
    features = {"folder": tmp_path / "f", "threads": 1, "batch_seconds": 9, "resident": "false"}
    # The voiceprint's stage hears no front end.
    features |= {"noise": 0, "stored": "false"}
    changed = [f"features.{key}={value}" for key, value in features.items()]
    again = train(moved, tmp_path, "voiceprint", *changed)
    assert again["steps"] == results["voiceprint"]["steps"]
    assert again["validation"] == results["voiceprint"]["validation"]


def test_a_checkpoint_of_another_precision_or_format_is_refused(trained, table, tmp_path):
    out, _ = trained
    (tmp_path / "voiceprint").mkdir()
    state = torch.load(out / "voiceprint" / "state.pt", weights_only=True)
    other = json.dumps(json.loads(state["described"]) | {"precision": "bf16"})
    for changes, said in (
        ({"described": other}, "precision='bf16', not 'float32'"),
        ({"format": 1}, "is of format 1, this version resumes format 2"),
    ):
        torch.save(state | changes, tmp_path / "voiceprint" / "state.pt")
        with pytest.raises(TrainingError, match=said):
            train(table, tmp_path, "voiceprint", f"features.folder={out}/features")


def test_a_damaged_checkpoint_is_named(trained, table, tmp_path):
    out, _ = trained
    (tmp_path / "voiceprint").mkdir()
    state = (out / "voiceprint" / "state.pt").read_bytes()
    (tmp_path / "voiceprint" / "state.pt").write_bytes(state[: len(state) // 2])
    with pytest.raises(TrainingError, match=r"state\.pt is no whole checkpoint"):
        train(table, tmp_path, "voiceprint", f"features.folder={out}/features")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint(
    trained, table, tmp_path, monkeypatch
):
    out, _ = trained
    from takin_vc.train.stages.voiceprint import VoiceprintStage

    learn, steps = VoiceprintStage.learn, []

    def broken(self, batch, phase, apply):
        steps.append(1)
        found = learn(self, batch, phase, apply)
        return found if len(steps) < 3 else found | {"loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(VoiceprintStage, "learn", broken)
    settings = (f"features.folder={out}/features", "voiceprint.settings.save_minutes=0")
    with pytest.raises(TrainingError, match=r"loss not finite by step 3; the checkpoint of step 2"):
        train(table, tmp_path, "voiceprint", *settings)
    monkeypatch.undo()
    assert train(table, tmp_path, "voiceprint", settings[0])["steps"] == 4


def test_without_an_average_each_validation_sees_the_weights_of_its_step(trained, table, tmp_path):
    out, _ = trained
    options = (f"features.folder={out}/features", "voiceprint.settings.average=0")
    every_step = "voiceprint.settings.validate_minutes=0"
    train(table, tmp_path, "voiceprint", *options, every_step)
    lines = (tmp_path / "voiceprint" / "validation.jsonl").read_text().splitlines()
    values = [{k: v for k, v in json.loads(line).items() if k != "step"} for line in lines]
    assert len(values) == 5  # four steps and the end
    assert values[0] != values[3] == values[4]


def test_a_full_disk_costs_no_finished_checkpoint(trained, table, tmp_path, monkeypatch):
    out, _ = trained
    save, count = torch.save, []

    def full(state, path):
        count.append(1)
        if len(count) == 2:
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    settings = (f"features.folder={out}/features", "voiceprint.settings.save_minutes=0")
    with pytest.raises(TrainingError, match=r"No space left on device.*that of step 1 stays"):
        train(table, tmp_path, "voiceprint", *settings)
    monkeypatch.undo()
    files = {path.name for path in (tmp_path / "voiceprint").iterdir()}
    assert "state.pt" in files
    assert not any(name.endswith(".part") for name in files)
    train(table, tmp_path, "voiceprint", settings[0])
    assert losses(tmp_path, "voiceprint")[-1] == losses(out, "voiceprint")[-1]


def test_conversion_needs_a_voiceprint_that_was_trained(trained, table, tmp_path):
    out, _ = trained
    with pytest.raises(TrainingError, match=r"train it first \(stage=voiceprint\)"):
        train(table, tmp_path, "conversion", f"features.folder={out}/features")


def test_front_ends_may_hear_every_batch_anew_then_without_noise(table, tmp_path):
    anew = ("features.stored=false", "conversion.train_voiceprint=true")
    with pytest.raises(CorpusError, match=r"features\.stored=true or features\.noise=0"):
        train(table, tmp_path, "conversion", *anew, "features.noise=0.5")
    train(table, tmp_path, "voiceprint", *anew, "features.noise=0.5")  # hears no front end
    result = train(table, tmp_path, "conversion", *anew, "features.noise=0")
    assert result["steps"] == 4
    assert math.isfinite(result["validation"]["flow"])


def test_a_bundle_without_a_vocoder_is_refused(trained, tmp_path):
    out, _ = trained
    (tmp_path / "conversion").mkdir()
    (tmp_path / "conversion" / "checkpoint").symlink_to(out / "conversion" / "checkpoint")
    with pytest.raises(WeightsError, match=r"vocoder\.safetensors: no such weight file"):
        bundle.bundle(tmp_path, tmp_path / "c")


def test_a_bundle_of_or_to_a_bad_folder_is_one_line(trained, tmp_path, capsys):
    out, _ = trained
    file = tmp_path / "file"
    file.touch()
    torn = tmp_path / "torn"
    shutil.copytree(out, torn, ignore=shutil.ignore_patterns("features"))
    (torn / "vocoder" / "result.json").write_text('{"steps": 4')
    no_yaml = tmp_path / "no_yaml" / "conversion" / "checkpoint"
    no_yaml.mkdir(parents=True)
    (no_yaml / "config.yaml").write_text("format: 2\nmodel: [")
    for folders, said in (
        ((tmp_path / "nowhere", tmp_path / "c"), "checkpoint/config.yaml: no such file"),
        ((out, file), "file: cannot be written (File exists); name another folder"),
        ((out, file / "c"), "file/c: cannot be written (Not a directory); name another folder"),
        ((torn, tmp_path / "c"), "vocoder/result.json: not JSON ("),
        ((tmp_path / "no_yaml", tmp_path / "c"), "config.yaml: not plain YAML ("),
    ):
        assert bundle.main([str(folder) for folder in folders]) == 1
        line = capsys.readouterr().err
        assert line.startswith("error: ")
        assert said in line
        assert line.count("\n") == 1


@pytest.fixture
def full(monkeypatch):
    """A disk that has no room for tensors, as safetensors says it."""

    def save(tensors, path):
        path.write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("takin_vc.tensors.save_file", save)


def test_a_bundle_for_which_the_disk_has_no_room_is_one_line(trained, tmp_path, capsys, full):
    assert bundle.main([str(trained[0]), str(tmp_path / "c")]) == 1
    line = capsys.readouterr().err
    assert "safetensors: cannot be written (I/O error: No space left" in line
    assert line.count("\n") == 1
    assert not list((tmp_path / "c").iterdir())


def test_features_and_results_for_which_the_disk_has_no_room_are_one_line(
    trained, table, tmp_path, full
):
    out, _ = trained
    with pytest.raises(WeightsError, match=r"safetensors: cannot be written \(.*No space left"):
        train(table, tmp_path, "voiceprint")
    said = r"cannot export to .*No space left.*state\.pt is whole"
    with pytest.raises(TrainingError, match=said):
        train(table, tmp_path, "voiceprint", f"features.folder={out}/features")
    assert not list(tmp_path.rglob("*.part"))


def test_training_starts_with_the_weights_of_a_checkpoint(trained, table, tmp_path):
    out, _ = trained
    assert bundle.main([str(out), str(tmp_path / "c")]) == 0
    begun = load_checkpoint(tmp_path / "c").model
    # A rate of zero moves nothing: what comes out is what training began with.
    still = [f"start={tmp_path / 'c'}", "seed=5"]
    for stage in ("vocoder", "conversion"):
        frozen = [f"{stage}.settings.learning_rate=0", f"{stage}.settings.average=0"]
        train(table, tmp_path / "own", stage, *still, *frozen)
    vocoder = load_file(tmp_path / "own" / "vocoder" / "vocoder.safetensors")
    for name, tensor in begun.vocoder.state_dict().items():
        assert float((vocoder[name].float() - tensor).abs().max()) < 1e-4
    ended = load_checkpoint(tmp_path / "own" / "conversion" / "checkpoint").model
    for part in ("timbre", "memory", "estimator", "voiceprint"):
        theirs = ended.get_submodule(part).state_dict()
        for name, tensor in begun.get_submodule(part).state_dict().items():
            assert float((theirs[name].float() - tensor.float()).abs().max()) < 2e-3, name


def test_random_colours_are_smooth_and_as_strong_as_said():
    drawn = colours(generator(0), 20_000, 80, deviation=4.0)
    assert drawn.shape == (20_000, 80)
    in_db = 20 / np.log(10) * drawn
    assert float(in_db.std()) == pytest.approx(4.0, rel=0.02)
    assert np.abs(in_db.mean(axis=0)).max() < 0.15
    assert np.abs(in_db.mean(axis=1)).max() < 1e-3  # no louder and no quieter
    # The slope of cosines 1 to 4 over 80 bands, whose squares' mean is 7.5.
    step = 4.0 * np.pi * np.sqrt(7.5) / 80
    assert float(np.diff(in_db, axis=1).std()) == pytest.approx(step, rel=0.02)


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


def test_a_target_and_its_reference_are_heard_through_one_colour(trained, table, tmp_path):
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


def test_a_target_and_its_reference_are_heard_through_one_tract(trained, table, tmp_path):
    given = []

    def tracts(rng, count, widest):
        # None is moved in the first batch; in the second each by a factor of its own.
        factors = np.ones((count, 2), np.float32)
        if given:
            factors *= 1 + widest * (1 + np.arange(count)[:, None]) / count
        given.append(factors)
        return factors

    heard = []

    def listened(wave, factors, rate):
        heard.append(factors)
        return move_formants(wave, factors, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "tracts", tracts)
        patch.setattr(conversion, "move_formants", listened)
        settings = [[f"conversion.formants={f}", "conversion.colour_db=0"] for f in (0, 0.2, 0.3)]
        kept, still, moved = first_batches(trained, table, tmp_path, *settings)
    assert len(heard) == 4  # target and reference, in two batches
    assert torch.equal(heard[2], heard[3])
    assert torch.equal(kept["ppg"], moved["ppg"])  # the content is heard as it was
    for name in ("mel", "reference_mel"):  # frames by the start or end of a recording see its edge
        assert float((still[name] - kept[name])[:, :, 2:-2].abs().median()) < 5e-3
    wave = move_formants(still["reference"], torch.from_numpy(given[1]), 16000)
    inner = slice(1600, -1600)  # beyond, one of the two saw the recording go on
    torch.testing.assert_close(wave[:, inner], moved["reference"][:, inner], atol=2e-3, rtol=0)
    change = {n: (moved[n] - still[n]).abs().mean(dim=(1, 2)) for n in ("mel", "reference_mel")}
    assert all(float(c.min()) > 0.02 for c in change.values())


@pytest.mark.parametrize("recipe", ["mini", "ablation", "paper", "tiny"])
def test_every_recipe_has_a_schedule_for_every_stage(recipe):
    for stage in (*STAGES, "content", "ctc"):
        config = load([f"recipe={recipe}", f"stage={stage}", "data=x.csv"], "train")
        schedule = TrainingSettings(seed=config["seed"], **config[stage]["settings"])
        assert schedule.steps or schedule.minutes


def test_errors_are_one_line(table, tmp_path, capsys):
    assert main(arguments(table, tmp_path, "singing")) == 1
    assert "error: unknown stage 'singing'; there are voiceprint" in capsys.readouterr().err
    assert main(arguments("nowhere.csv", tmp_path, "vocoder")) == 1
    assert "nowhere.csv: no such list of recordings" in capsys.readouterr().err
    assert main(arguments(table, tmp_path, "ctc", "start=there")) == 1
    assert "start=there: stage ctc cannot start with a checkpoint" in capsys.readouterr().err


def test_the_schedule_ends_by_steps_or_by_the_clock_whichever_comes_first():
    both = TrainingSettings(steps=100, minutes=1.0, learning_rate=1.0, warmup_steps=10)
    assert both.progress(50, 6.0) == 0.5
    assert both.progress(50, 54.0) == 0.9
    assert both.rate(0, 0.0) == pytest.approx(0.1)  # the first of ten warm-up steps
    assert both.rate(99, 0.0) == pytest.approx(1.0)
    assert both.rate(99, 0.5) == pytest.approx(0.505)  # half a cosine's middle
    assert both.rate(99, 1.0) == pytest.approx(0.01)
    with pytest.raises(TrainingError, match="needs an end"):
        TrainingSettings()


def test_the_equal_error_rate_of_scores_that_overlap_by_a_quarter():
    same, different = torch.tensor([0.4, 0.6, 0.7, 0.9]), torch.tensor([0.1, 0.2, 0.3, 0.5])
    assert equal_error_rate(same, different) == pytest.approx(0.25)
    assert equal_error_rate(same + 1, different) == 0
