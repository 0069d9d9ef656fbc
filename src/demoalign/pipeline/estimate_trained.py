"""Rough time of the methods that train a policy on its own samples, round by round."""

from __future__ import annotations

from demoalign.config import (
    AdversarialConfig,
    IrlConfig,
    PolicyGradientConfig,
    PpoConfig,
    RaftConfig,
    RoundsConfig,
    TrainedConfig,
    reward_of,
    witness_of,
)
from demoalign.pipeline.fixed import STARTS
from demoalign.pipeline.work import Work


def trained_seconds(work: Work, config: TrainedConfig) -> dict[str, float]:
    """Seconds of the training and of its policy's answers to the test prompts.

    A training that stops early takes less.
    """
    samples = config.samples
    answering = work.shared(work.tests, 2, samples + 1) + work.shared(work.tests, 1, samples)
    return {"policy": _training(work, config), "improve": answering}


def _training(work: Work, config: TrainedConfig) -> float:
    if isinstance(config, IrlConfig):
        return _irl(work, config)
    started = 0.0
    if not isinstance(config, AdversarialConfig):  # the SFT policy's answers are the unit
        started = _saying(work, config, config.check.prompts, STARTS)
    return started + _step(work, config)


def _step(work: Work, config: RaftConfig | PolicyGradientConfig) -> float:
    """All rounds of an optimiser, with its checks."""
    each = _raft_round(work, config) if isinstance(config, RaftConfig) else _round(work, config)
    every = 1 if isinstance(config, RaftConfig) else config.check.every
    checks = 1 + -(-config.rounds // every)
    begun = 0.0
    if isinstance(config, AdversarialConfig):
        begun = config.discriminator.warmup * _discriminating(work, config)
    return begun + config.rounds * each + checks * _check(work, config)


def _round(work: Work, config: PolicyGradientConfig) -> float:
    """Sampling, reading with the reference, the reward, and 6 FLOP a parameter and token."""
    rows = config.prompts * config.samples_per_prompt
    seconds = _saying(work, config, config.prompts, config.samples_per_prompt)
    seconds += 3 * work.reading(rows) * config.passes
    if isinstance(config, PpoConfig):  # log-probabilities and values before the first step
        seconds += work.reading(rows)
    if isinstance(config, AdversarialConfig):
        seconds += config.discriminator.steps * _discriminating(work, config)
    return seconds


def _raft_round(work: Work, config: RaftConfig) -> float:
    """Every prompt's samples, and fine-tuning on the best of them."""
    seen = min(work.sizes.train, config.train_prompts or work.sizes.train)
    said = _saying(work, config, seen, config.samples_per_prompt)
    return said + work.training(config, seen)


def _saying(
    work: Work, config: RaftConfig | PolicyGradientConfig, prompts: float, count: int
) -> float:
    """Completions, read by the reference policy and rewarded."""
    spoken = 2 * work.shared(prompts, 1, count)
    if isinstance(config, AdversarialConfig) or isinstance(work.recipe.improve, IrlConfig):
        return spoken + work.shared(prompts, 1, count)  # by the reward that is learned along
    return spoken + work.scoring(reward_of(work.recipe, config), prompts, count)


def _check(work: Work, config: RaftConfig | PolicyGradientConfig) -> float:
    prompts, count = config.check.prompts, config.check.samples
    return _saying(work, config, prompts, count) + _witnessing(work, prompts, count)


def _witnessing(work: Work, prompts: int, count: int) -> float:
    improve = work.recipe.improve
    assert isinstance(improve, RaftConfig | RoundsConfig | IrlConfig)
    witness = witness_of(work.recipe, improve)
    return 0.0 if witness is None else work.scoring(witness, prompts, count)


def _discriminating(work: Work, config: AdversarialConfig) -> float:
    """One step on pairs; a gradient of a gradient doubles it."""
    once = 3 * work.reading(2 * config.discriminator.batch_size)
    return 2 * once if config.discriminator.gradient_penalty else once


def _irl(work: Work, config: IrlConfig) -> float:
    """Samples, a reward, a policy step and a check, by turns; with ``past`` pairs add up."""
    reward, check = config.reward, config.check
    seen = min(work.sizes.train, reward.train_prompts or work.sizes.train)
    pairs = seen * reward.samples_per_prompt * (1 + reward.mix)
    past = (config.iterations + 1) / 2 if reward.past else 1.0
    asked = check.prompts, check.samples
    checking = 2 * work.shared(asked[0], 1, asked[1]) + _witnessing(work, *asked)
    started = _saying(work, config.step, check.prompts, STARTS)
    once = work.shared(seen, 1, reward.samples_per_prompt)
    once += work.training(reward, 2 * pairs * past) + started + _step(work, config.step)
    return config.iterations * (once + checking) + checking
