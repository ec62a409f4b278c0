"""Scores to messages: the placement that the ad server reads, and the receipt that lets anyone check it."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from scoring.arrays import Ids, Ints, Singles
from scoring.calibration import Calibration
from scoring.candidates import Shares
from scoring.engine import UNCALIBRATED, Calibrates, Engine, Scored
from scoring.examination import over
from scoring.exploration import UCB_ALPHA
from scoring.ids import MISSING, id64, id64s
from scoring.inputs import SPEC_HASH
from scoring.market import Asked
from scoring.policies import CONTROL_ARM, Policy, changed
from scoring.ranking import EMPTY_SLOT
from scoring.rows import LAYOUT_VERSION, Rows
from scoring.units import FOREVER_MS
from streams.models.beside import beside_of
from streams.placement_ids import placement_id
from streams.receipts import encode_decision, kept
from streams.wire import Attended, Decision, Interleaved, Placement, ShadowScore, Slot, encode_json

REASONS_MAX = 3
"""Past items named per slot: those with the most attention."""
REASON_WEIGHT_MIN = 0.02
"""An item explains nothing if it gets no more attention than each of fifty looked at alike (1/50)."""


@dataclass(frozen=True, slots=True)
class Published:
    """A user's key and arm with the encoded placement, and the encoded decision (receipt) if it leaves one.

    ``beside``: scores of a shadow model, if it was asked. ``until_ms``: when the placement ends. ``guest``: it is made
    from context alone, since the user is not remembered.
    """

    user: bytes
    arm: str
    placement: bytes
    decision: bytes | None
    until_ms: int
    beside: ShadowScore | None = None
    guest: bool = False


def place(
    engine: Engine,
    lane: int,
    users: list[bytes],
    rows: Rows,
    learned: Calibrates = UNCALIBRATED,
    *,
    latest_ms: int = FOREVER_MS,
    context_only: bool = False,
    receipts_share: float = 1.0,
) -> list[Published]:
    """Placements for ``users`` with their ``rows [B]`` (copies), and receipts of a share of them (`receipts.kept`).

    ``latest_ms``: see `Engine.place`. ``context_only``: the rows hold only the moment; no receipt is made, since it
    would remember the user.
    """
    offsets: list[tuple[int, int]] = [(first, second) for first, second in rows["offset"].tolist()]
    ids = [placement_id(lane, user, pair) for user, pair in zip(users, offsets, strict=True)]
    users64 = np.array([id64(user) for user in users], dtype=np.uint64)
    seeds = np.array([id64(name) for name in ids], dtype=np.uint64)
    published: list[Published] = []
    for scored in engine.place(rows, users64, seeds, learned, latest_ms):
        batch = _Batch.of(engine, scored, [ids[person] + scored.group.tag for person in scored.group.people.tolist()])
        beside = beside_of(scored) if scored.beside and not context_only else {}
        receipted = kept(batch.ids, receipts_share).tolist()
        for at, place_ in enumerate(scored.group.people.tolist()):
            placement = batch.placement(at, users[place_])
            if context_only:
                bare = msgspec.structs.replace(placement, context_only=True)
                encoded, until_ms = encode_json(bare), bare.valid_until_ms
                published.append(Published(users[place_], placement.arm, encoded, None, until_ms, guest=True))
                continue
            encoded, receipt = encode_json(placement), None
            if receipted[at]:
                row, pair = rows[place_].tobytes(), offsets[place_]
                receipt = encode_decision(batch.decision(at, placement, encoded, row, pair, lane))
            said = beside[at].of(placement) if at in beside else None
            published.append(Published(users[place_], placement.arm, encoded, receipt, placement.valid_until_ms, said))
    return published


def placement_of(engine: Engine, scored: Scored, name: str, user: bytes) -> Placement:
    """The placement of the one person of a scored batch."""
    return _Batch.of(engine, scored, [name]).placement(0, user)


@dataclass(frozen=True, slots=True)
class _Batch:
    """A scored batch as Python numbers, converted once for all its people: what messages are made from."""

    engine: Engine
    scored: Scored
    names: list[str]
    ids: Ids  # 64-bit ids of the names
    slots: list[tuple[Slot, ...]]  # per person
    chosen: list[list[int]]
    propensities: list[list[float]]
    ads: Ids  # [B, C]
    revisions: Ids  # [B, C]
    times_ms: list[int]
    arms: list[str]
    versions: dict[str, str]
    policy: dict[str, float]

    @classmethod
    def of(cls, engine: Engine, scored: Scored, names: list[str]) -> "_Batch":
        catalogue, ids = engine.catalogue, id64s(names)
        return cls(
            engine,
            scored,
            names,
            ids,
            slots=_slots_of(engine, scored, ids),
            chosen=_of_filled(scored.decided.chosen, scored.decided.chosen),
            propensities=_of_filled(scored.decided.propensity, scored.decided.chosen),
            ads=catalogue.ad.take(scored.asked.candidates),
            revisions=catalogue.revision.take(scored.asked.candidates),
            times_ms=scored.now_ms.tolist(),
            arms=[CONTROL_ARM if control else scored.group.arm for control in scored.control.tolist()],
            versions=versions_of(engine, scored.model),
            policy=policy_record(scored.group.policy),
        )

    def placement(self, at: int, user: bytes) -> Placement:
        """The placement of person ``at``."""
        now_ms = self.times_ms[at]
        return Placement(
            placement_id=self.names[at],
            user_id=user.decode(),
            time_ms=now_ms,
            valid_until_ms=now_ms + _ttl_ms(self.scored),
            arm=self.arms[at],
            model=self.versions["model"],
            slots=self.slots[at],
        )

    def decision(
        self, at: int, placement: Placement, encoded: bytes, row: bytes, offsets: tuple[int, int], lane: int
    ) -> Decision:
        """The receipt of person ``at``: versions, inputs, draws and the placement's own bytes."""
        scored, spread = self.scored, self.scored.decided.spread
        return Decision(
            placement_id=placement.placement_id,
            user_id=placement.user_id,
            time_ms=placement.time_ms,
            lane=lane,
            offsets=offsets,
            versions=self.versions,
            arm=placement.arm,
            seed=int(scored.asked.seeds[at]),
            policy=self.policy,
            row=row,
            candidates=self.ads[at].tobytes(),
            revisions=self.revisions[at].tobytes(),
            weights=scored.calibration.weights[at].tobytes(),
            lifts=scored.calibration.lift[at].tobytes(),
            examined=_examined(scored),
            pctr=scored.asked.pctr[at].tobytes(),
            bids_micros=scored.decided.bids_micros[at].tobytes(),
            chosen=tuple(self.chosen[at]),
            propensities=tuple(self.propensities[at]),
            placement=encoded,
            offers=b"" if scored.asked.offers is None else scored.asked.offers.kept[at].tobytes(),
            worth=scored.decided.worth[at].astype(np.float32).tobytes() if _weighed(scored.asked) else b"",
            fates=scored.decided.fate[at].tobytes(),
            other=_interleaved(scored, at),
            allocation=1.0 if scored.group.chance is None else float(scored.group.chance[at]),
            explore=scored.asked.explore,
            evidence=_evidence(scored.asked, scored.calibration, at),
            rates=_rates(scored, at),
            spreads=b"" if spread is None else spread[at].astype(np.float32).tobytes(),
        )


def _examined(scored: Scored) -> bytes:
    """Examination probability of each slot, where it was learned."""
    curve = scored.calibration.examined
    return b"" if curve is None else over(curve, scored.decided.chosen.shape[1]).tobytes()


def _weighed(asked: Asked) -> bool:
    """Whether worth is more than bid × pCTR."""
    return asked.offers is not None or asked.explore == "linucb"


def _evidence(asked: Asked, calibration: Calibration, at: int) -> bytes:
    return b"" if asked.doubt is None else calibration.evidence[at].tobytes()


def _rates(scored: Scored, at: int) -> bytes:
    """Click rates of the candidates as the model was given them, if there were any."""
    rates = scored.rates[at]
    return rates.astype(np.float16).tobytes() if rates.any() else b""


def _interleaved(scored: Scored, at: int) -> Interleaved | None:
    """What the second ranking was made from, where two rankings were interleaved."""
    other, policy = scored.other, scored.group.other
    if other is None or policy is None:
        return None
    return Interleaved(
        model=other.served.version,
        temperature=policy.temperature,
        weights=other.calibration.weights[at].tobytes(),
        lifts=other.calibration.lift[at].tobytes(),
        pctr=other.asked.pctr[at].tobytes(),
        explore=policy.explore,
        ucb_alpha=policy.ucb_alpha,
        evidence=_evidence(other.asked, other.calibration, at),
    )


def versions_of(engine: Engine, model: str) -> dict[str, str]:
    """Versions, by name, of what a decision by ``model`` depends on besides the content of its receipt."""
    return {
        "model": model,
        "specification": SPEC_HASH,
        "layout": str(LAYOUT_VERSION),
        "rules": engine.market.terms.version,
        "seal": engine.market.seal.version,
    }


def _of_filled(values: npt.NDArray[Any], chosen: Ints) -> list[list[Any]]:
    """``values [B, L]`` of each person's slots that are not empty."""
    filled = chosen != EMPTY_SLOT
    if filled.all():
        whole: list[list[Any]] = values.tolist()
        return whole
    return [row[here].tolist() for row, here in zip(values, filled, strict=True)]


def _slots_of(engine: Engine, scored: Scored, placements: Ids) -> list[tuple[Slot, ...]]:
    """The slots of each person that are not empty; numbers are rounded while they are arrays."""
    names, campaigns, decided = engine.catalogue.names, engine.catalogue.campaigns, scored.decided
    filled = decided.chosen != EMPTY_SLOT
    person, slot = np.nonzero(filled)
    ads, prices = scored.asked.candidates[person, decided.chosen[filled]], decided.prices_micros[filled]
    columns = zip(
        slot.tolist(),
        ads.tolist(),
        scored.slot_pctr[filled].astype(np.float64).round(6).tolist(),
        np.rint(1000.0 * scored.slot_value[filled]).astype(np.int64).tolist(),
        prices.tolist(),
        decided.propensity[filled].round(9).tolist(),
        _reasons_of(engine, scored, np.flatnonzero(filled)),
        _seals_of(engine, placements[person], ads, prices),
        _ends_of(engine, ads, scored.now_ms[person] + _ttl_ms(scored)),
        strict=True,
    )
    slots = iter(
        [
            Slot(
                slot=at,
                ad_id=names[candidate],
                campaign_id=campaigns[candidate],
                pctr=pctr,
                ecpm_micros=ecpm,
                price_micros=price,
                propensity=propensity,
                attention=attention,
                seal=seal,
                until_ms=until_ms,
            )
            for at, candidate, pctr, ecpm, price, propensity, attention, seal, until_ms in columns
        ]
    )
    return [tuple(islice(slots, count)) for count in filled.sum(axis=1).tolist()]


def _seals_of(engine: Engine, placements: Ids, ads: Ints, prices: Ints) -> list[str]:
    """Seals of N slots as hex."""
    catalogue = engine.catalogue
    tags = engine.market.seal.tags(placements, catalogue.ad.take(ads), prices, catalogue.bid_type.take(ads))
    text = tags.astype(">u8").tobytes().hex()
    return [text[at : at + 16] for at in range(0, len(text), 16)]


def _ttl_ms(scored: Scored) -> int:
    """How long the placements of a scored batch are valid."""
    return scored.group.policy.placement_ttl_ms


def _ends_of(engine: Engine, ads: Ints, valid_until_ms: Ints) -> list[int | UnsetType]:
    """When the ads of N slots end, where that is before their placements do."""
    ends_ms = engine.catalogue.end_ms.take(ads)
    return [end if first else UNSET for end, first in zip(ends_ms.tolist(), ends_ms < valid_until_ms, strict=True)]


def _reasons_of(engine: Engine, scored: Scored, filled: Ints) -> list[tuple[Attended, ...]]:
    """For each slot of ``filled [F]``, person by person, the past items that earned its ad, most attention first."""
    items, weights = _most_attended(scored.history_slots, scored.attention)
    items, weights = items[filled], weights[filled]
    names = engine.catalogue.names
    explains = weights > REASON_WEIGHT_MIN  # the first ones of a slot, since its weights descend
    rounded = weights[explains].astype(np.float64).round(4).tolist()
    told = iter(
        [
            Attended(ad_id=names[item], weight=weight)
            for item, weight in zip(items[explains].tolist(), rounded, strict=True)
        ]
    )
    return [tuple(islice(told, count)) for count in explains.sum(axis=1).tolist()]


def _most_attended(history: Ints, attention: Singles) -> tuple[Ints, Singles]:
    """Catalogue slots and summed attention ``[B × L, REASONS_MAX]`` of the past items most attended to, most first.

    ``history [B, H]``, ``attention [B, L, H]``. An item's attention is summed over its appearances, at the first of
    them; among equals the older comes first. A past item unknown to the catalogue weighs nothing.
    """
    people, slots, length = attention.shape
    same = history[:, :, None] == history[:, None, :]  # [B, H, H]
    first = (same.argmax(axis=2) == np.arange(length)) & (history != MISSING)
    weights = (attention @ (same & first[:, None, :]).astype(np.float32)).reshape(people * slots, length)
    each = np.arange(people * slots)
    best = np.empty((people * slots, REASONS_MAX), dtype=np.int64)
    found = np.empty(best.shape, dtype=np.float32)
    for place_ in range(REASONS_MAX):
        best[:, place_] = at = weights.argmax(axis=1)
        found[:, place_] = weights[each, at]
        weights[each, at] = -1
    return history.ravel().take(best + (each // slots * length)[:, None]), found


def policy_record(policy: Policy) -> dict[str, float]:
    """The numbers that a policy consists of, by the names of their settings."""
    return {
        "slots": policy.slots,
        "candidates": policy.shares.count,
        "fresh_share": policy.shares.fresh,
        "random_share": policy.shares.random,
        "temperature": policy.temperature,
        "ucb_alpha": policy.ucb_alpha,
        "control_share": policy.control_share,
        "placement_ttl_ms": policy.placement_ttl_ms,
    }


def policy_of(decision: Decision) -> Policy:
    """The policy that a receipt records. Raises `ValueError` for an unknown exploration."""
    record = decision.policy
    numbers = Policy(
        slots=int(record["slots"]),
        shares=Shares(int(record["candidates"]), record["fresh_share"], record["random_share"]),
        temperature=record["temperature"],
        ucb_alpha=record.get("ucb_alpha", UCB_ALPHA),  # older receipts have none, and do not use it
        control_share=record["control_share"],
        placement_ttl_ms=int(record["placement_ttl_ms"]),
    )
    return changed(numbers, {"explore": decision.explore})
