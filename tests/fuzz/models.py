"""A model's files: manifest, golden tensors, graphs."""

from scoring.attention import _session, encoder_contract, read_golden
from scoring.manifest import ENCODER, MANIFEST, Manifest, ModelError, read_manifest
from tests.fuzz.messages import fields
from tests.fuzz.state import folder
from tests.fuzz.target import Check, Target
from tests.models import DIM, toy_model


def _manifest() -> Check:
    place = folder()

    def check(data: bytes) -> None:
        (place / MANIFEST).write_bytes(data)
        try:
            manifest = read_manifest(place)
        except ModelError:
            return
        assert manifest.golden in manifest.files

    return check


def _golden() -> Check:
    place = toy_model(folder())
    manifest = read_manifest(place)

    def check(data: bytes) -> None:
        try:
            read_golden(data, manifest)
        except ModelError:
            return

    return check


def _graph() -> Check:
    place = folder()

    def check(data: bytes) -> None:
        try:
            _session(place, ENCODER, {ENCODER: data}, encoder_contract(DIM))
        except ModelError:
            return

    return check


def _file(name: str) -> list[bytes]:
    place = toy_model(folder())
    return [(place / name).read_bytes()]


MODELS = (
    Target("manifest", _manifest, lambda: _file(MANIFEST), fields(Manifest)),
    Target("golden", _golden, lambda: _file("golden.npz"), [b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY"], 65_536),
    Target("graph", _graph, lambda: _file(ENCODER), [b"tokens", b"dense", b"vector", b"Gather"], 16_384),
)
