"""Changes of experiments on a topic on which others write too: made anew where another's came first."""

import itertools
from collections.abc import Callable, Mapping

import msgspec

from streams.control_changes import TRIES_MAX, Read, Write, after, take_back
from streams.control_wire import ExperimentSetting
from streams.experiments.registry import ExperimentError

Known = Mapping[str, ExperimentSetting]


def alter(
    name: str, change: Callable[[ExperimentSetting], ExperimentSetting], read: Read, write: Write[ExperimentSetting]
) -> ExperimentSetting:
    """Write the experiment as ``change`` makes it, anew where another's change came first.

    Raises what ``change`` does, and `ExperimentError` where there is no such experiment.
    """
    known = read().all(ExperimentSetting)
    for _ in range(TRIES_MAX):
        if name not in known:
            raise ExperimentError(f"there is no experiment {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
        made = change(known[name])
        write([made], ())
        known = after(made, read, write).all(ExperimentSetting)
        if name in known and made.repeats(known[name]):
            return known[name]
    raise ExperimentError(f"{name}: others change it all the time; try again")


def settled(
    draft: Callable[[Known], ExperimentSetting], made: ExperimentSetting, read: Read, write: Write[ExperimentSetting]
) -> ExperimentSetting:
    """``made``, which has been written, or another by ``draft`` in its place where others were written before it.

    Nobody may have known of the other when both were made, and both have the same number or range: the one that is
    first on the topic keeps them, as everybody sees who reads it afterwards. Raises `ExperimentError`, having taken
    back what is not possible, and where the name is another's.
    """
    known = after(made, read, write).all(ExperimentSetting)
    for _ in range(TRIES_MAX):
        stands = known.get(made.experiment)
        if stands is None or not _is_draft_of(made, stands):
            raise ExperimentError(
                f"somebody else made or changed an experiment {made.experiment!r} at the same moment; "
                "choose another name, or see salience experiment list"
            )
        try:
            made = msgspec.structs.replace(draft(_before(known, made.experiment)), revision=stands.revision)
        except ExperimentError as error:
            raise _given_up(stands, str(error), read, write) from error
        if made == stands:
            return stands
        made = msgspec.structs.replace(made, revision=stands.revision + 1)
        write([made], ())
        known = after(made, read, write).all(ExperimentSetting)
    raise _given_up(made, f"{made.experiment}: others make experiments all the time; try again", read, write)


def _given_up(made: ExperimentSetting, why: str, read: Read, write: Write[ExperimentSetting]) -> ExperimentError:
    """Take back a draft that cannot be; what others made of it meanwhile is theirs, and stands."""
    stands = take_back(made, read, write).get(ExperimentSetting, made.experiment)
    return ExperimentError(why if stands is None else f"{why}; somebody has changed it: it is {stands.status}")


def _is_draft_of(made: ExperimentSetting, stands: ExperimentSetting) -> bool:
    """Whether it is the same draft, perhaps with another number or range, or written again."""
    place = {field: getattr(made, field) for field in ("number", "low", "high", "revision")}
    return msgspec.structs.replace(stands, **place) == made


def _before(known: Known, name: str) -> dict[str, ExperimentSetting]:
    """Those that were there before ``name``, in the order of the topic, or have been started since."""
    first = set(itertools.takewhile(lambda each: each != name, known))
    return {each: one for each, one in known.items() if each in first or (one.status != "draft" and each != name)}
