"""The stages that make and sample better policies: policy (distillation) and improve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from demoalign.config import (
    DISTILLED,
    EXTRAPOLATED,
    BestOfNConfig,
    ExtrapolateConfig,
    Recipe,
    policies_of,
)
from demoalign.demonstrations.render import Rendered, render_prompt
from demoalign.improve.referred import sequence_logprobs
from demoalign.pipeline.data import read_data
from demoalign.pipeline.measure import LOGPROBS, SFT_LOGPROB, test_rows
from demoalign.pipeline.models import Models
from demoalign.pipeline.sampling import specs_of
from demoalign.pipeline.sources import Source, improved_sources
from demoalign.pipeline.training import store_policy, within_context
from demoalign.policies.last_hidden import Row
from demoalign.policies.policy import Policy
from demoalign.policies.sft import train_sft
from demoalign.records import Prompt, Rollout, Score, write_records
from demoalign.rollouts.engine import AnyPolicy
from demoalign.rollouts.engines import make_engine
from demoalign.rollouts.write import read_rollouts, write_rollouts


def distil_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Train a copy of the SFT policy on what the extrapolated one says; store a model folder."""
    improve = recipe.improve
    assert isinstance(improve, ExtrapolateConfig)
    config = improve.distil
    assert config is not None
    train, _ = read_data(run / "demonstrations")
    rows = train[: config.train_prompts]
    path, engine = folder / "rollouts.jsonl", make_engine(recipe.rollouts)
    policy, most = models.extrapolated(improve), config.samples_per_prompt
    write_rollouts(path, engine, policy, specs_of(rows), most, recipe.seed)
    del policy
    prompts = {row.id: row.prompt for row in rows}
    student = models.student(DISTILLED) if models.uses_lora else models.sft()
    backbone, adapter = student.backbone, student.adapter
    said = [_learned(student, prompts[each.prompt_id], each) for each in read_rollouts(path)]
    settings = within_context(config, backbone)
    summary = train_sft(backbone, adapter, said, settings, recipe.seed, folder)
    store_policy(backbone, adapter, summary, folder, config.keep_checkpoints)
    models.release()


def improve_stage(recipe: Recipe, run: Path, models: Models, folder: Path) -> None:
    """Sample the improved policies on the test prompts, and what the SFT policy makes of it."""
    improve = recipe.improve
    assert not isinstance(improve, BestOfNConfig)
    for name in policies_of(improve):
        policy: AnyPolicy
        if name == EXTRAPOLATED:
            assert isinstance(improve, ExtrapolateConfig)
            policy = models.extrapolated(improve)
        else:
            policy = models.improved(name)
        sources = [each for each in improved_sources(recipe) if each.policy == name]
        answer_tests(recipe, run, policy, sources, improve.samples)
        del policy
    store_logprobs(recipe, run, models, improved_sources(recipe), folder)
    models.release()


def answer_tests(
    recipe: Recipe, run: Path, policy: AnyPolicy, sources: Sequence[Source], samples: int
) -> None:
    """Have a policy answer the test prompts in each of the ways that its sources ask for."""
    specs, engine = specs_of(test_rows(recipe, run)), make_engine(recipe.rollouts)
    for source in sources:
        path, seed = run / source.path, recipe.seed
        write_rollouts(path, engine, policy, specs, samples, seed, source.is_greedy)


def store_logprobs(
    recipe: Recipe, run: Path, models: Models, sources: Sequence[Source], folder: Path
) -> None:
    """What the SFT policy makes of all that was sampled, for the KL to it."""
    prompts = {row.id: row.prompt for row in test_rows(recipe, run)}
    sampled = [each for each in sources if not each.is_greedy]
    rollouts = [each for source in sampled for each in read_rollouts(run / source.path)]
    known = rollout_logprobs(models.sft(), prompts, rollouts)
    scores = [
        Score(rollout.id, SFT_LOGPROB, value)
        for rollout, value in zip(rollouts, known, strict=True)
    ]
    write_records(folder / LOGPROBS, scores)


def rollout_logprobs(
    policy: Policy, prompts: Mapping[str, Prompt], rollouts: Sequence[Rollout]
) -> list[float]:
    """log pi(y|x) in nats of just the tokens that were sampled."""
    tokenizer = policy.backbone.tokenizer
    rows = [
        Row(tuple(render_prompt(tokenizer, prompts[each.prompt_id])), tuple(each.token_ids))
        for each in rollouts
    ]
    found: list[float] = sequence_logprobs(policy, rows).tolist()
    return found


def log_ratios_to(
    policy: Policy, prompts: Mapping[str, Prompt], rollouts: Sequence[Rollout]
) -> list[float]:
    """log of what sampled each rollout over the policy, nats; the mean estimates their KL."""
    known = rollout_logprobs(policy, prompts, rollouts)
    return [
        (rollout.logprob or 0.0) - value for rollout, value in zip(rollouts, known, strict=True)
    ]


def _learned(policy: Policy, prompt: Prompt, rollout: Rollout) -> Rendered:
    """A rollout as a demonstration of just the tokens that were sampled."""
    return Rendered(render_prompt(policy.backbone.tokenizer, prompt), rollout.token_ids)
