"""What the referee knows, as one file: written whole or not at all, read back to go on where it was."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from scoring.interleaving import Duel
from scoring.trial import Trial
from streams.control_wire import ExperimentSetting
from streams.duels import Drafted
from streams.experiments import definition
from streams.referee import Referee, Watched

VERSION = 1
Offsets = dict[tuple[str, int], int]
"""Next offset by topic and partition."""


class StoreError(RuntimeError):
    """A file that is not the referee's, or of another version."""


def save(file: Path, referee: Referee, offsets: Mapping[tuple[str, int], int]) -> None:
    """Write the file; a crash leaves the former one."""
    users = referee.users
    arrays = {
        "ids": referee.ids[:users],
        "totals": referee.totals[:users],
        "category": referee.category[:users],
        "seen": referee.seen[:users],
    }
    experiments = {}
    for number, watched in referee.watched.items():
        trial, size = watched.trial, min(users, len(watched.trial.arm))
        arrays |= {
            f"{number}.arm": trial.arm[:size],
            f"{number}.before": trial.before[:size],
            f"{number}.crossed": trial.crossed[:size],
            f"{number}.exposed_arm": watched.exposed_arm[:users],
            f"{number}.exposed_ms": watched.exposed_ms[:users],
        }
        experiments[number] = {
            "setting": json.loads(msgspec.json.encode(watched.setting)),
            "widths": [[metric, arm, width] for (metric, arm), width in trial.widths.items()],
            "evidence": [[metric, arm, most] for (metric, arm), most in trial.evidence.items()],
            "split_evidence": trial.split_evidence,
        }
        if (duel := watched.duel) is not None:
            arrays |= {f"{number}.credit": duel.credit[:users], f"{number}.shown": duel.shown[:users]}
            experiments[number] |= {"width": duel.width, "duel_evidence": duel.evidence}
    arrays["pending"] = np.array([(event, *one) for event, one in referee.credits.pending.items()], dtype=np.uint64)
    about = {
        "version": VERSION,
        "offsets": [[topic, partition, offset] for (topic, partition), offset in offsets.items()],
        "experiments": experiments,
        "unwatched_users": referee.unwatched_users,
        "malformed": referee.malformed,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(".half.npz")
    with half.open("wb") as out:
        np.savez(out, allow_pickle=False, **arrays, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8))
        out.flush()
        os.fsync(out.fileno())
    half.replace(file)


def load(file: Path, referee: Referee) -> Offsets:
    """Fill an empty ``referee``; where to go on. Nothing where there is no file. Raises `StoreError`."""
    if not file.exists():
        return {}
    try:
        with np.load(file, allow_pickle=False) as saved:
            about = json.loads(saved["about"].tobytes())
            if about["version"] != VERSION:
                raise StoreError(f"{file} has version {about['version']}, expected {VERSION}; delete it to start anew")
            referee.restore(saved["ids"], saved["totals"], saved["category"], saved["seen"])
            for event, *drafted in saved["pending"].reshape(-1, 4).tolist() if "pending" in saved else []:
                referee.credits.pending[event] = Drafted(*drafted)
            for number, told in about["experiments"].items():
                setting = msgspec.convert(told["setting"], ExperimentSetting)
                trial = Trial(
                    definition(setting).shares,
                    arm=saved[f"{number}.arm"],
                    before=saved[f"{number}.before"],
                    crossed=saved[f"{number}.crossed"],
                    widths={(metric, arm): width for metric, arm, width in told["widths"]},
                    evidence={(metric, arm): most for metric, arm, most in told["evidence"]},
                    split_evidence=told["split_evidence"],
                )
                duel = None
                if setting.interleaved:
                    duel = Duel(credit=saved[f"{number}.credit"], shown=saved[f"{number}.shown"])
                    duel.width, duel.evidence = told["width"], told["duel_evidence"]
                referee.watched[int(number)] = Watched(
                    setting,
                    trial,
                    duel=duel,
                    exposed_arm=saved[f"{number}.exposed_arm"],
                    exposed_ms=saved[f"{number}.exposed_ms"],
                )
    except (OSError, ValueError, KeyError, msgspec.ValidationError) as error:
        raise StoreError(f"{file} cannot be read ({error}); delete it to start anew from the topics") from error
    referee.unwatched_users, referee.malformed = about["unwatched_users"], about["malformed"]
    return {(topic, partition): offset for topic, partition, offset in about["offsets"]}
