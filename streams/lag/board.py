"""The lag of all groups over all polls: observations in, reports out. Nothing here asks a broker or a clock."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import msgspec

from streams.lag.arithmetic import LogEnds, PartitionLag, Rules, Sample, Status, Track


class Partition(NamedTuple):
    """A topic's partition."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class GroupSeen:
    """A group in one poll. ``owners``: client id and host per partition.

    ``owners`` and the number of ``members`` are None where the broker does not tell.
    """

    state: str
    members: int | None
    committed: Mapping[Partition, int]
    owners: Mapping[Partition, str] | None

    @property
    def partitions(self) -> set[Partition]:
        """The partitions that the group has committed offsets of, or owns."""
        return {*self.committed, *(self.owners or ())}


@dataclass(frozen=True, slots=True)
class Observation:
    """One poll. ``ends`` lacks partitions whose log end is unknown, for example where a topic is gone.

    ``unasked``: groups that could not be asked, because their broker is away, or they are moving. ``lacking``: what the
    poll could not learn, and why; "" if nothing. Groups that move, or were deleted, while every broker is there do not
    count as lacking.
    """

    time_ms: int
    groups: Mapping[str, GroupSeen]
    ends: Mapping[Partition, int]
    unasked: Collection[str] = frozenset()
    lacking: str = ""


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """Partitions taken together: records and rates summed; times and statuses are the worst."""

    status: Status
    partitions: int
    lag: int
    time_lag_s: float
    time_lag_at_least: bool
    consumed_per_s: float
    produced_per_s: float
    catch_up_s: float | None


class GroupLag(msgspec.Struct, frozen=True, kw_only=True):
    """A group's lag: in total, per topic, per partition. ``members``: None where the broker does not tell."""

    group: str
    state: str
    members: int | None
    total: Sum
    topics: dict[str, Sum]
    partitions: tuple[PartitionLag, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one poll. ``watched_s``: time since the first poll."""

    watched_s: float
    groups: tuple[GroupLag, ...]

    @property
    def worst(self) -> Status:
        """The worst status of any partition; UNKNOWN where there is no group."""
        return worst(group.total.status for group in self.groups) if self.groups else Status.UNKNOWN


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of ``statuses``; OK where there are none."""
    order = list(Status)
    return max(statuses, key=order.index, default=Status.OK)


class Board:
    """History of every group's partitions; bounded by the partitions in the last observation."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._since_ms: int | None = None
        self._ends: dict[Partition, LogEnds] = {}
        self._tracks: dict[tuple[str, Partition], Track] = {}

    def observe(self, seen: Observation) -> Report:
        """Take a newer observation. What it lacks is forgotten, except for groups that could not be asked."""
        if self._since_ms is None:
            self._since_ms = seen.time_ms
        tracks = self._tracks
        self._tracks = {place: track for place, track in tracks.items() if place[0] in seen.unasked}
        held = {*seen.ends}.union(*(group.partitions for group in seen.groups.values()))  # even without a leader
        held |= {partition for _, partition in self._tracks}
        self._ends = {partition: self._ends.get(partition) or LogEnds() for partition in held}
        for partition, end in seen.ends.items():
            self._ends[partition].add(seen.time_ms, end)
        groups = tuple(self._group(name, group, seen, tracks) for name, group in sorted(seen.groups.items()))
        return Report(watched_s=(seen.time_ms - self._since_ms) / 1000, groups=groups)

    def _group(
        self, name: str, group: GroupSeen, seen: Observation, before: Mapping[tuple[str, Partition], Track]
    ) -> GroupLag:
        lags = []
        for partition in sorted(group.partitions):
            owner = (group.owners or {}).get(partition)
            committed, end = group.committed.get(partition), seen.ends.get(partition)
            track = self._tracks[name, partition] = before.get((name, partition)) or Track(self._rules)
            track.add(Sample(seen.time_ms, committed, end, owned=owner is not None))
            lags.append(track.lag(*partition, self._ends[partition], owner))
        return GroupLag(
            group=name,
            state=group.state,
            members=group.members,
            total=_sum(lags),
            topics={topic: _sum(list(of)) for topic, of in groupby(lags, lambda lag: lag.topic)},  # lags are sorted
            partitions=tuple(lags),
        )


def time_lag_of(lags: Sequence[PartitionLag]) -> tuple[float | None, bool]:
    """The longest known time lag of partitions together, None where there is none; and whether it is at least that."""
    known = [(lag.time_lag_s, lag.time_lag_at_least) for lag in lags if lag.time_lag_s is not None]
    return max(known, default=(None, False))


def _sum(lags: list[PartitionLag]) -> Sum:
    time_lag_s, at_least = time_lag_of(lags)
    catch_ups = [lag.catch_up_s for lag in lags if lag.lag is not None]
    return Sum(
        status=worst(lag.status for lag in lags),
        partitions=len(lags),
        lag=sum(lag.lag or 0 for lag in lags),
        time_lag_s=time_lag_s or 0.0,
        time_lag_at_least=at_least,
        consumed_per_s=round(sum(lag.consumed_per_s for lag in lags), 3),
        produced_per_s=round(sum(lag.produced_per_s for lag in lags), 3),
        catch_up_s=None if None in catch_ups else max((each for each in catch_ups if each is not None), default=0.0),
    )
