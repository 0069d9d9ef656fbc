"""A small training of a policy, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demoalign.config import AdapterConfig, CheckConfig, RlooConfig, RolloutsConfig
from demoalign.improve.experience import Said
from demoalign.improve.fixed_reward import FixedReward
from demoalign.improve.held_out import Asking, HeldOut, Lookers
from demoalign.improve.optimise import Training
from demoalign.policies import Backbone, Policy
from demoalign.policies.last_hidden import Row
from demoalign.records import Prompt, Rollout
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.transformers_engine import TransformersEngine
from tests.models import load_backbone

SPECS = [PromptSpec(f"p{i}", f"Is key {i} on?") for i in range(10)]
CHECK = CheckConfig(every=2, prompts=2, samples=2, witness=None)


class Letters:
    """Likes common letters."""

    name = "letters"

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> Any:
        return np.array(
            [float(sum(text.count(each) for each in "aeot rn")) for text in completions]
        )


def config_of(**changes: Any) -> RlooConfig:
    settings = {
        "rounds": 4,
        "prompts": 4,
        "samples_per_prompt": 3,
        "learning_rate": 3e-3,
        "level": "trajectory",
        "checkpoint_every": 2,
        "check": CHECK,
    }
    return RlooConfig.model_validate({**settings, **changes})


def disturbed(folder: Path) -> Backbone:
    """A backbone with the adapters ``sft``, which is not nothing, and ``learner``, its copy."""
    backbone = load_backbone(folder)
    for name in ("sft", "learner"):
        backbone.add_adapter(name, AdapterConfig(r=4, alpha=8), seed=0)
        torch.manual_seed(1)
        with torch.no_grad():
            for weight, values in backbone.causal.named_parameters():
                if f"lora_B.{name}" in weight:
                    values.normal_(std=0.05)
    return backbone


def training_of(
    backbone: Backbone, config: Any, engine: Any = None, reference: Policy | None = None
) -> Training:
    sampler = TransformersEngine(RolloutsConfig(max_new_tokens=8)) if engine is None else engine
    sft = Policy("sft", backbone, "sft") if reference is None else reference
    asking = Asking(Policy("learner", backbone, "learner"), sft, sampler)
    held_out = HeldOut(SPECS[:2], config.check, 0, Lookers())
    return Training(asking, SPECS[2:], held_out, config, 0)


def reward() -> FixedReward:
    return FixedReward(Letters(), unfinished=0.5)


def said_of(rows: Sequence[Row], finished: bool = True) -> Said:
    """Completions of one prompt each, as if the policy had sampled them."""
    rollouts = [
        Rollout(
            id=str(i),
            prompt_id="p",
            index=i,
            completion="",
            token_ids=list(row.completion),
            logprob=0.0,
            finish_reason="stop" if finished else "length",
            policy="learner",
            seed=0,
        )
        for i, row in enumerate(rows)
    ]
    reference = tuple(np.zeros(len(row.completion)) for row in rows)
    return Said(("x",) * len(rows), tuple(rollouts), tuple(rows), reference, 1)
