"""What a poll asks of a broker, and what it makes of the answers, among them that there is none."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from itertools import count, cycle
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition

from streams.lag import poller
from streams.lag.board import Partition
from streams.lag.poller import LagError, Poller
from streams.lag.watch import LagWatch, StalledError

CLICKS, MORE = Partition("shop-clicks", 0), Partition("shop-clicks", 1)
UNKNOWN = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
REFUSED = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
SILENT = KafkaException(KafkaError(KafkaError._TIMED_OUT))


def answer(found: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)
    return future


def member(*partitions: Partition, host: str = "/10.0.0.1", joined: bool = True) -> SimpleNamespace:
    assigned = SimpleNamespace(topic_partitions=[TopicPartition(*each) for each in partitions]) if joined else None
    return SimpleNamespace(client_id="w", host=host, assignment=assigned)


class Admin:
    """An admin client with groups, what they have committed, and where logs end: a number or what is wrong."""

    def __init__(
        self,
        committed: Mapping[str, Mapping[Partition, int] | Exception],
        ends: Mapping[Partition, int | Exception],
        members: Collection[SimpleNamespace] = (),
        state: ConsumerGroupState = ConsumerGroupState.STABLE,
        *,
        reached: bool = True,
    ) -> None:
        self.committed, self.ends, self.members, self.state = committed, ends, members, state
        self.reached, self.asked = reached, list[str]()
        self.hidden, self.away, self.bounds_s = set[str](), set[str](), set[float]()
        """Groups that no broker lists, as one of them is away, and those whose coordinator that one is."""
        self.nodes: set[int] | Exception = {0, 1, 2}
        self.forgetful = False
        """Whether the client no longer knows of the broker that is away, and hears no error of it."""

    def describe_cluster(self, request_timeout: float) -> "Future[Any]":
        self.bounds_s.add(request_timeout)
        if isinstance(self.nodes, Exception):
            return answer(self.nodes)
        return answer(SimpleNamespace(nodes=[SimpleNamespace(id=node) for node in self.nodes]))

    def list_consumer_groups(self, request_timeout: float) -> "Future[Any]":
        self.bounds_s.add(request_timeout)
        listed = [SimpleNamespace(group_id=name) for name in self.committed if name not in self.hidden]
        errors = [SILENT.args[0]] if self.hidden and not self.forgetful else []
        return answer(SimpleNamespace(valid=listed, errors=errors))

    def describe_consumer_groups(self, names: list[str], request_timeout: float) -> dict[str, "Future[Any]"]:
        assert len(names) == len(set(names)), "the client takes none twice"
        self.bounds_s.add(request_timeout)
        self.asked += [name for name in names if name not in self.away]
        told = SimpleNamespace(members=self.members, state=self.state)
        return {name: answer(SILENT if name in self.away else told) for name in names}

    def list_consumer_group_offsets(
        self, groups: list[ConsumerGroupTopicPartitions], **_: object
    ) -> dict[str, "Future[Any]"]:
        (name,) = (group.group_id for group in groups)
        assert name in self.asked, "its coordinator is to be known"
        found = self.committed.get(name, {})
        if isinstance(found, Exception):
            return {name: answer(found)}
        offsets = [TopicPartition(*partition, offset) for partition, offset in found.items()]
        return {name: answer(SimpleNamespace(topic_partitions=offsets))}

    def list_offsets(self, wanted: Mapping[TopicPartition, object], **_: object) -> dict[Any, "Future[Any]"]:
        found = {tp: self.ends[Partition(tp.topic, tp.partition)] for tp in wanted}
        return {
            tp: answer(end if isinstance(end, Exception) else SimpleNamespace(offset=end)) for tp, end in found.items()
        }

    def list_topics(self, **_: object) -> None:
        if not self.reached:
            raise SILENT


Ask = Callable[..., Poller]
NEVER = TimeoutError()
"""A request that even the client's own timeout does not end."""


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Ask:
    def ask(admin: Admin, groups: Collection[str] | None = None, prefix: str = "") -> Poller:
        monkeypatch.setattr("streams.lag.poller.AdminClient", lambda _: admin)
        moments = cycle((1_000, 1_500))
        return Poller("nowhere:1", groups, prefix, lambda: next(moments))

    return ask


def clients_of(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> list[Admin]:
    """Those made from here on, of the same groups."""
    clients: list[Admin] = []

    def client(_options: object) -> Admin:
        clients.append(admin)
        return admin

    monkeypatch.setattr(poller, "AdminClient", client)
    return clients


def test_a_poll_tells_members_owners_offsets_and_log_ends_of_the_moment_between(asking: Ask) -> None:
    admin = Admin({"g": {CLICKS: 0, MORE: -1001}}, {CLICKS: 9, MORE: 5}, [member(CLICKS, MORE), member(joined=False)])
    seen = asking(admin).poll()
    assert (seen.time_ms, seen.ends) == (1_250, {CLICKS: 9, MORE: 5})
    group = seen.groups["g"]
    assert (group.state, group.members, group.committed) == ("stable", 2, {CLICKS: 0})
    assert group.owners == {CLICKS: "w@10.0.0.1", MORE: "w@10.0.0.1"}


def test_topics_without_the_prefix_are_not_looked_at(asking: Ask) -> None:
    other = Partition("other", 0)
    admin = Admin({"g": {CLICKS: 1, other: 2}}, {CLICKS: 9}, [member(CLICKS, other)])
    seen = asking(admin, prefix="shop-").poll()
    assert (seen.groups["g"].committed, list(seen.groups["g"].owners or ())) == ({CLICKS: 1}, [CLICKS])
    assert seen.ends == {CLICKS: 9}


def test_a_group_that_is_named_twice_is_asked_for_once_and_one_that_does_nothing_is_not_told(asking: Ask) -> None:
    admin = Admin({"g": {CLICKS: 1}}, {CLICKS: 9}, state=ConsumerGroupState.DEAD)
    assert list(asking(admin, ["g", "idle", "g"]).poll().groups) == ["g"]
    assert admin.asked == ["g", "idle"]
    assert asking(Admin({}, {})).poll().groups == {}
    assert asking(Admin({"g": {CLICKS: 1}}, {}), []).poll().groups == {}
    assert list(asking(Admin({"new": {}}, {}, [member()])).poll().groups) == ["new"]


def test_a_group_without_a_name_which_the_client_cannot_ask_for_is_left_out(asking: Ask) -> None:
    admin = Admin({"": {MORE: 1}, "g": {CLICKS: 1}}, {CLICKS: 9, MORE: 9})
    assert list(asking(admin).poll().groups) == ["g"]
    assert admin.asked == ["g"]


def test_whoever_asks_for_a_group_without_a_name_alone_is_told_of_none() -> None:
    assert Poller("127.0.0.1:1", [""]).poll().groups == {}


@pytest.mark.parametrize(
    ("state", "members", "told"),
    [
        (ConsumerGroupState.STABLE, [], (None, None)),
        (ConsumerGroupState.EMPTY, [], (0, {})),
        (ConsumerGroupState.DEAD, [], (0, {})),
        (ConsumerGroupState.STABLE, [member(MORE)], (1, {MORE: "w@10.0.0.1"})),
    ],
)
def test_a_broker_that_calls_a_group_stable_and_names_nobody_does_not_tell_members(
    asking: Ask, state: ConsumerGroupState, members: list[SimpleNamespace], told: tuple[object, object]
) -> None:
    group = asking(Admin({"g": {CLICKS: 1}}, {CLICKS: 9, MORE: 9}, members, state)).poll().groups["g"]
    assert (group.members, group.owners) == told


def test_partitions_that_are_gone_or_have_no_leader_have_no_log_end(asking: Ask) -> None:
    committed = {"g": {CLICKS: 1, MORE: 1}}
    assert asking(Admin(committed, {CLICKS: UNKNOWN, MORE: 5})).poll().ends == {MORE: 5}
    assert asking(Admin(committed, {CLICKS: UNKNOWN, MORE: UNKNOWN})).poll().ends == {}
    assert asking(Admin(committed, {CLICKS: UNKNOWN, MORE: 5}, reached=False)).poll().ends == {MORE: 5}


def test_a_leader_that_does_not_tell_where_its_logs_end_is_told_as_lacking_and_a_topic_that_is_gone_is_not(
    asking: Ask,
) -> None:
    """Else a group's sum lacks them, and looks whole."""
    gone = Partition("shop-gone", 0)
    seen = asking(Admin({"g": {CLICKS: 1, MORE: 1, gone: 1}}, {CLICKS: 9, MORE: SILENT, gone: UNKNOWN})).poll()
    assert (seen.ends, seen.lacking) == ({CLICKS: 9}, "no broker tells where shop-clicks[1] ends (Local: Timed out)")


def test_brokers_that_fall_silent_before_they_tell_the_log_ends_are_a_poll_that_failed(asking: Ask) -> None:
    admin = Admin({"g": {CLICKS: 1}}, {CLICKS: SILENT}, reached=False)
    with pytest.raises(LagError, match="nowhere:1 does not tell the groups' lag: Local: Timed out"):
        asking(admin).poll()


def test_an_error_without_words_is_told_by_its_name(asking: Ask) -> None:
    wordless = KafkaException(KafkaError(KafkaError._TRANSPORT, ""))
    with pytest.raises(LagError, match=r"nowhere:1 does not tell the groups' lag: _TRANSPORT\. It needs"):
        asking(Admin({"g": wordless}, {})).poll()
    half = asking(Admin({"g": wordless, "other": {CLICKS: 1}}, {CLICKS: 2})).poll()
    assert half.lacking == "the coordinator of g does not answer (_TRANSPORT)"


def test_a_coordinator_that_does_not_answer_is_a_poll_that_failed_and_nothing_committed_for_a_watch(
    asking: Ask,
) -> None:
    with pytest.raises(LagError, match="Timed out"):
        asking(Admin({"g": SILENT}, {})).poll()
    assert asking(Admin({"g": SILENT}, {})).committed("g") == {}
    assert asking(Admin({"g": {CLICKS: 7}}, {})).committed("g") == {CLICKS: 7}


def test_while_a_broker_is_away_what_others_list_is_told_and_of_what_it_listed_nothing_is_asked_or_forgotten(
    asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin({"g": {CLICKS: 1}, "h": {MORE: 1}}, {CLICKS: 9, MORE: 9})
    asked = asking(admin)
    assert (asked.poll().lacking, admin.bounds_s) == ("", {poller.ANSWER_S})
    admin.hidden, admin.bounds_s, admin.asked = {"h"}, set(), []
    clients = clients_of(admin, monkeypatch)
    for polls in (1, 2):
        seen = asked.poll()
        assert ([*seen.groups], {*seen.unasked}, admin.asked) == (["g"], {"h"}, ["g"] * polls)
        assert seen.lacking == "a broker does not list its groups (Local: Timed out); no broker lists h now"
        assert len(clients) == polls, "a client that runs goes on asking a node that has gone"
    assert admin.bounds_s == {poller.PACE_S}
    admin.hidden = set()
    whole = asked.poll()
    assert ([*whole.groups], [*whole.unasked], whole.lacking, len(clients)) == (["g", "h"], [], "", 2)


def test_a_client_that_has_forgotten_the_broker_that_is_away_forgets_no_group_of_it(asking: Ask) -> None:
    admin = Admin({"g": {CLICKS: 1}, "h": {MORE: 1}, "i": {}}, {CLICKS: 9, MORE: 9})
    asked = asking(admin)
    asked.poll()
    admin.hidden, admin.nodes, admin.forgetful = {"h", "i"}, {0, 2}, True
    for _ in range(3):
        seen = asked.poll()
        assert ([*seen.groups], {*seen.unasked}) == (["g"], {"h", "i"})
        assert seen.lacking == "no broker lists h and 1 more now"
    admin.hidden, admin.nodes = set(), {0, 1, 2}
    whole = asked.poll()
    assert ([*whole.groups], [*whole.unasked], whole.lacking) == (["g", "h"], [], "")


def test_groups_that_are_deleted_one_after_the_other_while_every_broker_is_there_are_not_lacking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin = Admin({f"retired-{number}": {CLICKS: number} for number in range(8)} | {"g": {CLICKS: 1}}, {CLICKS: 9})
    monkeypatch.setattr(poller, "AdminClient", lambda _: admin)
    clock = count(1_000, 10_000)
    asked = Poller("nowhere:1", clock=lambda: next(clock) // 3)  # three times a poll
    assert asked.poll().lacking == ""
    for number in range(8):
        admin.committed = {name: found for name, found in admin.committed.items() if name != f"retired-{number}"}
        for _ in range(2):
            seen = asked.poll()
            assert f"retired-{number}" in seen.unasked, "it may have gone to another broker, and its history is kept"
            assert seen.lacking == ""
    admin.nodes = {0, 1}
    assert asked.poll().lacking == "no broker lists retired-7 now"


def test_where_nobody_says_which_brokers_there_are_the_groups_that_are_listed_are_told(asking: Ask) -> None:
    admin = Admin({"g": {CLICKS: 1}}, {CLICKS: 9})
    admin.nodes = SILENT
    seen = asking(admin).poll()
    assert ([*seen.groups], seen.lacking) == (["g"], "a broker does not list its groups (Local: Timed out)")


def test_a_group_whose_coordinator_is_away_takes_no_other_with_it_and_is_asked_for_by_another_client(
    asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin({"g": {CLICKS: 1}, "h": {MORE: 1}, "i": {}}, {CLICKS: 9, MORE: 9})
    admin.away = {"h", "i"}
    asked = asking(admin)
    clients = clients_of(admin, monkeypatch)
    seen = asked.poll()
    assert ([*seen.groups], {*seen.unasked}) == (["g"], {"h", "i"})
    assert seen.lacking == "the coordinator of h and 1 more does not answer (Local: Timed out)"
    admin.away.add("g")
    with pytest.raises(LagError, match="Timed out"):
        asked.poll()
    assert len(clients) == 2, "one a poll"


@pytest.mark.parametrize("refused", ["a", "z"])
def test_where_the_one_group_that_may_be_looked_at_is_silent_it_is_that_which_is_told_and_mended(
    asking: Ask, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    admin = Admin({"g": SILENT, refused: REFUSED}, {})
    asked = asking(admin)
    clients = clients_of(admin, monkeypatch)
    with pytest.raises(LagError, match="Timed out"):
        asked.poll()
    assert len(clients) == 1


def test_groups_that_may_not_be_looked_at_are_told_as_such_and_asked_for_by_the_same_client(
    asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin({"g": {CLICKS: 1}, "payroll": REFUSED, "wages": REFUSED}, {CLICKS: 9})
    asked = asking(admin)
    monkeypatch.delattr(poller, "AdminClient")  # whoever made another would fail
    for _ in range(2):
        seen = asked.poll()
        assert ([*seen.groups], {*seen.unasked}) == (["g"], {"payroll", "wages"})
        why = "payroll and 1 more may not be looked at: grant Describe on the groups, or name others: --group"
        assert seen.lacking == why
    admin.committed = {"payroll": REFUSED}
    with pytest.raises(LagError, match=r"Group authorization failed.*Describe on the groups"):
        asked.poll()


def test_more_partitions_than_are_kept_are_refused_and_so_many_are_not(
    asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "PARTITIONS_MAX", 2)
    ends = {Partition("shop-clicks", number): 9 for number in range(3)}
    assert len(asking(Admin({"g": {CLICKS: 1}, "h": {MORE: 1}}, ends)).poll().ends) == 2
    with pytest.raises(LagError, match="3 partitions of 1 groups, at most 2"):
        asking(Admin({"g": {CLICKS: 1}}, ends, [member(MORE, Partition("shop-clicks", 2))])).poll()


def watching(admin: Admin, asking: Ask, partitions: list[Partition]) -> LagWatch:
    asking(admin)
    watch = LagWatch("nowhere:1", "shop-", "g")
    watch._partitions = partitions
    return watch


def test_a_watch_counts_what_the_event_topics_lanes_have_consumed_and_are_behind(asking: Ask) -> None:
    imps = Partition("shop-ad-impressions", 0)
    committed = {"g": {CLICKS: 7, imps: 12, Partition("shop-ads", 3): 50}}
    watch = watching(Admin(committed, {CLICKS: 9, MORE: 4, imps: 10}), asking, [CLICKS, MORE, imps])
    lag = watch._look()
    assert (lag.consumed, lag.behind, lag.lanes) == (19, 6, 1)


def test_a_watch_of_partitions_that_stay_without_a_leader_says_which(
    asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.lag.watch.ANSWER_S", 0.0)
    watch = watching(Admin({"g": {CLICKS: 7}}, {CLICKS: 9, MORE: UNKNOWN}), asking, [CLICKS, MORE])
    with pytest.raises(StalledError, match=r"no leader for \[Partition\(topic='shop-clicks', number=1\)\]"):
        watch._look()


def test_a_request_that_never_ends_is_a_broker_that_is_silent(asking: Ask) -> None:
    with pytest.raises(LagError, match="nowhere:1 does not tell the groups' lag"):
        asking(Admin({"g": NEVER}, {})).poll()
    assert asking(Admin({"g": NEVER}, {})).committed("g") == {}
    assert asking(Admin({}, {CLICKS: NEVER, MORE: 3})).log_ends([CLICKS, MORE]) == {MORE: 3}
    with pytest.raises(KafkaException):
        asking(Admin({}, {CLICKS: NEVER}, reached=False)).log_ends([CLICKS])
