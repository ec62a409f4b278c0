"""``salience outcomes``: how good the click rates were that came true or not, by model and arm."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from streams.cli.options import Bootstrap, Json, Prefix, settings_of
from streams.cli.screen import Table, reading, screen

LatestOption = Annotated[
    int | None, typer.Option("--latest", min=1, help="Only so many of each model and arm: those shown last.")
]


def outcomes(
    bootstrap: Bootstrap = None, prefix: Prefix = None, latest: LatestOption = None, as_json: Json = False
) -> None:
    """Tell AUC, log loss and calibration of what was predicted when impressions were shown.

    Beside the online click layer stands the attention model alone. The newest clicks, of whose time it is not known yet
    what else is clicked, are left out. Calibration here is predicted clicks over clicks; 1 is right on average.

    Example: salience outcomes --latest 5000
    """
    import numpy as np

    from onnx_models.metrics import measure
    from streams.layer_audit import decode_outcome
    from streams.outcomes import columns
    from streams.quality import Settled
    from streams.reading import read_topic
    from streams.topics import OUTCOMES

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    found: dict[tuple[str, str], list[tuple[int, bool, float, float]]] = defaultdict(list)
    settled = Settled()

    async def read(progress: Callable[[int, int], None]) -> None:
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + OUTCOMES, progress=progress):
            read_now = [decode_outcome(record.value or b"") for record in records]
            for outcome in settled.take(records[0].partition, columns(read_now))["outcome"]:
                which, chances = (outcome.model, outcome.arm), (outcome.predicted, outcome.attention)
                found[which].append((outcome.shown_ms, outcome.clicked, *chances))

    with reading(as_json) as progress:
        asyncio.run(read(partial(progress, OUTCOMES)))
    told: list[dict[str, Any]] = []
    for (model, arm), each in sorted(found.items()):
        each.sort()  # by when they were shown: clicks are told minutes before non-clicks of the same time
        _, clicked, predicted, attention = np.array(each[-latest:] if latest else each, dtype=np.float64).T
        for name, chances in (("online layer", predicted), ("attention alone", attention)):
            metrics = measure(clicked, chances).named("")
            told.append({"model": model, "arm": arm, "predicted_by": name, "outcomes": len(clicked), **metrics})
    if as_json:
        typer.echo(json.dumps({"outcomes": told}))
        return
    table = Table("model", "arm", "predicted by", "outcomes", "AUC", "log loss", "predicted / clicks")
    for row in told:
        numbers = (f"{row[name]:.4f}" for name in ("auc", "log_loss", "calibration"))
        table.add_row(row["model"], row["arm"], row["predicted_by"], f"{row['outcomes']:,}", *numbers)
    screen(highlight=True).print(table if told else "No outcome is known yet.")
