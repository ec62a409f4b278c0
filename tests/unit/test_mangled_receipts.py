"""A receipt that is none: told by the field that is wrong, not by where recomputing it fails."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from scoring.assignment import Arm, Experiment
from scoring.attention import AttentionModel
from scoring.engine import Engine
from streams.cli import app
from streams.explain import recompute
from streams.receipts import check_receipt
from streams.wire import Decision
from tests.unit.test_explain import decisions, engine_of

NAN = float("nan")


def shorter(array: bytes) -> bytes:
    return array[:-4]


@pytest.mark.parametrize(
    ("field", "mangled"),
    [
        ("seed", lambda _: -1),
        ("seed", lambda _: 2**64),
        ("versions", lambda _: {}),
        ("policy", lambda _: {}),
        ("policy", lambda policy: policy | {"slots": 1e300}),
        ("policy", lambda policy: policy | {"slots": 0}),
        ("policy", lambda policy: policy | {"placement_ttl_ms": NAN}),
        ("policy", lambda policy: policy | {"placement_ttl_ms": 2.0**64}),
        ("candidates", lambda _: b""),
        ("weights", lambda weights: np.full(len(weights) // 8, NAN).tobytes()),
        ("row", lambda _: b""),
        ("row", shorter),
        ("candidates", shorter),
        ("revisions", shorter),
        ("bids_micros", shorter),
        ("pctr", shorter),
        ("lifts", shorter),
        ("worth", lambda _: bytes(4)),
        ("fates", lambda fates: fates + b"a"),
        ("evidence", lambda _: bytes(4)),
        ("examined", lambda _: bytes(4)),
        ("examined", lambda _: bytes(8)),
        ("pctr", lambda pctr: np.full(len(pctr) // 4, np.nan, dtype=np.float32).tobytes()),
        ("chosen", lambda chosen: (10**30, *chosen[1:])),
        ("chosen", lambda chosen: (5_000, *chosen[1:])),
        ("chosen", lambda chosen: (-1, *chosen[1:])),
        ("propensities", lambda chances: chances[:-1]),
        ("propensities", lambda chances: (0.0, *chances[1:])),
        ("propensities", lambda chances: (1.5, *chances[1:])),
        ("propensities", lambda chances: (NAN, *chances[1:])),
    ],
)
def test_a_mangled_receipt_is_told_by_the_field_that_is_wrong(
    model: AttentionModel, field: str, mangled: Callable[[Any], Any]
) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    bad = msgspec.structs.replace(decision, **{field: mangled(getattr(decision, field))})
    with pytest.raises(ValueError, match=f"^{field}.* expected|^{field} (has|lacks)|^policy's"):
        recompute(bad, engine)


def test_a_receipt_of_a_former_layout_has_a_row_too(model: AttentionModel) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    former = msgspec.structs.replace(decision, versions=decision.versions | {"layout": "1"})
    check_receipt(msgspec.structs.replace(former, row=shorter(former.row)))  # its rows had another length
    with pytest.raises(ValueError, match=r"^row has 0 bytes"):
        recompute(msgspec.structs.replace(former, row=b""), engine)


def test_what_is_found_to_be_no_receipt_only_as_it_is_recomputed_ends_the_command_in_words(
    model: AttentionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(model)
    decision = decisions(engine)[0]
    bad = msgspec.structs.replace(decision, weights=np.full(len(decision.weights) // 8, NAN).tobytes())

    async def found(*_: object, **__: object) -> Decision:
        return bad

    async def at_hand(*_: object) -> Engine:
        return engine

    monkeypatch.setattr("streams.receipt_search.find_receipt", found)
    monkeypatch.setattr("streams.cli.explain._engine", at_hand)
    told = CliRunner().invoke(app, ["explain", bad.placement_id, "--json"])
    assert (told.exit_code, type(told.exception)) == (1, SystemExit), told.exception
    assert json.loads(told.stdout)["error"] == (
        f"What is on decisions for {bad.placement_id!r} is no receipt of this version: "
        "weights has numbers that are not finite"
    )


def test_a_mangled_second_ranking_is_told_by_its_field(model: AttentionModel) -> None:
    engine = engine_of(model)
    arms = (Arm("as-is", 0.5), Arm("cool", 0.5, {"temperature": 0.5}))
    engine.experiments.set(5, Experiment("turns", "ranking", 0, 1, 1, arms, interleaved=True))
    decision, whole = next((decision, decision.other) for decision in decisions(engine) if decision.other is not None)
    endless = msgspec.structs.replace(whole, weights=np.full(len(whole.weights) // 8, np.inf).tobytes())
    with pytest.raises(ValueError, match=r"^other\.weights has"):
        recompute(msgspec.structs.replace(decision, other=endless), engine)
    for field in ("pctr", "lifts", "weights"):
        other = msgspec.structs.replace(whole, **{field: shorter(getattr(whole, field))})
        with pytest.raises(ValueError, match=rf"^other\.{field} has"):
            recompute(msgspec.structs.replace(decision, other=other), engine)
