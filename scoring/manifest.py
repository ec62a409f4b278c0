"""What a model says of itself: ``manifest.json``, checked for itself, and the files that it names."""

import hashlib
from collections.abc import Iterator
from importlib.resources.abc import Traversable

import msgspec

from scoring.features import DENSE_DIM
from scoring.files import read_at_most
from scoring.inputs import SPEC_HASH
from scoring.text import TEXT_ENCODER, WIDE_DIM

FORMAT = 1
"""Version of the manifest's fields."""
MANIFEST, ENCODER, ATTENTION = "manifest.json", "item_encoder.onnx", "attention.onnx"
MANIFEST_BYTES_MAX = 2**20
"""Largest manifest: as much as a broker takes in one record by default. The demo model's has 1,353 bytes."""
FILE_BYTES_MAX = 256 * 2**20
"""Largest file that is read: two million tokens of 32 floats."""
NAME_MAX = 63
"""Characters of a file's name: file systems take 255 bytes, and a character has up to four."""
DIM_MAX = 256
"""Widest learned vectors: those of a million ads are 1 GB."""


class ModelError(ValueError):
    """A model that a worker must not use: what is wrong, what was expected, and the command that helps."""

    def __init__(self, reason: str, expected: str, fix: str) -> None:
        super().__init__(f"{reason}; expected {expected}; {fix}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``manifest.json`` says. Times are UTC epoch ms, 0 where unknown; ``files`` maps names to sha256.

    ``text``: the text encoder (`scoring.text`) whose vectors of titles the item encoder asks for, "" where for none.
    """

    format: int
    name: str
    spec_hash: str
    dim: int
    vocabulary: int
    opset: int
    data: str
    data_from_ms: int = 0
    data_to_ms: int = 0
    metrics: dict[str, float] = {}
    git_revision: str = ""
    files: dict[str, str]
    golden: str
    text: str = ""

    @property
    def version(self) -> str:
        """The name, and eight hex digits of a hash of files and specification: one version, one behaviour.

        Under another specification of the inputs the same graphs give other scores.
        """
        behaviour = [self.spec_hash, *sorted(self.files.items())]
        digest = hashlib.sha256(repr(behaviour).encode()).hexdigest()
        return f"{self.name}-{digest[:8]}"

    @property
    def dense_dim(self) -> int:
        """Numbers of an item that the item encoder asks for beside its tokens."""
        return WIDE_DIM if self.text else DENSE_DIM


decode_manifest = msgspec.json.Decoder(Manifest).decode


def read_manifest(place: Traversable) -> Manifest:
    """The manifest in ``place``, checked for itself. Raises `ModelError`."""
    fix = export_again(place)
    try:
        manifest = decode_manifest(read_at_most(place / MANIFEST, MANIFEST_BYTES_MAX))
    except OSError as error:
        most = f"a file of at most {MANIFEST_BYTES_MAX:,} bytes"
        raise ModelError(f"{place}: {MANIFEST} cannot be read ({error})", most, fix) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{place}/{MANIFEST}: {error}", "the fields of a manifest", fix) from error
    if manifest.format != FORMAT:
        raise ModelError(f"{place}: manifest format {manifest.format}", f"format {FORMAT}", fix)
    if manifest.spec_hash != SPEC_HASH:
        raise ModelError(
            f"{place}: trained for the feature specification {manifest.spec_hash}",
            f"{SPEC_HASH}, which this version computes",
            f"train it again: salience train demo --out {place}",
        )
    if not 1 <= manifest.dim <= DIM_MAX or manifest.vocabulary < 2:
        got = f"dim {manifest.dim}, vocabulary {manifest.vocabulary}"
        raise ModelError(f"{place}: {got}", f"dim 1 to {DIM_MAX} and vocabulary ≥ 2", fix)
    if manifest.text not in ("", TEXT_ENCODER):
        raise ModelError(f"{place}: asks for text vectors by {manifest.text!r}", f"{TEXT_ENCODER!r} or none", fix)
    missing = {ENCODER, ATTENTION, manifest.golden} - manifest.files.keys()
    if missing:
        raise ModelError(f"{place}: the manifest names no {', '.join(sorted(missing))}", "its sha256", fix)
    return manifest


def export_again(place: Traversable) -> str:
    """What helps where the model in ``place`` is not whole."""
    return f"export it again: salience train demo --out {place}"


def is_plain_name(name: str) -> bool:
    """Whether a file of a model may have this name: one inside its directory, on any system."""
    return name not in {"", ".", ".."} and len(name) <= NAME_MAX and not any(each in name for each in "/\\:\0")


def checked_files(place: Traversable, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the manifest's files, each read once: what is hashed is loaded. Raises `ModelError`."""
    fix = export_again(place)
    for name, digest in manifest.files.items():
        if not is_plain_name(name):
            raise ModelError(f"{place}: the manifest names the file {name!r}", "a plain name inside the directory", fix)
        try:
            content = read_at_most(place / name, FILE_BYTES_MAX)
        except OSError as error:
            most = f"a file of at most {FILE_BYTES_MAX:,} bytes"
            raise ModelError(f"{place}: {name} cannot be read ({error})", most, fix) from error
        if (found := hashlib.sha256(content).hexdigest()) != digest:
            raise ModelError(f"{place}: {name} has the sha256 {found}", f"{digest}, as the manifest says", fix)
        yield name, content
