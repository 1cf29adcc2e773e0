"""The floor and the ceiling of every table: real recordings that no system made."""

from bench.trials import Trial, Utterance


class Source:
    """The source, unchanged: the floor for SECS and the ceiling for WER and naturalness."""

    says_source_words = True

    def recording(self, trial: Trial) -> Utterance:
        return trial.source


class Target:
    """Another true utterance of the target speaker: the ceiling for SECS."""

    says_source_words = False

    def recording(self, trial: Trial) -> Utterance | None:
        return trial.target
