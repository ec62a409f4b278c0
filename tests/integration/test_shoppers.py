"""``salience shoppers``: the demo's shoppers on a broker with a worker of its own, judged by what is on the topics."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from deploy.brokers import Broker
from streams.cli import app
from streams.demo.catalogue import catalogue
from streams.demo.shop import SHOP
from streams.wire import Click, Impression
from tests.builders import ad
from tests.integration.lanes import DEADLINE_S, GUARANTEES, Shop, play, shop_on
from tests.integration.test_commands import at, salience
from tests.integration.test_demo import KEYS
from tests.integration.workers import Worker, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TENT = ad(ad_id="tent-1", campaign_id="summer", category="outdoor/tents", bid_micros=1_000_000_000)
DEMOS = {one.ad_id for one in catalogue(SHOP)}


@contextmanager
def shopping(shop: Shop, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, killed if need be when the block ends."""
    command = [sys.executable, "-m", "streams.cli", "shoppers", "--json", "--users", "100", *options, *at(shop)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, Any]:
    """Its status, and what it says to machines."""
    out, told = process.communicate(timeout=DEADLINE_S)
    assert out, told
    return process.returncode, json.loads(out)


async def ads_up(shop: Shop) -> set[str]:
    """Ads that are not withdrawn."""
    last = dict(await shop.read("ads"))
    return {key.decode() for key, value in last.items() if value is not None}


def looked(shop: Shop, more_than: int = 0) -> Callable[[], Awaitable[bool]]:
    """Whether shoppers have been shown more ads than so many."""

    async def holds() -> bool:
        return len(await shop.read("ad-impressions")) > more_than

    return holds


async def applied(shop: Shop, count: int) -> bool:
    """Whether the lane has applied so many events, of whatever kind, and none that it took for another's repeat."""
    row = await shop.lane_row()
    return row is not None and (row.totals["applied"], row.totals["duplicate"]) == (count, 0)


@GUARANTEES
def test_shoppers_beat_chance_beside_a_worker_of_ones_own_come_back_and_leave_no_ad(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
    with Worker(shop, tmp_path / "worker.log", control_share=0.3) as worker:
        for run in range(2 if guarantee == "exactly_once" else 1):
            told = salience("shoppers", "--seconds", "15", "--users", "500", "--json", *at(shop))
            assert told.returncode == 0, told.stderr
            report = json.loads(told.stdout)
            assert report.keys() == KEYS
            assert (report["broker"], report["guarantee"]) == (kafka.bootstrap, None)
            assert (report["dead_letters"], report["unread"]) == (0, []), run
            assert report["ctr_engine_interval"][0] > report["ctr_random_interval"][1], run
            assert asyncio.run(ads_up(shop)) == set()
        shown = [msgspec.json.decode(value, type=Impression) for _, value in asyncio.run(shop.read("ad-impressions"))]
        clicks = [msgspec.json.decode(value, type=Click) for _, value in asyncio.run(shop.read("clicks"))]
        asyncio.run(until(lambda: applied(shop, len(shown) + len(clicks)), "every event is applied", worker))
    assert len({event.event_id for event in shown + clicks}) == len(shown) + len(clicks)
    assert len({event.user_id for event in clicks}) <= 500 + 32


def test_shoppers_do_not_begin_among_a_shops_ads_and_say_where_they_would(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
    others = [ad(ad_id=f"lamp-{number}") for number in range(4)]
    gone = ("ads", b"lamp-0", None, None)
    own = catalogue(SHOP)[0]
    dearer = msgspec.structs.replace(catalogue(SHOP)[1], bid_micros=7)
    play(lambda: shop.publish([*others, gone, own, dearer]))
    before = asyncio.run(shop.read("ads"))

    told = salience("shoppers", "--json", *at(shop))

    assert told.returncode == 1
    error = json.loads(told.stdout)["error"]
    assert "lamp-1, lamp-2, lamp-3 and 1 more" in error
    assert f"salience shoppers --bootstrap {kafka.bootstrap} --prefix {topic_prefix}demo-" in error
    assert asyncio.run(shop.read("ads")) == before
    assert asyncio.run(shop.read("clicks")) == []


def test_shoppers_leave_when_an_ad_of_a_shop_comes_and_never_look_at_it(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")

    async def scenario() -> None:
        with Worker(shop, tmp_path / "worker.log", fresh_share=0.5) as worker, shopping(shop) as process:
            await until(looked(shop), "shoppers look at ads", worker)
            await shop.publish([TENT])
            status, told = await asyncio.to_thread(ended, process)
            assert status == 1
            assert f"{topic_prefix}ads holds ads that are not the demo's: tent-1. " in told["error"]
            assert await ads_up(shop) == {"tent-1"}
        assert b"tent-1" not in b"".join(value or b"" for _, value in await shop.read("ad-impressions"))

    asyncio.run(scenario())


def test_a_run_that_is_told_to_end_counts_what_failed_in_it_and_takes_off_what_a_killed_one_left(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")

    async def misread(count: int, worker: Worker) -> None:
        await shop.publish([("clicks", b"shopper-1-0001", b"{", None)])

        async def holds() -> bool:
            return len(await shop.read("dead-letters")) == count

        await until(holds, f"{count} dead letters", worker)

    async def scenario() -> None:
        with Worker(shop, tmp_path / "worker.log") as worker:
            with shopping(shop) as killed:
                await until(looked(shop), "shoppers look at ads", worker)
                await misread(1, worker)
                killed.kill()
                killed.wait(DEADLINE_S)
            assert await ads_up(shop) == DEMOS
            seen = len(await shop.read("ad-impressions"))
            with shopping(shop) as process:
                await until(looked(shop, seen), "they are back", worker)
                await misread(2, worker)
                process.send_signal(signal.SIGINT)
                status, report = await asyncio.to_thread(ended, process)
            assert (status, report["dead_letters"]) == (0, 1)
            assert await ads_up(shop) == set()

    asyncio.run(scenario())


def test_shoppers_do_not_begin_beside_others_whose_ads_they_would_take_off(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")

    async def scenario() -> None:
        with shopping(shop) as first:  # no worker answers it yet: it has sent a click for some, and waits
            await until(up, "the first ones' ads are up")
            with shopping(shop) as second:
                status, told = await asyncio.to_thread(ended, second)
            assert status == 1
            error = told["error"]
            assert "Other shoppers are there already" in error
            assert f"salience shoppers --bootstrap {kafka.bootstrap} --prefix {topic_prefix}demo-" in error
            assert first.poll() is None
            assert await up()

    async def up() -> bool:
        return await ads_up(shop) == DEMOS

    asyncio.run(scenario())


def test_shoppers_whom_no_worker_answers_say_what_to_do_and_take_their_ads_off(
    kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
    monkeypatch.setattr("streams.demo.shopping.READY_WITHIN_S", 0.5)
    told = CliRunner().invoke(app, ["shoppers", "--json", *at(shop)])
    assert told.exit_code == 1
    error = json.loads(told.stdout)["error"]
    here = f"--bootstrap {kafka.bootstrap} --prefix {topic_prefix}"
    assert f"salience worker {here}. If one does: salience doctor {here}" in error
    assert len(asyncio.run(shop.read("clicks"))) == 32
    assert sum(key.decode() in DEMOS for key, _ in asyncio.run(shop.read("ads"))) == 2 * len(DEMOS)
    assert asyncio.run(ads_up(shop)) == set()


def test_shoppers_without_topics_are_told_how_to_make_them(kafka: Broker, topic_prefix: str) -> None:
    told = salience("shoppers", "--bootstrap", kafka.bootstrap, "--prefix", topic_prefix)
    assert told.returncode == 1
    assert f"salience topics create --bootstrap {kafka.bootstrap} --prefix {topic_prefix}" in told.stderr
    assert "Traceback" not in told.stderr
