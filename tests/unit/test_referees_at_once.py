"""Two referees at once: a file is one's alone."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.experiments.referee import Referee
from streams.experiments.store import StoreError, alone, load
from tests.unit.test_referee_service import RUNNING, Shop


def test_a_second_referee_of_one_file_is_refused_and_takes_nothing_from_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shop = Shop([], monkeypatch, tmp_path)

    with alone(shop.service.file), pytest.raises(StoreError, match=r"another referee is at .*: end that one first"):
        asyncio.run(shop.service.run(follow=False))
    assert (shop.published, shop.reported) == ([], [])

    asyncio.run(shop.service.run(follow=False))  # that one has ended
    load(shop.service.file, referee := Referee())
    assert list(referee.watched) == [RUNNING.number]


def test_the_command_says_that_another_referee_is_at_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop = Shop([], monkeypatch, tmp_path)
    environment = {"SALIENCE_HOME": str(tmp_path), "COLUMNS": "400"}

    with alone(shop.service.file):
        told = CliRunner().invoke(app, ["experiment", "referee", "--once"], env=environment)

    assert (told.exit_code, f"another referee is at {shop.service.file}" in told.output) == (1, True)
