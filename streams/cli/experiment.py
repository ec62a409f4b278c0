"""``salience experiment``: live experiments through the control topic, without a restart."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.ending import until_told
from streams.cli.experiment_report import REFEREE_RUNS, idle, newest, show, warn_silent, warn_unjudged
from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, LogJson, PagesPort, Prefix, answer, asked, control_of, settings_of
from streams.cli.screen import percent, plain, screen
from streams.clock import wall_ms
from streams.control_wire import Allocation, ExperimentSetting

if TYPE_CHECKING:
    from streams.experiments.changes import Known
    from streams.experiments.report import ExperimentReport
    from streams.settings import Settings

app = typer.Typer(help="Create, start, ramp, stop, list and report live experiments.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Experiment: lower-case letters, digits and dashes, 32 at most.")]
Arms = Annotated[
    list[str],
    typer.Option(
        "--arm",
        help="NAME=SHARE, then a colon and its changes, if any: setting=value or model=VERSION, between commas. "
        "Two or more, whose shares sum to 1. The others are compared with the first.",
    ),
]
Primary = Annotated[
    str,
    typer.Option(
        help="Metric that decides: ctr (clicks per impression), cvr (purchases per click), revenue_micros (value "
        "per user and day), viewed_s (seconds viewed per impression) or diversity (changes of category per "
        "impression)."
    ),
]
Guardrails = Annotated[
    list[str],
    typer.Option(
        "--guardrail",
        help="METRIC=LOSS, such as ctr=0.05: stop the experiment once an arm surely has over 5 % less of that metric "
        "than the first arm. Metrics as for --primary.",
    ),
]
Ramp = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Share of users who take part, else 1; for a bandit the share in each cohort, else 0.1.",
    ),
]
Minimum = Annotated[
    float | None,
    typer.Option(
        help="Bandit: the share of new users that even the worst arm gets, 0.1 or more (else 0.1). With fewer, a few "
        "users would decide."
    ),
]
Every = Annotated[float, typer.Option("--every", min=0.2, max=3_600, help="Seconds between two looks at the data.")]


@app.command(epilog="Example: salience experiment create warmth --arm as-is=0.5 --arm warmer=0.5:temperature=0.3")
def create(
    name: Name,
    arm: Arms,
    layer: Annotated[str, typer.Option(help="Layer; experiments of one layer share no user.")] = "ranking",
    width: Annotated[float, typer.Option(min=0.001, max=1, help="Share of the layer's users to reserve.")] = 1.0,
    primary: Primary = "ctr",
    guardrail: Guardrails = [],  # noqa: B006 - typer copies it
    allocation: Annotated[
        str, typer.Option(help="fixed; or bandit: better arms get more of the next users.")
    ] = "fixed",
    minimum: Minimum = None,
    interleave: Annotated[
        bool, typer.Option("--interleave", help="Mix two arms' rankings in one placement; compare clicks.")
    ] = False,
    epoch: Annotated[
        int | None, typer.Option(help="Bandit: seconds between cohorts, each of the ramp's size; else 3,600.")
    ] = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Write a draft. An arm is a policy: the settings that it changes, and the model that scores.

    Nobody takes part yet. Push a model first (salience model push); it is
    checked here, and workers prepare it from now on.

    A bandit admits users cohort by cohort; the primary metric so far sets the
    next cohort's shares. Nobody changes arms, and the report stays unbiased. A
    cohort's size is that of start --ramp. With --interleave two arms take turns
    in one placement, and the report says whose picks are clicked.
    """
    from streams.cli import arms
    from streams.experiments import registry
    from streams.experiments.registry import models_of
    from streams.models.desk import begin_anew, tried

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    draft = partial(
        registry.create,
        name=arms.named("NAME", name),
        arms=arms.arms(arm),
        layer=arms.named("--layer", layer),
        width=width,
        primary=arms.metric("--primary", primary),
        guardrails=[arms.guardrail(one) for one in guardrail],
        bandit=arms.bandit(allocation, minimum, epoch),
        interleaved=interleave,
    )
    control = control_of(settings)
    made = draft(control.all(ExperimentSetting), time_ms=wall_ms())
    _check_models(made, registry.objections(made, control))
    asked(tried(settings, control, models_of([made])), "Trying the models")
    asked(begin_anew(settings, models_of([made])))
    _tell(_written(settings, partial(draft, time_ms=made.time_ms), made), as_json)


@app.command(epilog="Example: salience experiment start warmth --ramp 0.1")
def start(
    name: Name, ramp: Ramp = None, bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False
) -> None:
    """Let a draft's users take part, from the workers' next slice on.

    A worker that lacks or refuses an arm's model lets nobody take part: see
    salience model list.
    """
    from streams.experiments import registry

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)

    def started(setting: ExperimentSetting) -> ExperimentSetting:
        control = control_of(settings)
        made = registry.start(setting, ramp, wall_ms(), control.all(ExperimentSetting).values())
        _check_models(made, registry.objections(made, control))
        return made

    _alter(settings, name, started, as_json)


@app.command(epilog="Example: salience experiment ramp warmth 0.5")
def ramp(
    name: Name,
    to: Annotated[float, typer.Argument(min=0.0, max=1.0, help="Share of the experiment's users; it can only grow.")],
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let more users take part; users who already do stay in their arms."""
    from streams.experiments import registry

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    _alter(settings, name, lambda setting: registry.ramp_to(setting, to, wall_ms()), as_json)


@app.command(epilog="Example: salience experiment stop warmth --reason 'warmer won'")
def stop(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; recorded with the experiment.")] = "",
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """End an experiment for good: everyone gets the shop's policy again.

    What came since the referee's last look stays unjudged: start a referee that
    is down first, and let it catch up.
    """
    from streams.experiments import registry

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    warn_unjudged(settings, _alter(settings, name, lambda setting: registry.stop(setting, reason, wall_ms()), as_json))


@app.command("list", epilog="Example: salience experiment list --json")
def list_(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the experiments; a bandit with the share of users admitted so far and the newest cohort's shares."""
    from streams.control_checkup import without_people

    control = control_of(settings_of(bootstrap=bootstrap, topic_prefix=prefix))
    known, refused = control.all(ExperimentSetting), without_people(control)
    if as_json:
        answer(dict(known))
        return
    table = plain("experiment", "status", "layer", "range", "ramp", "arms", "guardrails", "reason")
    for one in sorted(known.values(), key=lambda setting: setting.number):
        why = refused.get(one.experiment)
        ramp, arms = ("", f"refused: {why}") if why else _as_it_runs(one, control.get(Allocation, one.experiment))
        rails = ", ".join(f"{rail.metric} {percent(rail.most_loss)}" for rail in one.guardrails)
        table.add_row(one.experiment, one.status, one.layer, _reserved(one), ramp, arms, rails, one.reason)
    screen().print(table if known else "There is no experiment yet; one begins with: salience experiment create")


def _as_it_runs(setting: ExperimentSetting, allocation: Allocation | None) -> tuple[str, str]:
    """An experiment's ramp and arms; or why workers refuse a setting that another program or version wrote."""
    from streams.control_checkup import as_run
    from streams.experiments.registry import definition

    try:
        runs = (definition if setting.status == "stopped" else as_run)(setting, allocation)
    except ValueError as error:
        return "", f"refused: {error}"
    shares = [percent(share) if not runs.interleaved else "in turns" for share in runs.shares[-1].tolist()]
    models = [f" by {arm.model}" if arm.model else "" for arm in runs.arms]
    arms = ", ".join(f"{arm.name}{by} {share}" for arm, by, share in zip(runs.arms, models, shares, strict=True))
    return percent(runs.later[-1].upto if runs.later else runs.ramp), arms


def _reserved(setting: ExperimentSetting) -> str:
    """The experiment's range of the layer."""
    return f"{setting.low:.4g} to {setting.high:.4g}"


@app.command(epilog="Example: salience experiment report warmth")
def report(name: Name, bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Show an experiment's latest report by the referee. Its intervals hold however often you look."""
    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    found = newest(settings).get(name)
    if found is None:
        control = control_of(settings)
        known = control.all(ExperimentSetting)
        if name not in known:
            fail(f"there is no experiment {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
        if known[name].status == "stopped":
            fail(f"{name!r} was stopped before the referee had judged it: there is no report of it; {REFEREE_RUNS}")
        if told := idle(control, name):
            fail(f"no report of {name!r}: {told}")
        fail(f"no report of {name!r} yet: the referee writes one at its next look; {REFEREE_RUNS}")
    elif as_json:
        answer(found)
    else:
        show(found)
    warn_silent(settings, found, wall_ms())


@app.command(epilog="Example: salience experiment referee --every 10")
def referee(
    every: Every = 10.0,
    once: Annotated[
        bool, typer.Option("--once", help="Read what is there, report, and end; else run until stopped.")
    ] = False,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    port: PagesPort = None,
    log_json: LogJson = False,
) -> None:
    """Judge running experiments: publish reports, and stop experiments that break a guardrail.

    Run one process. It saves its progress in SALIENCE_HOME, which no other
    referee may use, and resumes there. It says what an experiment shows when
    that changes. While brokers fail, it judges nothing, says so once, and
    retries at every look.
    """
    import structlog

    from streams.experiments.exporter import RefereeCollector
    from streams.experiments.report import Verdicts
    from streams.experiments.service import RefereeService
    from streams.log_lines import configure_logging
    from streams.metrics.serve import serving

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    if log_json or not once:
        configure_logging(log_json=log_json)
    say: Callable[[str], None] = structlog.get_logger().info if log_json else screen(stderr=True).print
    verdicts = Verdicts()

    def tell(reports: "Sequence[ExperimentReport]") -> None:
        for one in reports if once else verdicts.news(reports):
            say(f"{one.experiment}: {one.verdict}")

    service = RefereeService(settings, round(1_000 * every), tell)

    async def served() -> None:
        seen = service.vitals
        async with serving(RefereeCollector(seen), settings, port, say, seen.unwell):
            if not once:
                say(f"Judging running experiments every {every:g} s, until told to end")
            await service.run(follow=not once)

    asyncio.run(served() if once else until_told(served()))


def _written(
    settings: "Settings", draft: "Callable[[Known], ExperimentSetting]", made: "ExperimentSetting"
) -> ExperimentSetting:
    """Write a draft; return it as settled beside those that others wrote meanwhile."""
    from streams.experiments.changes import settled
    from streams.experiments.registry import absences

    _write(settings, [made])
    stands = settled(draft, made, partial(control_of, settings), partial(_write, settings))
    # Again: a model may have been removed before the draft was written.
    _check_models(stands, absences(stands, control_of(settings)))
    return stands


def _check_models(setting: ExperimentSetting, found: Sequence[str]) -> None:
    if found:
        fail(f"{setting.experiment}: {'; '.join(found)}")


def _alter(
    settings: "Settings", name: str, change: Callable[[ExperimentSetting], ExperimentSetting], as_json: bool
) -> ExperimentSetting:
    """Change an experiment, and tell what stands now."""
    from streams.experiments.changes import alter

    stands = alter(name, change, partial(control_of, settings), partial(_write, settings))
    _tell(stands, as_json)
    return stands


def _write(settings: "Settings", messages: Sequence[ExperimentSetting], gone: Sequence[ExperimentSetting] = ()) -> None:
    from streams.control import publish

    asked(publish(settings, messages, gone))


def _tell(setting: ExperimentSetting, as_json: bool) -> None:

    if as_json:
        answer(setting)
    else:
        reserved = f"{_reserved(setting)} of layer {setting.layer}"
        typer.echo(f"{setting.experiment}: {setting.status}, ramp {percent(setting.ramp)}, {reserved}")
