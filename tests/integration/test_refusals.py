"""Who refuses is forgotten though the lane's owner dies while it forgets."""

from pathlib import Path

import msgspec
import pytest

from deploy.brokers import Broker
from streams.wire import Placement
from tests.builders import impression
from tests.integration.lanes import (
    ADS,
    GUARANTEES,
    LAST_MS,
    USERS,
    Killed,
    Owner,
    dying_outbox,
    events,
    play,
    shop_on,
    stepped,
)

pytestmark = pytest.mark.integration


@GUARANTEES
def test_who_refuses_is_forgotten_wherever_the_owner_dies(
    kafka: Broker, topic_prefix: str, tmp_path: Path, guarantee: str
) -> None:
    """Each record is a batch of its own here: of a large slice any two next to each other may be in two."""

    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, guarantee)
        await shop.publish(events())
        await stepped(shop)
        for number in range(USERS):
            user = f"user-{number}"
            assert user.encode() in await shop.state()
            await shop.publish([impression(user, ADS[0].ad_id, LAST_MS + 1 + number, consent=False)])
            owner = Owner(shop, ADS, dying_outbox(1 + number, one_by_one=True))
            await owner.take_over()
            with pytest.raises(Killed):
                await owner.step_all()
            await owner.vanish()
            await stepped(shop)
            assert user.encode() not in await shop.state(), f"killed after {1 + number} records"
            placed = dict(await shop.read("placements"))[user.encode()]
            assert placed is None or msgspec.json.decode(placed, type=Placement).context_only

    play(scenario)
