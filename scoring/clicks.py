"""The online click layer's model: River's logistic regression over the attention logit and a few features.

It begins as the identity on the attention model's log-odds. By AdaGrad, outcome by outcome, it learns how far to
believe them (slope and level), and what the place in the app and the person's own rates add. What an ad's content does
not tell comes in as one number, the *ad's lift*: the log of its clicks over its expected clicks, shrunk towards 0 by
`LIFT_PRIOR` expected clicks (a gamma prior on a Poisson rate), so an unknown ad has lift 0. A bias per ad, learned by
AdaGrad, would take its first step at the full rate instead. What a person's past does not tell is the *person's lift*,
made likewise from the outcomes of what they were shown.

Learning is one example at a time, through dictionaries, as River does; serving reads the weights as an array and
predicts all candidates at once (`scoring.calibration`).
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from river import linear_model, optim

from scoring.arrays import Floats, Ids, Ints, Singles
from scoring.inputs import SURFACES

Example = dict[str, float]

NUMBERS = ("logit", "lift", "person_lift", "long_views", "clicks", "activity", "chosen")
"""The numbers of an example: attention's log-odds of a click; the ad's and the person's lift; the person's long-view
and click rates and activity, as the attention model has them (`scoring.inputs.context_of`); and whether the engine
chose the ad for a slot, since it tends to choose ads that it overestimates. The slot itself is not among them: they
predict a click on the ad as if in the first slot (`scoring.examination`)."""
LIFT, PERSON_LIFT = NUMBERS.index("lift"), NUMBERS.index("person_lift")
FEATURES = ("bias", *NUMBERS, *(f"surface_{place}" for place in range(SURFACES)))
"""All features, F in this order; the surface is one-hot, so an example has a bias, `NUMBERS` and one of these."""
SURFACE_NAMES = FEATURES[-SURFACES:]
START = {"logit": 1.0, "lift": 1.0, "person_lift": 1.0}
"""Weights before the first outcome; all others are 0."""

RATE = 0.05
"""AdaGrad's learning rate. On 2.6 held-out days of KuaiRand .1 costs .0001 more log loss than .05, and .0005 on the
first day; .02 saves .0003 on the first day and nothing overall. Weights that have far to go get there later at a low
rate: over hashed logistic regression, which knows nobody's rates, a day's log loss is .6000 with .05 and .5954 with .1.
In a new shop, whose engine chooses ads that its model overestimates, the layer must correct that soon: after 45 seconds
of the demo (two runs each) .05 predicts 1.13 and 1.17 times the actual clicks, .03 1.18 and 1.34 times."""
CAUTION = 1.0
"""AdaGrad's sums of squared gradients before the first outcome: without it every weight's first step would be the
whole rate, whatever the gradient."""
CAUTION_MAX = 2_000.0
"""Upper bound of these sums, about ten thousand outcomes' worth, so that learning never stops."""
LIFT_PRIOR = 8.0
"""Expected clicks of the prior, a lift of 0. On KuaiRand it is the best for ads among 4 to 32, by .0004 AUC at most,
and for people among 2 to 16, by .0005 of log loss at most."""
LIFT_MEMORY = 50.0
"""Most expected clicks that a lift rests on; beyond them, older outcomes count ever less."""
RECORD, PERSON_RECORD = 4, 3
"""Numbers of an ad's record and of a person's: see `AdLifts` and `PersonLifts`."""
RATE_MOST = 1.0
"""Upper bound of a person's click and long-view rates per impression: unprompted clicks may be thousands."""
LOGIT_MOST = 10.0
"""Bound of the attention model's log-odds, either way: a chance of one in 22,000. With these two bounds no number of an
example exceeds 10, and no outcome moves a weight by more than `RATE` or counts much more than others as evidence. Else
one person far outside the attention model's training data would turn everybody's weights."""
MARGIN = 30.0
"""Log-odds beyond this, either way, are as good as certain."""


def probability(log_odds: float) -> float:
    """The chance that has these log-odds, strictly between 0 and 1."""
    if abs(log_odds) > MARGIN:  # twice as fast as min and max
        log_odds = math.copysign(MARGIN, log_odds)
    return 1 / (1 + math.exp(-log_odds))


def example(numbers: Iterable[float], surface: int) -> Example:
    """An example as River takes it, of `NUMBERS` and the number of the surface (below `SURFACES`)."""
    x = dict(zip(NUMBERS, numbers, strict=True))
    x["bias"] = 1.0
    x[SURFACE_NAMES[surface]] = 1.0
    return x


class ClickModel(linear_model.LogisticRegression):
    """River's logistic regression[^1] under AdaGrad[^2], starting from a given prediction.

    Parameters
    ----------
    rate
        AdaGrad's learning rate.

    Examples
    --------
    >>> from scoring.clicks import ClickModel, example

    >>> model = ClickModel()
    >>> x = example([-2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], surface=0)
    >>> round(model.chance(x), 3)  # the attention model's own
    0.119

    >>> for _ in range(500):
    ...     model.learn_one(x, True, w=0.25)
    ...     model.learn_one(x, False, w=0.75)
    >>> round(model.chance(x), 2)
    0.25

    References
    ----------
    [^1]: [McMahan et al. (2013), Ad Click Prediction: a View from the Trenches](https://research.google/pubs/pub41159/)
    [^2]: [Duchi, Hazan & Singer (2011), Adaptive Subgradient Methods](https://jmlr.org/papers/v12/duchi11a.html)

    """

    def __init__(self, rate: float = RATE) -> None:
        self.rate = rate
        super().__init__(optimizer=_BoundedAdaGrad(rate), intercept_lr=0.0)
        self.restore(START_WEIGHTS, np.full(len(FEATURES), CAUTION))

    def chance(self, x: Example) -> float:
        """The chance of a click. Learns nothing."""
        return probability(self._weights.dot(x))

    def learn_one(self, x: Example, y: bool, w: float = 1.0) -> None:
        """Step along the log loss's gradient.

        It is River's step without the parts for intercepts, penalties, and optimizers that look ahead or take vectors,
        none of which is used here, and without numbers that are 0: a third of the time.
        """
        self.optimizer.along(self._weights, x, w * (self.chance(x) - y))

    def chances(self, numbers: Sequence[float], surface: int) -> tuple[float, float]:
        """The chance of a click on the example of these `NUMBERS`, and on the same without its lifts."""
        weights = self._weights
        log_odds = weights["bias"] + weights[SURFACE_NAMES[surface]]
        for name, number in zip(NUMBERS, numbers, strict=True):
            log_odds += weights[name] * number
        lifted = weights["lift"] * numbers[LIFT] + weights["person_lift"] * numbers[PERSON_LIFT]
        chance = probability(log_odds)
        return chance, probability(log_odds - lifted) if lifted else chance

    @property
    def array(self) -> Floats:
        """The weights, ``[F]``, a copy."""
        return np.array([self._weights[name] for name in FEATURES])

    @property
    def caution(self) -> Floats:
        """AdaGrad's sums of squared gradients, ``[F]``, a copy."""
        return np.array([self.optimizer.g2[name] for name in FEATURES])

    def restore(self, weights: Floats, caution: Floats) -> None:
        """Take these weights and AdaGrad's sums, ``[F]`` each, as `array` and `caution` gave them."""
        for name, weight, squares in zip(FEATURES, weights.tolist(), caution.tolist(), strict=True):
            self._weights[name] = weight
            self.optimizer.g2[name] = squares

    def quicken(self, factor: float) -> None:
        """Learn ``factor`` times as fast from now on, until as much evidence has come in again."""
        self.restore(self.array, np.maximum(self.caution / factor**2, CAUTION))


class _BoundedAdaGrad(optim.AdaGrad):
    """River's AdaGrad with its sums held below `CAUTION_MAX`; the rate is constant and looked up once a step.

    In its own step a gradient counts in full. Else one whose square exceeds the bound, as for a non-click that stands
    for a thousand, would move a weight by more than the rate.
    """

    def step(self, w: Any, g: Any) -> Any:
        """Move the weights ``w``, by name, along the gradient ``g``, which names some of them."""
        self.along(w, g, 1.0)
        return w

    def along(self, w: Any, x: Any, slope: float) -> None:
        """Move the weights ``w`` along the gradient ``slope`` × ``x``, without making a dictionary of it."""
        rate, squares, sqrt = self.learning_rate, self.g2, math.sqrt
        for name, number in x.items():
            if number:
                part = slope * number
                square = part * part
                total = squares[name] + square
                if total < CAUTION_MAX:
                    squares[name] = total
                else:
                    squares[name] = CAUTION_MAX
                    total = square if square > CAUTION_MAX else CAUTION_MAX  # noqa: FURB136 - max takes six times as long
                w[name] -= rate / sqrt(total) * part


START_WEIGHTS: Floats = np.array([START.get(name, 0.0) for name in FEATURES])


def person_numbers(context: Singles) -> tuple[Floats, Ints]:
    """What examples take from the attention model's ``context [B, X]``.

    Long-view rate, click rate and activity ``[B, 3]``, the rates less their prior of 0.1, and the surface ``[B]``.
    """
    numbers = context[:, [2, 1, 0]].astype(np.float64)
    numbers[:, :2] = np.minimum(numbers[:, :2], RATE_MOST) - 0.1
    return numbers, context[:, -SURFACES:].argmax(axis=1)


def bounded(logit: Singles) -> Singles:
    """The attention model's log-odds as examples take them, none beyond `LOGIT_MOST`; NaN stays."""
    return np.clip(logit, np.float32(-LOGIT_MOST), np.float32(LOGIT_MOST))


class Lifts:
    """A *record* per 64-bit id: its clicks and expected clicks, which make its lift.

    ``numbers``: how many a record has, eight bytes each; further ones follow these two.
    """

    def __init__(self, numbers: int) -> None:
        self.numbers = numbers
        self._place: dict[int, int] = {}
        self._columns = tuple(array("d") for _ in range(numbers))
        self._clicks, self._expected, *_ = self._columns
        self._free: list[int] = []
        self.touched: set[int] = set()
        """Ids whose record has changed since this was last emptied."""

    def __len__(self) -> int:
        return len(self._place)

    def __iter__(self) -> Iterator[int]:
        return iter(self._place)

    def lift(self, key: int) -> float:
        """The log of clicks over expected ones; 0 without outcomes."""
        place = self._place.get(key)
        if place is None:
            return 0.0
        return math.log((self._clicks[place] + LIFT_PRIOR) / (self._expected[place] + LIFT_PRIOR))

    def _add(self, key: int, place: int, clicks: float, expected: float) -> None:
        """Add an outcome, or a part of one, to the record at ``place``, which is ``key``'s."""
        clicks += self._clicks[place]
        expected += self._expected[place]
        if expected > LIFT_MEMORY:
            clicks, expected = clicks * LIFT_MEMORY / expected, LIFT_MEMORY
        self._clicks[place], self._expected[place] = clicks, expected
        self.touched.add(key)

    def put(self, keys: Ids, records: Floats) -> None:
        """Set the records ``[N, numbers]`` of ``keys [N]``, each named once."""
        places = self._places(keys.tolist())
        for column, values in zip(self._columns, records.T, strict=True):
            np.frombuffer(column)[places] = values  # a view, gone before the column grows again

    def forget(self, key: int) -> None:
        """Drop a record, if there is one."""
        place = self._place.pop(key, None)
        if place is None:
            return
        for column in self._columns:
            column[place] = 0.0
        self._free.append(place)
        self.touched.discard(key)

    def _held(self, key: int) -> int:
        """The place of the record of ``key``, which is made where there is none."""
        place = self._place.get(key)
        if place is not None:
            return place
        if self._free:
            place = self._free.pop()
        else:
            place = len(self._columns[0])
            for column in self._columns:
                column.append(0.0)
        self._place[key] = place
        return place

    def _found(self, keys: Sequence[int]) -> Ints:
        """The places of the records of ``keys [N]``, -1 where there is none."""
        return np.fromiter(map(self._place.get, keys, repeat(-1)), dtype=np.int64, count=len(keys))

    def _places(self, keys: Sequence[int]) -> Ints:
        """The places of the records of ``keys [N]``; makes those that are missing."""
        places = self._found(keys)
        for new in np.flatnonzero(places < 0).tolist():
            places[new] = self._held(keys[new])
        return places

    def records(self, keys: Sequence[int]) -> Floats:
        """The record of each of ``keys [N]``, ``[N, numbers]``; zeros where there is none."""
        places = self._found(keys)
        out, known = np.zeros((len(keys), self.numbers)), places >= 0
        for number, column in enumerate(self._columns):
            out[known, number] = np.frombuffer(column)[places[known]]
        return out

    def arrays(self) -> tuple[Ids, Floats]:
        """Ids ``[N]`` and records ``[N, numbers]`` of all there are."""
        ids = np.fromiter(self._place, dtype=np.uint64, count=len(self._place))
        places = np.fromiter(self._place.values(), dtype=np.int64, count=len(self._place))
        return ids, np.column_stack(self._columns)[places]


class AdLifts(Lifts):
    """What a lane knows about each ad beyond its content: 32 bytes an ad and its id.

    Clicks and expected clicks, which make its lift; and how often it was shown and clicked (`scoring.rates`). Only ads
    of the catalogue have a record, which bounds their number; a lane forgets those that are gone, a thousand at a time.
    """

    def __init__(self) -> None:
        super().__init__(RECORD)

    def learn(self, ad: int, clicks: float, expected: float) -> None:
        """Add an outcome, or a part of one."""
        self._add(ad, self._held(ad), clicks, expected)

    def count(self, ads: Ids, counts: Floats) -> None:
        """Add to how often ``ads [N]``, each named once, were shown and clicked: ``counts [N, 2]``."""
        named = ads.tolist()
        places = self._places(named)
        for column, more in zip(self._columns[2:], counts.T, strict=True):
            np.frombuffer(column)[places] += more
        self.touched.update(named)


class PersonLifts(Lifts):
    """What a lane has learned about each person beyond their past: 24 bytes a person and their id.

    Only remembered people have a record. Its third number is that of the impression it begins with, in the queue
    (`scoring.pending`). So when a forgotten person comes back, the outcomes of what they were shown before neither make
    a record nor count in the new one.
    """

    def __init__(self) -> None:
        super().__init__(PERSON_RECORD)
        self._since = self._columns[2]

    def meet(self, person: int, number: int) -> None:
        """Make a record for a person who is shown something and has none; ``number``: that impression's."""
        if person not in self._place:
            self._since[self._held(person)] = number
            self.touched.add(person)

    def learn(self, person: int, number: int, clicks: float, expected: float) -> None:
        """Add the outcome of the impression of this ``number``, or a part of it."""
        place = self._place.get(person)
        if place is not None and number >= self._since[place]:
            self._add(person, place, clicks, expected)

    def lifts(self, people: Ids) -> Floats:
        """The lift of each of ``people [B]``, ``[B]``."""
        return np.array([self.lift(person) for person in people.tolist()])
