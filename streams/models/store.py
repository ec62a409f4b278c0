"""Models on topics: files in parts on ``models``, keyed by their hash, and manifests on the control topic.

A part never changes, and is sent before the manifest that names it. So a reader of the manifest finds all parts, or can
tell which are missing. A file that two models share is stored once.
"""

import asyncio
import contextlib
import hashlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaProducer

from scoring.attention import AttentionModel, load
from scoring.inputs import SPEC_HASH
from scoring.manifest import (
    MANIFEST,
    ModelError,
    checked_files,
    is_plain_name,
    read_manifest,
)
from streams.connection import aiokafka_options
from streams.control_wire import PushedModel
from streams.decode import Record
from streams.leaving import sending
from streams.models.pushed import AGAIN, manifest_of, told_manifest
from streams.models.trial import RefusedModelError, TrialServer
from streams.reading import MissingTopicError, read_topic
from streams.settings import Settings
from streams.topics import MODELS

CHUNK_BYTES = 512 * 1024
"""Half of what a broker takes in one record by default."""
MODEL_BYTES_MAX = 64 * 2**20
"""Bytes of all files of a model: the demo shop's has 0.8 MB; a table of 200,000 tokens of 64 floats has 51 MB."""
PARTS_MAX = MODEL_BYTES_MAX // CHUNK_BYTES + 1
"""Parts of a file."""
MODELS_MAX = 32
"""Models on the topic: 2 GB at most, which a worker reads in seconds when it is given a model."""

LEFT_AFTER_S = 3_600
"""Age from which a model's folder, or a part on the topic, counts as left behind: by then the process that wrote it is
done with it, or dead. A trial may take some seconds."""
FOLDER = ".salience-model-got-"
"""Prefix of the folders into which models are fetched: a name that nobody would choose."""

_PART = re.compile(rb"[0-9a-f]{64}/[0-9]+")
"""The keys that `chunk_key` makes; others are left alone."""


class MissingFilesError(ModelError):
    """Files of a model, or parts of them, are not on the topic: pushing the model again mends that."""


def chunk_key(digest: str, number: int) -> bytes:
    """Key of part ``number``, from 0, of the file whose hash is ``digest``."""
    return f"{digest}/{number}".encode()


@dataclass(frozen=True, slots=True)
class Packed:
    """A model as it is sent: the text of its manifest, and the parts of its files by key."""

    manifest: str
    parts: Mapping[bytes, bytes]
    bytes: int


def pack(directory: Path) -> Packed:
    """The files that the manifest in ``directory`` names, checked against its hashes. Raises `ModelError`.

    The model does not run here: `streams.models.trial` does that.
    """
    manifest = read_manifest(directory)
    parts: dict[bytes, bytes] = {}
    total = 0
    for name, content in checked_files(directory, manifest):
        total += len(content)
        if total > MODEL_BYTES_MAX:
            reason = f"{directory}: its files have {total:,} bytes or more"
            fix = "train one with fewer tokens: salience train --help"
            raise ModelError(reason, f"at most {MODEL_BYTES_MAX:,}", fix)
        starts, digest = range(0, max(len(content), 1), CHUNK_BYTES), manifest.files[name]
        parts |= {chunk_key(digest, at): content[start : start + CHUNK_BYTES] for at, start in enumerate(starts)}
    return Packed((directory / MANIFEST).read_text(encoding="utf-8"), parts, total)


class Parts:
    """The parts of a model's files, as they come from the topic; no I/O."""

    def __init__(self, pushed: PushedModel) -> None:
        """Raises `ModelError` where its manifest is bad."""
        self._model, self._digests = pushed.model, manifest_of(pushed).files
        for name in self._digests:
            if not is_plain_name(name):
                raise ModelError(f"{self._model} names the file {name!r}", "a plain name inside the directory", AGAIN)
        # How many files each part is in: a part that several share comes once, and is written for each.
        self._wanted = Counter(chunk_key(digest, at) for digest in self._digests.values() for at in range(PARTS_MAX))
        self._held: dict[bytes, bytes] = {}
        self._bytes = 0

    def take(self, records: Iterable[Record]) -> None:
        """Take the model's parts from ``records``, the newest of each. Raises `ModelError` where it is too large."""
        for record in records:
            if record.key is None or record.key not in self._wanted:
                continue
            files = self._wanted[record.key]
            self._bytes -= files * len(self._held.pop(record.key, b""))
            if record.value is None:
                continue
            self._held[record.key] = record.value
            self._bytes += files * len(record.value)
            if self._bytes > MODEL_BYTES_MAX:
                raise ModelError(f"{self._model}: its files are too large", f"{MODEL_BYTES_MAX:,} bytes", AGAIN)

    def of(self, name: str) -> list[bytes]:
        """The parts of a file, in order.

        Raises `MissingFilesError` where some are missing; only the file's hash tells whether the last ones are there.
        """
        digest = self._digests[name]
        keys = [key for at in range(PARTS_MAX) if (key := chunk_key(digest, at)) in self._held]
        if not keys or keys[-1] != chunk_key(digest, len(keys) - 1):
            raise MissingFilesError(f"{self._model}: {name} is not on {MODELS}", f"all parts of {digest}", AGAIN)
        return [self._held[key] for key in keys]


async def send(settings: Settings, parts: Mapping[bytes, bytes | None]) -> None:
    """Write parts, or tombstones for them; done when all are delivered."""
    topic = settings.topic_prefix + MODELS
    async with sending(AIOKafkaProducer(acks="all", **aiokafka_options(settings.bootstrap))) as producer:
        await asyncio.gather(*[await producer.send(topic, value, key=key, partition=0) for key, value in parts.items()])


async def fetch(settings: Settings, pushed: PushedModel, into: Path) -> Path:
    """Write the model's files from the topic into the empty folder ``into``, and return it.

    Raises `MissingFilesError` where some are missing or have another hash, and `ModelError` where they are too large.
    """
    parts, names = Parts(pushed), manifest_of(pushed).files
    try:
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + MODELS):
            parts.take(records)
    except MissingTopicError as error:
        raise MissingFilesError(f"{pushed.model}: {error}", "its files there", AGAIN) from error
    for name, digest in names.items():
        content = parts.of(name)
        if await asyncio.to_thread(_sha256, content) != digest:  # the end is missing, or a part is of another file
            reason = f"{pushed.model}: what is on {MODELS} of {name} is not the whole of it"
            raise MissingFilesError(reason, f"all parts of {digest}", AGAIN)
        await asyncio.to_thread(_write, into / name, content)
    (into / MANIFEST).write_text(pushed.manifest, encoding="utf-8")
    return into


def _sha256(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _write(file: Path, parts: Sequence[bytes]) -> None:
    with file.open("wb") as out:
        out.writelines(parts)


async def obtain(
    settings: Settings, pushed: PushedModel, trials: TrialServer, within: Path | None = None
) -> AttentionModel:
    """A pushed model from the topic, tried in a process of its own, then loaded. Raises `ModelError`; where it is a
    `MissingFilesError`, another push may mend it.

    The files are for a moment in a temporary folder ``within`` another, by default the system's.
    """
    with tempfile.TemporaryDirectory(dir=within, prefix=FOLDER) as name:
        try:
            directory = await fetch(settings, pushed, Path(name))
            await trials.try_model(directory)
            return await asyncio.to_thread(load, directory)
        except MissingFilesError:
            raise
        except ModelError as error:  # it names the folder, which is gone when somebody reads the message
            raise RefusedModelError(str(error).replace(name, pushed.model)) from error


def remove_left(within: Path, now_ms: int) -> None:
    """Remove the folders of workers that were killed while they fetched a model; newer ones may be in use."""
    for folder in within.glob(f"{FOLDER}*"):
        with contextlib.suppress(OSError):  # another worker that starts removes it, too
            if folder.stat().st_mtime * 1_000 < now_ms - 1_000 * LEFT_AFTER_S:
                shutil.rmtree(folder)


def unshared(gone: PushedModel, others: Iterable[PushedModel]) -> list[bytes]:
    """Keys of the parts of ``gone`` that none of ``others`` needs."""
    count = min(-(-gone.bytes // CHUNK_BYTES) + 1, PARTS_MAX)
    digests = _digests(gone).difference(*map(_digests, others))
    return [chunk_key(digest, number) for digest in sorted(digests) for number in range(count)]


async def left(settings: Settings, known: Iterable[PushedModel], now_ms: int) -> list[bytes]:
    """Keys of parts on the topic that none of ``known`` needs and that are older than `LEFT_AFTER_S` at ``now_ms``: a
    push or a removal did not come to its end. For a newer part, or one without a time (-1), a manifest may be about to
    come.
    """
    sent_ms: dict[bytes, int] = {}
    try:
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + MODELS):
            for record in records:
                if record.key is None or not _PART.fullmatch(record.key):
                    continue
                sent_ms.pop(record.key, None)
                if record.value is not None:
                    sent_ms[record.key] = record.timestamp
    except MissingTopicError:
        return []
    needed, before_ms = set().union(*map(_digests, known)), now_ms - 1_000 * LEFT_AFTER_S
    return [key for key, at_ms in sent_ms.items() if 0 <= at_ms < before_ms and _digest_of(key) not in needed]


def needs_any(pushed: PushedModel, parts: Iterable[bytes]) -> bool:
    """Whether a model needs one of these parts."""
    return not _digests(pushed).isdisjoint(map(_digest_of, parts))


def _digest_of(key: bytes) -> str:
    """The hash of the file to which a part belongs."""
    return key.partition(b"/")[0].decode()


def _digests(pushed: PushedModel) -> set[str]:
    """Hashes of the files of a model, even one of a former specification; none where its message is bad."""
    try:
        manifest = told_manifest(pushed)
    except ModelError:
        return set()
    bad = manifest.spec_hash == SPEC_HASH and manifest.version != pushed.model
    return set() if bad else set(manifest.files.values())
