"""What is given up of a dictionary with a bound, and how often it is asked for its oldest."""

from collections.abc import Iterator

from streams.oldest import give_up_oldest


def kept(events: range, most: int) -> list[int]:
    held: dict[int, None] = {}
    for event in events:
        held[event] = None
        give_up_oldest(held, most)
        assert len(held) <= most
    return [*held]


def test_beyond_its_bound_the_oldest_go_and_all_but_a_hundredth_stay() -> None:
    assert kept(range(3), 3) == [0, 1, 2]
    assert kept(range(10), 3) == [7, 8, 9]
    assert kept(range(201), 200) == [*range(3, 201)]
    assert kept(range(1_000), 200)[0] <= 1_000 - 198


def test_what_is_held_is_not_searched_for_its_oldest_at_every_event() -> None:
    class Searched(dict[int, None]):
        times = 0

        def __iter__(self) -> Iterator[int]:
            self.times += 1
            return super().__iter__()

    held = Searched()
    for event in range(2_000):
        held[event] = None
        give_up_oldest(held, 1_000)
    assert 0 < held.times <= 1_000 / 10
