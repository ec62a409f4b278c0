"""How commands fail: in words, for people and for machines, and never with a traceback."""

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from typer.testing import CliRunner

from streams import topic_admin
from streams.cli import app
from streams.client import ViewError, require_topic

NOBODY = "127.0.0.1:1"
ASKING = (
    "campaigns",
    "dead-letters list",
    "experiment list",
    "experiment start warmth",
    "experiment stop warmth",
    "explain some-placement",
    "lanes show",
    "model list",
    "model promote demo-1a2b3c4d",
    "model rollback",
    "outcomes",
    "privacy erase somebody",
    "privacy export somebody",
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


@pytest.mark.parametrize("command", ["experiment list", "lanes show", "console"])
def test_what_makes_a_topic_that_is_missing_is_told_with_its_prefix(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("reading", "topic_admin"):  # first who takes it from the other
        monkeypatch.setattr(f"streams.{module}.partition_counts", lambda *_: {})
    monkeypatch.setattr("streams.running.configure_logging", lambda **_: None)

    told = CliRunner().invoke(app, [*command.split(), "--bootstrap", NOBODY, "--prefix", "shop-"])

    assert told.exit_code == 1
    assert f"salience topics create --bootstrap {NOBODY} --prefix shop-" in told.output


def test_a_view_of_a_topic_that_is_missing_names_its_prefix_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = SimpleNamespace(start=AsyncMock(), stop=AsyncMock(), topics=AsyncMock(return_value=set()))
    monkeypatch.setattr("streams.client.AIOKafkaConsumer", lambda **_: asks)

    with pytest.raises(ViewError, match=f"salience topics create --bootstrap {NOBODY} --prefix shop-;"):
        asyncio.run(require_topic("shop-placements", {"bootstrap_servers": NOBODY}))


@pytest.mark.parametrize("command", [["erase"], ["consent", "--refused"]])
def test_a_person_whom_no_event_could_name_is_not_asked_for(command: list[str]) -> None:
    result = CliRunner().invoke(app, ["privacy", *command, "a\nb", "--bootstrap", NOBODY])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "control character" in result.stderr


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
