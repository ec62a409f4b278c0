"""The Upworthy Research Archive (CC BY 4.0): randomised tests of headlines, ``arms.csv.gz``, one line per arm.

Arms of one test with one picture (``eyecatcher_id``) differ only in the headline; arms with the same headline count as
one. ``test_week`` is the ISO week, as 201446; a test of several weeks belongs to its last week, when its outcome is
known.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scoring.arrays import Bools, Floats, Ints
from streams.logs import LogError
from streams.logs.table import rows

FILE = "arms.csv.gz"
COLUMNS = ("clickability_test_id", "test_week", "eyecatcher_id", "headline", "impressions", "clicks")
HEADLINE_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs of different headlines shown with one picture in one test; ``one`` comes first in the file.

    ``one, other [P]``: places in ``headlines``; ``test [P]``: number of the test; ``z [P]``: the pooled two-proportion
    z of the click rate of ``one`` minus that of ``other``.
    """

    headlines: list[str]
    one: Ints
    other: Ints
    week: Ints
    test: Ints
    z: Floats

    def __len__(self) -> int:
        return len(self.z)

    def at(self, chosen: Bools) -> "Pairs":
        """The chosen pairs."""
        return Pairs(
            self.headlines,
            self.one[chosen],
            self.other[chosen],
            self.week[chosen],
            self.test[chosen],
            self.z[chosen],
        )


def joined(one: Pairs, other: Pairs) -> Pairs:
    """The pairs of two files, whose tests are all different; a headline in both files is one headline."""
    places = {headline: at for at, headline in enumerate(dict.fromkeys([*one.headlines, *other.headlines]))}
    parts = (one, other)
    moved = [np.array([places[headline] for headline in pairs.headlines]) for pairs in parts]
    return Pairs(
        list(places),
        np.concatenate([at[pairs.one] for at, pairs in zip(moved, parts, strict=True)]),
        np.concatenate([at[pairs.other] for at, pairs in zip(moved, parts, strict=True)]),
        np.concatenate([pairs.week for pairs in parts]),
        np.concatenate([one.test, other.test + one.test.max(initial=-1) + 1]),
        np.concatenate([pairs.z for pairs in parts]),
    )


@dataclass(slots=True)
class _Arm:
    impressions: int = 0
    clicks: int = 0


def read(file: Path) -> Pairs:
    """Every pair in ``file`` with a finite z. Raises `LogError` where the file is invalid, or has no such pair."""
    groups: dict[tuple[str, str], dict[str, _Arm]] = defaultdict(lambda: defaultdict(_Arm))
    weeks: dict[str, int] = {}
    for row in rows(file, COLUMNS):
        test, picture = row.text("clickability_test_id"), row.values["eyecatcher_id"]
        arm = groups[test, picture][row.text("headline", longest=HEADLINE_MAX)]
        impressions = row.integer("impressions", 0, 10**9)
        arm.impressions += impressions
        arm.clicks += row.integer("clicks", 0, impressions)
        weeks[test] = max(weeks.get(test, 0), row.integer("test_week", 197_001, 210_053))
    found = [
        (one, other, weeks[test], test, arms[one], arms[other])
        for (test, _), arms in groups.items()
        for place, one in enumerate(arms)
        for other in list(arms)[place + 1 :]
    ]
    if not found:
        raise LogError(f"{file} has no two headlines in one test; expected the arms of headline tests")
    places = {headline: at for at, headline in enumerate(dict.fromkeys(name for pair in found for name in pair[:2]))}
    tests = {test: at for at, test in enumerate(dict.fromkeys(pair[3] for pair in found))}
    pairs = Pairs(
        headlines=list(places),
        one=np.array([places[pair[0]] for pair in found]),
        other=np.array([places[pair[1]] for pair in found]),
        week=np.array([pair[2] for pair in found]),
        test=np.array([tests[pair[3]] for pair in found]),
        z=np.array([_z(one, other) for *_, one, other in found]),
    )
    seen = np.isfinite(pairs.z)
    if not seen.any():
        raise LogError(
            f"{file} has {len(pairs):,} pairs of headlines, and of none impressions of both with some clicked and some "
            "not; expected the columns impressions and clicks filled as in the archive"
        )
    return pairs.at(seen)


def _z(one: _Arm, other: _Arm) -> float:
    """The pooled two-proportion z; NaN where nobody saw one of the arms, or nobody or everybody clicked."""
    if not (one.impressions and other.impressions):
        return float("nan")
    pooled = (one.clicks + other.clicks) / (one.impressions + other.impressions)
    variance = pooled * (1 - pooled) * (1 / one.impressions + 1 / other.impressions)
    if not variance:
        return float("nan")
    return float((one.clicks / one.impressions - other.clicks / other.impressions) / variance**0.5)
