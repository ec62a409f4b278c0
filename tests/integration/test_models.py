"""The life of a model through the command line, against workers that score a steady stream all the while."""

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.brokers import Broker
from scoring.attention import load
from scoring.engine import Engine
from scoring.manifest import read_manifest
from streams.app import make_engine
from streams.client import PlacementView
from streams.control import publish, read_control
from streams.control_wire import ModelRoles, ModelStatus, PushedModel
from streams.explain import recompute
from streams.feeds.catalogue import entry_of
from streams.models.roles import promoted, roles_told
from streams.models.store import pack, send
from streams.wire import Decision, Outcome, Placement, ShadowScore
from tests.builders import START_MS, click, impression
from tests.integration.lanes import ADS, Shop, play, shop_on
from tests.integration.test_experiments import salience
from tests.integration.workers import Worker, until
from tests.models import fails_in_use, toy_model

pytestmark = pytest.mark.integration

USERS = [f"user-{number}" for number in range(40)]
EASY = ("--outcomes-min", "200", "--clicks-min", "20", "--miscalibrated-max", "2", "--worse-max", "9")
"""What a toy can show within a test."""
PACE_S = 0.1
"""Pause between two rounds: all that is made of them must be read again at the end, and looked at one by one."""


class Stream:
    """Everybody is shown something, and one in four clicks, round after round a second apart."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.rounds = 0
        self._unplaced: set[str] = set()
        """Who waits for a placement of the last round."""
        self._go_on = asyncio.Event()

    @property
    def now_ms(self) -> int:
        """Time of the last round."""
        return START_MS + 1_000 * self.rounds

    async def round(self) -> int:
        """One more; its time."""
        self.rounds += 1
        self._unplaced |= {*USERS}
        self._go_on.clear()
        now_ms = self.now_ms
        shown = [impression(user, ADS[(at + self.rounds) % len(ADS)].ad_id, now_ms) for at, user in enumerate(USERS)]
        clicks = [
            click(each.user_id, each.ad_id, now_ms + 1, impression_time_ms=now_ms)
            for each in shown[self.rounds % 4 :: 4]
        ]
        await self._shop.publish_in_batches([*shown, *clicks])
        return now_ms

    def _take(self, placement: Placement) -> None:
        if placement.time_ms >= self.now_ms:
            self._unplaced.discard(placement.user_id)
        if not self._unplaced:
            self._go_on.set()

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Rounds without end, each when everybody has a placement of the one before, until the block ends."""
        ended, settings = False, self._shop.settings

        async def flow() -> None:
            while not ended:
                await self.round()
                await self._go_on.wait()
                await asyncio.sleep(PACE_S)

        async with PlacementView(settings.bootstrap, topic_prefix=settings.topic_prefix, on_placement=self._take):
            task = asyncio.create_task(flow())
            try:
                yield
            finally:
                ended = True  # and not cancelled: a producer in mid-start would be left open
                self._go_on.set()
                await task


async def all_of(shop: Shop, name: str, kind: Any) -> list[Any]:
    return [msgspec.json.decode(value, type=kind) for _, value in await shop.read(name) if value is not None]


async def scored_by(shop: Shop, version: str, *, alone: bool = False) -> None:
    """Wait until what is placed from now on is scored by a model, at times or always."""
    before = len(await shop.read("placements"))

    async def seen() -> bool:
        newest = (await all_of(shop, "placements", Placement))[before:][-len(USERS) :]
        models = {one.model for one in newest}
        return len(newest) == len(USERS) and (models == {version} if alone else version in models)

    await until(seen, f"placements by {version}")


async def told(shop: Shop, version: str, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """What `salience model list` tells of a model, once it tells what is waited for."""
    found: dict[str, Any] = {}

    async def tells() -> bool:
        listed = await salience(shop, "model", "list", "--json")
        found.update(next(one for one in listed["models"] if one["model"] == version))
        return holds(found)

    await until(tells, what)
    return found


def engine_of(shop: Shop, directory: Path) -> Engine:
    engine = make_engine(shop.settings, load(directory))
    engine.catalogue.upsert([entry_of(ad) for ad in ADS])
    return engine


async def push_unseen(shop: Shop, directory: Path) -> str:
    """Put a model on the topics without having looked at it, as somebody who means harm would."""
    packed = pack(directory)
    told = {"model": toy_version(directory), "manifest": packed.manifest, "bytes": packed.bytes}
    pushed = PushedModel(parity=0.0, score_ms=0.0, time_ms=START_MS, **told)  # type: ignore[arg-type]  # by name
    await send(shop.settings, packed.parts)
    await publish(shop.settings, [pushed])
    return pushed.model


def toy_version(directory: Path) -> str:
    return read_manifest(directory).version


def test_a_model_is_tried_promoted_and_taken_back_under_load_and_bad_ones_are_refused(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        folders = {
            load(folder).version: folder
            for folder in (toy_model(tmp_path / "old"), toy_model(tmp_path / "new", seed=1))
        }
        old, new = folders
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", model=folders[old], click_window_ms=3_000)
        await shop.publish(ADS)
        stream = Stream(shop)
        with Worker(shop, tmp_path / "worker.log") as worker:
            async with stream.flowing():
                await scored_by(shop, old, alone=True)
                pushed = await salience(shop, "model", "push", str(folders[new]), "--json")
                assert pushed["model"] == new
                assert "0 outcomes with 0 clicks" in await salience(shop, "model", "promote", new, fails=True)

                await salience(shop, "model", "shadow", new, "--share", "1")
                fares = await told(shop, new, lambda one: one["clicks"] >= 20 <= one["outcomes"] / 10, "outcomes")
                assert (fares["state"], fares["refusals"], fares["beside"]) == ("shadow", [], 0)  # too few to be known
                assert 0 < fares["mean_difference"] < fares["largest_difference"] < 1
                assert "were compared with what is live" in await salience(
                    shop, "model", "promote", new, *EASY, fails=True
                )
                await told(shop, new, lambda one: one["beside"] >= 200, "outcomes compared")

                await salience(shop, "model", "canary", new, "--share", "0.5")
                await scored_by(shop, new)
                await salience(shop, "model", "promote", new, *EASY)
                await scored_by(shop, new, alone=True)

                await _refuses_what_is_bad(shop, tmp_path, new)
                await salience(shop, "model", "rollback", "--reason", "enough seen")
                await scored_by(shop, old, alone=True)
            last_ms = await stream.round()

            async def drained() -> bool:
                newest = {one.user_id: one for one in await all_of(shop, "placements", Placement)}
                return sum(one.time_ms >= last_ms for one in newest.values()) == len(USERS)

            await until(drained, "placements of the last round")
            assert worker.process.poll() is None, worker.said
        await _nothing_lost_or_mixed(shop, folders)
        await _told_beside(shop, old, new)
        explained = {one.model: one.placement_id for one in await all_of(shop, "placements", Placement)}
        assert explained.keys() == folders.keys()
        for placement_id in explained.values():
            answer = await salience(shop, "explain", placement_id, "--model", str(folders[old]), "--json")
            assert answer["identical"], answer
        gone = await salience(shop, "model", "remove", new, "--json")
        assert gone == {"removed": new}

    play(scenario)


async def _refuses_what_is_bad(shop: Shop, tmp_path: Path, live: str) -> None:
    """One that lies about its outputs, and one that passes every trial and fails when it scores."""
    lies = toy_model(tmp_path / "lies", seed=2, golden=lambda golden: golden.update(logit=golden["logit"] + 1))
    assert "differ from the golden ones by 1" in await salience(shop, "model", "push", str(lies), fails=True)
    bad = await push_unseen(shop, lies)
    await salience(shop, "model", "canary", bad, "--share", "1")
    found = await told(shop, bad, lambda one: bool(one["refusals"]), "a refusal")
    assert "differ from the golden ones by 1" in found["refusals"][0]["reason"]
    assert "refuses it" in await salience(shop, "model", "promote", bad, *EASY, fails=True)

    trap = toy_model(tmp_path / "trap", seed=3, graphs=fails_in_use)
    await salience(shop, "model", "push", str(trap))
    await salience(shop, "model", "promote", toy_version(trap), "--force", "--reason", "a test")
    found = await told(shop, toy_version(trap), lambda one: bool(one["refusals"]), "a refusal")
    assert "no finite numbers" in found["refusals"][0]["reason"]
    assert found["state"] == "live"
    await scored_by(shop, live, alone=True)
    await salience(shop, "model", "rollback")
    await scored_by(shop, live, alone=True)


async def _nothing_lost_or_mixed(shop: Shop, folders: dict[str, Path]) -> None:
    """What is placed is computed again from its receipt by the model that it names, and by no other.

    All of it within two rounds of a change of models, of the rest every tenth.
    """
    placements = await all_of(shop, "placements", Placement)
    decisions = await all_of(shop, "decisions", Decision)
    assert [(one.placement_id, one.model) for one in placements] == [
        (one.placement_id, one.versions["model"]) for one in decisions
    ]
    assert len({one.placement_id for one in placements}) == len(placements)
    old, new = folders
    runs = [version for version, _ in itertools.groupby(one.model for one in placements)]
    assert (runs[0], runs[-1]) == (old, old)
    assert Counter(one.model for one in placements)[new] > len(USERS)
    changes = [at for at, pair in enumerate(itertools.pairwise(placements)) if pair[0].model != pair[1].model]
    near = {at for change in changes for at in range(change - 2 * len(USERS), change + 2 * len(USERS))}
    engines = {version: engine_of(shop, folder) for version, folder in folders.items()}
    for at, decision in enumerate(decisions):
        if at in near or at % 10 == 0:
            assert recompute(decision, engines[decision.versions["model"]]).differences == []


async def _told_beside(shop: Shop, old: str, new: str) -> None:
    scores = await all_of(shop, "shadow-scores", ShadowScore)
    assert {(one.model, one.shadow) for one in scores} == {(old, new)}
    assert all(abs(slot.shadow_pctr - slot.pctr - slot.difference) < 2e-6 for one in scores for slot in one.slots)
    outcomes = [one for one in await all_of(shop, "outcomes", Outcome) if one.shadow]
    assert {one.shadow for one in outcomes} == {new}
    assert {one.model for one in outcomes} == {old}


def test_a_promoted_model_outlasts_a_restart_and_every_lane_tells(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        old, folder = load(toy_model(tmp_path / "old")).version, toy_model(tmp_path / "new", seed=1)
        new = toy_version(folder)
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", model=tmp_path / "old")
        await shop.publish(ADS)
        stream = Stream(shop)
        with Worker(shop, tmp_path / "first.log") as worker:
            async with stream.flowing():
                await scored_by(shop, old, alone=True)
                await salience(shop, "model", "push", str(folder))
                await salience(shop, "model", "promote", new, "--force", "--reason", "a test")
                await scored_by(shop, new, alone=True)
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        with Worker(shop, tmp_path / "second.log") as worker:
            before = len(await shop.read("placements"))
            async with stream.flowing():
                await scored_by(shop, new, alone=True)
            assert {one.model for one in (await all_of(shop, "placements", Placement))[before:]} == {new}
            assert f'version="{new}"' in worker.ask("/metrics")[1].decode()
        statuses = (await read_control(shop.settings)).all(ModelStatus)
        assert {(one.lane, one.model, one.refused) for one in statuses.values()} == {(0, new, "")}

    play(scenario)


def test_who_promotes_while_somebody_else_changes_roles_is_told_and_changes_nothing(
    kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        new, other = [
            await push_unseen(shop, toy_model(tmp_path / name, seed=seed)) for seed, name in enumerate(("new", "other"))
        ]
        await salience(shop, "model", "canary", new, "--share", "0.1")

        async def parity(*_: object) -> list[str]:
            """What takes the time in which somebody takes the canary back and lets another model live."""
            await salience(shop, "model", "canary", new, "--share", "0")
            await publish(shop.settings, [promoted(roles_told(await read_control(shop.settings)), other, START_MS)])
            return []

        monkeypatch.setattr("streams.models.desk.parity", parity)
        told = await salience(shop, "model", "promote", new, "--force", "--reason", "a test", "--json", fails=True)
        assert f"somebody else has changed roles meanwhile; live is {other}" in told["error"]
        stands = roles_told(await read_control(shop.settings))
        assert (stands.live, stands.canary) == (other, "")
        assert msgspec.json.decode((await shop.read("control"))[-1][1] or b"", type=ModelRoles) == stands

    play(scenario)
