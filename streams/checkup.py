"""The checks of ``salience doctor``: each says what it found, what it expected and which command helps."""

import asyncio
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError, TransactionalIdAuthorizationFailed

from streams import latest_ads, latest_events, topic_admin, topics
from streams.lanes.outbox import Outbox, transactional_id
from streams.logs import SECONDS
from streams.reading import MissingTopicError
from streams.settings import Settings, misspelt
from streams.topics import ADS

if TYPE_CHECKING:
    from streams.control import Control

PACKAGES = ("faust-streaming", "aiokafka", "onnxruntime", "numpy", "river", "confluent-kafka", "msgspec")
FEWEST = 100
"""With fewer impressions or clicks, the sample says nothing about their fields."""
PAIRS_FEWEST = 20
"""Fewest pairs of a click and its impression to judge by. So few suffice: in sound events no pair disagrees."""
JOINED_MIN = 0.6
"""Least share of clicks that join an impression, of those whose impressions were read. It is a half where one of two
apps is wrong. Where all are sound it is nearly 1, or two thirds in a sample of seconds in which people are shown the
same ad again."""
STRAYS_MAX = 0.01
"""Largest share of the latest events, or ads, that may be refused or misplaced; above it, some sender is at fault."""
APART_MAX = 0.1
"""Largest share of pairs of a click and its impression of which only one tells its surface, and of looks that
are longer than they can be."""
TRANSACTION_S = 10.0
"""A broker's first transaction takes seconds: it creates the transaction log first."""
UNANSWERED = (MissingTopicError, KafkaError, topic_admin.TopicsError)
"""Errors where a broker does not answer, or refuses."""
RIGHTS = "the rights of each role: salience topics acls"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. ``fix``: the command or setting that helps; empty where nothing is wrong.

    ``topics``: full names of the topics it is about, if it is about particular ones.
    """

    name: str
    ok: bool
    found: str
    fix: str = ""
    topics: Sequence[str] = ()


def checkup(settings: Settings) -> Iterator[Check]:
    """All checks, one after the other. A check that depends on one that failed says so."""
    yield _versions()
    yield _settings()
    yield _guarded("model", _model, settings)
    broker = _guarded("broker", _broker, settings)
    yield broker
    if not broker.ok:
        yield Check("topics", ok=False, found="not looked at: no broker", fix=broker.fix)
        return
    yield from _all_guarded("topics", _topics(settings))
    yield _guarded("control", _control, settings)
    yield from _all_guarded("events", _events(settings))
    yield _guarded("guarantee", _guarantee, settings)


def _guarded(name: str, check: Callable[[Settings], Check], settings: Settings) -> Check:
    (found,) = _all_guarded(name, map(check, [settings]))
    return found


def _all_guarded(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    try:
        yield from checks
    except Exception as error:  # noqa: BLE001 - a check that fails is a finding, whatever it was
        yield Check(name, ok=False, found=f"{type(error).__name__}: {error}", fix=_remedy(error))


def _versions() -> Check:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    python = ".".join(map(str, sys.version_info[:3]))
    return Check("versions", ok=sys.version_info >= (3, 11), found=f"Python {python}, {versions}", fix="")


def _settings() -> Check:
    """Look for mistyped variables: workers read only the names they know, and ignore the rest."""
    wrong = misspelt(os.environ)
    if not wrong:
        return Check("settings", ok=True, found="no variable of the environment is a mistyped setting")
    found = f"{', '.join(wrong)} is no setting, and has no effect"
    meant = ", ".join(wrong.values())
    return Check("settings", ok=False, found=found, fix=f"did you mean {meant}? salience settings tells all")


def _model(settings: Settings) -> Check:
    from scoring.attention import load  # noqa: PLC0415 - onnxruntime loads only when asked for
    from scoring.inputs import SPEC_HASH  # noqa: PLC0415 - with the model that it is compared to

    model = load(settings.model)
    return Check("model", ok=True, found=f"{model.version}, {model.dim} wide, specification {SPEC_HASH} as ours")


def _broker(settings: Settings) -> Check:
    counts = topic_admin.partition_counts(settings.bootstrap, topics.names(settings.topic_prefix))
    return Check("broker", ok=True, found=f"{settings.bootstrap} answers, {len(counts)} of our topics are there")


def _control(settings: Settings) -> Check:
    from streams.control import read_control  # noqa: PLC0415 - as above, with what is read of it

    try:
        return control(asyncio.run(read_control(settings)))
    except MissingTopicError:  # with the command, above
        return _without_topics("control")


def control(told: "Control") -> Check:
    """Whether workers of this version take what a former one may have allowed."""
    from streams.control_checkup import refused_experiments, refused_models  # noqa: PLC0415 - as above

    experiments, models = refused_experiments(told), refused_models(told)
    if not experiments and not models:
        return Check("control", ok=True, found="workers take the experiments that run, and the models that have a role")
    refused = [f"experiment {name} ({why})" for name, why in experiments.items()]
    refused += [f"model {why}" for why in models.values()]
    fixes = []
    if experiments:
        stop = ", ".join(f"salience experiment stop {name}" for name in experiments)
        fixes.append(f"{stop}: its users have the shop's policy now; then create it anew")
    if models:
        fixes.append("salience model list: until then a model before it scores, or the workers' own")
    return Check("control", ok=False, found=f"workers refuse {'; '.join(refused)}", fix="; ".join(fixes))


def _topics(settings: Settings) -> Iterator[Check]:
    prefix = settings.topic_prefix
    try:
        beside = topic_admin.beside(topic_admin.found(settings.bootstrap, topics.names(prefix)), prefix)
        lanes = beside.partitions if beside else 4
        problems = topic_admin.check(settings.bootstrap, lanes, prefix)
    except UNANSWERED as error:
        yield _unseen("topics", error)
        return
    yield from of_topics(problems, lanes)


def of_topics(problems: Sequence[topic_admin.Problem], lanes: int) -> Iterator[Check]:
    """One line per kind of problem, since one command mends all problems of a kind."""
    for what in dict.fromkeys(problem.what for problem in problems):
        kind = [problem for problem in problems if problem.what == what]
        names = [problem.topic for problem in kind]
        if what == "missing":
            found = f"not there: {', '.join(names)}"
        elif what == "copies":
            found = f"fewer copies than the brokers could hold, of {', '.join(names)}. {kind[0].why}"
        elif what == "unreported":
            found = f"the broker reports no cleanup.policy of {', '.join(names)}"
        else:
            told = [problem.seen for problem in kind] + [problem.why for problem in kind]
            found = " ".join(dict.fromkeys(told)).rstrip()
        yield Check("topics", ok=not kind[0].fails, found=found, fix=kind[0].fix, topics=names)
    if not problems:
        yield Check("topics", ok=True, found=f"all {len(topics.TABLE)} there, {lanes} lanes")


def _events(settings: Settings) -> Iterator[Check]:
    try:
        seen = latest_events.sample(settings)
    except MissingTopicError:  # with the command, above
        yield _without_topics("events")
        return
    except UNANSWERED as error:
        yield _unseen("events", error)
        return
    yield from events(seen)
    try:
        yield ads(latest_ads.stock(settings), seen.records, settings.topic_prefix + ADS)
    except UNANSWERED as error:
        yield _unseen("ads", error)


def ads(stock: latest_ads.Stock, events: int, topic: str) -> Check:
    """Whether any ad can be placed. A shop that has had no ``events`` yet needs no ads yet.

    ``topic``: the ads topic's full name. Where it holds more than was read, the unread older records may hold ads that
    can be shown.
    """
    found = f"{stock.placeable:,} of {stock.known:,} may be shown now"
    if not stock.whole:
        found = f"of the newest {stock.records:,} records: {found}"
    if stock.refused:
        found = f"{found}; {stock.refused:,} of {stock.records:,} records are refused"
    if stock.refused > STRAYS_MAX * stock.records:
        fix = "salience dead-letters list; send each ad by its ad_id as the key, a tombstone by a key that is none"
        return Check("ads", ok=False, found=found, fix=f"{fix}; the first: {stock.why}")
    if stock.placeable or not events:
        return Check("ads", ok=True, found=found)
    if not stock.whole:
        return Check("ads", ok=True, found=found, fix="older ones may be, see salience tail placements")
    if not stock.known:
        fix = f"publish ads to {topic}, each by its ad_id as the key: without any nobody is placed anything"
    else:
        fix = "look at their status, start_ms, end_ms and budget_micros: nobody is placed anything now"
    return Check("ads", ok=False, found=found, fix=fix)


def _without_topics(name: str) -> Check:
    return Check(name, ok=False, found="not looked at: not all topics are there", fix="what helps with topics")


def _unseen(name: str, error: Exception) -> Check:
    return Check(name, ok=False, found=f"not looked at: {error}", fix=_remedy(error))


def _remedy(error: Exception) -> str:
    """The fix for ``error``: the rights of each role where one is missing; other errors say what helps themselves."""
    return RIGHTS if "authorization" in f"{type(error).__name__} {error}".lower() else "see the message"


def events(seen: latest_events.Sample) -> Iterator[Check]:
    """Faults of the latest events that make no dead letter."""
    if not seen.records:
        yield Check("events", ok=True, found="none yet")
        return
    most = STRAYS_MAX * seen.records
    apart = f"{seen.misplaced:,} in another partition than their user's, {seen.late:,} too late"
    found = f"of the latest {seen.records:,}: {seen.refused:,} refused, {apart}"
    if seen.refused > most and 2 * seen.ahead > seen.records:
        fix = f"compare `date -u` here and elsewhere: the records' own times are ahead, too, of {seen.ahead:,}; if this"
        fix = f"{fix} machine's clock is behind, set it, or workers here refuse all; the first: {seen.why}"
    elif seen.refused > most:
        fix = f"salience dead-letters list; the first: {seen.why}"
    elif seen.late > most:
        fix = _late(seen.late_ms)
    else:
        fix = "partition by murmur2 of the key; with librdkafka partitioner=murmur2_random"
    sound = max(seen.refused, seen.misplaced, seen.late) <= most
    yield Check("events", ok=sound, found=found, fix="" if sound else fix)
    if seen.pairs + seen.strays >= PAIRS_FEWEST:
        yield _joins(seen)
    if seen.looks >= PAIRS_FEWEST:
        yield _looks(seen)
    if min(seen.impressions, seen.clicks) < FEWEST:
        return
    answered = f"{seen.answers:,} of {seen.clicks:,} clicks say which impression they answer"
    fix = "" if seen.answers else "send clicks with impression_time_ms: without it none is learnt from, or charged"
    yield Check("answers", ok=seen.answers > 0, found=answered, fix=fix)
    yield _surfaces(seen)


def _late(time_ms: int) -> str:
    """What helps where events are dated ``time_ms``, long before they were sent: lanes put them aside unread."""
    if time_ms in SECONDS:
        return f"send time_ms in milliseconds: the first says {time_ms}, which is in seconds"
    return f"salience tail late-events --from-beginning; the first says time_ms {time_ms}: is its sender's clock right?"


def _joins(seen: latest_events.Sample) -> Check:
    """Do clicks join their impressions? A click that joins none is taken, but neither learnt from nor charged."""
    answers = seen.pairs + seen.strays
    found = f"of {answers:,} answers whose impressions were read {seen.pairs:,} join one"
    if seen.pairs >= JOINED_MIN * answers:
        return Check("joins", ok=True, found=found)
    fix = "send a click with its impression's user_id and ad_id, and that one's time_ms, ms, as its impression_time_ms"
    return Check("joins", ok=False, found=f"{found}; the first says {seen.stray}", fix=fix)


def _looks(seen: latest_events.Sample) -> Check:
    """Are looks dated when they end? No more seconds are charged than have passed since the impression."""
    found = f"of {seen.looks:,} looks {seen.overlong:,} are longer than the time since their impression"
    if seen.overlong <= APART_MAX * seen.looks:
        return Check("looks", ok=True, found=found)
    fix = "date a view by its end (time_ms), in ms, as its impression's time is: what exceeds that time is not charged"
    return Check("looks", ok=False, found=found, fix=fix)


def _surfaces(seen: latest_events.Sample) -> Check:
    if seen.pairs < PAIRS_FEWEST:
        told = f"{seen.pairs:,} pairs of a click and the impression that it answers, too few to tell"
        return Check("surfaces", ok=True, found=told)
    found = (
        f"of {seen.pairs:,} pairs of a click and the impression that it answers "
        f"{seen.placed:,} tell it in both, {seen.apart:,} in one alone"
    )
    if seen.apart > APART_MAX * seen.pairs:
        fix = "send both with their surface: ads' click rates count the one without the other now"
        return Check("surfaces", ok=False, found=found, fix=fix)
    few = seen.placed + seen.apart < APART_MAX * seen.pairs
    return Check("surfaces", ok=True, found=found, fix="ads' click rates count those alone" if few else "")


def _guarantee(settings: Settings) -> Check:
    name = transactional_id(settings, "doctor")
    if name is None:
        return Check("guarantee", ok=True, found="at_least_once")
    try:
        asyncio.run(_transaction(settings, name))
    except TransactionalIdAuthorizationFailed:
        found = f"exactly_once, but whoever asks may not use the transactional id {name}, as workers may"
        return Check("guarantee", ok=False, found=found, fix=f"{RIGHTS} --role worker")
    except TimeoutError:
        found = f"exactly_once, but the broker has opened no transaction within {TRANSACTION_S:.0f} s"
        fix = "ask again: a first transaction takes seconds, more over a slow link; then the brokers' logs"
        return Check("guarantee", ok=False, found=found, fix=fix)
    except KafkaError as error:
        return Check(
            "guarantee",
            ok=False,
            found=f"exactly_once, but the broker does not open a transaction: {type(error).__name__} {error}",
            fix="SALIENCE_GUARANTEE=at_least_once, or a broker with transactions",
        )
    return Check("guarantee", ok=True, found="exactly_once, and the broker has transactions")


async def _transaction(settings: Settings, name: str) -> None:
    """Open a transaction as a lane does, and abort it. Raises what aiokafka does, or `TimeoutError`."""
    outbox = Outbox(settings, name)
    try:
        async with asyncio.timeout(TRANSACTION_S):
            await outbox.start()
            await outbox.begin()
            await outbox.abort()
    finally:
        await outbox.stop()
