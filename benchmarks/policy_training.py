"""A round of policy-gradient training against its parts, and against TRL's RLOO trainer.

    OMP_NUM_THREADS=1 python benchmarks/policy_training.py --json

The model is a Llama of 4 layers of width 256 whose answers end at random after about 32 tokens,
with a LoRA adapter; a round is 8 prompts of 64 tokens with 8 answers each of at most 64.
``loop_share`` is our round over sampling alone plus one training forward and backward pass of the
same rows; ``trl`` is TRL's round, which samples with ``generate``, over ours. Both hold the policy
to a reference and reward the length of the text. Ratios are of medians, measured in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench_models import as_backbone, prompt_ids, small_llama, text_of
from bench_parts import Found, run_parts
from demoalign.config import AdapterConfig, CheckConfig, RlooConfig, RolloutsConfig
from demoalign.improve.fixed_reward import FixedReward
from demoalign.improve.held_out import Asking, HeldOut
from demoalign.improve.optimise import Loop, Training
from demoalign.policies import Policy
from demoalign.policies.backbone import Backbone
from demoalign.policies.last_hidden import Row
from demoalign.policies.learning import learned_logprobs
from demoalign.progress import meter
from demoalign.rollouts.engine import PromptSpec
from demoalign.rollouts.transformers_engine import TransformersEngine

PROMPTS, ANSWERS, PROMPT, MOST = 8, 8, 64, 64
RATE, BETA = 1e-4, 0.05


class Length:
    """Rewards long answers."""

    name = "length"

    def score(self, prompts: Any, completions: Any, finished: Any = None) -> Any:
        """(B,) characters."""
        return np.array([float(len(text)) for text in completions])


def prepared() -> tuple[Backbone, list[PromptSpec]]:
    """The model with a policy and its reference as adapters, and prompts."""
    torch.manual_seed(0)
    backbone = as_backbone(small_llama())
    for name in ("sft", "learner"):
        backbone.add_adapter(name, AdapterConfig(r=16), 0)
    specs = [PromptSpec(f"p{i}", text_of(prompt_ids(PROMPT, i))) for i in range(PROMPTS)]
    return backbone, specs


def our_loop(folder: Path) -> Loop:
    """Ready for its first round."""
    backbone, specs = prepared()
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=MOST, batch_size=PROMPTS * ANSWERS))
    asking = Asking(Policy("learner", backbone, "learner"), Policy("sft", backbone, "sft"), engine)
    config = RlooConfig(
        prompts=PROMPTS,
        samples_per_prompt=ANSWERS,
        level="trajectory",
        learning_rate=RATE,
        beta=BETA,
        batch_size=PROMPTS * ANSWERS,
        passes=1,
        minibatches=1,
    )
    held_out = HeldOut([], CheckConfig(), 0)
    return Loop(Training(asking, specs, held_out, config, 0), FixedReward(Length()), folder)


def loop_share(repeats: int) -> Found:
    """Our round over its two indispensable parts."""
    with TemporaryDirectory() as folder, meter("rounds", 1):
        loop = our_loop(Path(folder))
        asking, specs = loop.training.asking, loop.training.prompts
        whole, parts = [], []
        for number in range(repeats + 1):
            whole.append(seconds(partial(loop._round, number)))
            said = list(asking.engine.sample(asking.policy, specs, ANSWERS, number))
            sampling = seconds(partial(sample, asking, specs, number))
            ids = {f"p{i}": tuple(prompt_ids(PROMPT, i)) for i in range(PROMPTS)}
            rows = [Row(ids[each.prompt_id], tuple(each.token_ids)) for each in said]
            parts.append(sampling + seconds(partial(one_pass, asking.policy, rows)))
    return {"loop_share": statistics.median(whole[1:]) / statistics.median(parts[1:])}


def sample(asking: Asking, specs: Sequence[PromptSpec], seed: int) -> None:
    """All answers of a round."""
    list(asking.engine.sample(asking.policy, specs, ANSWERS, seed))


def one_pass(policy: Policy, rows: list[Row]) -> None:
    """One training forward and backward pass."""
    with policy.active():
        learned_logprobs(policy.backbone.causal, rows).logprobs.sum().backward()  # type: ignore[no-untyped-call]


def trl(repeats: int) -> Found:
    """TRL's round over ours, round by round in turns."""
    with TemporaryDirectory() as folder, meter("rounds", 1):
        loop = our_loop(Path(folder) / "ours")
        ours, theirs = in_turns(loop, repeats + 1, Path(folder) / "theirs")
    return {"trl": statistics.median(theirs[1:]) / statistics.median(ours[1:])}


def in_turns(loop: Loop, rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds of each of our rounds and of each round of TRL's trainer."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RLOOConfig, RLOOTrainer

    backbone, specs = prepared()
    backbone.add_adapter("default", AdapterConfig(r=16), 0)  # the name that TRL looks for
    ours: list[float] = []
    theirs: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        begun = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            theirs.append(time.perf_counter() - self.begun)
            ours.append(seconds(partial(loop._round, len(ours))))

    with backbone.using("default"):
        trainer = RLOOTrainer(
            model=backbone.peft,
            processing_class=backbone.tokenizer,
            reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
            train_dataset=Dataset.from_list([{"prompt": spec.prompt} for spec in specs] * rounds),
            args=RLOOConfig(
                output_dir=str(folder),
                max_steps=rounds,
                learning_rate=RATE,
                beta=BETA,
                per_device_train_batch_size=PROMPTS * ANSWERS,
                num_generations=ANSWERS,
                max_completion_length=MOST,
                save_strategy="no",
                report_to="none",
                logging_strategy="no",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                disable_tqdm=True,
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    return ours, theirs


def seconds(work: Callable[[], object]) -> float:
    """Wall time of some work."""
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


if __name__ == "__main__":
    run_parts({"loop_share": loop_share, "trl": trl}, "A round of policy-gradient training.")
