"""A model removed while others push models and give roles: nobody has one that is not there and is not told."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers import Broker
from scoring.manifest import ModelError
from streams import topic_admin
from streams.control import publish, read_control
from streams.control_wire import PushedModel
from streams.models import desk, store
from streams.models.roles import RolesError, roles_told, with_canary
from streams.models.store import fetch
from streams.reading import read_topic
from streams.settings import Settings
from tests.builders import START_MS
from tests.integration.lanes import DEADLINE_S, Shop, play, shop_on
from tests.integration.test_experiments import salience
from tests.integration.test_models import push_unseen
from tests.models import toy_model

pytestmark = pytest.mark.integration

Act = Callable[[], Awaitable[object]]


@pytest.fixture
def shop(kafka: Broker, topic_prefix: str, tmp_path: Path) -> Shop:
    return shop_on(kafka, topic_prefix, tmp_path / "home", "at_least_once")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_model(tmp_path / "model")


@pytest.fixture
def namesake(model: Path, tmp_path: Path) -> Path:
    """A model of the same files."""
    folder = shutil.copytree(model, tmp_path / "namesake")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"name": "namesake"}))
    return folder


def before_first(monkeypatch: pytest.MonkeyPatch, call: str, act: Act) -> None:
    """Let somebody else act before the desk's first ``call``."""
    original, acts = getattr(desk, call), [act]

    async def preceded(*arguments: Any) -> Any:
        if acts:
            await acts.pop()()
        return await original(*arguments)

    monkeypatch.setattr(desk, call, preceded)


async def pushed(shop: Shop, version: str) -> PushedModel | None:
    return (await read_control(shop.settings)).get(PushedModel, version)


async def give_role(shop: Shop, version: str) -> None:
    roles = roles_told(await read_control(shop.settings))
    await publish(shop.settings, [with_canary(roles, version, 0.1, START_MS)])


def test_a_model_that_is_given_a_role_while_it_is_removed_stays(
    shop: Shop, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        version = await push_unseen(shop, model)
        there = await pushed(shop, version)
        before_first(monkeypatch, "publish", lambda: give_role(shop, version))
        with pytest.raises(RolesError, match=f"{version} is canary"):
            await desk.remove(shop.settings, version)
        assert there is not None
        assert await pushed(shop, version) == there
        await fetch(shop.settings, there, tmp_path)

    play(scenario)


def test_who_gives_a_role_to_a_model_that_was_just_removed_is_told(
    shop: Shop, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        version = await push_unseen(shop, model)

        def overtaken(*arguments: Any) -> Any:
            asyncio.run(desk.remove(shop.settings, version))
            return with_canary(*arguments)

        monkeypatch.setattr("streams.models.roles.with_canary", overtaken)
        told = await salience(shop, "model", "canary", version, "--json", fails=True)
        assert f"{version} was removed meanwhile" in told["error"]

    play(scenario)


def test_a_model_that_is_pushed_while_one_of_the_same_files_is_removed_keeps_them(
    shop: Shop, model: Path, namesake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        version = await push_unseen(shop, model)
        before_first(monkeypatch, "publish", lambda: push_unseen(shop, namesake))
        await desk.remove(shop.settings, version)
        (there,) = (await read_control(shop.settings)).all(PushedModel).values()
        assert there.model.startswith("namesake")
        await fetch(shop.settings, there, tmp_path)

    play(scenario)


def test_who_removes_the_files_of_a_model_that_was_just_pushed_is_told_which(
    shop: Shop, model: Path, namesake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        version = await push_unseen(shop, model)
        before_first(monkeypatch, "send", lambda: push_unseen(shop, namesake))
        with pytest.raises(RolesError, match=r"namesake-[0-9a-f]{8} was pushed meanwhile.* push it again"):
            await desk.remove(shop.settings, version)

    play(scenario)


def test_who_pushes_a_model_whose_files_are_just_removed_is_told(
    shop: Shop, model: Path, namesake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        version = await push_unseen(shop, model)
        remove = desk.remove
        before_first(monkeypatch, "publish", lambda: remove(shop.settings, version))
        with pytest.raises(ModelError, match="push it again"):
            await desk.push(shop.settings, namesake)

    play(scenario)


def test_files_that_are_delivered_are_sent_though_the_broker_answers_no_farewell(
    embedded: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic_admin.create(embedded.bootstrap, 1, prefix=topic_prefix)
    settings = Settings(bootstrap=embedded.bootstrap, topic_prefix=topic_prefix, guarantee="at_least_once")
    stop = AIOKafkaProducer.stop

    async def unanswered(producer: AIOKafkaProducer) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await stop(producer)

    async def scenario() -> list[bytes | None]:
        monkeypatch.setattr(AIOKafkaProducer, "stop", unanswered)
        async with asyncio.timeout(DEADLINE_S):
            await store.send(settings, dict.fromkeys((b"a/0", b"b/0"), b"part"))
        return [
            each.key async for records in read_topic(settings.bootstrap, f"{topic_prefix}models") for each in records
        ]

    monkeypatch.setattr("streams.leaving.FAREWELL_S", 0.1)
    assert asyncio.run(scenario()) == [b"a/0", b"b/0"]
