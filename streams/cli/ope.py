"""``salience ope``: estimate what another policy would have earned, from the log of the one that ran."""

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Prefix, answer, settings_of
from streams.cli.screen import Table, coloured, reading, screen

if TYPE_CHECKING:
    from scoring.offpolicy import Estimate
    from streams.choices import Choices

Log = Annotated[
    str, typer.Option("--log", help="Source: topics (decisions and clicks on the broker), hillstrom:DIR, or obd:DIR.")
]
Policy = Annotated[
    str,
    typer.Option(
        "--policy", help="Policy for topics: uniform, greedy, or temperature=0.5. Other logs bring their own."
    ),
]
Slots = Annotated[int, typer.Option("--slots", min=1, max=10, help="First slots of a placement to evaluate.")]

LEFT_OUT = {
    "control_left_out": "of the control group, which draws from other candidates",
    "before_clicks_left_out": "older than the clicks that are still there: whether they were clicked is not known",
    "too_new_left_out": "too new: whether they are clicked is not known yet",
    "beyond_most_left_out": "beyond those that are kept at once, the oldest",
}
"""Counts of placements that no estimate uses, and why."""
UNTOLD = "the policy never chooses what was logged in this slot: nothing can be said of it from this log"


def ope(
    log: Log,
    policy: Policy = "uniform",
    slots: Slots = 1,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Evaluate another policy off-policy: IPS, SNIPS, DM, DR, switch-DR, with intervals and doubts.

    For topics it leaves out the control group, and placements that may still be
    clicked, up to SALIENCE_CLICK_WINDOW_MS after their end. Clicks count by the
    workers' rules for bursts, bots and late events (SALIENCE_LATE_MS and others;
    set them as workers have them).

    Intervals are clustered by person: one person's choices are alike. Slots
    count from 0; those below the first get only IPS and SNIPS: no reward model
    covers them.

    Example: salience ope --log topics --policy temperature=0.5 --slots 3
    """
    from streams.choices import Choices, read_choices, temperature_of
    from streams.cleaned import Cleaned
    from streams.clock import wall_ms

    try:
        temperature = temperature_of(policy)
    except ValueError as error:
        fail(error, 2)
    try:
        kind, _, place = log.partition(":")
        if kind == "hillstrom" and place:
            _tell(_hillstrom(Path(place)), as_json)
        elif kind == "obd" and place:
            _tell(_obd(Path(place)), as_json)
        elif log == "topics":
            settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
            window_ms, latest_ms = settings.click_window_ms, wall_ms() + settings.time_tolerance_ms
            cleaned = Cleaned(settings.cleaning, latest_ms, window_ms)
            choices = Choices(temperature, slots, window_ms, cleaned=cleaned)
            with reading(as_json) as progress:
                asyncio.run(read_choices(settings.bootstrap, settings.topic_prefix, choices, progress))
            _tell(told_of(choices, policy), as_json)
        else:
            fail(f"--log {log}: expected topics, hillstrom:DIR or obd:DIR", 2)
    except ValueError as error:
        fail(error)


def _figures(estimates: "Mapping[str, Estimate]") -> dict[str, dict[str, float | None]]:
    """Estimates by name; an interval's ends are None where it has none, for example for one person."""
    return {
        name: {
            "value": e.value,
            "low": e.low if math.isfinite(e.low) else None,
            "high": e.high if math.isfinite(e.high) else None,
        }
        for name, e in sorted(estimates.items())
    }


def _hillstrom(directory: Path) -> dict[str, Any]:
    from streams.logs.hillstrom import values

    return {
        f"{value.arm}: {value.outcome}": {
            "observed": value.observed,
            "covered": {name: value.covered(name) for name in ("ips", "snips", "dr", "sndr")},
            "estimates": _figures(value.estimates),
        }
        for value in values(directory)
    }


def _obd(directory: Path) -> dict[str, Any]:
    from scoring.offpolicy import effective_size
    from streams.logs.obd import random_to_bts

    found = random_to_bts(directory)
    return {
        "bts from the random policy's log": {
            "observed": found.observed,
            "choices": len(found.logged.reward),
            "effective_size": effective_size(found.logged.weight),
            "doubts": found.doubts,
            "estimates": _figures(found.estimates),
        }
    }


def told_of(choices: "Choices", policy: str) -> dict[str, Any]:
    """The figures of each slot of the topics' choices. Raises `ValueError` if there are none.

    If the policy would never have made any logged choice in a slot below the first, that slot has no estimates, and
    a doubt that says why.
    """
    from scoring.offpolicy import doubts, effective_size, evaluate

    found = {}
    older, newer = choices.too_old, choices.too_new
    for slot, logged in enumerate(choices.logged()):
        untold = bool(slot) and not logged.weight.any()
        found[f"{policy}: clicks in slot {slot}"] = {
            "observed": float(logged.reward.mean()),
            "choices": len(logged.reward),
            "people": len(logged.of_people(logged.weight)),
            "control_left_out": choices.control,
            "before_clicks_left_out": older,
            "too_new_left_out": newer,
            "beyond_most_left_out": choices.beyond,
            "clicks_left_out": choices.uncounted,
            "effective_size": effective_size(logged.weight),
            "doubts": [UNTOLD] if untold else doubts(logged),
            "estimates": {} if untold else _figures(evaluate(logged)),
        }
    return found


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        answer(found)
        return
    table = Table("policy and outcome", "estimator", "value", "95 % interval", "observed")
    for what, part in found.items():
        for name, estimate in part["estimates"].items():
            known = "unknown" if estimate["low"] is None else f"{estimate['low']:.4g} to {estimate['high']:.4g}"
            interval = "its model alone" if name == "dm" else known
            table.add_row(what, name, f"{estimate['value']:.4g}", interval, f"{part['observed']:.4g}")
        table.add_section()
    console = screen()
    console.print(table)
    for name, why in LEFT_OUT.items():
        if count := max(part.get(name, 0) for part in found.values()):
            console.print(f"Left out: {count:,} placements {why}")
    if count := max(part.get("clicks_left_out", 0) for part in found.values()):
        console.print(f"Left out: {count:,} clicks that workers filter (bursts, bots), or that came too late")
    for what, part in found.items():
        for doubt in part.get("doubts", []):
            console.print(coloured(f"{what}: {doubt}", "yellow"))
