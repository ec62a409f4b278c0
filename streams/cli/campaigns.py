"""``salience campaigns``: impressions, spending and returns of each campaign."""

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from scoring.units import DAY_MS
from streams.cli.options import Bootstrap, Json, Prefix, answer, asked, settings_of
from streams.cli.screen import Table, left_out, moment, screen
from streams.topics import CAMPAIGN_METRICS
from streams.wire import UNREADABLE, CampaignMetrics

if TYPE_CHECKING:
    from streams.campaigns import Campaign

COLUMNS_MAX = 1_000


def campaigns(
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    by_arm: Annotated[bool, typer.Option("--by-arm", help="One row per campaign and experiment arm.")] = False,
    as_json: Json = False,
) -> None:
    """Show each campaign's spending against the day's budget, and its purchases with their value.

    It reads the topic campaign-metrics. Today is the newest UTC day that lanes
    tell of; other figures are of all time, of campaigns that had an event in the
    last 400 days. An arm's name ends its placements' ids: 1-0 is arm 0 of
    experiment 1. Spent is what was delivered, even what is beyond a budget and
    not billed. The bill of the day before today is final once all lanes have
    passed midnight; "salience lag" tells which are behind. ROAS is value over
    money spent, by last touch; "spread" is ROAS by position, which gives 40 %
    each to the first and to the last of the ads that were clicked before a
    purchase. First and last go by when ads were shown, not by when they were
    clicked.

    Example: salience campaigns --by-arm --json
    """
    from streams.campaigns import campaigns as summed

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    told, unreadable = asked(_read(settings.bootstrap, settings.topic_prefix))
    found = summed(told, by_arm=by_arm)
    left_out(unreadable, settings.topic_prefix + CAMPAIGN_METRICS)
    if as_json:
        answer({"campaigns": found})
        return
    if not found:
        typer.echo("No campaign has been shown yet.")
        return
    table, here = _table(found, by_arm), screen(highlight=True)
    needed = here.measure(table, options=here.options.update(max_width=COLUMNS_MAX)).maximum
    # A wrapped line can be read; a number that is cut off cannot.
    screen(highlight=True, width=max(here.width, needed)).print(table)


async def _read(bootstrap: str, prefix: str) -> tuple[list[CampaignMetrics], int]:
    """The last readable record of each key, and how many records are unreadable."""
    from streams.reading import read_topic

    decode = msgspec.json.Decoder(CampaignMetrics).decode
    newest: dict[bytes | None, CampaignMetrics] = {}
    unreadable = 0
    async for records in read_topic(bootstrap, prefix + CAMPAIGN_METRICS):
        for record in records:
            if record.value is None:
                newest.pop(record.key, None)
                continue
            try:
                newest[record.key] = decode(record.value)
            except UNREADABLE:
                unreadable += 1
    return list(newest.values()), unreadable


def _table(found: "list[Campaign]", by_arm: bool) -> Table:

    arm, day = ["arm"] if by_arm else [], moment(found[0].day * DAY_MS, "%Y-%m-%d")
    table = Table(
        "campaign", *arm, "impressions", "clicks", "spent today", "of budget", "beyond", "billed yesterday", "spent",
        "purchases", "value", "ROAS", "spread",
        title=f"Today is {day} (UTC); all else but yesterday's bill is of all time", title_justify="left",
    )  # fmt: skip
    for one in found:
        table.add_row(
            one.campaign_id,
            *([one.arm or ""] if by_arm else []),
            f"{one.total.impressions:,}",
            f"{one.total.clicks:,}",
            _money(one.today.spent_micros),
            "" if by_arm else _share(one),
            "" if by_arm else _money(one.unbilled_micros or 0),
            "" if by_arm else _money(one.yesterday_billed_micros or 0),
            _money(one.total.spent_micros),
            f"{one.total.purchases:g}",
            _money(one.total.value_micros),
            "" if one.roas is None else f"{one.roas:.2f}",
            "" if one.spread_roas is None else f"{one.spread_roas:.2f}",
        )
    return table


def _share(one: "Campaign") -> str:
    if one.budget_micros is None:
        return "no limit"
    return f"{(one.billed_micros or 0) / one.budget_micros if one.budget_micros else 1:.1%}"  # of nothing all is spent


def _money(micros: int) -> str:
    return f"{micros / 1e6:,.2f}"
