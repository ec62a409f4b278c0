"""The table of topics, and what the check makes of what it sees."""

import json
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from streams import acls, asyncapi, checkup, topic_admin, topics
from streams.cli import app
from streams.settings import Settings
from streams.topic_admin import Found, Seen, compare
from streams.topics import Topic

REACH = "--bootstrap broker:9092"
BY_NAME = {topic.name: topic for topic in topics.TABLE}


def as_created(partitions: int, prefix: str = "") -> dict[str, Seen]:
    return {prefix + topic.name: Seen(topic.partitions(partitions), topic.cleanup) for topic in topics.TABLE}


def test_the_lanes_topics_have_the_lanes_partitions_and_the_others_one() -> None:
    counts = {name: topic.partitions(12) for name, topic in BY_NAME.items()}

    assert counts == {
        "clicks": 12,
        "ad-impressions": 12,
        "ads": 1,
        "control": 1,
        "placements": 12,
        "decisions": 12,
        "outcomes": 12,
        "state-changelog": 12,
        "late-events": 12,
        "dead-letters": 12,
        "campaign-metrics": 12,
        "click-layers": 12,
        "models": 1,
        "shadow-scores": 12,
        "experiment-reports": 1,
        "reviews": 1,
        "tones": 1,
        "review-state": 1,
    }


def test_what_is_a_latest_value_by_key_is_compacted_and_what_happened_is_not() -> None:
    compacted = {name for name, topic in BY_NAME.items() if topic.cleanup == "compact"}

    assert compacted == {
        "ads", "control", "placements", "state-changelog", "models", "experiment-reports", "campaign-metrics",
        "click-layers", "tones", "review-state",
    }  # fmt: skip


@pytest.mark.parametrize("topic", topics.TABLE, ids=lambda topic: topic.name)
def test_a_topic_either_ages_or_is_compacted_and_says_so(topic: Topic) -> None:
    settings = topic.settings(replication=1)

    assert settings["cleanup.policy"] == topic.cleanup
    assert settings["compression.type"] == "producer"
    assert ("retention.ms" in settings) == (topic.cleanup == "delete")


@pytest.mark.parametrize(("replication", "least"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_three_copies_lose_one_node_without_losing_writes(replication: int, least: str) -> None:
    assert {topic.settings(replication)["min.insync.replicas"] for topic in topics.TABLE} == {least}


def test_a_dead_letter_is_larger_than_the_event_it_holds() -> None:
    event = int(BY_NAME[topics.CLICKS].settings(1)["max.message.bytes"])

    assert int(BY_NAME[topics.DEAD_LETTERS].settings(1)["max.message.bytes"]) > event


def test_erased_rows_leave_the_changelog_before_their_tombstones_do() -> None:
    settings = BY_NAME[topics.CHANGELOG].settings(1)

    assert int(settings["max.compaction.lag.ms"]) < int(settings["delete.retention.ms"])


def test_what_is_kept_for_days_is_deleted_a_day_later_at_most_with_the_newest_record_of_its_segment() -> None:
    open_ms = {topic.settings(1).get("segment.ms") for topic in topics.TABLE if topic.cleanup == "delete"}
    assert open_ms == {str(topics.DAY_MS)}


def test_a_refusal_is_told_for_a_day_though_a_consent_follows_it() -> None:
    settings = BY_NAME[topics.CONTROL].settings(1)

    assert topics.DAY_MS <= int(settings["min.compaction.lag.ms"]) < int(settings["max.compaction.lag.ms"])


def test_every_topic_carries_the_prefix() -> None:
    assert topics.names("shop-") == [f"shop-{name}" for name in BY_NAME]


def test_topics_as_created_have_no_problem() -> None:
    assert compare(as_created(4, "shop-"), 4, "shop-", REACH) == []


def test_a_missing_topic_is_named_with_the_command_that_creates_it() -> None:
    seen = as_created(4, "shop-")
    del seen["shop-control"]

    (problem,) = compare(seen, 4, "shop-", REACH)

    assert (problem.topic, problem.what, problem.fails) == ("shop-control", "missing", True)
    assert problem.message == "shop-control does not exist."
    assert problem.fix == f"salience topics create {REACH} --prefix shop- --partitions 4"


def test_a_wrong_partition_count_tells_both_numbers() -> None:
    seen = as_created(4) | {"clicks": Seen(3, "delete")}

    (problem,) = compare(seen, 4, "", REACH)

    assert (problem.topic, problem.what, problem.fails) == ("clicks", "partitions", True)
    assert "3 partitions, expected 4" in problem.message
    assert "--partitions 3" in problem.message
    assert problem.fix == f"salience topics create {REACH} --prefix new- --partitions 4"


def test_a_catalogue_of_many_partitions_is_wrong_whatever_the_lanes() -> None:
    seen = as_created(4) | {"ads": Seen(4, "compact")}

    (problem,) = compare(seen, 4, "", REACH)

    assert "4 partitions, expected 1" in problem.message
    assert "say --partitions" not in problem.message


def test_a_changelog_that_deletes_is_told_with_the_command_that_mends_it() -> None:
    seen = as_created(4) | {"state-changelog": Seen(4, "delete")}

    (problem,) = compare(seen, 4, "", REACH)

    assert (problem.topic, problem.what, problem.fails) == ("state-changelog", "cleanup", True)
    assert "cleanup.policy=delete, expected compact" in problem.message
    assert problem.fix == f"salience topics create {REACH} --configure"


def test_a_config_other_than_the_tables_is_remarked_with_both_values_and_keeps_no_worker_from_running() -> None:
    changelog = BY_NAME["state-changelog"].settings(3) | {"delete.retention.ms": "86400000", "unclean": "false"}
    seen = as_created(4) | {"state-changelog": Seen(4, "compact", 3, changelog)}

    (problem,) = compare(seen, 4, "", REACH)

    assert (problem.topic, problem.what, problem.fails) == ("state-changelog", "configs", False)
    assert "state-changelog has delete.retention.ms=86400000, expected 604800000." in problem.message
    assert problem.fix == f"salience topics create {REACH} --configure"


@pytest.mark.parametrize("copies", [1, 3])
def test_configs_are_those_of_the_topics_own_copies_and_what_is_not_reported_is_not_compared(copies: int) -> None:
    told = {topic.name: topic.settings(copies) for topic in topics.TABLE}
    seen = {name: Seen(one.partitions, one.cleanup, copies, told[name]) for name, one in as_created(4).items()}
    assert compare(seen, 4, "", REACH) == []
    del told["dead-letters"]["max.message.bytes"], told["dead-letters"]["min.insync.replicas"]
    assert compare(seen, 4, "", REACH) == []


def test_the_check_remarks_a_config_and_goes_well(monkeypatch: pytest.MonkeyPatch) -> None:
    other = BY_NAME["dead-letters"].settings(1) | {"max.message.bytes": "1048588"}
    seen = as_created(4) | {"dead-letters": Seen(4, "delete", 1, other)}
    monkeypatch.setattr(topic_admin, "check", lambda *_: compare(seen, 4, "", REACH))
    told = CliRunner().invoke(app, ["topics", "check", "--partitions", "4", "--json"])
    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert (answer["ok"], [one["what"] for one in answer["problems"]]) == (True, ["configs"])
    assert "Note: dead-letters has max.message.bytes=1048588, expected 2097176." in told.stderr
    assert "are as they should be" not in told.stderr


def test_fewer_copies_than_the_brokers_could_hold_are_remarked_with_the_tool_that_makes_more() -> None:
    seen = as_created(4, "shop-") | {"shop-clicks": Seen(4, "delete", 3), "shop-ads": Seen(1, "compact", 2)}
    problems = {problem.topic: problem for problem in compare(seen, 4, "shop-", REACH, copies=3)}
    assert problems.keys() == seen.keys() - {"shop-clicks"}
    ads = problems["shop-ads"]
    assert (ads.what, ads.fails) == ("copies", False)
    assert ads.message.startswith("shop-ads has replication factor 2, expected 3. ")
    assert ads.fix.startswith("kafka-reassign-partitions.sh ")
    assert ads.fix.endswith(f"; then salience topics create {REACH} --prefix shop- --configure")


@pytest.mark.parametrize(("options", "copies"), [([], 3), (["--replication", "1"], 1)])
def test_topics_are_made_with_the_copies_that_outlive_a_broker_and_those_that_have_fewer_are_told(
    options: list[str], copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"clicks": Found("", 4, 1)}
    asked: list[int] = []
    monkeypatch.setattr(topic_admin, "found", lambda *_: there)
    monkeypatch.setattr(topic_admin, "enough_copies", lambda _: 3)

    def create(*given: Any) -> list[str]:
        asked.append(given[-1])
        return ["ads"]

    monkeypatch.setattr(topic_admin, "create", create)
    told = CliRunner().invoke(app, ["topics", "create", "--json", *options])
    answer = json.loads(told.stdout)
    assert (told.exit_code, asked, answer["replication"]) == (0, [copies], copies)
    assert [(one["topic"], one["what"], one["fails"]) for one in answer["problems"]] == [("clicks", "copies", False)]
    assert f"Replication factor of those created: {copies}{', expected 3' if copies < 3 else ''}." in told.stderr
    assert "Note: clicks has replication factor 1, expected 3." in told.stderr


@pytest.mark.parametrize(("brokers", "copies"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_as_many_copies_are_enough_as_there_are_brokers_and_three_at_most(
    brokers: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = SimpleNamespace(nodes=range(brokers))
    admin = SimpleNamespace(describe_cluster=lambda **_: _answered(cluster))
    monkeypatch.setattr(topic_admin, "_admin", lambda _: admin)
    assert topic_admin.enough_copies("b:1") == copies


def test_a_broker_that_reports_no_configs_is_said_to_and_does_not_fail() -> None:
    seen = {name: Seen(topic.partitions, None) for name, topic in as_created(4).items()}

    problems = compare(seen, 4, "", REACH)

    assert {problem.what for problem in problems} == {"unreported"}
    assert len(problems) == len(topics.TABLE)
    assert not any(problem.fails for problem in problems)


def test_several_problems_of_one_topic_are_all_told() -> None:
    seen = as_created(4) | {"placements": Seen(2, "delete")}

    assert [problem.what for problem in compare(seen, 4, "", REACH)] == ["partitions", "cleanup"]


def test_topics_that_are_there_are_told_as_they_are_and_none_is_added_beside_another_number_of_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {name: Found("", seen.partitions) for name, seen in as_created(4).items() if name != topics.OUTCOMES}
    made: list[int] = []
    monkeypatch.setattr(topic_admin, "found", lambda *_: there)
    monkeypatch.setattr(topic_admin, "enough_copies", lambda _: 1)

    def create(_bootstrap: str, lanes: int, *_: object) -> list[str]:
        made.append(lanes)
        return [topics.OUTCOMES]

    monkeypatch.setattr(topic_admin, "create", create)

    refused = CliRunner().invoke(app, ["topics", "create", "--partitions", "8", "--json"], env={"COLUMNS": "160"})

    assert refused.exit_code == 1
    assert "clicks has 4 partitions, expected 8" in refused.stderr
    rows = [line.split("│")[1:5] for line in refused.stderr.splitlines() if line.startswith("│")]
    told = {name.strip(): (count.strip(), done.strip()) for name, count, _, done in rows}
    assert (told["clicks"], told["ads"], told["outcomes"]) == (
        ("4", "was there"),
        ("1", "was there"),
        ("8", "not created"),
    )
    problems = json.loads(refused.stdout)["problems"]
    assert {one["what"] for one in problems} == {"partitions"}
    assert made == []

    same = CliRunner().invoke(app, ["topics", "create", "--partitions", "4", "--json"])
    assert (same.exit_code, json.loads(same.stdout)["created"], made) == (0, ["outcomes"], [4])


def test_a_topic_that_a_new_version_brings_is_made_beside_others_without_a_word_of_their_lanes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {name: Found("", seen.partitions) for name, seen in as_created(12).items() if name != topics.REVIEW_STATE}
    asked: list[int] = []
    monkeypatch.setattr(topic_admin, "found", lambda *_: there)
    monkeypatch.setattr(topic_admin, "enough_copies", lambda _: 1)

    def answer(found: list[Any]) -> Callable[..., list[Any]]:
        def asked_of(_bootstrap: str, lanes: int, *_: object) -> list[Any]:
            asked.append(lanes)
            return found

        return asked_of

    monkeypatch.setattr(topic_admin, "create", answer([topics.REVIEW_STATE]))
    monkeypatch.setattr(topic_admin, "check", answer([]))

    made = CliRunner().invoke(app, ["topics", "create", "--json"])
    assert (made.exit_code, json.loads(made.stdout)["created"]) == (0, ["review-state"])
    assert CliRunner().invoke(app, ["topics", "check"]).exit_code == 0
    there.clear()
    assert CliRunner().invoke(app, ["topics", "create"]).exit_code == 0
    assert asked == [12, 12, 4]


def test_where_clicks_alone_is_missing_it_is_made_like_the_topics_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {name: Found("", seen.partitions, 3) for name, seen in as_created(12).items() if name != topics.CLICKS}
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(topic_admin, "found", lambda *_: there)
    monkeypatch.setattr(topic_admin, "enough_copies", lambda _: 1)

    def answer(*given: object) -> list[Any]:
        asked.append(given)
        return []

    monkeypatch.setattr(topic_admin, "create", answer)
    monkeypatch.setattr(topic_admin, "check", answer)
    assert CliRunner().invoke(app, ["topics", "create", "--bootstrap", "b:1"]).exit_code == 0
    assert CliRunner().invoke(app, ["topics", "check", "--bootstrap", "b:1"]).exit_code == 0
    assert {check.found for check in checkup._topics(Settings(bootstrap="b:1"))} == {"all 18 there, 12 lanes"}
    assert asked == [("b:1", 12, "", 3), ("b:1", 12, ""), ("b:1", 12, "")]


class Configured:
    """An admin client of topics with so many copies each, which notes what is set on them."""

    def __init__(self, copies: Mapping[str, int]) -> None:
        self._copies, self.set = copies, dict[str, dict[str, str]]()

    def describe_topics(self, wanted: Any, **_: object) -> dict[str, Future[Any]]:
        one = {name: [SimpleNamespace(replicas=range(self._copies[name]))] for name in wanted.topic_names}
        return {name: _answered(SimpleNamespace(partitions=partitions)) for name, partitions in one.items()}

    def incremental_alter_configs(self, resources: Any, **_: object) -> dict[Any, Future[Any]]:
        for one in resources:
            self.set[one.name] = {entry.name: entry.value for entry in one.incremental_configs}
        return {one: _answered(None) for one in resources}


def _answered(value: object) -> Future[Any]:
    future = Future[Any]()
    future.set_result(value)
    return future


def test_every_topic_is_configured_for_the_copies_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = dict.fromkeys(BY_NAME, 3) | {"clicks": 1}
    admin = Configured(copies)
    monkeypatch.setattr(topic_admin, "_admin", lambda _: admin)
    monkeypatch.setattr(topic_admin, "wait_for_nodes", lambda *_: None)
    assert topic_admin.configure("b:1") == [*BY_NAME]
    assert {name: values["min.insync.replicas"] for name, values in admin.set.items()} == {
        name: "1" if name == "clicks" else "2" for name in BY_NAME
    }


@pytest.mark.parametrize("role", acls.ROLES)
def test_the_rights_of_every_role_can_be_asked_for(role: str) -> None:
    told = CliRunner().invoke(app, ["topics", "acls", "--role", role, "--json"])
    assert told.exit_code == 0, told.output
    assert len(json.loads(told.stdout)["lines"]) == len(acls.of_role(role))


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_every_line_of_rights_names_the_brokers_as_kafka_wants_it(options: list[str]) -> None:
    told = CliRunner().invoke(app, ["topics", "acls", "--bootstrap", "b1:9093,b2:9093", *options])
    lines = json.loads(told.stdout)["lines"] if options else told.stdout.splitlines()
    assert len(lines) == len(acls.LINES)
    assert all(line.startswith("kafka-acls.sh --bootstrap-server b1:9093,b2:9093 --add ") for line in lines)


def test_rights_go_to_whom_they_are_given_by_name_and_else_to_a_user_of_each_roles_name() -> None:
    def who(*options: str) -> list[str]:
        told = CliRunner().invoke(app, ["topics", "acls", *options, "--json"])
        words = [shlex.split(line) for line in json.loads(told.stdout)["lines"]]
        return list(dict.fromkeys(line[line.index("--allow-principal") + 1] for line in words))

    named = "User:CN=SALIENCE_ROLE_WORKER"
    assert who("--role", "worker", "--principal", named) == who("--principal", named) == [named]
    assert who("--role", "worker") == ["User:worker"]
    assert who() == [f"User:{role}" for role in acls.ROLES]


def test_a_worker_may_write_what_workers_send_and_no_files_of_models() -> None:
    of_others = {topics.EXPERIMENT_REPORTS, topics.TONES, topics.REVIEW_STATE}
    sent_on = {topics.CLICKS, topics.AD_IMPRESSIONS}
    written = {line.name for line in acls.of_role("worker") if (line.kind, line.operation) == ("topic", "WRITE")}
    assert written == {*asyncapi.SENT} - of_others | sent_on
    assert "models" not in written
    pushes = [line for line in acls.LINES if (line.name, line.operation) == ("models", "WRITE")]
    assert [line.role for line in pushes] == ["admin"]


def test_a_role_that_is_none_is_refused_with_those_there_are() -> None:
    told = CliRunner().invoke(app, ["topics", "acls", "--role", "king", "--json"])
    assert told.exit_code == 2
    assert json.loads(told.stdout)["error"] == f"--role king: expected one of {', '.join(acls.ROLES)}"


def test_a_wrong_setting_is_told_for_rights_too_and_no_secret_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_SEAL_SECRET", "hush-hush")
    monkeypatch.setenv("SALIENCE_SLOTS", "-1")
    told = CliRunner().invoke(app, ["topics", "acls", "--json"])
    assert told.exit_code == 2
    assert isinstance(told.exception, SystemExit)
    assert "SALIENCE_SLOTS" in json.loads(told.stdout)["error"]
    assert "hush-hush" not in told.output
