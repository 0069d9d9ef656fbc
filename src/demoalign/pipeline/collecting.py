"""Collecting demonstrations from a policy in a folder: a stronger model as demonstrator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demoalign.config import NO_TEMPLATE, CollectConfig, RolloutsConfig
from demoalign.demonstrations.collect.answers import (
    Missing,
    Said,
    demonstration_of,
    missing,
    too_long_to_ask,
)
from demoalign.demonstrations.collect.prompts import Asked
from demoalign.demonstrations.collect.results import SAMPLED, Files, write_results
from demoalign.demonstrations.collect.server import prompts_of
from demoalign.demonstrations.collect.template import Template, load_template
from demoalign.demonstrations.render import render_prompt
from demoalign.pipeline.resolve import policy_digest
from demoalign.policies.policy import Policy
from demoalign.records import Demonstration, Prompt, Rollout
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.engines import make_engine
from demoalign.rollouts.write import read_rollouts, write_rollouts
from demoalign.store import Run, fingerprint, settings_of, utc_now

NAME = "demonstrator"
ROLLOUTS = "rollouts.jsonl"


def collect_from_policy(
    config: CollectConfig, rollouts: RolloutsConfig, seed: int, device: str = "auto"
) -> dict[str, Any]:
    """Sample one answer to each prompt, write everything, and return the summary.

    An interrupted attempt is continued row by row, if nothing that matters has changed.

    Args:
        config: with the policy's folder.
        rollouts: how it is sampled.
        seed: of the random streams.
        device: where the model goes.

    Raises:
        DemoalignError: prompts, template or policy cannot be used.
    """
    assert config.policy is not None
    template = load_template(config.template or NO_TEMPLATE)
    files, prompts = Files(Path(config.output)), prompts_of(config)
    files.check()
    policy = Policy.load(config.policy, NAME, device)
    questions: dict[str, Prompt] = {}
    refused: dict[str, Missing] = {}
    for asked in prompts.asked:
        question = _question(asked, template, policy)
        why = too_long_to_ask(asked, config) or _no_room(asked, question, policy, rollouts)
        if why is None:
            questions[asked.id] = question
        else:
            refused[asked.id] = why
    about = {
        "policy": config.policy,
        "policy_digest": policy_digest(config.policy),
        "template": template.name,
        "template_digest": template.digest,
        "parameters": settings_of(rollouts),
        "seed": seed,
    }
    with files.held():
        sampled = _sampled(files, policy, questions, rollouts, about)
        times = {"time": utc_now()}
        outcomes: list[Demonstration | Missing] = []
        for asked in prompts.asked:
            if asked.id in refused:
                outcomes.append(refused[asked.id])
                continue
            rollout = sampled[asked.id]
            said = Said(
                rollout.completion,
                rollout.finish_reason == "length",
                None,
                False,
                {**about, "time": times["time"], "finish_reason": rollout.finish_reason},
            )
            outcomes.append(demonstration_of(asked, said, template, config))
        return write_results(files, prompts, outcomes, {"demonstrator": about, "stopped": None})


def _question(asked: Asked, template: Template, policy: Policy) -> Prompt:
    """What the policy is asked: text where it has no chat template, unless the prompt is chat."""
    if template.text is None:
        return asked.prompt
    messages = template.ask(asked.prompt)
    return messages if policy.backbone.tokenizer.chat_template else messages[0]["content"]


def _no_room(
    asked: Asked, question: Prompt, policy: Policy, rollouts: RolloutsConfig
) -> Missing | None:
    """Why a prompt cannot be answered within the model's context."""
    if policy.context is None:
        return None
    room = policy.context - rollouts.max_new_tokens
    length = len(render_prompt(policy.backbone.tokenizer, question))
    if length <= room:
        return None
    return missing(
        asked,
        "prompt too long",
        f"must leave room for {rollouts.max_new_tokens} new tokens in the policy's context of "
        f"{policy.context}, found {length} tokens",
    )


def _sampled(
    files: Files,
    policy: Policy,
    questions: Mapping[str, Prompt],
    rollouts: RolloutsConfig,
    about: Mapping[str, Any],
) -> dict[str, Rollout]:
    """A rollout of each prompt by its id, stored beside the output."""
    if not questions:
        return {}
    specs = [PromptSpec(name, prompt) for name, prompt in questions.items()]
    run, stage = Run(files.output.parent), files.beside(SAMPLED).name
    wanted = fingerprint(about=dict(about), prompts=[dataclasses.astuple(spec) for spec in specs])

    def work(folder: Path) -> None:
        engine = make_engine(rollouts)
        write_rollouts(folder / ROLLOUTS, engine, policy, specs, 1, about["seed"])

    if not run.is_current(stage, wanted):
        run.do(stage, wanted, about["seed"], work, keep=True)
    found = read_rollouts(files.beside(SAMPLED) / ROLLOUTS)
    return {rollout.prompt_id: rollout for rollout in found}
