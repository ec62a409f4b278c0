"""The demo for people: one frame of the live view."""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.demo.report import UNHEARD_SAID_S, Report, Snapshot
from streams.wire import Ad, Placement

BAR_WIDTH = 22
BAR_FULL = 0.4
"""Click rate that fills a bar: more than a perfect ranking earns in this shop."""
SLOTS_SHOWN = 3


def render(snapshot: Snapshot) -> RenderableType:
    """The whole frame."""
    report, sample = snapshot.report, snapshot.sample
    explained = _explained(sample, snapshot) if sample else Text("no placement with a reason yet")
    parts = [*_unheard(snapshot), _flow(snapshot), Text(), _click_rates(report), Text(), explained]
    subtitle = Text(f"{report.guarantee or 'your workers'} on {report.broker} · Ctrl-C ends it")  # no markup: [::1]
    return Panel(Group(*parts), title=f"salience · {snapshot.phase}", subtitle=subtitle)


def _unheard(snapshot: Snapshot) -> list[Text]:
    if snapshot.unheard_s < UNHEARD_SAID_S:
        return []
    return [Text(f"the broker has not answered for {snapshot.unheard_s:.0f} s", "bold red")]


def _flow(snapshot: Snapshot) -> Table:
    report = snapshot.report
    table = _table()
    for heading in ("events/s", "placements/s", "latency p50", "p99", "unanswered", "dead letters"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{snapshot.events_per_s:,.0f}",
        f"{snapshot.placements_per_s:,.0f}",
        _ms(report.p50_ms),
        _ms(report.p99_ms),
        _alarming(report.unanswered),
        _alarming(report.dead_letters),
    )
    return table


def _alarming(count: int) -> Text:
    """A count that should be 0: red where it is not."""
    return Text(f"{count:,}", style="red" if count else "")


def _table() -> Table:
    """Two columns of space between columns, so that a frame fits 80."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _click_rates(report: Report) -> Table:
    table = _table()
    table.add_column("ranked by")
    for heading in ("impressions", "click rate", "95 % by user"):
        table.add_column(heading, justify="right")
    table.add_column(f"0 to {BAR_FULL:.0%}")
    arms = [
        ("salience", "green", report.impressions_engine, report.ctr_engine, report.ctr_engine_interval),
        ("chance", "yellow", report.impressions_random, report.ctr_random, report.ctr_random_interval),
    ]
    for name, style, impressions, rate, interval in arms:
        if rate is None or interval is None:
            table.add_row(Text(name, style), "0", "-", "nothing shown")
            continue
        low, high = interval
        told = f"{low:.1%} to {high:.1%}"
        table.add_row(Text(name, style), f"{impressions:,}", f"{rate:.1%}", told, _bar(rate, low, high, style))
    return table


def _bar(rate: float, low: float, high: float, style: str) -> Text:
    """The rate as a bar, its interval drawn on it."""

    def place(share: float) -> int:
        return min(BAR_WIDTH, round(BAR_WIDTH * share / BAR_FULL))

    bar = Text("█" * place(low), style)
    bar.append("▓" * (place(rate) - place(low)), style)
    return bar.append("░" * (place(high) - place(rate)), style)


def _explained(placement: Placement, snapshot: Snapshot) -> RenderableType:
    """The first slots of a placement, and why its first ad comes first."""
    table, ads = _table(), snapshot.ads
    table.add_column(f"now for {placement.user_id}")
    table.add_column("in")
    table.add_column("good reviews", justify="right")
    table.add_column("pCTR", justify="right")
    for slot in placement.slots[:SLOTS_SHOWN]:
        ad = ads.get(slot.ad_id)
        tone = snapshot.tones.get(slot.ad_id)
        heard = f"{tone.tone:.0%} of {tone.reviews}" if tone else "none yet"
        table.add_row(_title(slot.ad_id, ads), ad.category if ad else "", heard, f"{slot.pctr:.1%}")
    because = Text("the first because of attention to ", style="dim")
    for place, item in enumerate(placement.slots[0].attention):
        because.append(", " if place else "").append(_title(item.ad_id, ads), "italic")
        because.append(f" {item.weight:.0%}")
    return Group(table, because)


def _title(ad_id: str, ads: Mapping[str, Ad]) -> str:
    ad = ads.get(ad_id)
    return ad.title if ad else ad_id
