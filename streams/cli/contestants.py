"""Which models ``salience evaluate`` compares."""

from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.failing import fail

if TYPE_CHECKING:
    from onnx_models.alternatives import Alternative
    from onnx_models.training import Config
    from onnx_models.trial import Trial

CHOSEN = "attention"
"""The model that the others are compared with."""
MODELS = (
    CHOSEN, "mean_pooling", "din", "no_history", "no_interest", "no_time_decay", "no_id", "no_reviews", "no_text",
    "gbdt", "hashed_lr", "popularity", "adaptive_forest", "hoeffding_tree", "matrix_factorisation",
)  # fmt: skip
"""What can be compared; ``no_reviews`` where the log has reviews, ``no_text`` where titles have vectors."""
LACKS = {"no_reviews": "no reviews", "no_text": "no vectors of titles (--text of evaluate log and demo)"}
"""What is missing where an ablation has nothing to take away."""


def _named(names: str | None) -> str | None:
    """Check the names before minutes of work."""
    if names is not None and (unknown := {name.strip() for name in names.split(",")} - {*MODELS}):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}; expected some of {', '.join(sorted(MODELS))}")
    return names


ModelsOption = Annotated[
    str | None,
    typer.Option(
        "--models",
        callback=_named,
        help="Only these models, comma-separated; attention is always included. Else all.",
    ),
]


def contestants(trial: "Trial", config: "Config", names: str | None = None) -> "list[Alternative]":
    """The named models and `CHOSEN`, the slowest first; all that ``trial`` has data for where no names are given."""
    able = _able(trial, config)
    if names is None:
        return able
    wanted = {name.strip() for name in names.split(",")} | {CHOSEN}
    if absent := sorted(wanted - {model.name for model in able}):
        lacks = " and ".join(LACKS[name] for name in absent)
        fail(f"There are {lacks} to do without: leave out {', '.join(absent)} from --models", 2)
    return [model for model in able if model.name in wanted]


def _able(trial: "Trial", config: "Config") -> "list[Alternative]":
    from onnx_models.alternatives.boosting import Boosting
    from onnx_models.alternatives.hashed import Hashed
    from onnx_models.alternatives.incremental import river_models
    from onnx_models.alternatives.nets import Net, variants
    from onnx_models.alternatives.popularity import Popularity

    before = trial.before if len(trial.before) else None
    chosen = Net(CHOSEN, config, before)
    others = variants(config, before, trial.items, reviewed=len(trial.said) > 0)
    din = [net for net in others if net.name == "din"]
    nets = [*din, chosen, *(net for net in others if net not in din)]
    return [*nets, *river_models(config.seed)[::-1], Boosting(config.seed), Hashed(), Popularity()]
