"""The decode loop: rows that go on, rows that end, and waiting prompts that take their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from demoalign.records import FinishReason
from demoalign.rollouts.random_streams import stream_key, uniforms
from demoalign.rollouts.rejection import Rejection, survivors
from demoalign.rollouts.sampling import Draw, Truncation, draw, greedy
from demoalign.rollouts.stop_strings import StopStrings
from demoalign.rollouts.waiting import Start, WaitingPrompts

REFILL = 4
"""Waiting prompts are started once a REFILL-th of the places is free: each start costs a forward
pass over prompts, and each group a few operations a step."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sampler samples.

    Attributes:
        truncation: temperature, top-k, top-p.
        is_greedy: take the likeliest token instead.
        least: new tokens before the one that ends an answer, as in transformers and vLLM.
        most: new tokens, with it.
        seed: of the random streams.
        places: rows sampled at the same time.
        keeps_hidden: whether the final hidden state of the last token is wanted, at one more step
            a row.
        stop_strings: texts that end an answer.
        rejection: stops the least promising rows, or None.
    """

    truncation: Truncation
    is_greedy: bool
    least: int
    most: int
    seed: int
    places: int
    keeps_hidden: bool = False
    stop_strings: StopStrings | None = None
    rejection: Rejection | None = None


class Ended(NamedTuple):
    """A completion that is done."""

    start: Start
    number: int
    token_ids: list[int]
    logprobs: list[float]
    sampling_logprobs: list[float]
    reason: FinishReason
    hidden: Tensor | None


@dataclass(slots=True)
class _Group:
    """Rows that started together: what the decoder holds of them, their places, their length."""

    branches: Any
    places: Tensor
    count: int = 0
    judged: int = 0


GOING, STOPPED, FULL, REJECTED = range(4)
REASONS: tuple[FinishReason, ...] = ("length", "stop", "length", "rejected")


class Sampler:
    """Samples from a queue of prompts; one for each thread.

    Each row has a place, where its random numbers, its tokens and its state stand.
    """

    def __init__(self, decoder: Any, waiting: WaitingPrompts, settings: Settings) -> None:
        self.decoder = decoder
        self.waiting = waiting
        self.settings = settings
        self._groups: list[_Group] = []
        self._after: Any = None
        cohort = settings.rejection.cohort if settings.rejection else 1
        size, most, device = max(settings.places, cohort), settings.most, decoder.device
        self._free = list(range(size))[::-1]
        self._rows: list[tuple[Start, int] | None] = [None] * size
        self._tokens = torch.zeros(size, most, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(size, most, device=device)
        self._sampling = torch.zeros(size, most, device=device)
        self._uniforms = torch.zeros(size, most, dtype=torch.float64, device=device)
        self._stops = torch.full((size, 1), -1, device=device)
        self._state = torch.zeros(size, dtype=torch.long, device=device)
        self._lengths = torch.zeros(size, dtype=torch.long, device=device)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to sample."""
        return not self._groups and not self.waiting

    @torch.inference_mode()
    def advance(self, steps: int) -> list[Ended]:
        """Go on for a number of tokens, or until partial completions must be judged.

        Returns:
            What ended on the way.
        """
        ended: list[Ended] = []
        for _ in range(steps):
            if self._after is None:
                self._refill(ended)
                if not self._groups:
                    break
                self._forward()
            if self.to_judge() is not None:
                break
            self._finish_step(ended)
        return ended

    def to_judge(self) -> tuple[list[Start], Tensor, Tensor, Tensor] | None:
        """Rows of a group at a checkpoint: starts, indices, tokens (n, T), hidden states (n, H)."""
        group = self._at_checkpoint()
        if group is None:
            return None
        live = group.places[self._state[group.places] == GOING]
        rows = [self._rows[place] for place in live.tolist()]
        offset = sum(len(g.places) for g in self._groups[: self._groups.index(group)])
        hidden = self._after.hidden[offset : offset + len(group.places)]
        return (
            [row[0] for row in rows if row],
            torch.tensor([row[1] for row in rows if row]),
            self._tokens[live, : group.count],
            hidden[self._state[group.places] == GOING],
        )

    def reject(self, scores: Sequence[float]) -> None:
        """Stop the worst of the rows that `to_judge` gave."""
        group, rejection = self._at_checkpoint(), self.settings.rejection
        if group is None or rejection is None:
            return
        live = group.places[self._state[group.places] == GOING]
        indices = [row[1] for place in live.tolist() if (row := self._rows[place])]
        best = survivors(scores, indices, rejection.keep)
        stays = torch.tensor(best, dtype=torch.bool, device=live.device)
        self._state[live[~stays]] = REJECTED
        group.judged = group.count

    def _at_checkpoint(self) -> _Group | None:
        """The first group whose partial completions wait to be judged."""
        rejection = self.settings.rejection
        if rejection is None or self._after is None:
            return None
        for group in self._groups:
            if group.count in rejection.checkpoints and group.judged != group.count:
                return group
        return None

    def _refill(self, ended: list[Ended]) -> None:
        least = max(1, self.settings.places // REFILL)
        while self.waiting and (not self._groups or len(self._free) >= least):
            starts = self.waiting.take(len(self._free), is_idle=not self._groups)
            if not starts:
                return
            self._start(starts, ended)

    def _start(self, starts: Sequence[Start], ended: list[Ended]) -> None:
        """Read prompts and draw the first tokens of their samples."""
        first = starts[0].prompt
        read, after = first.read or self.decoder.open([start.prompt.ids for start in starts])
        first.read = None if starts[0].is_last else (read, after)
        owner = [number for number, start in enumerate(starts) for _ in start.indices]
        owners = torch.tensor(owner, device=self.decoder.device)
        places = self._occupy([(start, index) for start in starts for index in start.indices])
        group = _Group(self.decoder.branch(read, owners), places)
        self._groups.append(group)
        self._record([group], after.logits[owners])
        if not self.settings.keeps_hidden:
            self._retire([group], self._state[places] != GOING, ended, None)

    def _occupy(self, rows: Sequence[tuple[Start, int]]) -> Tensor:
        """Places for rows that start."""
        device, settings = self.decoder.device, self.settings
        numbers = [self._free.pop() for _ in rows]
        places = torch.tensor(numbers, device=device)
        for number, row in zip(numbers, rows, strict=True):
            self._rows[number] = row
        keys = [stream_key(settings.seed, start.prompt.spec.id, index) for start, index in rows]
        self._uniforms[places] = torch.from_numpy(uniforms(keys, settings.most)).to(device)
        self._state[places] = GOING
        stops = [sorted(start.prompt.stops) for start, _ in rows]
        width = max(self._stops.shape[1], *map(len, stops))
        if width > self._stops.shape[1]:
            added = width - self._stops.shape[1]
            self._stops = torch.cat([self._stops, self._stops[:, :1].expand(-1, added)], dim=1)
        padded = [[*ids, *ids[:1] * (width - len(ids))] for ids in stops]
        self._stops[places] = torch.tensor(padded, device=device)
        return places

    def _forward(self) -> None:
        """Let the decoder read the last token of every row."""
        places = self._places(self._groups)
        last = self._tokens[places, self._lengths[places] - 1]
        wanted = None
        if self.settings.keeps_hidden:
            live = self._state[places] == GOING
            wanted = None if bool(live.all()) else live.nonzero().squeeze(-1)
        branches = [group.branches for group in self._groups]
        self._after = self.decoder.step(branches, last, wanted)

    def _finish_step(self, ended: list[Ended]) -> None:
        """Draw the next tokens and let go of the rows that are over."""
        groups, after = list(self._groups), self._after
        self._after = None
        places = self._places(groups)
        over = self._state[places] != GOING
        self._record(groups, after.logits)
        if not self.settings.keeps_hidden:
            over = self._state[places] != GOING
        self._retire(groups, over, ended, after.hidden)

    def _places(self, groups: Sequence[_Group]) -> Tensor:
        return torch.cat([group.places for group in groups])

    def _record(self, groups: Sequence[_Group], logits: Tensor) -> None:
        """Draw a token for each row that goes on, and see which of them end."""
        places = self._places(groups)
        counts = torch.cat([torch.full_like(g.places, g.count) for g in groups])
        state = self._state[places]
        if len(logits) < len(places):  # rows that had ended were left out
            read = (state == GOING) | (state == REJECTED)
            places, counts, state = places[read], counts[read], state[read]
        live = state == GOING
        if not bool(live.all()):
            places, counts, logits = places[live], counts[live], logits[live]
        for group in groups:
            group.count += 1
        if not len(places):
            return
        drawn = self._draw(logits, places, counts)
        self._tokens[places, counts] = drawn.tokens
        self._logprobs[places, counts] = drawn.logprobs.float()
        self._sampling[places, counts] = drawn.sampling_logprobs.float()
        self._lengths[places] = counts + 1
        stopped = (drawn.tokens[:, None] == self._stops[places]).any(-1)
        stopped |= self._at_stop_string(places, counts)
        full = counts + 1 >= self.settings.most
        self._state[places] = torch.where(stopped, STOPPED, torch.where(full, FULL, GOING))

    def _draw(self, logits: Tensor, places: Tensor, counts: Tensor) -> Draw:
        settings, banned = self.settings, None
        early = counts < settings.least
        if settings.least > 0 and bool(early.any()):
            banned = torch.zeros_like(logits, dtype=torch.bool)
            stops = self._stops[places]
            banned.scatter_(1, stops, early[:, None].expand_as(stops))
        if settings.is_greedy:
            return greedy(logits, banned)
        return draw(logits, self._uniforms[places, counts], settings.truncation, banned)

    def _at_stop_string(self, places: Tensor, counts: Tensor) -> Tensor:
        """(n,) whether each row's text has come to a stop string."""
        finder = self.settings.stop_strings
        if finder is None:
            return torch.zeros_like(places, dtype=torch.bool)
        ends = [count + 1 for count in counts.tolist()]
        rows = [
            row[max(0, end - finder.tail) : end]
            for row, end in zip(self._tokens[places].tolist(), ends, strict=True)
        ]
        found = torch.tensor(finder.ends(rows), device=places.device)
        return found & (counts >= self.settings.least)

    def _retire(
        self,
        groups: Sequence[_Group],
        leaving: Tensor,
        ended: list[Ended],
        hidden: Tensor | None,
    ) -> None:
        """Let go of rows; their places are free again."""
        flags, start = leaving.tolist(), 0
        for group in groups:
            rows = slice(start, start + len(group.places))
            start = rows.stop
            if not any(flags[rows]):
                continue
            dead = leaving[rows]
            states = None if hidden is None else hidden[rows][dead]
            ended += self._ended(group.places[dead], states)
            group.places = group.places[group.branches.drop(dead)]
        self._groups = [group for group in self._groups if len(group.places)]

    def _ended(self, places: Tensor, hidden: Tensor | None) -> list[Ended]:
        found = []
        lengths, states = self._lengths[places].tolist(), self._state[places].tolist()
        tokens, logprobs = self._tokens[places].tolist(), self._logprobs[places].tolist()
        sampling = self._sampling[places].tolist()
        for row, place in enumerate(places.tolist()):
            held, size = self._rows[place], lengths[row]
            assert held is not None
            keeps = self.settings.keeps_hidden and hidden is not None
            found.append(
                Ended(
                    held[0],
                    held[1],
                    tokens[row][:size],
                    logprobs[row][:size],
                    sampling[row][:size],
                    REASONS[states[row]],
                    hidden[row] if keeps and hidden is not None else None,
                )
            )
            self._rows[place] = None
            self._free.append(place)
        return found
