"""The behaviour report from topics that a lane has worked on, against counts of the records themselves."""

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy.brokers import Broker
from scoring.policies import CONTROL_ARM
from streams import topics
from tests.builders import click, impression
from tests.integration.lanes import ADS, LAST_MS, Owner, Shop, events, play, shop_on
from tests.integration.test_commands import at, salience

pytestmark = pytest.mark.integration
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'salience[report]'")

CATEGORY = {each.ad_id: each.category.partition("/")[0] for each in ADS}


async def _answers(shop: Shop) -> list[Any]:
    """Impressions of the first three ads of every placement, and a look at the first, a purchase of every seventh."""
    out: list[Any] = []
    for number, (_, value) in enumerate(await shop.read(topics.DECISIONS)):
        decision = msgspec.json.decode(value or b"")
        placed = json.loads(_bytes(decision["placement"]))
        shown_ms = LAST_MS + 60_000 + 10_000 * number
        for slot in placed["slots"][:3]:
            named = {"placement_id": placed["placement_id"], "event_id": f"p{number}-{slot['slot']}"}
            out.append(impression(placed["user_id"], slot["ad_id"], shown_ms, slot=slot["slot"], **named))
            if slot["slot"] == 0:
                kind = "purchase" if number % 7 == 0 else "click"
                named["event_id"] = f"a{number}"
                answer = {"kind": kind, "viewed_s": 4.25, "value_micros": 1_000, "impression_time_ms": shown_ms}
                out.append(click(placed["user_id"], slot["ad_id"], shown_ms + 900, **answer, **named))
    return out


def _bytes(text: str) -> bytes:
    return msgspec.json.decode(json.dumps(text), type=bytes)


def test_a_report_from_the_topics_counts_what_their_records_say(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once", control_share=0.5)

    async def scenario() -> None:
        await shop.publish([*ADS, *events()])
        owner = Owner(shop, ADS)
        await owner.take_over()
        await owner.step_all()
        answers = await _answers(shop)
        await shop.publish([*answers, answers[0]])  # sent twice
        await owner.step_all()

    play(scenario)
    out = tmp_path / "report.html"
    told = salience("report", "--out", str(out), *at(shop), "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)

    shown, acts = _events(shop, topics.AD_IMPRESSIONS), _events(shop, topics.CLICKS)
    assert found["about"]["impressions"] == len(shown)
    assert found["about"]["actions"] == len(acts)
    assert found["about"]["repeated"] == 1
    answered = {(each["user_id"], each["ad_id"], each["impression_time_ms"]) for each in acts.values()}
    bought = sum(each.get("kind") == "purchase" for each in acts.values())
    steps = {step["step"]: step["count"] for step in found["funnels"]["impressions"]}
    assert list(steps.values()) == [len(shown), len(answered), len(answered), bought, bought]
    seconds: dict[str, float] = defaultdict(float)
    for each in acts.values():
        seconds[CATEGORY[each["ad_id"]]] += each.get("viewed_s", 0.0)
    assert {each["category"]: each["seconds"] for each in found["attention"]["categories"]} == pytest.approx(
        {name: total for name, total in seconds.items() if total}
    )
    assert found["campaigns"]["total"]["value_micros"] == 1_000 * bought
    groups = _groups(shop)
    counted = Counter(groups[each["placement_id"]] for each in shown.values() if "placement_id" in each)
    assert found["personalisation"]["impressions"] == dict(counted)
    clicked = Counter(groups[each["placement_id"]] for each in acts.values() if "placement_id" in each)
    ctr = next(each for each in found["personalisation"]["changes"] if each["metric"] == "ctr")
    for group in ("control", "personalised"):
        assert ctr[group] == pytest.approx(clicked[group] / counted[group])
    exposure = np.array(list(Counter(each["ad_id"] for each in shown.values()).values()))
    assert found["fairness"]["advertisers"]["parties"] == len({each.advertiser_id for each in ADS})
    assert exposure.sum() == steps["shown"]

    page = out.read_text()
    assert "What personalisation changed" in page
    assert not any(each["user_id"] in page + told.stdout for each in shown.values())


def test_a_report_without_topics_says_how_to_make_them(kafka: Broker, tmp_path: Path) -> None:
    told = salience("report", "--bootstrap", kafka.bootstrap, "--prefix", "nobodys-", "--out", str(tmp_path / "r.html"))
    assert told.returncode == 1
    assert "salience topics create" in told.stderr


def _events(shop: Shop, topic: str) -> dict[str, dict[str, Any]]:
    """Events of a topic by id."""
    values = (json.loads(value) for _, value in asyncio.run(shop.read(topic)) if value)
    return {each["event_id"]: each for each in values}


def _groups(shop: Shop) -> dict[str, str]:
    """Each receipt's placement, and the group that it was made for."""
    receipts = (json.loads(value) for _, value in asyncio.run(shop.read(topics.DECISIONS)) if value)
    return {each["placement_id"]: "control" if each["arm"] == CONTROL_ARM else "personalised" for each in receipts}
