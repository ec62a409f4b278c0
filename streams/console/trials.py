"""Experiments as the referee reports them, each with the interval of its primary metric over time. No I/O."""

from collections import deque

import msgspec

from streams.experiments.report import ExperimentReport, decode_report

SHOWN = 20
"""Experiments kept: those reported last; stopped ones come after all others."""
POINTS = 120
"""Reports over which an interval is drawn: 20 minutes at the referee's usual pace."""


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """An arm's difference to the first arm in the primary metric, oldest first, with always-valid 95 % intervals."""

    arm: str
    lows: list[float]
    highs: list[float]


class TrialState(msgspec.Struct, frozen=True, kw_only=True):
    """The newest report, and the bands of every arm but the first. ``silent``: there should be a newer report."""

    report: ExperimentReport
    silent: bool
    bands: list[Band]


class Trials:
    """The newest report of each experiment."""

    def __init__(self) -> None:
        self._reports: dict[str, deque[ExperimentReport]] = {}

    def take(self, name: str, value: bytes | None) -> None:
        """Take a report, or its tombstone. Raises `msgspec.MsgspecError` for another value."""
        if value is None:
            self._reports.pop(name, None)
            return
        report = decode_report(value)
        reports = self._reports.pop(name, None)
        if reports is None or reports[-1].number != report.number:
            reports = deque(maxlen=POINTS)
        reports.append(report)
        self._reports[name] = reports
        if len(self._reports) > SHOWN:
            over = (name for name, reports in self._reports.items() if reports[-1].status == "stopped")
            del self._reports[next(over, next(iter(self._reports)))]

    def told(self, now_ms: int) -> list[TrialState]:
        """All experiments at ``now_ms``, the one reported last first."""
        return [
            TrialState(
                report=reports[-1],
                silent=reports[-1].is_silent(now_ms),
                bands=[_band(reports, arm.arm) for arm in reports[-1].arms[1:]],
            )
            for reports in reversed(self._reports.values())
        ]


def _band(reports: deque[ExperimentReport], name: str) -> Band:
    found = [
        arm.against_first[report.primary]
        for report in reports
        for arm in report.arms
        if arm.arm == name and report.primary in arm.against_first
    ]
    return Band(arm=name, lows=[each.low for each in found], highs=[each.high for each in found])
