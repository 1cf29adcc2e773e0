"""Wrong settings of judges are detected before anything is converted or loaded."""

import pytest
from omegaconf import OmegaConf

from bench.cli.settings import load, options
from bench.errors import UserError
from bench.judges.checks import check_settings
from bench.judges.nn.batches import in_batches
from bench.objects import locate


def check(*overrides: str) -> None:
    judges = load([f"judge=[{','.join(options('judge'))}]", "device=cpu", *overrides]).judge
    for name, settings in OmegaConf.to_container(judges, resolve=True).items():
        check_settings(settings, f"judge.{name}", lambda path: locate(path, "judge"))


def test_the_shipped_settings_hold_without_any_weights(no_network):
    check()
    assert no_network == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "judge.dnsmos.device=cud",
            r"judge\.dnsmos\.device=cud: no such device; did you mean 'cuda'\?",
        ),
        (
            "judge.wer_whisper_base.recogniser.device=gpu",
            r"judge\.wer_whisper_base\.recogniser\.device=gpu: no such device",
        ),
        ("judge.utmos.batch_size=0", r"judge\.utmos\.batch_size=0: must be a whole number, at"),
        ("judge.secs_ecapa.encoder.batch_size=2.5", r"encoder\.batch_size=2\.5: must be a whole"),
        ("judge.secs_ecapa.encoder.weights=/no/file", r"weights='/no/file': no such file or fold"),
        ("judge.secs_ecapa.against=enrolment", "against='enrolment': must be a list; name enrol"),
        ("judge.secs_ecapa.against=[[enrolment]]", r"against=\[\['enrolment'\]\]: name enrolment"),
        ("judge.secs_ecapa.max_eer=8", r"secs_ecapa\.max_eer=8: must be a number, 0 to 1"),
        ("judge.wer_whisper_base.references=[text,text]", r"references=.*: each at most once"),
        ("judge.wer_whisper_base.poolings=[macro]", r"poolings=\['macro'\]: name corpus or mean"),
        ("judge.wer_whisper_base.max_wer=-1", "max_wer=-1: must be a number, 0 or more"),
        ("judge.wer_whisper_base.recogniser.model=bas", "Whisper has no such model; did you mean"),
        ("judge.wer_whisper_base.recogniser.language=eng", "Whisper knows no such language"),
        ("judge.prosody.f0_floor=600", r"f0_floor=600: must be below f0_ceil, 500\.0 Hz"),
        ("judge.prosody.f0_ceil=4000", "f0_ceil=4000: must be a number, 1 to 1000"),
        ("+judge.dnsmos.devise=cpu", r"judge\.dnsmos\.devise: no such setting; did you mean 'dev"),
        ("~judge.wer_hubert_large.recogniser.repository", r"recogniser\.repository: it needs a va"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_name(override, message):
    with pytest.raises(UserError, match=message) as caught:
        check(override)
    assert str(caught.value).startswith("judge.")
    assert "\n" not in str(caught.value)


class Guarded:
    """A third party's judge, with a check of its settings and a device of another library."""

    def __init__(self, model: str, **options: object) -> None:
        raise AssertionError("no judge is built for its settings")

    @staticmethod
    def check_settings(settings):
        if settings["model"] != "large":
            raise UserError(f"model={settings['model']}: name large")


def test_a_third_partys_class_checks_its_settings():
    settings = {
        "_target_": "lab.Guarded",
        "model": "large",
        "device": "npu:3",
        "batch_size": "auto",
    }
    check_settings(settings, "judge.lab", lambda path: Guarded)
    with pytest.raises(UserError, match=r"judge\.lab\.model=small: name large"):
        check_settings({**settings, "model": "small"}, "judge.lab", lambda path: Guarded)
    with pytest.raises(UserError, match=r"judge\.lab\.model: it needs a value"):
        check_settings({"_target_": "lab.Guarded"}, "judge.lab", lambda path: Guarded)


def test_a_device_is_checked_without_importing_the_judge():
    with pytest.raises(UserError, match=r"judge\.x\.device=cud: no such device"):
        check_settings({"_target_": "bench.judges.no_such.Judge", "device": "cud"}, "judge.x")


def test_a_batch_of_no_clips_is_refused_and_not_waited_for():
    with pytest.raises(ValueError, match=r"batch_size \(0\) must be at least 1"):
        in_batches([], 0, list)
