"""`bench.callback`: when it evaluates, what it leaves unchanged, what it decides and logs."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import bench
from bench.__main__ import main
from bench.callback import Benchmark, modules_of
from bench.errors import UserError
from bench.files import fingerprint
from bench.guard import ModulesChanged, guarded, modules_guarded
from bench.run.run import Run
from bench.stages.judging import JudgeError
from bench.stats.gate import Rules
from suites.build import MANIFESTS, MINI
from tests.support.fakes import MosNet

LIST = MANIFESTS / "mini_cross_gender.v2.jsonl"
RULES = Rules({"naturalness": 0.1})


class Gain(nn.Module):
    """A model with one weight: it scales speech."""

    def __init__(self, gain=0.5):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x):
        assert not self.training
        return self.dropout(x) * self.gain


class Scaler:
    """A system that converts with a model in memory."""

    trained_on = frozenset()

    def __init__(self, model):
        self.model = model

    def convert(self, source, reference, *, seed):
        assert not torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert torch.zeros(()).dtype is torch.float32
        return bench.Waveform(self.model(source.samples).detach(), source.sample_rate)


class Level(MosNet):
    """A judge whose opinion is the level: 1 for silence, 5 for a peak of 1."""

    def __init__(self, fails=False):
        super().__init__()
        self.scored = []
        self.fails = fails

    fingerprint = fingerprint(["level"])

    def score(self, items):
        if self.fails:
            raise RuntimeError("out of memory")
        self.scored += [item.trial_id for item in items]
        return [{"mos_net": 1 + 4 * min(1.0, item.converted.peak)} for item in items]


def trials(limit):
    return [bench.Suite.load(LIST, root=MINI, limit=limit)]


@pytest.fixture
def small(tmp_path):
    """Makes a benchmark over few trials: eight are needed for a decision."""

    def make(limit=1, **options):
        options = {"judges": {"mos": Level()}, "system": Scaler, "rules": RULES, **options}
        return Benchmark(tmp_path / "training", suites=trials(limit), every=10, **options)

    return make


def outcomes(benchmark, gains):
    """(outcome, best, stop) of one evaluation for each gain."""
    results = []
    for n, gain in enumerate(gains, 1):
        evaluation = benchmark.evaluate(10 * n, Gain(gain))
        outcome = evaluation.decision and evaluation.decision.outcome
        results.append((outcome, evaluation.best, evaluation.stop))
    return results


def test_it_evaluates_at_every_tenth_step_or_the_next_one(small, monkeypatch):
    benchmark, evaluated = small(), []

    class Never:
        stop = False

    monkeypatch.setattr(benchmark, "evaluate", lambda step, model: evaluated.append(step) or Never)
    for step in [0, 1, 9, 10, 11, 19, 23, 24, 30, 45, 49, 50]:
        assert benchmark(step, None) is False
    assert evaluated == [10, 23, 30, 45, 50]
    resumed = small()
    monkeypatch.setattr(resumed, "evaluate", lambda step, model: evaluated.append(step) or Never)
    assert not resumed(61, None)  # 60 was before it resumed
    resumed(70, None)
    assert evaluated[5:] == [70]


def test_a_worse_model_is_a_regression_against_the_best_and_stops_after_two(small):
    benchmark = small(8, stop_after=2)
    assert outcomes(benchmark, [0.5, 0.4, 0.7, 0.5, 0.6]) == [
        (None, True, False),
        ("regression", False, False),
        ("pass", True, False),
        ("regression", False, False),
        ("regression", False, True),
    ]
    assert benchmark.last.decision.baseline == "step_00000030"


def test_against_the_first_a_fall_from_the_best_is_no_regression(small):
    assert outcomes(small(8, against="first"), [0.5, 0.7, 0.6])[2] == ("pass", False, False)


def test_against_a_scored_run(small, tmp_path):
    released = Run(
        tmp_path / "released", suites=trials(8), systems={"v1": Scaler(Gain(0.6).eval())}
    )
    released.convert()
    released.score({"mos": Level()})
    for against in (released.folder, f"{released.folder}:v1"):
        benchmark = small(8, against=against, resume=True)
        assert outcomes(benchmark, [0.5])[0][0] == "regression"
        assert benchmark.last.decision.baseline == "released:v1"
    with pytest.raises(UserError, match=r"say which system is meant, .*released:SYSTEM; .*v1"):
        small(against=f"{released.folder}:v2", resume=True)


def test_each_call_is_a_run_of_the_command_line(small, tmp_path, capsys):
    outcomes(small(8, anchors={"source": "baselines.anchors.Source"}), [0.5, 0.7])
    folder = tmp_path / "training"
    main_exits(0, "history", f"outputs={folder}", "metrics=mos_net")
    assert "step_00000020" in capsys.readouterr().out
    main_exits(0, "gate", str(folder / "step_00000010"), str(folder / "step_00000020"),
               f"margins={margins(tmp_path)}")  # fmt: skip
    assert "may replace" in capsys.readouterr().out


def main_exits(code, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


def margins(folder):
    path = folder / "margins.yaml"
    path.write_text("margins: {naturalness: 0.1}\n")
    return path


def test_recordings_are_judged_once_for_all_calls(small):
    judge = Level()
    outcomes(
        small(judges={"mos": judge}, anchors={"source": "baselines.anchors.Source"}), [0.5, 0.7]
    )
    assert len(judge.scored) == 1 + 1 + 1  # the model's twice, the sources once


def test_the_training_is_not_disturbed(small):
    def trained(evaluate):
        """The weights after ten steps, with an evaluation after the fifth."""
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 1))
        model[3].eval()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        gain = Gain()
        for step in range(10):
            x = torch.rand(8, 4) + float(np.random.rand()) + random.random()
            loss = model(x).square().mean()
            loss.backward()
            if step == 4 and evaluate:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    small(system=lambda both: Scaler(both[1])).evaluate(10, [model, gain])
                    assert torch.is_autocast_enabled("cpu")
                assert torch.is_grad_enabled()
                assert gain.training
                assert [part.training for part in model] == [True, True, True, False]
            if step % 2:
                optimizer.step()
                optimizer.zero_grad()
        return model.state_dict()

    alone, evaluated = trained(evaluate=False), trained(evaluate=True)
    assert all(torch.equal(alone[name], evaluated[name]) for name in alone)


def test_the_callers_dtype_and_autocast_change_no_number(small, tmp_path):
    plain = Run(tmp_path / "plain", suites=trials(1), systems={"model": Scaler(Gain().eval())})
    plain.convert()
    plain.score({"mos": Level()})
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            evaluation = small().evaluate(10, Gain().float())
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    columns = ["wav_sha256", "mos.mos_net"]
    assert evaluation.run.scores[columns].equals(plain.scores[columns])


def test_a_model_that_is_moved_or_frozen_is_restored():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    model(torch.rand(4, 2)).sum().backward()
    before = {name: (p.device, p.requires_grad, p.grad) for name, p in model.named_parameters()}
    buffers, weight = dict(model.named_buffers()), model[0].weight
    with modules_guarded([model]):
        model.requires_grad_(False)
        model.zero_grad()
        model[1].running_mean = torch.zeros(2)
        model[0].weight = nn.Parameter(torch.zeros(2, 2))
    after = {name: (p.device, p.requires_grad, p.grad) for name, p in model.named_parameters()}
    assert [*before] == [*after]
    assert all(one[:2] == after[n][:2] and one[2] is after[n][2] for n, one in before.items())
    assert all(tensor is buffers[name] for name, tensor in model.named_buffers())
    assert model[0].weight is weight


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.gain.data.add_(1),
        lambda model: model.half(),
        lambda model: model.train()(torch.rand(4, 1)) if not isinstance(model, Gain) else
        model.norm.train()(torch.rand(4, 1)),
    ],
    ids=["weight", "dtype", "running mean"],
)  # fmt: skip
def test_changed_weights_are_an_error_that_names_them(small, change):
    class Changing(Scaler):
        def convert(self, source, reference, *, seed):
            change(self.model)
            return source

    with pytest.raises(ModulesChanged, match=r"changed Gain (gain|norm\.\w+) of the model in"):
        small(system=Changing)(10, Gain())


def test_the_modules_of_a_model_are_found_in_collections_and_attributes():
    one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    assert modules_of(one) == [one]
    assert modules_of({"a": one, "b": two}) == modules_of([one, two]) == [one, two]
    system = Scaler(one)
    system.parts = {"vocoder": two}
    assert modules_of(system) == [one, two]
    assert modules_of("model") == []


def test_the_generators_of_all_gpus_are_restored(monkeypatch):
    states = [torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([3, 4], dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [s.clone() for s in states])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, device: states[device].copy_(s))
    with guarded() as remarks:
        states[1].fill_(9)
    assert [state.tolist() for state in states] == [[1, 2], [3, 4]]
    assert remarks == []


@pytest.mark.gpu
def test_a_gpu_and_its_generator_are_as_before(small):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = Gain().cuda()
    model.gain.square().backward()
    gradient = model.gain.grad.clone()

    class Drawing(Scaler):
        def convert(self, source, reference, *, seed):
            assert not torch.is_autocast_enabled("cuda")
            torch.rand(9, device="cuda")
            assert not self.model.training
            converted = self.model.cpu()(source.samples)  # and its gradient
            return bench.Waveform(converted.detach(), source.sample_rate)

    torch.manual_seed(3)
    drawn = torch.rand(4, device="cuda")
    torch.manual_seed(3)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        small(system=Drawing).evaluate(10, model)
        assert torch.is_autocast_enabled("cuda")
    assert torch.equal(torch.rand(4, device="cuda"), drawn)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}
    assert torch.equal(model.gain.grad, gradient)


def test_a_system_is_a_model(small):
    assert small(system=None).evaluate(10, Scaler(Gain())).best


def test_the_first_error_is_raised_and_later_ones_are_warnings(small):
    judge = Level(fails=True)
    benchmark = small(judges={"mos": judge})
    with pytest.raises(JudgeError, match="out of memory"):
        benchmark(10, Gain())
    judge.fails = False
    assert benchmark(20, Gain()) is False
    judge.fails = True
    with pytest.warns(UserWarning, match="step 30 was not benchmarked, .* out of memory"):
        assert benchmark(30, Gain(0.6)) is False
    judge.fails = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        benchmark(40, Gain())
    assert benchmark.last.step == 40


def test_a_model_that_fails_on_every_trial_is_an_error(small):
    class Failing(Scaler):
        def convert(self, source, reference, *, seed):
            raise RuntimeError("shapes differ")

    message = r"model failed on all 1 trials, first F2F-00-\S+: RuntimeError: shapes differ"
    with pytest.raises(UserError, match=message):
        small(system=Failing)(10, Gain())


def test_a_used_folder_is_refused_and_a_resumed_training_replaces_its_calls(small):
    outcomes(small(), [0.5, 0.9, 0.5])
    with pytest.raises(UserError, match=r"calls of a training up to step 30; .* resume=True"):
        small()
    resumed = small(resume=True)
    evaluation = resumed.evaluate(20, Gain(0.6))  # the old step 20, the best, is replaced
    assert evaluation.decision.baseline == "step_00000010"
    assert evaluation.best
    resumed = small(resume=True)
    assert resumed.evaluate(30, Gain(0.7)).decision.baseline == "step_00000020"
    [row] = resumed.last.run.summary.query("system == 'model' and metric == 'mos_net'")["value"]
    peaks = [trial.source.load().peak for trial in resumed.suites[0].trials]
    assert row == pytest.approx(1 + 4 * 0.7 * np.mean(peaks), abs=0.01)


def test_a_best_run_that_was_deleted_is_passed_over(small, tmp_path):
    benchmark = small()
    outcomes(benchmark, [0.5, 0.7])
    (tmp_path / "training" / "step_00000020" / "run.json").unlink()
    assert benchmark.evaluate(30, Gain(0.6)).decision.baseline == "step_00000010"


def test_what_is_logged(small):
    logged = []
    benchmark = small(8, log=[lambda values, step: logged.append((step, dict(values)))])
    outcomes(benchmark, [0.5, 0.4])
    [(step, first), (_, second)] = logged
    assert step == 10
    mos = "vcbench/mini_cross_gender/mos_net/mos"
    assert first[f"{mos}/low"] < first[mos] < first[f"{mos}/high"]
    assert first["vcbench/mini_cross_gender/failed"] == 0
    assert first["vcbench/best"] == 1
    assert "vcbench/gate/pass" not in first
    assert (second["vcbench/gate/regression"], second["vcbench/gate/pass"]) == (1, 1)
    assert second["vcbench/best"] == 0


@pytest.mark.parametrize("option", [{"every": 0}, {"every": True}, {"stop_after": 1.5}])
def test_a_wrong_option_is_named(tmp_path, option):
    with pytest.raises(UserError, match=f"{next(iter(option))} is .*whole number from 1"):
        Benchmark(tmp_path, suites=[], judges={}, **option)
