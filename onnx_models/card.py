"""The model card: what a model is for, how it was made, how good it is, and its limits (Mitchell et al., 2019)."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from onnx_models.folds import Spread
from onnx_models.heads import Heads
from onnx_models.metrics import Metrics, shown
from onnx_models.training import TrainResult
from onnx_models.trial import Span
from scoring.manifest import Manifest

CARD = "MODEL_CARD.md"
CURVES = "learning_curves.png"


def card(
    manifest: Manifest,
    result: TrainResult,
    before: Span,
    measured: Mapping[str, Metrics],
    others: Heads,
    across: Mapping[str, Spread] | None,
    *,
    pictured: bool,
) -> str:
    """The card as Markdown. ``before``: older examples that only told looks; ``measured``: the model and what it is
    compared with; ``across``: over folds.
    """
    measures = [_measures(measured), _heads(others), _folds(across)]
    parts = [_head(manifest, before), *measures, _training(result, pictured=pictured), _LIMITS]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(manifest: Manifest, before: Span) -> str:
    learnt = f"{manifest.data}, {_days(manifest.data_from_ms, manifest.data_to_ms)}"
    looks = f"; before that, looks at {before.count:,} impressions, {_days(before.from_ms, before.to_ms)}"
    return (
        f"# {manifest.version}\n\n"
        f"Predicts whether a person clicks an ad shown, from what the person attended to before.\n\n"
        f"| | |\n|---|---|\n"
        f"| Learnt from | {learnt}{looks if before.count else ''} |\n"
        f"| Feature specification | `{manifest.spec_hash}` |\n"
        f"| Code | `{manifest.git_revision or 'unknown'}` |\n"
        f"| Width of vectors, tokens told apart | {manifest.dim}, {manifest.vocabulary:,} |\n"
        f"| Titles | {f'as vectors by {manifest.text}' if manifest.text else 'as words'} |\n"
        f"| Outputs | click log-odds, attention; conversion log-odds of a click; log1p of seconds looked |"
    )


def _measures(measured: Mapping[str, Metrics]) -> str:
    lines = ["## On what came after", "", "| predicted by | AUC | log loss | clicks / predicted |", "|---|---|---|---|"]
    for name, each in measured.items():
        lines.append(f"| {name} | {shown(each.auc, 4)} | {shown(each.log_loss, 4)} | {shown(each.calibration, 3)} |")
    return "\n".join(lines)


def _heads(others: Heads) -> str:
    says, always = others.conversion, others.always
    return (
        "## Beside clicks\n\n"
        "No placement goes by these: campaigns that bid for purchases or seconds are ranked by what theirs brought.\n\n"
        "| says | of | how well |\n|---|---|---|\n"
        f"| a click becomes a purchase | {others.clicks:,} clicks, {others.purchases:,} with one | AUC "
        f"{shown(says.auc, 4)}, log loss {shown(says.log_loss, 4)} (always the share that trained: "
        f"{shown(always.log_loss, 4)}), purchases / predicted {shown(says.calibration, 3)} |\n"
        f"| log1p of seconds looked | {others.looks:,} looks told, else 0 | explains {shown(others.explained, 3)} of "
        f"the variance, told / said {shown(others.viewed_calibration, 3)} |"
    )


def _folds(across: Mapping[str, Spread] | None) -> str:
    if not across:
        return ""
    lines = ["## Over folds in time", "", "| measure | mean | 95 % interval |", "|---|---|---|"]
    for name, each in across.items():
        lines.append(f"| {name} | {each.mean:.4f} | {each.low:.4f} to {each.high:.4f} |")
    return "\n".join(lines)


def _training(result: TrainResult, *, pictured: bool) -> str:
    lines = ["## Training", "", "| epoch | training loss | validation log loss | validation AUC |", "|---|---|---|---|"]
    for at, (loss, each) in enumerate(zip(result.losses, result.epochs, strict=True)):
        lines.append(f"| {at + 1} | {loss:.4f} | {each.log_loss:.4f} | {each.auc:.4f} |")
    lines += [""] + ([f"![learning curves]({CURVES})", ""] if pictured else [])
    settings = ", ".join(f"{name} {value}" for name, value in asdict(result.config).items())
    return "\n".join([*lines, f"Settings: {settings}."])


_LIMITS = """## Limits

It knows clicks on what somebody chose to show: what was never shown was never learnt. It ranks; how far its chances can
be believed a week later is the online click layer's business. Content that the log did not have (a new brand, a new
tag) says little until it is trained again. It holds no personal data: people come in as their recent past alone."""


def _days(from_ms: int, to_ms: int) -> str:
    return f"{_day(from_ms)} to {_day(to_ms)}"


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
