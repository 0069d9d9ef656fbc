"""Learning a reward model from comparisons."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from demoalign.config import ModelConfig, RewardConfig
from demoalign.demonstrations.render import render
from demoalign.errors import TrainingError
from demoalign.policies.backbone import Backbone
from demoalign.policies.load import load_model
from demoalign.policies.policy import Policy
from demoalign.policies.training import (
    CHECKPOINTING,
    ProgressCallback,
    refuse_nonfinite,
    shared_arguments,
)
from demoalign.progress import meter
from demoalign.rewards.comparisons import Comparison
from demoalign.rewards.forms import choose_form
from demoalign.rewards.heads import fit_head
from demoalign.rewards.losses import pair_loss, squared_error
from demoalign.rewards.packing import Collator, PairScorer, RenderedPair, by_side
from demoalign.rewards.reward_model import RewardModel, adapter_name
from demoalign.rewards.scorers import Scorer, SharedScorer, WholeScorer, linear_head


def render_pairs(
    tokenizer: Any, comparisons: Sequence[Comparison], max_length: int
) -> list[RenderedPair]:
    """Render comparisons; answers whose sequence is longer than ``max_length`` are cut."""
    rows = []
    for pair in comparisons:
        up, down = pair.positive, pair.negative
        positive = render(tokenizer, pair.prompt, up.completion, up.finished).ids
        negative = render(tokenizer, pair.prompt, down.completion, down.finished).ids
        rows.append(RenderedPair(positive[:max_length], negative[:max_length]))
    return rows


def train_reward_model(
    config: RewardConfig,
    model_config: ModelConfig,
    backbone: Backbone,
    sft: Policy | None,
    comparisons: Sequence[Comparison],
    seed: int,
    name: str,
) -> tuple[RewardModel, list[float]]:
    """Train a reward model of the kind that the recipe asks for.

    Args:
        config: kind, loss and optimiser.
        model_config: the base model, for ``full``.
        backbone: the base's shared weights; gains an adapter for ``adapter``.
        sft: the SFT policy, whose hidden states a ``head`` reads.
        comparisons: training pairs.
        seed: of initial weights and data order.
        name: the reward model's name.

    Returns:
        The model and its training losses (nats).

    Raises:
        TrainingError: the loss is no longer finite.
    """
    pairs = render_pairs(backbone.tokenizer, comparisons, config.max_length)
    if config.model == "head":
        if sft is None:
            raise TrainingError("reward.model: head needs the SFT policy, found none")
        return fit_head(config, sft, pairs, seed, name)
    scorer = fresh_scorer(config, model_config, backbone, seed, name)
    losses = train_scorer(config, scorer, backbone, pairs, seed, name)
    return RewardModel(name, scorer, backbone.tokenizer), losses


def fresh_scorer(
    config: RewardConfig,
    model_config: ModelConfig,
    backbone: Backbone,
    seed: int,
    name: str,
    start: Path | None = None,
) -> Scorer:
    """A network with an untrained head for ``adapter`` or ``full``.

    Args:
        config, model_config, backbone, seed, name: as in `train_reward_model`.
        start: folder of a policy of the run whose weights it begins with; None for the base's.
    """
    has_variance = config.loss == "bradley_terry_variance"
    size, device = backbone.hidden_size, backbone.device
    variance = linear_head(size, seed + 1, device) if has_variance else None
    if config.model == "adapter" and model_config.adapter.kind == "lora":
        adapter = adapter_name(name)
        if start is None:
            backbone.add_adapter(adapter, model_config.adapter, seed)
        else:
            backbone.load_adapter(adapter, start)
        return SharedScorer(backbone, adapter, linear_head(size, seed, device), variance)
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    base = model_config.base if start is None else str(start)
    model = load_model(AutoModelForSequenceClassification, base, model_config, num_labels=1)
    model.config.pad_token_id = backbone.tokenizer.pad_token_id
    with torch.no_grad():
        model.score.weight.copy_(linear_head(size, seed, device).weight)
    return WholeScorer(model, variance)


def train_scorer(
    config: RewardConfig,
    scorer: Scorer,
    backbone: Backbone,
    pairs: Sequence[RenderedPair],
    seed: int,
    name: str,
) -> list[float]:
    """Train a network on rendered pairs, to their targets if they have any: the losses."""
    steps = math.ceil(math.ceil(len(pairs) / config.batch_size) / config.accumulation)
    model = PairScorer(scorer)
    with (
        TemporaryDirectory() as scratch,
        backbone.using(scorer.adapter if isinstance(scorer, SharedScorer) else None),
    ):
        pad = backbone.tokenizer.pad_token_id
        plain = [dataclasses.replace(pair, targets=None) for pair in pairs]
        form = choose_form(model, plain, config.batch_size, config.loss, pad)
        sys.stderr.write(f"reward model {name}: {form.reason}\n")
        with meter(f"reward model {name}", math.ceil(steps * config.epochs)) as shown:
            trainer = pair_trainer(config, model, pairs, form.collator, seed, name, scratch)
            trainer.add_callback(ProgressCallback(shown))
            trainer.train()
    scorer.eval()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def pair_trainer(
    config: RewardConfig,
    model: PairScorer,
    pairs: Sequence[RenderedPair],
    collator: Collator,
    seed: int,
    name: str,
    folder: str,
) -> Any:
    """transformers' trainer of a scorer on pairs in either form.

    Args:
        config: loss and optimiser.
        model: changed in place, in whatever adapter is active while it trains.
        pairs: training data; its order is drawn from the seed.
        collator: the form that a batch of pairs takes.
        seed: of data order and dropout.
        name: the reward model's, for error messages.
        folder: for the trainer's files; none are kept.
    """
    from transformers import TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    if config.gradient_checkpointing:
        _checkpoint_layers(model.trunk)
    shared = shared_arguments(config, model.scorer.device, seed, folder)
    trainer = _trainer(config.loss, name)(
        model=model,
        args=TrainingArguments(**{**shared, CHECKPOINTING: False}, save_strategy="no"),
        train_dataset=list(pairs),
        data_collator=collator,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _checkpoint_layers(trunk: Any) -> None:
    """Recompute layers in the backward pass; the trainer knows no trunk inside of a scorer."""
    known = getattr(trunk, "activation_checkpointing_enable", None)
    enable = known or trunk.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _trainer(loss_name: str, name: str) -> Any:
    from transformers import Trainer

    class PairTrainer(Trainer):  # type: ignore[misc]
        def compute_loss(
            self,
            model: nn.Module,
            inputs: dict[str, Tensor],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            targets = inputs.pop("targets", None)
            rewards, variances = model(**inputs)
            ups, downs = by_side(rewards)
            up_v, down_v = (None, None) if variances is None else by_side(variances)
            if targets is None:
                loss = pair_loss(loss_name, (ups, up_v), (downs, down_v))
            else:
                loss = squared_error(ups, downs, targets[0], targets[1])
            refuse_nonfinite(loss, f"reward {name}", self.state.global_step)
            return (loss, rewards) if return_outputs else loss

    return PairTrainer
