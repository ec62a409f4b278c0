"""Models as they are sent: parts that fit a record, and what a removed model leaves to the others."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from scoring.attention import load
from scoring.manifest import MANIFEST, ModelError, read_manifest
from streams.control_wire import PushedModel
from streams.models import store
from streams.models.pushed import manifest_of
from streams.models.store import CHUNK_BYTES, MODEL_BYTES_MAX, PARTS_MAX, Parts, chunk_key, pack, unshared
from tests.builders import START_MS, Record
from tests.models import toy_model


def pushed(directory: Path, **changes: object) -> PushedModel:
    packed = pack(directory)
    told = {"model": load(directory).version, "manifest": packed.manifest, "bytes": packed.bytes, "time_ms": 1}
    return PushedModel(parity=0.0, score_ms=0.0, **(told | changes))  # type: ignore[arg-type]  # by name


def test_parts_are_small_and_together_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_BYTES", 100)
    directory = toy_model(tmp_path)
    packed = pack(directory)
    assert max(map(len, packed.parts.values())) == 100
    for name, digest in read_manifest(directory).files.items():
        content = (directory / name).read_bytes()
        count = -(-len(content) // 100)
        assert b"".join(packed.parts[chunk_key(digest, at)] for at in range(count)) == content
    assert CHUNK_BYTES <= 2**20


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="toy-00000000 is toy-"):
        manifest_of(pushed(toy_model(tmp_path), model="toy-00000000"))
    with pytest.raises(ModelError, match="the fields of a manifest"):
        manifest_of(pushed(toy_model(tmp_path), manifest="{}"))


def of_former_specification(model: PushedModel) -> PushedModel:
    """As a former version pushed it, which told versions by files alone."""
    manifest = msgspec.json.decode(model.manifest) | {"spec_hash": "c21d952c5770bb1f"}
    return msgspec.structs.replace(model, manifest=msgspec.json.encode(manifest).decode())


def test_a_model_for_another_specification_is_refused_as_one_whatever_its_version_was(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"trained for the feature specification c21d952c5770bb1f.*train it again"):
        manifest_of(of_former_specification(pushed(toy_model(tmp_path))))


def test_a_model_for_another_specification_keeps_its_parts_and_takes_them_along(tmp_path: Path) -> None:
    model = pushed(toy_model(tmp_path))
    former = of_former_specification(model)
    assert unshared(former, []) == unshared(model, []) != []
    assert unshared(former, [model]) == unshared(model, [former]) == []


@pytest.mark.parametrize(
    "version", ["", "../up-00000000", "a b-00000000", "toy", "toy-0000000G", f"{'x' * 65}-00000000"]
)
def test_a_version_that_is_no_name_is_no_message(tmp_path: Path, version: str) -> None:
    message = msgspec.to_builtins(pushed(toy_model(tmp_path))) | {"model": version}
    with pytest.raises(msgspec.ValidationError, match="regex"):
        msgspec.convert(message, PushedModel)


def test_what_two_models_share_stays_when_one_goes(tmp_path: Path) -> None:
    first, second = pushed(toy_model(tmp_path / "a", seed=1)), pushed(toy_model(tmp_path / "b", seed=2))
    shared = set(manifest_of(first).files.values()) & set(manifest_of(second).files.values())
    assert shared  # one attention graph
    gone = {key.partition(b"/")[0].decode() for key in unshared(first, [second])}
    assert gone == set(manifest_of(first).files.values()) - shared
    assert {key.partition(b"/")[0].decode() for key in unshared(first, [])} == set(manifest_of(first).files.values())


@pytest.mark.parametrize("changes", [{"manifest": "{}"}, {"model": "bad-00000000"}], ids=["no manifest", "another's"])
def test_a_model_whose_message_is_bad_needs_no_parts_and_can_be_removed(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    good, bad = pushed(toy_model(tmp_path)), pushed(toy_model(tmp_path), **changes)
    assert unshared(good, [bad]) == unshared(good, []) != []
    assert unshared(bad, [good]) == []


def test_a_file_that_changes_while_it_is_packed_is_not_sent(tmp_path: Path) -> None:
    directory = toy_model(tmp_path)
    manifest = msgspec.json.decode((directory / MANIFEST).read_bytes())
    (directory / next(iter(manifest["files"]))).write_bytes(b"other")
    with pytest.raises(ModelError, match="has the sha256"):
        pack(directory)


@pytest.mark.parametrize("name", ["/dev/zero", "../golden.npz", "..", "", "x" * 256])
def test_no_file_is_read_nor_written_but_in_the_models_folder(tmp_path: Path, name: str) -> None:
    directory = toy_model(tmp_path, manifest=lambda fields: fields["files"].update({name: "0" * 64}))
    with pytest.raises(ModelError, match="expected a plain name inside the directory"):
        pack(directory)
    manifest = (directory / MANIFEST).read_text()
    message = PushedModel(
        model=read_manifest(directory).version, manifest=manifest, bytes=1, parity=0.0, score_ms=0.0, time_ms=1
    )
    with pytest.raises(ModelError, match="expected a plain name inside the directory"):
        Parts(message)


def test_a_model_that_is_too_large_is_not_sent_nor_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = toy_model(tmp_path)
    monkeypatch.setattr(store, "MODEL_BYTES_MAX", 1_000)
    for name in list(read_manifest(directory).files)[1:]:
        (directory / name).unlink()
    with pytest.raises(ModelError, match=r"bytes or more; expected at most 1,000"):
        pack(directory)


def taken(message: PushedModel, parts: Mapping[bytes, bytes | None]) -> Parts:
    out = Parts(message)
    out.take([Record("models", 0, at, START_MS, key, value) for at, (key, value) in enumerate(parts.items())])
    return out


def test_what_was_packed_is_what_is_fetched(tmp_path: Path) -> None:
    directory = toy_model(tmp_path)
    parts = taken(pushed(directory), {b"else/0": b"x", **pack(directory).parts, b"\xff": None})
    for name in read_manifest(directory).files:
        assert b"".join(parts.of(name)) == (directory / name).read_bytes()


FETCHES = """
import asyncio, sys
from pathlib import Path
from streams.models import store
from streams.settings import Settings
from tests.builders import Record
from tests.unit.test_model_store import pushed

directory, into = map(Path, sys.argv[1:])

async def on_topic(*_):
    yield [Record("models", 0, 0, 0, key, part) for key, part in store.pack(directory).parts.items()]

store.read_topic = on_topic
asyncio.run(store.fetch(Settings(), pushed(directory), into))
"""


def test_a_manifest_is_fetched_as_it_was_pushed_whatever_the_locales_encoding(tmp_path: Path) -> None:
    directory, into = toy_model(tmp_path / "pushed"), tmp_path / "fetched"
    into.mkdir()
    manifest = msgspec.json.decode((directory / MANIFEST).read_bytes()) | {"data": "the logs of Zürich, 東京"}
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", FETCHES, directory, into],
        env=os.environ | ascii_only,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (into / MANIFEST).read_bytes() == (directory / MANIFEST).read_bytes()


def test_a_part_that_was_taken_away_is_none_whether_it_came_before_or_not(tmp_path: Path) -> None:
    directory = toy_model(tmp_path)
    message, packed = pushed(directory), pack(directory).parts
    removed: dict[bytes, bytes | None] = dict.fromkeys(unshared(message, []))
    parts = taken(message, removed)
    for name in read_manifest(directory).files:
        with pytest.raises(ModelError, match=f"{name} is not on models"):
            parts.of(name)
    parts.take([Record("models", 0, at, START_MS, *part) for at, part in enumerate(packed.items())])
    for name in read_manifest(directory).files:
        assert b"".join(parts.of(name)) == (directory / name).read_bytes()
    parts.take([Record("models", 0, at, START_MS, key, None) for at, key in enumerate(removed)])
    with pytest.raises(ModelError, match="is not on models"):
        parts.of(name)


def test_a_models_files_together_are_not_fetched_beyond_their_bound(tmp_path: Path) -> None:
    more = {f"more-{number}": f"{number:064x}" for number in range(2)}
    message = pushed(toy_model(tmp_path))
    manifest = msgspec.structs.replace(manifest_of(message), files=manifest_of(message).files | more)
    message = msgspec.structs.replace(message, model=manifest.version, manifest=msgspec.json.encode(manifest).decode())
    half = range(MODEL_BYTES_MAX // CHUNK_BYTES // 2)
    first, second = ({chunk_key(digest, at): bytes(CHUNK_BYTES) for at in half} for digest in more.values())
    parts = taken(message, first | first | second)
    parts.take([Record("models", 0, 0, START_MS, key, value) for key, value in first.items()])  # the same once more
    with pytest.raises(ModelError, match=f"its files are too large; expected {MODEL_BYTES_MAX:,} bytes"):
        parts.take([Record("models", 0, 0, START_MS, chunk_key(more["more-0"], PARTS_MAX - 1), b"x")])


def test_a_file_that_a_manifest_names_many_times_counts_as_often_as_it_is_written(tmp_path: Path) -> None:
    message = pushed(toy_model(tmp_path))

    def named(times: int) -> PushedModel:
        files = {f"copy-{number}": "0" * 64 for number in range(times)}
        manifest = msgspec.structs.replace(manifest_of(message), files=files)
        told = msgspec.json.encode(manifest).decode()
        return msgspec.structs.replace(message, model=manifest.version, manifest=told)

    half = {chunk_key("0" * 64, at): bytes(CHUNK_BYTES) for at in range(MODEL_BYTES_MAX // CHUNK_BYTES // 2)}
    parts = taken(named(2), half)
    parts.take([Record("models", 0, 0, START_MS, *next(iter(half.items())))])  # the same once more
    assert sum(len(part) for name in ("copy-0", "copy-1") for part in parts.of(name)) == MODEL_BYTES_MAX
    with pytest.raises(ModelError, match="its files are too large"):
        taken(named(3), half)
