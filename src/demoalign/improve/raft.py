"""Fine-tuning on the best of one's own samples, in rounds (RAFT; Dong et al., 2023)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from demoalign.config import RaftConfig
from demoalign.demonstrations.render import Rendered
from demoalign.improve.fixed_reward import FixedReward
from demoalign.improve.held_out import Asking, HeldOut, facts_of, mean_known
from demoalign.improve.learner import load_state, policy_weights, restore_weights, save_state
from demoalign.improve.optimise import CHECKPOINTS, CHECKS, ROUNDS, Summary, clear_lines
from demoalign.improve.watch import Check, best_check, why_stop
from demoalign.policies.sft import train_sft
from demoalign.policies.tracking import track
from demoalign.processes import agreed, is_main
from demoalign.rollouts.engine import PromptSpec
from demoalign.store import append_line, read_json, write_json

WEIGHTS, DONE = "weights.safetensors", "done.json"


def train_raft(
    asking: Asking,
    reward: FixedReward,
    prompts: Sequence[PromptSpec],
    held_out: HeldOut,
    config: RaftConfig,
    seed: int,
    folder: Path,
    store_last: Callable[[], None],
) -> Summary:
    """Train a policy in place; afterwards it has the weights of the best check.

    Args:
        asking: the policy that learns.
        reward: chooses among its samples.
        prompts: to learn from.
        held_out: to be watched on.
        config: rounds and optimiser of the fine-tuning.
        seed: of rollouts and data order.
        folder: of the stage; finished rounds in it are not done again.
        store_last: is called when the policy has the last round's weights.
    """
    policy, checks, folder = asking.policy, list[Check](), agreed(lambda: folder)
    clear_lines(folder)
    best, why = policy_weights(policy), None

    for number in range(config.rounds + 1):
        place = folder / CHECKPOINTS / f"round-{number}"
        if not agreed((place / DONE).is_file):
            noted = {}
            if number > 0:
                noted = _round(asking, reward, prompts, config, seed + 1_000_003 * number, place)
            done = held_out.check(asking, reward.view, number, 0.0)
            track(f"{config.method} check", done.means, number)
            if is_main():
                found = {"noted": {"round": number} | noted, "check": asdict(done)}
                save_state(place / WEIGHTS, policy_weights(policy))
                write_json(place / DONE, found)
        stored = agreed(partial(read_json, place / DONE))
        weights = load_state(place / WEIGHTS)
        restore_weights(policy, weights)
        checks.append(Check(**stored["check"]))
        if is_main():
            if number > 0:
                append_line(folder / ROUNDS, stored["noted"])
            append_line(folder / CHECKS, stored["check"])
        if best_check(checks, held_out.config) == number:
            best = weights
        if (why := why_stop(checks, held_out.config, held_out.watched)) is not None:
            break
    store_last()
    restore_weights(policy, best)
    return Summary(len(checks) - 1, checks[best_check(checks, held_out.config)].round, why)


def _round(
    asking: Asking,
    reward: FixedReward,
    prompts: Sequence[PromptSpec],
    config: RaftConfig,
    seed: int,
    folder: Path,
) -> dict[str, float | None]:
    """Sample, choose the best of each prompt, fine-tune on those."""
    said = asking.say(prompts, config.samples_per_prompt, seed)
    scores = reward.view(said)
    chosen = [
        said.rows[place * said.per_prompt + int(np.nanargmax(row))]
        for place, row in enumerate(scores.reshape(-1, said.per_prompt))
        if np.isfinite(row).any()
    ]
    rows = [Rendered(list(row.prompt), list(row.completion)) for row in chosen]
    policy = asking.policy
    found = train_sft(policy.backbone, policy.adapter, rows, config, seed, folder, "improve")
    if is_main():
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    best = np.nanmax(np.where(np.isfinite(scores), scores, -np.inf).reshape(-1, said.per_prompt), 1)
    return {
        "reward": mean_known(scores),
        "chosen": mean_known(best),
        "unscored": float(np.isnan(scores).sum()),
        **facts_of(said),
        "loss": found.losses[-1] if found.losses else None,
    }
