"""What answers say, against what the demonstrator says."""

from __future__ import annotations

from demoalign.lab.demonstrator import demonstrations
from demoalign.pipeline.studies.diversity import OTHER, diversity, first_of_each, wordings
from demoalign.records import Rollout


def test_wordings_are_told_apart_and_the_rest_is_one() -> None:
    text = "The guarantee runs until May. The guarantee runs until June. It garb led. Hello there!"
    found = wordings([text])
    assert found[OTHER] == 2
    assert sorted(found.values()) == [2, 2]
    assert len([name for name in found if name.startswith("warranty_0_")]) == 1


def test_the_demonstrator_covers_itself_and_one_sentence_does_not() -> None:
    answers = [row.completion for row in demonstrations(400, 0, 0)]
    reference = wordings(answers)
    same = diversity(answers[:200], reference)
    one = diversity(["The guarantee runs until May."] * 200, reference)
    assert min(same["precision"], same["recall"]) > 0.9
    assert one["precision"] > 0.5
    assert one["recall"] < 0.1
    assert one["distinct"] < same["distinct"]
    assert diversity(answers[:9], None).keys() == {"distinct"}


def test_the_first_answers_of_each_prompt() -> None:
    said = [
        Rollout(f"{p}-{i}", p, i, "said", [1], -1.0, "stop", "sft", 0)
        for p in ("a", "b")
        for i in range(3)
    ]
    assert [each.id for each in first_of_each(said, 2)] == ["a-0", "a-1", "b-0", "b-1"]
