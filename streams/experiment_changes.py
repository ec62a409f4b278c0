"""Changes of experiments on a topic on which others write too: read, changed, written, and read again.

No write there depends on what stands, so two may be made from one message. The first of them stands, for every reader
(`ExperimentSetting.stands_after`); whoever wrote the other one finds that, and writes what stands once more. ``read``
gives the topic's experiments in its order, ``write`` takes messages, and those that are taken back.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import msgspec

from streams.control_wire import ExperimentSetting
from streams.experiments import ExperimentError

TRIES_MAX = 5
"""Times that a change yields to others made at the same moment, before it is given up."""

Known = Mapping[str, ExperimentSetting]
Read = Callable[[], Known]
Write = Callable[[Sequence[ExperimentSetting], Sequence[ExperimentSetting]], object]


def alter(
    name: str, change: Callable[[ExperimentSetting], ExperimentSetting], read: Read, write: Write
) -> ExperimentSetting:
    """Write the experiment as ``change`` makes it, anew where another's change came first.

    Raises what ``change`` does, and `ExperimentError` where there is no such experiment.
    """
    known = read()
    for _ in range(TRIES_MAX):
        if name not in known:
            raise ExperimentError(f"there is no experiment {name!r}; there are: {', '.join(sorted(known)) or 'none'}")
        made = change(known[name])
        write([made], ())
        known = _after(made, read, write)
        if known.get(name) == made:
            return made
    raise ExperimentError(f"{name}: others change it all the time; try again")


def settled(
    draft: Callable[[Known], ExperimentSetting], made: ExperimentSetting, read: Read, write: Write
) -> ExperimentSetting:
    """``made``, which has been written, or another by ``draft`` in its place where others were written before it.

    Nobody may have known of the other when both were made, and both have the same number or range: the one that is
    first on the topic keeps them, as everybody sees who reads it afterwards. Raises `ExperimentError`, having taken
    back what is not possible, and where the name is another's.
    """
    known = _after(made, read, write)
    for _ in range(TRIES_MAX):
        stands = known.get(made.experiment)
        if stands is None or not _is_draft_of(made, stands):
            raise ExperimentError(
                f"somebody else made or changed an experiment {made.experiment!r} at the same moment; "
                "choose another name, or see salience experiment list"
            )
        try:
            again = msgspec.structs.replace(draft(_before(known, made.experiment)), revision=stands.revision)
        except ExperimentError:
            write((), [made])
            raise
        if again == stands:
            return stands
        again = msgspec.structs.replace(again, revision=stands.revision + 1)
        write([again], ())
        known = _after(again, read, write)
    write((), [made])
    raise ExperimentError(f"{made.experiment}: others make experiments all the time; try again")


def _after(written: ExperimentSetting, read: Read, write: Write) -> Known:
    """The experiments after a write. Where another's change stands, it is written again until it is the newest.

    Of a compacted topic the newest message alone is left, and whoever reads that knows of no other.
    """
    for _ in range(TRIES_MAX):
        known = read()
        stands = known.get(written.experiment)
        if stands is None or stands == written:
            break
        written = msgspec.structs.replace(stands, revision=stands.revision + 1)
        write([written], ())
    return known


def _is_draft_of(made: ExperimentSetting, stands: ExperimentSetting) -> bool:
    """Whether it is the same draft, perhaps with another number or range, or written again."""
    place = {field: getattr(made, field) for field in ("number", "low", "high", "revision")}
    return msgspec.structs.replace(stands, **place) == made


def _before(known: Known, name: str) -> dict[str, ExperimentSetting]:
    """Those that were there before ``name``, in the order of the topic, or have been started since."""
    first = set(itertools.takewhile(lambda each: each != name, known))
    return {each: one for each, one in known.items() if each in first or (one.status != "draft" and each != name)}
