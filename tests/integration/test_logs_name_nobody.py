"""A worker over poisoned input says nothing of people: no user id, no body of an event, in its log or its metrics."""

import asyncio
import signal
from pathlib import Path

import pytest

from deploy.brokers import Broker
from streams.control import publish
from streams.control_wire import Consent
from tests.builders import START_MS, click, impression
from tests.integration.lanes import ADS, Shop, play, shop_on
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration

PERSON = "pseudonym-that-must-not-be-told-5b1e"
BODY = "words-of-a-body-that-must-not-be-told-77c0"

POISON = [
    b"{" + BODY.encode(),
    b'{"event_id": "' + BODY.encode() + b'"}',
    b'{"event_id":"e","user_id":"' + PERSON.encode() + b'","ad_id":5,"time_ms":1}',
    b'{"event_id":"e","user_id":"someone-else-' + PERSON.encode() + b'","ad_id":"a","time_ms":1}',
    b'{"event_id":"e","user_id":"' + PERSON.encode() + b'","ad_id":"a","time_ms":4000000000000}',
    b'{"event_id":"e","user_id":"' + PERSON.encode() + b'","ad_id":"' + 90 * b"x" + b'","time_ms":1}',
    b"\xff\xfe" + PERSON.encode(),
    b"",
]


def test_no_log_line_and_no_metric_names_a_person_or_quotes_an_event(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        guarantee = "exactly_once" if kafka.transactions else "at_least_once"
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        person = PERSON.encode()
        bad_switches = [
            ("control", b"consent/" + person, b'{"kind":"consent","user_id":"' + BODY.encode() + b'"}', START_MS),
            ("control", b"erasure/" + person, BODY.encode(), START_MS),
            ("ads", person, BODY.encode(), START_MS),
        ]
        records = [("clicks", person, value, START_MS) for value in POISON]
        records += [("ad-impressions", person, value, START_MS) for value in POISON]
        people = [impression(PERSON), click(PERSON), click(PERSON, "ad-2", START_MS + 1, consent=False)]
        await shop.publish([*ADS, *bad_switches, *records, *people])
        await publish(shop.settings, [Consent(user_id=PERSON, granted=False, time_ms=START_MS)])
        with Worker(shop, tmp_path / "worker.log") as worker:
            await until(lambda: _has_read(shop, 2 * len(POISON) + len(people)), "everything is accounted for")
            _, metrics = await asyncio.to_thread(worker.ask, "/metrics")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said
        row = await shop.lane_row()
        assert row is not None
        assert row.totals["dead"] == 2 * len(POISON)
        assert worker.said.count("refused") >= len(bad_switches)  # the log is alive, and tells what it may
        for said in (worker.said, metrics.decode()):
            assert PERSON not in said
            assert BODY not in said

    play(scenario)


async def _has_read(shop: Shop, records: int) -> bool:
    row = await shop.lane_row()
    return row is not None and row.totals["events_in"] >= records
