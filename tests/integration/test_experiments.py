"""An experiment through the command line against a running worker: no restart, and a guardrail that ends it."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.brokers import Broker
from scoring.policies import arms_of
from streams.cli import app
from streams.wire import Decision, Placement
from tests.builders import START_MS, click, impression
from tests.integration.lanes import ADS, Shop, play, shop_on
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration

USERS = [f"user-{number}" for number in range(400)]
SHOWN_EACH = 8
CLICK_RATES = {"as-is": 0.5, "random": 0.1}


async def salience(shop: Shop, *words: str, fails: bool = False) -> Any:
    """Run a command on the shop's topics; what it printed as JSON."""
    options = ("--bootstrap", shop.settings.bootstrap, "--prefix", shop.settings.topic_prefix)
    environment = {"SALIENCE_HOME": str(shop.settings.home)}
    told = await asyncio.to_thread(CliRunner().invoke, app, [*words, *options], env=environment)
    assert told.exit_code == int(fails), told.output
    return json.loads(told.stdout) if "--json" in words else told.output


async def placements(shop: Shop) -> dict[str, Placement]:
    """The newest placement of each user."""
    values = [value for _, value in await shop.read("placements") if value is not None]
    return {one.user_id: one for value in values for one in [msgspec.json.decode(value, type=Placement)]}


async def touch(shop: Shop, rounds: Iterator[int]) -> dict[str, Placement]:
    """Let everyone be shown something in the next round, and wait for the placements that follow."""
    round_ = next(rounds)
    now_ms = START_MS + 1_000_000 * round_
    await shop.publish_in_batches([impression(user, "ad-1", now_ms) for user in USERS])

    async def placed() -> bool:
        return sum(one.time_ms == now_ms for one in (await placements(shop)).values()) == len(USERS)

    await until(placed, f"placements of round {round_}")
    return await placements(shop)


async def outcomes(shop: Shop, made: dict[str, Placement]) -> None:
    """Show everyone's placement, and let them click as often as their arm makes them."""
    draw, events = np.random.default_rng(4), []
    for user, placement in made.items():
        arm = placement.arm.rpartition("/")[2]
        for at in range(SHOWN_EACH):
            slot, time_ms = placement.slots[at % len(placement.slots)], placement.time_ms + 1_000 * (at + 1)
            fields = {"placement_id": placement.placement_id}
            events.append(impression(user, slot.ad_id, time_ms, **fields))
            if draw.random() < CLICK_RATES.get(arm, 0.3):
                events.append(click(user, slot.ad_id, time_ms + 500, impression_time_ms=time_ms, **fields))
    await shop.publish_in_batches(events)


def test_an_experiment_is_started_ramped_and_ended_by_its_guardrail_without_a_restart(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish(ADS)
        rounds = itertools.count(1)
        with Worker(shop, tmp_path / "worker.log") as worker:
            assert {one.arm for one in (await touch(shop, rounds)).values()} <= {"engine", "control"}
            arms = ("--arm", "as-is=0.5", "--arm", "random=0.5:temperature=10")
            await salience(shop, "experiment", "create", "warmth", *arms, "--guardrail", "ctr=0.1")
            assert "is draft; start it first" in await salience(shop, "experiment", "ramp", "warmth", "0.5", fails=True)
            await salience(shop, "experiment", "start", "warmth", "--ramp", "0.3")
            some = await _taking_part(shop, rounds, at_least=60)
            await salience(shop, "experiment", "ramp", "warmth", "1.0")
            everyone = await _taking_part(shop, rounds, at_least=300)
            assert all(everyone[user].arm == arm for user, arm in _arms(some).items())  # nobody was moved
            assert {tuple(arms_of(one.placement_id)) for one in everyone.values()} <= {(), ((1, 0),), ((1, 1),)}
            await outcomes(shop, everyone)
            assert set(_arms(await touch(shop, rounds)).values()) == {"warmth/as-is", "warmth/random"}

            await salience(shop, "experiment", "referee", "--once")
            told = await salience(shop, "experiment", "report", "warmth", "--json")
            assert told["status"] == "stopped"
            assert "guardrail ctr: random loses" in told["verdict"]
            assert told["split_p_value"] > 0.01
            assert told["crossed_users"] == 0
            assert sum(arm["users"] for arm in told["arms"]) == len(_arms(everyone))
            (listed,) = (await salience(shop, "experiment", "list", "--json")).values()
            assert listed["status"] == "stopped"

            await _taking_part(shop, rounds, at_least=0, at_most=0)
            await _explores_by_thompson_sampling(shop, rounds)
            assert worker.process.poll() is None, worker.said
        await salience(shop, "experiment", "referee", "--once")  # goes on from its file; the verdict stands
        assert (await salience(shop, "experiment", "report", "warmth", "--json"))["verdict"] == told["verdict"]

    play(scenario)


def test_a_bandit_lets_in_cohorts_by_what_it_saw_and_moves_nobody_across_a_restart(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish(ADS)
        arms = ("--arm", "as-is=0.5", "--arm", "random=0.5:temperature=10")
        bandit = ("--allocation", "bandit", "--minimum", "0.2", "--epoch", "1")
        rounds = itertools.count(1)
        with Worker(shop, tmp_path / "first.log"):
            await salience(shop, "experiment", "create", "warmth", *arms, *bandit)
            await salience(shop, "experiment", "start", "warmth", "--ramp", "0.7")
            first = await _taking_part(shop, rounds, at_least=230)
            await outcomes(shop, first)
            await touch(shop, rounds)
            await salience(shop, "experiment", "referee", "--once")
        with Worker(shop, tmp_path / "second.log"):
            everyone = await _taking_part(shop, rounds, at_least=len(_arms(first)) + 60)
        assert all(everyone[user].arm == arm for user, arm in _arms(first).items())  # nobody was moved
        told = await salience(shop, "experiment", "report", "warmth", "--json")
        assert told["cohorts"] == 2
        assert "100%" in await salience(shop, "experiment", "list")  # of its users have come
        shares = [arm["share"] for arm in told["arms"]]
        assert shares == [pytest.approx(0.8, abs=1e-6), pytest.approx(0.2, abs=1e-6)]
        late = _arms({user: one for user, one in everyone.items() if user not in _arms(first)})
        assert sum(arm == "warmth/as-is" for arm in late.values()) > 0.65 * len(late)
        chances = {
            (one.arm, one.allocation)
            for value in await shop.read("decisions")
            for one in [msgspec.json.decode(value[1] or b"", type=Decision)]
        }
        assert {chance for arm, chance in chances if arm == "warmth/as-is"} == {0.5, shares[0]}
        assert {chance for arm, chance in chances if arm in ("engine", "control")} == {1.0}

    play(scenario)


async def _explores_by_thompson_sampling(shop: Shop, rounds: Iterator[int]) -> None:
    """An arm that explores otherwise: receipts say so and are computed again, and evaluation has its propensities."""
    lucky = ("--arm", "as-is=0.5", "--arm", "lucky=0.5:explore=luck")
    refused = await salience(shop, "experiment", "create", "keen", *lucky, fails=True)
    assert "expected one of plackett-luce, thompson, linucb" in refused
    arms = ("--arm", "as-is=0.5", "--arm", "sampled=0.5:explore=thompson")
    await salience(shop, "experiment", "create", "keen", *arms)
    await salience(shop, "experiment", "start", "keen")
    made: dict[str, Placement] = {}

    async def both() -> bool:
        made.update(await touch(shop, rounds))
        return set(_arms(made, "keen").values()) == {"keen/as-is", "keen/sampled"}

    await until(both, "placements of both arms")
    told = [msgspec.json.decode(value or b"", type=Decision) for _, value in await shop.read("decisions")]
    assert {one.explore for one in told if one.arm == "keen/sampled"} == {"thompson"}
    assert {one.explore for one in told if one.arm != "keen/sampled"} == {"plackett-luce"}
    sampled = next(one for one in told if one.arm == "keen/sampled")
    assert 0 < min(sampled.propensities) < 1
    answer = await salience(shop, "explain", sampled.placement_id, "--json")
    assert (answer["identical"], answer["explore"]) == (True, "thompson"), answer
    await touch(shop, rounds)  # with which the others end
    await touch(shop, rounds)  # and with this one the click windows of what they showed at last
    estimates = await salience(shop, "ope", "--log", "topics", "--policy", "uniform", "--json")
    judged = {one.placement_id for one in told if one.chosen and one.arm != "control"}
    assert estimates["uniform: clicks in slot 0"]["choices"] == len(judged)


def _arms(made: dict[str, Placement], experiment: str = "warmth") -> dict[str, str]:
    return {user: one.arm for user, one in made.items() if one.arm.startswith(f"{experiment}/")}


async def _taking_part(
    shop: Shop, rounds: Iterator[int], *, at_least: int, at_most: int = len(USERS)
) -> dict[str, Placement]:
    """Touch everyone until so many take part: a worker follows the control topic, and nobody can say when."""
    made: dict[str, Placement] = {}

    async def enough() -> bool:
        made.update(await touch(shop, rounds))
        return at_least <= len(_arms(made)) <= at_most

    await until(enough, f"{at_least} to {at_most} users in the experiment")
    return made
