"""The command line `vcbench`: a thin layer over `bench.run.run.Run` and the other packages."""

# The function of each verb, imported when it is called: `vcbench ls` needs no torch.
VERBS = {
    "run": "bench.cli.verbs.run",
    "convert": "bench.cli.verbs.convert",
    "score": "bench.cli.verbs.score",
    "merge": "bench.cli.verbs.merge",
    "report": "bench.cli.verbs.report",
    "compare": "reports.text.commands.compare",
    "gate": "reports.text.commands.gate",
    "history": "reports.text.commands.history",
    "agreement": "reports.text.commands.agreement",
    "site": "reports.site.commands.site",
    "stimuli": "reports.listening.commands.stimuli",
    "doctor": "bench.cli.doctor.doctor",
    "ls": "bench.cli.inspect.ls",
    "corpus": "suites.commands.corpus",
    "suite": "suites.commands.suite",
    "baseline": "baselines.commands.baseline",
    "ratings": "reports.listening.ratings.commands.ratings",
}
