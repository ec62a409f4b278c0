"""Who is shut out by brokers, as by another password there, says so within seconds, and does not stay deaf."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from streams import acls, topic_admin, topics
from streams.fetching import fetch
from streams.followed import Followed
from streams.lag.monitor import LagMonitor
from streams.lag.poller import Poller
from streams.leaving import at_work
from streams.reading import groupless
from streams.topic_admin import ShutOutError
from tests.integration.lanes import ADS, DEADLINE_S, FOR_EVER, Shop
from tests.integration.secured import OWNER, SecuredKafka
from tests.integration.test_security import PREFIX, become, produce, settings_on
from tests.integration.workers import Worker, until
from tests.needs import apache_kafka

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SHORT = {"connections.max.reauth.ms": "6000"}
"""The brokers close connections that are older; so whoever is shut out hears nothing from then on."""


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[SecuredKafka]:
    """One node with the properties that the test asks for."""
    roles = ["admin", "worker", "console", "monitor"]
    with apache_kafka(SecuredKafka(tmp_path / "secured", roles, nodes=1, more=request.param)) as cluster:
        become(monkeypatch, cluster, OWNER)
        for role in roles:
            acls.apply(settings_on(cluster), role, f"User:{role}")
        become(monkeypatch, cluster, "admin")
        topic_admin.create(cluster.bootstrap, 1, PREFIX, configs=FOR_EVER)
        yield cluster


def change_password(cluster: SecuredKafka, user: str) -> None:
    """Give ``user`` another password on the brokers; its file stays as it is."""
    cluster.passwords[user] += "-anew"
    scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    changed = UserScramCredentialUpsertion(user, scram, cluster.passwords[user].encode())
    admin = cluster.admin(OWNER)  # held, since its requests end with it
    for future in admin.alter_user_scram_credentials([changed]).values():
        future.result()


@pytest.mark.parametrize("secured", [SHORT], indirect=True, ids=["short sessions"])
@pytest.mark.parametrize("file_too", [False, True], ids=["at the brokers alone", "in its file as well"])
def test_a_reader_whose_password_was_changed_ends_and_says_why(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, file_too: bool
) -> None:
    become(monkeypatch, secured, "console")
    partition = TopicPartition(PREFIX + topics.ADS, 0)

    async def scenario() -> None:
        followed = Followed(secured.bootstrap, [partition.topic])
        await followed.check()
        async with at_work(groupless(secured.bootstrap, auto_offset_reset="earliest")) as consumer:
            consumer.assign([partition])
            await fetch(consumer, [partition], secured.bootstrap, timeout_ms=500)
            await asyncio.to_thread(change_password, secured, "console")
            if file_too:
                secured.settings("console")
            try:
                async with asyncio.timeout(2 * DEADLINE_S):
                    while True:
                        followed.look(consumer, [partition])
                        await fetch(consumer, [partition], secured.bootstrap, timeout_ms=500)
            finally:
                await followed.leave()

    told = "the password was changed" if file_too else "does not let this process in .*invalid credentials"
    with pytest.raises(ShutOutError, match=told):
        asyncio.run(scenario())


@pytest.mark.parametrize("secured", [SHORT], indirect=True, ids=["short sessions"])
def test_the_lag_monitor_says_that_it_is_shut_out_and_takes_the_new_password_from_its_file_by_itself(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, secured, "monitor")

    async def scenario() -> None:
        async with LagMonitor(Poller(secured.bootstrap), every_s=0.5, failing=lambda _: None) as monitor:

            async def told() -> bool:
                return monitor.latest.polls > monitor.latest.failed and not monitor.latest.error

            async def shut_out() -> bool:
                return "does not tell the groups' lag" in monitor.latest.error

            await until(told, "a lag that is told")
            await asyncio.to_thread(change_password, secured, "monitor")
            await until(shut_out, "a monitor that says it is shut out")
            secured.settings("monitor")
            await until(told, "a lag that is told again")

    asyncio.run(scenario())


@pytest.mark.parametrize("secured", [{}], indirect=True, ids=["sessions without end"])
def test_a_worker_whose_password_was_changed_says_that_it_is_not_ready_while_it_still_reads(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        shop = Shop(settings_on(secured, home=tmp_path))
        become(monkeypatch, secured, "admin")
        await produce(shop, ADS)
        with Worker(shop, tmp_path / "worker.log", **secured.settings("worker")) as worker:

            async def ready() -> bool:
                return "url=" in worker.said and (await asyncio.to_thread(worker.ask, "/readyz"))[0] == 200

            async def shut_out() -> bool:
                status, told = await asyncio.to_thread(worker.ask, "/readyz")
                return status == 503 and "does not let this process in" in told["reason"]

            await until(ready, "a worker that is ready", worker)
            await asyncio.to_thread(change_password, secured, "worker")
            await until(shut_out, "a worker that says it is shut out", worker)

    asyncio.run(scenario())
