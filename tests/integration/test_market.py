"""Budgets, caps and prices on a real broker: two workers share a campaign's budget, and one leaves on the way."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from deploy.brokers import Broker
from scoring.units import DAY_MS, HOUR_MS
from streams.app import make_engine
from streams.cli import app
from streams.client import priced
from streams.control_wire import HourlyTraffic
from streams.explain import recompute
from streams.feeds.catalogue import entry_of
from streams.wire import CampaignMetrics, Decision, Placement, Slot
from tests.builders import ad, click, impression
from tests.integration.lanes import Shop, play, shop_on
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration

START_MS = 20_700 * DAY_MS + HOUR_MS
USERS = [f"user-{number}" for number in range(12)]
SMALL = 60_000
"""The budget of campaign 0: a handful of clicks."""
MOST = 2
"""Impressions of a campaign to a person within an hour."""
RULES = f"caps: [{{scope: campaign, most: {MOST}, minutes: 60}}]\nseparate: campaign\n"
ADS = [
    ad(f"ad-{n}", campaign_id=f"c-{n % 8}", advertiser_id=f"a-{n % 8}", category=f"shelf/{n % 4}",
       bid_micros=20_000 if n % 8 == 0 else 8_000 + 10 * n, budget_micros=SMALL if n % 8 == 0 else None)
    for n in range(48)
]  # fmt: skip


class Shoppers:
    """Everyone looks at his newest placement, and clicks on its first ad."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.shown: list[tuple[str, str, int]] = []
        self.clicked: Counter[str] = Counter()
        self.last_ms = dict.fromkeys(USERS, 0)

    async def placements(self) -> dict[str, Placement]:
        read = await self.shop.read("placements")
        told = [msgspec.json.decode(value, type=Placement) for _, value in read if value is not None]
        return {placement.user_id: placement for placement in told}

    async def arrive(self) -> None:
        for user in USERS:
            self.last_ms[user] = START_MS
        await self.shop.publish([click(user, "ad-1", START_MS) for user in USERS])
        await until(self._answered, "a placement for everyone")

    async def look(self, at_ms: int) -> dict[str, Placement]:
        """A round; the placements that were looked at."""
        seen = await self.placements()
        for number, user in enumerate(USERS):
            placement = seen[user]
            events = []
            for slot in placement.slots:
                time_ms = at_ms + 1_000 * slot.slot
                about = {"ad_id": slot.ad_id, "placement_id": placement.placement_id}
                events.append(priced(impression(user, time_ms=time_ms, slot=slot.slot, **about), placement))
                self.shown.append((user, slot.campaign_id, time_ms))
                if slot is placement.slots[0] and number % 2:
                    answer = click(user, time_ms=time_ms + 200, impression_time_ms=time_ms, **about)
                    events += [priced(answer, placement)] * 2  # sent twice
                    self.clicked[slot.campaign_id] += slot.price_micros
            self.last_ms[user] = max(event.time_ms for event in events)
            await self.shop.publish(sorted(events, key=lambda event: event.time_ms))
        await until(self._answered, f"what follows from the round at {at_ms}")
        return seen

    async def _answered(self) -> bool:
        newest = await self.placements()
        return all(user in newest and newest[user].time_ms >= time_ms for user, time_ms in self.last_ms.items())


async def metrics(shop: Shop) -> dict[tuple[int, str], CampaignMetrics]:
    told = [
        msgspec.json.decode(value, type=CampaignMetrics) for _, value in await shop.read("campaign-metrics") if value
    ]
    return {(each.lane, each.campaign_id): each for each in told}


def over_caps(shown: list[tuple[str, str, int]]) -> int:
    """Impressions beyond the cap, counted from what was shown alone."""
    found, last = 0, {}
    for user, campaign, time_ms in sorted(shown, key=lambda each: each[2]):
        within = [at for at in last.get((user, campaign), []) if time_ms - at < HOUR_MS]
        found += len(within) >= MOST
        last[user, campaign] = [*within, time_ms]
    return found


def test_two_workers_keep_a_budget_caps_and_prices_while_one_leaves(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)

    async def scenario() -> None:
        shop = shop_on(
            kafka, topic_prefix, tmp_path, "exactly_once", partitions=4, rules=rules, slots=4, control_share=0.0,
            seal_secret="of the test",
        )  # fmt: skip
        shoppers, rounds = Shoppers(shop), []
        await shop.publish(ADS)
        with Worker(shop, tmp_path / "first.log", home=tmp_path / "a", seal_secret="of the test"):
            with Worker(shop, tmp_path / "second.log", home=tmp_path / "b", seal_secret="of the test") as second:
                await until(lambda: _said(second, "lane taken over"), "the second worker has lanes")
                await shoppers.arrive()
                rounds += [await shoppers.look(START_MS + 20 * 60_000 * number) for number in range(1, 4)]
                second.signal(signal.SIGTERM)
                assert second.status() == 0, second.said
            rounds += [await shoppers.look(START_MS + 20 * 60_000 * number) for number in range(4, 11)]
            told = await metrics(shop)
        spent = Counter[str]()
        for (_, campaign), each in told.items():
            spent[campaign] += each.today.spent_micros
            assert each.day == START_MS // DAY_MS
        assert spent == shoppers.clicked  # every click once, at its slot's price, and nothing else
        assert spent["c-0"] >= SMALL
        assert spent["c-0"] - SMALL <= 20_000 * len(USERS)  # of one round, which nobody could know of
        assert over_caps(shoppers.shown) == 0
        assert all("c-0" not in _campaigns(seen) for seen in rounds[-2:])
        assert len({lane for lane, _ in told}) == 4
        assert all(
            slot.seal and slot.price_micros > 0 for seen in rounds for each in seen.values() for slot in each.slots
        )
        await receipts_recompute(shop)
        await the_command_tells_the_same(shop, spent)
        await lanes_that_saw_an_hour_whole_tell_its_traffic(shop)

    play(scenario)


def _slots(seen: dict[str, Placement]) -> list[Slot]:
    return [slot for placement in seen.values() for slot in placement.slots]


def _campaigns(seen: dict[str, Placement]) -> set[str]:
    return {slot.campaign_id for slot in _slots(seen)}


async def _said(worker: Worker, line: str) -> bool:
    assert worker.process.poll() is None, worker.said
    return line in worker.said


async def lanes_that_saw_an_hour_whole_tell_its_traffic(shop: Shop) -> None:
    """The first hour had begun before anybody came, and the second while lanes moved."""
    values = [value for key, value in await shop.read("control") if (key or b"").startswith(b"traffic/") and value]
    told = [msgspec.json.decode(value, type=HourlyTraffic) for value in values]
    assert len({each.lane for each in told}) == 4
    for each in told:
        known = {hour: mean for hour, mean in enumerate(each.hours) if mean is not None}
        assert known.keys() == {3}
        assert known[3] > 0


async def receipts_recompute(shop: Shop) -> None:
    """Every receipt on the topic, in this process, which knows nothing of what was paced."""
    engine = make_engine(shop.settings)
    engine.catalogue.upsert([entry_of(each) for each in ADS])
    decisions = [msgspec.json.decode(value, type=Decision) for _, value in await shop.read("decisions") if value]
    assert len(decisions) > 50
    differ = await asyncio.to_thread(lambda: [recompute(decision, engine).differences for decision in decisions])
    assert [each for each in differ if each] == []


async def the_command_tells_the_same(shop: Shop, spent: Counter[str]) -> None:
    """``salience campaigns``, as a person reads it and as a machine does."""
    where = ["campaigns", "--bootstrap", shop.settings.bootstrap, "--prefix", shop.settings.topic_prefix]
    told = await asyncio.to_thread(CliRunner().invoke, app, [*where, "--json"])
    found = {each["campaign_id"]: each for each in msgspec.json.decode(told.stdout)["campaigns"]}
    charged = {name: each["today"].get("spent_micros", 0) for name, each in found.items()}
    assert {name: micros for name, micros in charged.items() if micros} == +spent
    assert (found["c-0"]["billed_micros"], found["c-0"]["budget_micros"]) == (SMALL, SMALL)
    assert found["c-0"]["unbilled_micros"] == spent["c-0"] - SMALL
    table = await asyncio.to_thread(CliRunner().invoke, app, where)
    assert (table.exit_code, "100.0%" in table.stdout) == (0, True)
