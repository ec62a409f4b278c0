"""Experiments on the console: which are kept, and their bands."""

from streams.console.trials import SHOWN, Trials
from streams.experiments.report import SILENT_MS, Against, ArmReport, ExperimentReport, encode_report


def report(number: int, low: float, *, name: str = "x", status: str = "running", time_ms: int = 1) -> bytes:
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
            time_ms=time_ms,
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
    (told,) = trials.told(1)
    assert told.bands[0].lows == [-0.3, -0.2, -0.1]
    trials.take("x", report(2, -0.5))
    assert trials.told(1)[0].bands[0].lows == [-0.5]
    trials.take("x", None)
    assert trials.told(1) == []


def test_experiments_that_were_stopped_make_way_for_one_that_runs_however_often_they_are_reported() -> None:
    trials = Trials()
    trials.take("long-one", report(1, -0.1, name="long-one"))
    for _ in range(2):
        for at in range(SHOWN + 5):
            trials.take(f"over-{at}", report(2 + at, -0.1, name=f"over-{at}", status="stopped"))
    told = [one.report.experiment for one in trials.told(1)]
    assert len(told) == SHOWN
    assert told[-1] == "long-one"
    assert told[0] == f"over-{SHOWN + 4}"
    for at in range(SHOWN + 5):
        trials.take(f"new-{at}", report(90 + at, -0.1, name=f"new-{at}"))
    assert [one.report.experiment for one in trials.told(1)] == [f"new-{at}" for at in range(SHOWN + 4, 4, -1)]


def test_a_running_experiment_without_a_new_report_is_silent_and_a_stopped_one_is_not() -> None:
    trials = Trials()
    for name, status in (("on", "running"), ("over", "stopped")):
        trials.take(name, report(1, -0.1, name=name, status=status, time_ms=1_000))

    def silent(now_ms: int) -> set[str]:
        return {one.report.experiment for one in trials.told(now_ms) if one.silent}

    assert silent(1_000 + SILENT_MS) == set()
    assert silent(1_001 + SILENT_MS) == {"on"}
    trials.take("on", report(1, -0.1, name="on", time_ms=1_001 + SILENT_MS))
    assert silent(1_001 + SILENT_MS) == set()
