"""The report's page: safe, whole, readable without its pictures, and about nobody."""

import gzip
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
import typer
from typer.testing import CliRunner

from scoring.units import DAY_MS

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'salience[report]'")

import msgspec

from scoring.policies import CONTROL_ARM, ENGINE_ARM
from scoring.positions import Position
from streams.behaviour import colours, plots
from streams.behaviour.attention import HOURS, Attention, Looked
from streams.behaviour.drift import Drift, Turn
from streams.behaviour.gathered import Gatherer
from streams.behaviour.page import page
from streams.behaviour.positions import Positions
from streams.behaviour.report import Report, report
from streams.cli import app
from streams.cli.report import since_ms
from streams.logs import Event
from streams.logs.kuairand import IMPRESSIONS, VIDEOS
from streams.wire import encode_json
from tests import builders
from tests.builders import START_MS, ad, click, impression
from tests.unit.test_console_alarms import STATIC

HOSTILE = "<script>alert(1)</script>&\"'$x^2$_{\\frac"


class _Reader(HTMLParser):
    """Tags with their attributes, in order, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def pictures(html: str) -> list[str]:
    """The SVG of each picture."""
    start = "data:image/svg+xml,"
    sources = [attributes["src"] or "" for tag, attributes in _Reader(html).tags if tag == "img"]
    assert all(source.startswith(start) for source in sources)
    return [unquote(source.removeprefix(start)) for source in sources]


def whole() -> Report:
    """A report with something in every section, of hostile names."""
    gatherer = Gatherer()
    gatherer.offer([ad("ad-0", category=HOSTILE, campaign_id=HOSTILE, advertiser_id=HOSTILE), ad("ad-1", category="c")])
    events: list[Event] = []
    decisions = []
    for number in range(240):
        for at in range(12):
            name, time_ms = f"placement-{number}-{at}", START_MS + 86_400_000 * (at % 3) + 1_000 * number + 2_000 * at
            user, shown = f"person-{number}", f"ad-{(at + number) % 2}"
            arm = CONTROL_ARM if number % 3 == 0 else ENGINE_ARM
            made = {"placement_id": name, "user_id": user, "arm": arm, "policy": {"control_share": 0.33}}
            decisions.append(encode_json(made))
            events.append(impression(user, shown, time_ms, placement_id=name, event_id=f"i-{name}"))
            if (number + at) % 4 == 0:
                answer = {"impression_time_ms": time_ms, "viewed_s": 3.5, "value_micros": 9, "kind": "purchase"}
                events.append(click(user, shown, time_ms + 10, event_id=f"c-{name}", **answer))
    gatherer.add(events)
    gatherer.decided(decisions)
    return report(gatherer.gathered(), HOSTILE)


@pytest.fixture(scope="module")
def made() -> tuple[Report, str]:
    found = whole()
    return found, page(found)


def test_names_from_outside_stay_text(made: tuple[Report, str]) -> None:
    read = _Reader(made[1])
    assert "script" not in {tag for tag, _ in read.tags}
    assert HOSTILE in read.text


def test_who_reads_what_campaigns_spend_is_told_that_what_is_beyond_a_budget_is_in_it_and_billed_to_nobody(
    made: tuple[Report, str],
) -> None:
    words = json.loads((STATIC / "i18n" / "en.json").read_text())
    command = " ".join(CliRunner().invoke(app, ["campaigns", "--help"]).output.replace("│", "").split())
    assert "what is beyond a budget and not billed" in command
    assert "beyond a budget counts as spent, but is billed to nobody" in words["campaigns.day"]
    assert "beyond a day's budget is in the cost, but billed to nobody" in _Reader(made[1]).text
    assert "workers filter, they charge nothing" in _Reader(made[1]).text


def test_the_page_asks_for_nothing(made: tuple[Report, str]) -> None:
    read = _Reader(made[1])
    for _, attributes in read.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/svg+xml,"))
    assert "http" not in re.sub(r"svg\+xml,[^\"]*|http-equiv", "", made[1])
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in read.tags)
    for svg in pictures(made[1]):
        assert "<script" not in svg
        assert not re.findall(r"href=\"(?!#)", svg)


def test_pictures_have_no_colour_and_no_pixel_that_does_not_follow_the_scheme(made: tuple[Report, str]) -> None:
    for svg in pictures(made[1]):
        assert svg.count(colours.SHEET) == 1
        drawn = svg.replace(colours.SHEET, "")
        assert "<image" not in drawn
        assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawn)) <= {
            *("none", "var(--ground)", "var(--text)", "var(--ink)", "var(--second)"),
        }


def test_every_picture_has_words_and_its_numbers_behind_it(made: tuple[Report, str]) -> None:
    read = _Reader(made[1])
    shown = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(shown) == 7
    assert all(len(attributes.get("alt") or "") > 30 for attributes in shown)
    kinds = [tag for tag, _ in read.tags if tag in ("section", "img", "table")]
    for place, kind in enumerate(kinds):
        assert kind != "img" or kinds[place + 1] == "table"
    heads = [attributes for tag, attributes in read.tags if tag == "th"]
    assert all(attributes.get("scope") in ("col", "row") for attributes in heads)
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in read.tags


def test_the_page_and_the_numbers_name_nobody(made: tuple[Report, str]) -> None:
    told = made[1] + encode_json(made[0]).decode()
    told += "".join(pictures(made[1]))
    assert "person-" not in told
    assert "placement-" not in told


def test_the_same_events_make_the_same_bytes(made: tuple[Report, str]) -> None:
    assert page(whole()) == made[1]


def test_a_log_of_impressions_alone_makes_a_page_that_says_what_is_not_there() -> None:
    gatherer = Gatherer()
    gatherer.add([impression()])
    text = _Reader(page(report(gatherer.gathered(), "a test"))).text
    assert "Nobody attended to anything" in text
    assert "has no receipts of both" in text
    assert "nothing to divide" in text


def test_interest_that_turned_by_rounding_alone_is_drawn_at_zero_of_an_axis_in_plain_numbers() -> None:
    turns = [Turn(START_MS + DAY_MS * at, 3, 1e-17 * at, 0.0, 2e-17, 1e-17) for at in range(3)]
    words = re.findall(r"<text[^>]*>(.*?)</text>", plots.turned(Drift(3, 3, turns), DAY_MS))
    numbers = words[len(turns) : words.index("1 − cosine")]
    assert [float(number) for number in numbers] == [0, 0.002, 0.004, 0.006, 0.008, 0.01]
    assert words[len(turns) + len(numbers) + 1].startswith("half of the people")


def test_a_slot_that_too_few_people_were_shown_is_told_and_drawn_without_an_interval(made: tuple[Report, str]) -> None:
    slots = [Position(0, 900, 90, 1.0, 1.0, 1.0), Position(1, 600, 30, 0.5, None, None), Position(2, 9, 0, *[None] * 3)]
    found, reaching = Positions(30, slots), Positions(30, [*slots[:1], Position(1, 600, 30, 0.5, 0.4, 0.6)])
    text = page(msgspec.structs.replace(made[0], positions=found))
    for cells in (["1.000", "1.000 to 1.000"], ["0.500", "too few people"], ["too few clicks", ""]):
        assert "".join(f"<td>{cell}</td>" for cell in cells) in text
    assert plots.examined(found).count("clip-path") == plots.examined(reaching).count("clip-path") - 1


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_text_in_the_pictures_and_warned_of_by_nobody() -> None:
    names = ["运动鞋", "図書", "한국어", "नमस्ते", "<b>$5 & $6", "bell\x07"]
    rows = [Looked(name, 6.0, 6, 1.0, None, [1.0] * HOURS) for name in names]
    picture = ET.fromstring(plots.attended(Attention(6.0, rows)))
    words = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert [name for name in words if name in names] == names[:-1]
    assert "bell\ufffd" in words  # which XML could not tell


NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, None),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:30", datetime(2026, 11, 1, 12, 30, tzinfo=UTC)),
        ("2026-11-01T12:30+02:00", datetime(2026, 11, 1, 10, 30, tzinfo=UTC)),
        ("24h", datetime(2026, 11, 24, 12, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 18, 12, tzinfo=UTC)),
        ("90m", datetime(2026, 11, 25, 10, 30, tzinfo=UTC)),
    ],
)
def test_since_is_a_date_a_moment_or_so_long_ago(text: str | None, moment: datetime | None) -> None:
    assert since_ms(text, NOW) == (round(moment.timestamp() * 1000) if moment else 0)


@pytest.mark.parametrize("text", ["yesterday", "7w", "-1d", "2026-13-01", ""])
def test_a_since_without_a_meaning_is_refused_with_what_was_expected(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        since_ms(text, NOW)
    assert "expected a date" in capsys.readouterr().err


def test_the_command_reports_on_a_recorded_log(tmp_path: Path) -> None:
    shown = (
        "time_ms,user_id,video_id,tab,is_click,play_time_ms\n1650812741436,12,7,1,1,61802\n1650812746436,12,7,4,0,900"
    )
    video = "video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_type,tag\n7,900,AD,2022-04-10,,,,"
    for name, text in ((IMPRESSIONS, shown), (VIDEOS, video)):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    out = tmp_path / "made" / "report.html"
    told = CliRunner().invoke(app, ["report", "--log", f"kuairand:{tmp_path}", "--out", str(out), "--json"])
    assert told.exit_code == 0, told.output
    numbers = msgspec.json.decode(told.stdout, type=Report)
    assert (numbers.about.impressions, numbers.about.actions, numbers.attention.seconds) == (2, 1, 61.802)
    assert "What people did" in out.read_text()
    assert str(tmp_path) not in out.read_text()


def test_the_command_refuses_what_makes_no_sense(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.touch()
    beneath = CliRunner().invoke(
        app, ["report", "--log", f"kuairand:{tmp_path / 'none'}", "--out", str(out / "x.html")]
    )
    assert beneath.exit_code == 1  # before the log is read, which may take minutes
    assert f"--out {out / 'x.html'} cannot be written (File exists); name a file in a folder" in beneath.output
    assert CliRunner().invoke(app, ["report", "--log", "kuairand"]).exit_code == 2
    assert CliRunner().invoke(app, ["report", "--log", "other:x"]).exit_code == 2
    missing = CliRunner().invoke(app, ["report", "--log", f"kuairand:{tmp_path}", "--json"])
    assert missing.exit_code == 1
    assert "does not exist" in json.loads(missing.stdout)["error"]


def test_a_log_is_the_same_by_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs import parquet

    log = builders.made_up_log(2, users=9, ads=8, events=300)
    parquet.write(log, tmp_path / "log")
    out = str(tmp_path / "report.html")
    told = CliRunner().invoke(app, ["report", "--log", f"parquet:{tmp_path / 'log'}", "--out", out, "--json"])
    assert told.exit_code == 0, told.output
    gatherer = Gatherer()
    gatherer.offer(log.ads)
    gatherer.add(log.events)
    expected = report(gatherer.gathered(), "a recorded log (parquet)")
    assert msgspec.json.decode(told.stdout, type=Report) == expected
