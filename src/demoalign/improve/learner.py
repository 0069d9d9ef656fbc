"""The weights that a policy-gradient training changes, their optimiser and their resume points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from demoalign.config import PolicyGradientConfig, PpoConfig
from demoalign.errors import TrainingError
from demoalign.improve.moments import moments_of, restore_moments
from demoalign.improve.surrogate import Lesson, lesson_loss, share_of
from demoalign.policies.last_hidden import Row
from demoalign.policies.learning import Learned, learned_logprobs
from demoalign.policies.policy import Policy
from demoalign.processes import add_up_gradients, joined, mine, of_all


class Learner:
    """A policy, a value head for ppo, and AdamW on both.

    Args:
        policy: whose active weights learn: its adapter's, or all of them.
        config: of the optimiser.
        steps: that the whole training takes, for the schedule.
    """

    def __init__(self, policy: Policy, config: PolicyGradientConfig, steps: int) -> None:
        assert config.learning_rate is not None
        self.policy, self.config, self.steps = policy, config, steps
        self.taken = 0
        backbone = policy.backbone
        self.weights = learning_weights(policy)
        self.value: nn.Linear | None = None
        groups: list[dict[str, Any]] = [
            {"params": list(self.weights.values()), "lr": config.learning_rate}
        ]
        if isinstance(config, PpoConfig):
            self.value = nn.Linear(backbone.hidden_size, 1).to(backbone.device)
            nn.init.zeros_(self.value.weight)
            nn.init.zeros_(self.value.bias)
            groups.append({"params": [*self.value.parameters()], "lr": config.value_learning_rate})
        self._rates = [group["lr"] for group in groups]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    def values(self, learned: Learned) -> Tensor | None:
        """(B, T) of the value function, which reads the policy's states but leaves them alone."""
        if self.value is None:
            return None
        found: Tensor = self.value(learned.states.detach().float()).squeeze(-1)
        return found

    @torch.no_grad()
    def read(self, rows: tuple[Row, ...]) -> tuple[Tensor, Tensor | None]:
        """(B, T) log-probabilities and values before learning."""
        width = max(len(row.completion) for row in rows)
        logprobs, values = torch.zeros(len(rows), width), torch.zeros(len(rows), width)
        chunks = self._chunks(rows, list(range(len(rows))))
        read: list[tuple[Tensor, Tensor | None]] = []
        with self.policy.active():
            for chunk in mine(chunks):
                learned = learned_logprobs(self.policy.backbone.causal, [rows[i] for i in chunk])
                found = self.values(learned)
                read.append(
                    (
                        learned.logprobs.float().cpu(),
                        found if found is None else found.float().cpu(),
                    )
                )
        for chunk, (known, found) in zip(chunks, joined(read), strict=True):
            logprobs[chunk, : known.shape[1]] = known
            if found is not None:
                values[chunk, : known.shape[1]] = found
        return logprobs, None if self.value is None else values

    def learn(self, rows: tuple[Row, ...], lesson: Lesson, seed: int) -> dict[str, float]:
        """All passes over one round; what is noted is means over its steps.

        Raises:
            TrainingError: the loss is not finite.
        """
        config, generator = self.config, torch.Generator().manual_seed(seed)
        noted: list[dict[str, float]] = []
        with self.policy.active():
            for _ in range(config.passes):
                order = torch.randperm(len(rows), generator=generator)
                for part in order.tensor_split(config.minibatches):
                    if len(part):
                        noted.append(self._step(rows, lesson, part))
        return {key: sum(each[key] for each in noted) / len(noted) for key in noted[0]}

    def _step(self, rows: tuple[Row, ...], lesson: Lesson, part: Tensor) -> dict[str, float]:
        """One step of the optimiser on some of the completions, which processes share."""
        device = self.policy.backbone.device
        whole = lesson.take(part, lesson.mask.shape[1], torch.device("cpu"))
        total = clipped = 0.0
        self.optimiser.zero_grad(set_to_none=True)
        for chunk in mine(self._chunks(rows, part.tolist())):
            learned = learned_logprobs(self.policy.backbone.causal, [rows[i] for i in chunk])
            width = learned.logprobs.shape[1]
            given = lesson.take(torch.tensor(chunk), width, device)
            share = share_of(self.config, given, whole)
            loss = lesson_loss(self.config, given, learned.logprobs, self.values(learned)) * share
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            clipped += share * self._clipped(given, learned.logprobs.detach())
        total, clipped = map(sum, zip(*of_all((total, clipped)), strict=True))
        self._refuse_nonfinite(total)
        add_up_gradients(self._parameters())
        norm = nn.utils.clip_grad_norm_(self._parameters(), self.config.max_grad_norm)
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self._schedule()
        self.optimiser.step()
        self.taken += 1
        return {"loss": total, "gradient_norm": float(norm), "clipped": clipped}

    def _clipped(self, lesson: Lesson, logprobs: Tensor) -> float:
        """Share of importance ratios beyond the clip."""
        gaps = logprobs - lesson.old
        if lesson.advantages.shape[1] == 1 and self.config.method == "rloo":
            return float(((gaps.sum(-1).exp() - 1).abs() > self.config.clip).float().mean())
        beyond = ((gaps.exp() - 1).abs() > self.config.clip) * lesson.mask
        return float(beyond.sum() / lesson.mask.sum().clamp(min=1))

    def _schedule(self) -> float:
        """The learning rate's factor at the next step."""
        warm = min(1.0, (self.taken + 1) / (self.config.warmup + 1))
        done = min(1.0, self.taken / max(1, self.steps))
        if self.config.schedule == "linear":
            return warm * (1 - done)
        return (
            warm * (1 + math.cos(math.pi * done)) / 2 if self.config.schedule == "cosine" else warm
        )

    def _chunks(self, rows: tuple[Row, ...], order: list[int]) -> list[list[int]]:
        """Rows of similar length, as many as fit a forward pass."""
        by_length = sorted(order, key=lambda i: len(rows[i].prompt) + len(rows[i].completion))
        size = self.config.batch_size
        return [by_length[start : start + size] for start in range(0, len(by_length), size)]

    def _parameters(self) -> list[Tensor]:
        return [weight for group in self.optimiser.param_groups for weight in group["params"]]

    def _refuse_nonfinite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"improve: loss must be finite, found {loss} at step "
                f"{self.taken + 1}. The weights of the last resume point are kept. Lower "
                "improve.learning_rate, or set improve.reward_clip."
            )

    def state(self) -> dict[str, Tensor]:
        """Everything that learning changes, by name."""
        found = policy_weights(self.policy)
        if self.value is not None:
            found |= {f"value.{k}": v.detach() for k, v in self.value.state_dict().items()}
        found |= moments_of(self.optimiser)
        found["taken"] = torch.tensor(self.taken)
        return {key: each.contiguous().cpu().clone() for key, each in found.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.taken = int(state["taken"])
        restore_weights(self.policy, state)
        if self.value is not None:
            self.value.load_state_dict(
                {k.removeprefix("value."): v for k, v in state.items() if k.startswith("value.")}
            )
        restore_moments(self.optimiser, state)


def learning_weights(policy: Policy) -> dict[str, Tensor]:
    """The weights of a policy that learn, by name: its adapter's, or all of them."""
    with policy.active():
        named = policy.backbone.causal.named_parameters()
        return {name: weight for name, weight in named if weight.requires_grad}


def policy_weights(policy: Policy) -> dict[str, Tensor]:
    """A copy of what a policy has learned."""
    found = {f"weight.{k}": v.detach() for k, v in learning_weights(policy).items()}
    return {key: each.contiguous().cpu().clone() for key, each in found.items()}


@torch.no_grad()
def restore_weights(policy: Policy, state: Mapping[str, Tensor]) -> None:
    """Take back what `policy_weights` gave."""
    for name, weight in learning_weights(policy).items():
        weight.copy_(state[f"weight.{name}"])


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(dict(state), partial)
    partial.replace(path)


def load_state(path: Path) -> dict[str, Tensor]:
    """Tensors that `save_state` wrote."""
    from safetensors.torch import load_file

    found: dict[str, Tensor] = load_file(path)
    return found
