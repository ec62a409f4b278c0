"""The referee's knowledge as one file: written whole or not at all, and read back after a restart."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec
import numpy as np
import numpy.typing as npt

from scoring.assignment import OUTSIDE
from scoring.interleaving import Preference, Score
from scoring.trial import Difference, Lack, Look
from streams.control_wire import ExperimentSetting
from streams.experiments.duels import Drafted
from streams.experiments.people import ARRAYS
from streams.experiments.referee import Referee
from streams.experiments.watched import NEVER_MS, Watched
from streams.mendable import MendableError
from streams.own_files import own_file, own_folder
from streams.privacy.consent import Watermarks

VERSION, FORMER = 5, 4
"""Files of the former version are read, too:

- version 4: value was by user, not by user and day: its plans and evidence are dropped, and the last look keeps its
  unit; the newest row's time was not kept: the newest exposure's stands in for it
- some of version 5: up to when was judged, who found no place meanwhile, and what a look lacked was not kept: reports
  do not tell it; nor whose the latest impressions were: these are dropped, since nobody could be forgotten there
"""
Arrays = Mapping[str, npt.NDArray[Any]]
Offsets = dict[tuple[str, int], int]
"""Next offset by topic and partition."""
Ids = dict[str, str]
"""Ids, by name, of the topics to which the offsets belong."""


class StoreError(MendableError):
    """The file is not the referee's, has another version, or cannot be written."""

    @classmethod
    def unwritten(cls, file: Path, error: OSError) -> Self:
        """The error for a file that cannot be written because of ``error``."""
        why = error.strerror or error
        return cls(f"{file} cannot be written ({why}); name a folder that is yours and has room: SALIENCE_HOME")


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Lock the file within the block: two processes would overwrite each other's.

    Raises `StoreError` where another process has the lock, or the folder cannot be written.
    """
    with _opened(file) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"another referee is at {file}; one judges for all: end that one first") from error
        yield  # closing the file unlocks it, as does the end of the process


def _opened(file: Path) -> BinaryIO:
    """The lock file, opened; it stands beside ``file``, is empty, and keeps its permissions."""
    try:
        own_folder(file.parent)
        lock = os.open(file.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        return os.fdopen(lock, "wb")
    except OSError as error:
        raise StoreError.unwritten(file, error) from error


def save(file: Path, referee: Referee, offsets: Mapping[tuple[str, int], int], ids: Mapping[str, str]) -> None:
    """Write the file. A crash leaves the former one; a failure leaves no other file behind. Raises `OSError`."""
    arrays, experiments = _of_people(referee) | _beside(referee), {}
    for number, watched in referee.watched.items():
        trial = watched.trial
        for group in _of_experiment(watched):
            arrays |= {f"{number}.{name}": array[: referee.people.number] for name, array in group.items()}
        experiments[number] = {
            "setting": json.loads(msgspec.json.encode(watched.setting)),
            "widths": [[metric, arm, width] for (metric, arm), width in trial.widths.items()],
            "evidence": [[metric, arm, most] for (metric, arm), most in trial.evidence.items()],
            "split_evidence": trial.split_evidence,
            "last": None if watched.last is None else _told(watched.last),
            "score": None if watched.score is None else dataclasses.asdict(watched.score),
            "judged_ms": watched.judged_ms,
            "unwatched": [watched.unwatched_before, watched.unwatched],
        }
        if (duel := watched.duel) is not None:
            experiments[number] |= {"width": duel.width, "duel_evidence": duel.evidence}
    about = {
        "version": VERSION,
        "offsets": [[topic, partition, offset] for (topic, partition), offset in offsets.items()],
        "topics": dict(ids),
        "experiments": experiments,
        "unwatched_users": referee.people.unwatched,
        "malformed": referee.malformed,
        "settled": referee.settled,
        "now_ms": referee.now_ms,
    }
    _write(file, arrays | {"about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)})


def _of_people(referee: Referee) -> dict[str, npt.NDArray[Any]]:
    return {name: getattr(referee.people, name)[: referee.people.number] for name in ARRAYS}


def _of_experiment(watched: Watched) -> list[dict[str, npt.NDArray[Any]]]:
    """Arrays by people's places; those of each group are of one length."""
    trial, duel = watched.trial, watched.duel
    return [
        {name: getattr(trial, name) for name in ("arm", "before", "crossed", "blank")},
        {name: getattr(watched, name) for name in ("exposed_arm", "exposed_ms", "exposed_after", "other_ms")},
        {} if duel is None else {"credit": duel.credit, "shown": duel.shown},
    ]


def _beside(referee: Referee) -> dict[str, npt.NDArray[Any]]:
    """What is known beside people and experiments; the watermarks' digests as two numbers each, -1 for no no."""
    pending, until_ms, no_ms = referee.credits.pending, referee.erased.until_ms, referee.erased.no_ms
    return {
        "pending": np.array([(at, *one) for at, one in pending.items()], dtype=np.uint64).reshape(-1, 4),
        "early": np.fromiter(referee.credits.early, dtype=np.uint64),
        "latest": np.fromiter(referee.latest, dtype=np.uint64),
        "latest_of": np.fromiter(referee.latest.values(), dtype=np.uint64),
        "erased": np.frombuffer(b"".join(until_ms), dtype=np.uint64).reshape(-1, 2),
        "erased_ms": np.fromiter(until_ms.values(), dtype=np.int64),
        "no_ms": np.fromiter((no_ms.get(digest, -1) for digest in until_ms), dtype=np.int64),
    }


def _write(file: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Replace the former file, whole or not at all."""
    own_folder(file.parent)
    half = file.with_suffix(".half.npz")
    try:
        with own_file(half) as out:
            np.savez(out, allow_pickle=False, **arrays)
            out.flush()
            os.fsync(out.fileno())
        half.replace(file)
    except BaseException:
        half.unlink(missing_ok=True)  # it may have filled the disk
        raise


def load(file: Path, referee: Referee) -> tuple[Offsets, Ids]:
    """Fill an empty ``referee``. Returns where to go on, and the topics' ids.

    Does nothing where there is no file. Raises `StoreError`.
    """
    if not file.exists():
        return {}, {}
    try:
        saved, about = _read(file)
        _require_like(_of_people(referee), saved, len(saved["ids"]))
        for name, array in _beside(referee).items():
            _require_like({name: array}, saved)
        referee.people.restore(saved)
        if "latest_of" in saved:
            referee.latest = dict(zip(saved["latest"].tolist(), saved["latest_of"].tolist(), strict=True))
        for showing, *drafted in saved["pending"].tolist():
            referee.credits.pending[showing] = Drafted(*drafted)
        referee.credits.early = dict.fromkeys(saved.get("early", np.empty(0, dtype=np.uint64)).tolist())
        for number, told in about["experiments"].items():
            referee.watched[int(number)] = _watched(number, told, saved)
        _hold(saved, referee.erased)
        referee.settled = about["settled"]
        referee.now_ms = about["now_ms"]
        referee.people.unwatched, referee.malformed = about["unwatched_users"], about["malformed"]
        return {(topic, partition): offset for topic, partition, offset in about["offsets"]}, about["topics"]
    except StoreError:
        raise
    except Exception as error:  # of zipfile, zlib, tokenize, numpy and json, which share no base class
        raise StoreError(f"{file} cannot be read ({error}); delete it to start anew from the topics") from error


def _read(file: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The file's arrays, and what it tells about them, as of this version.

    Raises `StoreError` where it is of another than this version or the former, and whatever reading a damaged one does.
    """
    with file.open("rb") as whole, np.load(whole, allow_pickle=False) as npz:
        about: dict[str, Any] = json.loads(npz["about"].tobytes())
        if about["version"] not in (FORMER, VERSION):
            raise StoreError(f"{file} has version {about['version']}, expected {VERSION}; delete it to start anew")
        saved = dict(npz)
    if about["version"] == FORMER:
        _of_version_4(saved, about)
    saved["pending"] = saved["pending"].reshape(-1, 4)  # none were saved as [0]
    return saved, about


def _require_like(new: Arrays, saved: Arrays, most: int | None = None) -> None:
    """Raise `ValueError` where what was saved of arrays is of another kind or shape than the ``new`` ones.

    Or they are not of one length, of at most ``most``, or a sum is no number. A file of a former version lacks some.
    """
    there = {name: saved[name] for name in new if name in saved}
    for name, array in there.items():
        kind, shape = new[name].dtype.kind, (None, *new[name].shape[1:])
        if (array.dtype.kind, (None, *array.shape[1:])) != (kind, shape) or array.ndim != len(shape):
            raise ValueError(f"{name} is {array.dtype.name} {array.shape}, expected {kind} of shape {shape}")
        if kind == "f" and not (finite := np.isfinite(array)).all():
            raise ValueError(f"{name} holds {array[~finite][0]}, expected numbers: one would silence its whole arm")
    lengths = {name: len(array) for name, array in there.items()}
    if len(set(lengths.values())) > 1 or (most is not None and max(lengths.values(), default=0) > most):
        raise ValueError(f"arrays of one length, and of {most or 'any'} people at most, have {lengths}")


def _hold(saved: Mapping[str, npt.NDArray[Any]], erased: Watermarks) -> None:
    """Let ``erased`` hold the watermarks of the file; a file of a former version has no times of noes."""
    until_ms = saved["erased_ms"].tolist()
    no_ms = saved["no_ms"].tolist() if "no_ms" in saved else [-1] * len(until_ms)
    for digest, *moments in zip(saved["erased"], until_ms, no_ms, strict=True):
        erased.hold(digest.tobytes(), *moments)


def _watched(number: str, told: dict[str, Any], saved: Mapping[str, npt.NDArray[Any]]) -> Watched:
    """The experiment as it was saved."""
    watched = Watched.of(msgspec.convert(told["setting"], ExperimentSetting))
    trial, duel = watched.trial, watched.duel
    if f"{number}.credit" not in saved:
        watched.duel = duel = None
    of = {name.removeprefix(f"{number}."): array for name, array in saved.items() if name.startswith(f"{number}.")}
    of.setdefault("blank", np.zeros(len(of["crossed"]), dtype=np.bool_))
    of.setdefault("other_ms", np.full(len(of["exposed_ms"]), NEVER_MS))
    for part, group in zip((trial, watched, duel), _of_experiment(watched), strict=True):
        _require_like(group, of, len(saved["ids"]))
        for name in group:
            setattr(part, name, of[name])
    for arms in (trial.arm, watched.exposed_arm):
        if len(arms) and not OUTSIDE <= arms.min() <= arms.max() < trial.arms:
            raise ValueError(f"experiment {number} has {trial.arms} arms, and people in arms up to {arms.max()}")
    trial.widths = {(metric, arm): width for metric, arm, width in told["widths"]}
    trial.evidence = {(metric, arm): most for metric, arm, most in told["evidence"]}
    trial.split_evidence = told["split_evidence"]
    if duel is not None:
        duel.width, duel.evidence = told["width"], told["duel_evidence"]
    watched.last = None if told["last"] is None else _look(told["last"])
    watched.score = None if told["score"] is None else _score(**told["score"])
    watched.judged_ms = told.get("judged_ms", 0)
    watched.unwatched_before, watched.unwatched = told.get("unwatched", (0, 0))
    return watched


def _told(look: Look) -> dict[str, Any]:
    return dataclasses.asdict(look) | {"users": look.users.tolist()}


def _look(told: dict[str, Any]) -> Look:
    differences = {
        metric: {int(arm): Difference(**found) for arm, found in arms.items()}
        for metric, arms in told["differences"].items()
    }
    heaviest = {
        metric: {int(arm): share for arm, share in arms.items()} for metric, arms in told.get("heaviest", {}).items()
    }
    users = np.array(told["users"], dtype=np.int64)
    lacks = {metric: Lack(*lack) for metric, lack in told.get("lacks", {}).items()}
    return Look(**told | {"users": users, "differences": differences, "heaviest": heaviest, "lacks": lacks})


def _score(
    people: int, clicks: list[float], preference: dict[str, float] | None, heaviest: float | None = None
) -> Score:
    first, second = clicks
    return Score(people, (first, second), None if preference is None else Preference(**preference), heaviest)


def _of_version_4(saved: Mapping[str, npt.NDArray[Any]], about: dict[str, Any]) -> None:
    """Bring ``about`` from version 4 to version 5, in place."""
    exposed = (saved[f"{number}.exposed_ms"].max(initial=0) for number in about["experiments"])
    about["now_ms"] = int(max(exposed, default=0))
    for told in about["experiments"].values():
        for of in ("widths", "evidence"):
            told[of] = [one for one in told[of] if one[0] != "revenue_micros"]
        if told["last"] is not None:
            told["last"]["by_days"] = False
