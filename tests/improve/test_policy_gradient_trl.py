"""The policy-gradient core against TRL's trainers: their batch, advantages, loss and gradient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from demoalign.improve.policy_gradient import (
    grpo_advantages,
    kl_penalised,
    kl_to_reference,
    masked_mean,
    rloo_advantages,
    sequence_loss,
    token_loss,
)
from tests.conftest import ModelFolder

GROUP = 4
QUESTIONS = ["Why?", "The router is off. What now?", "Is it?"]
REWARDS = [1.0, -2.0, None, 0.5, 3.0, 3.0, 3.0, 3.0, None, 7.0, None, None]
"""Of three prompts' answers: one not scored, all equal, and only one scored."""


class Batch(NamedTuple):
    """What a trainer made of its prompts, and what three sets of weights say of it.

    Attributes:
        trainer: of TRL; its weights are ``new``.
        inputs: as its own loss takes them.
        mask: (B, T) of completion tokens.
        old, reference: (B, T) log-probabilities when sampled, and under the reference.
        new: computes them now, with a gradient.
    """

    trainer: Any
    inputs: dict[str, Tensor]
    mask: Tensor
    old: Tensor
    reference: Tensor
    new: Callable[[], Tensor]


def disturbed(model: Any, seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(size * parameter.std().nan_to_num() * noise)


def logprobs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """(B, T) from plain logits, one row at a time without its padding; 0 on padding."""
    rows = []
    for prompt, prompt_mask, answer, mask in zip(
        *(
            inputs[f"{side}_{what}"]
            for side in ("prompt", "completion")
            for what in ("ids", "mask")
        ),
        strict=True,
    ):
        asked, said = prompt[prompt_mask.bool()], answer[mask.bool()]
        logits = model(input_ids=torch.cat([asked, said])[None]).logits[0].log_softmax(-1)
        known = logits[len(asked) - 1 : -1].gather(1, said[:, None])[:, 0]
        rows.append(torch.nn.functional.pad(known, (0, len(answer) - len(said))))
    return torch.stack(rows)


def batch_of(kind: Any, make_config: Any, base: Path, folder: Path, **settings: Any) -> Batch:
    """A policy that is not its reference samples, and has moved on since."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    disturbed(model, 0, 0.1)
    plain = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": len(REWARDS),
        "num_generations": GROUP,
        "max_completion_length": 10,
        "gradient_checkpointing": False,
        "report_to": "none",
        "num_iterations": 2,
    }
    trainer = kind(
        model=model,
        args=make_config(**plain, **settings),
        reward_funcs=given_rewards,
        processing_class=AutoTokenizer.from_pretrained(base),
        train_dataset=Dataset.from_list([{"prompt": text} for text in QUESTIONS]),
    )
    trainer.current_gradient_accumulation_steps = 1
    asked = [{"prompt": text} for text in QUESTIONS for _ in range(GROUP)]
    trainer.model.train()
    inputs = trainer._generate_and_score_completions(asked)
    lengths = inputs["completion_mask"].sum(1)
    assert lengths.min() < lengths.max()
    with torch.no_grad():
        old = logprobs(model, inputs)
        reference = logprobs(AutoModelForCausalLM.from_pretrained(base), inputs)
    disturbed(model, 1, 0.1)
    mask = inputs["completion_mask"].float()
    return Batch(trainer, inputs, mask, old, reference, lambda: logprobs(model, inputs))


def given_rewards(**_: Any) -> list[float | None]:
    return list(REWARDS)


def rewards() -> Tensor:
    return torch.tensor([float("nan") if each is None else each for each in REWARDS])


def gradient(loss: Tensor, model: Any) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([each.flatten() for each in found])


def compare(batch: Batch, loss: Tensor) -> None:
    """Ours against what the trainer's own loss gives for the same batch and weights."""
    model = batch.trainer.model
    theirs = batch.trainer.compute_loss(model, batch.inputs)
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)
    ours = gradient(loss, model)
    torch.testing.assert_close(ours, gradient(theirs, model), rtol=1e-3, atol=1e-5)
    assert ours.abs().max() > 1e-2


@pytest.mark.parametrize(("beta", "clip"), [(0.0, 0.2), (0.3, 0.2), (0.3, 0.05)])
def test_rloo(model_folder: ModelFolder, tmp_path: Path, beta: float, clip: float) -> None:
    given = RLOOTrainer, RLOOConfig, model_folder("llama", "bos"), tmp_path
    batch = batch_of(*given, beta=beta, epsilon=clip)
    penalised = kl_penalised(rewards(), batch.old, batch.reference, beta)
    advantages = rloo_advantages(penalised.view(-1, GROUP)).flatten()
    torch.testing.assert_close(advantages, batch.inputs["advantages"], rtol=1e-4, atol=1e-5)
    assert advantages[[2, 8, 9, 10, 11]].abs().max() == 0  # not scored, or scored alone
    new = batch.new()
    ratio = (new - batch.old).sum(-1).exp()
    assert ((ratio - 1).abs() > clip).any()
    compare(batch, sequence_loss(new, batch.old, advantages, clip))


@pytest.mark.parametrize(
    ("beta", "clip", "loss", "corrected"),
    [(0.0, 0.2, "grpo", True), (0.2, 0.2, "grpo", True), (0.2, 0.05, "bnpo", False)],
)
def test_grpo(
    model_folder: ModelFolder,
    tmp_path: Path,
    beta: float,
    clip: float,
    loss: str,
    corrected: bool,
) -> None:
    """TRL's ``grpo`` averages by completion, its ``bnpo`` over all tokens, as PPO does.

    Its KL penalty has importance weights by default (``use_bias_correction_kl``).
    """
    given = GRPOTrainer, GRPOConfig, model_folder("llama", "bos"), tmp_path
    settings: dict[str, Any] = {
        "beta": beta,
        "epsilon": clip,
        "loss_type": loss,
        "scale_rewards": "group",
    }
    batch = batch_of(*given, **settings, use_bias_correction_kl=corrected)
    advantages = grpo_advantages(rewards().view(-1, GROUP)).flatten()
    wanted = batch.inputs["advantages"]
    torch.testing.assert_close(advantages, wanted, rtol=1e-4, atol=1e-5)
    assert advantages[4:8].abs().max() == 0  # all equal
    new, by_completion = batch.new(), loss == "grpo"
    assert (((new - batch.old).exp() - 1).abs() > clip).any()
    given_loss = new, batch.old, advantages[:, None], batch.mask, clip
    ours = token_loss(*given_loss, by_completion=by_completion)
    penalty = kl_to_reference(new, batch.reference, batch.old if corrected else None)
    compare(batch, ours + beta * masked_mean(penalty, batch.mask, by_completion=by_completion))
