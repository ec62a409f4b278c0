"""Two rankings in one placement through the command line against a running worker: clicks tell who is preferred."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy.brokers import Broker
from streams.experiments.duels import side_of
from streams.wire import Decision, Placement
from tests.builders import click, impression
from tests.integration.lanes import Shop, play
from tests.integration.test_experiments import placements, salience, touch
from tests.integration.test_lanes import ADS, shop_on
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration

ARM = "turns/interleaved"


def test_clicks_on_what_each_ranking_picked_tell_which_is_preferred(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish(ADS)
        arms = ("--arm", "as-is=0.5", "--arm", "warmer=0.5:temperature=2,explore=linucb", "--interleave")
        with Worker(shop, tmp_path / "worker.log") as worker:
            rails = ("--guardrail", "ctr=0.1")
            assert "without bandit and guardrails" in await salience(
                shop, "experiment", "create", "turns", *arms, *rails, fails=True
            )
            await salience(shop, "experiment", "create", "turns", *arms)
            await salience(shop, "experiment", "start", "turns")
            rounds = itertools.count(1)

            async def all_have_both() -> bool:
                return sum(one.arm == ARM for one in (await touch(shop, rounds)).values()) > 300

            await until(all_have_both, "everyone's interleaved placements")
            made = {user: one for user, one in (await placements(shop)).items() if one.arm == ARM}
            clicked = await _prefer_the_second(shop, made)
            await until(lambda: _answered(shop, clicked), "outcomes of all clicks")
            assert worker.process.poll() is None, worker.said
            await salience(shop, "experiment", "referee", "--once")
            told = await salience(shop, "experiment", "report", "turns", "--json")
            assert "warmer is preferred: its picks win" in told["verdict"]
            assert told["arms"][1]["against_first"]["preference"]["low"] > 0
            assert sum(arm["metrics"]["clicks"] for arm in told["arms"]) == clicked
            assert told["arms"][0]["users"] == len(made)
            assert "preference" in await salience(shop, "experiment", "report", "turns")
            one = next(iter(made.values()))
            answer = await salience(shop, "explain", one.placement_id, "--json")
            assert answer["identical"], answer
        decisions = [msgspec.json.decode(value or b"", type=Decision) for _, value in await shop.read("decisions")]
        assert all((one.other is not None) == (one.arm == ARM) for one in decisions)

    play(scenario)


async def _prefer_the_second(shop: Shop, made: dict[str, Placement]) -> int:
    """Everyone is shown two slots, and most click what the second ranking picked; how many clicks."""
    draw, events, clicked = np.random.default_rng(5), [], 0
    for user, placement in made.items():
        time_ms, wanted = placement.time_ms + 1_000, int(draw.random() < 0.75)
        for slot in placement.slots[:2]:
            fields = {"placement_id": placement.placement_id}
            events.append(impression(user, slot.ad_id, time_ms, slot=slot.slot, **fields))
            if side_of(placement.placement_id, slot.slot) == wanted:
                events.append(click(user, slot.ad_id, time_ms + 500, impression_time_ms=time_ms, **fields))
                clicked += 1
    await shop.publish_in_batches(events)
    return clicked


async def _answered(shop: Shop, clicks: int) -> bool:
    return sum(b'"clicked":true' in (value or b"") for _, value in await shop.read("outcomes")) >= clicks
