"""Read an experiment's options; an `OptionError` names the option and says what is expected."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from streams.control_wire import EXPERIMENT_NAME, ArmSetting, Guardrail, Metric, ModelOrNone
from streams.mendable import MendableError

if TYPE_CHECKING:
    from streams.experiments.registry import Bandit

MINIMUM, EPOCH_S = 0.1, 3_600
"""A bandit's defaults: the least share of every arm, and the seconds between cohorts."""
ARM = "NAME=SHARE, or NAME=SHARE:setting=value,model=VERSION"
EXAMPLE = "--arm as-is=0.5 --arm warmer=0.5:temperature=0.3"
SHARES_OFF_MAX = 1e-9
"""As for experiments: three thirds of ten digits are near enough."""


class OptionError(MendableError, ValueError):
    """An option that no experiment can have."""


def named(option: str, name: str) -> str:
    """A valid name of an experiment, a layer or an arm."""
    if not re.fullmatch(EXPERIMENT_NAME, name):
        raise OptionError(f"{option}: the name {name!r}; expected lower-case letters, digits and dashes, 32 at most")
    return name


def metric(option: str, name: str) -> Metric:
    """A metric that the referee judges."""
    known: tuple[Metric, ...] = get_args(Metric)
    for one in known:
        if one == name:
            return one
    raise OptionError(f"{option}: the metric {name!r}; expected one of {', '.join(known)}")


def arms(texts: Sequence[str]) -> list[ArmSetting]:
    """Parse every ``--arm``: two or more, of different names, whose shares are all there is."""
    found = [arm(text) for text in texts]
    names = [one.arm for one in found]
    if len(found) < 2:
        raise OptionError(f"--arm: only {names[0]}; give two or more, the first to compare with: {EXAMPLE}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError(f"--arm: {', '.join(twice)} twice; give each arm a name of its own: {EXAMPLE}")
    if abs((total := sum(one.share for one in found)) - 1) > SHARES_OFF_MAX:
        raise OptionError(f"--arm: the shares sum to {total:.10g}; expected 1 (write a third as 0.3333333333)")
    return found


def arm(text: str) -> ArmSetting:
    """Parse ``--arm``; the experiment checks the changes' values."""
    option = f"--arm {text}"
    head, _, rest = text.partition(":")
    name, _, share = head.partition("=")
    changes = {}
    for part in rest.split(",") if rest else ():
        key, told, value = part.partition("=")
        if not told:
            raise OptionError(f"{option}: {part!r}; expected {ARM}")
        changes[key] = value
    model = changes.pop("model", "")
    if not re.fullmatch(get_args(ModelOrNone)[1].pattern, model):
        raise OptionError(f"{option}: the model {model!r}; expected a version, as salience model list tells them")
    values = {
        key: value if key == "explore" else _number(option, value, f"{key}=NUMBER") for key, value in changes.items()
    }
    if values.get("explore") == "thompson" and "temperature" in values:
        raise OptionError(
            f"{option}: thompson draws by what is unknown of each ad, and has no temperature; leave one out"
        )
    return ArmSetting(arm=named(option, name), share=_share(option, share, ARM), changes=values, model=model)


def guardrail(text: str) -> Guardrail:
    """Parse ``--guardrail``."""
    option = f"--guardrail {text}"
    name, _, loss = text.partition("=")
    found, most = metric(option, name), _share(option, loss, "METRIC=LOSS, such as ctr=0.05", "a loss of ")
    if most == 1:
        raise OptionError(f"{option}: an arm never surely loses more than all; expected less than 1")
    return Guardrail(metric=found, most_loss=most)


def bandit(allocation: str, minimum: float | None, epoch_s: int | None) -> "Bandit | None":
    """Parse ``--allocation`` and a bandit's own options, None where not given; None for fixed."""
    from streams.experiments.registry import Bandit

    if allocation not in ("fixed", "bandit"):
        raise OptionError(f"--allocation {allocation}: expected fixed or bandit")
    if allocation == "bandit":
        return Bandit(MINIMUM if minimum is None else minimum, EPOCH_S if epoch_s is None else epoch_s)
    if minimum is not None:
        raise OptionError(f"--minimum {minimum}: only a bandit leaves one; add --allocation bandit")
    if epoch_s is not None:
        raise OptionError(f"--epoch {epoch_s}: only a bandit has one; add --allocation bandit")
    return None


def _number(option: str, text: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{option}: {text!r} is no number; expected {expected}") from None


def _share(option: str, text: str, expected: str, what: str = "") -> float:
    """A share from 0 to 1; who gives it in per cent is told how to write it. ``what``: of which it is one."""
    per_cent = text.endswith("%")
    share = _number(option, text.removesuffix("%").strip(), expected)
    if per_cent or 1 < share <= 100:
        raise OptionError(f"{option}: {text} is no share; expected 0 to 1: write {what}{share:g} % as {share / 100:g}")
    if not 0 <= share <= 1:
        raise OptionError(f"{option}: {text} is no share; expected 0 to 1")
    return share
