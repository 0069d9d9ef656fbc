"""A policy made of two others: their logits, combined at every token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from demoalign.errors import ModelError
from demoalign.policies.backbone import Backbone
from demoalign.policies.expanded_prefix import ExpandedDecoder
from demoalign.policies.policy import Policy
from demoalign.policies.shared_prefix import Next, SharedDecoder

FAR = 2**30
"""Tokens since the last one outside, where there was none."""


class Combination(Protocol):
    """How two policies' logits become those of a third: pure functions."""

    def combine(self, first: Tensor, second: Tensor, since: Tensor) -> Tensor:
        """Logits (B, V) of the third.

        Args:
            first: (B, V) logits of the first policy.
            second: (B, V) log-probabilities of the second one, float32.
            since: (B,) tokens said since the last one that was `outside`; `FAR` if none was.
        """
        ...

    def outside(self, second: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
        """(B,) whether tokens (B,) lie outside the second policy's support.

        Args:
            second: (., V) its log-probabilities, as `combine` was given them.
            rows: (B,) which of them each token was drawn after.
            tokens: (B,) ids.
        """
        ...


@dataclass(frozen=True, slots=True)
class CombinedPolicy:
    """pi(y_t | x, y_<t) = softmax of what two policies' logits are combined to.

    Attributes:
        name: its rollouts carry it.
        first, second: the two policies, of one tokenizer; texts are rendered by the first's.
        combination: of their logits.
    """

    name: str
    first: Policy
    second: Policy
    combination: Combination

    def __post_init__(self) -> None:
        """Check that a token id means the same to both."""
        ours, theirs = self.first.backbone.tokenizer, self.second.backbone.tokenizer
        if ours is not theirs and ours.get_vocab() != theirs.get_vocab():
            raise ModelError(
                f"{self.name}: both policies must have the same vocabulary, found another one in "
                f"{self.second.name}. Use policies of one base model."
            )

    @property
    def backbone(self) -> Backbone:
        """The first policy's."""
        return self.first.backbone

    @property
    def context(self) -> int | None:
        """Most tokens that both can read, if they say."""
        known = [p.backbone.context for p in (self.first, self.second)]
        return min((each for each in known if each is not None), default=None)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Nothing to switch: `PairedDecoder` does at every step, where it must."""
        yield


class Side(NamedTuple):
    """One of the two: its decoder, and the policy to switch on while it computes, if any."""

    decoder: Any
    policy: Policy | None


class PairedBranches:
    """The same rows under both policies.

    Attributes:
        first, second: what the two decoders hold of them.
        seen: (., V) the second policy's log-probabilities before the rows' last tokens were drawn.
        index: (n,) which of them is each row's.
        since: (n,) tokens since the last one outside the second policy's support.
    """

    def __init__(self, first: Any, second: Any, seen: Tensor, index: Tensor) -> None:
        self.first = first
        self.second = second
        self.seen = seen
        self.index = index
        self.since = torch.full_like(index, FAR)

    @property
    def rows(self) -> int:
        """How many."""
        rows: int = self.first.rows
        return rows

    def drop(self, dead: Tensor) -> Tensor:
        """Forget rows in both; where each row that is kept stood before."""
        self.second.drop(dead)
        order: Tensor = self.first.drop(dead)
        self.index, self.since = self.index[order], self.since[order]
        return order


class PairedRead(NamedTuple):
    """Prompts that both have read, and the second policy's log-probabilities (G, V) behind them."""

    first: Any
    second: Any
    seen: Tensor


class PairedDecoder:
    """Steps of two causal models side by side: two forward passes a token, two sets of caches.

    If both are adapters on the same weights, these are switched between the two passes, and only
    one thread may use the decoder.

    Attributes:
        causal: the first model; hidden states are its.
        switches: whether both sides compute with the same weights.
    """

    def __init__(self, first: Side, second: Side, combination: Combination) -> None:
        self.first = first
        self.second = second
        self.combination = combination
        self.causal = first.decoder.causal
        self.device: torch.device = first.decoder.device
        self.switches = first.decoder is second.decoder

    @property
    def is_shared(self) -> bool:
        """Whether prompts are read once for all their completions."""
        return isinstance(self.first.decoder, SharedDecoder)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Everything else happens inside this."""
        with ExitStack() as stack:
            stack.enter_context(self.first.decoder.active())
            if not self.switches:
                stack.enter_context(self.second.decoder.active())
                for side in (self.first, self.second):
                    stack.enter_context(side.policy.active() if side.policy else nullcontext())
            yield

    def open(self, prompts: Sequence[Sequence[int]]) -> tuple[PairedRead, Next]:
        """Read prompts with both."""
        with self._turn(self.first):
            read, first = self.first.decoder.open(prompts)
        with self._turn(self.second):
            other, second = self.second.decoder.open(prompts)
        since = torch.full((len(prompts),), FAR, device=self.device)
        after, seen = self._next(first, second, since)
        return PairedRead(read, other, seen), after

    def branch(self, read: PairedRead, owner: Tensor) -> PairedBranches:
        """Rows that continue prompts that were read."""
        return PairedBranches(
            self.first.decoder.branch(read.first, owner),
            self.second.decoder.branch(read.second, owner),
            read.seen,
            owner,
        )

    def step(
        self, groups: Sequence[PairedBranches], tokens: Tensor, wanted: Tensor | None = None
    ) -> Next:
        """As `SharedDecoder.step`; hidden states are the first policy's."""
        sizes = [group.rows for group in groups]
        for group, said in zip(groups, torch.split(tokens, sizes), strict=True):
            outside = self.combination.outside(group.seen, group.index, said)
            group.since = torch.where(outside, 0, (group.since + 1).clamp(max=FAR))
        with self._turn(self.first):
            first = self.first.decoder.step([group.first for group in groups], tokens, wanted)
        with self._turn(self.second):
            second = self.second.decoder.step([group.second for group in groups], tokens, wanted)
        since = torch.cat([group.since for group in groups])
        rows = torch.arange(len(tokens), device=self.device)
        after, seen = self._next(first, second, since if wanted is None else since[wanted])
        index = rows if wanted is None else torch.zeros_like(rows)
        if wanted is not None:  # the others have ended and are dropped before the next step
            index[wanted] = rows[: len(wanted)]
        for group, part in zip(groups, torch.split(index, sizes), strict=True):
            group.seen, group.index = seen, part
        return after

    def _turn(self, side: Side) -> Any:
        return side.policy.active() if self.switches and side.policy else nullcontext()

    def _next(self, first: Next, second: Next, since: Tensor) -> tuple[Next, Tensor]:
        """What comes next, and the second policy's log-probabilities."""
        size = min(first.logits.shape[-1], second.logits.shape[-1])  # padding behind the vocabulary
        seen = second.logits[:, :size].to(first.logits.device).float().log_softmax(-1)
        logits = self.combination.combine(first.logits[:, :size], seen, since)
        return Next(logits, first.hidden), seen


def pair_decoders(policy: CombinedPolicy, models: tuple[Any, Any], shares: bool) -> PairedDecoder:
    """The decoder of a combined policy.

    Args:
        policy: the two policies and how they are combined.
        models: what to compute with: the policies' own weights, or copies of them.
        shares: whether both architectures can share prompts.
    """
    kind = SharedDecoder if shares else ExpandedDecoder
    first = kind(models[0])
    second = first if models[1] is models[0] else kind(models[1])
    sides = [
        Side(decoder, each if decoder.causal is each.backbone.causal else None)
        for decoder, each in zip((first, second), (policy.first, policy.second), strict=True)
    ]
    return PairedDecoder(sides[0], sides[1], policy.combination)
