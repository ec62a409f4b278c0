"""What the documents say is so: their commands exist, their Python runs, their links lead somewhere."""

import ast
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from typer.main import get_command

from streams import topics
from streams.asyncapi_examples import CAMPAIGN_METRICS
from streams.campaigns import campaigns
from streams.cli import app
from streams.cli.campaigns import _table as campaigns_table
from streams.control import Control
from streams.control_wire import ExperimentSetting
from streams.settings import Settings
from streams.wire import Ad, encode_json
from tests.builders import Record

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / name
    for name in (
        *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
        *("deploy/OPERATIONS.md", "deploy/WALKTHROUGH.md", "deploy/EXPERIMENTS.md"),
        *("deploy/PERFORMANCE.md", "deploy/PRIVACY.md", "deploy/SECURITY.md"),
    )
]
BLOCKS = re.compile(r"^```\w*\n(.*?)^```$|((?:^ {4}[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
"""What stands as code: between fences, or indented."""


def commands_in(text: str) -> set[str]:
    """The words after ``salience`` in code, and in backticks wherever their line breaks: a command and arguments."""
    code = "\n".join(fenced or indented for fenced, indented in BLOCKS.findall(text)).replace("\\\n", " ")
    lines = [*code.splitlines(), *re.findall(r"`([^`]+)`", BLOCKS.sub("", text))]
    said = (" ".join(line.partition(" #")[0].split()) for line in lines)
    found = (re.findall(r"(?:^|[\s/])salience ((?:[a-z][a-z0-9-]*(?!\S) ?)+)", line) for line in said)
    return {words.strip() for one in found for words in one}


COMMANDS = sorted(set().union(*(commands_in(page.read_text()) for page in PAGES)))
SALIENCE: Any = get_command(app)


def _below(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Commands and groups, each behind its path."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _below(child, (*path, name))


THERE = dict(_below(SALIENCE))
DOING = {path: one for path, one in THERE.items() if not hasattr(one, "commands") or one.invoke_without_command}


def _path(said: str) -> tuple[str, ...]:
    """The command that words begin with."""
    words = said.split()
    return next(path for at in range(len(words), -1, -1) if (path := tuple(words[:at])) in THERE)


def test_commands_are_found_however_their_lines_break() -> None:
    text = """Of `salience` the parts: `salience
train log`, and of `salience train
kuairand --data DIR` the rest; `a = 1`.

    .venv/bin/salience bench e2e
    salience broker apache up    # the command salience runs
```
SALIENCE_SLOTS=3 salience \\
  model \\
  push ./my-model
make demo
```
A salience that is a word.
"""
    assert commands_in(text) == {"train log", "train kuairand", "bench e2e", "broker apache up", "model push"}


def test_every_command_in_the_documents_exists() -> None:
    paths = {said: _path(said) for said in COMMANDS}
    assert [said for said, path in paths.items() if said != " ".join(path) and hasattr(THERE[path], "commands")] == []


@pytest.mark.parametrize("page", PAGES[:3], ids=lambda page: page.name)
def test_lines_that_every_change_may_touch_are_no_longer_than_those_of_the_source(page: Path) -> None:
    long = [number for number, line in enumerate(page.read_text().splitlines(), start=1) if len(line) > 120]
    assert long == []


@pytest.mark.parametrize("path", THERE, ids=" ".join)
def test_every_command_that_does_something_helps_with_an_example_that_names_it(path: tuple[str, ...]) -> None:
    told = CliRunner().invoke(SALIENCE, [*path, "--help"], env={"COLUMNS": "200"})
    assert told.exit_code == 0
    said = " ".join(told.output.split())
    if path in DOING:
        assert "Example" in said
        assert f"salience {' '.join(path)}" in said.rpartition("Example")[2]


@pytest.mark.parametrize("path", DOING, ids=" ".join)
def test_help_speaks_of_options_that_the_command_has_and_as_terminals_show_it(path: tuple[str, ...]) -> None:
    command, beside = DOING[path], THERE[path[:-1]].commands
    said = " ".join([command.help or "", *(getattr(one, "help", None) or "" for one in command.params)])
    assert "``" not in said
    own = {option for one in command.params for option in one.opts + one.secondary_opts}
    others = rf"\b(?:{'|'.join(beside)}) --[a-z-]+"
    assert set(re.findall(r"--[a-z][a-z-]+", re.sub(others, "", said.partition("Example")[0]))) <= own
    switches = {option for one in command.params for option in one.secondary_opts}
    assert switches <= {"--refused"}  # who leaves a flag away has said no


@pytest.mark.parametrize("path", THERE, ids=" ".join)
def test_help_is_whole_on_a_terminal_of_80_columns(path: tuple[str, ...]) -> None:
    told = CliRunner().invoke(SALIENCE, [*path, "--help"], env={"COLUMNS": "80"}).output
    said = {word for text in _of_help(THERE[path]) for word in text.split()}
    assert said - set(told.replace("\u2502", " ").split()) == set()


def _of_help(command: Any) -> Iterator[str]:
    """What a command's help has to show whole: names can be typed only if none of their letters is left away."""
    for one in command.params:
        if not one.hidden:
            yield from (one.help or "", *(name for name in (*one.opts, *one.secondary_opts) if name[0] == "-"))


def test_the_first_help_groups_commands_by_what_one_comes_for() -> None:
    groups = Counter(command.rich_help_panel for command in SALIENCE.commands.values())
    assert all(isinstance(name, str) and 3 <= size <= 8 for name, size in groups.items()), groups
    assert [name for name in groups if name in CliRunner().invoke(SALIENCE, ["--help"]).output] == list(groups)


def test_shells_can_complete_commands() -> None:
    script = CliRunner().invoke(SALIENCE, [], prog_name="salience", env={"_SALIENCE_COMPLETE": "source_bash"})
    assert "complete" in script.output
    words = {"_SALIENCE_COMPLETE": "complete_bash", "COMP_WORDS": "salience la", "COMP_CWORD": "1"}
    assert set(CliRunner().invoke(SALIENCE, [], prog_name="salience", env=words).output.split()) == {"lag", "lanes"}


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = {target for page in PAGES for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert said <= targets


def test_the_readmes_python_imports_and_makes_what_there_is() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    found: dict[str, Any] = {}
    for block in blocks:
        tree = ast.parse(block)
        made = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Assign)]
        exec(compile(ast.Module(made, []), "README.md", "exec"), found)
    assert msgspec.json.decode(encode_json(found["tent"]), type=Ad) == found["tent"]
    assert found["tent"].start_ms > 0  # else it would not be tried out as new


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_that_is_there(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name}: {link}"


def section(heading: str) -> str:
    """What stands in deploy/OPERATIONS.md under ``heading``."""
    page = (ROOT / "deploy/OPERATIONS.md").read_text()
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def test_whoever_is_told_where_to_look_disturbs_nobody_by_it() -> None:
    """`salience reviews follow`, for one, would take over from the reader that runs."""
    looks = {"lag", "console", "doctor", "lanes show", "dead-letters list", "tail", "explain", "report", "verify"}
    assert {" ".join(_path(said)) for said in commands_in(section("Where to look"))} <= looks


def test_what_stands_on_a_compacted_topic_is_looked_at_from_its_beginning() -> None:
    """Without that, `salience tail` tells only what comes from now on: placements do, a tone has turned already."""
    compacted = {topic.name for topic in topics.TABLE if topic.cleanup == "compact"} - {topics.PLACEMENTS}
    for page in PAGES:
        for topic, rest in re.findall(r"salience\s+tail\s+([a-z-]+)([^`]*)`", page.read_text()):
            assert topic not in compacted or "--from-beginning" in rest, f"{page.name}: salience tail {topic}{rest}"


def test_what_must_outlive_a_disaster_is_all_that_nobody_makes_again() -> None:
    """Placements and click layers come again from the lanes; a reader begins anew with the reviews themselves."""
    made_again = {topics.PLACEMENTS, topics.CLICK_LAYERS, topics.REVIEW_STATE}
    told = set(re.findall(r"`([a-z-]+)`", re.split(r"two\s+ways", section("Backup"))[0]))
    assert {topic.name for topic in topics.TABLE if topic.cleanup == "compact"} - made_again <= told


def test_kubectl_is_told_the_namespace_in_which_everything_is() -> None:
    namespace = yaml.safe_load((ROOT / "deploy/k8s/kustomization.yaml").read_text())["namespace"]
    commands = re.findall(r"kubectl ([^`\n]+)", (ROOT / "deploy/OPERATIONS.md").read_text())
    assert commands
    assert all(each.startswith(f"-n={namespace} ") for each in commands), commands


def test_columns_of_campaigns_that_the_page_names_are_there() -> None:
    columns = {column.header for column in campaigns_table(campaigns([CAMPAIGN_METRICS]), by_arm=False).columns}
    page = (ROOT / "deploy/OPERATIONS.md").read_text()
    named = set(re.findall(r"`salience\s+campaigns`\s+(?:tells|shows)\s+which[^.(]*\(`([^`]+)`\)", page))
    assert len(named) == 2
    assert named <= columns


def test_the_page_of_privacy_tells_of_every_topic_of_people_how_long_it_keeps_them() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \| [^|]+ \| ([^|]+) \|$", (ROOT / "deploy/PRIVACY.md").read_text(), re.MULTILINE)
    told = {name: kept for names, kept in rows for name in re.findall(r"`([^`]+)`", names)}
    for topic in topics.TABLE:
        if topic.people or topic.name == topics.DEAD_LETTERS:
            days = int(topic.configs.get(topics.RETENTION, 0)) // topics.DAY_MS
            assert (told[topic.name] == f"{days} days") == (topic.cleanup == "delete"), topic.name


def test_the_readme_is_one_page_and_starts_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 80
    assert [line.split("#")[0].strip() for line in lines if line.startswith("make ")][:2] == ["make demo", "make test"]


def test_the_experiments_of_their_page_can_be_made_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "deploy/EXPERIMENTS.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^salience experiment (?:create|start) .*", page, re.MULTILINE)
    control = Control()

    def write(_settings: Settings, messages: Sequence[ExperimentSetting], _gone: Sequence[bytes] = ()) -> None:
        control.take([Record("control", 0, 0, 1, one.key, encode_json(one)) for one in messages])

    at = "streams.cli.experiment"
    monkeypatch.setattr(f"{at}.control_of", lambda _settings: control)
    monkeypatch.setattr(f"{at}._write", write)
    monkeypatch.setattr(f"{at}._check_models", lambda *_: None)
    for asks_a_broker in ("tried", "begin_anew"):
        monkeypatch.setattr(f"streams.models.desk.{asks_a_broker}", AsyncMock())
    for line in lines:
        told = CliRunner().invoke(SALIENCE, shlex.split(line, comments=True)[1:])
        assert told.exit_code == 0, (line, told.output)
    made = control.all(ExperimentSetting)
    assert len(made) == len(lines) / 2 > 4
    assert {one.status for one in made.values()} == {"running"}
