"""How commands fail: in words, for people and for machines, and never with a traceback."""

import asyncio
import contextlib
import io
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, RequestTimedOutError
from typer.testing import CliRunner

from streams import topic_admin
from streams.cli import app
from streams.client import ViewError, require_topic
from streams.experiments.report import ArmReport, ExperimentReport, encode_report
from streams.wire import LANE_KEY, Ad
from tests.builders import START_MS, Record

NOBODY = "127.0.0.1:1"
ASKING = (
    "campaigns",
    "dead-letters list",
    "experiment list",
    "experiment start warmth",
    "experiment stop warmth",
    "explain 0-1a22-81e-ce3204e5831d6fd5",
    "lanes adopt",
    "lanes show",
    "model list",
    "model promote demo-1a2b3c4d",
    "model rollback",
    "outcomes",
    "privacy erase somebody",
    "privacy export somebody",
    "topics acls --role worker --principal User:w --apply",
    "topics check",
    "topics create",
)
"""Commands that ask a broker first."""


@pytest.mark.parametrize("command", ASKING)
def test_a_command_without_a_broker_says_what_to_do_to_people_and_to_machines(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_admin, "ANSWER_S", 0.2)
    result = CliRunner().invoke(app, [*command.split(), "--bootstrap", NOBODY, "--json"])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    for told in (result.stderr, json.loads(result.stdout)["error"]):
        assert f"No Kafka broker answers at {NOBODY}" in told
        assert "salience broker apache up (or embedded, with SALIENCE_GUARANTEE=at_least_once)" in told
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("dead-letters requeue", "Say which: letters by name"),
        ("dead-letters requeue --topic clickss", "--topic clickss: expected one of clicks, ad-impressions, ads"),
        ("dead-letters list --stage decoding", "--stage decoding: expected one of decode, state, reroute, catalogue"),
        ("privacy export anna --keys no-such-file", "no-such-file"),
        ("tail nosuch", "'nosuch' is no topic of ours"),
        ("report --since never", "--since never: expected a date"),
        ("report --log nowhere", "--log nowhere: expected topics"),
        ("ope --log nowhere", "--log nowhere: expected topics"),
        ("simulate diversity --method best", "--method best: expected mmr or dpp"),
        ("topics create --partitions many", "--partitions"),
        ("campaigns --limit 3", "No such option: --limit"),
        ("campaigns all", "unexpected extra argument(s) (all)"),
        ("campaign", "No such command 'campaign'. Did you mean 'campaigns'?"),
        ("--quiet campaigns", "No such option: --quiet"),
    ],
)
def test_a_wrong_call_is_told_to_machines_too(command: str, said: str) -> None:
    told = CliRunner().invoke(app, [*command.split(), "--json"])
    assert told.exit_code == 2, told.output
    assert said in json.loads(told.stdout)["error"]
    assert "--json" not in told.stdout
    assert told.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KafkaConnectionError("Connection closed"), "KafkaConnectionError: Connection closed. Look closer:"),
        (KafkaConnectionError("Connection closed."), "KafkaConnectionError: Connection closed. Look closer:"),
        (RequestTimedOutError(), "no answer to a request in time; it is busy or away, or the link slow."),
        (KafkaTimeoutError(), "no answer to a request in time; it is busy or away, or the link slow."),
    ],
)
def test_what_the_broker_says_is_told_in_words_and_ends_with_one_full_stop(
    error: KafkaError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> object:
        raise error

    monkeypatch.setattr("streams.reading.newest", failing)
    told = CliRunner().invoke(app, ["lanes", "show", "--json"])
    assert told.exit_code == 1, told.output
    assert json.loads(told.stdout)["error"].startswith(f"the broker failed: {said}")


@pytest.mark.parametrize("command", ["dead-letters show 0:7", "explain 0-1a22"])
def test_what_is_not_there_is_told_to_machines_too(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object, **__: object) -> AsyncIterator[object]:
        return
        yield

    monkeypatch.setattr("streams.dead_letters.read_topic", nothing)
    told = CliRunner().invoke(app, [*command.split(), "--json"])
    assert told.exit_code == 1, told.output
    assert command.rpartition(" ")[2] in json.loads(told.stdout)["error"]
    assert command.rpartition(" ")[2] in told.stderr


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_row_of_a_lane_that_is_none_is_told_by_its_lane(as_json: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def rows(*_: object) -> dict[int, Record]:
        return {3: Record("state-changelog", 3, 8, START_MS, LANE_KEY, b"\xff\xff")}

    monkeypatch.setattr("streams.reading.newest", rows)
    told = CliRunner().invoke(app, ["lanes", "show", *as_json])
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert "the row of lane 3, at offset 8 of state-changelog, cannot be read" in told.stderr


def test_a_report_that_cannot_be_read_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ExperimentReport(
        experiment="warmth",
        number=1,
        status="running",
        time_ms=1,
        primary="ctr",
        verdict="",
        split_p_value=1.0,
        crossed_users=0,
        arms=(ArmReport(arm="a", users=1, metrics={"ctr": 0.1}),),
    )

    async def reports(*_: object, **__: object) -> AsyncIterator[list[Record]]:
        values = {b"warmth": encode_report(report), b"colour": b"{", b"shape": b'{"x":' + 5_000 * b"["}
        yield [Record("experiment-reports", 0, at, START_MS, *each) for at, each in enumerate(values.items())]

    monkeypatch.setattr("streams.reading.read_topic", reports)
    told = CliRunner().invoke(app, ["experiment", "report", "warmth", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["experiment"] == "warmth"
    assert "the report of 'colour' at offset 1 cannot be read" in told.stderr
    assert "the report of 'shape' at offset 2 cannot be read" in told.stderr


def test_what_no_command_expects_of_a_record_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: object) -> object:
        return msgspec.json.decode(b"{}", type=Ad)

    monkeypatch.setattr("streams.reading.newest", failing)
    told = CliRunner().invoke(app, ["lanes", "show", "--json"])
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert "what was read is no message of ours: Object missing required field" in json.loads(told.stdout)["error"]


def test_reviews_that_are_not_there_are_told_to_machines_too(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["reviews", "evaluate", "--data", str(tmp_path), "--json"])
    assert told.exit_code == 1, told.output
    assert str(tmp_path) in json.loads(told.stdout)["error"]


@pytest.mark.parametrize("command", ["lag serve", "reviews follow", "doctor --json"])
def test_a_file_of_the_token_that_is_not_there_is_no_port_that_is_taken(command: str) -> None:
    told = CliRunner().invoke(app, command.split(), env={"SALIENCE_WEB_TOKEN_FILE": "no-such-file"})
    assert told.exit_code == 2, told.output
    assert isinstance(told.exception, SystemExit)
    assert "SALIENCE_WEB_TOKEN_FILE=no-such-file is no file" in told.stderr


@pytest.mark.parametrize("command", ["worker", "console", "lag serve", "reviews follow"])
@pytest.mark.parametrize(
    ("option", "said"), [("", "no-such-file is no file"), ("--nosuch", "No such option: --nosuch")]
)
def test_under_log_json_why_a_command_ends_is_a_line_of_the_log(command: str, option: str, said: str) -> None:
    asked = [*command.split(), "--log-json", *option.split()]
    told = CliRunner().invoke(app, asked, env={"SALIENCE_WEB_TOKEN_FILE": "no-such-file"})
    assert (told.exit_code, told.stdout) == (2, "")
    (line,) = map(json.loads, told.stderr.splitlines())
    assert said in line["event"]
    assert line["level"] == "error"
    assert line["timestamp"].endswith("Z")


def test_a_port_that_is_taken_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log_lines.configure_logging", lambda **_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = CliRunner().invoke(app, ["lag", "serve", "--port", str(port), "--bootstrap", NOBODY])
    assert told.exit_code == 1
    assert isinstance(told.exception, SystemExit)
    assert f"cannot listen on 127.0.0.1:{port}" in told.stderr
    assert "Another one: --port 0" in told.stderr


@pytest.mark.parametrize("command", ["experiment list", "lanes show", "console"])
def test_what_makes_a_topic_that_is_missing_is_told_with_its_prefix(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("reading", "topic_admin"):  # first who takes it from the other
        monkeypatch.setattr(f"streams.{module}.partition_counts", lambda *_: {})
    monkeypatch.setattr("streams.log_lines.configure_logging", lambda **_: None)

    told = CliRunner().invoke(app, [*command.split(), "--bootstrap", NOBODY, "--prefix", "shop-"])

    assert told.exit_code == 1
    assert f"salience topics create --bootstrap {NOBODY} --prefix shop-" in told.output


def test_a_view_of_a_topic_that_is_missing_names_its_prefix_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = SimpleNamespace(start=AsyncMock(), stop=AsyncMock(), topics=AsyncMock(return_value=set()))
    monkeypatch.setattr("streams.client.AIOKafkaConsumer", lambda **_: asks)

    with pytest.raises(ViewError, match=f"salience topics create --bootstrap {NOBODY} --prefix shop-;"):
        asyncio.run(require_topic("shop-placements", {"bootstrap_servers": NOBODY}))


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train kuairand", "--data"),
        ("train demo", "--out"),
        ("evaluate kuairand", "--data"),
        ("replay kuairand", "--data"),
        ("reviews evaluate", "--data"),
        ("export-log", "--out"),
    ],
)
def test_a_folder_must_be_named_be_no_file_and_where_it_is_read_be_there(
    command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.touch()
    wrong = ["", str(file), *([str(tmp_path / "missing")] if option == "--data" else [])]
    said = [CliRunner().invoke(app, [*command.split(), option, name], env={"COLUMNS": "200"}) for name in wrong]
    assert [each.exit_code for each in said] == [2] * len(wrong)
    assert "'' is no folder" in said[0].stderr
    assert "is a file; expected a folder" in said[1].stderr
    assert all("does not exist" in each.stderr for each in said[2:])
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", [["erase"], ["consent", "--refused"]])
def test_a_person_whom_no_event_could_name_is_not_asked_for(command: list[str]) -> None:
    result = CliRunner().invoke(app, ["privacy", *command, "a\nb", "--bootstrap", NOBODY])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "control character" in result.stderr


@pytest.mark.parametrize("command", [["erase"], ["consent", "--refused"], ["export"], ["prove"]])
def test_nobody_is_asked_for_where_no_name_is_given(command: list[str]) -> None:
    result = CliRunner().invoke(app, ["privacy", *command, "", "--bootstrap", NOBODY])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "an unset variable gives none" in result.stderr


@pytest.mark.parametrize(
    "command", ["privacy erase", "privacy export", "privacy prove", "privacy consent --refused", "explain"]
)
def test_a_name_that_is_no_utf8_is_a_wrong_call_before_any_broker_is_asked(command: str) -> None:
    told = CliRunner().invoke(app, [*command.split(), "a\udcff", "--bootstrap", NOBODY, "--json"])
    assert (told.exit_code, type(told.exception)) == (2, SystemExit)
    assert "'a\\udcff' is not UTF-8" in json.loads(told.stdout)["error"]


def test_records_whose_key_is_no_utf8_are_followed_by_their_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async def records(*asked: Any) -> AsyncIterator[Record]:
        *_, waits, tell = asked
        tell(waits)
        for key in (b"a\xff", b"a"):
            yield Record("clicks", 0, 0, START_MS, key, b"{}")

    monkeypatch.setattr("streams.cli.tail._records", records)
    told = CliRunner().invoke(app, ["tail", "clicks", "--user", "a\udcff", "--json"])
    assert told.exit_code == 0, told.output
    assert [json.loads(line)["key"] for line in told.stdout.splitlines()] == [r"a\xff"]
    assert r"waits for records of clicks with key a\xff" in told.stderr


@pytest.mark.parametrize("asked", ["--hours inf", "--hours nan", "--users 100000000000000"])
@pytest.mark.parametrize("command", ["train demo", "evaluate demo"])
def test_a_demo_that_would_never_end_is_a_wrong_call(command: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("streams.demo.shop.simulate_log")
    told = CliRunner().invoke(app, [*command.split(), *asked.split()], env={"COLUMNS": "200"})
    assert told.exit_code == 2
    assert "should be less than or equal to" in told.stderr


def test_dashboards_that_cannot_be_written_are_told_in_words() -> None:
    told = CliRunner().invoke(app, ["metrics", "--dashboards", "/proc"])
    assert (told.exit_code, type(told.exception)) == (1, SystemExit)
    assert "dashboards cannot be written: " in told.stderr
    assert "/proc/" in told.stderr


def test_people_alone_are_told_where_no_machine_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_admin, "ANSWER_S", 0.2)
    result = CliRunner().invoke(app, ["model", "list", "--bootstrap", NOBODY])
    assert result.exit_code == 1
    assert not result.stdout
    assert result.stderr.startswith("Error: No Kafka broker answers")


@pytest.mark.parametrize(
    ("setting", "value"), [("SALIENCE_SECURITY_PROTOCOL", "CARRIER_PIGEON"), ("SALIENCE_SLOTS", "-1")]
)
def test_a_wrong_setting_ends_the_command_as_a_wrong_call_does(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, value)
    result = CliRunner().invoke(app, ["model", "list", "--json"])
    assert result.exit_code == 2
    assert setting in json.loads(result.stdout)["error"]
    assert setting in result.stderr


@pytest.mark.parametrize("closed", [False, True])
def test_a_command_whose_error_cannot_be_written_ends_with_its_status_nevertheless(closed: bool) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("a system without /dev/full")
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)  # type: ignore[type-var]  # unbuffered
    if closed:
        full.close()
    with contextlib.closing(full), contextlib.redirect_stderr(full), pytest.raises(SystemExit) as ended:
        app(["report", "--since", "yesterday"])
    assert ended.value.code == 2


def test_a_worker_with_a_wrong_setting_ends_with_the_status_that_its_help_and_the_runbook_tell() -> None:
    for asked, environment in ((["--guarantee", "some"], {}), ([], {"SALIENCE_SLOTS": "-1"})):
        assert CliRunner().invoke(app, ["worker", *asked], env=environment).exit_code == 2
    told = CliRunner().invoke(app, ["worker", "--help"], env={"COLUMNS": "400"}).output
    runbook = (Path(__file__).parents[2] / "deploy" / "OPERATIONS.md").read_text()
    for text in (told, runbook):
        assert "2: a setting or an option is wrong; both say why" in " ".join(text.split())


@pytest.mark.parametrize("command", ["tail clicks", "topics check", "topics create", "topics acls", "model list"])
@pytest.mark.parametrize("brokers", ["::::", "127.0.0.1:99999"])
def test_brokers_that_nobody_could_reach_are_a_wrong_call_before_any_is_asked(command: str, brokers: str) -> None:
    for options, variable in ((["--bootstrap", brokers], None), ([], brokers)):
        asked = [*command.split(), "--json", *options]
        told = CliRunner().invoke(app, asked, env={"SALIENCE_BOOTSTRAP": variable})
        assert told.exit_code == 2, told.output
        assert isinstance(told.exception, SystemExit)
        assert "expected host:port, comma-separated" in json.loads(told.stdout)["error"]


@pytest.mark.parametrize(
    ("command", "at"), [("settings", "streams.cli.lag"), ("lag", "streams.lag.monitor"), ("lag", "no.module")]
)
def test_ctrl_c_while_a_command_is_being_loaded_ends_it_without_a_word(command: str, at: str) -> None:
    interrupted = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {at!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"if {at!r} == 'no.module':\n"
        "    def interrupt(*_): raise KeyboardInterrupt\n"
        "    import typer.main; typer.main.get_command = interrupt\n"
        f"sys.argv = ['salience', {command!r}]\n"
        "runpy.run_module('streams.cli', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("asked", ["settings", "settings --json", "topics acls --json"])
def test_a_full_disk_under_stdout_is_told_without_a_traceback(asked: str) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "streams.cli", *asked.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.decode() == "Error: what was to be printed could not be written: No space left on device\n"


@pytest.mark.parametrize("asked", ["settings --json", "settings --markdown", "asyncapi", "metrics"])
def test_who_has_closed_stdout_is_told_nothing(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it under >&-
    with pytest.raises(SystemExit) as ended:
        app(asked.split())
    assert ended.value.code == 0
