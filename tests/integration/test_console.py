"""The live console on Apache Kafka, with a real worker and browser: the page says what the topics hold."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from playwright.async_api import Page

from deploy.brokers import Broker
from scoring.ids import id64
from streams.client import priced
from streams.clock import wall_ms
from streams.outcomes import outcomes_in
from streams.reading import read_topic
from streams.wire import Ad, Decision, Outcome, Placement
from tests.builders import ad, click, impression
from tests.integration.consoles import (
    PHONE,
    Console,
    assert_accessible,
    chromium,
    level_is,
    not_red,
    page_on,
    screenshot,
    values,
)
from tests.integration.lanes import Shop, play, record_of
from tests.integration.test_experiments import placements, salience
from tests.integration.workers import Worker, until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

SHELVES = ("boots/hiking", "boots/rain", "tents", "lamps", "books/maps", "books/cooking")
NASTY = "<img src=x onerror=alert(1)>"
"""A user's id is whatever a shop makes it."""
USERS = [NASTY, *(f"shopper-{number}" for number in range(1, 24))]


def shelf() -> list[Ad]:
    return [
        ad(
            ad_id=f"ad-{number}",
            campaign_id=f"campaign-{number % 5}",
            category=SHELVES[number % len(SHELVES)],
            brand=f"brand-{number % 3}",
            title=f"<b>No. {number}</b> & more",
            bid_micros=100_000 + 1_000 * number,
            budget_micros=None if number % 5 == 4 else 3_000_000 * (1 + number % 5),
        )
        for number in range(120)
    ]


def history(now_ms: int, rounds: int = 60) -> list[Any]:
    """Everyone's last minute: what they were shown, at a price, and what they clicked: maps, and what is cheap."""
    draw, out = np.random.default_rng(11), []
    ads = shelf()
    for round_ in range(rounds):
        for at, user in enumerate(USERS):
            time_ms = now_ms - 60_000 + 1_000 * round_ + at
            seen = ads[int(draw.integers(len(ads)))]
            out.append(impression(user, seen.ad_id, time_ms, price_micros=seen.bid_micros // 20))
            if draw.random() < (0.5 if seen.category == SHELVES[at % len(SHELVES)] else 0.1):
                out.append(click(user, seen.ad_id, time_ms + 300, impression_time_ms=time_ms))
    return out


async def decisions(shop: Shop) -> dict[str, Decision]:
    """Every receipt by its placement's id."""
    told = [msgspec.json.decode(value, type=Decision) for _, value in await shop.read("decisions") if value]
    return {decision.placement_id: decision for decision in told}


async def expected_lanes(shop: Shop) -> list[tuple[str, ...]]:
    """Lane, records behind, end, placements and percentiles, from the topics alone."""
    prefix, bootstrap = shop.settings.topic_prefix, shop.settings.bootstrap
    ends: Counter[int] = Counter()
    for name in ("ad-impressions", "clicks"):
        async for records in read_topic(bootstrap, prefix + name):
            ends[records[0].partition] += len(records)
    late: dict[int, list[int]] = {}
    async for records in read_topic(bootstrap, prefix + "placements"):
        for record in records:
            placed = msgspec.json.decode(record.value or b"", type=Placement)
            late.setdefault(record.partition, []).append(record.timestamp - placed.time_ms)
    return [
        (str(lane), "0", str(ends[lane]), str(len(late[lane])), f"{np.percentile(late[lane][-512:], 99):.1f}")
        for lane in sorted(late)
    ]


async def shown_lanes(page: Page) -> list[tuple[str, ...]]:
    rows = await values(page, "lanes", "lane", "behind", "consumed", "placements", "p99_ms")
    return [(*row[:4], f"{float(row[4] or 'nan'):.1f}") for row in rows]  # none before a placement has been read


async def settled(shop: Shop) -> list[Outcome]:
    """The outcomes that a reader counts: of each lane those shown since the first was told whose windows have ended."""
    lanes: dict[int, list[Outcome]] = {}
    async for records in read_topic(shop.settings.bootstrap, shop.settings.topic_prefix + "outcomes"):
        lanes.setdefault(records[0].partition, []).extend(outcomes_in(records)[0])
    return [
        one
        for told in lanes.values()
        for one in told
        if one.shown_ms >= told[0].known_ms and (not one.clicked or one.ends_ms <= told[-1].known_ms)
    ]


def arms_of(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Arm, impressions and clicks."""
    arms = {arm: [one.clicked for one in outcomes if one.arm == arm] for arm in {one.arm for one in outcomes}}
    return [(arm, str(len(clicked)), str(sum(clicked))) for arm, clicked in sorted(arms.items())]


async def shown_arms(page: Page) -> list[tuple[str, ...]]:
    return await values(page, "arms", "arm", "impressions", "clicks")


async def expected_spend(shop: Shop) -> Counter[str]:
    """What each campaign has spent on the last day, in micros."""
    cells = [json.loads(value) for value in dict(await shop.read("campaign-metrics")).values() if value is not None]
    day, spent = max((one["day"] for one in cells), default=0), Counter[str]()
    for one in cells:
        spent[one["campaign_id"]] += one["today"].get("spent_micros", 0) if one["day"] == day else 0
    return spent


async def shown_spend(page: Page) -> dict[str, int]:
    return {name: int(micros) for name, micros in await values(page, "campaigns", "campaign", "spent")}


async def assert_figures_are_the_topics(shop: Shop, page: Page) -> None:
    """Lanes, arms, models, campaigns and refused records, against a count of our own."""
    assert await shown_lanes(page) == await expected_lanes(shop)
    outcomes = await settled(shop)
    assert await shown_arms(page) == arms_of(outcomes)
    ((_, counted, calibration),) = await values(page, "models", "model", "outcomes", "calibration")
    assert int(counted) == len(outcomes) > 1_000
    ratio = sum(one.clicked for one in outcomes) / sum(one.predicted for one in outcomes)
    assert float(calibration) == pytest.approx(ratio, abs=1e-4)
    spent = await expected_spend(shop)
    assert spent.total() > 0
    assert await shown_spend(page) == spent
    assert [row[1:] for row in await values(page, "refused", "topic", "count")] == [("1",)]
    told = await salience(shop, "experiment", "report", "warmth", "--json")
    trial = page.locator("#experiments article").filter(has_text="warmth")
    verdict, _, _ = told["verdict"].partition(" (")  # the figures behind it are in the table
    assert verdict.replace(" in ctr", " in click rate") in await trial.inner_text()
    assert await trial.locator("[data-field=users]").evaluate_all("cells => cells.map(c => c.dataset.value)") == [
        str(arm["users"]) for arm in told["arms"]
    ]


async def assert_explains(page: Page, user: str, receipts: dict[str, Decision]) -> None:
    """Ask for a person by keyboard; every number shown is the receipt's."""
    await page.fill("#why-user", user)
    await page.press("#why-user", "Enter")

    async def answered() -> bool:
        return await page.evaluate("document.querySelector('#why').dataset.user") == user

    await until(answered, f"{user} is explained")
    receipt = receipts[await page.evaluate("document.querySelector('#why').dataset.placement")]
    placement = msgspec.json.decode(receipt.placement, type=Placement)
    assert receipt.user_id == user
    assert await page.get_attribute("#why [data-identical]", "data-identical") == "true"
    assert [
        (ad_id, float(pctr), int(ecpm), int(price), float(propensity), earned)
        for ad_id, pctr, ecpm, price, propensity, earned in await values(
            page, "why-slots", "ad", "pctr", "ecpm", "price", "propensity", "earned"
        )
    ] == [
        (
            slot.ad_id,
            slot.pctr,
            slot.ecpm_micros,
            slot.price_micros,
            slot.propensity,
            " ".join(f"{each.ad_id}={each.weight:g}" for each in slot.attention),
        )
        for slot in placement.slots
    ]
    candidates = np.frombuffer(receipt.candidates, dtype=np.uint64).tolist()
    chosen = {candidates[at] for at in receipt.chosen}
    bids = dict(zip(candidates, np.frombuffer(receipt.bids_micros, dtype=np.int64).tolist(), strict=True))
    lost = await values(page, "why-lost", "ad", "bid", "why")
    assert len(lost) == min(20, len(candidates) - len(chosen))
    assert all(bids[id64(ad_id)] == int(bid) and id64(ad_id) not in chosen for ad_id, bid, _ in lost)
    reasons = {"control": {"random"}, "warmth/warmer": {"draw", "ecpm"}}.get(receipt.arm, {"ecpm"})
    assert {why for _, _, why in lost} <= reasons
    by_item: dict[str, float] = {}
    for ad_id, share in await values(page, "why-history", "ad", "attention"):
        by_item[ad_id] = by_item.get(ad_id, 0.0) + float(share)
    assert {each.ad_id: pytest.approx(by_item[each.ad_id], abs=1e-3) for each in placement.slots[0].attention} == {
        each.ad_id: each.weight for each in placement.slots[0].attention
    }


def test_the_page_tells_what_the_topics_hold_in_two_languages_and_explains_ten_people(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        if not kafka.transactions:
            pytest.skip("tried on Apache Kafka, and it could not be had")
        shop = Shop.open(
            kafka.bootstrap, topic_prefix, tmp_path, partitions=2, click_window_ms=1_000, control_share=0.2
        )
        now_ms = wall_ms()
        await shop.publish(shelf())
        with Worker(shop, tmp_path / "worker.log"), Console(shop, tmp_path / "console.log") as console:
            await _live_through(shop, now_ms)
            async with chromium() as browser:
                url = await console.url()
                async with page_on(browser, url, color_scheme="light") as page:
                    await not_red(page)
                    await _settled(shop, page)
                    await assert_figures_are_the_topics(shop, page)
                    receipts = await decisions(shop)
                    for user in USERS[:10]:
                        await assert_explains(page, user, receipts)
                    assert await page.locator("main img").count() == 0
                    await assert_accessible(page)
                    await screenshot(page, "en-light")
                    await _freeze(console, page)
                async with page_on(browser, url, "zh", color_scheme="dark") as page:
                    assert "跟得上" in await page.inner_text("#lanes")
                    await assert_explains(page, USERS[3], receipts)
                    await assert_accessible(page)
                    await screenshot(page, "zh-dark")
                async with page_on(browser, url, "zh", color_scheme="light", viewport=PHONE) as page:
                    await assert_explains(page, USERS[4], receipts)
                    await assert_accessible(page)
                    await screenshot(page, "zh-light-phone")

    play(scenario)


async def _live_through(shop: Shop, now_ms: int) -> None:
    """An experiment, a minute of events, answers to the placements that follow, a poisoned record, and a report."""
    await salience(shop, "experiment", "create", "warmth", "--arm", "as-is=0.5", "--arm", "warmer=0.5:temperature=0.5")
    await salience(shop, "experiment", "start", "warmth")
    await _send(shop, history(now_ms))

    async def everyone() -> bool:
        return placed.update(await placements(shop)) or len(placed) == len(USERS)

    placed: dict[str, Placement] = {}
    await until(everyone, "everyone has a placement")
    answers = []
    for user, placement in placed.items():
        for slot in placement.slots:
            at_ms, named = now_ms + 10 * slot.slot, {"placement_id": placement.placement_id}
            answers.append(priced(impression(user, slot.ad_id, at_ms, slot=slot.slot, **named), placement))
        first = placement.slots[0].ad_id
        answers.append(priced(click(user, first, now_ms + 500, impression_time_ms=now_ms, **named), placement))
    await _send(shop, [*answers, ("clicks", USERS[1].encode(), b"{poison", now_ms)])
    await salience(shop, "experiment", "referee", "--once")


async def _send(shop: Shop, messages: list[Any]) -> None:
    """As `Shop.publish`, without waiting for one before the next."""
    async with AIOKafkaProducer(bootstrap_servers=shop.settings.bootstrap) as producer:
        for message in messages:
            name, key, value, time_ms = record_of(message)
            await producer.send(shop.settings.topic_prefix + name, value, key=key, timestamp_ms=time_ms)


async def _settled(shop: Shop, page: Page) -> None:
    """Wait until nothing moves: all consumed, and the page shows it, which hears of each topic at a time of its own."""

    async def equal() -> bool:
        return (
            await shown_lanes(page) == await expected_lanes(shop)
            and await shown_arms(page) == arms_of(await settled(shop))
            and await shown_spend(page) == await expected_spend(shop)
            and await page.locator("#refused tbody tr").count() > 0
        )

    await until(equal, "the page shows what the topics hold")


async def _freeze(console: Console, page: Page) -> None:
    """The console itself stands still: the page notices that nothing comes, and that something comes again."""
    console.process.send_signal(signal.SIGSTOP)
    await level_is(page, "red")
    assert await page.get_attribute("html", "data-silent") == ""
    await screenshot(page, "en-light-silent")
    console.process.send_signal(signal.SIGCONT)
    await not_red(page)
