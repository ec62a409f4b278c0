"""The commands people look with, against a real broker and a real worker."""

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from deploy.brokers import Broker
from streams import topic_admin, topics
from streams.cli import app
from streams.clock import wall_ms
from streams.control_wire import Erasure
from streams.wire import encode_json
from tests.builders import START_MS, ad, click, impression
from tests.integration.lanes import ADS, Owner, Shop, events, play, shop_on
from tests.integration.workers import Worker, until
from tests.unit.test_review_feed import review

pytestmark = pytest.mark.integration


def salience(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command's end, in this process: to load what it needs is most of what it would compute in one of its own."""
    told = CliRunner().invoke(app, words, env=environment)
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exc_info
    return subprocess.CompletedProcess(words, told.exit_code, told.stdout, told.stderr)


def at(shop: Shop) -> tuple[str, ...]:
    return "--bootstrap", shop.settings.bootstrap, "--prefix", shop.settings.topic_prefix


def test_explain_recomputes_a_placement_found_by_its_id(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")

    async def scenario() -> None:
        await shop.publish([*ADS, *events()])
        owner = Owner(shop, ADS)
        await owner.take_over()
        await owner.step_all()

    play(scenario)
    names = asyncio.run(shop.placement_ids())
    told = salience("explain", next(iter(names)), *at(shop), "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["identical"] is True
    assert "the same, byte for byte" in salience("explain", next(iter(names)), *at(shop)).stdout
    missing = salience("explain", "no-such-placement", *at(shop))
    assert missing.returncode == 1
    assert "salience tail placements" in missing.stderr

    lanes = json.loads(salience("lanes", "show", *at(shop), "--json").stdout)
    assert lanes["0"]["totals"]["applied"] == 80


def test_what_is_on_the_topics_is_exported_whole_and_read_again(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'salience[evaluate]'")
    from streams.logs import parquet

    shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
    happened = events()
    written = [review(number, ADS[0].ad_id, good=number % 3 > 0) for number in range(12)]
    said = [("reviews", one.ad_id.encode(), encode_json(one), one.time_ms + 7) for one in written]
    no = click("says-no", time_ms=START_MS + 1, consent=False)
    asked = Erasure(user_id="erased", time_ms=START_MS + 5)
    forgotten = [impression("says-no"), no, impression("erased"), ("control", asked.key, encode_json(asked), START_MS)]
    play(lambda: shop.publish([*ADS, *happened, *forgotten, *said, ("reviews", b"ad-0", b"{", START_MS)]))

    told = salience("export-log", "--out", str(tmp_path / "log"), *at(shop), "--json")

    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["ads"] == len(ADS)
    assert found["impressions"] + found["clicks"] == len(happened)
    assert (found["invalid"], found["refused"]) == (1, 3)
    assert "3 events of people who are not remembered" in " ".join(told.stderr.split())
    log = parquet.read(tmp_path / "log")
    assert len(log.tones) == found["tones"]
    of_ad = [tone for tone in log.tones if tone.of == "ad"]
    assert {tone.name for tone in of_ad} == {ADS[0].ad_id}
    assert {tone.time_ms for tone in of_ad} <= {one.time_ms + 7 for one in written}  # when it could be heard
    assert {event.event_id for event in log.events} == {event.event_id for event in happened}
    missing = salience("export-log", "--out", str(tmp_path / "none"), *at(shop)[:2], "--prefix", "nobodys-")
    assert missing.returncode == 1
    assert "salience topics create" in missing.stderr


def test_doctor_finds_nothing_wrong_where_nothing_is_and_names_the_mending_command_where_something_is(
    kafka: Broker, embedded: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    topic_admin.create(kafka.bootstrap, 2, topic_prefix)
    healthy = salience("doctor", "--bootstrap", kafka.bootstrap, "--prefix", topic_prefix, "--json")
    if kafka.transactions:
        assert healthy.returncode == 0, healthy.stdout
        assert json.loads(healthy.stdout)["ok"] is True
    shown_ms = wall_ms() - 1_000  # not of a fixed date: these topics keep events for days
    lacking = [click(f"user-{n}", time_ms=shown_ms + n, impression_time_ms=shown_ms) for n in range(100)]
    told = [impression(f"user-{n}", time_ms=shown_ms, surface="home") for n in range(100)]
    play(lambda: shop_on(kafka, topic_prefix, tmp_path, "at_least_once").publish([*told, *lacking]))
    skewed = salience("doctor", "--bootstrap", kafka.bootstrap, "--prefix", topic_prefix, "--json")
    assert skewed.returncode == 1
    (wrong,) = [check for check in json.loads(skewed.stdout)["checks"] if check["name"] == "surfaces"]
    assert "0 tell it in both, 100 in one alone" in wrong["found"]
    assert "send both with their surface" in wrong["fix"]
    (without,) = [check for check in json.loads(skewed.stdout)["checks"] if check["name"] == "ads"]
    assert (without["ok"], without["found"]) == (False, "0 of 0 may be shown now")
    assert f"publish ads to {topic_prefix}ads, " in without["fix"]
    ill = salience("doctor", "--bootstrap", embedded.bootstrap, "--prefix", topic_prefix, "--json")
    assert ill.returncode == 1
    checks = json.loads(ill.stdout)["checks"]
    (missing,) = [check for check in checks if check["name"] == "topics"]
    assert missing["topics"] == topics.names(topic_prefix)
    fixes = " ".join(check["fix"] for check in checks)
    assert f"salience topics create --bootstrap {embedded.bootstrap}" in fixes
    assert "SALIENCE_GUARANTEE=at_least_once" in fixes


def test_a_new_ad_is_shown_without_a_restart(kafka: Broker, topic_prefix: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish([*ADS[:3], *events(3)])
        with Worker(shop, tmp_path / "log") as worker:
            await until(lambda: _shows(shop, {each.ad_id for each in ADS[:3]}), "the first placements")
            await shop.publish([ad(ad_id="new", category="shelf/1", bid_micros=900_000)])
            number = 0

            async def the_new_one() -> bool:
                nonlocal number
                number += 1
                time_ms = 1_790_000_100_000 + number
                await shop.publish([impression(event_id=f"n{number}", user_id="user-0", ad_id="ad-1", time_ms=time_ms)])
                return await _shows(shop, {"new"})

            await until(the_new_one, "a placement with the new ad")
            worker.signal(signal.SIGTERM)
            assert worker.status() == 0, worker.said

    play(scenario)


async def _shows(shop: Shop, ads: set[str]) -> bool:
    shown = {
        slot["ad_id"]
        for _, value in await shop.read("placements")
        if value is not None
        for slot in msgspec.json.decode(value)["slots"]
    }
    return ads <= shown


@pytest.mark.parametrize("command", ["lanes adopt", "experiment referee --once", "lanes show"])
def test_a_command_whose_topics_are_missing_names_the_command_that_makes_them(embedded: Broker, command: str) -> None:
    told = salience(*command.split(), "--bootstrap", embedded.bootstrap, "--prefix", "nobodys-")
    assert told.returncode == 1
    made = f"salience topics create --bootstrap {embedded.bootstrap} --prefix nobodys-"
    assert made in " ".join(told.stderr.split()), told.stderr
    assert "Traceback" not in told.stderr
