"""``salience outcomes``: how good predicted click rates were, by model and arm."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.options import Bootstrap, Json, Prefix, answer, settings_of
from streams.cli.screen import Table, left_out, reading, screen
from streams.topics import OUTCOMES

if TYPE_CHECKING:
    from streams.outcomes import Newest

LatestOption = Annotated[
    int | None, typer.Option("--latest", min=1, help="Only the last so many impressions of each model and arm.")
]
Found = dict[tuple[str, str], "Newest"]
"""By model and arm."""


def outcomes(
    bootstrap: Bootstrap = None, prefix: Prefix = None, latest: LatestOption = None, as_json: Json = False
) -> None:
    """Show AUC, log loss and calibration of the click rates that were predicted for impressions.

    It compares the online click layer with the attention model alone. It leaves
    out the newest clicks: other impressions of their time may still be clicked.
    The arm engine is all but the control group, experiments' arms among them.
    Calibration is clicks over predicted clicks; 1 is right on average. AUC is
    unknown (null in JSON) where there are only clicks, or none.

    Example: salience outcomes --latest 5000
    """
    from streams.outcomes import KEPT_MAX

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    topic, most = settings.topic_prefix + OUTCOMES, min(latest or KEPT_MAX, KEPT_MAX)
    with reading(as_json) as progress:
        found, unreadable = asyncio.run(_read(settings.bootstrap, topic, most, partial(progress, OUTCOMES)))
    left_out(unreadable, topic)
    if any(newest.more for newest in found.values()) and most != latest:
        screen(stderr=True, soft_wrap=True).print(
            f"The newest {most:,} outcomes of each model and arm alone: no more are held, and --latest asks for fewer"
        )
    told = _judged(found)
    if as_json:
        answer({"outcomes": told})
        return
    table = Table("model", "arm", "predicted by", "outcomes", "AUC", "log loss", "clicks / predicted")
    for row in told:
        numbers = ("unknown" if row[of] is None else f"{row[of]:.4f}" for of in ("auc", "log_loss", "calibration"))
        table.add_row(row["model"], row["arm"], row["predicted_by"], f"{row['outcomes']:,}", *numbers)
    screen(highlight=True).print(
        table
        if told
        else "No outcome is known yet. It is when its click window (SALIENCE_CLICK_WINDOW_MS, ten minutes) has ended "
        "by the time of its lane's newest event: without further events, no window ends."
    )


async def _read(bootstrap: str, topic: str, most: int, progress: Callable[[int, int], None]) -> tuple[Found, int]:
    """The last ``most`` outcomes of each model and arm, by time shown, and how many records are unreadable."""
    import numpy as np

    from streams.outcomes import JUDGED, Newest, columns, outcomes_in
    from streams.quality import Settled
    from streams.reading import read_topic

    settled, found, unreadable = Settled(), dict[tuple[str, str], Newest](), 0
    async for records in read_topic(bootstrap, topic, progress=progress):
        told, more = outcomes_in(records)
        unreadable += more
        known: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
        for one in settled.take(records[0].partition, columns(told))["outcome"]:
            judged = (one.shown_ms, one.clicked, one.predicted, one.attention)
            known.setdefault((one.model, one.arm), []).append(judged)
        for which, rows in known.items():
            found.setdefault(which, Newest(most)).take(np.array(rows, dtype=JUDGED))
    return found, unreadable


def _judged(found: Found) -> list[dict[str, Any]]:
    """The metrics of each model and arm, for the click layer's predictions and for the attention model's."""
    import numpy as np

    from onnx_models.metrics import measure

    told = []
    for (model, arm), newest in sorted(found.items()):
        rows = newest.rows()
        clicked = rows["clicked"].astype(np.float64)
        clicks = int(clicked.sum())
        unknown = {"auc": None} if clicks in (0, len(rows)) else {}
        for name, chances in (("online layer", rows["predicted"]), ("attention alone", rows["attention"])):
            metrics = measure(clicked, chances).named("") | unknown
            told.append({"model": model, "arm": arm, "predicted_by": name, "outcomes": len(rows), **metrics})
    return told
