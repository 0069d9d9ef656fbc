"""A training step of a reward model against TRL's `RewardTrainer`, in one process on one core.

    python benchmarks/reward_training.py --json

Both train LoRA adapters (r = 32, all linear layers) on the same random Llama in float32 with the
same Bradley-Terry loss, optimiser, pairs and batches: 8 pairs, prompts of 200 tokens, completions
of 20 to 60. A figure is the ratio of seconds a step, data loading included: the median over
interleaved rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from demoalign.config import AdapterConfig, ModelConfig, RewardConfig
from demoalign.console import quiet_libraries
from demoalign.lab import BASE
from demoalign.policies import Backbone
from demoalign.policies.tokenizer import load_tokenizer
from demoalign.policies.training import shared_arguments
from demoalign.rewards.forms import choose_form
from demoalign.rewards.packing import PairScorer, RenderedPair, StackedCollator
from demoalign.rewards.scorers import SharedScorer, linear_head
from demoalign.rewards.train import pair_trainer

VOCABULARY, PROMPT, SHORTEST, LONGEST = 4096, 200, 20, 60
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
ADAPTER = AdapterConfig(r=32, alpha=32)
SETTINGS = RewardConfig(loss="bradley_terry", epochs=1, batch_size=8, accumulation=1)


@dataclass
class Clock(TrainerCallback):  # type: ignore[misc]
    """Times of the ends of steps; the first step warms up."""

    ends: list[float] = field(default_factory=list)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Mean seconds of a step, from the end of the first to the end of the last."""
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)


def make_pairs(count: int, seed: int = 0) -> list[RenderedPair]:
    """Random token ids with the lengths of the benchmark."""
    draws = np.random.default_rng(seed)

    def ids(length: int) -> list[int]:
        return [int(token) for token in draws.integers(16, VOCABULARY, length)]

    pairs = []
    for _ in range(count):
        prompt = ids(PROMPT)
        up, down = (ids(int(draws.integers(SHORTEST, LONGEST + 1))) for _ in range(2))
        pairs.append(RenderedPair(prompt + up, prompt + down))
    return pairs


def our_step(
    causal: LlamaForCausalLM, tokenizer: Any, stacked: bool
) -> Callable[[Sequence[RenderedPair]], float]:
    """Seconds a step of ours, in the form that it chooses or in the stacked one."""
    backbone = Backbone(ModelConfig(base="random", device="cpu"), copy.deepcopy(causal), tokenizer)
    backbone.add_adapter("reward", ADAPTER, 0)
    head = linear_head(backbone.hidden_size, 0, backbone.device)
    model = PairScorer(SharedScorer(backbone, "reward", head))

    def run(pairs: Sequence[RenderedPair]) -> float:
        pad = tokenizer.pad_token_id
        form = choose_form(model, pairs, SETTINGS.batch_size, SETTINGS.loss, pad)
        collator = StackedCollator(pad) if stacked else form.collator
        clock = Clock()
        with TemporaryDirectory() as folder, backbone.using("reward"):
            trainer = pair_trainer(SETTINGS, model, pairs, collator, 0, "benchmark", folder)
            trainer.add_callback(clock)
            trainer.train()
        return clock.seconds

    return run


def their_step(
    causal: LlamaForCausalLM, tokenizer: Any
) -> Callable[[Sequence[RenderedPair]], float]:
    """Seconds a step of `RewardTrainer`."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForSequenceClassification
    from transformers.trainer_callback import PrinterCallback
    from trl import RewardConfig as TrlConfig
    from trl import RewardTrainer

    classifier = LlamaForSequenceClassification(LlamaConfig(**SHAPE, num_labels=1))
    classifier.model.load_state_dict(causal.model.state_dict())
    lora = LoraConfig(
        r=ADAPTER.r, lora_alpha=ADAPTER.alpha, target_modules="all-linear", task_type="SEQ_CLS"
    )
    model = get_peft_model(classifier, lora)

    def run(pairs: Sequence[RenderedPair]) -> float:
        rows = [{"chosen_ids": pair.positive, "rejected_ids": pair.negative} for pair in pairs]
        clock = Clock()
        with TemporaryDirectory() as folder:
            shared = shared_arguments(SETTINGS, torch.device("cpu"), 0, folder)
            trainer = RewardTrainer(
                model=model,
                args=TrlConfig(**shared, save_strategy="no", max_length=None),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return clock.seconds

    return run


def measure(repeats: int, quick: bool = False) -> dict[str, float]:
    """Ratios of seconds a step: theirs over ours, and our stacked over our packed form.

    Args:
        repeats: rounds; each trains a few steps of each.
        quick: two steps a round rather than four, to see that it runs.
    """
    torch.set_num_threads(1)
    quiet_libraries()
    torch.manual_seed(0)
    causal = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False)).eval()
    tokenizer = load_tokenizer(str(BASE), VOCABULARY)
    packed, stacked = (our_step(causal, tokenizer, stacked=form) for form in (False, True))
    theirs = their_step(causal, tokenizer)
    rounds = []
    for number in range(repeats):
        pairs = make_pairs(SETTINGS.batch_size * (1 + (2 if quick else 4)), number)
        rounds.append((theirs(pairs), stacked(pairs), packed(pairs)))
    return {
        "reward_training": statistics.median(a / c for a, _, c in rounds),
        "reward_training_stacked": statistics.median(a / b for a, b, _ in rounds),
        "packed_over_stacked": statistics.median(b / c for _, b, c in rounds),
        "seconds_a_step": statistics.median(c for _, _, c in rounds),
    }


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.repeats, arguments.quick)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for name, value in found.items():
            sys.stdout.write(f"{name}: {value:.2f}\n")


if __name__ == "__main__":
    main()
