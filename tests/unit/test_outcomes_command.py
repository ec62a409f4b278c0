"""``salience outcomes``: how good the chances of the newest impressions were."""

import json
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner

from streams import reading
from streams.cli import app
from streams.wire import Outcome, encode_json
from tests.builders import Record

WINDOW_MS = 10_000


def _outcome(at: int, known_ms: int, clicked: bool) -> bytes:
    told = Outcome(
        event=f"{at:016x}", ad_id="a", shown_ms=at, known_ms=known_ms, ends_ms=at + WINDOW_MS, predicted=0.25,
        attention=0.5, clicked=clicked, arm="engine", model="m",
    )  # fmt: skip
    return encode_json(told)


def test_the_newest_outcomes_are_those_shown_last_and_not_those_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in four is clicked, and each click is told minutes before the non-clicks that were shown with it."""
    clicked = {at: at % 4 == 0 for at in range(1, 401)}
    told = [_outcome(at, at + (1 if click else WINDOW_MS), click) for at, click in clicked.items()]
    early = [value for value, click in zip(told, clicked.values(), strict=True) if click]
    late = [value for value, click in zip(told, clicked.values(), strict=True) if not click]
    late.append(_outcome(401, 20_401, False))  # by now it is known of all before it

    async def read(*_: object, **__: object) -> AsyncIterator[list[Record]]:
        values = [_outcome(0, 0, False), *early, *late]
        yield [Record("outcomes", 0, at, 0, None, value) for at, value in enumerate(values)]

    monkeypatch.setattr(reading, "read_topic", read)
    said = CliRunner().invoke(app, ["outcomes", "--latest", "200", "--json"])
    assert said.exit_code == 0, said.output
    by_layer, by_attention = json.loads(said.stdout)["outcomes"]
    assert (by_layer["outcomes"], by_layer["calibration"]) == (200, pytest.approx(1.0, abs=0.03))
    assert by_attention["calibration"] == pytest.approx(2.0, abs=0.06)
