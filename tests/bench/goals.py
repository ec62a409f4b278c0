"""What every benchmark is wanted to find, and whether it did: `deploy/PERFORMANCE.md` tells why each misses or not.

Ratios are to a reference in the same run; seconds and bytes are of a million users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of one number of a report: ``at`` names its place, from the outside to the inside, with dots."""

    at: str
    least: float | None = None
    most: float | None = None

    def judged(self, report: Mapping[str, Any]) -> dict[str, float | str | bool | None]:
        """The number found (of several runs the median), what was wanted, and whether it is so; None: not measured."""
        found: Any = report
        for name in self.at.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        bound, sign = (self.least, ">=") if self.least is not None else (self.most, "<=")
        reached = None if found is None else (found >= bound if sign == ">=" else found <= bound)
        return {"found": found, "wanted": f"{sign} {bound:,}", "reached": reached}


GOALS: dict[str, tuple[Goal, ...]] = {
    "ingest": (
        Goal("exactly_once_ratio", least=0.8),
        Goal("ratio_vs_aiokafka", least=0.25),
        Goal("ratio_vs_faust_stock", least=8),
        Goal("ratio_vs_quix", least=1.5),
    ),
    "latency": tuple(
        Goal(f"latency.{guarantee}.{load}.ratio_p99", most=most)
        for guarantee in ("exactly_once", "at_least_once")
        for load, most in (("load_50", 3), ("load_80", 6))
    ),
    "swap": (Goal("ratio_p99", most=2),),
    "scale": (
        Goal("cost_ratio_users", most=1.3),
        Goal("cost_ratio_ads", most=2),
        Goal("two_workers_ratio.e2e", least=1.6),
    ),
    "learn": (Goal("examples_per_s", least=40_000),),
    "score": (
        Goal("overhead_ratio", most=0.5),
        Goal("total_ratio_500", most=1.35),
        Goal("recall", least=0.95),
    ),
    "state": (
        Goal("bytes_per_user", most=1_700),
        Goal("recover_s", most=60),
        Goal("recover_snapshot_s", most=10),
    ),
}
"""By benchmark. Nothing is wanted of `e2e` and `overload`, which tell what bounds the others, and of `receipts`."""


def judged(report: Mapping[str, Any]) -> dict[str, dict[str, float | str | bool | None]]:
    """Every goal of the report's benchmark, by its place."""
    return {goal.at: goal.judged(report) for goal in GOALS.get(report["benchmark"], ())}
