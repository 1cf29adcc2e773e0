"""Executors: the same bytes whatever the workers, their order and their deaths."""

import errno
import json

import pytest

from bench.cli.settings import load
from bench.cli.verbs import suites_of, systems_of
from bench.errors import UserError
from bench.run.executors import RayExecutor, RaySettings, StageSettings, planned
from bench.run.judges import DeclaredJudge
from bench.run.progress import Silent
from bench.run.run import Run
from bench.stages import convert, pipeline, pool
from bench.stages.pool import Needs
from tests.support.backend import Counted, Here, counted

TIMES = ("elapsed_seconds", "stage.")
COUNTED = "tests.support.backend.Counted"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No warm-ups, and calls of one or two items, so that a small run has many."""
    monkeypatch.setattr(convert, "WARM_UPS", 0)
    monkeypatch.setattr(pool, "MOST_ITEMS", 2)


@pytest.fixture(scope="module")
def config():
    return load(
        [
            *("suite=[mini_cross_gender,mini_unseen_speakers]", "limit=4"),
            "system=[source,target,tests.support.fakes.Louder]",
        ]
    )


def run_in(folder, config, backend=None, workers=2, **options):
    executor = None
    if backend is not None:
        stage = StageSettings(workers=workers)
        executor = RayExecutor(RaySettings(convert=stage, judge=stage), connect=lambda: backend)
    return Run(
        folder / "run",
        suites=suites_of(config),
        systems=systems_of(config),
        isolated=False,
        cache=folder / "scores.sqlite",
        executor=executor,
        **options,
    )


def judges(log, **settings):
    """Two judges; `settings` are of the first."""
    return {
        "length": DeclaredJudge({"_target_": COUNTED, "log": f"{log}.length", **settings}),
        "second": DeclaredJudge({"_target_": COUNTED, "log": f"{log}.second", "version": 2}),
    }


def finish(run, judged):
    run.convert(judges=judged)
    run.score(judged)


def lasting(run):
    """The score table and summary as bytes, without times."""
    scores, summary = run.scores, run.summary
    times = [column for column in scores if column.startswith(TIMES)]
    return (
        scores.drop(columns=times).to_csv(index=False),
        summary[summary["judge"] != "timing"].to_csv(index=False),
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory, config):
    """The tables of `executor=local`, and the sounds that each judge has scored."""
    folder = tmp_path_factory.mktemp("local")
    run = run_in(folder, config)
    finish(run, judges(folder / "log"))
    return lasting(run), sorted(counted(folder / "log.length"))


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_any_number_of_workers_gives_the_bytes_of_this_process(tmp_path, config, local, workers):
    run = run_in(tmp_path, config, backend := Here(seed=workers), workers)
    finish(run, judges(tmp_path / "log"))
    tables, scored = local
    assert lasting(run) == tables
    assert sorted(counted(tmp_path / "log.length")) == scored
    assert sorted(counted(tmp_path / "log.second")) == scored
    # Work in flight is bounded: two calls of each of the workers of three stages.
    assert backend.most <= 2 * 3 * workers


@pytest.mark.parametrize("seed", range(2))
def test_workers_that_end_change_nothing(tmp_path, config, local, seed):
    notes = []

    class Notes:
        def task(self, stage, subject, total):
            return lambda steps: None

        def note(self, text, caution=False):
            notes.append(text)

    ends = [5 + seed, 11 + seed, 12 + seed, 20 + 2 * seed]
    run = run_in(tmp_path, config, Here(seed, ends), progress=Notes())
    finish(run, judges(tmp_path / "log"))
    tables, scored = local
    assert lasting(run) == tables
    # The backend ends a worker before it works, so that even then nothing is scored twice.
    assert sorted(counted(tmp_path / "log.length")) == scored
    assert len([text for text in notes if "a worker ended (killed)" in text]) == 4
    assert (tmp_path / "run" / "remarks.jsonl").read_text().count("killed") == 4


def test_a_stopped_run_resumes_where_it_was(tmp_path, config, local):
    def stop(number):
        if number == 20:
            raise KeyboardInterrupt

    run = run_in(tmp_path, config, Here(before=stop))
    with pytest.raises(KeyboardInterrupt):
        run.convert(judges=judges(tmp_path / "log"))

    def records():
        logs = (tmp_path / "run" / "conversions").glob("*/*.jsonl")
        return sum(path.read_text().count("\n") for path in logs)

    assert 0 < records() < 24
    finish(again := run_in(tmp_path, config, Here(1)), judges(tmp_path / "log"))
    tables, scored = local
    assert lasting(again) == tables
    assert sorted(counted(tmp_path / "log.length")) == scored
    assert records() == 24
    # A third time nothing is converted or scored.
    finish(run_in(tmp_path, config, Here(2)), judges(tmp_path / "log"))
    assert sorted(counted(tmp_path / "log.length")) == scored


def test_rows_that_a_judge_has_no_room_for_are_read_from_the_log(
    tmp_path, config, local, monkeypatch
):
    monkeypatch.setattr(pipeline, "MOST_QUEUED", 4)
    monkeypatch.setattr(pipeline, "SCANNED", 3)
    run = run_in(tmp_path, config, Here(3), workers=1)
    finish(run, judges(tmp_path / "log"))
    assert lasting(run) == local[0]
    assert sorted(counted(tmp_path / "log.length")) == local[1]


def test_stages_run_alone(tmp_path, config, local):
    run_in(tmp_path, config, Here(4)).convert()
    run = run_in(tmp_path, config, Here(5))
    run.score(judges(tmp_path / "log"))
    assert lasting(run) == local[0]
    assert sorted(counted(tmp_path / "log.second")) == local[1]


def test_a_judge_that_fails_stops_the_run_with_the_trials_name(tmp_path, config):
    run = run_in(tmp_path, config, Here())
    victim = run.suites[0].trials[2].trial_id
    with pytest.raises(UserError, match=f"judge length failed on .*{victim}.*model is broken"):
        run.convert(judges=judges(tmp_path / "log", fails_on=victim))


def test_workers_that_end_again_and_again_stop_the_run_with_one_line(tmp_path, config):
    run = run_in(tmp_path, config, Here(ends=range(3, 1000)))
    with pytest.raises(
        UserError, match=r"workers ended .*killed; what is finished is kept"
    ) as error:
        run.convert()
    assert "\n" not in str(error.value)


def test_a_full_disk_stops_the_run_with_the_files_name(tmp_path, config, monkeypatch):
    from bench.audio import Waveform

    def full(self, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    run = run_in(tmp_path, config, Here())
    with monkeypatch.context() as patch:
        patch.setattr(Waveform, "save", full)
        with pytest.raises(OSError, match=r"No space left on device: .*wav") as error:
            run.convert()
    assert error.value.errno == errno.ENOSPC
    run_in(tmp_path, config, Here()).convert()  # resumes


def test_a_judge_without_weights_is_left_out(tmp_path, config):
    judged = {
        "absent": DeclaredJudge({"_target_": "tests.support.fakes.Fetched", "path": "none"}),
        **judges(tmp_path / "log"),
    }
    finish(run := run_in(tmp_path, config, Here()), judged)
    assert "no weights" in run.scored.facts["judges"]["absent"]["unavailable"]


@pytest.mark.parametrize("backend", [None, Here()])
def test_a_judge_out_of_memory_goes_on_and_a_remark_says_so(tmp_path, config, backend):
    greedy = DeclaredJudge({"_target_": "tests.support.fakes.Greedy", "most": 1})
    finish(run := run_in(tmp_path, config, backend), {"length": greedy})
    assert run.scores["length.duration_ratio"].notna().all()
    remarks = (tmp_path / "run" / "remarks.jsonl").read_text()
    assert "length: out of memory; 2 items are scored in two parts" in remarks


def test_judging_overlaps_conversion(tmp_path, config):
    """Sounds are scored before the last is converted, and the log and the cache are in step."""
    order = []

    class Ordered(Here):
        def answer(self, call):
            method = self.calls[call][1]
            order.append(method)
            return super().answer(call)

    finish(run_in(tmp_path, config, Ordered(2)), judges(tmp_path / "log"))
    last = len(order) - order[::-1].index("convert")
    assert order[:last].count("score") >= 4


def test_objects_are_refused(tmp_path, config):
    run = run_in(tmp_path, config, Here())
    with pytest.raises(UserError, match="judge mine is an object; give its settings"):
        run.convert(judges={"mine": Counted(tmp_path / "log")})


def test_a_slow_worker_gets_less_work(monkeypatch):
    """A worker that takes ten times as long has a tenth of the calls, within what is in flight."""
    from bench.stages.messages import Answer
    from bench.stages.pool import Pool, Program, Work

    times = {}  # worker → seconds that it is busy
    done = {}

    class Timed:
        def start(self, program, needs):
            times[number := len(times)] = 0.0
            done[number] = 0
            return number

        def call(self, worker, method, *arguments):
            if method == "hello":
                return (0.0, worker, method, len(done))
            times[worker] += 10.0 if worker == 0 else 1.0
            return (times[worker], worker, method, times[worker])

        def answer(self, call):
            if call[2] != "hello":
                done[call[1]] += 1
            return Answer({"host": "here", "pid": 1}, 1.0)

        def end(self, worker):
            pass

    workers = Pool(Timed(), "stage", Program("", ()), Needs(), 3)
    workers.start()
    for call in workers.calls:
        workers.take(call)
    left = 210
    while left or workers.calls:
        while left and workers.room():
            workers.give(Work("work", (), 1))
            left -= 1
        workers.take(min(workers.calls))
    assert 8 <= done[0] <= 12
    assert done[1] + done[2] == 210 - done[0]


@pytest.mark.parametrize(
    ("settings", "cpus", "gpus", "expected"),
    [
        (RaySettings(), 2, 0, {"convert": (1, Needs()), "a": (1, Needs()), "b": (1, Needs())}),
        (RaySettings(), 16, 0, {"convert": (8, Needs()), "a": (4, Needs()), "b": (4, Needs())}),
        (
            RaySettings(),
            32,
            2,
            {"convert": (2, Needs(1, 0.52)), "a": (2, Needs(1, 0.24)), "b": (2, Needs(1, 0.24))},
        ),
        (
            RaySettings(judges={"b": StageSettings(workers=3, gpus=0.0, cpus=2.0)}),
            32,
            2,
            {"convert": (2, Needs(1, 0.52)), "a": (2, Needs(1, 0.24)), "b": (3, Needs(2, 0.0))},
        ),
    ],
)
def test_the_plan_of_workers(settings, cpus, gpus, expected):
    assert planned(settings, ["a", "b"], cpus, gpus) == expected


@pytest.mark.parametrize("count", range(1, 12))
def test_the_shares_of_a_gpu_fit_on_it_and_two_converters_do_not(count):
    """Ray counts to four decimals: three judges of 0.1667 beside half a GPU would not fit."""
    plan = planned(RaySettings(), [f"j{n}" for n in range(count)], 32, 2)
    steps = {name: needs.gpus * 10_000 for name, (_, needs) in plan.items()}
    assert all(step == pytest.approx(round(step)) for step in steps.values())
    assert sum(map(round, steps.values())) <= 10_000
    assert 2 * steps["convert"] > 10_000


class WithGpus(Here):
    """Two GPUs, on which a judge needs 4 GiB."""

    def __init__(self):
        super().__init__()
        self.needs = {}

    def resources(self):
        return {"CPU": 8, "GPU": 2}

    def start(self, program, needs):
        self.needs.setdefault(program.arguments[0], []).append(needs.gpus)
        return super().start(program, needs)


def test_a_run_that_only_scores_gives_the_gpus_to_the_judges(tmp_path, config, monkeypatch):
    monkeypatch.setattr("bench.run.executors.card_gib", lambda: None)
    run_in(tmp_path, config, Here(4)).convert()
    backend = WithGpus()
    run_in(tmp_path, config, backend, workers=None).score(judges(tmp_path / "log"))
    assert backend.needs["length"] == backend.needs["second"] == [0.5, 0.5]


class Notes(Silent):
    def __init__(self):
        self.texts = []

    def note(self, text, caution=False):
        self.texts.append(text)


def test_what_a_run_measures_decides_on_the_shares_of_the_next(tmp_path, config, monkeypatch):
    """The first run shares equally; the second by what the first has measured."""
    monkeypatch.setattr("bench.run.executors.card_gib", lambda: None)
    monkeypatch.setattr("bench.stages.remote.gpu_memory", lambda: (4.0, 80.0))
    seen = []
    for name in ("a", "b"):
        backend, notes = WithGpus(), Notes()
        log = tmp_path / "log"
        run = run_in(tmp_path / name, config, backend, workers=None, progress=notes)
        run.cache = tmp_path / f"{name}.sqlite"
        run.convert(judges=judges(log))
        seen.append((backend.needs["length"], [t for t in notes.texts if "GPUs are" in t]))
    assert json.loads((tmp_path / "gpu_memory.json").read_text())["card"] == 80.0
    assert seen[0] == (
        [0.24, 0.24],
        ["2 GPUs are shared equally: the memory of the GPUs is not known; set executor.memory"],
    )
    assert seen[1] == (
        [0.0556, 0.0556],
        ["2 GPUs are shared by memory: 2 × (convert 89%, length 6%, second 6%)"],
    )
