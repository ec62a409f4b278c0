"""The table of rights: committed as it is, for every topic there is, and never more than a role's job."""

import shlex
from pathlib import Path

from streams import acls, asyncapi, topics
from streams.lanes.outbox import transactional_id
from streams.settings import Settings

COMMITTED = Path(__file__).parents[2] / "deploy" / "ACLS.md"


def test_the_committed_table_is_in_step() -> None:
    assert COMMITTED.read_text() == acls.table(), "make it anew: salience topics acls --markdown > deploy/ACLS.md"


def test_every_topic_is_some_roles_to_read_and_only_of_the_table() -> None:
    named = {line.name for line in acls.LINES if line.kind == "topic"}
    assert named == set(topics.names())


def test_nobody_but_the_cluster_s_owner_changes_rights_or_deletes() -> None:
    assert {line.operation for line in acls.LINES} <= {"READ", "WRITE", "DESCRIBE", "CREATE", "ALTER_CONFIGS"}
    assert not [line for line in acls.of_role("monitor") if line.operation != "DESCRIBE"]


def test_a_right_on_transactions_covers_the_lanes_alone() -> None:
    settings = Settings(bootstrap="b:9093", topic_prefix="shop-", group="engine")
    (line,) = [line for line in acls.of_role("worker") if line.kind == "transactional_id"]
    assert acls.resource(line, settings) == ("shop-engine-lane-", True)
    assert (transactional_id(settings, "doctor") or "").startswith("shop-engine-lane-")
    assert acls.command(line, "User:w", settings) == (
        "kafka-acls.sh --bootstrap-server b:9093 --add --allow-principal User:w --operation Write "
        "--transactional-id shop-engine-lane- --resource-pattern-type prefixed"
    )


def test_topics_and_transactions_carry_the_prefix_and_the_group_is_as_it_is_set() -> None:
    settings = Settings(topic_prefix="shop-", group="engine")
    of_reviewer = {acls.resource(line, settings) for line in acls.of_role("reviewer")}
    assert of_reviewer >= {("shop-reviews", False), ("shop-review-reader", False)}
    assert ("engine", False) in {acls.resource(line, settings) for line in acls.of_role("monitor")}


def test_an_operation_of_two_words_is_written_as_kafka_acls_reads_it() -> None:
    line = next(line for line in acls.of_role("admin") if line.operation == "ALTER_CONFIGS")
    assert "--operation AlterConfigs --topic" in acls.command(line, "User:a", Settings())


def test_a_principal_and_a_group_of_several_words_are_one_word_each_to_the_shell() -> None:
    (line,) = [line for line in acls.of_role("monitor") if line.kind == "group"]
    words = shlex.split(acls.command(line, "User:CN=a shop's worker", Settings(group="a shop's")))
    assert words[words.index("--allow-principal") + 1] == "User:CN=a shop's worker"
    assert words[words.index("--group") + 1] == "a shop's"


def test_workers_and_the_reader_of_reviews_receive_by_the_asyncapi_document_what_they_may_read() -> None:
    lines = [*acls.of_role("worker"), *acls.of_role("reviewer")]
    read = {line.name for line in lines if (line.kind, line.operation) == ("topic", "READ")}
    assert {*asyncapi.RECEIVED} == read - {topics.DEAD_LETTERS}  # the reader's letters go there
