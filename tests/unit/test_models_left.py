"""Files on ``models`` that no model names: who ended half-way has left them, and who removes a model removes them."""

import asyncio
from pathlib import Path
from threading import Thread

import pytest

from scoring.manifest import ModelError
from streams.control_wire import ModelRoles
from streams.models import desk, store
from streams.models.roles import RolesError, with_canary
from streams.models.store import LEFT_AFTER_S, chunk_key, pack
from tests.builders import START_MS
from tests.models import toy_model
from tests.unit.test_model_desk import SETTINGS, Topics, in_memory, push, pushed, remove

NOW_MS = START_MS + 1_000 * LEFT_AFTER_S + 1
"""When all that the topic holds at first has been there for an hour."""


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    monkeypatch.setattr(desk, "wall_ms", lambda: NOW_MS)
    return in_memory(monkeypatch)


def broken_off() -> None:
    raise ConnectionError("no broker")


def test_a_removal_that_the_broker_broke_off_is_finished_by_the_next_try(topics: Topics, tmp_path: Path) -> None:
    there, kept = push(toy_model(tmp_path / "gone")), push(toy_model(tmp_path / "kept", seed=1))
    topics.before["send", 3] = broken_off
    with pytest.raises(ConnectionError):
        remove(there.model)
    assert pack(tmp_path / "gone").parts.keys() <= topics.models.keys()

    with pytest.raises(RolesError, match=rf"there is no model '{there.model}'.*\d parts of files that no model names"):
        remove(there.model)
    assert topics.models.keys() == pack(tmp_path / "kept").parts.keys()
    assert topics.whole(kept)
    with pytest.raises(RolesError, match=f"there are: {kept.model}$"):
        remove(there.model)


@pytest.mark.parametrize("sent_ms", [START_MS + 1, -1], ids=["lately", "at no time that is told"])
def test_who_removes_a_model_removes_what_a_push_has_left_and_spares_one_under_way(
    topics: Topics, tmp_path: Path, sent_ms: int
) -> None:
    there = push(toy_model(tmp_path / "gone"))
    left, coming = (pack(toy_model(tmp_path / name, seed=seed)).parts for seed, name in enumerate(["left", "new"], 1))
    foreign = {b"notes": b"somebody's", b"notes/1": b"somebody's", chunk_key("e" * 63, 0): b"somebody's"}
    topics.models |= {**left, **coming, **foreign}
    topics.sent_ms = dict.fromkeys(coming, sent_ms)
    remove(there.model)
    assert topics.models.keys() == {*coming, *foreign} - pack(tmp_path / "gone").parts.keys()


def test_who_removes_files_that_somebody_pushed_meanwhile_names_is_told(topics: Topics, tmp_path: Path) -> None:
    there, slow = push(toy_model(tmp_path / "gone")), toy_model(tmp_path / "slow", seed=1)
    push(toy_model(tmp_path / "kept", seed=2))  # it has a file of all three
    topics.models |= pack(slow).parts
    topics.before["send", 3] = lambda: topics.control.write([pushed(slow)])
    with pytest.raises(RolesError, match=f"{pushed(slow).model} was pushed meanwhile and lacks files"):
        remove(there.model)
    with pytest.raises(ModelError, match="is not on models"):
        asyncio.run(store.fetch(SETTINGS, pushed(slow), tmp_path))


def test_who_puts_a_model_back_whose_files_another_removal_took_meanwhile_is_told(
    topics: Topics, tmp_path: Path
) -> None:
    there, other = push(toy_model(tmp_path / "there")), push(toy_model(tmp_path / "other", seed=1))

    def meanwhile() -> None:
        topics.control.write([with_canary(ModelRoles(), there.model, 0.1, 1)])
        other_hand = Thread(target=remove, args=[other.model])
        other_hand.start()
        other_hand.join()

    topics.before["read_control", 6] = meanwhile
    with pytest.raises(RolesError, match=r"is canary.*files of it were removed meanwhile: push it again"):
        remove(there.model)
    assert topics.known() == {there.model: there}
    assert not topics.whole(there)
