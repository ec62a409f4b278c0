"""What ``salience experiment`` tells of reports: reads them off their topic, and shows one to people."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from streams.cli.options import asked, control_of
from streams.cli.screen import Table, coloured, moment, percent, screen
from streams.control_wire import ExperimentSetting
from streams.mendable import MendableError
from streams.topics import EXPERIMENT_REPORTS
from streams.wire import UNREADABLE

if TYPE_CHECKING:
    from streams.control import Control
    from streams.experiments.report import ExperimentReport
    from streams.settings import Settings

REFEREE_RUNS = "the referee must run while an experiment runs: salience experiment referee"


def newest(settings: "Settings") -> "dict[str, ExperimentReport]":
    """The newest report of each experiment, by name; what cannot be read is told, and hides no other."""
    from streams.experiments.report import decode_report
    from streams.reading import read_topic

    async def read() -> "dict[str, ExperimentReport]":
        found = {}
        async for records in read_topic(settings.bootstrap, settings.topic_prefix + EXPERIMENT_REPORTS):
            for record in filter(lambda each: each.value, records):
                try:
                    one = decode_report(record.value or b"")
                except UNREADABLE as error:
                    whose = (record.key or b"").decode(errors="backslashreplace")
                    told = f"the report of {whose!r} at offset {record.offset} cannot be read: {error}"
                    _note(told)
                else:
                    found[one.experiment] = one
        return found

    return asked(read())


def warn_unjudged(settings: "Settings", over: ExperimentSetting) -> None:
    """Tell where the referee did not judge lately what is now ``over``: it heeds a stop before all else that came.

    Reports that cannot be read hinder no stop, but are told: silence means that it was judged.
    """
    from aiokafka.errors import KafkaError

    from streams.experiments.report import SILENT_MS

    try:
        found = newest(settings).get(over.experiment)
    except (KafkaError, MendableError) as error:
        _note(f"how far the referee has judged it is not known: {error}")
        return
    mine = found is not None and found.number == over.number
    judged_ms = (found.judged_ms or found.time_ms) if found is not None and mine else over.started_ms
    if judged_ms and over.time_ms - judged_ms > SILENT_MS:  # so much stays unjudged that people are told
        since = f"has judged it up to {moment(judged_ms, '%Y-%m-%d %H:%M')} UTC alone" if mine else "never judged it"
        _note(f"the referee {since}, and what came since stays unjudged; {REFEREE_RUNS}")


def warn_silent(settings: "Settings", found: "ExperimentReport", now_ms: int) -> None:
    """Tell why no newer report may follow: workers let nobody take part in the experiment, or no referee judges it.

    A control topic that cannot be read hinders no report, but is told: silence means that newer ones follow.
    """
    from aiokafka.errors import KafkaError

    try:
        control = control_of(settings)
        told = idle(control, found.experiment)
    except (KafkaError, MendableError) as error:
        _note(f"whether workers let people take part in it is not known: {error}")
        told = ""
    if not told and found.is_silent(now_ms):
        told = f"no report since {moment(found.time_ms, '%Y-%m-%d %H:%M')} UTC; {REFEREE_RUNS}"
    if told:
        _note(told)


def _note(said: str) -> None:
    screen(stderr=True, soft_wrap=True).print(f"Note: {said}")


def idle(control: "Control", name: str) -> str:
    """What to know of a running experiment in which workers let nobody take part, and what to do; else empty."""
    from streams.control_checkup import without_people

    if (why := without_people(control).get(name)) is None:
        return ""
    return (
        f"workers refuse {name} ({why}): its users have the shop's policy, and it is not judged any more. "
        f"Make it anew under another name: salience experiment stop {name}; salience experiment create"
    )


def show(found: "ExperimentReport") -> None:
    """Print a report for people."""
    console = screen()
    console.print(_table(found))
    for said, style in _beside(found):
        console.print(coloured(said, style))
    console.print(f"users: {', '.join(f'{arm.arm} {arm.users:,}' for arm in found.arms)}")
    if found.cohorts > 1:
        shares = ", ".join(f"{arm.arm} {percent(arm.share)}" for arm in found.arms)
        console.print(
            f"bandit: {found.cohorts} cohorts, the newest in shares {shares}; every user weighs one over the chance of "
            "their arm, and the split is tested cohort by cohort against these chances"
        )
    for said, style in _how_it_was_judged(found):
        console.print(coloured(said, style))


def _how_it_was_judged(found: "ExperimentReport") -> Iterator[tuple[str, str]]:
    """Up to when, by what, of whom, and how sure the intervals are."""
    from streams.experiments.findings import PREFERENCE, SPLIT_P_MIN

    upto = f" up to {moment(found.judged_ms, '%Y-%m-%d %H:%M')} UTC" if found.judged_ms else ""
    yield f"judged{upto}, by {found.primary}", ""
    if found.primary != PREFERENCE:  # of two rankings that take turns everybody sees both
        if found.split_p_value < SPLIT_P_MIN:
            broken = f"users are NOT split as meant, p {found.split_p_value:.2g}"
            yield f"{broken}: believe nothing here until you know why", "yellow"
        else:
            yield f"no sign that users are split otherwise than meant, p {found.split_p_value:.2g}", ""
        if found.crossed_users:
            yield f"{found.crossed_users:,} users saw two arms and are left out", ""
    yield "each interval holds the truth in 95 % of experiments, however often one looks", ""
    if "revenue_micros" in found.arms[0].metrics:
        yield f"value is that of a {found.value_per.replace('_', ' and ')}", ""


def _table(found: "ExperimentReport") -> Table:
    """Each metric of every arm, and its difference to the first arm's."""
    from scoring.trial import METRICS
    from streams.experiments.findings import figure

    first, *others = found.arms
    table = Table(title=f"{found.experiment}: {found.verdict}", title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("metric")
    table.add_column("arm")
    for name in ("value", f"less {first.arm}"):
        table.add_column(name, justify="right")
    table.add_column("its interval", justify="right")
    doubted = {(doubt.metric, doubt.arm) for doubt in found.doubts}
    for metric in first.metrics:
        table.add_row(metric, first.arm, figure(first.metrics[metric]))
        for arm in others:
            if (against := arm.against_first.get(metric)) is not None:
                told = (figure(against.value, "+"), f"{figure(against.low, '+')} to {figure(against.high, '+')}")
            else:
                decided = not doubted.isdisjoint({(metric, first.arm), (metric, arm.arm)})
                told = ("", "one decides" if decided else "too little yet" if metric in METRICS else "")
            table.add_row("", arm.arm, figure(arm.metrics[metric]), *told)
    return table


def _beside(found: "ExperimentReport") -> Iterator[tuple[str, str]]:
    """What is to be known beside the verdict and the table, and in which style it is told."""
    from streams.experiments.people import USERS_MAX

    if (last := found.last_finding) is not None:
        yield f"the last look found: {last.sentence}", "yellow" if last.code == "unequal_shares" else ""
    if found.unwatched:
        yield (
            (
                f"the referee had no place for somebody {found.unwatched:,} times, and they are not counted: "
                f"it watches {USERS_MAX:,} people at most"
            ),
            "yellow",
        )
    for words in dict.fromkeys(doubt.words for doubt in found.doubts):  # several metrics are divided by impressions
        if words != found.verdict:
            yield words, "yellow"
