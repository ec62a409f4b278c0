"""The results of ``salience train``: a card beside the model, a table for people, one JSON object for machines."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from streams.cli.options import answer
from streams.cli.screen import Table

if TYPE_CHECKING:
    from onnx_models.folds import Spread
    from onnx_models.heads import Heads
    from onnx_models.metrics import Metrics
    from onnx_models.training import TrainResult
    from onnx_models.trial import Span, Trial
    from scoring.attention import AttentionModel
    from scoring.manifest import Manifest

_LABELS = {
    "test": "the model",
    "frozen": "the model, state frozen",
    "unreviewed": "the model, no reviews heard",
    "new": "the model, as if all ads were new",
    "new_unreviewed": "the same, no reviews heard",
}


@dataclass(frozen=True, slots=True)
class Found:
    """How good a model is: metrics by what predicts, those of its other heads, and over folds, if there were any.

    ``before``: the older examples that it first learnt looks from.
    """

    before: "Span"
    metrics: "dict[str, Metrics]"
    heads: "Heads"
    across: "dict[str, Spread]" = field(default_factory=dict)


def describe(out: Path, manifest: "Manifest", result: "TrainResult", found: Found) -> None:
    """Write the model card beside the manifest and, if matplotlib is installed, the learning curves."""
    from onnx_models.card import CARD, CURVES, card
    from onnx_models.export import put

    pictured = find_spec("matplotlib") is not None
    contents: dict[str, bytes] = {}
    if pictured:
        from onnx_models.curves import curves

        contents[CURVES] = curves(result)
    told = {_LABELS.get(name, name): each for name, each in found.metrics.items()}
    text = card(manifest, result, found.before, told, found.heads, found.across, pictured=pictured)
    put(out, contents | {CARD: text.encode()})


def report(out: Path, model: "AttentionModel", found: Found, trial: "Trial", console: Console, as_json: bool) -> None:
    """Print what was found, and of how many impressions."""
    from onnx_models.metrics import shown

    if as_json:
        counts = {"examples": len(trial.learn), "test_examples": len(trial.stateful), "left_out": trial.left._asdict()}
        answer({"model": model.version, "directory": str(out)} | counts | _named(found))
    title = f"What came after: {len(trial.stateful):,} impressions"
    table = Table("predicted by", "AUC", "log loss", "clicks / predicted", title=title)
    for name, value in found.metrics.items():
        label = _LABELS.get(name, name)
        table.add_row(label, shown(value.auc, 4), shown(value.log_loss, 5), shown(value.calibration, 3))
    console.print(table)
    console.print(_beside(found.heads))
    for name, each in found.across.items():
        console.print(f"Over {each.folds} folds in time: {name} {each.mean:.4f}, {each.low:.4f} to {each.high:.4f}")
    console.print(f"{model.version}, learnt from {len(trial.learn):,} impressions, is in {out}")


def _named(found: Found) -> dict[str, Any]:
    out: dict[str, Any] = {name: value.named("") for name, value in found.metrics.items()}
    if found.across:
        out["folds"] = {name: each.named() for name, each in found.across.items()}
    return out | {"heads": found.heads.named()}


def _beside(heads: "Heads") -> str:
    from onnx_models.metrics import shown

    says, always = heads.conversion, heads.always
    return (
        f"Beside clicks: purchases after {heads.clicks:,} clicks, {heads.purchases:,} of them, AUC "
        f"{shown(says.auc, 4)}, log loss {shown(says.log_loss, 4)} (always their share: {shown(always.log_loss, 4)}); "
        f"seconds looked, {shown(heads.explained, 3)} of the variance of log1p explained"
    )
