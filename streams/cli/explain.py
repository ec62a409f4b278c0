"""``salience explain PLACEMENT_ID``: recompute a placement, and say why each ad has its slot."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Model, Prefix, answer, as_text, asked, settings_of
from streams.cli.screen import Table, coloured, moment, plain, reading, screen
from streams.control_wire import PushedModel
from streams.topics import DECISIONS
from streams.wire import UNREADABLE, Decision, Placement

if TYPE_CHECKING:
    from scoring.attention import AttentionModel
    from scoring.engine import Engine
    from streams.explain import Recomputed
    from streams.settings import Settings


def explain(
    placement_id: Annotated[str, typer.Argument(help="The placement's id, as in salience tail placements.")],
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Recompute a placement from its receipt on the decisions topic, and compare.

    It uses the model that the receipt names: --model if it is that one, else the
    one on the topic models. Exit status 1 if it cannot recompute, or the result
    differs; it says how. Where the topics of events were made anew, an id may be
    given a second time: the time of the placement tells which one this is.

    Example: salience explain 0-1a22-81e-ce3204e5831d6fd5
    """
    from streams.explain import recompute
    from streams.receipt_search import find_receipt
    from streams.receipts import check_receipt

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix, model=model)
    with reading(as_json) as progress:
        where, looked = (settings.bootstrap, settings.topic_prefix), partial(progress, DECISIONS)
        decision = asyncio.run(find_receipt(*where, as_text(placement_id), progress=looked))
    if decision is None:
        fail(_missing(settings, placement_id))
    none = f"What is on {settings.topic_prefix}decisions for {placement_id!r} is no receipt of this version: "
    try:
        check_receipt(decision)
    except ValueError as error:
        fail(none + str(error))
    other = decision.other.model if decision.other is not None else None
    engine = asked(_engine(settings, decision.versions["model"], other), "Reading ads")
    try:
        result = recompute(decision, engine)
    except ValueError as error:
        fail(none + str(error))
    told = _told(decision)
    if as_json:
        answer(_answer(decision, told, result))
    else:
        _show(screen(highlight=True, soft_wrap=True), decision, told, result)
    raise typer.Exit(0 if result.identical else 1)


def _missing(settings: "Settings", placement_id: str) -> str:
    """Why there may be no such receipt, and what helps."""
    from scoring.ids import id64s
    from streams.placement_ids import Origin
    from streams.receipts import kept

    if Origin.of(placement_id) is None:
        return (
            f"{placement_id!r} is not the id of a placement, which is like 0-1a22-81e-ce3204e5831d6fd5; "
            "they are in: salience tail placements --from-beginning"
        )
    missing = f"No decision {placement_id!r} on {settings.topic_prefix}decisions at {settings.bootstrap}"
    if not kept(id64s([placement_id]), settings.receipts_share).all():
        return f"{missing}: this placement leaves none where SALIENCE_RECEIPTS_SHARE is {settings.receipts_share}"
    return f"{missing}; ids are in: salience tail placements --from-beginning"


async def _engine(settings: "Settings", version: str, other: str | None) -> "Engine":
    """An engine with the models that decided, from `Settings.model` or the topic models, and the present ads."""
    from scoring.attention import load
    from scoring.catalogue import learned_column
    from streams.app import make_engine
    from streams.control import read_control
    from streams.feeds.catalogue import apply_ads
    from streams.models.store import obtain
    from streams.models.trial import TrialServer
    from streams.reading import read_topic

    given, control = load(settings.model), await read_control(settings)

    async def model(named: str) -> "AttentionModel":
        pushed = None if named == given.version else control.get(PushedModel, named)
        return given if pushed is None else await obtain(settings, pushed, trials)

    async with TrialServer(settings) as trials:
        first = await model(version)
        second = first if other is None or other == version else await model(other)
    engine = make_engine(settings, first)
    if second.version != first.version:
        engine.catalogue.attach(learned_column(second.version), second.encode, second.dim)
        engine.models.hold(second)
    async for records in read_topic(settings.bootstrap, settings.topic_prefix + "ads"):
        apply_ads(engine.catalogue, records)
    return engine


@dataclass(frozen=True, slots=True)
class _Told:
    """A receipt's placement; each slot's chance of being looked at, None without a click layer; and the number of
    candidates not placed, by reason, largest first, None if the receipt gives no reasons.
    """

    placement: "Placement"
    examined: list[float | None]
    losers: dict[str, int] | None
    table: Table
    """The slots, for people."""

    @classmethod
    def of(cls, decision: Decision) -> "_Told":
        """Raises `ValueError`, `OverflowError` or `IndexError` if the receipt holds no valid placement."""
        import numpy as np

        placement, looked_at = msgspec.json.decode(decision.placement, type=Placement), np.frombuffer(decision.examined)
        examined = [float(looked_at[slot.slot]) if len(looked_at) else None for slot in placement.slots]
        losers = _losers(decision.fates) if decision.fates else None
        return cls(placement, examined, losers, _slots(placement, examined))


def _told(decision: Decision) -> _Told:

    try:
        return _Told.of(decision)
    except (*UNREADABLE, OverflowError, IndexError) as error:
        fail(f"The receipt {decision.placement_id!r} holds no placement that can be told: {error}")


def _answer(decision: Decision, told: _Told, result: "Recomputed") -> dict[str, Any]:
    """The same for machines: each slot with what earned it, and why other candidates were not placed."""
    placement = told.placement
    return {
        "placement_id": placement.placement_id,
        "user_id": placement.user_id,
        "arm": placement.arm,
        "time_ms": placement.time_ms,
        "identical": result.identical,
        "differences": result.differences,
        "pctr_difference": result.pctr_difference,
        "model": decision.versions["model"],
        "explore": decision.explore,
        "candidates": len(decision.candidates) // 8,
        "slots": [
            {**msgspec.to_builtins(slot), "examined": seen}
            for slot, seen in zip(placement.slots, told.examined, strict=True)
        ],
        "not_placed": told.losers,
    }


def _show(console: Console, decision: Decision, told: _Told, result: "Recomputed") -> None:
    placement = told.placement
    verdict = coloured("the same, byte for byte", "green") if result.identical else coloured("not the same", "red")
    when = moment(placement.time_ms, "%Y-%m-%d %H:%M:%S UTC")
    console.print(f"Placement {placement.placement_id} for {placement.user_id}, arm {placement.arm}:", verdict)
    console.print(f"It was made at {when}.")
    for difference in result.differences:
        console.print(coloured(f"  {difference}", "red"))
    console.print(told.table)
    apart = result.pctr_difference
    again = "" if apart is None else f"; the largest difference of a recomputed pCTR is {apart:.1e}"
    console.print(
        f"Chosen from {len(decision.candidates) // 8} candidates with model {decision.versions['model']}, "
        f"slots explored by {decision.explore}{again}."
    )
    if told.losers is not None:
        others = ", ".join(f"{count} {fate.replace('_', ' ')}" for fate, count in told.losers.items()) or "none"
        console.print(f"The others: {others}.")


def _slots(placement: Placement, examined: list[float | None]) -> Table:
    table = plain("slot", "ad", "looked at", "pCTR", "eCPM", "price", "propensity", "earned by")
    for slot, seen in zip(placement.slots, examined, strict=True):
        reasons = ", ".join(f"{item.ad_id} {item.weight:.0%}" for item in slot.attention) or "no past item"
        table.add_row(
            str(slot.slot),
            slot.ad_id,
            "-" if seen is None else f"{seen:.2f}",
            f"{slot.pctr:.4f}",
            f"{slot.ecpm_micros / 1e6:.3f}",
            f"{slot.price_micros / 1e6:.4f}",
            f"{slot.propensity:.4g}",
            reasons,
        )
    return table


def _losers(fates: bytes) -> dict[str, int]:
    from collections import Counter

    from scoring.market import Fate

    counts = Counter(fate for fate in fates if fate < Fate.WON)
    return {Fate(fate).name.lower(): count for fate, count in counts.most_common()}
