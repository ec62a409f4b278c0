"""Asks every broker node, one by one: each learns a little later of what the controller has accepted.

Other clients ask any node they reach. That tells what one node knows, but not whether all nodes know it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from collections.abc import Set as AbstractSet

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NoError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.admin import DescribeAclsRequest, DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from confluent_kafka.admin import AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from streams.connection import aiokafka_options

LOOK_AGAIN_S = 0.05
"""Pause between two rounds; a node learns of changes within milliseconds."""

Says = Callable[[AIOKafkaClient, int], Awaitable[bool]]
"""A condition: whether the node of this number meets it."""
Right = tuple[int, str, int, int]
"""Resource type, name, pattern type and operation, in Kafka's numbers, which librdkafka's are as well."""


async def until_all(bootstrap: str, says: Says, answer_s: float, within_s: float) -> None:
    """Wait until every node ``says`` so; ``answer_s`` is for each answer, ``within_s`` for all of it.

    Raises `TimeoutError`, and aiokafka's ``KafkaError`` of a node that fails.
    """
    client = AIOKafkaClient(**aiokafka_options(bootstrap), request_timeout_ms=int(answer_s * 1000))
    try:
        async with asyncio.timeout(within_s):
            await client.bootstrap()
            lacking = {node.nodeId for node in client.cluster.brokers()}
            while lacking:
                lacking = {node for node in lacking if not await says(client, node)}
                await asyncio.sleep(LOOK_AGAIN_S if lacking else 0)
    finally:
        await client.close()


def knowing(topics: Collection[str]) -> Says:
    """Whether a node knows a leader for every partition of ``topics``."""

    async def says(client: AIOKafkaClient, node: int) -> bool:
        # all topics: a node that is asked for a missing one by name may create it
        answer = await client.send(node, MetadataRequest(allow_auto_topic_creation=False))
        led = {
            name
            for error_code, name, *_, partitions in answer.topics
            if not error_code and all(leader >= 0 for _error_code, _number, leader, *_ in partitions)
        }
        return led.issuperset(topics)

    return says


def holding(config: str, values: Mapping[str, str]) -> Says:
    """Whether a node reports these ``values`` of ``config`` by topic; a topic or config that it lacks is ignored."""

    async def says(client: AIOKafkaClient, node: int) -> bool:
        every = None  # the embedded broker hangs up when asked for a config by name
        asked = DescribeConfigsRequest([(ResourceType.TOPIC.value, name, every) for name in values])
        answer = await client.send(node, asked)
        reported = set()
        for error_code, error, _kind, topic, entries in answer.resources:
            if error_code not in (NoError.errno, UnknownTopicOrPartitionError.errno):
                raise for_code(error_code)(error)
            reported |= {value == values[topic] for name, value, *_ in entries if name == config}
        return False not in reported

    return says


def giving(principal: str, rights: AbstractSet[Right]) -> Says:
    """Whether a node grants ``principal`` all of ``rights``."""
    any_kind, any_pattern, any_operation = ResourceType.ANY, ResourcePatternType.ANY, AclOperation.ANY
    allowed = any_operation.value, AclPermissionType.ALLOW.value

    async def says(client: AIOKafkaClient, node: int) -> bool:
        answer = await client.send(
            node, DescribeAclsRequest(any_kind.value, None, any_pattern.value, principal, None, *allowed)
        )
        if answer.error_code:
            raise for_code(answer.error_code)(answer.error_message)
        return rights <= {
            (kind, name, pattern, operation)
            for kind, name, pattern, held in answer.resources
            for _principal, _host, operation, _permission in held
        }

    return says
