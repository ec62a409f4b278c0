"""Experiments on the console: which are kept, and their bands."""

from streams.console.trials import SHOWN, Trials
from streams.experiments.report import Against, ArmReport, ExperimentReport, encode_report


def report(number: int, low: float, *, name: str = "x", status: str = "running") -> bytes:
    """An experiment's, as the referee writes it."""
    against = Against(value=0.0, low=low, high=-low, relative=None, p_value=1.0, variance_cut=0.0)
    arms = (
        ArmReport(arm="a", users=1, metrics={"ctr": 0.1}),
        ArmReport(arm="b", users=1, metrics={"ctr": 0.1}, against_first={"ctr": against}),
    )
    return encode_report(
        ExperimentReport(
            experiment=name,
            number=number,
            status=status,
            time_ms=1,
            primary="ctr",
            verdict="",
            split_p_value=1.0,
            crossed_users=0,
            arms=arms,
        )
    )


def test_an_experiments_band_follows_its_reports_and_begins_anew_with_another_of_its_name() -> None:
    trials = Trials()
    for low in (-0.3, -0.2, -0.1):
        trials.take("x", report(1, low))
    (told,) = trials.told()
    assert told.bands[0].lows == [-0.3, -0.2, -0.1]
    trials.take("x", report(2, -0.5))
    assert trials.told()[0].bands[0].lows == [-0.5]
    trials.take("x", None)
    assert trials.told() == []


def test_experiments_that_were_stopped_make_way_for_one_that_runs_however_often_they_are_reported() -> None:
    trials = Trials()
    trials.take("long-one", report(1, -0.1, name="long-one"))
    for _ in range(2):
        for at in range(SHOWN + 5):
            trials.take(f"over-{at}", report(2 + at, -0.1, name=f"over-{at}", status="stopped"))
    told = [one.report.experiment for one in trials.told()]
    assert len(told) == SHOWN
    assert told[-1] == "long-one"
    assert told[0] == f"over-{SHOWN + 4}"
    for at in range(SHOWN + 5):
        trials.take(f"new-{at}", report(90 + at, -0.1, name=f"new-{at}"))
    assert [one.report.experiment for one in trials.told()] == [f"new-{at}" for at in range(SHOWN + 4, 4, -1)]
