"""Sends the demo's messages without waiting for each delivery, and stops after one has failed."""

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from aiokafka import AIOKafkaProducer

from streams import topics
from streams.connection import aiokafka_options
from streams.leaving import leave, start
from streams.settings import Settings
from streams.wire import Ad, Click, Impression, Review, encode_json


class Outbox:
    """A producer of keyed messages; topics are named without prefix."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.topic_prefix
        self._producer = AIOKafkaProducer(acks="all", **aiokafka_options(settings.bootstrap))
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        await start(self._producer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await leave("the producer of the demo", self._producer.stop())

    async def send(self, topic: str, key: str, value: Ad | Click | Impression | Review | None) -> None:
        """Hand one message to the producer; None is a tombstone. Raises the error of an earlier one that failed."""
        self._raise_failure()
        record = None if value is None else encode_json(value)
        future = await self._producer.send(self._prefix + topic, record, key=key.encode())
        future.add_done_callback(self._delivered)

    async def flush(self) -> None:
        """Wait until all are delivered. Raises the error of one that failed."""
        await self._producer.flush()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _delivered(self, future: "asyncio.Future[Any]") -> None:
        if not future.cancelled():
            self._failure = self._failure or future.exception()


async def put_ads(settings: Settings, ads: Mapping[str, Ad | None]) -> None:
    """Put ads on their topic, by id; None takes an ad off. Raises the error of one that failed."""
    async with Outbox(settings) as outbox:
        for ad_id, ad in ads.items():
            await outbox.send(topics.ADS, ad_id, ad)
        await outbox.flush()
