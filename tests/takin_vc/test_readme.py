"""The commands and examples in the model's README and pages work."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from takin_vc.config import FOLDER, build_model, load
from takin_vc.tools.cost import main, summarise
from takin_vc.train.run import STAGES

ROOT = Path(__file__).parents[2]
README, PAGE, TRAINING = (
    (ROOT / path).read_text(encoding="utf-8")
    for path in ("takin_vc/README.md", "docs/model/takin-vc.md", "docs/model/training.md")
)
SWITCHES = PAGE.partition("| what | override |")[2].partition("\n\n")[0]
OVERRIDES = [o for o in re.findall(r"`([^`]+)`", SWITCHES) if o.startswith("model")]


def blocks(page):
    return re.findall(r"```(\w*)\n(.*?)```", page, re.DOTALL)


def commands(page):
    return [line for lang, text in blocks(page) if lang == "bash" for line in text.splitlines()]


def test_example_runs(tmp_path):
    (code,) = [text for language, text in blocks(README) if language == "python"]
    torch.manual_seed(0)
    names = {"folder": tmp_path}
    exec(code, names)
    assert names["converted"].sample_rate == 16000
    assert len(names["converted"].samples) == 16000
    torch.testing.assert_close(
        names["many"][0].samples, names["converted"].samples, atol=1e-4, rtol=0
    )
    assert names["model"].guidance == 0.5


def test_commands_run(capsys):
    summaries = [shlex.split(c)[3:] for c in commands(PAGE) if "takin_vc.tools.cost" in c]
    assert len(summaries) == 2
    for arguments in summaries:
        main(arguments)
        assert "all" in capsys.readouterr().out


@pytest.mark.parametrize("page", [README, TRAINING], ids=["README", "training"])
def test_commands_of_a_training_are_understood(page):
    (settings,) = [shlex.split(c[2:].strip('"'))[3:] for c in commands(page) if c.startswith("T=")]
    for stage in STAGES:
        assert load([*settings, f"stage={stage}"], "train")["stage"] == stage


def test_commands_of_the_model_card_are_understood():
    card = ROOT / "takin_vc" / "weights" / "mini" / "README.md"
    text = card.read_text(encoding="utf-8").partition("## How it was made")[2]
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    # The shell says what it would have run.
    script = 'python() { echo "$@"; }; cp() { :; }; mkdir() { :; }\n' + "\n".join(blocks)
    printed = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    runs = [line.split() for line in printed.stdout.splitlines()]
    trainings = [settings for _, name, *settings in runs if name == "takin_vc.train"]
    stages = [load(settings, "train")["stage"] for settings in trainings]
    assert stages == ["voiceprint", "vocoder", "conversion", *["vocoder"] * 4, *["conversion"] * 3]
    assert sum(name == "takin_vc.train.bundle" for _, name, *_ in runs) == 6
    starts = [load(settings, "train")["start"] for settings in trainings]
    vocoders = ["first", "second", "third", "fourth"]
    voices = "outputs/voices/conversion/checkpoint"
    assert starts == [None] * 3 + vocoders + ["before", voices, None]
    (mean,) = [folders for _, name, *folders in runs if name == "takin_vc.tools.mean"]
    assert mean == ["takin_vc/weights/mini", voices, "outputs/conversions/conversion/checkpoint"]


def test_the_table_of_recipes_is_whole():
    table = TRAINING.partition("| `recipe=` | what |")[2].partition("\n\n")[0]
    names = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(names) == sorted(path.stem for path in (FOLDER / "recipe").glob("*.yaml"))
    table = TRAINING.partition("| stage | trains |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(STAGES)


@pytest.mark.parametrize("override", OVERRIDES)
def test_override_gives_a_model(override):
    assert len(OVERRIDES) > 15
    config = load(["model=acl", override])["model"]
    if "/" in override:  # another part; the values are all tried on `tiny` in test_model
        with torch.device("meta"):
            build_model(config)


@pytest.mark.parametrize("preset", ["acl", "iclr", "mini"])
def test_table_of_presets_has_the_counts(preset):
    parts = summarise(load([f"model={preset}"])["model"], 10.0, 4.0)
    parameters = sum(part.parameters for part in parts) / 1e6
    trained = sum(part.trained for part in parts) / 1e6
    macs = sum(part.macs for part in parts) / 10 / 1e9
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{preset}` |"))
    assert f"{parameters:.0f} M ({trained:.0f} M)" in row
    assert f"| {macs:.0f} G |" in row
