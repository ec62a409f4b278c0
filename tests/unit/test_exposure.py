"""`scoring.exposure`: a batch's impressions as the model is to see them, turn by turn of their users."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring import exposure
from scoring.arrays import Ints
from scoring.attention import load
from scoring.catalogue import Catalogue
from scoring.cleaning import Rules
from scoring.engine import Engine
from scoring.events import Events, Outcome, Source
from scoring.exposure import apply_and_score
from scoring.gathering import gather
from scoring.ids import id64
from scoring.impressions import Impressions
from scoring.models import Roles
from scoring.rates import RateTable
from scoring.rows import Rows, RowStore
from scoring.update import Turn, take
from streams.logs import Event
from tests.builders import START_MS, click, columns_of, impression, made_up_log
from tests.models import gives_fewer, toy_model
from tests.unit.slices import step_of
from tests.unit.test_models import engine_of, toy


def exposed(store: RowStore, events: Events, engine: Engine) -> Impressions:
    users = np.array([id64(store.users[row] or b"") for row in events["row"].tolist()], dtype=np.uint64)
    rates = RateTable()
    rates.follow(engine.catalogue)
    return apply_and_score(store, events, users, engine.models, Rules(), engine.scorers, rates).impressions


def test_every_impression_is_scored_from_its_users_row_strictly_before_it() -> None:
    events = made_up_log(seed=6, events=300, users=3).events
    engine, one_by_one, together = step_of().engine, RowStore(), RowStore()
    columns = columns_of(one_by_one, events)
    columns_of(together, events)
    whole = exposed(together, columns, engine)
    single = [exposed(one_by_one, columns[at : at + 1], engine) for at in range(len(columns))]
    assert np.concatenate([each.logit for each in single]) == pytest.approx(whole.logit, abs=1e-5)
    close = np.concatenate([each.closeness for each in single])
    assert close == pytest.approx(whole.closeness, abs=1e-5, nan_ok=True)
    assert np.isnan(close[:3]).any()  # nothing has drawn anybody yet
    assert np.nanstd(close) > 0.1
    assert (columns["source"][whole.place] == Source.IMPRESSION).all()


def test_a_batch_takes_as_many_turns_as_its_busiest_user_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []

    def counted(rows: Rows, turn: Turn, catalogue: Catalogue) -> Ints:
        turns.append(len(turn.events))
        return take(rows, turn, catalogue)

    monkeypatch.setattr(exposure, "take", counted)
    store, offset = RowStore(), 0

    def taken(told: list[Event]) -> list[int]:
        nonlocal offset
        turns.clear()
        columns = columns_of(store, told)
        columns["offset"] += offset
        offset += len(told)
        exposed(store, columns, step_of().engine)
        return list(turns)

    assert taken([impression("u1"), click("u2"), impression("u3"), click("u3")]) == [4]
    assert taken([click("u4"), impression("u4"), impression("u1", "ad-2", START_MS + 1)]) == [2, 1]
    assert taken([impression("u5", f"ad-{n}") for n in range(9)]) == [9]  # one screen
    assert taken([impression("u5", f"ad-{n}") for n in range(9)] + [click("u6")]) == [1]  # what is known takes none


def test_what_the_model_sees_of_a_batch_is_gathered_of_all_turns_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[int] = []

    def counted(shop: Catalogue, rows: Rows, *rest: Any) -> Any:
        gathered.append(len(rows))
        return gather(shop, rows, *rest)

    monkeypatch.setattr(exposure, "gather", counted)
    store, count = RowStore(), exposure.PEOPLE_PER_RUN + 6
    seen = [impression("u1", f"ad-{n % 20}", START_MS + 3_000 * n) for n in range(count)]  # a screen each
    assert len(exposed(store, columns_of(store, seen), step_of().engine).logit) == count
    assert gathered == [exposure.PEOPLE_PER_RUN, 6]


def test_a_repeated_impression_is_scored_and_learned_once() -> None:
    events = made_up_log(seed=6, events=60, users=2).events
    engine, store = step_of().engine, RowStore()
    columns = columns_of(store, [*events[:5], events[0], *events[5:]])
    columns["offset"] = np.arange(len(columns))
    scored = exposed(store, columns, engine)
    assert 5 not in scored.place
    assert len(scored.place) == int((columns["source"] == Source.IMPRESSION).sum()) - 1


def test_what_is_shown_of_an_ad_that_the_catalogue_does_not_know_is_applied_and_neither_scored_nor_counted() -> None:
    engine, store, rates = step_of().engine, RowStore(), RateTable()
    rates.follow(engine.catalogue)
    shown = [impression("u1", "nobody's", START_MS), impression("u1", "ad-3", START_MS + 5_000)]
    acted = click("u1", "nobody's", START_MS + 9_000, impression_time_ms=START_MS)
    columns = columns_of(store, [*shown, acted, acted])
    columns["offset"], columns["surface"], columns["slot"] = np.arange(4), 1, 0
    users = np.ones(4, dtype=np.uint64)

    found = apply_and_score(store, columns, users, engine.models, Rules(), engine.scorers, rates)

    assert found.impressions.place.tolist() == [1]
    assert found.counts.tolist() == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert rates.total.tolist() == [1, 0]
    assert found.applied.outcome.tolist() == [Outcome.APPLIED] * 3 + [Outcome.DUPLICATE]
    assert found.applied.unknown_ads == 2  # not the click that came again
    assert store.rows[0]["impressions"] == 2


@pytest.mark.parametrize("pieces", [1, 2, 6])
def test_who_clicks_an_impression_three_times_and_buys_from_it_has_clicked_it_once(pieces: int) -> None:
    engine, store, rates = step_of().engine, RowStore(), RateTable()
    rates.follow(engine.catalogue)
    shown = [impression("u1", "ad-3", START_MS), impression("u1", "ad-3", START_MS + 60_000)]
    answer = dict.fromkeys(["impression_time_ms"], START_MS)
    clicks = [click("u1", "ad-3", START_MS + 61_000 + n, event_id=f"c{n}", **answer) for n in range(3)]
    bought = click("u1", "ad-3", START_MS + 70_000, kind="purchase", **answer)
    columns = columns_of(store, [*shown, *clicks, bought])
    columns["offset"], columns["surface"], columns["slot"] = np.arange(6), 1, 0
    counts = []
    for piece in np.array_split(columns, pieces):
        users = np.ones(len(piece), dtype=np.uint64)
        found = apply_and_score(store, piece, users, engine.models, Rules(), engine.scorers, rates)
        counts += found.counts.tolist()
    assert counts == [[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]]
    assert rates.total.tolist() == [2, 1]
    assert (store.rows[0]["clicks"], store.rows[0]["answered_clicks"]) == (3, 1)


def test_of_nothing_that_happened_nothing_is_scored() -> None:
    engine, store = step_of().engine, RowStore()
    nothing = exposed(store, columns_of(store, []), engine)
    assert (len(nothing.place), len(nothing.logit), nothing.shadow) == (0, 0, 0)


def test_what_a_model_failed_to_score_teaches_the_one_that_answers_instead_nothing(tmp_path: Path) -> None:
    old, bad = toy(tmp_path, 0), load(toy_model(tmp_path / "bad", graphs=partial(gives_fewer, output="logit")))
    engine, store = engine_of(old, bad), RowStore()
    engine.models.play(Roles(live=bad.version, former=(old.version,)))
    columns = columns_of(store, made_up_log(seed=6, events=60).events)
    failed = exposed(store, columns, engine)
    assert engine.models.live.version == old.version
    assert failed.model is not None
    assert failed.known is not None
    assert failed.model.tolist() == [engine.models.live.number] * len(failed.place)
    assert (failed.known.all(), failed.logit.any()) == (True, False)
