"""The results of ``salience evaluate``, as tables for people and as one JSON object."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from streams.cli.options import answer
from streams.cli.screen import Table

if TYPE_CHECKING:
    from onnx_models.ageing import Age
    from onnx_models.bootstrap import Interval
    from onnx_models.cold import Segment
    from onnx_models.comparison import Comparison, Line
    from onnx_models.drill import Drills
    from onnx_models.learning import Variant
    from onnx_models.trial import Trial


@dataclass(frozen=True, slots=True)
class Beside:
    """Further results on the chosen model, beside the comparison."""

    drills: "Drills | None"
    cold: "list[Segment]"
    ages: "list[Age]"
    learning: "list[Variant]"
    lanes: "list[Variant]"


def report(trial: "Trial", found: "Comparison", beside: Beside, console: Console, as_json: bool) -> None:
    if as_json:
        about = {
            "learnt": len(trial.learn), "before": len(trial.before), "tested": len(trial.stateful),
            "left_out": trial.left._asdict(), "clicks": {"late": trial.late, "astray": trial.astray},
            "cut_ms": trial.cut_ms, "chosen": found.chosen,
            "steps": {step: {name: each.named() for name, each in of.items()} for step, of in found.steps.items()},
        }  # fmt: skip
        told = {mode: {name: line.named() for name, line in of.items()} for mode, of in found.lines.items()}
        strangers = {each.name: {"examples": each.examples, **each.metrics.named("")} for each in beside.cold}
        lanes, ways = ({each.key: _named(each) for each in of} for of in (beside.lanes, beside.learning))
        age = [each.named() for each in beside.ages]
        drift = beside.drills.named() if beside.drills else {}
        more = {"cold_start": strangers, "age": age, "drift": drift, "learning": ways, "lanes": lanes, "about": about}
        answer(told | more)
    for mode, lines in found.lines.items():
        console.print(_table(mode, lines, found.chosen, len(trial.stateful)))
    console.print(_costs(found.lines["frozen"], found.chosen))
    for step, of in found.steps.items():
        parts = [f"{name} {_sure(each)}" for name, each in of.items()]
        console.print(f"{found.chosen}, {step.replace('_', ' ')}: {', '.join(parts)}")
    console.print(_cold(beside.cold, found.chosen), _ages(beside.ages, found.chosen))
    if beside.drills:
        console.print(_drift(beside.drills))
    console.print(_layers("How the click layer learns", "way", beside.learning))
    if beside.lanes:
        console.print(_layers("The click layer of several lanes", "lanes", beside.lanes))


def _drift(stood: "Drills") -> Table:
    from onnx_models.drill import BLOCK, TURNED

    table = Table(title=f"Drift: {stood.false_alarms} alarms on the test as it is")
    blocks = f"clicks / predicted by {BLOCK:,}"
    for name in ("from half-way on", "outcomes until an alarm: what changed, the answer", blocks):
        table.add_column(name)
    names = {f"one in {TURNED} ads turns": stood.ads_turn, "people change places": stood.people_change_places}
    for name, drill in names.items():
        alarms = "\n".join(f"{each.after:,}: {each.detector}, {each.answer}" for each in drill.alarms) or "none"
        table.add_row(name, alarms, " ".join(f"{each:.2f}" for each in drill.calibration))
    return table


def _cold(cold: "list[Segment]", chosen: str) -> Table:
    table = Table("of the test", "impressions", "AUC", "log loss", "clicks / predicted", title=f"Cold start: {chosen}")
    for each in cold:
        of_it = each.metrics
        table.add_row(
            each.name, f"{each.examples:,}", f"{of_it.auc:.4f}", f"{of_it.log_loss:.4f}", f"{of_it.calibration:.3f}"
        )
    return table


def _ages(ages: "list[Age]", chosen: str) -> Table:
    table = Table(title=f"As it ages: {chosen}")
    for name, least in (("hour", 4), ("shown", 6), ("AUC that state adds", 26), ("log loss that the layer adds", 26)):
        table.add_column(name, justify="right", min_width=least)
    for each in ages:
        table.add_row(
            f"{each.from_hours}",
            f"{each.examples:,}",
            _sure(each.state_adds_auc),
            _sure(each.layer_adds_log_loss),
        )
    return table


def _named(found: "Variant") -> dict[str, Any]:
    above = found.log_loss_difference
    return found.metrics.named("") | ({"log_loss_difference": above.named()} if above else {})


def _layers(title: str, first: str, found: "list[Variant]") -> Table:
    table = Table(title=title)
    table.add_column(first, max_width=13)  # then intervals fit on one line of 80 columns
    above = f"log loss above {found[0].name}"
    for name, width in (("AUC", 6), ("log loss", 8), ("clicks / predicted", 11), (above, 26)):
        table.add_column(name, justify="right", width=width)
    for each in found:
        of_it, gap = each.metrics, each.log_loss_difference
        figures = [f"{of_it.auc:.4f}", f"{of_it.log_loss:.4f}", f"{of_it.calibration:.3f}"]
        table.add_row(each.name, *figures, _sure(gap) if gap else "")
    return table


def _table(mode: str, lines: "dict[str, Line]", chosen: str, tested: int) -> Table:
    table = _numbers(f"{mode}: {tested:,} impressions", "AUC", "log loss", "norm. entropy", "clicks / predicted")
    table.add_column(f"AUC less {chosen}'s")
    for name, line in sorted(lines.items(), key=lambda each: -each[1].auc):
        cells = [name, f"{line.auc:.4f}", f"{line.log_loss:.4f}", f"{line.normalised_entropy:.4f}"]
        gap = line.auc_difference
        away = _sure(gap) if gap else ""
        table.add_row(*cells, f"{line.calibration:.3f}", away, style="bold" if name == chosen else None)
    return table


def _costs(lines: "dict[str, Line]", chosen: str) -> Table:
    """The figures that only frozen models have."""
    table = _numbers("frozen: a person's own order, and what a candidate costs", "gAUC", "NDCG@10", "µs", "kFLOP")
    for name, line in sorted(lines.items(), key=lambda each: -each[1].ordered[0]):
        cells = [name, *("–" if math.isnan(each) else f"{each:.4f}" for each in line.ordered)]
        cells += [f"{line.us_per_candidate:.1f}", f"{line.kflop_per_candidate:.3g}"]
        table.add_row(*cells, style="bold" if name == chosen else None)
    return table


def _sure(gap: "Interval") -> str:
    ends = "–" if math.isnan(gap.low) else f"{gap.low:+.4f}, {gap.high:+.4f}"
    return f"{gap.value:+.4f} [{ends}]"


def _numbers(title: str, *names: str) -> Table:
    """A table of models whose names and numbers fit in 80 columns."""
    table = Table(title=title)
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right", min_width=6)
    return table
