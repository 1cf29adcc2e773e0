"""Every reader against a file of the true layout, and mistakes named in one line."""

import json

import pytest

from bench.errors import UserError
from reports.listening.ratings.readers import guessed, read_answers
from reports.listening.ratings.table import checked
from tests.support.raters import TEST_ID, small_test, written

PAGE_HEAD = "test_id,listener,group,screen,stimulus,rating,position,seconds,played,other,place\n"


@pytest.fixture
def nmos(tmp_path):
    return written(tmp_path / "test", *small_test("nmos"))


def put(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def imported(test, path, form=None, **how):
    return checked(test, read_answers(test, path, form), **how)


def page_rows(*rows):
    return PAGE_HEAD + "".join(f"{TEST_ID},{row}\n" for row in rows)


# what each presentation stores


def test_the_pages_files_one_for_each_listener(nmos, tmp_path):
    folder = tmp_path / "answers"
    put(folder, "a.csv", page_rows("P1,0,q0a,x0a,5,0,3.10,1,,", "P1,0,q0b,x0b,2,1,4.00,2,,"))
    put(folder, "b.csv", page_rows("P2,0,q0a,x0a,4,0,2.50,1,,"))
    result = imported(nmos, folder)
    table = result.table
    assert list(table["listener"]) == ["P1", "P1", "P2"]
    assert list(table["rating"]) == [5, 2, 4]
    assert table["seconds"].tolist() == [3.1, 4.0, 2.5]
    assert result.notes == [
        "Listener P1 answered 2 of 12 screens; what is there counts.",
        "Listener P2 answered 1 of 12 screens; what is there counts.",
    ]


def record(listener, page, stimulus, session="u1", **values):
    """As pymushra's download has it: flattened, with texts that look like numbers cast."""
    return {
        "responses_stimulus": stimulus,
        "questionaire_listener": listener,
        "questionaire_uuid": session,
        "wm_id": page,
        "wm_type": "likert_single_stimulus",
        "wm_config": f"configs/{TEST_ID}_3.yaml",
        "wm_testId": TEST_ID,
        "wm_date": 1764430000000,
        **values,
    }


def test_pymushras_json_of_single_ratings(nmos, tmp_path):
    answers = [
        record(12, "q0a", "x0a", responses_stimulusRating=[5], responses_time=3100),
        record(12, "q0b", "x0b", responses_stimulusRating=["NA"], responses_time=3100),
        record("anna", "q0a", "x0a", "u2", responses_stimulusRating="4", responses_time=2500.0),
    ]
    result = imported(nmos, put(tmp_path, "a.json", json.dumps(answers)))
    assert result.table["listener"].tolist() == ["12", "anna"]
    assert result.table["rating"].tolist() == [5, 4]
    assert result.table["seconds"].tolist() == [3.1, 2.5]
    assert result.table["group"].tolist() == ["3", "3"]
    assert "1 questions without an answer, of 12" in result.notes[0]


def test_pymushras_csv_has_semicolons_and_columns_in_any_order(nmos, tmp_path):
    text = (
        "wm_id;questionaire_uuid;responses_time;wm_testId;responses_stimulus;"
        f"responses_stimulusRating;wm_type\nq0a;u1;900;{TEST_ID};x0a;[3];lss\n"
    )
    path = put(tmp_path, "a.csv", text.replace("[3]", "3"))
    assert guessed(path) == "pymushra"
    table = imported(nmos, path).table
    assert table.loc[0, ["listener", "rating", "seconds"]].tolist() == ["u1", 3.0, 0.9]


def test_ids_that_pymushra_turns_into_numbers_are_recognised(tmp_path):
    public, key = small_test("nmos")
    text = json.dumps([public, key]).replace('"x0a"', '"007"').replace('"x0b"', '"12e3"')
    test = written(tmp_path / "test", *json.loads(text))
    answers = [
        record("A", "q0a", 7, responses_stimulusRating=[5]),
        record("A", "q0b", 12000.0, responses_stimulusRating=[4]),
    ]
    table = imported(test, put(tmp_path, "a.json", json.dumps(answers))).table
    assert table["stimulus"].tolist() == ["007", "12e3"]


def test_webmushras_mushra_rates_the_hidden_reference_by_its_name(tmp_path):
    test = written(tmp_path / "test", *small_test("mushra"))
    answers = [
        record("A", "m0", name, responses_score=score, responses_time=9000, wm_type="mushra")
        for name, score in (("x0a", 70), ("x0b", 55), ("reference", 100), ("low0", 5))
    ]
    table = imported(test, put(tmp_path, "a.json", json.dumps(answers))).table
    assert dict(zip(table["stimulus"], table["rating"], strict=True)) == {
        "x0a": 70,
        "x0b": 55,
        "hid0": 100,
        "low0": 5,
    }


def test_pairs_in_one_file_and_webmushras_paired_comparison(tmp_path):
    test = written(tmp_path / "test", *small_test("ab"))  # p0 is b, a; p1 is a, b
    answers = [
        record("A", "p0", "p0", responses_stimulusRating=[1]),
        record("A", "p1", None, responses_reference="reference", responses_nonReference="x1b",
               responses_answer="incorrect", wm_type="paired_comparison"),
        record("A", "p2", None, responses_reference="reference", responses_nonReference="x2a",
               responses_answer="undecided", wm_type="paired_comparison"),
    ]  # fmt: skip
    table = imported(test, put(tmp_path, "a.json", json.dumps(answers))).table
    rows = table[["stimulus", "other", "rating"]].values.tolist()
    assert rows == [["x0b", "x0a", 1.0], ["x1a", "x1b", -1.0], ["x2b", "x2a", 0.0]]


def test_webmushras_csv_needs_a_name_where_it_stores_no_session(nmos, tmp_path):
    head = "session_test_id,listener,trial_id,stimuli_rating,stimuli,rating_time\n"
    path = put(tmp_path, "lss.csv", head + f"{TEST_ID},Anna,q0a,4,x0a,1200\n")
    assert imported(nmos, path).table.loc[0, "listener"] == "Anna"
    path = put(tmp_path, "lss.csv", head.replace("listener,", "") + f"{TEST_ID},q0a,4,x0a,1200\n")
    with pytest.raises(UserError, match=r"lss.csv:2: nothing tells listeners apart"):
        read_answers(nmos, path)


def p808(*assignments):
    """As Mechanical Turk's download: one row an assignment."""
    head = "HITId,AssignmentId,WorkerId,AssignmentStatus,Input.TP,Answer.Q1_URL,Answer.q1,"
    head += "Answer.audio_n_finish_q1,Answer.Q2_URL,Answer.q2,Answer.audio_n_finish_q2\n"
    return head + "".join(f"H,{row}\n" for row in assignments)


def test_p808_results(nmos, tmp_path):
    url = "https://x.org/audio"
    text = p808(
        f"A1,W1,Submitted,{url}/tp.wav,{url}/x0b.wav,2,1,{url}/x0a.wav,5,2",
        f"A2,W2,Approved,{url}/tp.wav,{url}/tp.wav,3,1,{url}/x1a.wav,4,0",
        f"A3,W3,Rejected,{url}/tp.wav,{url}/x0b.wav,2,1,{url}/x0a.wav,5,2",
    )
    result = imported(nmos, put(tmp_path, "batch.csv", text))
    rows = result.table[["listener", "screen", "rating", "played"]].values.tolist()
    assert rows == [["W1", "q0b", 2, 1], ["W1", "q0a", 5, 2], ["W2", "q1a", 4, 0]]
    assert any("trap clips that are not of this test" in note for note in result.notes)
    assert any("rejected on Mechanical Turk and are left out: 1" in note for note in result.notes)


def test_p808_ccr_is_about_the_processed_clip_whatever_the_order(tmp_path):
    """Its page changes the sign where the processed clip is played first."""
    test = written(tmp_path / "test", *small_test("cmos"))
    text = (
        "WorkerId,AssignmentId,AssignmentStatus,Answer.Q1_URL,Answer.Q1_order,Answer.q1,"
        "Answer.audio_n_finish_q_1\nW,A,Submitted,http://h/x0b.wav,pr,-2,1\n"
    )
    table = imported(test, put(tmp_path, "b.csv", text)).table
    columns = ["screen", "stimulus", "other", "rating", "played"]
    assert table.loc[0, columns].tolist() == ["p0", "x0b", "x0a", -2, 1]


def test_a_plain_table(nmos, tmp_path):
    path = put(tmp_path, "a.csv", "listener,stimulus,rating\nA,x0a,5\nA,x0b,4\n")
    assert guessed(path) == "csv"
    assert imported(nmos, path).table["screen"].tolist() == ["q0a", "q0b"]


# mistakes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["P1,0,q0a,x0a"], r"a.csv:2: .* values"),
        (["P1,0,q0a,x9z,5,0,3,1,,"], r"a.csv:2: unknown stimulus 'x9z'"),
        (["P1,0,q9,x0a,5,0,3,1,,"], r"a.csv:2: unknown screen 'q9'"),
        (["P1,0,q0a,x0b,5,0,3,1,,"], r"stimulus 'x0b' is not on that screen"),
        (["P1,0,q0a,x0a,6,0,3,1,,"], r"rating '6' is not on the scale 1 to 5"),
        (["P1,0,q0a,x0a,4.5,0,3,1,,"], r"rating '4.5' is between two steps of 1"),
        (["P1,0,q0a,x0a,good,0,3,1,,"], r"rating 'good' is not a number"),
        (["P1,0,q0a,x0a,4,0,long,1,,"], r"seconds 'long' is not a number"),
        ([",0,q0a,x0a,4,0,3,1,,"], r"a.csv:2: no listener"),
        (
            ["P1,0,q0a,x0a,4,0,3,1,,", "P1,0,q0b,x0b,4,0,3,1,,", "P1,0,q0a,x0a,2,0,3,1,,"],
            r"a.csv:4: listener 'P1' took part twice: .*a.csv:2.*twice=first",
        ),
    ],
)
def test_mistakes_are_named_with_their_line(nmos, tmp_path, rows, message):
    with pytest.raises(UserError, match=message) as raised:
        imported(nmos, put(tmp_path, "a.csv", page_rows(*rows)))
    assert "\n" not in str(raised.value)


def test_answers_of_another_export_are_refused(nmos, tmp_path):
    path = put(tmp_path, "a.csv", PAGE_HEAD + "ffff,P1,0,q0a,x0a,4,0,3,1,,\n")
    with pytest.raises(UserError, match=r"of test 'ffff', but .* two exports are mixed up"):
        imported(nmos, path)


def test_the_first_session_of_a_listener_is_kept_if_asked(nmos, tmp_path):
    folder = tmp_path / "answers"
    put(folder, "a.csv", page_rows("P1,0,q0a,x0a,5,0,3,1,,"))
    put(folder, "b.csv", page_rows("P1,0,q0a,x0a,2,0,4,1,,"))
    put(folder, "c.csv", page_rows("P1,0,q0a,x0a,5,0,3,1,,"))
    result = imported(nmos, folder, twice="first")
    assert result.table["rating"].tolist() == [5]
    notes = " ".join(result.notes)
    assert "given more than once and count once: of P1" in notes
    assert "1 answers of a second session are left out: of P1" in notes


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[{"wm_id": "q0a", ', "broken JSON"),
        ("a.json", '{"x": 1}', "no list of answers"),
        ("a.csv", "who,what\n1,2\n", "no known format"),
        ("a.csv", "", "no known format"),
        ("a.csv", PAGE_HEAD, "there is no answer"),
        ("a.csv", 'listener,stimulus,rating\nA,x0a,"5', "a.csv:2: no CSV"),
    ],
)
def test_broken_files_are_named(nmos, tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        imported(nmos, put(tmp_path, name, text))


def test_missing_files_and_folders_without_answers(nmos, tmp_path):
    with pytest.raises(UserError, match=r"there is no .*nothing"):
        read_answers(nmos, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no .csv and no .json"):
        read_answers(nmos, tmp_path / "empty")
