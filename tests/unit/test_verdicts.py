"""What a referee says while it runs: not the same of every look."""

from streams.experiments.findings import Code, Finding
from streams.experiments.report import ExperimentReport, Verdicts


def look(code: Code, detail: str = "", number: int = 1, status: str = "running", *arms: str) -> ExperimentReport:
    """A report of a look that found ``code``."""
    found = Finding(code=code, first="as-is", metric="ctr", arms=arms, by=0.1 if arms else None, detail=detail)
    return ExperimentReport(
        experiment=f"e{number}", number=number, status=status, time_ms=0, primary="ctr", verdict=found.sentence,
        finding=found, split_p_value=1.0, crossed_users=0, arms=(),
    )  # fmt: skip


def said(looks: list[list[ExperimentReport]]) -> list[list[str]]:
    """The verdicts said at each look."""
    verdicts = Verdicts()
    return [[one.verdict for one in verdicts.news(reports)] for reports in looks]


def test_a_verdict_whose_figures_alone_have_changed_is_not_said_again() -> None:
    few, more = (look("too_little", f"as-is has {users} of 100 users") for users in (60, 70))
    open_, wider = look("open", "-0.1 to 0.2"), look("open", "-0.2 to 0.2")
    assert said([[few], [more], [more], [open_], [wider], [few]]) == [
        [few.verdict], [], [], [open_.verdict], [], [few.verdict],
    ]  # fmt: skip


def test_another_arm_that_wins_is_said_and_each_experiment_has_its_own() -> None:
    one, two = look("better", "", 1, "running", "one"), look("better", "", 1, "running", "two")
    other = look("open", number=2)
    assert said([[one], [one, other], [two, other]]) == [[one.verdict], [other.verdict], [two.verdict]]


def test_what_was_found_before_a_while_without_a_look_is_said_again() -> None:
    assert said([[look("open")], [], [look("open")]]) == [[look("open").verdict], [], [look("open").verdict]]


def test_of_a_stopped_experiment_nothing_is_said_at_every_look() -> None:
    assert said([[look("open")], [look("stopped", status="stopped")], []]) == [[look("open").verdict], [], []]
