"""The cost table against counts by hand."""

import pytest
import torch
from torch import nn

from takin_vc.config import build_model, load
from takin_vc.frontends.whisper import WhisperEncoderFeatures
from takin_vc.layers import FrameConv, SelfAttention
from takin_vc.tools.cost import Part, main, multiply_accumulates, summarise, table


def test_counts_are_those_by_hand():
    x = torch.zeros(2, 7, 5)  # (B, L, C)
    _, macs = multiply_accumulates(lambda: nn.Linear(5, 3)(x))
    assert macs == 2 * 7 * 5 * 3
    output, macs = multiply_accumulates(lambda: nn.Conv1d(5, 3, 4, stride=2)(torch.zeros(2, 5, 20)))
    assert output.shape == (2, 3, 9)
    assert macs == 2 * 9 * 3 * 5 * 4
    _, macs = multiply_accumulates(lambda: nn.ConvTranspose1d(6, 3, 8, 4)(torch.zeros(1, 6, 10)))
    assert macs == 10 * 6 * 3 * 8
    _, macs = multiply_accumulates(lambda: FrameConv(5, 3, 3)(x))
    assert macs == 2 * 7 * 3 * 5 * 3
    _, macs = multiply_accumulates(lambda: SelfAttention(8, 2)(torch.zeros(1, 7, 8)))
    assert macs == 7 * 8 * 24 + 2 * 7 * 7 * 8 + 7 * 8 * 8  # into q, k, v; scores and sum; out


def test_parts_add_up_to_the_model():
    config = load(["model=tiny"])["model"]
    parts = {part.name: part for part in summarise(config, 2.0, 1.0)}
    assert list(parts) == [
        "content.ssl",
        "content.ppg",
        "content fusion",
        "voiceprint",
        "timbre",
        "memory",
        "estimator x 4",  # two steps, with and without the condition
        "vocoder",
    ]
    model = build_model(config)
    assert sum(p.parameters for p in parts.values()) == sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.trained for p in parts.values()) == trained
    assert parts["estimator x 4"].shapes == "1 x 20 x 200 and 1 x 200 x 32 -> 1 x 20 x 200"
    assert parts["vocoder"].shapes == "1 x 20 x 200 -> 1 x 32000"
    assert parts["timbre"].shapes.startswith("1 x 48 x 24 and 1 x 100 x 36")


def test_timbre_and_vocoder_cost_what_they_cost_by_hand():
    parts = {part.name: part for part in summarise(load(["model=tiny"])["model"], 2.0, 1.0)}
    # 48 frames of content and 100 of reference; 32 channels, 2 layers; tokens of 36.
    layer = 48 * 32 * 32 * 2 + 2 * 48 * 100 * 32 + 48 * 32 * 128 * 2
    assert parts["timbre"].macs == 48 * 24 * 32 + 100 * 36 * 32 + 100 * 32 * 128 + 2 * layer
    # 16 channels, then 8 and 4 at 5 and 4 times the rate: a transposed convolution and one of 3 in
    # a block; then spectra of 32 samples, 17 magnitudes and phases, and their sum.
    macs, frames, channels = 200 * 20 * 16 * 7, 200, 16
    for rate, kernel in zip((5, 4), (11, 8), strict=True):
        macs += frames * channels * channels // 2 * kernel
        frames, channels = frames * rate, channels // 2
        macs += frames * channels * channels * 3
    assert parts["vocoder"].macs == macs + frames * channels * 34 * 7 + frames * 34 * 32


def test_steps_solver_and_guidance_count():
    def evaluations(*overrides: str) -> str:
        parts = summarise(load(["model=tiny", *overrides])["model"], 1.0, 1.0)
        return next(part.name for part in parts if part.name.startswith("estimator"))

    assert evaluations("model.steps=5") == "estimator x 10"
    assert evaluations("model.steps=5", "model.guidance=0") == "estimator x 5"
    assert evaluations("model.steps=5", "model.solver=heun") == "estimator x 20"


@pytest.mark.parametrize(
    "override",
    ["model.content.ssl=null", "model.timbre=null", "model.voiceprint=null", "model.memory=null"],
)
def test_a_part_that_is_left_out_is_not_listed(override):
    parts = summarise(load(["model=tiny", override])["model"], 1.0, 1.0)
    name = override.removeprefix("model.").removesuffix("=null")
    assert len(parts) == 7
    assert name not in {part.name for part in parts}


def test_counting_leaves_other_models_alone():
    # Whisper's filters are kept by openai-whisper: they must not be kept without their values.
    summarise(load(["model=mini"])["model"], 1.0, 1.0)
    assert (
        float(WhisperEncoderFeatures.from_config(n_layer=1, n_state=64, n_head=1).filters.sum()) > 0
    )


def test_table_is_per_second_and_has_a_sum():
    part = Part("a", "1 -> 2", 1_500_000, 500_000, 4_000_000_000)
    lines = table([part, part], seconds=2.0).splitlines()
    assert lines[1].split() == ["a", "1.50", "M", "0.50", "M", "2.00", "1", "->", "2"]
    assert lines[3].split() == ["all", "3.00", "M", "1.00", "M", "4.00"]


def test_command_prints_the_table(capsys):
    main(["model=tiny", "seconds=2", "reference_seconds=1", "model.memory=null"])
    printed = capsys.readouterr().out
    assert printed.startswith("2 s of source, 1 s of reference, batch 1;")
    assert "voiceprint" in printed
    assert "memory" not in printed


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ("model=nothing", r"models: acl, global_timbre, iclr, mini, tiny"),
        ("model.steps=0", r"steps \(0\) must be at least 1"),
        ("seconds=abc", "seconds=abc; it must be a number from 0.1 on"),
        ("seconds=-1", "seconds=-1; it must be a number from 0.1 on"),
        ("seconds=", "seconds=; it must be a number from 0.1 on"),
        ("reference_seconds=0.2", "reference_seconds=0.2; it must be a number from 0.25 on"),
    ],
)
def test_a_wrong_argument_is_one_line_with_the_way_out(slip, message):
    with pytest.raises(SystemExit, match=f"^error: [^\n]*{message}[^\n]*$"):
        main(["model=tiny", slip])


def test_the_shortest_that_is_converted_can_be_counted():
    main(["model=tiny", "seconds=0.1", "reference_seconds=0.25"])


def test_help_is_what_the_module_says(capsys):
    main(["--help"])
    assert "python -m takin_vc.tools.cost model=acl" in capsys.readouterr().out
