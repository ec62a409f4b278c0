"""Models on topics: files in parts on ``models``, by what they hash to, and their manifest on the control topic.

A part never changes and is sent before the manifest that speaks of it, so whoever reads a manifest finds all of it or
says what is missing. What two models have in common is there once.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer

from scoring.attention import MANIFEST, AttentionModel, Manifest, ModelError, load, read_manifest
from streams.connection import aiokafka_options
from streams.control_wire import PushedModel
from streams.model_trial import RefusedModelError, try_model
from streams.reading import MissingTopicError, read_topic
from streams.settings import Settings
from streams.topics import MODELS
from streams.wire import UNREADABLE

CHUNK_BYTES = 512 * 1024
"""Half of what a broker takes in one record by default."""
MODEL_BYTES_MAX = 64 * 2**20
"""All files of a model: the demo shop's has 0.8 MB; a table of 200,000 tokens of 64 floats, 51."""
MODELS_MAX = 32
"""Models on the topic: 2 GB at the most, read in seconds by a worker that is given one."""


def chunk_key(digest: str, number: int) -> bytes:
    """Key of a part of the file that hashes to ``digest``, numbered from 0."""
    return f"{digest}/{number}".encode()


@dataclass(frozen=True, slots=True)
class Packed:
    """A model as it is sent: its manifest as it is, and the parts of its files by key."""

    manifest: str
    parts: Mapping[bytes, bytes]
    bytes: int


def pack(directory: Path) -> Packed:
    """The files that the manifest in ``directory`` names, as it says they are. Raises `ModelError`.

    They are hashed, not run: that is `streams.model_trial`'s.
    """
    manifest = read_manifest(directory)
    parts: dict[bytes, bytes] = {}
    total = 0
    for name, digest in manifest.files.items():
        content = (directory / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ModelError(f"{directory}: {name} has changed", f"the sha256 {digest}", "push it again")
        total += len(content)
        starts = range(0, max(len(content), 1), CHUNK_BYTES)
        parts |= {chunk_key(digest, at): content[start : start + CHUNK_BYTES] for at, start in enumerate(starts)}
    if total > MODEL_BYTES_MAX:
        reason = f"{directory}: its files have {total:,} bytes"
        raise ModelError(reason, f"at most {MODEL_BYTES_MAX:,}", "train one with fewer tokens: salience train --help")
    return Packed((directory / MANIFEST).read_text(), parts, total)


async def send(settings: Settings, parts: Mapping[bytes, bytes | None]) -> None:
    """Write parts, or tombstones for them; done when all are delivered."""
    topic = settings.topic_prefix + MODELS
    async with AIOKafkaProducer(acks="all", **aiokafka_options(settings.bootstrap)) as producer:
        for delivery in [await producer.send(topic, value, key=key, partition=0) for key, value in parts.items()]:
            await delivery


async def fetch(settings: Settings, pushed: PushedModel, into: Path) -> Path:
    """The model's files, from the topic, in the folder ``into``, which is empty.

    Raises `ModelError` where some are missing or too large. What they hash to is checked where they are loaded.
    """
    manifest = manifest_of(pushed)
    found: dict[str, dict[int, bytes]] = {digest: {} for digest in manifest.files.values()}
    again = "push it again: salience model push DIR"
    try:
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + MODELS):
            for record in records:
                digest, _, number = (record.key or b"").decode(errors="replace").partition("/")
                if digest not in found or not number.isdecimal():
                    continue
                found[digest][int(number)] = record.value or b""
                if sum(map(len, found[digest].values())) > MODEL_BYTES_MAX:
                    raise ModelError(f"{pushed.model}: a file is too large", f"{MODEL_BYTES_MAX:,} bytes", again)
    except MissingTopicError as error:
        raise ModelError(f"{pushed.model}: {error}", "its files there", again) from error
    for name, digest in manifest.files.items():
        if Path(name).name != name:
            raise ModelError(f"{pushed.model} names the file {name!r}", "a plain name", again)
        chunks = found[digest]
        if not chunks or set(chunks) != set(range(len(chunks))):
            raise ModelError(f"{pushed.model}: {name} is not on {MODELS}", f"all parts of {digest}", again)
        await asyncio.to_thread(_write, into / name, [chunks[at] for at in range(len(chunks))])
    (into / MANIFEST).write_text(pushed.manifest)
    return into


def _write(file: Path, parts: Sequence[bytes]) -> None:
    with file.open("wb") as out:
        out.writelines(parts)


async def obtain(settings: Settings, pushed: PushedModel, within: Path | None = None) -> AttentionModel:
    """A pushed model from the topic, tried in a process of its own, then loaded. Raises `ModelError`.

    Its files are for a moment in a folder of their own ``within`` another, the system's where not given.
    """
    with tempfile.TemporaryDirectory(dir=within, prefix="salience-model-") as name:
        try:
            directory = await fetch(settings, pushed, Path(name))
            await try_model(directory, settings)
            return await asyncio.to_thread(load, directory)
        except ModelError as error:  # the folder is gone by the time that anybody reads of it
            raise RefusedModelError(str(error).replace(name, pushed.model)) from error


def manifest_of(pushed: PushedModel) -> Manifest:
    """The manifest that was pushed. Raises `ModelError` where it is none, or another model's."""
    fix = "push it again: salience model push DIR"
    try:
        manifest = msgspec.json.decode(pushed.manifest, type=Manifest)
    except UNREADABLE as error:
        raise ModelError(f"{pushed.model}: {error}", "the fields of a manifest", fix) from error
    if manifest.version != pushed.model:
        raise ModelError(f"{pushed.model} is {manifest.version} by its manifest", "one version", fix)
    return manifest


def unshared(gone: PushedModel, others: Iterable[PushedModel]) -> list[bytes]:
    """Keys of the parts of ``gone`` that none of ``others`` needs."""
    most = MODEL_BYTES_MAX // CHUNK_BYTES
    count = min(-(-gone.bytes // CHUNK_BYTES), most) + 1
    digests = _digests(gone).difference(*map(_digests, others))
    return [chunk_key(digest, number) for digest in sorted(digests) for number in range(count)]


def _digests(pushed: PushedModel) -> set[str]:
    """Of the files that a model needs; none where its message is bad, since nobody gets it."""
    try:
        return set(manifest_of(pushed).files.values())
    except ModelError:
        return set()
