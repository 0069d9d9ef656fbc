"""Rows that end make room for waiting prompts; what comes out is the same however full it is."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest
import torch

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import render_prompt
from demoalign.policies import Policy
from demoalign.rollouts import PromptSpec, TransformersEngine, transformers_engine
from demoalign.rollouts.sampler import Sampler, Settings
from demoalign.rollouts.sampling import Truncation
from demoalign.rollouts.transformers_engine import make_decoder
from demoalign.rollouts.waiting import Waiting, WaitingPrompts, deal
from tests.conftest import ModelFolder
from tests.models import END, TURN_END, chat, load_backbone
from tests.rollouts.local import SPECS, TEXTS, agree, initial, log_probs, sample, with_adapter

MANY = [PromptSpec(f"many {i}", TEXTS[i % 5] + " Why" * (i % 7)) for i in range(13)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mistral"])
@pytest.mark.parametrize("count", [1, 3])
def test_more_samples_than_places(model_folder: ModelFolder, name: str, count: int) -> None:
    """40 samples of a prompt in 7 places: it is read once and its samples follow one another."""
    policy = initial(model_folder(name, "bos"))
    wanted = sample(policy, SPECS[:count], n=40, batch_size=400)
    assert name != "llama" or len({len(r.token_ids) for r in wanted}) > 5
    agree(policy, SPECS, sample(policy, SPECS[:count], n=40, batch_size=7), wanted)


@pytest.mark.parametrize("batch_size", [7, 64])
def test_a_prompt_is_read_once(model_folder: ModelFolder, batch_size: int) -> None:
    """However often its samples must wait for places; every other pass reads one token a row."""
    policy = initial(model_folder("llama", "bos"))
    prompts: list[int] = []
    hook = policy.backbone.causal.get_input_embeddings().register_forward_hook(
        lambda _module, inputs, _: prompts.append(inputs[0].numel() * (inputs[0].shape[1] > 1))
    )
    sample(policy, SPECS[:1], n=1)  # with the architecture's probe
    prompts.clear()
    sample(policy, SPECS[1:2], n=30, batch_size=batch_size)
    hook.remove()
    assert sum(prompts) == len(render_prompt(policy.backbone.tokenizer, TEXTS[1]))


def test_what_was_read_is_let_go_with_its_last_sample(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "bos"))
    prompts = waiting([5, 2, 9])
    settings = Settings(Truncation(), is_greedy=False, least=0, most=6, seed=0, places=4)
    decoder = make_decoder(policy.backbone.causal)
    sampler, held, ended = Sampler(decoder, WaitingPrompts(prompts), settings), 0, 0
    with decoder.active():
        while not sampler.is_done:
            ended += len(sampler.advance(1))
            held += sum(each.read is not None for each in prompts)
    assert (held > 0, ended) == (True, 16)
    assert [each.read for each in prompts] == [None] * 3


@pytest.mark.parametrize("batch_size", [1, 5, 30])
@pytest.mark.parametrize("n", [1, 4])
def test_more_prompts_than_places(model_folder: ModelFolder, batch_size: int, n: int) -> None:
    policy = initial(model_folder("llama", "bos"))
    wanted = [r for spec in MANY for r in sample(policy, [spec], n=n, batch_size=64)]
    agree(policy, MANY, sample(policy, MANY, n=n, batch_size=batch_size), wanted)


def test_samples_from_some_index_on(model_folder: ModelFolder) -> None:
    """Each prompt with a `first` of its own; none of one that has them all."""
    policy = initial(model_folder("llama", "bos"))
    wanted = sample(policy, n=9)
    firsts = [0, 4, 9, 1, 8]
    specs = [PromptSpec(s.id, s.prompt, first) for s, first in zip(SPECS, firsts, strict=True)]
    for batch_size in (3, 64):
        found = sample(policy, specs, n=9, batch_size=batch_size)
        rest = [r for r in wanted if r.index >= firsts[int(r.prompt_id[1:])]]
        agree(policy, SPECS, found, rest)
    assert sample(policy, [PromptSpec("p0", "Why?", 9)], n=9) == []
    assert sample(policy, []) == []


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("specs", [SPECS[:1], SPECS[:3], MANY], ids=["one", "few", "many"])
def test_workers_change_nothing(
    model_folder: ModelFolder,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    specs: list[PromptSpec],
) -> None:
    policy = initial(model_folder("llama", "bos"))
    wanted = sample(policy, specs, n=5)
    monkeypatch.setattr(transformers_engine, "_workers", lambda _device: workers)
    agree(policy, specs, sample(policy, specs, n=5, batch_size=7), wanted)


def test_one_token(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "bos"))
    whole = sample(policy, n=20, max_new_tokens=9)
    found = sample(policy, n=20, max_new_tokens=1, batch_size=7)
    assert [r.token_ids for r in found] == [r.token_ids[:1] for r in whole]
    end = policy.backbone.tokenizer.eos_token_id
    for rollout in found:
        assert rollout.finish_reason == ("stop" if rollout.token_ids == [end] else "length")
    assert {r.finish_reason for r in found} == {"stop", "length"}


@pytest.mark.parametrize("kind", ["chat", "chat_end_first"])
def test_nothing_ends_before_min_new_tokens(model_folder: ModelFolder, kind: str) -> None:
    """Chat and plain prompts together; also with 0 as the id of the end token."""
    policy = initial(model_folder("llama", kind))
    tokenizer = policy.backbone.tokenizer
    ends = set(tokenizer.convert_tokens_to_ids([END, TURN_END]))
    assert (0 in ends) == (kind == "chat_end_first")
    specs = [PromptSpec(f"{i}", p) for i, p in enumerate([chat("Why?"), "Why?", chat("No")])]
    least = 6
    free = sample(policy, specs, n=30)
    assert sum(len(r.token_ids) <= least for r in free) > 2
    found = sample(policy, specs, n=30, min_new_tokens=least, batch_size=11)
    assert min(len(r.token_ids) for r in found) > least
    for rollout in found:
        own = ends if rollout.prompt_id in "02" else {tokenizer.eos_token_id}
        assert not own & set(rollout.token_ids[:-1])
        assert rollout.finish_reason == ("stop" if rollout.token_ids[-1] in own else "length")


def test_greedy_minds_min_new_tokens(model_folder: ModelFolder) -> None:
    policy = initial(model_folder("llama", "bos"))
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=12, min_new_tokens=12))
    end = policy.backbone.tokenizer.eos_token_id
    for rollout in engine.sample(policy, SPECS, 1, 0, greedy=True):
        assert len(rollout.token_ids) == 12
        ids = list(policy.backbone.tokenizer(TEXTS[int(rollout.prompt_id[1:])])["input_ids"])
        for token in rollout.token_ids:
            allowed = log_probs(policy, ids)[-1]
            allowed[end] = -torch.inf
            assert int(allowed.argmax()) == token
            ids.append(token)


# The backbone afterwards


def test_a_generator_closed_early_leaves_the_backbone_usable(model_folder: ModelFolder) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    tuned, bare = with_adapter(backbone), Policy("initial", backbone)
    before = backbone.causal.config._attn_implementation
    plain = log_probs(bare, [5, 6, 7])
    wanted = sample(tuned, n=6, batch_size=3)
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=12, batch_size=3))
    for taken in (0, 1, 7):
        rollouts = engine.sample(tuned, SPECS, 6, 0)
        agree(tuned, SPECS, [next(rollouts) for _ in range(taken)], wanted[:taken])
        assert isinstance(rollouts, Generator)
        rollouts.close()
        assert backbone.causal.config._attn_implementation == before
        assert not backbone.causal.get_output_embeddings()._forward_pre_hooks
        assert torch.equal(log_probs(bare, [5, 6, 7]), plain)
    agree(tuned, SPECS, sample(tuned, n=6, batch_size=3), wanted)


def test_an_error_midway_leaves_the_backbone_usable(
    model_folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    tuned, bare = with_adapter(backbone), Policy("initial", backbone)
    before = backbone.causal.config._attn_implementation
    plain, wanted = log_probs(bare, [5, 6, 7]), sample(tuned)
    steps = iter(range(100))

    def interrupt(*_: object) -> None:
        if next(steps) == 6:
            raise KeyboardInterrupt

    hook = backbone.causal.base_model.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        sample(tuned)
    hook.remove()
    assert backbone.causal.config._attn_implementation == before
    assert torch.equal(log_probs(bare, [5, 6, 7]), plain)
    agree(tuned, SPECS, sample(tuned), wanted)


def test_the_mode_afterwards_is_that_of_use(model_folder: ModelFolder) -> None:
    """Dropout would change what is sampled."""
    policy = initial(model_folder("gpt2", "bos"))
    wanted = sample(policy)
    for module in policy.backbone.causal.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    policy.backbone.causal.train()
    agree(policy, SPECS, sample(policy), wanted)
    assert not policy.backbone.causal.training


# The queue


def waiting(counts: Sequence[int]) -> list[Waiting]:
    return [
        Waiting(PromptSpec(str(i), "x"), (1,) * (i + 1), frozenset({0}), list(range(count)))
        for i, count in enumerate(counts)
    ]


def test_whole_prompts_start_together_and_large_ones_alone() -> None:
    queue = WaitingPrompts(waiting([2, 3, 9, 1]))
    taken = []
    for room in (4, 6, 5, 5):
        starts = queue.take(room, is_idle=False)
        taken.append([(s.prompt.spec.id, s.indices, s.is_last) for s in starts])
        starts[0].prompt.read = None if starts[0].is_last else "as a sampler does"
    assert taken == [
        [("0", (0, 1), True)],
        [("1", (0, 1, 2), True)],
        [("2", (0, 1, 2, 3, 4), False)],
        [("2", (5, 6, 7, 8), True)],
    ]
    assert bool(queue)
    assert [s.prompt.spec.id for s in queue.take(1, is_idle=False)] == ["3"]
    assert not queue


def test_cohorts_start_whole_and_alone() -> None:
    queue = WaitingPrompts(waiting([5, 2]), cohort=3)
    assert queue.take(2, is_idle=False) == []
    found = [queue.take(room, idle) for room, idle in ((2, True), (2, False), (9, False))]
    assert [[s.indices for s in starts] for starts in found] == [[(0, 1, 2)], [(3, 4)], [(0, 1)]]


@pytest.mark.parametrize("hands", [1, 2, 3])
@pytest.mark.parametrize("cohort", [None, 2])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_every_sample_is_dealt_once(hands: int, cohort: int | None, count: int) -> None:
    dealt = deal(waiting([5] * count), hands, cohort)
    assert len(dealt) == hands
    all_of_them = [(w.spec.id, i) for hand in dealt for w in hand for i in w.indices]
    assert sorted(all_of_them) == sorted((str(p), i) for p in range(count) for i in range(5))
    if cohort is not None or count == 20:
        assert all(len(each.indices) == 5 for hand in dealt for each in hand)
    assert hands == 1 or count == 1 or all(dealt)
