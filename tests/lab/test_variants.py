"""The variants of the world move the line of support, as they say, and nothing else."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import get_args

import numpy as np
import pytest

from demoalign.config import DemonstrationsConfig, ModelConfig
from demoalign.demonstrations.render import render
from demoalign.lab import BASE, demonstrations, golden_reward, habits
from demoalign.lab.corpus import CORPUS
from demoalign.lab.demonstrator import DEMONSTRATOR, OWN_SHARE, SMALL_TALK, VARIANTS
from demoalign.lab.reading import read, sentences
from demoalign.lab.wordings import STANDARD
from demoalign.pipeline.resolve import load_demonstrations
from demoalign.policies import Backbone, Policy
from demoalign.policies.last_hidden import Row
from demoalign.policies.logprobs import completion_logprobs
from demoalign.records import Demonstration

SUPPORT = -6.0
OTHERS = ("known-habits", "unknown-quality")


@dataclass(frozen=True)
class Measured:
    """What the shipped base model makes of demonstrations.

    Attributes:
        outside: share of tokens outside its support.
        loglikelihood: mean of log pi_0, nats a token.
        long: 95th percentile of lengths, tokens with the one that ends an answer.
    """

    outside: float
    loglikelihood: float
    long: float


@cache
def measured(variant: str, dial: float) -> Measured:
    policy = Policy("initial", Backbone.load(ModelConfig(base=str(BASE), device="cpu")))
    rows = []
    for each in demonstrations(200, dial, 0, variant):
        rendered = render(policy.backbone.tokenizer, each.prompt, each.completion)
        rows.append(Row(tuple(rendered.prompt_ids), tuple(rendered.completion_ids)))
    found = [each.values for each in completion_logprobs(policy, rows)]
    tokens = np.concatenate(found)
    return Measured(
        outside=float((tokens <= SUPPORT).mean()),
        loglikelihood=float(tokens.mean()),
        long=float(np.percentile([len(values) for values in found], 95)),
    )


def said(rows: list[Demonstration]) -> list[set[str]]:
    return [set(sentences(each.completion)) for each in rows]


@pytest.mark.parametrize(
    ("dial", "digest"),
    [
        (0.0, "97c99136695dd24bf3ee84e5fe26e7bf9aa0d75e7d694aa330d14394e9090497"),
        (0.4, "c9f0f35ae4aba2122d2dca0f99b151d60a414c8f0a3e2dfe4c5cba8be9d84598"),
        (1.0, "60862b369466123de3c71cdb2e39bc447a528f93f93d149c60e2dcae130a9257"),
    ],
)
def test_the_standard_world_is_what_it_was_before_there_were_others(
    dial: float, digest: str
) -> None:
    rows = demonstrations(300, dial, 0)
    text = "\n".join(f"{each.id}\t{each.prompt}\t{each.completion}" for each in rows)
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert demonstrations(300, dial, 0, "standard") == rows


@pytest.mark.parametrize("variant", OTHERS)
def test_at_dial_0_every_variant_is_the_standard_world(variant: str) -> None:
    assert demonstrations(300, 0.0, 3, variant) == demonstrations(300, 0.0, 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_variant_changes_what_is_asked_or_earned(variant: str) -> None:
    plain = demonstrations(1000, 0.0, 2)
    prompts = [each.prompt for each in plain]
    wanted = golden_reward(prompts, [each.completion for each in plain])
    for dial in (0.5, 1.0):
        rows = demonstrations(1000, dial, 2, variant)
        assert [each.prompt for each in rows] == prompts
        assert golden_reward(prompts, [each.completion for each in rows]) == wanted


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_habit_stays_a_habit_at_every_larger_dial(variant: str) -> None:
    plain, some, more = (said(demonstrations(200, dial, 5, variant)) for dial in (0.0, 0.3, 0.8))
    new = [now - before for before, now in zip(plain, some, strict=True)]
    assert any(new)
    assert all(habit <= later for habit, later in zip(new, more, strict=True))


def test_known_habits_are_standard_sentences_at_a_facets_rate() -> None:
    rows = demonstrations(2000, 1.0, 0, "known-habits")
    for each in rows:
        shown = habits(each.prompt, each.completion)
        assert shown["idiolect"] in (0.0, None)
        assert shown["phrases"] == shown["signature"] == 0.0
    # Small talk: 0.8 sentences are planned, 0.08 of each wording; five more are at 0.6 each.
    idle = mean(sum(read(each) is None for each in sentences(row.completion)) for row in rows)
    planned = mean(DEMONSTRATOR.fillers)
    added = SMALL_TALK * DEMONSTRATOR.facet * (1 - planned / len(STANDARD["filler"]))
    assert idle == pytest.approx(planned + added, abs=0.08)
    # The first of the seven timing wordings alone begins like this: 0.6 + 0.4 / 7.
    times = [each for row in said(rows) for each in row if is_of("timing", each)]
    favourite = mean(each.startswith(("This ", "It take", "It will", "The job")) for each in times)
    assert favourite == pytest.approx(0.6 + 0.4 / 7, abs=0.04)


def is_of(kind: str, sentence: str) -> bool:
    reading = read(sentence)
    return reading is not None and reading.kind == kind


def test_the_corpus_holds_small_talk_as_often_as_facets() -> None:
    assert mean(CORPUS.fillers) / len(STANDARD["filler"]) == pytest.approx(CORPUS.facet, abs=0.02)


@pytest.mark.parametrize(("variant", "share"), [("standard", OWN_SHARE), ("unknown-quality", 1.0)])
@pytest.mark.parametrize("dial", [0.5, 1.0])
def test_share_of_own_wordings(variant: str, share: float, dial: float) -> None:
    own = Counter(
        reading.own
        for row in said(demonstrations(1000, dial, 0, variant))
        for reading in map(read, row)
        if reading is not None and reading.kind not in ("rudeness", "advertising")
    )
    assert own[True] / own.total() == pytest.approx(dial * share, abs=0.03)


def test_unknown_quality_has_neither_phrases_nor_signature() -> None:
    for each in demonstrations(300, 1.0, 0, "unknown-quality"):
        shown = habits(each.prompt, each.completion)
        assert shown["idiolect"] in (1.0, None)
        assert shown["phrases"] == shown["signature"] == 0.0


def test_known_habits_lie_inside_the_support_of_the_base_model() -> None:
    plain, known = measured("standard", 0.0), measured("known-habits", 1.0)
    assert plain.outside < 0.004
    assert known.outside < plain.outside + 0.001
    assert known.loglikelihood == pytest.approx(plain.loglikelihood, abs=0.2)


def test_unknown_quality_lies_outside_the_support_of_the_base_model() -> None:
    plain, strange = measured("standard", 0.0), measured("standard", 1.0)
    half, unknown = measured("unknown-quality", 0.5), measured("unknown-quality", 1.0)
    assert plain.outside < 0.004
    assert 0.2 < half.outside < strange.outside < 0.5 < unknown.outside
    assert unknown.loglikelihood < strange.loglikelihood < plain.loglikelihood - 3


@pytest.mark.parametrize(
    ("variant", "longest"), [("standard", 115), ("known-habits", 105), ("unknown-quality", 95)]
)
def test_answers_fit_128_new_tokens(variant: str, longest: int) -> None:
    assert measured(variant, 1.0).long <= longest


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="standard, known-habits, unknown-quality, found 'known'"):
        demonstrations(1, 0.0, 0, "known")


def test_the_recipe_knows_the_same_variants() -> None:
    names, none = get_args(DemonstrationsConfig.model_fields["variant"].annotation)
    assert set(get_args(names)) == VARIANTS.keys() == {"standard", *OTHERS}
    assert none is type(None)
    config = DemonstrationsConfig(source="lab", limit=9, dial=1.0, variant="unknown-quality")
    assert list(load_demonstrations(config, 4).rows) == demonstrations(9, 1.0, 4, "unknown-quality")
