"""``salience outcomes``: how good the chances of the newest impressions were."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from scoring.catalogue import Catalogue
from scoring.feedback import OUTCOME
from scoring.ids import id64
from streams import outcomes, reading
from streams.cli import app
from streams.wire import Outcome, encode_json
from tests.builders import Record, entry
from tests.unit.test_unreadable import BAD

WINDOW_MS = 10_000


def _outcome(at: int, known_ms: int, clicked: bool) -> bytes:
    told = Outcome(
        event=f"{at:016x}", ad_id="a", shown_ms=at, known_ms=known_ms, ends_ms=at + WINDOW_MS, predicted=0.25,
        attention=0.5, clicked=clicked, arm="engine", model="m",
    )  # fmt: skip
    return encode_json(told)


def _told(monkeypatch: pytest.MonkeyPatch, values: Sequence[bytes | None], *options: str) -> Result:
    async def read(*_: object, **__: object) -> AsyncIterator[list[Record]]:
        yield [Record("outcomes", 0, at, 0, None, value) for at, value in enumerate(values)]

    monkeypatch.setattr(reading, "read_topic", read)
    said = CliRunner().invoke(app, ["outcomes", *options])
    assert said.exit_code == 0, said.output
    return said


def _figures(said: Result) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(said.stdout)["outcomes"]
    return told


def test_a_message_names_its_ad_its_arm_and_its_models_and_of_an_unknown_ad_there_is_none() -> None:
    shop = Catalogue()
    shop.upsert([entry("ad-1")])
    rows = np.array(
        [
            (30, 10, 20, 171, id64("ad-1"), 0.25, 0.0, 1, 1, 3, 7, 8, 0.125),
            (30, 10, 20, 172, id64("gone"), 0.25, 0.0, 1, 1, 3, 7, 8, 0.125),
            (31, 11, 21, 173, id64("ad-1"), 0.5, 0.0, 0, 0, 3, 9, 0, 0.0),
        ],
        dtype=OUTCOME,
    )
    made = outcomes.encoded(rows, shop, {7: "m-live", 8: "m-shadow"})
    assert made == [
        encode_json(
            Outcome(
                event="00000000000000ab", ad_id="ad-1", shown_ms=10, known_ms=30, ends_ms=20, predicted=0.25,
                attention=0.5, clicked=True, arm="control", model="m-live", shadow="m-shadow", shadow_predicted=0.125,
            )
        ),
        encode_json(
            Outcome(
                event="00000000000000ad", ad_id="ad-1", shown_ms=11, known_ms=31, ends_ms=21, predicted=0.5,
                attention=0.5, clicked=False, arm="engine", model="",
            )
        ),
    ]  # fmt: skip


def test_the_newest_outcomes_are_those_shown_last_and_not_those_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in four is clicked, and each click is told minutes before the non-clicks that were shown with it."""
    clicked = {at: at % 4 == 0 for at in range(1, 401)}
    told = [_outcome(at, at + (1 if click else WINDOW_MS), click) for at, click in clicked.items()]
    early = [value for value, click in zip(told, clicked.values(), strict=True) if click]
    late = [value for value, click in zip(told, clicked.values(), strict=True) if not click]
    late.append(_outcome(401, 20_401, False))  # by now it is known of all before it

    values = [_outcome(0, 0, False), *early, *late]
    by_layer, by_attention = _figures(_told(monkeypatch, values, "--latest", "200", "--json"))
    assert (by_layer["outcomes"], by_layer["calibration"]) == (200, pytest.approx(1.0, abs=0.03))
    assert by_attention["calibration"] == pytest.approx(0.5, abs=0.02)


def _all(clicked: bool) -> list[bytes]:
    """Outcomes of 41 impressions, alike, told as their windows ended."""
    return [_outcome(0, 0, clicked)] + [_outcome(at, at + WINDOW_MS, clicked) for at in range(1, 41)]


NO_TIME = _outcome(7, 8, False).replace(b'"shown_ms":7', b'"shown_ms":%d' % 2**64)


@pytest.mark.parametrize("bad", [*BAD.values(), b'{"event":"0"}', NO_TIME, None])
def test_a_record_that_tells_of_no_impression_is_counted_and_left_out(
    monkeypatch: pytest.MonkeyPatch, bad: bytes | None
) -> None:
    said = _told(monkeypatch, [bad, *_all(False), bad], "--json")
    assert _figures(said)[0]["outcomes"] == 41
    assert "2 records on outcomes are unreadable and left out" in said.stderr


@pytest.mark.parametrize(("clicked", "calibration"), [(False, 0.0), (True, 4.0)])
def test_where_all_came_to_the_same_nothing_is_made_up(
    monkeypatch: pytest.MonkeyPatch, clicked: bool, calibration: float
) -> None:
    by_layer, _ = _figures(_told(monkeypatch, _all(clicked), "--json"))
    assert (by_layer["outcomes"], by_layer["auc"], by_layer["calibration"]) == (41, None, calibration)
    assert by_layer["log_loss"] > 0
    assert "unknown" in _told(monkeypatch, _all(clicked)).stdout


@pytest.mark.parametrize("options", [["--json"], ["--json", "--latest", "30"]])
def test_it_holds_so_many_of_a_model_and_arm_and_says_so(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setattr(outcomes, "KEPT_MAX", 20)
    said = _told(monkeypatch, _all(False), *options)
    assert _figures(said)[0]["outcomes"] == 20
    assert "The newest 20 outcomes of each model and arm alone: no more are held, and --latest asks for" in said.stderr
    assert _told(monkeypatch, _all(False), "--json", "--latest", "20").stderr == ""


@given(st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=20), st.integers(1, 12))
def test_of_batches_in_any_order_those_shown_last_are_kept_and_little_more_is_held(
    batches: list[list[int]], most: int
) -> None:
    newest = outcomes.Newest(most)
    for batch in batches:
        rows = np.zeros(len(batch), dtype=outcomes.JUDGED)
        rows["shown_ms"] = batch
        newest.take(rows)
        assert newest.nbytes <= 2 * (most + 9) * outcomes.JUDGED.itemsize
    everything = sorted(at for batch in batches for at in batch)
    assert newest.rows()["shown_ms"].tolist() == everything[-most:]
    assert newest.more == (len(everything) > most)
