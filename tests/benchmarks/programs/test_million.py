"""`benchmarks.programs.million` without Ray: nothing is lost, and sizes grow with the trials."""

from benchmarks.programs import million


def test_a_whole_run_in_one_process_loses_nothing(capsys):
    [figures] = million.main(["--trials", "300", "--here", "--whole"])
    assert (figures["converted"], figures["scored"]) == (300, 300)
    assert "300 records and 300 scores of 300 trials" in capsys.readouterr().out


def test_what_grows_between_two_runs_grows_on():
    small = {"trials": 100, "log": 60_000, "cache": 40_000, "run": 1e7}
    large = {"trials": 200, "log": 120_000, "cache": 60_000, "run": 2e7}
    lists = [(1000, 1e9), (2000, 1.001e9)]
    rows = million.sizes_table(1_000_000, [small, large], lists).splitlines()
    assert rows[2] == "| conversion log | 600 | 0.60 GB |"
    assert rows[3] == "| score cache, with one judge | 200 | 0.20 GB |"
    assert rows[4] == "| sounds of 7 s | 336,044 | 336 GB |"
    assert rows[5] == "| driver: list of trials, libraries | 1,000 | 2.00 GB |"
    assert rows[6] == "| driver: rows in flight, up to | | 0.02 GB |"


def test_a_list_of_trials_takes_memory():
    assert million.memory_of_list(50) > 1 << 26
