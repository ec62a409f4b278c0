"""Funnels: how many impressions, and how many people, came to a look, a click, a cart and a purchase."""

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from scoring.arrays import Ints
from scoring.confidence import of_trials, wilson
from scoring.events import Kind
from scoring.ids import MISSING
from streams.behaviour.joined import Behaviour, by_rank

STEPS = {
    "shown": Kind.SHOWN,
    "looked": Kind.VIEWED,
    "clicked": Kind.CLICKED,
    "carted": Kind.CARTED,
    "bought": Kind.PURCHASED,
}
"""Each step includes the later ones: a purchase counts as a click, even if no click was reported."""
CATEGORIES_MAX = 20
"""Categories reported one by one: those most shown."""


class Step(Struct, frozen=True):
    """A step, how many came so far, and their share of the first step with its 95 % interval.

    Intervals of impressions go by person, since one person's impressions are alike (`scoring.confidence.by_person`).
    """

    step: str
    count: int
    share: float
    low: float
    high: float


class Funnels(Struct, frozen=True):
    """``unasked``: actions that answer no impression of this log."""

    impressions: list[Step]
    people: list[Step]
    categories: dict[str, list[Step]]
    unasked: int


def funnels(behaviour: Behaviour) -> Funnels:
    """Funnels of impressions, of people by their furthest impression, and of the categories most shown."""
    furthest = np.zeros(behaviour.users, dtype=np.uint8)
    np.maximum.at(furthest, behaviour.impression_user, behaviour.stage)
    names, category = behaviour.categories.names, behaviour.categories.of_ad[behaviour.impression_ad]
    order, members = by_rank(category, np.bincount(category, minlength=len(names)), CATEGORIES_MAX)
    return Funnels(
        impressions=_steps(behaviour.stage, behaviour.impression_user),
        people=_steps(furthest),
        categories={
            names[at]: _steps(behaviour.stage[theirs], behaviour.impression_user[theirs])
            for at, theirs in zip(order[:CATEGORIES_MAX], members[:-1], strict=True)
        },
        unasked=int((behaviour.answers == MISSING).sum()),
    )


def _steps(stage: npt.NDArray[np.uint8], person: Ints | None = None) -> list[Step]:
    """The steps of what came as far as ``stage [N]``: impressions, each of a ``person [N]``; or people, for None."""
    counts = {step: int((stage >= kind).sum()) for step, kind in STEPS.items()}
    first = counts["shown"]
    told = [
        Step(
            step,
            count,
            count / first if first else 0.0,
            *(wilson(count, first) if person is None else of_trials(stage >= STEPS[step], person)),
        )
        for step, count in counts.items()
        if step != "shown"
    ]
    return [Step("shown", first, 1.0, 1.0, 1.0), *told]
