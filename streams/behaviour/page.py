"""A report as one HTML file: each section has words, a picture, and the picture's numbers as tables.

The page is self-contained: no script, no font, no request; its own policy forbids them. The template escapes names from
outside.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import jinja2

from scoring.positions import Position
from scoring.rows import RING_SIZE
from scoring.units import DAY_MS, HOUR_MS, MINUTE_MS
from streams.behaviour import colours, plots
from streams.behaviour.attention import HOURS
from streams.behaviour.campaigns import Campaign
from streams.behaviour.fairness import Division
from streams.behaviour.funnels import Step
from streams.behaviour.plots import moment
from streams.behaviour.report import Report
from streams.experiments.findings import figure


@dataclass(frozen=True, slots=True)
class Numbers:
    """A table: the first cell of each row names it."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. ``picture``: an SVG as a data URL, "" where nothing is to draw; ``alt`` describes it."""

    id: str
    title: str
    says: Sequence[str]
    picture: str
    alt: str
    tables: Sequence[Numbers]


def page(report: Report) -> str:
    """The whole file."""
    about = report.about
    left_out = f" {about.invalid:,} records were no valid messages, or such as workers refuse." if about.invalid else ""
    if about.misdated:
        left_out += f" {about.misdated:,} events were left out whose time is in the future or too long past."
    lead = (
        f"{about.impressions:,} impressions and {about.actions:,} actions of {about.people:,} people, "
        f"{moment(about.from_ms)} to {moment(about.to_ms)} UTC, from {about.source}. Repeated events, and an "
        f"ad shown again within the second, count once ({about.repeated:,} were left out).{left_out} What the engine "
        "filters (bursts, bots) is counted here."
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("streams.behaviour", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    sections = [part(report) for part in _PARTS]
    return environment.get_template("page.html.j2").render(
        about=about, lead=lead, sections=sections, colours=colours.SHEET
    )


def _picture(svg: str) -> str:
    """The picture as a data URL, without indents and comments, which are a quarter of what matplotlib writes."""
    lean = re.sub(r"\s+", " ", re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL))
    return "data:image/svg+xml," + quote(lean, safe=" /:;=(),.")


def _funnels(report: Report) -> Section:
    found = report.funnels
    heads = ["step", "count", "of the first", "95 % interval"]

    def rows(steps: list[Step]) -> list[list[str]]:
        return [[s.step, f"{s.count:,}", f"{s.share:.2%}", f"{s.low:.2%} to {s.high:.2%}"] for s in steps]

    of_categories = [
        [name, *(f"{step.count:,}" for step in steps), f"{steps[2].share:.2%}"]
        for name, steps in found.categories.items()
    ]
    clicked = next(step for step in found.impressions if step.step == "clicked")
    return Section(
        "funnels",
        "Funnels",
        [
            (
                "How many impressions led to a look, a click, a cart, a purchase; a step takes in all that is more. "
                f"{found.unasked:,} actions answer no impression of this log and stand in no funnel."
            )
        ],
        _picture(plots.funnel(found)),
        f"Bars of each step, impressions and people; {clicked.share:.1%} of impressions were clicked.",
        [
            Numbers("Impressions by the most that came of them", heads, rows(found.impressions)),
            Numbers("People by the most that came of any impression", heads, rows(found.people)),
            Numbers(
                "Impressions by category, those most shown",
                ["category", *(step.step for step in found.impressions), "clicked of shown"],
                of_categories,
            ),
        ],
    )


def _cohorts(report: Report) -> Section:
    found, told = report.cohorts, [each for each in report.cohorts.cohorts if each.people]
    width = next(
        f"{found.width_ms // unit_ms} {unit}"
        for unit, unit_ms in (("d", DAY_MS), ("h", HOUR_MS), ("min", MINUTE_MS))
        if found.width_ms >= unit_ms
    )
    later = range(max(len(each.active) for each in told))
    says = [
        (
            f"People by the period ({width}) in which this log first knows them, and the share of them who did "
            "anything so many periods later. The first cohort holds everyone who was there before the log began."
        )
    ]
    if found.returned is not None:
        says.append(f"{found.returned:.1%} were there again in the period after their first.")
    gap = f", half of them within {found.hours_between_visits:.1f} hours" if found.hours_between_visits else ""
    says.append(f"{found.visits:,} visits, {found.visits_per_person:.2f} a person, half an hour apart or more{gap}.")
    rows = [
        [
            moment(each.from_ms, found.width_ms),
            f"{each.people:,}",
            *(f"{each.active[at]:,}" if at < len(each.active) else "" for at in later),
        ]
        for each in told
    ]
    heads = ["first seen", "people", *(f"+{at}" for at in later)]
    return Section(
        "cohorts",
        "Cohorts and return",
        says,
        _picture(plots.cohort(found)),
        f"Shares of {len(told)} cohorts who were active in each period since their first.",
        [Numbers("People active so many periods after their first", heads, rows)],
    )


def _attention(report: Report) -> Section:
    found = report.attention
    rows = [
        [
            each.category,
            f"{each.seconds:,.0f}",
            f"{each.looks:,}",
            f"{each.seconds_per_look:.1f}",
            "" if each.seconds_per_impression is None else f"{each.seconds_per_impression:.2f}",
        ]
        for each in found.categories
    ]
    by_hour = [[each.category, *(f"{seconds:,.0f}" for seconds in each.by_hour)] for each in found.categories]
    most = f"; longest at {found.categories[0].category}" if found.categories else ""
    return Section(
        "attention",
        "Attention",
        [f"{found.seconds / 3600:,.1f} hours looked in all{most}. Hours of the day are UTC."],
        _picture(plots.attended(found)) if found.categories else "",
        f"Seconds looked, {len(found.categories)} categories by hour of the day{most}.",
        [
            Numbers(
                "Seconds by category",
                ["category", "seconds", "looks", "seconds a look", "seconds an impression"],
                rows,
            ),
            Numbers("Seconds by category and hour", ["category", *(f"{hour:02}" for hour in range(HOURS))], by_hour),
        ],
    )


def _drift(report: Report) -> Section:
    found, width_ms = report.drift, report.cohorts.width_ms
    says = [
        (
            "How far people's interest vectors turned within a period: 0 is the same direction, 1 nothing in common. "
            f"{found.followed:,} of {found.people:,} people who attended to anything were followed."
        )
    ]
    if not found.turns:
        says.append("Nobody attended to anything in two periods.")
    rows = [
        [
            moment(each.from_ms, width_ms),
            f"{each.people:,}",
            f"{each.median:.3f}",
            f"{each.low_quartile:.3f} to {each.high_quartile:.3f}",
            f"{each.session_median:.3f}",
        ]
        for each in found.turns
    ]
    range_ = f"{min(t.median for t in found.turns):.2f} to {max(t.median for t in found.turns):.2f}" if rows else "none"
    return Section(
        "drift",
        "Interest drift",
        says,
        _picture(plots.turned(found, width_ms)) if rows else "",
        f"Turn of interest in {len(rows)} periods; medians of the long interest are {range_}.",
        [
            Numbers(
                "One less the cosine of interest at both ends of a period",
                ["period", "people", "median, long", "half of them, long", "median, session"],
                rows,
            )
        ],
    )


def _personal(report: Report) -> Section:
    found = report.personalisation
    if found is None:
        says = ["This log has no receipts of both a control group and others, or of too few people: it cannot tell."]
        return Section("personalisation", "What personalisation changed", says, "", "", [])
    says = [
        (
            f"{found.people['personalised']:,} people for whom the engine ranked, beside {found.people['control']:,} "
            "of the control group, whose placements are drawn at random. Intervals hold however often one looks, but "
            "the entropy's, which is of this look alone."
        )
    ]
    if found.split_p_value < 0.001:
        says.append("The groups do not have their shares of the people: find out why before believing anything here.")
    rows = [
        [
            each.metric.replace("_", " "),
            figure(each.control),
            figure(each.personalised),
            "too little yet" if each.difference is None else figure(each.difference, "+"),
            "" if each.low is None else f"{figure(each.low, '+')} to {figure(each.high, '+')}",
        ]
        for each in found.changes
    ]
    told = [each for each in found.changes if each.low is not None and each.control]
    ctr = next(each for each in found.changes if each.metric == "ctr")
    return Section(
        "personalisation",
        "What personalisation changed",
        says,
        _picture(plots.changed(found)) if told else "",
        f"Relative differences of {len(told)} metrics; click rate {ctr.control:.3%} in control, {ctr.personalised:.3%} "
        "personalised.",
        [Numbers("Metrics of both groups", ["metric", "control", "personalised", "difference", "95 % interval"], rows)],
    )


def _positions(report: Report) -> Section:
    found = report.positions
    if found is None:
        says = ["This log has no impressions of a control group that say their slot, so it cannot tell."]
        return Section("positions", "Which slots are looked at", says, "", "", [])

    def reach(each: Position) -> str:
        if each.low is None:
            return "" if each.examined is None else "too few people"
        return f"{each.low:.3f} to {each.high:.3f}"

    told = [each for each in found.slots if each.examined is not None]
    rows = [
        [
            str(each.slot),
            f"{each.impressions:,}",
            f"{each.clicks:,}",
            "too few clicks" if each.examined is None else f"{each.examined:.3f}",
            reach(each),
        ]
        for each in found.slots
    ]
    return Section(
        "positions",
        "Which slots are looked at",
        [
            (
                f"Click rates of slots by that of the first, of the control group's {found.people:,} people. Their "
                "placements are drawn at random, so that ads of every slot are liked alike, and what is left is how "
                "likely a slot is looked at; slots that are not drawn, as of pinned ads, are left out. The click layer "
                "learns the same from all placements, unless the rules declare it (examination)."
            )
        ],
        _picture(plots.examined(found)) if told else "",
        f"How likely {len(told)} slots are looked at, by the first.",
        [Numbers("Slots", ["slot", "impressions", "clicks", "looked at", "95 % interval"], rows)],
    )


def _campaigns(report: Report) -> Section:
    found = report.campaigns

    def row(each: Campaign) -> list[str]:
        return [
            each.campaign,
            f"{each.impressions:,}",
            f"{each.clicks:,}",
            f"{each.ctr:.2%}",
            f"{each.ctr_low:.2%} to {each.ctr_high:.2%}",
            f"{each.purchases:,}",
            f"{each.cost_micros / 1e6:,.2f}",
            f"{each.value_micros / 1e6:,.2f}",
            "" if each.return_on_cost is None else f"{each.return_on_cost:.2f}",
        ]

    heads = ["campaign", "impressions", "clicks", "click rate", "95 % interval"]
    heads += ["purchases", "cost", "value", "value by cost"]
    return Section(
        "campaigns",
        "Campaign return",
        [
            (
                "Value is what people bought in answer to impressions. Cost is what billing charges: the price of each "
                "event that a bid pays for, and viewed seconds. Workers remember each person's newest "
                f"{RING_SIZE} items and charge nothing for answers to older impressions; this report does. For what "
                "workers filter, they charge nothing either. What is delivered beyond a day's budget is in the cost, "
                "but billed to nobody: salience campaigns tells it apart, for the newest day."
            ),
            found.prices,
        ],
        _picture(plots.returned(found)) if found.campaigns else "",
        f"Value and cost of the campaigns most shown; of all, {found.total.value_micros / 1e6:,.0f} was bought for "
        f"{found.total.cost_micros / 1e6:,.0f}.",
        [Numbers("Campaigns, those most shown", heads, [row(each) for each in (found.total, *found.campaigns)])],
    )


def _fairness(report: Report) -> Section:
    found = report.fairness

    def number(value: float | None) -> str:
        return "nothing to divide" if value is None else f"{value:.3f}"

    def summary(name: str, of: Division) -> list[str]:
        figures = (of.gini_exposure, of.gini_clicks, of.gini_value, of.misplaced)
        return [name, f"{of.parties:,}", *map(number, figures)]

    def largest(name: str, of: Division) -> Numbers:
        rows = [
            [
                each.name,
                *(f"{share:.2%}" for share in (each.exposure, each.clicks, each.value)),
                "" if each.ratio is None else f"{each.ratio:.2f}",
            ]
            for each in of.largest
        ]
        return Numbers(f"{name}, those most shown", [name, "exposure", "clicks", "value", "exposure by clicks"], rows)

    both = (("advertisers", found.advertisers), ("categories", found.categories))
    heads = ["among", "parties", "Gini of exposure", "Gini of clicks", "Gini of value", "misplaced"]
    return Section(
        "fairness",
        "Exposure fairness",
        [
            (
                "Who gets the impressions, beside who earns the clicks and the money. Gini: 0 everyone alike, 1 one "
                "has all. Misplaced: the share of exposure that would have to move to be in proportion to clicks."
            )
        ],
        _picture(plots.divided(found)) if found.advertisers.curve else "",
        f"Lorenz curves of exposure; Gini {number(found.advertisers.gini_exposure)} among advertisers, "
        f"{number(found.categories.gini_exposure)} among categories.",
        [
            Numbers("How unequal the divisions are", heads, [summary(*each) for each in both]),
            *(largest(*each) for each in both),
        ],
    )


_PARTS = (_funnels, _cohorts, _attention, _drift, _personal, _positions, _campaigns, _fairness)
"""In the order of the page."""
