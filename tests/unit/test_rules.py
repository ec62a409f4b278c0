"""The rules file: what it declares, and all that is wrong with one told at once."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scoring.ids import id64, id64s
from scoring.market import Cap, Terms
from streams import rules
from streams.cli import app
from streams.rules import EXAMPLE, RulesError, parse


def test_the_example_says_all_that_a_file_may_say() -> None:
    terms = parse(EXAMPLE).terms()

    assert terms.caps == (Cap("campaign", 3, 1_800_000),)
    assert terms.blocked_ads == {id64("ad-7")}
    assert (terms.separate, terms.category_share, terms.diversity) == ("category", 0.5, 0.2)
    assert terms.rivals == ((id64("Arco"), 1), (id64("Belle"), 1))
    assert terms.pinned == ((id64("ad-9"), 0),)
    assert all(f"{name}:" in EXAMPLE for name in rules.Rules.model_fields)


def test_an_empty_file_is_as_no_file_but_for_its_name() -> None:
    assert parse("").terms().version == parse("auction: gsp").terms().version
    assert not parse("").terms().ties_slots
    assert replace(parse("").terms(), version="none") == Terms()


def test_rules_that_differ_have_another_version() -> None:
    assert parse("reserve_micros: 1").terms().version != parse("reserve_micros: 2").terms().version


def test_every_error_of_a_file_is_told_at_once() -> None:
    text = """
        auction: third
        reserve_micros: -1
        caps: [{scope: brand, most: 0, minutes: 5}, {scope: ad, most: 1}]
        separate: colour
        surprise: 1
    """

    with pytest.raises(RulesError) as told:
        parse(text)

    said = str(told.value)
    for where in (
        "auction", "reserve_micros", "caps.0.scope", "caps.0.most", "caps.1.minutes", "separate", "surprise",
    ):  # fmt: skip
        assert any(line.startswith(where) for line in said.splitlines()), where


def test_no_slot_is_looked_at_more_than_the_one_above_it() -> None:
    assert parse("examination: [1, 0.9, 0.9]").terms().examination == (1, 0.9, 0.9)
    with pytest.raises(RulesError, match=r"examination: .*than the one above it"):
        parse("examination: [1, 0.8, 0.9]")
    for never in (0, -0.5, 1e-320):
        with pytest.raises(RulesError, match=r"examination.1: .*0\.000001"):
            parse(f"examination: [1, {never:.400f}]")


def test_credit_may_be_learned_for_some_campaigns_or_for_all() -> None:
    assert not parse("attribution: {spread: time}").owed().learns
    assert parse("attribution: {spread: learned}").owed().learns
    owed = parse("attribution: {campaigns: {spring: learned}}").owed()
    assert owed.learns
    assert owed.by("learned", id64s(["spring", "autumn"])).tolist() == [True, False]
    assert owed.by("position", id64s(["spring", "autumn"])).tolist() == [False, True]
    with pytest.raises(RulesError, match=r"attribution.spread: .*'learned'.* got 'guessed'"):
        parse("attribution: {spread: guessed}")


def test_rules_that_contradict_each_other_are_all_told() -> None:
    text = """
        block: {ads: [ad-1]}
        pinned: {ad-1: 0, ad-2: 0}
        competitors: [[Arco, Belle], [Arco, Arco]]
        caps: [{scope: ad, most: 1, minutes: 5}, {scope: ad, most: 2, minutes: 5}]
    """

    with pytest.raises(RulesError) as told:
        parse(text)

    said = str(told.value)
    for part in ("ad-1, ad-2 all have slot 0", "ad-1 is blocked", "Arco is in 2 groups", "competitors.1", "caps: 2"):
        assert part in said


def test_a_category_below_the_top_level_would_block_nothing_and_is_an_error_that_says_what_to_write() -> None:
    for below in ("weapons/knives", "weapons/", "/weapons"):
        with pytest.raises(RulesError, match=rf"^block.categories.1: expected the top level .*, got '{below}'"):
            parse(f"block: {{categories: [weapons, {below}]}}")


@pytest.mark.parametrize("text", ["[", "a: b: c", "- 1", "7", "!!python/object/apply:os.getcwd []", "caps: x"])
def test_what_is_no_rules_file_is_an_error(text: str) -> None:
    with pytest.raises(RulesError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("block: {ads: [ad-1]}\nauction: vcg\nblock: {ads: [ad-2]}", "line 3: block is there twice"),
        ("block:\n  ads: [ad-1]\n  'ads': [ad-2]", "line 3: ads is there twice"),
        ("<<: {auction: vcg,\n auction: gsp}", "line 2: auction is there twice"),
    ],
)
def test_a_key_that_is_there_twice_is_an_error_and_does_not_undo_the_first(text: str, said: str) -> None:
    with pytest.raises(RulesError, match=f"^{said}; expected one"):
        parse(text)


def test_an_alias_is_an_error_since_a_few_could_make_a_small_file_a_large_one() -> None:
    with pytest.raises(RulesError, match=r"^line 2: \*heavy is an alias; expected the value itself"):
        parse("block: {ads: &heavy [ad-1],\n categories: *heavy}")


@pytest.mark.parametrize("text", ["block: {\n <<: {ads: [gun-1]}, ads: [gun-2]}", "\n<<: {auction: vcg}"])
def test_a_merge_is_an_error_since_what_it_blocks_could_be_shown(text: str) -> None:
    with pytest.raises(RulesError, match=r"^line 2: << is a merge; expected its keys themselves, written out"):
        parse(text)


@pytest.mark.parametrize("number", ["01000", "010", "-010", "+0_7", "1:30", "1:20:30", "0:30.5", "-1:20:30."])
def test_a_number_that_is_read_as_another_than_it_looks_like_is_an_error_that_says_what_to_write(number: str) -> None:
    for text in (f"auction: vcg\nreserve_micros: {number}", f"block:\n  ads: [ad-1, {number}]"):
        with pytest.raises(RulesError, match=rf"^line 2: {re.escape(number)} would be read as another number; "):
            parse(text)


def test_of_a_long_number_that_is_not_read_as_it_looks_the_begin_is_told() -> None:
    with pytest.raises(RulesError, match=r"^line 1: (1:){40} would be read as another number; "):
        parse(f"pinned: {{ad-1: {'1:' * 500}1.0}}")


def test_numbers_in_tens_and_names_in_quotes_are_read_as_they_are_written() -> None:
    told = parse("reserve_micros: 1_000\nviewed_s: 0.5\npinned: {'010': 0, '1:30': 1}\nblock: {categories: ['<<']}")
    assert (told.reserve_micros, told.viewed_s, told.pinned) == (1_000, 0.5, {"010": 0, "1:30": 1})
    assert told.block.categories == ["<<"]


NEARLY = {
    "date": ("2024-13-45", " (month must be in 1..12)"),
    "zone": ("2001-01-01 00:00:00 +99:99", " (offset must be "),
    "hexadecimal": ("0x_", " (invalid literal for int"),
    "long": ("1" * 5_000, " (Exceeds the limit "),
    "said boolean": ("!!bool x", "; put names in quotes"),
    "said number": ('!!int ""', "; put names in quotes"),
    "said time": ("!!timestamp x", "; put names in quotes"),
}


@pytest.mark.parametrize("kind", NEARLY)
def test_a_value_that_is_none_of_the_type_it_seems_to_be_is_an_error_that_says_what_helps(kind: str) -> None:
    value, why = NEARLY[kind]
    with pytest.raises(RulesError) as told:
        parse(f"pinned: {{ad-1: {value}}}")
    assert f"not YAML: a value is none of the type that it seems to be{why}" in str(told.value)
    assert str(told.value).endswith("; put names in quotes")


@pytest.mark.parametrize("text", ["[" * 3_000, "{a: " * 3_000, "- " * 3_000])
def test_rules_that_are_nested_too_deep_are_an_error(text: str) -> None:
    with pytest.raises(RulesError, match="nested too deep"):
        parse(text)


def test_a_number_too_long_to_be_written_is_told_by_its_rule() -> None:
    with pytest.raises(RulesError, match=r"^reserve_micros: .*, got a number of thousands of digits$"):
        parse("reserve_micros: 0x" + 5_000 * "f")


def test_the_command_tells_whether_a_file_can_be_followed(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(EXAMPLE)
    good = CliRunner().invoke(app, ["rules", "check", str(file), "--json"])
    file.write_text("auction: third\nsurprise: 1")
    bad = CliRunner().invoke(app, ["rules", "check", str(file), "--json"])

    assert (good.exit_code, json.loads(good.stdout)["valid"]) == (0, True)
    assert (bad.exit_code, len(json.loads(bad.stdout)["errors"])) == (1, 2)
    missing = CliRunner().invoke(app, ["rules", "check", "no-such.yaml"])
    assert missing.exit_code == 1
    assert "no-such.yaml cannot be read: No such file or directory. One to begin with: salience" in missing.stderr
    file.write_bytes(b"auction: second # \xe9t\xe9")
    latin = CliRunner().invoke(app, ["rules", "check", str(file)])
    assert latin.exit_code == 1
    assert f"{file} is not UTF-8 (byte 18: invalid continuation byte); save it as UTF-8" in latin.stderr


def test_a_cap_longer_than_a_visit_is_warned_of_with_what_it_does_and_where_that_shows(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("caps: [{scope: ad, most: 1, minutes: 30}, {scope: campaign, most: 3, minutes: 1440}]")
    told = CliRunner().invoke(app, ["rules", "check", str(file), "--json"])
    assert told.exit_code == 0
    (warning,) = json.loads(told.stdout)["warnings"]
    assert warning.startswith("caps.1: whoever is shown or looks at 50 items within 1440 minutes")
    assert "is shown no ad at all until the oldest of them is 1440 minutes old" in warning
    assert 'salience_losing_candidates_total{reason="capped"}' in warning
    words = CliRunner().invoke(app, ["rules", "check", str(file)])
    assert (words.exit_code, words.stderr) == (0, f"Warning: {warning}\n")

    file.write_text(EXAMPLE)
    assert CliRunner().invoke(app, ["rules", "check", str(file)]).stderr == ""


def test_a_worker_that_cannot_follow_its_rules_says_all_that_is_wrong_and_ends(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("auction: third\nsurprise: 1")

    with pytest.raises(RulesError, match=r"(?s)rules.yaml.*auction.*surprise"):
        rules.read(file)
