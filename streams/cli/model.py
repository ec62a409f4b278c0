"""``salience model``: push models, try them beside the live one, promote and roll back, without a restart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streams.cli.failing import fail
from streams.cli.options import Bootstrap, Json, Prefix, answer, asked, control_of, settings_of
from streams.cli.screen import percent, plain, screen
from streams.clock import wall_ms
from streams.control_wire import ExperimentSetting, ModelRoles, ModelStatus, PushedModel

if TYPE_CHECKING:
    from streams.control import Control
    from streams.models.roles import Record
    from streams.settings import Settings

app = typer.Typer(
    help="Push, shadow, canary, promote, roll back, list and remove models; no worker restarts.", no_args_is_help=True
)

Version = Annotated[str, typer.Argument(help="Model version, as salience model list shows it.", show_default=False)]
Share = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of people, chosen by a hash of their id; 0 ends the role.")
]
Reason = Annotated[str, typer.Option(help="Why; recorded with the change.")]


@app.command("list", epilog="Example: salience model list --json")
def list_(bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List the models with their role, their outcomes, and the lanes that refuse them and why.

    Lanes report when something changes; a lane that is down reports nothing.
    "told" shows the age of the newest report, then of the oldest and its lane
    (--json: of every lane). To see whether a lane is down: salience lag.
    """
    from streams.models.roles import roles_told

    control = control_of(settings_of(bootstrap=bootstrap, topic_prefix=prefix))
    roles, told = roles_told(control), [_told(control, version) for version in _versions(control)]
    if as_json:
        answer({"live": roles.live or None, "reason": roles.reason, "forced": roles.forced, "models": told})
        return
    console = screen()
    table = plain("model", "state", "outcomes", "clicks", "clicks /\npredicted", "log loss\ngained", "over", "told")
    for one in told:
        figures = ("-" if one[name] is None else f"{one[name]:.3f}" for name in ("calibration", "log_loss_gain"))
        state = f"{one['state']} {percent(one['share'])}" if one["share"] else one["state"]
        counts = (f"{one['outcomes']:,}", f"{one['clicks']:,}")
        over = f"{one['beside']:,}" if one["beside"] else ""
        table.add_row(one["model"], state, *counts, *figures, over, _last_told(one["told"]))
    console.print(table if told else "No model has been pushed yet; one is by: salience model push DIR")
    for one in told:
        for each in one["refusals"]:
            console.print(f"{one['model']} is refused by lane {each['lane']}: {each['reason']}", soft_wrap=True)
    if not roles.live:
        console.print("Live is the model that the workers were started with (SALIENCE_MODEL).")
    elif roles.reason:
        console.print(f"Last change: {roles.reason}")


@app.command(epilog="Example: salience model push ./my-model")
def push(
    directory: Annotated[Path, typer.Argument(help="Folder that holds the model's manifest.json.", show_default=False)],
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Check a model here, and publish its files on the topic models. It scores nobody yet.

    Exit status 1 if it is refused, with the reason.
    """
    from streams.models.desk import push as push_model

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    pushed = asked(push_model(settings, directory), "Trying the model, asking brokers")
    if as_json:
        answer({"model": pushed.model, "bytes": pushed.bytes, "parity": pushed.parity, "score_ms": pushed.score_ms})
    else:
        typer.echo(
            f"{pushed.model}: {pushed.bytes:,} bytes pushed; it differs from its golden outputs by {pushed.parity:.1e} "
            f"and scores a person's 100 candidates in {pushed.score_ms:.2f} ms.\n"
            f"Next: salience model shadow {pushed.model}"
        )


@app.command(epilog="Example: salience model shadow my-model-1a2b3c4d --share 0.2")
def shadow(
    version: Version,
    share: Share = 0.1,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let workers score with a model beside the live one, and log both on shadow-scores; it decides nothing."""
    from streams.models.roles import with_shadow

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    control = control_of(settings)
    _pushed(control, version)
    _change(settings, control, lambda roles: with_shadow(roles, version, share, wall_ms()), as_json)


@app.command(epilog="Example: salience model canary my-model-1a2b3c4d --share 0.05")
def canary(
    version: Version,
    share: Share = 0.05,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let a model decide for some people; a larger share adds people and removes none."""
    from streams.models.roles import with_canary

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    control = control_of(settings)
    _pushed(control, version)
    _change(settings, control, lambda roles: with_canary(roles, version, share, wall_ms()), as_json)


@app.command(epilog="Example: salience model promote my-model-1a2b3c4d")
def promote(
    version: Version,
    outcomes_min: Annotated[
        int, typer.Option(min=0, help="Outcomes that the model must have, and as many compared with the live one's.")
    ] = 1_000,
    clicks_min: Annotated[int, typer.Option(min=0, help="Clicks that these outcomes must include.")] = 30,
    miscalibrated_max: Annotated[
        float, typer.Option(min=0.0, help="Clicks over predicted clicks must be in 1 / (1 + this) to 1 + this.")
    ] = 0.25,
    worse_max: Annotated[
        float, typer.Option(min=0.0, help="How much a shadow's log loss may exceed the live one's, as a share of it.")
    ] = 0.01,
    force: Annotated[bool, typer.Option("--force", help="Promote even if a check fails; needs a --reason.")] = False,
    reason: Reason = "",
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let a model decide for everybody, from the workers' next slice on.

    The model must reproduce its golden outputs here, be refused by no lane, have
    enough outcomes since it was given a role, and be calibrated on them. As many
    must have been compared with the live model's predictions, and it must not be
    significantly worse there. They are compared while it is a shadow, and count
    on while it is a canary. Exit status 1 if a check fails; it says which.
    """
    from streams.models.desk import parity
    from streams.models.roles import Limits, objections, promoted

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    if force and not reason:
        fail("--force wants a --reason, which is kept with the change")
    control = control_of(settings)
    pushed = _pushed(control, version)
    limits = Limits(outcomes_min, clicks_min, miscalibrated_max, worse_max)
    record = _record(control, version)
    found = [*asked(parity(settings, pushed), "Trying the model, asking brokers"), *objections(pushed, record, limits)]
    if found and not force:
        told = "\n  ".join(found)
        fail(f"{version} is not promoted:\n  {told}\nIf it must be: --force --reason '...'")
    _change(
        settings,
        control,
        lambda roles: promoted(roles, version, wall_ms(), reason, forced=bool(found)),
        as_json,
        {"overruled": found},
    )


@app.command(epilog="Example: salience model rollback --reason 'calibration is off'")
def rollback(reason: Reason = "", bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Return to the previous live model, from the workers' next slice on; end canary and shadow."""
    from streams.models.roles import rolled_back

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    _change(settings, control_of(settings), lambda roles: rolled_back(roles, wall_ms(), reason), as_json)


@app.command(epilog="Example: salience model remove my-model-1a2b3c4d")
def remove(version: Version, bootstrap: Bootstrap = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Remove a model without a role from the topics. Its placements can then no longer be explained."""
    from streams.models.desk import remove as remove_model

    settings = settings_of(bootstrap=bootstrap, topic_prefix=prefix)
    asked(remove_model(settings, version))
    if as_json:
        answer({"removed": version})
    else:
        typer.echo(f"{version}: removed")


def _change(
    settings: "Settings",
    control: "Control",
    change: Callable[[ModelRoles], ModelRoles],
    as_json: bool,
    more: dict[str, Any] = {},  # noqa: B006 - only read
) -> None:
    """Apply ``change`` to the roles on the control topic, and print the result."""
    from streams.control import publish
    from streams.models.desk import begin_anew
    from streams.models.roles import roles_of, roles_told, settled

    def write(messages: Sequence[ModelRoles], gone: Sequence[ModelRoles]) -> None:
        asked(publish(settings, messages, gone))

    made = change(roles_told(control))
    asked(begin_anew(settings, roles_of(made, ()).versions))
    roles = settled(made, lambda: control_of(settings), write)
    if as_json:
        answer(msgspec.to_builtins(roles) | more)
        return
    live = roles.live or "the workers' own"
    others = [f"canary {roles.canary} for {percent(roles.canary_share)}"] if roles.canary else []
    others += [f"shadow {roles.shadow} beside {percent(roles.shadow_share)}"] if roles.shadow else []
    typer.echo(f"live: {'; '.join([live, *others])}. Workers follow: salience model list")


def _told(control: "Control", version: str) -> dict[str, Any]:
    """A model, as --json shows it."""
    from streams.experiments.registry import models_of
    from streams.models.roles import roles_told, state_of

    roles, record, pushed = roles_told(control), _record(control, version), control.get(PushedModel, version)
    state = state_of(roles, version)
    if state == "pushed" and version in models_of(control.all(ExperimentSetting).values()):
        state = "experiment"
    evidence = record.evidence
    return {
        "model": version,
        "state": state,
        "share": {"canary": roles.canary_share, "shadow": roles.shadow_share, "live": 1.0}.get(state, 0.0),
        "pushed_ms": pushed.time_ms if pushed else None,
        "bytes": pushed.bytes if pushed else None,
        "parity": pushed.parity if pushed else None,
        "score_ms": pushed.score_ms if pushed else None,
        "lanes": record.lanes,
        "told": [
            {"lane": lane, "age_s": max(0, wall_ms() - time_ms) / 1_000 if time_ms else None}
            for lane, time_ms in sorted(record.told_ms.items(), key=lambda each: each[1])
        ],
        "outcomes": evidence.outcomes,
        "clicks": evidence.clicks,
        "calibration": record.calibration,
        "log_loss": evidence.log_loss / evidence.outcomes if evidence.outcomes else None,
        "beside": evidence.beside,
        "log_loss_gain": record.gain,
        "mean_difference": record.mean_difference,
        "largest_difference": record.largest_difference,
        "refusals": [
            {"lane": lane, "worker": worker, "reason": reason}
            for lane, (worker, reason) in sorted(record.refusals.items())
        ],
    }


def _last_told(told: list[dict[str, Any]]) -> str:
    """The age of the newest and the oldest report on a model; ``told`` has the oldest first."""
    if not told:
        return "never"
    oldest, newest = told[0], told[-1]
    others = f",\nlane {oldest['lane']} {_ago(oldest['age_s'])}" if len(told) > 1 else ""
    return f"{_ago(newest['age_s'])}{others}"


def _ago(age_s: float | None) -> str:
    """When a lane told, by its own time, which begins with its first event."""
    return "before any event" if age_s is None else f"{_age(age_s)} ago"


def _age(seconds: float) -> str:
    """``seconds`` as a whole number of the largest unit that fits."""
    whole, unit = next((size, name) for size, name in _UNITS if seconds >= size or size == 1)
    return f"{seconds // whole:,.0f} {unit}"


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def _versions(control: "Control") -> list[str]:
    from streams.models.roles import roles_told

    roles = roles_told(control)
    pushed = sorted(control.all(PushedModel).values(), key=lambda one: one.time_ms)
    named = (roles.live, *roles.former, roles.canary, roles.shadow)
    return list(dict.fromkeys([*(one.model for one in pushed), *(version for version in named if version)]))


def _record(control: "Control", version: str) -> "Record":
    """The record of a model that decides whether it may be promoted."""
    from streams.experiments.registry import models_of
    from streams.models.roles import record_of, roles_told

    arms = models_of(control.all(ExperimentSetting).values())
    return record_of(version, roles_told(control), arms, control.all(ModelStatus).values())


def _pushed(control: "Control", version: str) -> PushedModel:

    found = control.get(PushedModel, version)
    if found is None:
        there = ", ".join(sorted(control.all(PushedModel))) or "none"
        fail(f"there is no model {version!r}; there are: {there}. Push it: salience model push DIR")
    return found
