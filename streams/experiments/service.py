"""The referee's process: reads the topics, publishes reports, and ends experiments that break a guardrail.

It is one process beside the workers and does not need them to run. Impressions are read before rows and outcomes, so
that an exposure is known before the row that holds it. What the referee knows is saved in a file with the offsets up to
which it has read; without that file it begins where the topics do.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, OffsetOutOfRangeError

from scoring.rows import RowError, decode_rows
from streams.aside import aside
from streams.clock import tick_ms, wall_ms
from streams.connection import aiokafka_options
from streams.control import Control, publish
from streams.control_checkup import without_people
from streams.control_wire import Allocation, ControlMessage, ExperimentSetting
from streams.decode import Record
from streams.experiments.changelog import Changelog
from streams.experiments.referee import Referee
from streams.experiments.registry import stop
from streams.experiments.report import ExperimentReport, breached, encode_report, report_of
from streams.experiments.store import Offsets, StoreError, alone, load, save
from streams.experiments.vitals import Vitals
from streams.experiments.watched import Watched
from streams.fatal import describe
from streams.fetching import fetch
from streams.followed import Followed, MadeAnewError
from streams.leaving import at_work, sending
from streams.mendable import MendableError
from streams.privacy.consent import Gate
from streams.privacy.requests import Requests
from streams.reading import Patience, groupless, log_ends, partitions_of
from streams.settings import Settings
from streams.topics import AD_IMPRESSIONS, ADS, CHANGELOG, CONTROL, EXPERIMENT_REPORTS, OUTCOMES

log = structlog.get_logger()

POLL_MS = 100
RECORDS_PER_READ = 5_000

M = TypeVar("M", bound=ControlMessage)


class RefereeError(MendableError):
    """The referee cannot go on; the message says what to do."""


class RefereeService:
    """Runs until cancelled, or until all that was there has been read (``follow`` False)."""

    def __init__(
        self, settings: Settings, every_ms: int, on_reports: Callable[[Sequence[ExperimentReport]], None]
    ) -> None:
        self._settings, self._every_ms, self._on_reports = settings, every_ms, on_reports
        self._control = Control(settings.control_entries_max)
        self._requests = Requests(self._control, lambda _user: 0)
        self._referee = Referee(
            gate=Gate(self._requests.answers, self._requests.erasures, presumed=settings.consent_presumed)
        )
        self._control.on(ExperimentSetting, partial(self._heed, self._referee.follow))
        self._control.on(Allocation, partial(self._heed, self._referee.allocate))
        self._offsets: Offsets = {}
        self._changelogs: dict[TopicPartition, Changelog] = {}
        self._followed = Followed(settings.bootstrap, ())
        self._ends: dict[TopicPartition, int] = {}
        """Log ends that must be reached even if a fetch gives nothing: at the start, after an outage, or a write."""
        self.vitals = Vitals(every_ms)
        self._failed = 0
        """Number of looks in a row at which the brokers failed."""
        self._over: set[int] = set()
        """Numbers of stopped experiments whose last report has been published by this process."""
        self._idle: dict[str, str] = {}
        """Experiments that were not judged at the last look, since workers let nobody take part in them, and why."""
        self._unwatched = 0
        """`People.unwatched` when it was logged last."""
        self._unsaved = 0
        """Number of looks in a row at which the file could not be written."""
        self.file: Path = settings.home / "referee" / f"{settings.topic_prefix}experiments.npz"

    def _heed(self, take: Callable[[M], None], name: str, message: M | None) -> None:
        """Take a message. An impossible one is refused, as the workers refuse it, and the referee goes on."""
        try:
            if message is not None:
                take(message)
        except ValueError as error:
            log.warning("experiment's message refused", experiment=name, error=str(error))

    async def run(self, *, follow: bool = True) -> None:
        """Read, look, publish. If the brokers fail during a look, the next one makes up for it, unless it is the last.

        Likewise if the file cannot be saved, as on a full disk: a restart then reads more again, and judges no less.
        Raises `RefereeError` where the topics do not hold the saved offsets, or a topic was made anew; `StoreError`
        where another referee has the file, or it cannot be written before the first look or at the last;
        `MissingTopicError`, since a topic that is made later would not be read; `streams.followed.MorePartitionsError`
        and `streams.topic_admin.ShutOutError`; and without ``follow`` what `streams.reading.Patience` raises.
        """
        with alone(self.file):
            try:
                await self._within_the_topics(follow=follow)
            except MadeAnewError as error:
                if error.topics == {self._settings.topic_prefix + ADS}:  # without saved offsets: read whole every time
                    raise RefereeError(f"{error}; start the referee again: it goes on from {self.file}") from error
                raise RefereeError(f"{error}; delete {self.file} to judge anew from the topics as they are") from error
            finally:
                await self._followed.leave()

    async def _within_the_topics(self, *, follow: bool) -> None:
        try:
            await self._run(follow=follow)
        except OffsetOutOfRangeError as error:
            await self._followed.check()  # raises where the topic was made anew, which is more to the point
            raise RefereeError(
                f"{error}: the topics no longer hold what {self.file} was to go on from; delete it to start anew"
            ) from error

    async def _run(self, *, follow: bool) -> None:
        settings = self._settings
        self._offsets, ids = await asyncio.to_thread(load, self.file, self._referee)
        names = [settings.topic_prefix + name for name in (CONTROL, ADS, AD_IMPRESSIONS, OUTCOMES, CHANGELOG)]
        ids.pop(settings.topic_prefix + ADS, None)
        self._followed = Followed(settings.bootstrap, names, ids)
        await self._followed.check()  # before anything is read
        groups = [await aside(partitions_of, settings.bootstrap, name) for name in names]
        self._ends = await log_ends(settings.bootstrap, [tp for group in groups for tp in group])
        reader = groupless(settings.bootstrap, auto_offset_reset="none")
        teller = AIOKafkaProducer(acks="all", **aiokafka_options(settings.bootstrap))
        async with at_work(reader) as consumer, sending(teller) as producer:
            await self._seek(consumer, groups)
            for partitions in groups:
                await self._behind(consumer, partitions)
            due_ms = tick_ms()
            while True:
                await self._read(consumer, groups, follow=follow)
                ended = not follow and await self._is_caught_up(consumer)
                if ended or tick_ms() >= due_ms:
                    await self._look(consumer, producer, last=not follow)
                    due_ms = tick_ms() + self._every_ms
                if ended:
                    return

    async def _seek(self, consumer: AIOKafkaConsumer, groups: list[list[TopicPartition]]) -> None:
        partitions = [tp for group in groups for tp in group]
        consumer.assign(partitions)
        begin = await consumer.beginning_offsets(partitions)
        for tp in partitions:
            # The control and ads topics are small and their offsets not saved: they are read whole at every start.
            known = self._offsets.get((tp.topic, tp.partition)) if tp in [*chain(*groups[2:])] else None
            consumer.seek(tp, begin[tp] if known is None else known)

    async def _is_caught_up(self, consumer: AIOKafkaConsumer) -> bool:
        return all([await consumer.position(tp) >= end for tp, end in self._ends.items()])

    async def _behind(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> int:
        """Records of a topic that were committed at the last fetch and are still to be read; noted in the vitals."""
        ends = {tp: max(self._ends.get(tp, 0), consumer.last_stable_offset(tp) or 0) for tp in partitions}
        behind: int = sum([max(end - await consumer.position(tp), 0) for tp, end in ends.items()])
        self.vitals.behind[partitions[0].topic.removeprefix(self._settings.topic_prefix)] = behind
        return behind

    async def _read(self, consumer: AIOKafkaConsumer, groups: list[list[TopicPartition]], *, follow: bool) -> None:
        """Read each topic to its present end, in the order of ``groups``; who follows waits for brokers for ever."""
        takers: tuple[Callable[[Mapping[TopicPartition, list[Record]]], None], ...] = (
            self._take_control, self._take_ads, self._take_impressions, self._take_outcomes, self._take_rows,
        )  # fmt: skip
        for partitions, take in zip(groups, takers, strict=True):
            last = take == self._take_rows
            patience = Patience(consumer, self._settings.bootstrap, {tp: self._ends.get(tp, 0) for tp in partitions})
            while partitions:
                self._followed.look(consumer, partitions)
                batches = await fetch(
                    consumer, partitions, self._settings.bootstrap,
                    timeout_ms=POLL_MS, max_records=RECORDS_PER_READ,
                )  # fmt: skip
                if not follow:
                    await patience.bear(came=bool(batches))
                if batches:
                    await asyncio.to_thread(take, batches)
                # Beyond markers of transactions, too: retention deletes them, and nobody goes on from what is deleted.
                at = {tp: await consumer.position(tp) for tp in partitions}
                self._offsets |= {(tp.topic, tp.partition): offset for tp, offset in at.items()}
                behind = await self._behind(consumer, partitions)
                if batches and (last or not behind):  # on a busy topic no fetch is empty
                    break  # read impressions before more rows
                if not batches and all(offset >= self._ends.get(tp, 0) for tp, offset in at.items()):
                    break

    def _take_control(self, batches: Mapping[TopicPartition, list[Record]]) -> None:
        for records in batches.values():
            self._control.take(records)
        self._referee.settle(self._requests.since(0, self._referee.settled), self._control.next_offset)

    def _take_ads(self, batches: Mapping[TopicPartition, list[Record]]) -> None:
        for records in batches.values():
            self._referee.take_ads((record.key, record.value) for record in records)

    def _take_impressions(self, batches: Mapping[TopicPartition, list[Record]]) -> None:
        latest_ms = wall_ms() + self._settings.time_tolerance_ms
        for records in batches.values():
            self._referee.take_impressions(records, latest_ms)

    def _take_outcomes(self, batches: Mapping[TopicPartition, list[Record]]) -> None:
        for records in batches.values():
            self._referee.take_outcomes(record.value for record in records)

    def _take_rows(self, batches: Mapping[TopicPartition, list[Record]]) -> None:
        """Take slice after slice, several in one call unless somebody has two rows whose order matters."""
        for tp, records in batches.items():
            rows: dict[bytes, bytes] = {}
            changelog = self._changelogs.setdefault(tp, Changelog(self._referee.erased))
            try:
                slices = changelog.take(records)
            except ValueError as error:
                raise _of_another_version(error) from error
            for taken in slices:
                if taken.forgotten or self._referee.awaits(rows.keys() & taken.rows.keys()):
                    self._take_decoded(rows)
                    rows = {}
                self._referee.forget(taken.forgotten)
                rows |= taken.rows
                if not rows.keys().isdisjoint(taken.idle):
                    self._take_decoded(rows)
                    rows = {}
                self._referee.begin_anew(taken.idle)
            self._take_decoded(rows)
            self._referee.bound()

    def _take_decoded(self, rows: Mapping[bytes, bytes]) -> None:
        try:
            decoded = decode_rows(rows.values())
        except RowError as error:
            raise _of_another_version(error) from error
        self._referee.take_rows(list(rows), np.asarray(decoded))

    @property
    def offsets(self) -> Offsets:
        """Where to go on after a restart; in a changelog, where a slice begins."""
        begun = {tp: changelog.whole for tp, changelog in self._changelogs.items()}
        return self._offsets | {(tp.topic, tp.partition): at for tp, at in begun.items() if at is not None}

    async def _look(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, *, last: bool) -> None:
        """Judge. An outage is logged when it begins and ends, and the referee goes on; at the ``last`` look it raises.

        During an outage a cohort may have been written though the answer was lost, so the topics are read to their ends
        after it, before the next cohort.
        """
        try:
            if self._failed:
                self._ends = await log_ends(self._settings.bootstrap, list(self._ends))
            await self._judge(producer, caught_up=await self._is_caught_up(consumer), last=last)
        except (KafkaError, TimeoutError) as error:
            if last or not _is_outage(error):
                raise
            if not self._failed:
                log.warning("no experiment is judged: the brokers fail", error=describe(error), every_ms=self._every_ms)
            self._failed += 1
            self.vitals.failing = describe(error)
            return
        if self._failed:
            log.info("experiments are judged again", failed_looks=self._failed)
            self._failed = 0

    async def _judge(self, producer: AIOKafkaProducer, *, caught_up: bool, last: bool) -> None:
        """Look at everything, end what breaks a guardrail, publish, save. A stopped experiment is published once.

        A bandit lets a cohort in only when the referee has caught up, since its shares cannot be taken back.
        """
        read_all = caught_up
        if caught_up:
            self._referee.keep(self._control.all(ExperimentSetting))  # not earlier: the file may know newer settings
            # The last record of these keys does not stand: its writer may have been killed, or have been too late.
            for stands in (*self._control.hidden(ExperimentSetting), *self._control.hidden(Allocation)):
                await self._tell(msgspec.structs.replace(stands, revision=stands.revision + 1))
                caught_up = False
        people = self._referee.people
        if people.unwatched > self._unwatched:
            log.warning("people beyond the bound count in no experiment", times=people.unwatched, bound=people.most)
            self._unwatched = people.unwatched
        self._note_idle()
        now_ms, reports = wall_ms(), []
        judged_ms = now_ms if read_all else min(now_ms, self._referee.now_ms)
        for looked in await asyncio.to_thread(self._referee.look, judged_ms, self._idle):
            watched = await self._guarded(looked, now_ms)
            setting = watched.setting
            cohorts = self._control.get(Allocation, setting.experiment)
            if caught_up and (further := watched.next_cohort(cohorts, now_ms)) is not None:
                await self._tell(further)
                self._referee.allocate(further)
                log.info("cohort let in", experiment=setting.experiment, shares=further.cohorts[-1].shares)
            reports.append(report_of(watched, now_ms))
        topic = self._settings.topic_prefix + EXPERIMENT_REPORTS
        news = [one for one in reports if one.number not in self._over]
        sent = [await producer.send(topic, encode_report(one), key=one.experiment.encode()) for one in news]
        for delivery in sent:
            await delivery
        self._over |= {one.number for one in news if one.status == "stopped"}
        await self._save(last=last)
        self.vitals.unwatched = people.unwatched
        self.vitals.judged(reports, now_ms, caught_up=caught_up)
        self._on_reports(reports)

    def _note_idle(self) -> None:
        """Note in which experiments workers let nobody take part: as may be after an upgrade, former ones allowed more.

        They are left to whoever is to make them anew: workers of a former version may go on with them.
        """
        refused, watched = without_people(self._control), self._referee.watched.values()
        # Where the last change alone cannot be, workers and the referee go on with what was before it.
        held = {one.setting.experiment for one in watched if self._is_newest(one)}
        idle = {name: why for name, why in refused.items() if name in held}
        for name, why in idle.items() - self._idle.items():
            log.warning("experiment not judged: workers refuse it", experiment=name, error=why)
        self._idle = idle

    def _is_newest(self, watched: Watched) -> bool:
        """Whether the experiment is judged by what the control topic says of it now."""
        name = watched.setting.experiment
        told = self._control.get(ExperimentSetting, name), self._control.get(Allocation, name)
        return (watched.setting, watched.allocation) == told

    async def _save(self, *, last: bool) -> None:
        """Save the referee. A failure is logged when it begins and ends; at the ``last`` look it raises."""
        try:
            await asyncio.to_thread(save, self.file, self._referee, self.offsets, dict(self._followed.ids))
        except OSError as error:
            if last:
                raise StoreError.unwritten(self.file, error) from error
            if not self._unsaved:
                log.warning("what the referee knows is not saved", error=describe(error), file=str(self.file))
            self._unsaved += 1
            return
        if self._unsaved:
            log.info("what the referee knows is saved again", failed_looks=self._unsaved)
            self._unsaved = 0

    async def _guarded(self, watched: Watched, now_ms: int) -> Watched:
        """The experiment; ended first if an arm breaks a guardrail."""
        setting, last = watched.setting, watched.last
        if setting.status != "running" or last is None or (why := breached(setting, last)) is None:
            return watched
        stopped = stop(setting, why, now_ms)
        await self._tell(stopped)
        self._referee.follow(stopped)  # after the write: if that fails, the next look tries again
        self.vitals.broken += 1
        log.warning("experiment rolled back", experiment=setting.experiment, reason=why)
        return self._referee.watched[setting.number]

    async def _tell(self, message: ControlMessage) -> None:
        """Write to the control topic. The referee counts as behind until it has read that: only then is it certain."""
        offsets = await publish(self._settings, [message])
        self._ends[TopicPartition(self._settings.topic_prefix + CONTROL, 0)] = offsets[-1] + 1


def _of_another_version(error: Exception) -> RefereeError:
    return RefereeError(f"{error}; run the referee of the workers' version")


def _is_outage(error: Exception) -> bool:
    """Whether the error may pass by itself, unlike missing rights."""
    return isinstance(error, KafkaTimeoutError | TimeoutError) or getattr(error, "retriable", False)
