"""The command that judges experiments, as a container runs it: its pages, its log, its end, and where it goes on."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest

from deploy.brokers import Broker
from streams.control import publish
from streams.experiments.service import RefereeService
from tests.integration.lanes import ADS, delete_all, events, play, shop_on, stepped
from tests.integration.workers import until
from tests.unit.test_referee_service import RUNNING

pytestmark = pytest.mark.integration


def test_a_referee_tells_probes_and_prometheus_that_it_judges_and_ends_when_told(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
        await shop.publish(ADS)
        await publish(shop.settings, [RUNNING])
        options = ("--every", "0.2", "--port", "0", "--log-json")
        at = ("--bootstrap", kafka.bootstrap, "--prefix", topic_prefix)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streams.cli", "experiment", "referee", *options, *at),
            stderr=subprocess.PIPE,
            env=os.environ | {"SALIENCE_HOME": str(tmp_path)},
        )
        assert process.stderr is not None
        url = json.loads(await process.stderr.readline())["event"]

        async def well() -> bool:
            assert process.returncode is None
            try:
                await asyncio.to_thread(urllib.request.urlopen, url.replace("/metrics", "/healthz"))
            except HTTPError:
                return False
            return True

        await until(well, "a look by all that is there")
        page = (await asyncio.to_thread(urllib.request.urlopen, url)).read().decode()
        told = dict(re.findall(r"^(salience\S+) (\S+)$", page, re.MULTILINE))
        assert told["salience_referee_judging"] == told['salience_experiments{finding="too_little"}'] == "1.0"
        assert {value for name, value in told.items() if "lag_records" in name} == {"0.0"}
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
        assert process.returncode == 0
        assert {json.loads(line)["event"] for line in said.splitlines()} == {
            "Judging running experiments every 0.2 s, until told to end",
            "warmth: too little yet (as-is has 0 of 100 users)",
        }

    play(scenario)


def test_a_referee_that_has_read_all_goes_on_though_retention_has_deleted_all_and_the_last_was_a_marker(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        shop = shop_on(kafka, topic_prefix, tmp_path, "exactly_once")
        await shop.publish(events())
        assert (await stepped(shop))["outcomes"] > 0
        for _ in range(2):
            service = RefereeService(shop.settings, 0, lambda _: None)
            await service.run(follow=False)
            assert service._referee.people.number == 6
            await asyncio.to_thread(delete_all, kafka.bootstrap, [f"{topic_prefix}outcomes"])

    play(scenario)
