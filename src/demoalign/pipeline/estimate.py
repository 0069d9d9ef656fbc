"""Rough cost of a run before it starts: memory from sizes, time from a measured matmul rate."""

from __future__ import annotations

import time
from typing import Any

import torch

from demoalign.config import (
    TRUNCATIONS,
    AdversarialConfig,
    BestOfNConfig,
    ExtrapolateConfig,
    IrlConfig,
    OptimiserConfig,
    RaftConfig,
    Recipe,
    ReferredConfig,
    RoundsConfig,
    SpinConfig,
    policies_of,
)
from demoalign.improve.strength import STRENGTHS
from demoalign.pipeline.choosing import PROMPTS, SAMPLES
from demoalign.pipeline.estimate_trained import trained_seconds
from demoalign.pipeline.harness import task_folder, tasks_of
from demoalign.pipeline.preferring import FOLDER as PREFERENCES
from demoalign.pipeline.preferring import sets_of
from demoalign.pipeline.training import train_samples
from demoalign.pipeline.work import Sizes, Work
from demoalign.policies.load import choose_device, choose_dtype
from demoalign.policies.policy import INITIAL

EFFICIENCY = 0.25
"""Share of the matmul rate that whole models reach; the estimate is good to a factor of three."""

QUESTIONS, ANSWERS = 1000, 4
"""What a task of lm-eval is taken to ask where the recipe sets no limit."""

OPTIMISER_BYTES = 12
"""Gradient and two Adam moments for each trained parameter, float32."""


def model_sizes(config: Any, recipe: Recipe) -> tuple[int, int]:
    """Parameters of the base and of one adapter, counted without allocating weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, trust_remote_code=recipe.model.trust_remote_code
        )
    whole = sum(p.numel() for p in model.parameters())
    if recipe.model.adapter.kind == "none":
        return whole, whole
    head = model.get_output_embeddings()
    matrices = [
        module.weight
        for module in model.modules()
        if getattr(module, "weight", None) is not None
        and module.weight.ndim == 2
        and not isinstance(module, torch.nn.Embedding)
        and module is not head
    ]
    return whole, recipe.model.adapter.r * sum(sum(matrix.shape) for matrix in matrices)


def estimate_bytes(sizes: Sizes, recipe: Recipe, config: Any) -> int:
    """Peak memory in bytes: weights, adapters, optimiser and one batch's activations."""
    device = choose_device(recipe.model.device)
    width = torch.empty((), dtype=choose_dtype(recipe.model, device)).element_size()
    text = config.get_text_config()
    length = min(sizes.prompt + sizes.completion, recipe.sft.max_length)
    tokens = _rows_at_once(recipe) * length
    activations = tokens * (text.num_hidden_layers * text.hidden_size * 34 + 3 * text.vocab_size)
    held = {"none": width, "8bit": 1.05, "4bit": 0.55}[recipe.model.quantisation]
    models = 1 if recipe.model.adapter.kind == "lora" else 2
    optimised = sizes.adapter_parameters * (4 + OPTIMISER_BYTES)
    return int(models * sizes.parameters * held + optimised + activations * width)


def _rows_at_once(recipe: Recipe) -> int:
    """Most rows of a forward and backward pass: what compares sources reads pairs."""
    trained: list[OptimiserConfig] = [recipe.sft, *recipe.reward, *recipe.baselines]
    improve = recipe.improve
    single = 0
    if isinstance(improve, RaftConfig):
        trained.append(improve)
    if isinstance(improve, IrlConfig):
        trained.append(improve.reward)
        single = improve.step.batch_size
    if isinstance(improve, RoundsConfig):
        single = improve.batch_size
    if isinstance(improve, AdversarialConfig):
        single = max(single, 2 * improve.discriminator.batch_size)
    return max(single, 2 * max(each.batch_size for each in trained))


def estimate_seconds(sizes: Sizes, recipe: Recipe) -> dict[str, float]:
    """Seconds of each stage: 2 FLOP a parameter and token forward, 6 in training.

    Sampling and scoring read a prompt once for all its completions; a ``head`` scores what
    sampling computed, a mixture what its members have scored, and a server's time is not ours.
    """
    rate = _matmul_rate(recipe) * EFFICIENCY
    work = Work(2 * (sizes.parameters + sizes.adapter_parameters) / rate, sizes, recipe)
    most = max(recipe.evaluation.sizes)
    is_local = recipe.rollouts.engine != "openai"
    truncated = recipe.evaluation.truncated_samples * len(TRUNCATIONS)
    improve, made = recipe.improve, len(policies_of(recipe.improve))
    improved = 0 if isinstance(improve, BestOfNConfig) else made * (improve.samples + 1)
    policies = improved + sum(each.samples + 1 for each in recipe.baselines)
    others = recipe.evaluation.initial_samples + truncated + 2
    samples = train_samples(recipe, INITIAL) + train_samples(recipe)
    return {
        "sft": work.training(recipe.sft, sizes.train),
        "rollouts": is_local * work.shared(work.sampled, 2, samples),
        "rollouts-test": is_local * work.shared(work.tests, 3, most + others - 1),
        "best-of-n": sum(
            work.shared(work.tests, 1, policies + others + (reward.model != "head") * most)
            * reward.ensemble.size
            for reward in recipe.reward
            if reward.model != "mixture"
        ),
        **_reward_seconds(work),
        **_improve_seconds(work),
        **_baseline_seconds(work),
        **_preference_seconds(work),
        **_harness_seconds(work),
    }


def _reward_seconds(work: Work) -> dict[str, float]:
    once, found = work.reading(2 * work.sampled), {}
    for reward in work.recipe.reward:
        is_read = reward.model in ("head", "density_ratio")
        seconds = once if is_read else work.training(reward, 2 * work.sampled)
        if reward.model == "mixture":
            seconds = 1.5 * reward.holdout_fraction * once * len(reward.members)
        teacher = once if reward.distils else 0.0
        found[f"reward/{reward.title}"] = seconds * reward.ensemble.size + teacher
    return found


def _improve_seconds(work: Work) -> dict[str, float]:
    improve, train = work.recipe.improve, work.sizes.train
    if isinstance(improve, BestOfNConfig):
        return {}
    if not isinstance(improve, ExtrapolateConfig):
        return trained_seconds(work, improve)
    found = {"improve": 2 * work.shared(work.tests, 2, improve.samples + 1)}
    if improve.strength == "auto":  # two policies sample, these two and the SFT policy score
        found["strength"] = len(STRENGTHS) * 5 * work.shared(min(train, PROMPTS), 1, SAMPLES)
    if improve.distil is not None:
        seen = min(train, improve.distil.train_prompts or train)
        said = improve.distil.samples_per_prompt
        sampling = 2 * work.shared(seen, 1, said)
        found["policy"] = sampling + work.training(improve.distil, seen * said)
    return found


def _baseline_seconds(work: Work) -> dict[str, float]:
    """A file of preferences is taken to have as many rows as there are demonstrations."""
    found = {}
    for config in work.recipe.baselines:
        rows = work.sampled if config.reads_rollouts else work.sizes.train
        answers = rows * len(config.sources)
        reference = work.reading(answers) if isinstance(config, ReferredConfig) else 0.0
        once = work.training(config, answers) + reference
        found[f"baseline/{config.name}"] = (
            _spin_seconds(work, config, answers) if isinstance(config, SpinConfig) else once
        )
        found[f"baseline-rollouts/{config.name}"] = work.shared(
            work.tests, 2, config.samples + 1
        ) + work.shared(work.tests, 1, config.samples)
    return found


def _spin_seconds(work: Work, config: SpinConfig, answers: float) -> float:
    """Each iteration samples (the first does not), reads its pairs, and trains on them."""
    once = work.training(config, answers) + work.reading(answers)
    sampling = work.shared(work.sampled, 1, work.recipe.rollouts.samples_per_prompt)
    mixed = sum(len(config.trained_on(each + 1)) for each in range(config.iterations))
    return mixed * once + (config.iterations - 1) * sampling


def _preference_seconds(work: Work) -> dict[str, float]:
    """Every answer of a set is scored by each reward, and read by the SFT policy."""
    rewards = [each for each in work.recipe.reward if each.model != "mixture"]
    found = {}
    for name in sets_of(work.recipe):
        answers = work.sizes.answers.get(name, 2 * work.sizes.train)
        scoring = sum(work.scoring(each, answers, 1) for each in rewards)
        found[f"{PREFERENCES}/{name}"] = scoring + work.reading(answers)
    return found


def _harness_seconds(work: Work) -> dict[str, float]:
    """Questions are taken to be as long as demonstrations, with four answers that are all read."""
    config = work.recipe.evaluation.lm_eval
    if config is None:
        return {}
    questions = config.limit or QUESTIONS
    read = work.reading(ANSWERS * questions * (1 + (config.shots or 0)))
    return {task_folder(policy, task): read for policy, task in tasks_of(work.recipe)}


def _matmul_rate(recipe: Recipe) -> float:
    """Floating-point operations a second of a small matrix product on the run's device."""
    device = choose_device(recipe.model.device)
    a = torch.randn(1024, 256, device=device)
    b = torch.randn(256, 1024, device=device)
    best = float("inf")
    for _ in range(8):
        clock = time.perf_counter()
        float((a @ b)[0, 0])
        best = min(best, time.perf_counter() - clock)
    return 2 * 1024 * 256 * 1024 / best
