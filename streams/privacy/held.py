"""What the topics and this machine hold of a person: exported, or shown to be gone. Needs no worker."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from scoring.rows import ROW, RowError, decode_rows
from streams import topic_admin, topics
from streams.aside import aside
from streams.control_wire import Consent, Erasure
from streams.decode import Record
from streams.lanes.clicks import person_key
from streams.lanes.snapshots import holds, listed
from streams.letters import ORIGIN
from streams.mendable import MendableError
from streams.privacy.guests import guest_key
from streams.reading import Progress, read_topic
from streams.settings import Settings
from streams.topics import CHANGELOG, CONTROL, DEAD_LETTERS
from streams.wire import UNREADABLE

LIFT = np.dtype([("clicks", "<f8"), ("clicks_expected", "<f8"), ("since_impression", "<f8")])
"""What a click layer has learned of a person (`scoring.clicks.PersonLifts`), and since which impression of its lane."""
_FORMER_LIFT_BYTES = 16
"""Size of a former version's record, without the last field."""
_DEADLINE_BYTES = 8
"""Size of a note of when a placement ends (`streams.privacy.guests`)."""


class SnapshotsError(MendableError):
    """Some snapshots cannot be read, so that nobody knows whom they hold."""


class Trace(Struct, frozen=True, kw_only=True):
    """What one topic holds of a person.

    ``current``: records that count; in a compacted topic, only the newest of its key. ``former``: records that a newer
    one or a tombstone has replaced, until compaction removes them. ``newest_ms``: the newest record's time.
    ``goes_ms``: when the topic's retention will have removed all of them; None where only a request removes them.
    ``requests``: the person's consent and erasure, kept so that they are heeded.
    """

    topic: str
    current: int
    former: int
    tombstones: int
    requests: int
    newest_ms: int | None
    goes_ms: int | None

    @property
    def held(self) -> int:
        """Records with something of the person in them."""
        return self.current + self.former


class Found(Struct, frozen=True, kw_only=True):
    """One record as it is exported; ``value`` is parsed where possible, and None for a tombstone."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: str
    value: object


class Search:
    """Finds a person, under all of their pseudonyms, in records: by the key, or by the ``user_id`` inside the value.

    A surface or an ad may have the same name as a person. So other fields of a record do not count, nor do the keys of
    topics that are not keyed by people, or of dead letters from such topics. Where a dead letter's origin is unknown,
    its key counts. Where a value is no JSON and has no ``user_id``, any quoted word in it counts.
    """

    def __init__(self, users: Sequence[str], prefix: str = "") -> None:
        """``prefix``: of the topics' names."""
        self.keys = {key for user in users for key in _keys(user.encode())}
        self.requests = {
            key for user in users for key in (Erasure(user_id=user, time_ms=0).key, _consent(user).key)
        }  # fmt: skip
        self._letters = prefix + DEAD_LETTERS
        self._theirs = {prefix + each.name: self._keys_on(each) for each in topics.TABLE if each.name != DEAD_LETTERS}
        self._quoted = [msgspec.json.encode(user) for user in users]
        self._named = re.compile(_NAMED.pattern + b"(?:" + b"|".join(map(re.escape, self._quoted)) + b")")

    def finds(self, record: Record) -> bool:
        """Whether the record is the person's, or names them."""
        origin = record.topic
        if origin == self._letters:  # keyed as what was refused
            origin = (dict(record.headers).get(ORIGIN) or b"").decode(errors="replace")
        if (record.key or b"") in self._theirs.get(origin, self.keys | self.requests):
            return True
        value = _ESCAPES.sub(_spelled, record.value or b"")
        if not any(name in value for name in self._quoted):
            return False
        return self._named.search(value) is not None or (_NAMED.search(value) is None and not _is_json(value))

    def _keys_on(self, topic: topics.Topic) -> set[bytes]:
        """The keys under which ``topic`` holds what is theirs."""
        if topic.name == CONTROL:
            return self.requests
        return self.keys if topic.people else set()


_NAMED = re.compile(rb'"user_id"\s*:\s*')


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value)
    except UNREADABLE:
        return False
    return True


_ESCAPES = re.compile(rb"\\[\\/]|(?:\\u[0-9a-fA-F]{4})+")
"""What JSON may spell in more than one way. Two backslashes match as one, so that the second begins no escape."""


def _spelled(escapes: re.Match[bytes]) -> bytes:
    """``escapes`` as `msgspec` spells them; torn or invalid ones stay as they are."""
    try:
        return msgspec.json.encode(msgspec.json.decode(b'"%b"' % escapes[0]))[1:-1]
    except UNREADABLE:
        return escapes[0]


def _keys(user: bytes) -> tuple[bytes, ...]:
    """A person's keys: of the state, of what a click layer has learned of them, and of the note of a guest."""
    return user, person_key(user), guest_key(user)


def _consent(user: str) -> Consent:
    return Consent(user_id=user, granted=False, time_ms=0)


async def find(
    settings: Settings,
    users: Sequence[str],
    take: Callable[[str, Record], None],
    progress: Progress = lambda _topic, _read, _there: None,
) -> None:
    """Call ``take(topic, record)`` for every record of the person, aborted ones included, topic by topic.

    All partitions are read: a producer with another partitioner may have put a record anywhere.
    """
    search = Search(users, settings.topic_prefix)
    for topic in topics.TABLE:
        name, told = settings.topic_prefix + topic.name, partial(progress, topic.name)
        async for records in read_topic(settings.bootstrap, name, committed=False, progress=told):
            for record in records:
                if search.finds(record):
                    take(topic.name, record)


async def export(
    settings: Settings, users: Sequence[str], progress: Progress = lambda _topic, _read, _there: None
) -> list[Found]:
    """Every record that the topics hold of the person."""
    out: list[Found] = []

    def take(topic: str, record: Record) -> None:
        out.append(
            Found(
                topic=topic,
                partition=record.partition,
                offset=record.offset,
                time_ms=record.timestamp,
                key=(record.key or b"").decode(errors="backslashreplace"),
                value=readable(topic, record.value),
            )
        )

    await find(settings, users, take, progress)
    return out


def readable(topic: str, value: bytes | None) -> object:
    """What a record says, in names and numbers where it can be."""
    if value is None:
        return None
    try:
        if topic == CHANGELOG and len(value) in (_FORMER_LIFT_BYTES, LIFT.itemsize):
            (lift,) = np.frombuffer(value.ljust(LIFT.itemsize, b"\0"), dtype=LIFT).tolist()
            return dict(zip(LIFT.names or (), lift, strict=True))
        if topic == CHANGELOG and len(value) == _DEADLINE_BYTES:
            return {"placement_ends_ms": int.from_bytes(value, "big")}
        if topic == CHANGELOG:
            (row,) = decode_rows([value])
            return {name: row[name].tolist() for name in ROW.names or ()}
        return msgspec.json.decode(value)
    except (RowError, *UNREADABLE):
        return value.decode(errors="backslashreplace")


async def traces(
    settings: Settings, users: Sequence[str], progress: Progress = lambda _topic, _read, _there: None
) -> list[Trace]:
    """What each topic holds of the person, in the order of the table of topics."""
    found: dict[str, list[tuple[bytes, bool, int]]] = {topic.name: [] for topic in topics.TABLE}

    def take(topic: str, record: Record) -> None:
        found[topic].append((record.key or b"", record.value is not None, record.timestamp))

    await find(settings, users, take, progress)
    requests = Search(users).requests
    prefix = settings.topic_prefix
    kept_ms = await aside(topic_admin.retentions_ms, settings.bootstrap, [prefix + name for name in found])
    return [_trace(topic, found[topic.name], requests, kept_ms.get(prefix + topic.name)) for topic in topics.TABLE]


def _trace(
    topic: topics.Topic, found: Sequence[tuple[bytes, bool, int]], requests: set[bytes], kept_ms: int | None
) -> Trace:
    """``found``: key, whether there is a value, and time, in the order of the topic."""
    last = {key: place for place, (key, _, _) in enumerate(found)}
    compacted = topic.cleanup == "compact"
    current = former = asked = 0
    for place, (key, has_value, _) in enumerate(found):
        if key in requests and topic.name == CONTROL:
            asked += has_value
        elif has_value and (not compacted or last[key] == place):
            current += 1
        elif has_value:
            former += 1
    times = [time_ms for _, has_value, time_ms in found if has_value]
    newest_ms = max(times, default=None)
    goes_ms = None if newest_ms is None or compacted or kept_ms is None else newest_ms + kept_ms
    return Trace(
        topic=topic.name,
        current=current,
        former=former,
        tombstones=sum(not has_value for _, has_value, _ in found),
        requests=asked,
        newest_ms=newest_ms,
        goes_ms=goes_ms,
    )


class Looked(Struct, frozen=True, kw_only=True):
    """The ``count`` snapshots in ``folder``, unfinished ones too; ``holding``: those that hold the person."""

    folder: Path
    count: int
    holding: list[Path]


def require_readable_snapshots(settings: Settings, *, none_here: bool = False) -> None:
    """Raise `SnapshotsError` where `snapshots_with` would: checked before topics are read, which takes minutes.

    Raise it also where the folder is missing, since snapshots may be in another; not if ``none_here`` is said.
    """
    folder = _snapshots(settings, _opens).folder
    if not (none_here or folder.is_dir()):
        raise SnapshotsError(
            f"{folder} is no folder of snapshots, so that none could be looked at; expected that of the group's workers"
            " here: give their SALIENCE_HOME, SALIENCE_GROUP and --prefix, or --no-snapshots where none has run"
        )


def snapshots_with(settings: Settings, users: Sequence[str]) -> Looked:
    """Snapshots on this machine, and those that hold the person: each of them goes when its lane writes the next.

    Raises `SnapshotsError` where one cannot be read.
    """
    return _snapshots(settings, partial(holds, users=[user.encode() for user in users]))


def _snapshots(settings: Settings, look: Callable[[Path], bool]) -> Looked:
    """The group's snapshots; ``holding``: those for which ``look`` is true. Raises `SnapshotsError`."""
    folder = settings.home.absolute() / "snapshots" / f"{settings.topic_prefix}{settings.group}"
    found: dict[Path, bool | None] = {}
    try:
        while left := [path for path in listed(folder) if path not in found]:
            for path in left:
                try:
                    found[path] = look(path)
                except FileNotFoundError:
                    if path.is_symlink():  # it leads nowhere, so that trying again would not end
                        found[path] = None
                        continue
                    found.clear()  # a worker has finished it, under the former one's name, or dropped it: look anew
                    break
    except OSError as error:
        raise SnapshotsError(
            f"{error.filename or folder} cannot be read ({error.strerror or error}), and may hold the person; snapshots"
            " are for their owner alone: run this as the workers' account"
        ) from error
    read = [held for held in found.values() if held is not None]
    return Looked(folder=folder, count=len(read), holding=[path for path, held in found.items() if held])


def _opens(path: Path) -> bool:
    with path.open("rb"):
        return True


def verdict(found: Sequence[Trace], looked: Looked) -> bool:
    """Whether only the requests themselves and tombstones are left."""
    return not looked.holding and not any(trace.held for trace in found)
