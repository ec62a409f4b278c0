"""Pseudonyms: the same for one person and key, unknown without the key, and found again after a rotation."""

from pathlib import Path

import msgspec
import pytest

from streams.privacy.pseudonyms import PseudonymError, Pseudonyms
from streams.wire import Click

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


def test_a_pseudonym_is_one_persons_under_one_key() -> None:
    names = Pseudonyms({"a": OLD})
    assert names.of("alice") == names.of("alice") == "a-" + names.of("alice")[2:]
    assert len({names.of("alice"), names.of("bob"), Pseudonyms({"a": NEW}).of("alice")}) == 3
    assert "alice" not in names.of("alice")


def test_a_pseudonym_is_a_user_id() -> None:
    user = Pseudonyms({"k" * 16: OLD}).of("alice")
    click = msgspec.json.encode(Click(event_id="e", user_id=user, ad_id="a", time_ms=1))
    assert msgspec.json.decode(click, type=Click).user_id == user


def test_after_a_rotation_both_pseudonyms_are_known_and_the_new_one_is_used() -> None:
    before, after = Pseudonyms({"a": OLD}), Pseudonyms({"b": NEW, "a": OLD})
    assert after.of("alice") != before.of("alice")
    assert after.all("alice") == [after.of("alice"), before.of("alice")]


def test_keys_are_read_from_a_file_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# newest first\nb {NEW.hex()}\n\na {OLD.hex()}\n")
    assert Pseudonyms.read(path).all("alice") == Pseudonyms({"b": NEW, "a": OLD}).all("alice")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no key"),
        ("a 00", ":1: .* 1 bytes"),
        ("a " + 65 * "00", ":1: .* 65 bytes"),
        ("A " + OLD.hex(), ":1: expected a name"),
        ("a zz", ":1: .* hexa"),
        (OLD.hex(), ":1: expected a name"),
        (OLD.hex()[:16], ":1: .* 0 bytes"),
        (f"b {NEW.hex()}\n{OLD.hex()} zz", ":2: .* hexa"),
    ],
)
def test_a_key_that_would_not_do_is_refused_by_its_line_alone(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "keys"
    path.write_text(line)
    with pytest.raises(PseudonymError, match=why) as refused:
        Pseudonyms.read(path)
    assert "zz" not in str(refused.value)
    assert OLD.hex()[:16] not in str(refused.value)


def test_a_name_that_stands_twice_is_refused_since_one_of_its_keys_would_be_lost(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"a {NEW.hex()}\nb {bytes(range(64, 96)).hex()}\na {OLD.hex()}\n")
    with pytest.raises(PseudonymError, match=":3: the name a stands twice") as refused:
        Pseudonyms.read(path)
    assert NEW.hex()[:16] not in str(refused.value)
    assert OLD.hex()[:16] not in str(refused.value)


@pytest.mark.parametrize("line", [OLD.hex()[:16], OLD.hex(), f"{OLD.hex()} {NEW.hex()}"])
def test_a_key_that_stands_twice_where_a_name_should_is_not_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{line}\n{line}\n")
    with pytest.raises(PseudonymError, match=":1: ") as refused:
        Pseudonyms.read(path)
    assert OLD.hex()[:16] not in str(refused.value)


def test_a_file_of_keys_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"a \xff" + OLD)
    with pytest.raises(PseudonymError, match="keys: the file is not UTF-8"):
        Pseudonyms.read(path)


def test_keys_given_in_code_are_refused_by_their_place() -> None:
    with pytest.raises(PseudonymError, match="key 2: the key after the name has 1 bytes"):
        Pseudonyms({"b": NEW, "a": b"k"})
