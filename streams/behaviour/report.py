"""The whole report as one value: what ``salience report --json`` prints and the page shows."""

from msgspec import Struct

from streams.behaviour.attention import Attention, attention
from streams.behaviour.campaigns import Campaigns, campaigns
from streams.behaviour.cohorts import Cohorts, cohorts
from streams.behaviour.drift import Drift, drift
from streams.behaviour.fairness import Fairness, fairness
from streams.behaviour.funnels import Funnels, funnels
from streams.behaviour.gathered import Gathered
from streams.behaviour.joined import join
from streams.behaviour.personal import Personalisation, personalisation
from streams.behaviour.positions import Positions, positions


class About(Struct, frozen=True):
    """What the report covers: ``[from_ms, to_ms)``, counts, and records that were left out."""

    source: str
    from_ms: int
    to_ms: int
    people: int
    impressions: int
    actions: int
    ads: int
    receipts: int
    invalid: int
    repeated: int
    misdated: int


class Report(Struct, frozen=True):
    """Every section; ``personalisation`` is null where the log has no receipts of both groups, ``positions`` where it
    has none of the control group.
    """

    about: About
    funnels: Funnels
    cohorts: Cohorts
    attention: Attention
    drift: Drift
    personalisation: Personalisation | None
    positions: Positions | None
    campaigns: Campaigns
    fairness: Fairness


def report(gathered: Gathered, source: str) -> Report:
    """The report of what was gathered from ``source``. Raises `ReportError` where there are no events."""
    behaviour = join(gathered)
    gathered = behaviour.gathered
    from_ms, to_ms = gathered.span_ms
    return Report(
        about=About(
            source=source,
            from_ms=from_ms,
            to_ms=to_ms,
            people=behaviour.users,
            impressions=len(gathered.impressions),
            actions=len(gathered.actions),
            ads=len(gathered.ads),
            receipts=len(gathered.decisions),
            invalid=gathered.invalid,
            repeated=gathered.repeated,
            misdated=gathered.misdated,
        ),
        funnels=funnels(behaviour),
        cohorts=cohorts(behaviour),
        attention=attention(behaviour),
        drift=drift(behaviour),
        personalisation=personalisation(behaviour),
        positions=positions(behaviour),
        campaigns=campaigns(behaviour),
        fairness=fairness(behaviour),
    )
