"""The report's pictures as SVG, drawn by matplotlib: they need no script, font or request in the page.

Their words stay text in the reader's own fonts: a shop's names may be Chinese, and no font here has such characters.
"""

import io
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from scoring.units import DAY_MS
from streams.behaviour import colours
from streams.behaviour.attention import HOURS, Attention
from streams.behaviour.campaigns import Campaigns
from streams.behaviour.cohorts import Cohorts
from streams.behaviour.drift import Drift
from streams.behaviour.fairness import Fairness
from streams.behaviour.funnels import Funnels, Step
from streams.behaviour.personal import Personalisation
from streams.behaviour.positions import Positions

GROUND, TEXT, INK, SECOND = (colours.DRAWN[name] for name in ("ground", "text", "ink", "second"))
BARS_MAX = 15
TURN_AXIS_MIN = 0.01
"""Least length of an axis of turns: rounding errors then lie on zero, and do not fill the picture."""
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML cannot hold: with one of them, the whole picture would not be shown."""
_FONTS_LACK = r"Glyph \d+ .* missing from font|Matplotlib currently does not support"
"""Warnings about characters that the reader's fonts have: matplotlib leaves a box as wide as a Chinese character."""
_WORDS = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.edgecolor")
_STYLE = {"svg.hashsalt": "salience", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
          "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": GROUND, "axes.facecolor": GROUND,
          **dict.fromkeys(_WORDS, TEXT)}  # fmt: skip


def draw(paint: Callable[[Figure], None], height: float = 3.2) -> str:
    """A picture 8 inches wide in the colours of the reader's scheme; the same numbers give the same bytes."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", _FONTS_LACK)
        figure = Figure(figsize=(8, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        return colours.follow(out.getvalue().decode())


def _words(text: str) -> str:
    """A name as matplotlib is to show it: at most 32 characters, and without dollar signs as mathematics."""
    short = text if len(text) <= 32 else text[:31] + "…"
    return _UNWRITABLE.sub("\ufffd", short).replace("$", r"\$")


def moment(time_ms: int, width_ms: int = 0) -> str:
    """A moment in UTC; only the day where periods are days or longer."""
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):{'%Y-%m-%d' if width_ms >= DAY_MS else '%Y-%m-%d %H:%M'}}"


def funnel(found: Funnels) -> str:
    """Two rows of bars: impressions and people."""

    def paint(figure: Figure) -> None:
        for axes, steps, title in zip(
            figure.subplots(1, 2), (found.impressions, found.people), ("impressions", "people"), strict=True
        ):
            _bars(axes, steps)
            axes.set_title(title)

    return draw(paint)


def _bars(axes: Axes, steps: list[Step]) -> None:
    bars = axes.barh([step.step for step in steps], [step.share for step in steps], color=INK)
    axes.bar_label(bars, [f"{step.count:,} ({step.share:.1%})" for step in steps], padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35)
    axes.xaxis.set_visible(False)


def cohort(found: Cohorts) -> str:
    """A triangle of shares: cohorts by periods since their first."""
    told = [each for each in found.cohorts if each.people]
    most = max(len(each.active) for each in told)
    shares = np.full((len(told), most), np.nan)
    for row, each in zip(shares, told, strict=True):
        row[: len(each.active)] = np.array(each.active) / each.people

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _heat(figure, axes, shares, 0.5, vmax=1).ax.yaxis.set_major_formatter(PercentFormatter(1))
        for (at, later), share in np.ndenumerate(shares):
            if not np.isnan(share):
                axes.text(later, at, f"{share:.0%}", ha="center", va="center")
        axes.set_yticks(
            range(len(told)), [f"{moment(each.from_ms, found.width_ms)} ({each.people:,})" for each in told]
        )
        axes.set_xticks(range(most))
        axes.set_xlabel("periods since the first")

    return draw(paint, 1.2 + 0.3 * len(told))


def _heat(figure: Figure, axes: Axes, values: np.ndarray, full: float, vmax: float | None = None) -> Colorbar:
    """A cell for each value, from the top: the larger the value, the more ink, up to ``full``.

    With ``full`` at most a half, words can be read on it. Fewer than 50 steps: from there on matplotlib would write
    pixels, and a pixel has the colours of one scheme only.
    """
    steps = ListedColormap([(*to_rgb(INK), full * step / 20) for step in range(21)])
    rows, columns = (np.arange(length + 1) - 0.5 for length in values.shape)
    cells = axes.pcolormesh(columns, rows, values, cmap=steps, vmin=0, vmax=vmax, clip_on=False)
    axes.invert_yaxis()
    return figure.colorbar(cells)


def attended(found: Attention) -> str:
    """Seconds by category and hour; the more seconds, the more ink."""
    told = found.categories[:BARS_MAX]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        bar = _heat(figure, axes, np.array([each.by_hour for each in told]), 1.0)
        bar.set_label("seconds looked")
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_yticks(range(len(told)), [_words(each.category) for each in told])
        axes.set_xticks(range(0, HOURS, 2))
        axes.set_xlabel("hour of the day, UTC")

    return draw(paint, 1.4 + 0.25 * len(told))


def turned(found: Drift, width_ms: int) -> str:
    """The median turn of each period with its quartiles."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        places = range(len(found.turns))
        quartiles = [each.low_quartile for each in found.turns], [each.high_quartile for each in found.turns]
        half = "half of the people, long interest"
        axes.fill_between(places, *quartiles, facecolor=(INK, 0.25), edgecolor=INK, linewidth=0.5, label=half)
        axes.plot(places, [each.median for each in found.turns], "o-", color=INK, label="median, long interest")
        axes.plot(places, [each.session_median for each in found.turns], "s--", color=SECOND, label="median, session")
        axes.set_xticks(places, [moment(each.from_ms, width_ms) for each in found.turns], rotation=30, ha="right")
        axes.set_ylabel("1 − cosine")
        axes.set_ylim(0, max(TURN_AXIS_MIN, axes.get_ylim()[1]))
        axes.legend()

    return draw(paint)


def changed(found: Personalisation) -> str:
    """Differences relative to the control group, with their intervals."""
    told = [each for each in found.changes if each.low is not None and each.high is not None and each.control]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for at, each in enumerate(told):
            low, value, high = (float(number or 0) / each.control for number in (each.low, each.difference, each.high))
            axes.plot([low, high], [at, at], color=INK, linewidth=2)
            axes.plot([value], [at], "o", color=INK)
        axes.axvline(0, color=TEXT, linewidth=0.8)
        axes.set_yticks(range(len(told)), [each.metric.replace("_", " ") for each in told])
        axes.set_ylim(len(told) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("personalised against control, 95 % interval")

    return draw(paint, 1.2 + 0.35 * max(len(told), 1))


def examined(found: Positions) -> str:
    """How likely each slot is looked at, with intervals where there are enough people."""
    told = [each for each in found.slots if each.examined is not None]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for each in told:
            if each.low is not None and each.high is not None:
                axes.plot([each.slot, each.slot], [each.low, each.high], color=INK, linewidth=2)
        axes.plot([each.slot for each in told], [float(each.examined or 0) for each in told], "o", color=INK)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("slot")
        axes.set_ylabel("looked at, by the first")

    return draw(paint)


def returned(found: Campaigns) -> str:
    """Value and cost of the campaigns most shown."""
    told = found.campaigns[:BARS_MAX]

    def paint(figure: Figure) -> None:
        axes, places = figure.subplots(), np.arange(len(told))
        axes.barh(places - 0.2, [each.value_micros / 1e6 for each in told], 0.4, color=INK, label="value bought")
        axes.barh(places + 0.2, [each.cost_micros / 1e6 for each in told], 0.4, color=SECOND, label="cost")
        axes.set_yticks(places, [_words(each.campaign) for each in told])
        axes.invert_yaxis()
        axes.set_xlabel("currency units")
        axes.legend()

    return draw(paint, 1.4 + 0.3 * len(told))


def divided(found: Fairness) -> str:
    """Lorenz curves of exposure, among advertisers and among categories."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for division, name, line in (
            (found.advertisers, "advertisers", "-"),
            (found.categories, "categories", "--"),
        ):
            axes.plot(np.linspace(0, 1, len(division.curve)), division.curve, line, color=INK, label=name)
        axes.plot([0, 1], [0, 1], ":", color=TEXT, label="everyone alike")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("of them, the least shown first")
        axes.set_ylabel("of impressions")
        axes.legend()

    return draw(paint, 3.6)
