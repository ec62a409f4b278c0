"""Models as they are sent: parts that fit a record, and what a removed model leaves to the others."""

from pathlib import Path

import msgspec
import pytest

from scoring.attention import MANIFEST, ModelError, load, read_manifest
from streams import model_store
from streams.control_wire import PushedModel
from streams.model_store import CHUNK_BYTES, chunk_key, manifest_of, pack, unshared
from tests.models import toy_model


def pushed(directory: Path, **changes: object) -> PushedModel:
    packed = pack(directory)
    told = {"model": load(directory).version, "manifest": packed.manifest, "bytes": packed.bytes, "time_ms": 1}
    return PushedModel(parity=0.0, score_ms=0.0, **(told | changes))  # type: ignore[arg-type]  # by name


def test_parts_are_small_and_together_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "CHUNK_BYTES", 100)
    directory = toy_model(tmp_path)
    packed = pack(directory)
    assert max(map(len, packed.parts.values())) == 100
    for name, digest in read_manifest(directory).files.items():
        content = (directory / name).read_bytes()
        count = -(-len(content) // 100)
        assert b"".join(packed.parts[chunk_key(digest, at)] for at in range(count)) == content
    assert CHUNK_BYTES <= 2**20


def test_a_model_that_is_too_large_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "MODEL_BYTES_MAX", 1_000)
    with pytest.raises(ModelError, match=r"its files have [\d,]+ bytes; expected at most 1,000"):
        pack(toy_model(tmp_path))


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="toy-00000000 is toy-"):
        manifest_of(pushed(toy_model(tmp_path), model="toy-00000000"))
    with pytest.raises(ModelError, match="the fields of a manifest"):
        manifest_of(pushed(toy_model(tmp_path), manifest="{}"))


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
    with pytest.raises(ModelError, match="has changed"):
        pack(directory)
