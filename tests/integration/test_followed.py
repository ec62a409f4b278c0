"""Whoever follows topics beside the workers ends where one of them is made anew, and says so; meanwhile it reads on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.brokers import Broker
from streams import topic_admin
from streams.compute import Compute
from streams.console.desk import Desk
from streams.console.tails import Tails
from streams.experiments.service import RefereeError, RefereeService
from streams.followed import MadeAnewError, MorePartitionsError
from streams.reviews.feed import ReviewFeed
from tests.builders import ad, impression
from tests.integration.lanes import DEADLINE_S, Shop, play, recreate, repartition, shop_on
from tests.integration.workers import until

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(kafka: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Of which a topic is to be made anew, under whoever looks often."""
    monkeypatch.setattr("streams.followed.LOOK_S", 0.2)
    out = shop_on(kafka, topic_prefix, tmp_path, "at_least_once")
    out.adopted = True
    return out


async def made_anew(shop: Shop, topic: str, task: asyncio.Task[None]) -> None:
    """Make ``topic`` anew under ``task``, and wait for its end; raises what that raises."""
    await asyncio.to_thread(recreate, shop.settings.bootstrap, shop.settings.topic_prefix, topic)
    await asyncio.wait_for(task, DEADLINE_S)


async def started(service: RefereeService) -> asyncio.Task[None]:
    """A referee at work, which has looked and saved."""

    async def saved() -> bool:
        return service.file.exists()

    task = asyncio.create_task(service.run())
    await until(saved, "it has looked and saved")
    return task


def test_the_consoles_tails_end_where_a_topic_is_made_anew(shop: Shop) -> None:
    async def scenario() -> None:
        compute = Compute()
        try:
            async with Tails(shop.settings.bootstrap, Desk(shop.settings, 1).tails(), compute) as tails:

                async def caught_up() -> bool:
                    return tails.caught_up

                await until(caught_up, "the topics are read")
                assert tails.task is not None
                with pytest.raises(MadeAnewError, match="placements: deleted or made anew"):
                    await made_anew(shop, "placements", tails.task)
        finally:
            compute.stop()

    play(scenario)


@pytest.mark.parametrize("topic", ["reviews", "tones", "ads", "review-state"])
def test_the_follower_of_reviews_ends_where_a_topic_is_made_anew(shop: Shop, topic: str) -> None:
    async def scenario() -> None:
        await shop.publish([ad("shoe")])
        feed = ReviewFeed(shop.settings, lambda _: None)

        async def followed() -> bool:
            return bool(feed.reviewer._brands)

        async with feed:
            task = asyncio.create_task(feed.run())
            await until(followed, "the ads are read")
            with pytest.raises(MadeAnewError, match=f"{topic}: deleted or made anew"):
                await made_anew(shop, topic, task)

    play(scenario)


@pytest.mark.parametrize("who", ["console", "reviews", "referee"])
def test_who_reads_the_ads_ends_where_they_get_a_partition_that_would_go_unread(shop: Shop, who: str) -> None:
    async def console() -> None:
        compute = Compute()
        try:
            async with Tails(shop.settings.bootstrap, Desk(shop.settings, 1).tails(), compute) as tails:
                assert tails.task is not None
                began.set()
                await tails.task
        finally:
            compute.stop()

    async def reviews() -> None:
        async with ReviewFeed(shop.settings, lambda _: None) as feed:
            began.set()
            await feed.run()

    async def referee() -> None:
        await RefereeService(shop.settings, 100, lambda _: began.set()).run()

    async def scenario() -> None:
        work = {"console": console, "reviews": reviews, "referee": referee}[who]
        task = asyncio.create_task(work())
        await asyncio.wait_for(began.wait(), DEADLINE_S)
        bootstrap, name = shop.settings.bootstrap, f"{shop.settings.topic_prefix}ads"
        await asyncio.to_thread(repartition, bootstrap, name, 2)
        with pytest.raises(MorePartitionsError, match=f"{name} has 2 partitions.*start again"):
            await asyncio.wait_for(task, DEADLINE_S)

    began = asyncio.Event()
    play(scenario)


def test_the_referee_ends_where_a_topic_is_made_anew_and_does_not_go_on_from_its_file(shop: Shop) -> None:
    def refuses(work: Coroutine[None, None, None], service: RefereeService) -> Coroutine[None, None, None]:
        async def refused() -> None:
            with pytest.raises(RefereeError, match=f"ad-impressions: deleted or made anew.*delete {service.file}"):
                await work

        return refused()

    async def scenario() -> None:
        await shop.publish([impression()])
        service, again = (RefereeService(shop.settings, 100, lambda _: None) for _ in range(2))

        task = await started(service)
        await refuses(made_anew(shop, "ad-impressions", task), service)
        await refuses(again.run(follow=False), again)
        service.file.unlink()
        await RefereeService(shop.settings, 100, lambda _: None).run(follow=False)
        assert service.file.exists()

    play(scenario)


def test_a_referee_whose_ads_were_made_anew_goes_on_from_its_file_when_it_is_started_again(shop: Shop) -> None:
    async def scenario() -> None:
        await shop.publish([impression()])
        service, again = (RefereeService(shop.settings, 100, lambda _: None) for _ in range(2))

        task = await started(service)
        with pytest.raises(RefereeError, match=r"ads: deleted or made anew.*start the referee again"):
            await made_anew(shop, "ads", task)
        await again.run(follow=False)
        assert again._referee.people.number == 1

    play(scenario)


@asynccontextmanager
async def unanswered(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Within, looks at topics get no answer, and one is under way: the bootstrap broker is away, which they ask, but
    those that lead the partitions answer.
    """
    looks, silent, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def no_answer(*_asked: object) -> None:
        loop.call_soon_threadsafe(looks.set)
        silent.wait()
        raise topic_admin.TopicsError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(topic_admin, "found", no_answer)
        try:
            await asyncio.wait_for(looks.wait(), DEADLINE_S)
            yield
        finally:
            silent.set()


async def reads_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, task: asyncio.Task[None], there: Callable[[], int]
) -> None:
    """An ad that is published while looks get no answer is read by ``task``, after which ``there`` is more."""
    before = there()

    async def more() -> bool:
        return there() > before

    async with unanswered(monkeypatch):
        await shop.publish([ad("tent")])
        await until(more, "the ad is read")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_consoles_tails_read_on_while_the_bootstrap_broker_is_away(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        compute, desk = Compute(), Desk(shop.settings, 1)
        try:
            async with Tails(shop.settings.bootstrap, desk.tails(), compute) as tails:
                assert tails.task is not None
                await reads_on(shop, monkeypatch, tails.task, lambda: len(desk.catalogue))
        finally:
            compute.stop()

    play(scenario)


def test_reviews_are_read_on_while_the_bootstrap_broker_is_away(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        await shop.publish([ad("shoe")])

        async def followed() -> bool:
            return bool(feed.reviewer._brands)

        async with ReviewFeed(shop.settings, lambda _: None) as feed:
            task = asyncio.create_task(feed.run())
            await until(followed, "the ads are read")
            await reads_on(shop, monkeypatch, task, lambda: len(feed.reviewer._brands))

    play(scenario)


def test_the_referee_reads_on_while_the_bootstrap_broker_is_away(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        service = RefereeService(shop.settings, 100, lambda _: None)
        task = await started(service)
        await reads_on(shop, monkeypatch, task, lambda: len(service._referee._categories))

    play(scenario)
