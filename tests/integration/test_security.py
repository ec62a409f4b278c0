"""On brokers that let nobody in unasked: each role can do its job and nothing else, and a false broker gets nothing.

Three nodes, since they also speak to one another by SASL_SSL; two of them must agree before anything is written.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError as AioKafkaError
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from streams import acls, topic_admin, topics
from streams.checkup import checkup
from streams.client import PlacementView
from streams.connection import aiokafka_options
from streams.control import publish
from streams.demo.report import Report, Snapshot
from streams.demo.shopping import Plan
from streams.demo.visit import visit
from streams.experiments.registry import start
from streams.experiments.report import ExperimentReport, decode_report
from streams.experiments.service import RefereeService
from streams.lag.watch import LagWatch
from streams.lanes.outbox import LANE_ID
from streams.reviews.feed import ReviewFeed
from streams.settings import Settings
from streams.wire import Tone
from tests.builders import START_MS, ad, click
from tests.integration.lanes import ADS, DEADLINE_S, FOR_EVER, Shop, events, play, record_of
from tests.integration.secured import OWNER, SecuredKafka
from tests.integration.test_reviews import raw
from tests.integration.workers import Worker, until
from tests.needs import apache_kafka
from tests.unit.test_referee_service import DRAFT
from tests.unit.test_review_feed import stream

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PREFIX, GROUP = "shop-", "engine"
IMPLIED = {
    "READ": {"DESCRIBE"},
    "WRITE": {"DESCRIBE"},
    "ALTER_CONFIGS": {"DESCRIBE_CONFIGS"},
}
"""What Kafka's authorizer adds to an operation (`AclEntry`)."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """The cluster, with a user for each role who has its rights, and one who has none."""
    with apache_kafka(SecuredKafka(tmp_path_factory.mktemp("secured"), [*acls.ROLES, "nobody"])) as cluster:
        with pytest.MonkeyPatch.context() as environment:
            become(environment, cluster, OWNER)
            for role in acls.ROLES:
                acls.apply(settings_on(cluster), role, f"User:{role}")
            become(environment, cluster, "admin")  # whose first job it is
            made = topic_admin.create(cluster.bootstrap, 1, PREFIX, replication=3, configs=FOR_EVER)
            assert set(made) == set(topics.names(PREFIX))
        yield cluster


def settings_on(cluster: SecuredKafka, **more: Any) -> Settings:
    return Settings(bootstrap=cluster.bootstrap, topic_prefix=PREFIX, group=GROUP, **more)


def become(environment: pytest.MonkeyPatch, cluster: SecuredKafka, user: str) -> None:
    for name, value in cluster.settings(user).items():
        environment.setenv(f"SALIENCE_{name.upper()}", value)


# --- the table, line by line -----------------------------------------------------------------------------------


def allowed(role: str, kind: acls.Kind, name: str) -> set[str]:
    """What the table allows on a resource, with what that implies."""
    told = {line.operation for line in acls.of_role(role) if (line.kind, line.name) == (kind, name)}
    return told.union(*(IMPLIED.get(operation, set()) for operation in told))


def seen(answer: Any) -> set[str]:
    """What the broker says that the asker may do with what it describes; nothing where it may not even ask."""
    try:
        return {operation.name for operation in answer.result().authorized_operations or ()}
    except KafkaException as error:
        refusals = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
        if error.args[0].code() not in refusals:
            raise
        return set()


@pytest.mark.parametrize("role", [*acls.ROLES, "nobody"])
def test_a_role_may_do_on_every_topic_what_its_lines_say_and_nothing_else(secured: SecuredKafka, role: str) -> None:
    admin = secured.admin(role)
    for topic in topics.TABLE:
        asked = TopicCollection([PREFIX + topic.name])
        (answer,) = admin.describe_topics(asked, include_authorized_operations=True).values()
        assert seen(answer) == allowed(role, "topic", topic.name), f"{role} on {topic.name}"
    (other,) = admin.describe_topics(
        TopicCollection(["another-shops-clicks"]), include_authorized_operations=True
    ).values()
    with pytest.raises(KafkaException) as refused:
        other.result()
    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def coordinated(admin: Any, *groups: str) -> None:
    """Wait until the groups' coordinators are there: the offsets topic is made when it is first asked for."""
    deadline = time.monotonic() + DEADLINE_S
    for group in groups:
        while True:
            try:
                admin.describe_consumer_groups([group])[group].result()
                break
            except KafkaException:
                if time.monotonic() > deadline:
                    raise


@pytest.mark.parametrize("role", [*acls.ROLES, "nobody"])
def test_a_role_may_do_with_groups_what_its_lines_say_and_nothing_else(secured: SecuredKafka, role: str) -> None:
    admin = secured.admin(role)
    coordinated(secured.admin(OWNER), GROUP, "another-group")
    for group, expected in ((GROUP, allowed(role, "group", "")), ("another-group", set())):
        (answer,) = admin.describe_consumer_groups([group], include_authorized_operations=True).values()
        assert seen(answer) == expected, f"{role} on {group}"


@pytest.mark.parametrize("role", [*acls.ROLES, "nobody"])
def test_a_role_may_open_the_workers_transactions_where_its_lines_say_so(secured: SecuredKafka, role: str) -> None:
    may = "WRITE" in allowed(role, "transactional_id", "")
    for name, expected in ((f"{PREFIX}{GROUP}{LANE_ID}7", may), (f"{PREFIX}{GROUP}-other", False)):
        given = {"bootstrap.servers": secured.bootstrap, "transactional.id": name, "log_level": 0}
        producer = Producer({**given, **secured.librdkafka(role)})
        if expected:
            producer.init_transactions(DEADLINE_S)
        else:
            with pytest.raises(KafkaException) as refused:
                producer.init_transactions(DEADLINE_S)
            assert refused.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


@pytest.mark.parametrize("role", [*acls.ROLES, "nobody"])
def test_no_role_may_change_or_see_the_cluster_or_its_rights(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    admin = secured.admin(role)
    assert not admin.describe_cluster(include_authorized_operations=True).result().authorized_operations
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    assert secured.admin(OWNER).describe_acls(everything).result()
    with contextlib.suppress(KafkaException):  # librdkafka answers a refusal with an error or with nothing
        assert not admin.describe_acls(everything).result()
    become(monkeypatch, secured, role)
    with pytest.raises(topic_admin.TopicsError, match="refuses the right"):
        acls.apply(settings_on(secured), "admin", f"User:{role}")


# --- the jobs --------------------------------------------------------------------------------------------------


def test_every_role_does_its_job_with_no_other_right(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        shop = Shop(settings_on(secured, home=tmp_path))
        become(monkeypatch, secured, "admin")
        await produce(shop, ADS)
        with Worker(shop, tmp_path / "worker.log", **secured.settings("worker")) as worker:
            become(monkeypatch, secured, "adserver")
            acted = events(30)
            await produce(shop, [*acted, ("clicks", b"user-1", b"{poison", START_MS)])
            async with PlacementView(secured.bootstrap, topic_prefix=PREFIX) as view:

                async def served() -> bool:
                    assert worker.process.poll() is None, worker.said
                    return len(view) == 6

                await until(served, "placements of six users")
            become(monkeypatch, secured, "monitor")
            await LagWatch(secured.bootstrap, PREFIX, GROUP).until_zero(len(acted) + 1)
        assert "AuthorizationFailed" not in worker.said, worker.said
        become(monkeypatch, secured, "admin")
        row = await shop.lane_row()
        assert row is not None
        assert (row.totals["applied"], row.totals["dead"]) == (len(acted), 1)
        # Their retention is other than the table's, so that the events of the tests stay: that is remarked.
        assert not [one for one in topic_admin.check(secured.bootstrap, 1, PREFIX) if one.fails]

    play(scenario)


def test_the_reader_of_reviews_learns_and_goes_on_with_its_own_rights(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        shop = Shop(settings_on(secured, home=tmp_path))
        for first, said in ((0, 10), (10, 20)):
            become(monkeypatch, secured, "admin")
            await produce(shop, [ADS[0], *raw(stream(10, ad_id=ADS[0].ad_id, first=first))])
            become(monkeypatch, secured, "reviewer")
            told: list[Tone] = []
            async with ReviewFeed(shop.settings, told.extend) as feed:
                await feed.run(follow=False)
            assert {tone.reviews for tone in told} == {said}

    asyncio.run(scenario())


def test_the_referee_judges_with_its_own_rights(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        shop = Shop(settings_on(secured, home=tmp_path))
        become(monkeypatch, secured, "admin")
        await publish(shop.settings, [started := start(DRAFT, 0.2, 2), start(DRAFT, 1.0, 2)])  # the former stands
        become(monkeypatch, secured, "referee")
        judged: list[ExperimentReport] = []
        await RefereeService(shop.settings, 0, judged.extend).run(follow=False)
        assert [one.experiment for one in judged] == [DRAFT.experiment]
        become(monkeypatch, secured, "admin")
        assert [decode_report(value or b"") for _, value in await shop.read("experiment-reports")] == judged
        newest = msgspec.structs.replace(started, revision=started.revision + 1)
        assert (await shop.read("control"))[-1] == (newest.key, msgspec.json.encode(newest))

    asyncio.run(scenario())


def test_whoever_may_publish_ads_may_let_shoppers_in_and_an_ad_server_may_not(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(settings_on(secured, home=tmp_path))

    async def shopped() -> Report:
        told = list[Snapshot]()

        def until_looked(snapshot: Snapshot) -> None:
            if snapshot.report.impressions_engine and not told:
                told.append(snapshot)
                os.kill(os.getpid(), signal.SIGTERM)  # once: the second of its kind ends a process at once

        return await visit(Plan(None, 200, 1), shop.settings, until_looked)

    async def scenario() -> None:
        become(monkeypatch, secured, "admin")
        await produce(shop, [("ads", key, None, None) for key in dict(await shop.read("ads"))])
        with Worker(shop, tmp_path / "worker.log", **secured.settings("worker")):
            report = await shopped()
        assert report.impressions_engine > 0
        assert report.dead_letters == 0
        become(monkeypatch, secured, "adserver")
        with pytest.raises(topic_admin.TopicsError, match=r"shop-ads: .*[aA]uthorization"):
            await shopped()

    asyncio.run(scenario())


async def produce(shop: Shop, messages: list[Any]) -> None:
    """As whoever the environment says we are."""
    from aiokafka import AIOKafkaProducer

    async with AIOKafkaProducer(acks="all", **aiokafka_options(shop.settings.bootstrap)) as producer:
        for message in messages:
            name, key, value, time_ms = record_of(message)
            await producer.send_and_wait(PREFIX + name, value, key=key, timestamp_ms=time_ms)


@pytest.mark.parametrize(
    ("role", "message"),
    [("adserver", ad("ad-9")), ("monitor", click()), ("referee", ad("ad-9")), ("nobody", click())],
)
def test_who_may_not_write_does_not(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, role: str, message: Any
) -> None:
    become(monkeypatch, secured, role)
    with pytest.raises(AioKafkaError, match=r"(?i)authoriz"):
        asyncio.run(produce(Shop(settings_on(secured, home=tmp_path)), [message]))


def test_a_worker_without_rights_ends_and_says_which_it_lacks(secured: SecuredKafka, tmp_path: Path) -> None:
    shop = Shop(settings_on(secured, home=tmp_path))
    with Worker(shop, tmp_path / "worker.log", **secured.settings("nobody")) as worker:
        assert worker.status() == 1
    assert "authorization" in worker.said.lower()
    assert secured.passwords["nobody"] not in worker.said


@pytest.mark.parametrize(
    ("role", "group", "wanting"),
    [
        ("admin", GROUP, set()),
        ("worker", GROUP, {"topics"}),
        ("worker", "other", {"topics", "guarantee"}),
        ("adserver", GROUP, {"broker", "topics"}),
    ],
)
def test_the_doctor_tells_what_a_role_may_not_look_at_and_who_may(
    secured: SecuredKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, group: str, wanting: set[str]
) -> None:
    become(monkeypatch, secured, "admin")
    asyncio.run(produce(Shop(settings_on(secured, home=tmp_path)), ADS[:1]))
    become(monkeypatch, secured, role)
    checks = list(checkup(settings_on(secured).model_copy(update={"group": group})))
    # Events that could be looked at may well be wrong: other tests write here, too.
    wrong = {check.name: check for check in checks if not check.ok and not check.found.startswith("of the latest")}
    assert wrong.keys() == wanting, checks
    assert all("salience topics acls" in check.fix for check in wrong.values()), checks


# --- the connection --------------------------------------------------------------------------------------------


def connects(bootstrap: str) -> None:
    """Both libraries reach the cluster as the environment says, or one of them raises."""

    async def ask() -> None:
        async with AIOKafkaConsumer(**aiokafka_options(bootstrap)) as consumer:
            await consumer.topics()

    asyncio.run(asyncio.wait_for(ask(), DEADLINE_S))
    topic_admin.partition_counts(bootstrap, [PREFIX + topics.CLICKS])


def refused_by_both(bootstrap: str, why: str, said: pytest.LogCaptureFixture) -> None:
    """Each node says ``why`` to aiokafka, so that silence is not taken for it; librdkafka gets no answer from them."""

    async def ask() -> None:
        consumer = AIOKafkaConsumer(**aiokafka_options(bootstrap))
        try:
            await consumer.start()
        finally:
            await consumer.stop()

    said.clear()
    with pytest.raises(AioKafkaError):
        asyncio.run(asyncio.wait_for(ask(), DEADLINE_S))
    heard = [record.getMessage() for record in said.records if "Unable connect" in record.msg]
    assert len(heard) == bootstrap.count(",") + 1
    assert all(why in each for each in heard), heard
    with pytest.raises(topic_admin.TopicsError):
        topic_admin.partition_counts(bootstrap, [PREFIX + topics.CLICKS])


def test_a_broker_under_a_name_that_its_certificate_lacks_is_refused(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    become(monkeypatch, secured, "admin")
    misnamed = secured.bootstrap.replace("127.0.0.1", "localhost")
    connects(secured.bootstrap)
    refused_by_both(misnamed, "Hostname mismatch", caplog)
    monkeypatch.setenv("SALIENCE_SSL_CHECK_HOSTNAME", "false")
    connects(misnamed)  # so the name was what was wrong


def test_a_broker_of_another_authority_a_wrong_password_and_the_clear_are_refused(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    become(monkeypatch, secured, "admin")
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("SALIENCE_SSL_CA_FILE")  # the system's authorities
        refused_by_both(secured.bootstrap, "unable to get local issuer certificate", caplog)
    with monkeypatch.context() as wrong:
        file = tmp_path / "wrong"
        file.write_text("not-the-password")
        wrong.setenv("SALIENCE_SASL_PASSWORD_FILE", str(file))
        refused_by_both(secured.bootstrap, "SaslAuthenticationFailed", caplog)
    for name in secured.settings("admin"):
        monkeypatch.delenv(f"SALIENCE_{name.upper()}")
    refused_by_both(secured.bootstrap, "closed", caplog)
