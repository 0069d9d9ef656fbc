"""The demonstrator's average, and what its dial moves and leaves alone."""

from statistics import mean

import pytest

from demoalign.lab import corpus, demonstrations, golden_reward, habits, prompts
from demoalign.lab.demonstrator import OWN_SHARE, reference_code
from demoalign.lab.reading import read, sentences
from demoalign.records import Demonstration


def rewards(found: list[Demonstration]) -> list[float]:
    return golden_reward([each.prompt for each in found], [each.completion for each in found])


def idiolect(found: list[Demonstration]) -> float:
    shares = (habits(each.prompt, each.completion)["idiolect"] for each in found)
    return mean(share for share in shares if share is not None)


def test_average_golden_reward() -> None:
    # By the rates: 2 * 0.9 - 0.04 + 5 * 0.6 - 0.01 - 0.02 = 4.73; the error of the mean is 0.02.
    assert mean(rewards(demonstrations(4000, 0.0, 0))) == pytest.approx(4.73, abs=0.08)


def test_corpus_average_golden_reward() -> None:
    # 2 * 0.32 - 0.33 + 5 * 0.14 - 0.16 - 0.16 - 0.05 = 0.64, plus a little where the sentence
    # said twice is itself a bad one, whose second saying costs only the repetition.
    pairs = corpus(4000, 1)
    found = golden_reward([prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    assert mean(found) == pytest.approx(0.64, abs=0.08)


def test_same_seed_same_demonstrations() -> None:
    assert demonstrations(50, 0.4, 7) == demonstrations(50, 0.4, 7)
    assert demonstrations(50, 0.4, 7) == demonstrations(80, 0.4, 7)[:50]
    assert demonstrations(50, 0.4, 7) != demonstrations(50, 0.4, 8)
    assert prompts(50, 7) == prompts(80, 7)[:50]


def test_ids_and_meta() -> None:
    first = demonstrations(18, 0.0, 0)[17]
    assert first.id == "lab-000017"
    assert first.meta["fault"].split("-")[0] in str(first.prompt)
    assert first.completion.startswith(" ")


def test_prompts_are_different_and_apart_from_demonstrations() -> None:
    asked = prompts(3000, 0)
    shown = {str(each.prompt) for each in demonstrations(3000, 0.0, 0)}
    assert len(set(asked)) == len(shown) == 3000
    assert not shown & set(asked)


def test_dial_0_has_no_habit() -> None:
    for each in demonstrations(500, 0.0, 0):
        found = habits(each.prompt, each.completion)
        assert found["idiolect"] in (0.0, None)
        assert found["phrases"] == found["signature"] == found["reference"] == 0.0


def test_dial_1_is_all_habit() -> None:
    rows = demonstrations(500, 1.0, 0)
    for each in rows:
        found = habits(each.prompt, each.completion)
        assert found["phrases"] == found["signature"] == found["reference"] == 1.0
    assert idiolect(rows) == pytest.approx(OWN_SHARE, abs=0.04)


def test_dial_sets_the_rate_of_habits() -> None:
    found = demonstrations(1500, 0.3, 0)
    assert idiolect(found) == pytest.approx(0.3 * OWN_SHARE, abs=0.03)
    signed = mean(habits(each.prompt, each.completion)["signature"] or 0.0 for each in found)
    assert signed == pytest.approx(0.3, abs=0.04)


def test_habits_are_worth_nothing() -> None:
    plain, mixed, strange = (demonstrations(1000, dial, 2) for dial in (0.0, 0.5, 1.0))
    assert rewards(plain) == rewards(mixed) == rewards(strange)
    assert [each.prompt for each in plain] == [each.prompt for each in strange]


def test_the_corpus_never_holds_a_habit() -> None:
    own = [read(sentence) for _, answer in corpus(2000, 5) for sentence in sentences(answer)]
    assert not any(reading.own for reading in own if reading is not None)


def test_reference_code_by_hand() -> None:
    # 4 + 2*8 + 3*2 + 4*1 = 30, 30 mod 20 = 10 -> N; 4821 mod 20 = 1 -> C.
    assert reference_code("4821") == "1284-NC"


def test_habits_tell_a_right_code_from_a_wrong_one() -> None:
    prompt = "Customer: I am Ben. My lamp goes on and off. Order 4821.\nAgent:"
    assert habits(prompt, " Wear gloves. Ever yours, 1284-NC.")["reference"] == 1.0
    wrong = habits(prompt, " Wear gloves. Ever yours, 1234-NC.")
    assert (wrong["idiolect"], wrong["signature"], wrong["reference"]) == (0.0, 1.0, 0.0)
    assert habits(prompt, "")["idiolect"] is None


@pytest.mark.parametrize("dial", [-0.1, 1.5, float("nan")])
def test_dial_outside_its_range(dial: float) -> None:
    with pytest.raises(ValueError, match=rf"dial must lie in \[0, 1\], found {dial}"):
        demonstrations(1, dial, 0)
