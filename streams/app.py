"""The worker: a Faust app whose agent takes lane tokens from a channel that the intake fills.

Faust supervises, starts and stops; it carries no record, and its consumer, tables and commits are not used.
"""

import os
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from mode.supervisors import CrashingSupervisor

from scoring.attention import AttentionModel, load
from scoring.budgets import Budgets
from scoring.candidates import Shares
from scoring.catalogue import WITHDRAWN_KEPT_MS, Catalogue
from scoring.engine import Engine
from scoring.feedback import Learning
from scoring.inputs import SPEC_HASH
from scoring.market import Market
from scoring.policies import Experiments, Policy
from scoring.pool import Pool
from scoring.rows import LAYOUT_VERSION
from scoring.seal import Seal
from scoring.text import text_encoder
from scoring.units import DAY_MS
from streams.clock import tick_ms
from streams.compute import Compute
from streams.control import CONTROLS_PER_READ, Control
from streams.control_wire import Allocation, ExperimentSetting, HourlyTraffic
from streams.experiments.registry import ExperimentSwitch
from streams.feeds import campaigns, layers, tones
from streams.feeds.catalogue import AHEAD_MS, CatalogueFeed
from streams.feeds.refused_ads import RefusedAds
from streams.feeds.topic import TopicFeed
from streams.group_offsets import GroupOffsets
from streams.identity import TopicIdentity, partitioner
from streams.intake import Intake
from streams.lanes.lane import Shared
from streams.lanes.snapshots import Snapshots
from streams.mendable import MendableError
from streams.metrics.page import metrics_page
from streams.metrics.worker import Metrics
from streams.models.switch import ModelSwitch
from streams.own_files import own_folder
from streams.privacy.requests import Requests
from streams.rules import read
from streams.settings import Settings
from streams.standing import standing
from streams.step import Step
from streams.titles import Titles
from streams.topics import CAMPAIGN_METRICS, CHANGELOG, CLICK_LAYERS, CONTROL, TONES
from streams.traces import Traces
from streams.vitals import Vitals
from streams.watchdog import Watchdog
from streams.web import Web


class Boot(faust.App.BootStrategy):
    """Sensors, agents and our services; no Kafka client of Faust's, no web server."""

    enable_kafka = False
    enable_web = False


def policy(settings: Settings) -> Policy:
    """The policy that the settings ask for."""
    return Policy(
        slots=settings.slots,
        shares=Shares(settings.candidates, settings.fresh_share, settings.random_share),
        temperature=settings.temperature,
        explore=settings.explore,
        ucb_alpha=settings.ucb_alpha,
        control_share=settings.control_share,
        placement_ttl_ms=settings.placement_ttl_ms,
    )


def learning(settings: Settings) -> Learning | None:
    """How the click layer learns; None where the settings ask for no click layer."""
    if not settings.click_layer:
        return None
    return Learning(
        window_ms=settings.click_window_ms,
        pending_max=settings.click_pending_max,
        wait_ms=settings.click_wait_ms,
        negatives=settings.click_negatives,
        examination=read(settings.rules).terms().examination,
    )


def make_engine(settings: Settings, model: AttentionModel | None = None) -> Engine:
    """An engine: ``model`` (None: the settings'), an empty catalogue that encodes with it, and the market.

    Raises `ModelError` for a model that does not fit, `RulesError` for rules that cannot be followed,
    `TextEncoderError` where titles are to be encoded and the encoder is not installed.
    """
    model = model or load(settings.model)
    experiments = Experiments(settings.holdout_share)
    rules = read(settings.rules)
    market = Market(rules.terms(), Seal.of(settings.sealing_secret()))
    titles = Titles(settings.home / "text", text_encoder().encode) if settings.text or model.manifest.text else None
    # Besides the window, a week: as long as events wait on their topics for a worker that was away.
    kept_ms = AHEAD_MS + max(WITHDRAWN_KEPT_MS, rules.owed().longest_ms + 7 * DAY_MS)
    catalogue = Catalogue(model.encode, model.dim, titles=titles, kept_ms=kept_ms)
    return Engine(catalogue, model, policy(settings), experiments, market)


def make_pool(settings: Settings) -> Pool | None:
    """What the lanes' click layers share; None where each lane serves by its own alone, or has no click layer."""
    return Pool() if settings.click_sharing and settings.click_layer and settings.scoring else None


def make_step(
    settings: Settings,
    engine: Engine,
    lanes: int,
    refused: RefusedAds | None = None,
    requests: Requests | None = None,
    budgets: Budgets | None = None,
    pool: Pool | None = None,
) -> Step:
    """The step of every lane of a worker that the settings ask for."""
    return Step(
        engine,
        partitioner(lanes),
        settings.time_tolerance_ms,
        settings.idle_ttl_ms,
        rules=settings.cleaning,
        scoring=settings.scoring,
        learning=learning(settings),
        refused=refused or RefusedAds(),
        requests=requests,
        consent_presumed=settings.consent_presumed,
        erased_kept_ms=settings.erased_kept_ms,
        attribution=read(settings.rules).owed(),
        budgets=budgets,
        pool=pool,
        receipts_share=settings.receipts_share,
        worker=settings.instance_id or f"{socket.gethostname()}:{os.getpid()}",
    )


def make_control(settings: Settings, engine: Engine, budgets: Budgets, lanes: int) -> tuple[Control, Requests]:
    """The control topic's switches with their listeners, and the requests that people make there."""
    control = Control(settings.control_entries_max)
    switch = ExperimentSwitch(engine.experiments)
    control.on(ExperimentSetting, switch.follow)
    control.on(Allocation, switch.allocate)
    control.on(HourlyTraffic, partial(campaigns.learn, budgets))
    return control, Requests(control, partitioner(lanes))


def _bare_app(settings: Settings) -> faust.App:
    app = faust.App(
        "salience",
        broker=f"kafka://{settings.bootstrap}",
        datadir=settings.home / "faust",
        web_enabled=False,
        autodiscover=False,
    )
    app.BootStrategy = Boot
    app.boot_strategy = Boot(app)
    return app


class HomeError(MendableError):
    """The folder of snapshots and logs cannot be made."""


def _make_home(home: Path) -> None:
    try:
        own_folder(home)
    except OSError as error:
        why = error.strerror or error
        raise HomeError(f"{home} is no folder ({why}); name one that is yours and has room: SALIENCE_HOME") from error


def create_app(settings: Settings, identity: TopicIdentity) -> faust.App:
    """The worker's app for the topics that are there; nothing runs yet."""
    engine = make_engine(settings)
    _make_home(settings.home)
    compute, metrics = Compute(), Metrics()
    traces = Traces(settings.group) if settings.traces else None
    app = _bare_app(settings)
    refused, budgets = RefusedAds(), Budgets(engine.market, engine.catalogue, tick_ms=tick_ms)
    pool = make_pool(settings)
    control, requests = make_control(settings, engine, budgets, identity.lanes)
    channel = app.channel(maxsize=settings.lanes_max)

    async def offer(lane: int) -> None:
        assert channel.subscriber_count == 1, f"lane tokens have {channel.subscriber_count} readers, expected one"
        await channel.put(lane)

    def make_shared(consumer: AIOKafkaConsumer) -> Shared:
        step = make_step(settings, engine, identity.lanes, refused, requests, budgets, pool)
        app.flow_control.resume()  # once, before the first token: a second call would empty the queue
        snapshots, offsets = Snapshots(settings, identity.id_of(CHANGELOG)), GroupOffsets(consumer)
        return Shared(settings, consumer, offsets, step, compute, identity, snapshots, metrics=metrics, traces=traces)

    intake = Intake(settings, make_shared, offer, lambda: app.should_stop)
    follow = partial(TopicFeed, settings, compute, intake.fail)
    spent = partial(campaigns.tell, budgets, tolerance_ms=settings.time_tolerance_ms)
    feeds = [
        follow(CONTROL, control.take, CONTROLS_PER_READ),
        CatalogueFeed(settings, compute, intake.fail, engine.catalogue, refused),
        follow(TONES, partial(tones.take, engine.catalogue), tones.RECORDS_PER_READ),
        follow(CAMPAIGN_METRICS, spent, campaigns.RECORDS_PER_READ),
    ]
    if pool is not None:
        feeds.append(follow(CLICK_LAYERS, partial(layers.hear, pool), layers.RECORDS_PER_READ))

    @app.agent(channel, concurrency=settings.lanes_in_step, supervisor_strategy=CrashingSupervisor)
    async def lanes(tokens: AsyncIterator[int]) -> None:
        try:
            async for number in tokens:
                await intake.step(number)
        finally:
            if not app.should_stop:
                intake.ended("an agent")

    def look(ends: Mapping[TopicPartition, int]) -> Vitals:
        unread = [feed.topic for feed in feeds if not feed.caught_up]
        return replace(intake.vitals(ends), unread=unread, doubt=watchdog.doubt)

    watchdog = Watchdog(settings, identity, look, intake.inputs, intake.fail)

    def stand() -> None:
        metrics.describe_model(engine.models.live.version, SPEC_HASH, LAYOUT_VERSION)
        metrics.stands(standing(intake.lanes, engine, budgets, ready=not look({}).unready()))

    # In the order of their start. The web server is first: it answers while the worker still waits for its topics.
    app.service(Web(settings, lambda: look({}), {"/metrics": metrics_page(metrics.registry, stand)}))
    for service in (*feeds, ModelSwitch(settings, control, engine.models, compute, intake.fail)):
        app.service(service)
    app.service(watchdog)
    app.service(intake)
    return app
