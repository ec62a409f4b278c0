"""A lane's ledger: what its events charge, kept in the lane's changelog and told to everyone.

A cell is a campaign and an arm. Its figures stand under a reserved key of its own. A slice that has changed them writes
them in its transaction, after the rows: without transactions a crash may lose a charge, but never doubles one. The same
cells go to ``campaign-metrics``, by which every worker paces. Beside them stands what was learned of touches, where the
rules ask for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from scoring.arrays import Ids, Ints
from scoring.attribution import MILLI, Attribution, earn
from scoring.billing import Before, bill, look
from scoring.budgets import Budgets
from scoring.catalogue import Catalogue
from scoring.engine import Engine
from scoring.events import Events, Outcome
from scoring.ledger import FIGURES, PARTS, Ledger, Period, Spending
from scoring.moments import Moments
from scoring.rows import Rows
from scoring.settlement import MICROS_MAX
from scoring.touches import TouchWeights
from scoring.units import DAY_MS
from streams.campaigns import sold_of
from streams.message import Message
from streams.wire import RESERVED, CampaignMetrics, Figures, encode_json

KEY, TOUCHES = RESERVED + b"ledger/", RESERVED + b"touches"
_BETWEEN = b"\x00"
"""Between campaign and arm in a key; no id holds it."""
_AT = {name: place for place, name in enumerate(FIGURES)}


@dataclass(frozen=True, slots=True)
class Known:
    """What rows knew before events were applied: of their impressions, and whatever purchases may be owed to."""

    impressions: Before
    rings: Moments

    @classmethod
    def of(cls, rows: Rows, events: Events, owed: Attribution) -> "Known":
        """Of ``events [E]``, which are yet to be applied to ``rows``."""
        return cls(look(rows, events), Moments.of(rows, events, owed.asks(events["kind"])))


@dataclass(frozen=True, slots=True)
class Happened:
    """Events ``[E]``, what became of them, and what was known before; ``arms``: names by the events' numbers."""

    events: Events
    outcome: npt.NDArray[np.uint8]
    before: Known
    arms: Mapping[int, str]

    def cells(self, shop: Catalogue, slots: Ints, arms: Ids) -> list[tuple[str, str]]:
        """Campaign and arm of ads in ``slots [N]`` under ``arms [N]``."""
        told = zip(slots.tolist(), arms.tolist(), strict=True)
        return [(shop.campaigns[slot], self.arms.get(arm, "")) for slot, arm in told]


@dataclass
class LaneLedger:
    """The ledger of lane ``lane``."""

    ledger: Ledger = field(default_factory=Ledger)
    touches: TouchWeights = field(default_factory=TouchWeights)
    _news: list[int] = field(default_factory=list)
    _known: bool = False

    def charge(self, happened: "Happened", engine: Engine, owed: Attribution, day: int) -> int:
        """Add what events charge and earn that have been applied, on a ``day`` since the epoch.

        Returns how many told a price that no placement of their user asked.
        """
        events, outcome = happened.events, happened.outcome
        shop = engine.catalogue
        bills = bill(happened.before.impressions, events, outcome, shop, engine.market.seal)
        applied = np.flatnonzero(outcome == Outcome.APPLIED)
        credits_ = earn(happened.before.rings, events[applied], shop, owed, self.touches).among(applied)
        size = len(bills.slot)
        figures = np.zeros((size + len(credits_.slot), len(FIGURES)), dtype=np.int64)
        figures[:size, : _AT["last"]] = np.column_stack(
            [bills.shown, bills.clicked, bills.viewed_ms, bills.charged, bills.unpriced]
        )
        figures[:size, _AT["sold"]] = bills.purchased
        figures[size:, _AT["last"] : _AT["sold"]] = np.column_stack(
            [credits_.last, credits_.last_micros, credits_.spread, credits_.spread_micros]
        )
        told = np.flatnonzero(figures.any(axis=1))
        charged, credited = told[told < size], told[told >= size] - size
        names = happened.cells(shop, bills.slot[charged], bills.arms[charged])
        if len(credited):
            # A purchase needs no seal, so it must not make a cell for an arm that it names. It counts for the arm where
            # a sealed event has made the cell before it: which does not depend on where slices end.
            made = dict(zip(reversed(names), reversed(bills.place[charged].tolist()), strict=True))
            asked = happened.cells(shop, credits_.slot[credited], credits_.arms[credited])
            places = credits_.place[credited].tolist()
            names += [
                name if name in self.ledger or made.get(name, len(events)) <= place else (name[0], "")
                for name, place in zip(asked, places, strict=True)
            ]
        self.ledger.add(day, names, figures[told])
        return bills.misquoted

    def tell(self, lane: int, budgets: Budgets, day: int) -> None:
        """Tell the worker's own budgets what a slice has changed, without the broker between; the first time, all.

        Of days after ``day``, when the lane was ahead, only news.
        """
        self._news = self.ledger.changes()
        for cell in self._news if self._known else range(len(self.ledger)):
            campaign, arm = self.ledger.names[cell]
            (today, _), figures = self.ledger.of(cell)
            if today <= day or cell in self._news:
                told = _figures(figures[Period.TODAY]), _figures(figures[Period.TOTAL])
                budgets.tell(lane, arm, spending(campaign, today, *told))
        self._known = True

    def commit(self, lane: int, budgets: Budgets, time_ms: int) -> tuple[list[Message], list[Message]]:
        """Messages for the changelog, and for everyone, of the cells that were last told to the budgets.

        Campaigns long without an event leave both. Budgets that have heard of them keep them until their worker ends.
        """
        kept = [Message(_key(self.ledger.names[cell]), self.ledger.kept(cell)) for cell in self._news]
        if self.touches.changed:
            kept.append(Message(TOUCHES, self.touches.kept))
            self.touches.changed = False
        names = [self.ledger.names[cell][0] for cell in self._news]
        days = zip(*(self.ledger.of(cell)[0] for cell in self._news), strict=True)
        billed = zip(*(budgets.billed_micros(names, each).tolist() for each in days), strict=True)
        told = [self._told(lane, cell, budgets, time_ms, *owed) for cell, owed in zip(self._news, billed, strict=True)]
        gone = self.ledger.forget(time_ms // DAY_MS)
        kept += [Message(_key(name), None) for name in gone]
        return kept, told + [Message(_told_key(lane, name), None) for name in gone]

    def _told(self, lane: int, cell: int, budgets: Budgets, time_ms: int, billed: int, billed_before: int) -> Message:
        campaign, arm = self.ledger.names[cell]
        (today, before), figures = self.ledger.of(cell)
        yesterday = budgets.known_micros(campaign, today - 1)
        starts_ms, ends_ms = budgets.hours_ms(campaign)
        anew_ms, anew_micros = budgets.anew(campaign, today) or (None, 0)
        metrics = CampaignMetrics(
            lane=lane,
            campaign_id=campaign,
            arm=arm,
            time_ms=time_ms,
            day=today,
            today=_figures(figures[Period.TODAY]),
            before_day=before,
            before=_figures(figures[Period.BEFORE]) if before else None,
            before_billed_micros=billed_before,
            total=_figures(figures[Period.TOTAL]),
            budget_micros=budgets.budget_micros(campaign, today) or None,
            yesterday_budget_micros=UNSET if not yesterday else None if yesterday == MICROS_MAX else yesterday,
            billed_micros=billed,
            level=round(budgets.level(campaign), 6),
            starts_ms=starts_ms,
            ends_ms=ends_ms,
            anew_ms=anew_ms,
            anew_micros=anew_micros,
        )
        return Message(_told_key(lane, (campaign, arm)), encode_json(metrics))

    # --- all of it -------------------------------------------------------------------------------------------

    def parts(self) -> dict[bytes, bytes]:
        """Everything, by key, as the changelog would have it after compaction."""
        out = {_key(name): self.ledger.kept(cell) for cell, name in enumerate(self.ledger.names)}
        return out | ({TOUCHES: self.touches.kept} if self.touches.learned else {})

    @classmethod
    def restore(cls, parts: Mapping[bytes, bytes]) -> "LaneLedger":
        """The ledger in ``parts``, the values under the lane's reserved keys."""
        out = cls()
        for key, value in parts.items():
            if key.startswith(KEY):
                campaign, _, arm = key[len(KEY) :].partition(_BETWEEN)
                out.ledger.restore((campaign.decode(), arm.decode()), value)
        if TOUCHES in parts:
            out.touches = TouchWeights.restore(parts[TOUCHES])
        return out


def _key(name: tuple[str, str]) -> bytes:
    return KEY + _BETWEEN.join(part.encode() for part in name)


def _told_key(lane: int, name: tuple[str, str]) -> bytes:
    return "/".join((str(lane), *name)).encode()


def _figures(of: Ints) -> Figures:
    numbers = dict(zip(FIGURES, of.tolist(), strict=True))
    return Figures(
        impressions=numbers["impressions"],
        clicks=numbers["clicks"],
        viewed_s=numbers["viewed_ms"] / 1_000,
        spent_micros=numbers["charged"] // PARTS,
        unpriced=numbers["unpriced"],
        purchases=numbers["last"] / MILLI,
        value_micros=numbers["last_micros"],
        spread_purchases=numbers["spread"] / MILLI,
        spread_value_micros=numbers["spread_micros"],
        sold=numbers["sold"],
    )


def spending(campaign: str, day: int, today: Figures, total: Figures) -> Spending:
    """What a cell tells budgets."""
    sold = sold_of(total)
    return Spending(campaign, day, today.spent_micros, total.impressions, total.clicks, sold, total.viewed_s)
