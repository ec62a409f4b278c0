"""Every node of the brokers, asked one by one: what a controller has accepted, each of them hears of a little later.

Other clients ask whichever node they reach: well for what a node knows, and not for whether all of them do.
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
"""A node hears within milliseconds."""

Says = Callable[[AIOKafkaClient, int], Awaitable[bool]]
"""Whether a node, by its number, says so."""
Right = tuple[int, str, int, int]
"""Resource type, name, pattern type and operation, in Kafka's numbers, which librdkafka's are as well."""


async def until_all(bootstrap: str, says: Says, within_s: float) -> None:
    """Wait until every node says so. Raises `TimeoutError`, and aiokafka's ``KafkaError`` of a node that fails."""
    client = AIOKafkaClient(**aiokafka_options(bootstrap), request_timeout_ms=int(within_s * 1000))
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
    """Whether it knows a leader of every partition of ``topics``."""

    async def says(client: AIOKafkaClient, node: int) -> bool:
        # all that there are: a node that is asked for one by its name may make it
        answer = await client.send(node, MetadataRequest(allow_auto_topic_creation=False))
        led = {
            name
            for error_code, name, *_, partitions in answer.topics
            if not error_code and all(leader >= 0 for _error_code, _number, leader, *_ in partitions)
        }
        return led.issuperset(topics)

    return says


def holding(config: str, values: Mapping[str, str]) -> Says:
    """Whether it reports these ``values`` of a config by topic; of a topic or config that it does not have, any."""

    async def says(client: AIOKafkaClient, node: int) -> bool:
        every = None  # asked for one by its name the embedded broker hangs up
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
    """Whether it lets ``principal`` do all of ``rights``."""
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
