"""Prompts that wait to be sampled, handed out in groups that start together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from demoalign.rollouts.engine import PromptSpec

SORTED_AHEAD = 2048
"""Completions among which prompts are ordered by length, so that little is padded."""


@dataclass(slots=True)
class Waiting:
    """A prompt some of whose completions have not been started.

    Attributes:
        spec: the prompt.
        ids: its token ids.
        stops: ids that end an answer to it.
        indices: samples that are still to be started.
        read: the prompt as the decoder has read it, while further samples wait.
    """

    spec: PromptSpec
    ids: tuple[int, ...]
    stops: frozenset[int]
    indices: list[int]
    read: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Start:
    """Samples of one prompt that start now."""

    prompt: Waiting
    indices: tuple[int, ...]
    is_last: bool


class WaitingPrompts:
    """A queue of prompts.

    Args:
        prompts: in the order of their rollouts.
        cohort: samples of a prompt that must start together, and alone; None if any may.
    """

    def __init__(self, prompts: Sequence[Waiting], cohort: int | None = None) -> None:
        self._cohort = cohort
        self._prompts: deque[Waiting] = deque()
        block: list[Waiting] = []
        for prompt in prompts:
            block.append(prompt)
            if sum(len(each.indices) for each in block) >= SORTED_AHEAD:
                self._prompts += sorted(block, key=lambda each: len(each.ids))
                block = []
        self._prompts += sorted(block, key=lambda each: len(each.ids))

    def __bool__(self) -> bool:
        return bool(self._prompts)

    def take(self, room: int, is_idle: bool) -> list[Start]:
        """Samples for one group: several prompts whole, or as many of one as there is room.

        Args:
            room: most rows.
            is_idle: nothing else is being sampled, so that a cohort may exceed the room.
        """
        if not self._prompts:
            return []
        if self._cohort is not None:
            count = min(self._cohort, len(self._prompts[0].indices))
            return [self._start(count)] if is_idle or count <= room else []
        first = self._prompts[0]
        if first.read is not None or len(first.indices) > room:
            return [self._start(min(room, len(first.indices)))]
        taken = []
        while self._prompts and len(self._prompts[0].indices) <= room:
            if self._prompts[0].read is not None:
                break
            room -= len(self._prompts[0].indices)
            taken.append(self._start(len(self._prompts[0].indices)))
        return taken

    def _start(self, count: int) -> Start:
        prompt = self._prompts[0]
        chosen, prompt.indices = prompt.indices[:count], prompt.indices[count:]
        if not prompt.indices:
            self._prompts.popleft()
        return Start(prompt, tuple(chosen), not prompt.indices)


def deal(prompts: Sequence[Waiting], hands: int, cohort: int | None = None) -> list[list[Waiting]]:
    """Share prompts among samplers, the same way every time: whole ones if they are many, and
    always if their samples belong together in cohorts.
    """
    if hands == 1 or cohort is not None or len(prompts) >= 4 * hands:
        return [list(prompts[hand::hands]) for hand in range(hands)]
    return [
        [
            replace(prompt, indices=rest)
            for prompt in prompts
            if (rest := prompt.indices[hand::hands])
        ]
        for hand in range(hands)
    ]
