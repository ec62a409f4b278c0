"""Recorded trials, on files small enough to reckon by hand; what is none of them is told by file and line."""

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.logs import LogError
from streams.logs.hillstrom import ARMS, values
from streams.logs.obd import random_to_bts

HEAD = "item_id,position,click,propensity_score"
BTS = ("0,1,1,.9", "0,1,0,.9", "0,1,0,.9", "1,1,1,.9", "0,2,0,.9", "1,3,0,.9")
"""In the first position item 0 three times of four; in the others always the same."""
RANDOM = ("0,1,1,.5", "1,1,0,.25", "0,2,1,.8", "2,3,1,.1")


def obd(directory: Path, random: tuple[str, ...] = RANDOM, bts: tuple[str, ...] = BTS) -> Path:
    for name, lines in (("random_all", random), ("bts_all", bts)):
        (directory / f"{name}.csv.gz").write_bytes(gzip.compress("\n".join([HEAD, *lines, ""]).encode()))
    return directory


def trial(directory: Path, *lines: str) -> Path:
    header = "row,newbie,treatment,visit,conversion,spend"
    (directory / "half_a.csv.gz").write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
    return directory


def test_a_choice_weighs_by_the_policys_share_of_the_item_in_its_position_over_the_logged_chance(
    tmp_path: Path,
) -> None:
    found = random_to_bts(obd(tmp_path))

    assert found.logged.weight.tolist() == pytest.approx([0.75 / 0.5, 0.25 / 0.25, 1 / 0.8, 0])
    assert found.estimates["ips"].value == pytest.approx((1.5 + 1.25) / 4)
    assert found.estimates["snips"].value == pytest.approx((1.5 + 1.25) / (1.5 + 1 + 1.25))
    assert found.observed == pytest.approx(2 / 6)


@pytest.mark.parametrize(
    ("random", "bts", "told"),
    [
        ((), BTS, r"random_all\.csv\.gz has no rows"),
        (RANDOM, (), r"bts_all\.csv\.gz has no rows"),
        (RANDOM, BTS[:-1], r"bts_all\.csv\.gz has no choices in position 3"),
        (("0,1,1,5",), BTS, r"line 2: propensity_score is '5'; expected a chance above 0, at most 1"),
        (("0,1,1,0",), BTS, "line 2: propensity_score is '0'"),
        (("0,1,1,",), BTS, "line 2: propensity_score is ''"),
        (("0,4,1,.5",), BTS, "line 2: position is '4'"),
    ],
)
def test_files_that_are_not_two_policies_logs_are_told(
    tmp_path: Path, random: tuple[str, ...], bts: tuple[str, ...], told: str
) -> None:
    with pytest.raises(LogError, match=told):
        random_to_bts(obd(tmp_path, random, bts))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((), "has no rows"),
        (tuple(f"{row},{row % 3 % 2},{ARMS[row % 2]},1,0,0" for row in range(99)), "nobody got Womens E-Mail"),
        (("1,0,No E-Mail,7,0,0",), "line 2: visit is '7'; expected an integer from 0 to 1"),
        (("1,0,No E-Mail,1,1e300,0",), "line 2: conversion is '1e300'"),
        (("1,0,No E-Mail,,0,0",), "line 2: visit is ''"),
        (("1,0,No E-Mail,1,0,",), "line 2: spend is ''; expected a number"),
    ],
)
def test_a_file_that_is_not_the_mail_trial_is_told(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    with pytest.raises(LogError, match=told):
        list(values(trial(tmp_path, *lines)))


def test_an_interval_of_one_choice_is_unknown_and_no_number_that_json_does_not_have(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["ope", "--log", f"obd:{obd(tmp_path, RANDOM[:1])}", "--json"])
    assert told.exit_code == 0, told.output
    (found,) = json.loads(told.stdout, parse_constant=pytest.fail).values()
    assert found["estimates"]["ips"] == {"value": 1.5, "low": None, "high": None}
    shown = CliRunner().invoke(app, ["ope", "--log", f"obd:{tmp_path}"])
    assert "unknown" in shown.output


@pytest.mark.parametrize("reviews", [("1,good",), ("1,good", "0,bad"), ("1,good", "1,fine")])
def test_of_reviews_that_are_too_few_no_turn_is_simulated_and_none_is_told(
    tmp_path: Path, reviews: tuple[str, ...]
) -> None:
    (tmp_path / "reviews.csv.gz").write_bytes(gzip.compress("\n".join(["positive,text", *reviews, ""]).encode()))
    told = CliRunner().invoke(app, ["reviews", "evaluate", "--data", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.output
    judged = json.loads(told.stdout, parse_constant=pytest.fail)
    assert (judged["reviews"], judged["turns"], judged["found"]) == (len(reviews), 0, 0)
    assert judged["delay_median"] is judged["delay_most"] is judged["false_per_1000"] is None
    shown = CliRunner().invoke(app, ["reviews", "evaluate", "--data", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
