"""What a lane's click layer has learned reaches the placements of the people of other lanes, over a real broker."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy.brokers import Broker
from scoring.ids import id64
from streams.identity import partitioner
from streams.wire import Click, Decision, Impression
from tests.builders import START_MS, ad, click, impression
from tests.integration.lanes import Shop, play, shop_on
from tests.integration.workers import Worker, until

pytestmark = pytest.mark.integration

ADS = [ad(f"ad-{number}", campaign_id=f"c-{number}", advertiser_id=f"a-{number}") for number in range(4)]
LOOKS = 90


def user_of(lane: int) -> str:
    """A user whose records that lane takes."""
    belongs = partitioner(2)
    return next(name for n in itertools.count() if belongs((name := f"user-{n}").encode()) == lane)


async def lift_for(shop: Shop, user: str, ad_id: str) -> float:
    """What the newest receipt of ``user`` says of the ad's lift; 0 where there is none yet."""
    values = [value for key, value in await shop.read("decisions") if key == user.encode() and value]
    if not values:
        return 0.0
    told = msgspec.json.decode(values[-1], type=Decision)
    candidates = np.frombuffer(told.candidates, dtype=np.uint64)
    return float(np.frombuffer(told.lifts, dtype=np.float32)[candidates == id64(ad_id)][0])


@pytest.mark.parametrize("shared", [True, False])
def test_what_one_lane_learns_of_an_ad_counts_in_the_placements_of_another(
    kafka: Broker, topic_prefix: str, tmp_path: Path, shared: bool
) -> None:
    one, other = user_of(0), user_of(1)
    times = itertools.count(START_MS, 1_000)

    def looks() -> list[Impression | Click]:
        """The ad is clicked whenever ``one`` sees it."""
        out: list[Impression | Click] = []
        for time_ms in itertools.islice(times, LOOKS):
            out += [
                impression(one, "ad-1", time_ms),
                click(one, "ad-1", time_ms + 200, impression_time_ms=time_ms),
            ]
        return out

    async def told() -> bool:
        keys = {key for key, value in await shop.read("click-layers") if value}
        return b"0" in keys and any(key.startswith(b"0-") for key in keys)

    async def other_sees_it() -> bool:
        await shop.publish([click(other, "ad-0", next(times))])
        return await lift_for(shop, other, "ad-1") > 0

    async def scenario() -> None:
        await shop.publish([*ADS, *looks()])
        with Worker(shop, tmp_path / "worker.log", click_sharing=shared):
            if shared:
                await until(told, "lane 0 tells what it has learned")
                await until(other_sees_it, "lane 1 serves by it")
            else:
                await shop.publish([click(one, "ad-0", next(times)), click(other, "ad-0", next(times))])
                await until(lambda: _positive(shop, one), "lane 0 serves by what it has learned")
                await until(lambda: _answered(shop, other), "lane 1 serves")
                assert await lift_for(shop, other, "ad-1") == 0
                assert await shop.read("click-layers") == []

    shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once", partitions=2, slots=2)
    play(scenario)


async def _positive(shop: Shop, user: str) -> bool:
    return await lift_for(shop, user, "ad-1") > 0


async def _answered(shop: Shop, user: str) -> bool:
    return any(key == user.encode() for key, _ in await shop.read("decisions"))
