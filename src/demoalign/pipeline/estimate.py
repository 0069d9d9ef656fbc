"""Rough cost of a run before it starts: memory from sizes, time from a measured matmul rate."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from demoalign.config import (
    TRUNCATIONS,
    ExtrapolateConfig,
    OptimiserConfig,
    Recipe,
    ReferredConfig,
    SpinConfig,
)
from demoalign.improve.strength import STRENGTHS
from demoalign.pipeline.choosing import PROMPTS, SAMPLES
from demoalign.pipeline.training import train_samples
from demoalign.policies.load import choose_device, choose_dtype
from demoalign.policies.policy import INITIAL

EFFICIENCY = 0.25
"""Share of the matmul rate that whole models reach; the estimate is good to a factor of three."""

OPTIMISER_BYTES = 12
"""Gradient and two Adam moments for each trained parameter, float32."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the estimate needs to know of data and model.

    Attributes:
        parameters: of the base model.
        adapter_parameters: trained by one adapter (all of them without LoRA).
        train, test: rows.
        prompt, completion: mean tokens.
    """

    parameters: int
    adapter_parameters: int
    train: int
    test: int
    prompt: float
    completion: float


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
    trained = (recipe.sft, *recipe.reward, *recipe.baselines)
    tokens = 2 * max(each.batch_size for each in trained) * length
    activations = tokens * (text.num_hidden_layers * text.hidden_size * 34 + 3 * text.vocab_size)
    held = {"none": width, "8bit": 1.05, "4bit": 0.55}[recipe.model.quantisation]
    models = 1 if recipe.model.adapter.kind == "lora" else 2
    optimised = sizes.adapter_parameters * (4 + OPTIMISER_BYTES)
    return int(models * sizes.parameters * held + optimised + activations * width)


@dataclass(frozen=True, slots=True)
class Work:
    """Costs in seconds of what stages are made of, 2 FLOP a parameter and token forward.

    Attributes:
        forward: of one token.
        sizes: of data and model.
        recipe: what is to be run.
    """

    forward: float
    sizes: Sizes
    recipe: Recipe

    @property
    def row(self) -> float:
        """Tokens of a prompt and an answer."""
        return self.sizes.prompt + self.sizes.completion

    @property
    def sampled(self) -> int:
        """Training prompts that are answered."""
        return min(self.sizes.train, self.recipe.rollouts.train_prompts or self.sizes.train)

    @property
    def tests(self) -> int:
        """Test prompts."""
        return min(self.sizes.test, self.recipe.evaluation.prompts or self.sizes.test)

    def reading(self, rows: float) -> float:
        """Reading whole rows."""
        return self.forward * rows * self.row

    def training(self, config: OptimiserConfig, rows: float) -> float:
        """All epochs over some rows, 6 FLOP a parameter and token."""
        return 3 * self.reading(rows) * config.epochs

    def shared(self, prompts: float, reads: int, completions: float) -> float:
        """Sampling or scoring completions, each prompt read but ``reads`` times for all of them."""
        prompt, completion = self.sizes.prompt, self.sizes.completion
        return self.forward * prompts * (reads * prompt + completions * completion)


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
    improve = recipe.improve
    improved = 2 * (improve.samples + 1) if isinstance(improve, ExtrapolateConfig) else 0
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
    if not isinstance(improve, ExtrapolateConfig):
        return {}
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
