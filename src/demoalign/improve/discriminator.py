"""A discriminator that learns step by step, of whole completions or of every token.

It is an adapter on the shared backbone with a linear head, as reward models are (Eq. 9 to 12); at
the token level the head reads the state behind every token of the completion, and its logit is
that of the state-action pair (Eq. 30, 31).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import binary_cross_entropy_with_logits

from demoalign.config import DiscriminatorConfig
from demoalign.errors import TrainingError
from demoalign.improve.moments import moments_of, restore_moments
from demoalign.policies.backbone import Backbone
from demoalign.policies.last_hidden import Row
from demoalign.policies.learning import completion_mask
from demoalign.policies.shared_prefix import right_padded
from demoalign.processes import add_up_gradients, joined, mine, of_all, parts
from demoalign.rewards.losses import calibration_error
from demoalign.rewards.packing import PairScorer
from demoalign.rewards.scorers import Scorer, SharedScorer

Array = NDArray[np.float64]

TOGETHER = 16
"""Rows of like length that a step reads in one pass, so that little of it is padding."""


class Judged(NamedTuple):
    """Logits (B, T) and which of them count (B, T); T is 1 for whole completions."""

    logits: Tensor
    mask: Tensor


class Learning(NamedTuple):
    """Completions that a step learns from, as far as they are read together.

    Attributes:
        judged: logits.
        labels: (B, T) 1 for positives.
        embedded: (B, L, H) what was read, if the gradient by it is penalised.
    """

    judged: Judged
    labels: Tensor
    embedded: Tensor | None


class Discriminator:
    """A scorer, its optimiser and its regularisers.

    Args:
        backbone: the shared weights.
        scorer: network with its head.
        config: of learning.
        by_token: whether every token has a logit, or the last one only.
    """

    def __init__(
        self, backbone: Backbone, scorer: Scorer, config: DiscriminatorConfig, by_token: bool
    ) -> None:
        self.backbone, self.scorer = backbone, scorer
        self.config, self.by_token = config, by_token
        with backbone.using(self.adapter):
            self.weights = [
                weight for weight in self._trunk.parameters() if weight.requires_grad
            ] + list(self.head.parameters())
        self.optimiser = torch.optim.AdamW(
            self.weights, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._hold_norm()

    @property
    def adapter(self) -> str | None:
        """Which adapter of the backbone learns."""
        return self.scorer.adapter if isinstance(self.scorer, SharedScorer) else None

    @property
    def head(self) -> nn.Linear:
        """(H -> 1)."""
        scorer = self.scorer
        head: nn.Linear = scorer.head if isinstance(scorer, SharedScorer) else scorer.model.score
        return head

    @property
    def _trunk(self) -> Any:
        return PairScorer(self.scorer).trunk

    @torch.no_grad()
    def logits(self, rows: Sequence[Row], batch_size: int = 64) -> list[Array]:
        """Logits of each completion: (1,), or (T,) of its tokens."""
        found: list[Array] = [np.zeros(0)] * len(rows)
        self.scorer.eval()
        chunks = _chunks(rows, batch_size)
        judged: list[list[Array]] = []
        with self.backbone.using(self.adapter):
            for chunk in mine(chunks):
                logits, mask = self._judge([rows[i] for i in chunk])
                values, known = logits.double().cpu().numpy(), mask.cpu().numpy()
                judged.append([row[kept] for row, kept in zip(values, known, strict=True)])
        for chunk, each in zip(chunks, joined(judged), strict=True):
            for number, logits_of in zip(chunk, each, strict=True):
                found[number] = logits_of
        return found

    def step(self, positives: Sequence[Row], negatives: Sequence[Row]) -> dict[str, float | None]:
        """One step on positives against negatives, unless it is good enough already.

        Returns:
            ``accuracy``, ``calibration`` error and ``loss`` (BCE, nats) before the step, of these
            completions, and whether it learned (1 or 0).

        Raises:
            TrainingError: the loss is not finite.
        """
        if len(positives) < parts():
            raise TrainingError(
                "improve.discriminator.batch_size: a step needs a pair for each of the "
                f"{parts()} processes, found {len(positives)}"
            )
        ups, downs = mine(positives), mine(negatives)
        rows, config = [*ups, *downs], self.config
        self.scorer.eval()  # no dropout: the policy is rewarded by what learned
        penalised = config.gradient_penalty > 0
        exact = sdpa_kernel(SDPBackend.MATH) if penalised else nullcontext()  # twice differentiable
        with self.backbone.using(self.adapter), exact:
            self.optimiser.zero_grad(set_to_none=True)
            read = [self._read(rows, chunk, len(ups)) for chunk in _chunks(rows, TOGETHER)]
            seen = _seen(read)
            facts = _facts(*seen)
            target = config.target_accuracy
            if target is not None and (facts["discriminator_accuracy"] or 0) > target:
                return {**facts, "discriminator_learned": 0.0}
            smoothing, count = config.label_smoothing, max(1, len(seen[0]))
            loss = torch.zeros((), device=self.backbone.device)
            for judged, labels, embedded in read:
                smooth = labels * (1 - 2 * smoothing) + smoothing
                loss = loss + (_bce(judged.logits, smooth) * judged.mask).sum() / count
                if embedded is not None:
                    weight = config.gradient_penalty / (len(positives) + len(negatives))
                    loss = loss + weight * self._penalty(judged, embedded)
            found = sum(of_all(float(loss.detach())))
            if not math.isfinite(found):
                raise TrainingError(
                    f"improve.discriminator: loss must be finite, found {found}. "
                    "Lower improve.discriminator.learning_rate."
                )
            loss.backward()  # type: ignore[no-untyped-call]
            add_up_gradients(self.weights)
            nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimiser.step()
        self._hold_norm()
        return {**facts, "discriminator_learned": 1.0}

    def _read(self, rows: Sequence[Row], chunk: list[int], ups: int) -> Learning:
        """Some of the rows, of which the first ``ups`` are positives."""
        some = [rows[i] for i in chunk]
        embedded = self._embedded(some) if self.config.gradient_penalty > 0 else None
        judged = self._judge(some, embedded)
        labels = torch.tensor([float(i < ups) for i in chunk], device=judged.logits.device)
        return Learning(judged, labels[:, None].expand_as(judged.logits), embedded)

    def _embedded(self, rows: Sequence[Row]) -> Tensor:
        ids, _ = _padded(rows, self.backbone.device)
        embedded: Tensor = self._trunk.get_input_embeddings()(ids).detach()
        return embedded.requires_grad_()

    def _judge(self, rows: Sequence[Row], embedded: Tensor | None = None) -> Judged:
        ids, lengths = _padded(rows, self.backbone.device)
        steps = torch.arange(ids.shape[1], device=ids.device)
        given = {"input_ids": ids} if embedded is None else {"inputs_embeds": embedded}
        states = self._trunk(
            **given, attention_mask=(steps < lengths[:, None]).long(), use_cache=False
        ).last_hidden_state
        if not self.by_token:
            last = states[torch.arange(len(rows), device=ids.device), lengths - 1]
            logits = self.scorer.judge(last)[0][:, None]
            return Judged(logits, torch.ones_like(logits, dtype=torch.bool))
        mask = completion_mask(rows, ids.device)
        starts = torch.tensor([len(row.prompt) for row in rows], device=ids.device)
        places = (starts[:, None] + torch.arange(mask.shape[1], device=ids.device)).clamp(
            max=ids.shape[1] - 1
        )
        picked = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        return Judged(self.scorer.judge(picked)[0] * mask, mask)

    def _penalty(self, judged: Judged, embedded: Tensor) -> Tensor:
        """Squared norms of the gradient of a completion's mean logit by its embeddings, summed."""
        means = (judged.logits * judged.mask).sum(-1) / judged.mask.sum(-1).clamp(min=1)
        (gradient,) = torch.autograd.grad(means.sum(), embedded, create_graph=True)
        return gradient.square().sum()

    @torch.no_grad()
    def _hold_norm(self) -> None:
        """Spectral norm of a head with one output is the norm of its weights."""
        if self.config.spectral_norm:
            weight = self.head.weight
            weight.div_(weight.norm().clamp(min=1e-12))

    def state(self) -> dict[str, Tensor]:
        """Everything that learning changes, by name."""
        found = {f"weight.{i}": weight.detach() for i, weight in enumerate(self.weights)}
        found |= moments_of(self.optimiser)
        return {key: each.contiguous().cpu().clone() for key, each in found.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for number, weight in enumerate(self.weights):
            weight.copy_(state[f"weight.{number}"])
        restore_moments(self.optimiser, state)


def _chunks(rows: Sequence[Row], size: int) -> list[list[int]]:
    """Numbers of rows of like length, as many as are read together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].prompt) + len(rows[i].completion))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _seen(read: Sequence[Learning]) -> tuple[Tensor, Tensor]:
    """Logits and labels of all that counts, of every process that takes part in the step."""
    logits = torch.cat([each.judged.logits[each.judged.mask].detach().float() for each in read])
    labels = torch.cat([each.labels[each.judged.mask] for each in read])
    shares = of_all((logits.cpu(), labels.cpu()))
    every, wanted = (torch.cat(each) for each in zip(*shares, strict=True))
    return every, wanted


def _facts(logits: Tensor, labels: Tensor) -> dict[str, float | None]:
    return {
        "discriminator_accuracy": float(((logits > 0) == (labels > 0)).float().mean()),
        "discriminator_calibration": calibration_error(logits.sigmoid(), labels),
        "discriminator_loss": float(_bce(logits, labels).mean()),
    }


def _bce(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")


def _padded(rows: Sequence[Row], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, L) ids of prompts and completions, and their lengths (B,)."""
    whole = [row.prompt + row.completion for row in rows]
    ids = right_padded(whole, max(map(len, whole)), device)
    return ids, torch.tensor([len(each) for each in whole], device=device)
