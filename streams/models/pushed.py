"""The manifest of a model that was pushed, as the control topic tells it. Light: commands load no library for it."""

from scoring.inputs import SPEC_HASH
from scoring.manifest import Manifest, ModelError, decode_manifest
from streams.control_wire import PushedModel
from streams.wire import UNREADABLE

AGAIN = "push it again: salience model push DIR"


def manifest_of(pushed: PushedModel) -> Manifest:
    """The manifest that was pushed. Raises `ModelError` where it is invalid, or of another specification or model."""
    manifest = told_manifest(pushed)
    if manifest.spec_hash != SPEC_HASH:  # first: a former release may have computed the version in another way
        raise ModelError(
            f"{pushed.model}: trained for the feature specification {manifest.spec_hash}",
            f"{SPEC_HASH}, which this version computes",
            "train it again, and push that",
        )
    if manifest.version != pushed.model:
        raise ModelError(f"{pushed.model} is {manifest.version} by its manifest", "one version", AGAIN)
    return manifest


def told_manifest(pushed: PushedModel) -> Manifest:
    """The manifest, also of another specification. Raises `ModelError` where it is invalid."""
    try:
        return decode_manifest(pushed.manifest)
    except UNREADABLE as error:
        raise ModelError(f"{pushed.model}: {error}", "the fields of a manifest", AGAIN) from error
