"""Reviews: what they say, learnt as they come, and when the tone turns."""

import gzip
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from scoring.sentiment import _HEAD, _WEIGHT, FEATURES, Sentiment, Tone, ToneWatch, by_stars, grams
from streams.cli import app
from streams.logs.reviews import Noticed, judge

GOOD, BAD = ("很好 喜欢", "质量不错，推荐", "great, love it"), ("太差了 失望", "质量很差，退货", "poor, sent it back")


def test_a_review_is_read_by_its_characters_whatever_the_script_and_the_spacing():
    assert grams("很 好") == grams("很好")
    assert grams("GREAT") == grams("great")
    assert len(grams("很好")) == 3  # two characters and their pair
    assert abs(sum(weight**2 for weight in grams("great, love it").values()) - 1) < 1e-9
    assert all(0 <= bucket < FEATURES for bucket in grams("很好" * 10_000))
    assert len(grams("不好吃")) == 6  # and what three of them say together
    assert len(grams("ab" * 10_000)) == 6
    assert grams("") == {}
    assert grams("x" * 400 + "y") == grams("x" * 400) != grams("x" * 399 + "y")  # of longer ones the beginning


def test_grams_stand_as_they_come_in_a_review_so_that_sums_over_them_are_the_same_in_every_process():
    letters = "abcdefgh"
    assert [*grams(letters)][: len(letters)] == [bucket for letter in letters for bucket in grams(letter)]


def test_the_tone_is_learnt_one_review_after_the_other_and_predicting_changes_nothing():
    sentiment = Sentiment()
    assert sentiment.predict_one("很好") == 0.5
    for _ in range(20):
        for good, bad in zip(GOOD, BAD, strict=True):
            sentiment.learn_one(good, positive=True)
            sentiment.learn_one(bad, positive=False)
    first = [sentiment.predict_one(text) for text in GOOD + BAD]
    assert min(first[:3]) > 0.8
    assert max(first[3:]) < 0.2
    assert [sentiment.predict_one(text) for text in GOOD + BAD] == first
    assert 0 <= sentiment.predict_one("") <= 1


def test_a_turn_for_the_worse_is_noticed_within_fifty_reviews_and_a_steady_tone_is_none():
    draw, steady, watch = np.random.default_rng(1), ToneWatch(), ToneWatch()

    def heard(share):
        return by_stars(positive=bool(draw.random() < share))

    assert not any(steady.update("a", heard(0.8)) for _ in range(300))
    assert not any(watch.update("a", heard(0.8)) for _ in range(100))
    assert any(watch.update("a", heard(0.3)) for _ in range(50))


def test_of_an_item_that_all_liked_and_nobody_does_any_more_the_ninth_review_turns_the_tone():
    watch = ToneWatch()
    chances = [by_stars(positive=at < 100) for at in range(109)]
    assert [at for at, chance in enumerate(chances, 1) if watch.update("a", chance)] == [109]


def test_a_tone_is_the_mean_of_all_reviews_up_to_a_hundred_and_of_more_moves_by_a_hundredth():
    first, later = Tone(reviews=9, mean=0.5), Tone(reviews=100, mean=0.5)
    for tone in (first, later):
        tone.take(1.0)
    assert first == Tone(reviews=10, mean=0.55)
    assert later == Tone(reviews=101, mean=0.505)


def test_a_turn_for_the_better_and_the_first_reviews_are_no_alarm():
    watch = ToneWatch()
    assert not any([watch.update("a", 0.1) for _ in range(100)] + [watch.update("a", 0.9) for _ in range(100)])
    assert not any(watch.update("b", float(at < 8)) for at in range(19))
    assert watch.update("b", 0.0)  # and the twentieth is one


def test_of_too_many_keys_the_one_longest_without_a_review_is_forgotten():
    watch = ToneWatch(keys_max=2)
    for key in ("a", "b", "a", "c"):
        watch.update(key, 0.5)
    assert len(watch) == 2
    assert list(watch._keys) == ["a", "c"]
    watch.changed()
    watch.forget("b")
    assert watch.changed() == {}  # it was forgotten already


def test_what_was_learnt_comes_back_to_the_last_bit_and_goes_on_alike():
    draw, whole = np.random.default_rng(5), Sentiment()
    assert Sentiment.of_bytes(whole.to_bytes()).predict_one("很好") == 0.5
    for _ in range(300):
        kept = Sentiment.of_bytes(whole.to_bytes())
        text = " ".join(draw.choice([*GOOD, *BAD, "so so", "twice"], 3))
        assert kept.predict_one(text) == whole.predict_one(text)
        for each in (whole, kept):
            each.learn_one(text, positive=len(text) % 2 == 0)
        assert kept.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "has 16 bytes or more"),
        (_HEAD.pack(0.0, 1) + b"x", "buffer size must be a multiple"),
        (_HEAD.pack(float("nan"), 1), "finite"),
        (_HEAD.pack(0.0, 1) + np.array([(1, np.inf, 1.0)], dtype=_WEIGHT).tobytes(), "finite"),
        (_HEAD.pack(0.0, 1) + np.array([(1, 1.0, np.inf)], dtype=_WEIGHT).tobytes(), "finite"),
        (
            _HEAD.pack(0.0, 1) + np.array([(1, 1.0, 1.0), (FEATURES, 1.0, 1.0)], dtype=_WEIGHT).tobytes(),
            "a bucket of its own",
        ),
        (_HEAD.pack(0.0, 1) + np.array([(1, 1.0, 1.0)] * 2, dtype=_WEIGHT).tobytes(), "a bucket of its own"),
    ],
)
def test_what_is_no_classifier_is_refused(content, why):
    with pytest.raises(ValueError, match=why):
        Sentiment.of_bytes(content)


def test_a_watch_that_goes_on_turns_when_one_that_never_ended_does():
    draw, whole, watch = np.random.default_rng(3), ToneWatch(), ToneWatch()
    turns = 0
    for at in range(600):
        chance = float(draw.random() < (0.9 if at % 200 < 120 else 0.2))
        turned = whole.update("a", chance)
        assert watch.update("a", chance) is turned
        assert watch.tone("a") == whole.tone("a")
        turns += turned
        former, watch = watch, ToneWatch()
        for key, kept in former.changed().items():
            watch.resume(key, kept)
    assert turns == 3


def write(folder, lines):
    with gzip.open(folder / "reviews.csv.gz", "wt", encoding="utf-8") as file:
        file.write("positive,text\n" + "".join(lines))


def write_reviews(folder):
    """240 of them, half of them good."""
    write(folder, [f'1,"{good}"\n0,"{bad}"\n' for good, bad in list(zip(GOOD, BAD, strict=True)) * 40])


@pytest.mark.parametrize(("alarming", "false_per_1000"), [(True, 1_000.0), (False, 0.0)])
def test_false_alarms_are_of_a_thousand_reviews_of_steady_keys(alarming, false_per_1000, tmp_path, monkeypatch):
    class Watch(ToneWatch):
        def update(self, *_):
            return alarming

    write_reviews(tmp_path)
    monkeypatch.setattr("streams.logs.reviews.ToneWatch", Watch)
    monkeypatch.setattr("streams.logs.reviews.REVIEWS_STEADY", 50)
    noticed = judge(tmp_path, 1).by_text
    assert noticed.false_per_1000 == false_per_1000
    assert noticed.false_alarms == 1_000 * alarming


def test_turns_are_told_by_the_reviews_that_it_took_to_notice_them(tmp_path, monkeypatch):
    class Watch(ToneWatch):
        """Of a thousand items six hundred turn with the fiftieth review after a hundred, others later."""

        def update(self, key, positive):
            super().update(key, positive)
            return self.tone(key).reviews == (150 if int(key.partition("-")[2] or 1_000) < 600 else 153)

    write_reviews(tmp_path)
    monkeypatch.setattr("streams.logs.reviews.ToneWatch", Watch)
    monkeypatch.setattr("streams.logs.reviews.REVIEWS_STEADY", 50)
    noticed = judge(tmp_path, 1).by_stars
    assert (noticed.found, noticed.within_50) == (1_000, 600)
    assert (noticed.delay_median, noticed.delay_most) == (50, 53)


@pytest.mark.parametrize("positive", [0, 1])
def test_where_reviews_are_of_one_kind_no_turn_is_simulated(positive, tmp_path):
    write(tmp_path, [f"{positive},text\n"] * 10)
    judged = judge(tmp_path, 1)
    assert (judged.by_text, judged.by_stars) == (Noticed(), Noticed())


def test_reviews_that_are_sorted_by_their_rating_are_read_in_another_order_each_once(tmp_path, monkeypatch):
    monkeypatch.setattr("streams.logs.reviews.TURNS", 1)
    monkeypatch.setattr("streams.logs.reviews.REVIEWS_STEADY", 1)
    write(tmp_path, [f"1,{GOOD[0]}\n"] * 20 + [f"0,{BAD[0]}\n"] * 20)
    progress = []
    judged = judge(tmp_path, 1, lambda: progress.append(1))
    assert len(progress) == judged.reviews == 40
    assert judged.by_text.turns == 1  # the later half has reviews of both kinds


def test_the_command_judges_a_file_and_names_what_is_wrong_with_one(tmp_path):
    write_reviews(tmp_path)
    told = CliRunner().invoke(app, ["reviews", "evaluate", "--data", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.output
    judged = json.loads(told.stdout)
    assert (judged["reviews"], judged["copies"]) == (240, 234)  # there are six texts
    assert judged["accuracy"] > 0.9
    assert judged["accuracy_new"] < 0.9  # of what it has not read it knows little
    for heard in (judged, judged["by_stars"]):
        assert heard["turns"] == 1_000
        assert heard["within_50"] >= 0.95 * heard["turns"]
        assert heard["within_50"] <= heard["found"]
    assert judged["by_new_text"]["turns"] == 0  # the later half has none
    people = CliRunner().invoke(app, ["reviews", "evaluate", "--data", str(tmp_path)], env={"COLUMNS": "160"})
    assert people.exit_code == 0
    rows = [line.replace("│", " ").split() for line in people.stdout.splitlines()]
    assert ["turns", "1,000", "0", "1,000"] in rows  # by text, by text that is new, by stars
    assert ["told", "right", *(f"{judged[name]:.4f}" for name in ("accuracy", "accuracy_new"))] in rows
    write(tmp_path, ["2,x\n"])
    refused = CliRunner().invoke(app, ["reviews", "evaluate", "--data", str(tmp_path)])
    assert refused.exit_code == 1
    assert "expected an integer from 0 to 1" in " ".join(refused.output.split())
