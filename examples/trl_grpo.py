"""Go on from a run's SFT policy with TRL's GRPO, rewarded by the log-ratio in closed form.

    demoalign quickstart --output runs
    python examples/trl_grpo.py runs/quickstart --output runs/grpo

Under a minute on two idle CPU cores; on GPUs, ``accelerate launch examples/trl_grpo.py ...``.
The output is a PEFT folder: ``da.Policy.load("runs/grpo")``, or ``policy:runs/grpo`` in a recipe.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

import demoalign as da


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and store the policy."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="a run's folder, LoRA (quickstart's, say)")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    given = parser.parse_args(arguments)
    on_cpu = not torch.cuda.is_available()

    # one copy of the base: the initial policy is the SFT policy with its adapter off
    sft = da.Policy.load(given.run / "sft", "sft", "cpu" if on_cpu else own_gpu())
    reward = da.trl_reward(da.DensityRatio.between(sft, sft.base()))

    demonstrations = da.Demonstrations.read(given.run / "demonstrations" / "train.jsonl")
    trainer = GRPOTrainer(
        # weights of its own: training those of the reward would change the reward
        model=AutoPeftModelForCausalLM.from_pretrained(
            given.run / "sft", is_trainable=True, dtype=torch.float32
        ),
        processing_class=AutoTokenizer.from_pretrained(given.run / "sft"),
        reward_funcs=reward,
        train_dataset=Dataset.from_list([{"prompt": each.prompt} for each in demonstrations]),
        args=GRPOConfig(
            output_dir=str(given.output),
            max_steps=given.steps,
            learning_rate=1e-3 if on_cpu else 1e-5,
            beta=0.02,  # how strongly it is held to the SFT policy
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=given.max_new_tokens,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            use_cpu=on_cpu,
            bf16=not on_cpu,
            gradient_checkpointing=not on_cpu,
        ),
    )
    trainer.train()
    trainer.save_model()


def own_gpu() -> str:
    """This process's, under accelerate launch."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


if __name__ == "__main__":
    main()
