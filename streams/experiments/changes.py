"""Changes of experiments on a topic to which others write, too: a change is made again where another came first."""

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
    """Write the experiment as ``change`` makes it; again where another change came first. Returns what stands.

    Raises what ``change`` raises, and `ExperimentError` where there is no such experiment, or others change it all the
    time.
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
    """``made``, which has been written; where others were written before it, another draft by ``draft`` in its place.

    Two drafts made at the same moment, without knowledge of each other, may have the same number or range. The first on
    the topic keeps them: everybody who reads the topic later sees the same. Raises `ExperimentError` where the name
    is another's, or where no draft is possible; that is then taken back.
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
    """Take back a draft that cannot be; if others have changed it meanwhile, it stays. Returns the error to raise."""
    stands = take_back(made, read, write).get(ExperimentSetting, made.experiment)
    return ExperimentError(why if stands is None else f"{why}; somebody has changed it: it is {stands.status}")


def _is_draft_of(made: ExperimentSetting, stands: ExperimentSetting) -> bool:
    """Whether ``stands`` is the draft ``made``, apart from number, range and revision."""
    place = {field: getattr(made, field) for field in ("number", "low", "high", "revision")}
    return msgspec.structs.replace(stands, **place) == made


def _before(known: Known, name: str) -> dict[str, ExperimentSetting]:
    """The experiments before ``name`` in the order of the topic, and those that have been started since."""
    first = set(itertools.takewhile(lambda each: each != name, known))
    return {each: one for each, one in known.items() if each in first or (one.status != "draft" and each != name)}
