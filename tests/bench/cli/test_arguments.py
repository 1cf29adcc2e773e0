"""The grammar name=value: what is an operand, what a setting, and what each mistake is called."""

import pytest

from bench.cli import arguments
from bench.cli.arguments import boolean, listed, number, numbers, one_of, parse, whole_number
from bench.errors import UserError

KNOWN = {
    "trials": whole_number,
    "seconds": number,
    "strata": boolean,
    "by": listed,
    "lengths": numbers,
    "bad": one_of("skip", "stop"),
    "out": str,
}


def test_operands_and_settings_stand_in_any_order():
    operands, settings = parse(
        [
            *("seconds=2.5", "outputs/a=b", "trials=24", "./x=1/y=2", "strata=true", "new:world"),
            *("by=[gender_pair, source_length]", "lengths=1,2.5", "bad=stop", "out=a=b.csv"),
        ],
        "compare",
        KNOWN,
        needed=("trials",),
    )
    assert operands == ["outputs/a=b", "./x=1/y=2", "new:world"]
    assert settings == {
        "seconds": 2.5,
        "trials": 24,
        "strata": True,
        "by": ["gender_pair", "source_length"],
        "lengths": [1.0, 2.5],
        "bad": "stop",
        "out": "a=b.csv",
    }
    assert parse([], "compare", KNOWN) == ([], {})
    assert parse(["trials=1", "trials=2"], "compare", KNOWN)[1] == {"trials": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("trails=4", "compare has no setting 'trails'; did you mean 'trials'? known: bad, by"),
        ("=4", "compare has no setting ''; known: bad"),
        ("trials=", "trials= needs a value; leave it out for the default"),
        ("trials=four", "trials=four: 'four' is not a whole number"),
        ("trials=2.5", "trials=2.5: '2.5' is not a whole number"),
        ("seconds=long", "seconds=long: 'long' is not a number"),
        ("seconds=nan", "seconds=nan: 'nan' is not a number"),
        ("seconds=inf", "seconds=inf: 'inf' is not a number"),
        ("lengths=1,x", "lengths=1,x: 'x' is not a number"),
        ("strata=yes", "strata=yes: must be true or false"),
        ("bad=maybe", "bad=maybe: must be skip or stop"),
    ],
)
def test_a_mistake_names_the_setting_the_value_and_the_way_out(given, message):
    with pytest.raises(UserError) as error:
        parse([given], "compare", KNOWN)
    assert str(error.value).startswith(message)


def test_a_needed_setting_that_is_missing_is_named():
    with pytest.raises(UserError, match=r"out=… is missing; suite build knows the settings trials"):
        parse(["trials=4"], "suite build", KNOWN, needed=("trials", "out"))


def test_where_only_settings_are_taken_an_operand_is_named():
    assert arguments.parse_settings(["trials=4"], "suite build", KNOWN) == {"trials": 4}
    with pytest.raises(UserError, match=r"suite build: 'trial' is not a setting; .*'trials'"):
        arguments.parse_settings(["trial"], "suite build", KNOWN)


def test_a_verb_that_needs_an_operand_first_says_so():
    assert arguments.first_operand(["grid", "out=x"], "suite build", "a protocol") == (
        "grid",
        ["out=x"],
    )
    for given in ([], ["out=x"]):
        with pytest.raises(UserError, match="vcbench suite build needs a protocol first"):
            arguments.first_operand(given, "suite build", "a protocol")


def test_a_setting_that_a_function_does_not_take_is_named():
    def build(recordings, *, seed): ...

    arguments.check_parameters("grid", build, {"seed": 1})
    with pytest.raises(UserError, match=r"grid takes no sed=…; did you mean 'seed'"):
        arguments.check_parameters("grid", build, {"sed": 1})
