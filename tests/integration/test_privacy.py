"""A person forgotten, on Apache Kafka with short compaction and retention: in no segment file, and not replayed."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.brokers.apache import ApacheKafka
from streams import topics
from streams.cli import app
from streams.control import publish
from streams.control_wire import Consent
from streams.privacy.pseudonyms import Pseudonyms
from streams.wire import Click, Impression
from tests.integration.lanes import ADS, Shop, play
from tests.integration.workers import Worker, until
from tests.needs import apache_kafka

pytestmark = pytest.mark.integration

HASTY = {
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "300",
    "log.cleaner.backoff.ms": "200",
    "log.segment.delete.delay.ms": "100",
}
"""A broker that looks for what may go several times a second, instead of every few minutes."""
SHORT = {"segment.ms": "1000", "file.delete.delay.ms": "100"}
SHORT_COMPACTION = SHORT | {
    "delete.retention.ms": "500",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
}
PERSON = Pseudonyms({"k1": bytes(range(32))}).of("alice@example.org")
EVENTS = 12


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with apache_kafka(ApacheKafka(tmp_path_factory.mktemp("hasty"), properties=HASTY)) as broker:
        yield broker


class Story:
    """One person among others, from the first event to the last trace."""

    def __init__(self, broker: ApacheKafka, prefix: str, home: Path) -> None:
        self.data = broker.directory / "node-0" / "data"
        self.shop = Shop.open(broker.bootstrap, prefix, home, snapshot_every_ms=500)
        self.start_ms = int(time.time() * 1000)
        self.others = 0

    def events(self) -> list[Impression | Click]:
        out: list[Impression | Click] = []
        for number in range(EVENTS):
            told: dict[str, Any] = {"user_id": PERSON, "ad_id": f"ad-{number}", "time_ms": self.start_ms + number}
            out.append((Click if number % 3 else Impression)(event_id=f"e{number}", **told))
        return out

    async def bystander(self, **fields: Any) -> None:
        """Somebody else acts, sends something unreadable and answers: every topic's open segment gets a record."""
        self.others += 1
        user, now_ms = f"other-{self.others}", int(time.time() * 1000)
        event = Click(event_id=f"o{self.others}", user_id=user, ad_id="ad-1", time_ms=now_ms, **fields)
        await self.shop.publish([
            event,
            Impression(event_id=f"s{self.others}", user_id=user, ad_id="ad-1", time_ms=now_ms),
            ("clicks", user.encode(), b"{poison", now_ms),
        ])  # fmt: skip
        await publish(self.shop.settings, [Consent(user_id="switch", granted=True, time_ms=now_ms)])

    async def has_seen_everyone(self) -> bool:
        return f"other-{self.others}".encode() in await self.shop.state()

    async def has_snapshots(self) -> bool:
        return any((self.shop.settings.home / "snapshots").rglob("*.snapshot"))

    def salience(self, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
        settings = self.shop.settings
        told = ["--bootstrap", settings.bootstrap, "--prefix", settings.topic_prefix, "--json"]
        here = {"SALIENCE_HOME": str(settings.home), "SALIENCE_GROUP": settings.group}
        result = CliRunner().invoke(app, ["privacy", *arguments, *told], env=here | environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, json.loads(result.stdout)

    def segments_with(self, trace: bytes) -> set[str]:
        """Topics, without prefix, in whose segment files the bytes are."""
        prefix = self.shop.settings.topic_prefix
        found = set()
        for path in self.data.glob(f"{prefix}*/*.log*"):
            try:
                if trace in path.read_bytes():
                    found.add(path.parent.name.removeprefix(prefix).rpartition("-")[0])
            except FileNotFoundError:
                continue  # deleted while we looked
        return found

    def shorten(self) -> None:
        """Give every topic retention and compaction of seconds."""
        from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

        admin = AdminClient({"bootstrap.servers": self.shop.settings.bootstrap})
        resources = []
        for topic in topics.TABLE:
            short = SHORT_COMPACTION if topic.cleanup == "compact" else SHORT | {"retention.ms": "6000"}
            entries = [
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in short.items()
            ]
            name = self.shop.settings.topic_prefix + topic.name
            resources.append(ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries))
        for future in admin.incremental_alter_configs(resources).values():
            future.result()


def test_an_erased_person_is_in_no_segment_file_and_no_replay_brings_them_back(
    hasty: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        story = Story(hasty, topic_prefix, tmp_path / "home")
        shop, person = story.shop, PERSON.encode()
        poison = ("clicks", person, b"{poison", story.start_ms)
        with Worker(shop, tmp_path / "first.log"):
            await shop.publish([*ADS, *story.events(), poison])
            await story.bystander()
            await until(story.has_seen_everyone, "the first events are state")
            assert person in await shop.state()
            held = {"clicks", "ad-impressions", "placements", "decisions", "state-changelog", "dead-letters"}
            assert held <= story.segments_with(person)
            _, exported = await asyncio.to_thread(story.salience, "export", PERSON)
            assert {record["topic"] for record in exported["records"]} == held
            await until(story.has_snapshots, "the worker has written a snapshot")
            code, proof = await asyncio.to_thread(story.salience, "prove", PERSON)
            assert (code, proof["gone"], proof["snapshots_read"] > 0) == (1, False, True)

            assert (await asyncio.to_thread(story.salience, "erase", PERSON))[0] == 0
            await until(lambda: _without(shop, person), "the row has a tombstone, though nobody acts")
        assert dict(await shop.read("placements"))[person] is None

        # Everything again, into a worker that has recovered: what happened stays forgotten.
        await shop.publish(story.events())
        await story.bystander()
        with Worker(shop, tmp_path / "second.log"):
            await until(story.has_seen_everyone, "the replay is over")
            row = await shop.lane_row()
            assert row is not None
            assert (row.totals["erased"], row.totals["unaccounted"]) == (EVENTS, 0)
            assert person not in await shop.state()

            await asyncio.to_thread(story.shorten)
            shop.adopted = True  # what was counted is going to be deleted

            async def gone() -> bool:
                await story.bystander()
                code, proof = await asyncio.to_thread(story.salience, "prove", PERSON)
                return code == 0 and bool(proof["gone"]) and story.segments_with(person) == {"control"}

            await until(gone, "nothing is left but the request itself, which keeps a rebuilt state away")
            _, pruned = await asyncio.to_thread(story.salience, "prune", SALIENCE_ERASED_KEPT_MS="1")
            assert pruned == {"taken_back": 1}

            async def nowhere() -> bool:
                await story.bystander()
                return not story.segments_with(person)

            await until(nowhere, "the request has been compacted away")

    play(scenario)


async def _without(shop: Shop, user: bytes) -> bool:
    return user not in await shop.state()
