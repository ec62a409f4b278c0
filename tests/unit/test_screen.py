"""What commands show of strangers' records: as it is, whatever it looks like to Rich or to a terminal."""

import base64
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unicodedata import category

import msgspec
import pytest
from typer.testing import CliRunner

from streams import checkup, dead_letters
from streams.cli import app, campaigns, experiment_report, explain, lag, tail
from streams.cli.screen import _needed, harmless, moment, screen
from streams.lag.arithmetic import PartitionLag, Status
from streams.wire import Placement

NAMES = ("[/x]", "[link=http://elsewhere.example]here[/link]", ":smile:", "[red]")
"""What Rich would raise at, make a link of, replace, or hide."""


def _lag_table(name: str) -> Any:
    part = PartitionLag(
        topic="clicks", partition=0, status=Status.OK, committed=1, log_end=1, lag=0, time_lag_s=0.0,
        time_lag_at_least=False, consumed_per_s=0.0, produced_per_s=0.0, catch_up_s=0.0, stuck_s=0.0, owner=name,
    )  # fmt: skip
    group = SimpleNamespace(group=name, members=1, partitions=[part])
    news = SimpleNamespace(age_s=9.0, stale=True, error=name, report=SimpleNamespace(groups=[group]))
    return lag._table(news, "partition", 400)  # type: ignore[arg-type]  # what the table reads of news


def _campaigns_table(name: str) -> Any:
    figures = SimpleNamespace(impressions=1, clicks=1, spent_micros=1, purchases=1, value_micros=1)
    one = SimpleNamespace(
        campaign_id=name, day=1, total=figures, today=figures, budget_micros=0, billed_micros=0, unbilled_micros=0,
        yesterday_billed_micros=0,
        roas=None, spread_roas=None,
    )  # fmt: skip
    return campaigns._table([one], False)  # type: ignore[list-item]  # what the table reads of a campaign


def _record(**given: Any) -> Any:
    return SimpleNamespace(topic="ads", partition=0, offset=1, timestamp=1, headers=(), **given)


def _tail_line(name: str) -> Any:
    return tail.for_people("ads", _record(key=name.encode(), value=b"{}"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("renderable", [_lag_table, _campaigns_table, _tail_line])
def test_names_are_shown_as_they_are(
    renderable: Callable[[str], Any], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    screen(width=400).print(renderable(name))
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_an_explanation_shows_a_user_and_what_differs_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    placement = Placement(
        placement_id="p", user_id=name, time_ms=1, valid_until_ms=2, arm="default", model="m", slots=[]
    )
    decision: Any = SimpleNamespace(
        placement=msgspec.json.encode(placement), examined=b"", candidates=b"", versions={"model": "m"}, explore="",
        fates=b"",
    )  # fmt: skip
    result: Any = SimpleNamespace(identical=False, differences=[f"arm {name}"], pctr_difference=0.0)
    explain._show(screen(width=400), decision, explain._told(decision), result)
    told = capsys.readouterr().out
    assert f"for {name}, arm" in told
    assert f"arm {name}\n" in told


@pytest.mark.parametrize("name", NAMES)
def test_a_report_of_an_experiment_shows_arms_as_they_are(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    arm = SimpleNamespace(arm=name, users=1, share=1.0, metrics={"ctr": 0.5}, against_first={})
    found: Any = SimpleNamespace(
        experiment="e",
        verdict=name,
        arms=[arm],
        cohorts=1,
        split_p_value=0.5,
        crossed_users=0,
        primary="ctr",
        doubts=(),
        last_finding=None,
        judged_ms=0,
        unwatched=0,
    )
    experiment_report.show(found)
    assert name in capsys.readouterr().out


def test_a_report_of_an_experiment_tells_whole_numbers_on_a_line_each_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    against = SimpleNamespace(value=-1_234_567.0, low=-2_000_000.4, high=31_000.25)
    arms = [
        SimpleNamespace(arm="as-is", users=12, metrics={"ctr": 0.25, "revenue_micros": 20_600_000.0}, against_first={}),
        SimpleNamespace(
            arm="warmer", users=9, metrics={"ctr": 0.24, "revenue_micros": 19_365_433.0},
            against_first={"revenue_micros": against},
        ),
    ]  # fmt: skip
    found: Any = SimpleNamespace(
        experiment="e", verdict="too little yet", arms=arms, cohorts=1, split_p_value=0.5, crossed_users=0,
        primary="ctr", value_per="user_day", doubts=(), last_finding=None, judged_ms=0, unwatched=0,
    )  # fmt: skip
    experiment_report.show(found)
    told = capsys.readouterr().out.splitlines()
    (first,) = [line for line in told if "revenue_micros" in line]
    assert "20,600,000" in first
    (second,) = [line for line in told if "19,365,433" in line]
    assert "-1,234,567" in second
    assert "-2,000,000 to" in second
    assert any("+31,000" in line for line in told)
    assert any("as-is 12, warmer 9" in line for line in told)

    monkeypatch.setenv("COLUMNS", "40")
    experiment_report.show(found)
    assert Counter("".join(capsys.readouterr().out.split())) == Counter("".join("".join(told).split()))


LETTER = dead_letters.Letter(
    partition=0, offset=7, timestamp_ms=1, key=b"u\x1b]0;mine\x07", value=b"\x1b[2J", headers=(("h", b"\x9b2J"),),
    origin={"topic": "clicks", "message": "the key is b'[/x]'"}, requeued=0, truncated=False,
)  # fmt: skip
LONG = {
    "topic": "eu-ad-impressions", "partition": "31", "offset": "1843302", "stage": "catalogue",
    "error": "ValidationError",
    "message": "Expected `int` >= 0 - at `$.value_micros`; found -5; correct it where it is sent",
}  # fmt: skip


@pytest.fixture
def one_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(*_: object) -> AsyncIterator[dead_letters.Letter]:
        yield LETTER
        yield replace(LETTER, offset=8, origin={"topic": "clicks", "message": "[link=http://elsewhere.example]here[/]"})
        yield replace(LETTER, partition=11, offset=1_843_302, origin=LONG, requeued=2)

    async def noted(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(dead_letters, "read", read)
    monkeypatch.setattr(dead_letters, "noted", noted)


@pytest.mark.usefixtures("one_letter")
def test_dead_letters_are_listed_whatever_their_reason_says() -> None:
    told = CliRunner().invoke(app, ["dead-letters", "list"], env={"COLUMNS": "400"})
    assert told.exit_code == 0, told.output
    assert "the key is b'[/x]'" in told.output
    assert "[link=http://elsewhere.example]here[/]" in told.output


@pytest.mark.usefixtures("one_letter")
def test_dead_letters_at_eighty_columns_break_no_word() -> None:
    told = CliRunner().invoke(app, ["dead-letters", "list"], env={"COLUMNS": "80"})
    table, _, _ = told.output.partition(" × ")
    for word in ("eu-ad-impressions", "31:1843302", "11:1843302", "catalogue", "ValidationError:"):
        assert word in table.split(), f"{word} is broken in\n{table}"


@pytest.mark.usefixtures("one_letter")
def test_a_dead_letter_is_shown_with_its_time_and_without_the_controls_that_it_holds() -> None:
    told = CliRunner().invoke(app, ["dead-letters", "show", "0:7"], env={"COLUMNS": "400"})
    assert told.exit_code == 0, told.output
    assert moment(LETTER.timestamp_ms) in told.output
    assert r"u\x1b]0;mine\x07" in told.output
    assert r"\x1b[2J" in told.output
    assert harmless(told.output) == told.output


def test_the_doctor_tells_of_a_refused_key_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkup.Check("events", False, "the record's key is b'[/x]'", "")
    monkeypatch.setattr(checkup, "checkup", lambda _settings: iter([found]))
    told = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "400"})
    assert told.exit_code == 1
    assert isinstance(told.exception, SystemExit)
    assert "b'[/x]'" in told.output


@pytest.mark.parametrize("value", [rb'"\u001b[31mred\u0007"', rb'"\ud800"', b"\x9b31m", b"no json \x1b"])
def test_no_control_of_a_record_reaches_the_terminal_that_tails_it(
    value: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    record = _record(key=b"a\x1b]0;mine\x07\x1b[2J", value=value)
    record.headers = (("h\x1b[1m", b"\x1b[5m"),)
    screen(soft_wrap=True).print(tail.for_people("ads", record))
    told = capsys.readouterr().out
    assert harmless(told) == told
    assert r"a\x1b]0;mine\x07\x1b[2J h\x1b[1m=\x1b[5m" in told


@pytest.mark.parametrize("value", [b'{"a":NaN}', b"[Infinity]", b"-Infinity", b"1e999"])
def test_what_is_no_json_is_not_passed_on_as_json(value: bytes) -> None:
    told = json.dumps(tail.as_object(_record(key=b"a", value=value)), allow_nan=False)
    assert json.loads(told)["value"] == {"base64": base64.b64encode(value).decode()}


@pytest.mark.parametrize("hidden", [
    "\u202a", "\u202e", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c", "\u2028", "\u2029",
    "\u200b", "\ufeff", "\U000e0041", "\xad", "\u034f", "\u115f", "\u17b4", "\u180b", "\u2065", "\u3164", "\uffa0",
    "\ufff0", "\U000e0100", "\u200c", "\u200d", "\ufe0f",
])  # fmt: skip
def test_what_turns_a_line_around_or_begins_one_or_is_not_seen_is_spelled(hidden: str) -> None:
    spelled = hidden.encode("unicode_escape").decode()
    assert harmless(f"ad{hidden}-1") == f"ad{spelled}-1"


@pytest.mark.parametrize("needed", [
    "می\u200cخواهم", "क्\u200dष", "ന\u0d4d\u200d", "❤\ufe0f", "☎\ufe0e", "1\ufe0f\u20e3", "\u203c\ufe0f",
    "\U0001f469\u200d\U0001f4bb", "\U0001f469\U0001f3fd\u200d\U0001f4bb", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "葛\U000e0100城", "\U00020bb7\U000e01ef", "ᠠ\u180b", "ᠪ\u180f", "ᠨ\u180eᠠ",
    "\u05dc\u05b7\u034f\u05b4", "\u05d7\u034f\u05b7",
    "\u115f\u1161\u11ab", "\u115f\u1160\u11ab", "\u1100\u1160\u11ab",
])  # fmt: skip
def test_what_scripts_and_emoji_need_beside_a_sign_of_theirs_is_shown_as_it_is(needed: str) -> None:
    assert harmless(needed) == needed
    assert harmless(f"ad {needed} 1") == f"ad {needed} 1"


@pytest.mark.parametrize("hidden", [
    "café|\u200d|", "кот|\u200d|", "东|\u200d|京", "ad-1\u00a0|\u200d|", "\u06f1|\u200d|",
    "a|\u200d||\u200d|b", "|\u200d|ad",
    "\U0001f469|\u200d|", "\U0001f469|\u200d|ad", "a|\ufe0f||\u200d|\U0001f4bb",
    "广告|\ufe00|", "广告|\ufe0f|", "é|\ufe0f|", "1|\ufe0f|", "❤\ufe0f|\ufe0f||\ufe0f|", "می\u200c|\u200c|",
    "é|\U000e0100|", "葛\U000e0100|\U000e0101|", "葛|\u180b|", "ᠠ\u180b|\u180b|",
    "u|\u034f|\u0308", "\u05d0|\u034f|", "|\u115f|", "가|\u115f|", "\u1100|\u1160|", "|\u1160|\u11ab",
    "ad|\u3164||\ufe0f|",
])  # fmt: skip
def test_the_same_is_spelled_where_no_sign_that_is_seen_needs_it(hidden: str) -> None:
    shown, *pairs = hidden.split("|")
    for sign, seen in zip(pairs[::2], pairs[1::2], strict=True):
        shown += sign.encode("unicode_escape").decode() + seen
    assert harmless(hidden.replace("|", "")) == shown


def test_whatever_unicode_calls_a_control_a_format_or_a_separator_of_lines_is_spelled() -> None:
    signs = [sign for sign in map(chr, range(0x11_0000)) if category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert [sign for sign in signs if harmless(sign) == sign] == ["\t", "\n"]


def test_of_a_long_text_in_any_script_those_signs_alone_are_looked_at_that_may_be_spelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, real = list[str](), _needed()

    def told(text: str, at: int) -> re.Match[str] | None:
        looked.append(text[at])
        return real.match(text, at)

    monkeypatch.setattr("streams.cli.screen._needed", lambda: SimpleNamespace(match=told))
    assert harmless("広告、\u3000" * 1_000 + "\x1b\n") == "広告、\u3000" * 1_000 + "\\x1b\n"
    assert looked == ["\x1b"]


def test_letters_of_every_script_tabs_and_lines_are_no_controls() -> None:
    assert harmless("zoë\t東京\nשלום") == "zoë\t東京\nשלום"
    assert harmless("a\rb\x7f\x85") == r"a\rb\x7f\x85"


def test_a_name_of_a_script_that_stdouts_encoding_lacks_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkup.Check("events", True, "Zürich 雪", "")
    monkeypatch.setattr(checkup, "checkup", lambda _settings: iter([found]))
    latin = CliRunner(charset="latin-1")
    people, machines = latin.invoke(app, ["doctor"]), latin.invoke(app, ["doctor", "--json"])
    assert (people.exit_code, machines.exit_code) == (0, 0), people.exception
    assert "Zürich \\u96ea" in people.stdout
    assert json.loads(machines.stdout_bytes)["checks"][0]["found"] == "Zürich 雪"
