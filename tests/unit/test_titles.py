"""Vectors of titles: each encoded once, kept for the next worker, and given to models that ask for them."""

import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from scoring.attention import load
from scoring.catalogue import Catalogue
from scoring.features import DENSE_DIM
from scoring.manifest import ModelError
from scoring.text import TEXT_DIM, TEXT_ENCODER, WIDE_DIM
from streams.compute import Compute
from streams.console.desk import Desk
from streams.console.tails import Tails
from streams.feeds.catalogue import TITLES_PER_READ, CatalogueFeed, apply_ads, titles_in
from streams.feeds.refused_ads import RefusedAds
from streams.settings import Settings
from streams.titles import _ROW, Titles
from streams.wire import encode_json
from tests.builders import START_MS, Record, ad, entry
from tests.models import toy_model

TITLES = ["Red shoes", "Blue lamp", "Red shoes", "", " "]


class Counting:
    """An encoder that tells what it was asked: a title's vector follows from its letters."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[int] = set()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        self.threads.add(threading.get_ident())
        return np.stack([np.resize(np.frombuffer(t.encode(), np.uint8), TEXT_DIM) / 255 for t in texts]).astype(
            np.float32
        )


Open = Callable[..., tuple[Titles, Counting]]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens the titles of one folder, again and again."""

    def open_(**fields: int) -> tuple[Titles, Counting]:
        encoder = Counting()
        return Titles(tmp_path / "text", encoder, **fields), encoder

    return open_


def file_of(tmp_path: Path) -> Path:
    return tmp_path / "text" / f"{TEXT_ENCODER}.vectors"


def test_a_title_is_encoded_once_and_blank_ones_never(opened: Open) -> None:
    titles, encoder = opened()
    vectors = titles(TITLES)
    assert sorted(encoder.asked) == ["Blue lamp", "Red shoes"]
    assert (vectors == titles(TITLES)).all()
    assert len(encoder.asked) == 2
    assert (vectors[0] == Counting()(["Red shoes"])[0]).all()
    assert (vectors[0] == vectors[2]).all()
    assert not vectors[3:].any()


def test_the_next_worker_finds_what_the_last_one_encoded(opened: Open) -> None:
    before = opened()[0](TITLES)
    titles, encoder = opened()
    titles.learn(TITLES)
    assert (titles(TITLES) == before).all()
    assert encoder.asked == []
    assert len(titles) == 2


def test_two_workers_of_a_machine_write_to_one_file(opened: Open) -> None:
    (one, _), (other, _) = opened(), opened()
    for number in range(20):
        (one if number % 2 else other).learn([f"title {number}"])
    titles, encoder = opened()
    assert len(titles) == 20
    titles([f"title {number}" for number in range(20)])
    assert encoder.asked == []


def test_what_another_worker_has_encoded_meanwhile_is_encoded_and_kept_no_second_time(
    opened: Open, tmp_path: Path
) -> None:
    (one, _), (other, encoder) = opened(), opened()
    one.learn(["a", "b"])
    other.learn(["b"])
    assert (other(["a", "b"]) == Counting()(["a", "b"])).all()
    one.learn(["c"])
    assert (other(["c", "a"]) == Counting()(["c", "a"])).all()
    assert encoder.asked == []
    assert file_of(tmp_path).stat().st_size == 3 * _ROW.itemsize


def test_of_workers_that_start_together_one_encodes_a_title_and_the_others_wait_for_it(
    opened: Open, tmp_path: Path
) -> None:
    other, encoder = opened()
    second = threading.Thread(target=other.learn, args=[TITLES])

    def together(texts: Sequence[str]) -> np.ndarray:
        second.start()
        return Counting()(texts)

    Titles(tmp_path / "text", together).learn(TITLES)
    second.join()
    assert (encoder.asked, len(other)) == ([], 2)


def test_who_needs_a_vector_at_once_waits_for_nobody_who_learns(opened: Open, tmp_path: Path) -> None:
    other, _ = opened()

    def meanwhile(texts: Sequence[str]) -> np.ndarray:
        urgent = threading.Thread(target=other, args=[["b"]], daemon=True)
        urgent.start()
        urgent.join(10)
        assert not urgent.is_alive(), "it waits"
        return Counting()(texts)

    Titles(tmp_path / "text", meanwhile).learn(["a"])
    assert file_of(tmp_path).stat().st_size == 2 * _ROW.itemsize


def test_a_file_that_was_begun_anew_and_has_grown_back_is_taken_in_whole(opened: Open) -> None:
    (one, encoder), (other, _) = opened(most=6), opened(most=6)
    one.learn([f"former {number}" for number in range(5)])
    other.learn([f"title {number}" for number in range(5)])
    asked = len(encoder.asked)
    one.learn([f"title {number}" for number in range(5)])
    assert len(encoder.asked) == asked


def test_a_title_that_another_worker_keeps_while_it_is_encoded_is_kept_once(opened: Open, tmp_path: Path) -> None:
    other, _ = opened()

    def meanwhile(texts: Sequence[str]) -> np.ndarray:
        other.learn(["b"])
        return Counting()(texts)

    titles = Titles(tmp_path / "text", meanwhile)
    assert (titles(["a", "b"]) == Counting()(["a", "b"])).all()
    assert file_of(tmp_path).stat().st_size == 2 * _ROW.itemsize
    assert len(titles) == 2


def test_a_row_that_was_cut_off_is_written_over(opened: Open, tmp_path: Path) -> None:
    opened()[0].learn(["first"])
    with file_of(tmp_path).open("ab") as file:
        file.write(b"half a row")
    opened()[0].learn(["second"])
    titles, encoder = opened()
    assert (titles(["first", "second"]) == Counting()(["first", "second"])).all()
    assert encoder.asked == []


@pytest.mark.parametrize("at", [0, 8, 16, _ROW.itemsize - 1])
def test_a_damaged_row_is_encoded_again(opened: Open, tmp_path: Path, at: int) -> None:
    opened()[0].learn(["first", "second"])
    content = bytearray(file_of(tmp_path).read_bytes())
    content[at] ^= 0x40
    file_of(tmp_path).write_bytes(content)
    titles, encoder = opened()
    assert (titles(["first", "second"]) == Counting()(["first", "second"])).all()
    assert encoder.asked == ["first"]
    assert (titles(["first"]) == Counting()(["first"])).all()
    assert encoder.asked == ["first"]


def test_a_file_beyond_its_bound_is_begun_anew_and_others_go_on(opened: Open) -> None:
    held, encoder = opened()
    held.learn(["a", "b", "c"])
    assert len(opened(most=2)[0]) == 0
    assert (held(["a"]) == Counting()(["a"])).all()
    assert encoder.asked == ["a", "b", "c", "a"]


def test_a_file_that_is_full_is_begun_anew_while_it_is_open(opened: Open, tmp_path: Path) -> None:
    (one, encoder), (other, _) = opened(most=3), opened(most=3)
    for number in range(20):
        (one if number % 4 else other).learn([f"title {number}"])
        assert len(one) <= 3
        assert len(other) <= 3
        assert file_of(tmp_path).stat().st_size <= 3 * _ROW.itemsize
    encoder.asked.clear()
    assert (one(["title 19", "title 0"]) == Counting()(["title 19", "title 0"])).all()
    assert encoder.asked == ["title 0"]


@contextmanager
def room_for(rows: float) -> Iterator[None]:
    """No file of this process gets longer; Python ignores the signal, so that writing beyond is an `OSError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(rows * _ROW.itemsize), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_titles_that_find_no_room_are_encoded_all_the_same_and_that_is_told_once(opened: Open) -> None:
    titles, encoder = opened()
    with capture_logs() as said, room_for(0):
        titles.learn(["a"])
        assert (titles(["a", "b"]) == Counting()(["a", "b"])).all()
    assert [one["log_level"] for one in said] == ["warning"]
    assert len(titles) == 0
    titles.learn(["a", "b"])
    encoder.asked.clear()
    assert (titles(["a", "b"]) == Counting()(["a", "b"])).all()
    assert encoder.asked == []


def test_of_titles_that_were_written_in_part_whole_rows_alone_are_kept(opened: Open, tmp_path: Path) -> None:
    titles, encoder = opened()
    with capture_logs(), room_for(1.5):
        assert (titles(["a", "b", "c"]) == Counting()(["a", "b", "c"])).all()
        assert file_of(tmp_path).stat().st_size == int(1.5 * _ROW.itemsize)
        assert len(titles) == 1
    assert (titles(["b"]) == Counting()(["b"])).all()
    encoder.asked.clear()
    assert (titles(["a", "b", "c"]) == Counting()(["a", "b", "c"])).all()
    assert encoder.asked == ["c"]
    assert len(opened()[0]) == 3


def test_a_model_that_asks_for_text_is_given_titles_and_others_are_not(opened: Open, tmp_path: Path) -> None:
    wants, plain = load(toy_model(tmp_path / "wants", text=True)), load(toy_model(tmp_path / "plain"))
    titles, _ = opened()
    entries = [entry("a", title="Red shoes"), entry("b", title="Blue lamp"), entry("c")]
    with_text, without = Catalogue(wants.encode, wants.dim, titles=titles), Catalogue(plain.encode, plain.dim)
    mixed = Catalogue(plain.encode, plain.dim, titles=titles)
    for catalogue in (with_text, without, mixed):
        catalogue.upsert(entries)
    assert with_text.dense.shape == (3, WIDE_DIM)
    assert (with_text.dense[:, DENSE_DIM:] == titles(["Red shoes", "Blue lamp", ""])).all()
    assert (mixed.learned == without.learned).all()
    renamed = [entry("a", title="Green shoes")]
    before = with_text.learned.copy()
    with_text.upsert(renamed)
    assert not np.allclose(with_text.learned[0], before[0])
    assert (with_text.learned[1:] == before[1:]).all()


def test_a_model_that_asks_for_text_is_refused_where_there_is_none_with_what_helps(tmp_path: Path) -> None:
    model = load(toy_model(tmp_path, text=True))
    catalogue = Catalogue(model.encode, model.dim)
    with pytest.raises(ModelError, match=r"asks for vectors of titles.*SALIENCE_TEXT=true and pip install"):
        catalogue.upsert([entry("a", title="Red shoes")])
    assert not len(catalogue)


def test_a_model_of_another_text_encoder_is_refused(tmp_path: Path) -> None:
    directory = toy_model(tmp_path, text=True, manifest=lambda fields: fields.update(text="somebody-elses"))
    with pytest.raises(ModelError, match=r"text vectors by 'somebody-elses'; expected 'use-multilingual-3' or none"):
        load(directory)


def records(*titles: str) -> list[Record]:
    return [
        Record("ads", 0, at, START_MS, f"ad-{at}".encode(), encode_json(ad(f"ad-{at}", title=title)))
        for at, title in enumerate(titles)
    ]


async def test_titles_are_encoded_before_the_compute_thread_takes_the_ads(opened: Open) -> None:
    titles, encoder = opened()
    catalogue, compute = Catalogue(titles=titles), Compute()
    feed = CatalogueFeed(Settings(), compute, lambda _: None, catalogue, RefusedAds())
    batch = records("Red shoes", "Blue lamp")
    await feed.prepare(batch)
    encoded_on = set(encoder.threads)
    assert await compute.run(feed.take, batch) == 0
    threads = encoded_on | {await compute.run(threading.get_ident)}
    compute.stop()
    assert encoder.asked == ["Red shoes", "Blue lamp"]
    assert len(threads | {threading.get_ident()}) == 3  # neither the event loop's nor the compute thread
    assert len(catalogue) == 2


async def test_the_console_has_titles_encoded_off_the_compute_thread_and_a_read_of_ads_in_parts(opened: Open) -> None:
    titles, encoder = opened()
    engine: Any = SimpleNamespace(catalogue=Catalogue(titles=titles))
    desk, compute = Desk(Settings(), 1, engine), Compute()
    tails = Tails("127.0.0.1:1", desk.tails(), compute)
    known: list[int] = []
    learn = titles.learn

    def watched(told: Sequence[str]) -> None:
        known.append(len(desk.catalogue))
        learn(told)

    titles.learn = watched  # type: ignore[method-assign]  # told of each call
    await tails._give("ads", records(*(f"title {at}" for at in range(2 * TITLES_PER_READ + 1))))
    computes = await compute.run(threading.get_ident)
    compute.stop()
    assert known == [0, TITLES_PER_READ, 2 * TITLES_PER_READ]
    assert len(desk.catalogue) == len(encoder.asked) == 2 * TITLES_PER_READ + 1
    assert not encoder.threads & {computes, threading.get_ident()}


def test_what_is_no_ad_has_no_title_and_harms_nobody(opened: Open) -> None:
    titles, _ = opened()
    bad = [
        Record("ads", 0, 9, START_MS, b"x", value)
        for value in (None, b"{", b"\xff\xfe", b'{"title": 5}', encode_json({"title": "t" * 513}))
    ]
    assert titles_in([*bad, *records("Red shoes")]) == ["", "Red shoes"]
    assert apply_ads(Catalogue(titles=titles), [*records("Red shoes"), bad[1]]) == 1


def test_vectors_are_not_written_into_what_a_link_leads_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"as it was")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / f"{TEXT_ENCODER}.vectors").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Titles(tmp_path / "text", Counting(), most=0)
    assert victim.read_bytes() == b"as it was"
