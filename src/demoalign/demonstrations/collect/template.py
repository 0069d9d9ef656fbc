"""What the demonstrator is asked: the paper's words (appendix E.2), or some of the user's own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from demoalign.config import NO_TEMPLATE, PAPER_TEMPLATE
from demoalign.demonstrations.hh_rlhf import HUMAN, is_transcript
from demoalign.demonstrations.messages import transcript
from demoalign.endpoints.forms import Blanks, FormError, fill
from demoalign.errors import RecipeError
from demoalign.records import Prompt

PAPER = (
    "### Here is a chat log between Human and an AI Assistant. Complete the dialogue. ###{prompt}"
)
"""Appendix E.2 word for word; "and then we attach the original prompts"."""

BLANKS = Blanks(("prompt",))
MARK = "Assistant:"


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template.

    Attributes:
        name: ``paper``, ``none`` or a file's.
        text: with ``{prompt}``; None if the prompt is asked as it stands.
    """

    name: str
    text: str | None

    @property
    def digest(self) -> str:
        """What provenance names the template by: the first digits of its text's SHA-256."""
        return hashlib.sha256((self.text or "").encode()).hexdigest()[:16]

    def ask(self, prompt: Prompt) -> list[dict[str, str]]:
        """The messages that ask for an answer to a prompt."""
        if self.text is not None:
            question = fill(self.text, {"prompt": dialogue(prompt)})
            return [{"role": "user", "content": question}]
        if isinstance(prompt, str):
            return [{"role": "user", "content": prompt}]
        return prompt

    def answer(self, said: str) -> str:
        """What was said, as an answer.

        Asked to complete a dialogue, a model may write the mark of its turn first, and go on with
        the next one: neither is part of the answer.
        """
        if self.text is None:
            return said.strip()
        answer = said.lstrip().removeprefix(MARK)
        return answer.partition(HUMAN)[0].strip()


def dialogue(prompt: Prompt) -> str:
    """A prompt as an incomplete dialogue: a transcript as it stands, else made into one."""
    if not isinstance(prompt, str):
        return transcript(prompt)
    return prompt if is_transcript(prompt) else transcript([{"role": "user", "content": prompt}])


def load_template(name: str) -> Template:
    """The template of a name or in a file.

    Raises:
        RecipeError: the file cannot be read, or a placeholder is missing or unknown.
    """
    if name == PAPER_TEMPLATE:
        return Template(name, PAPER)
    if name == NO_TEMPLATE:
        return Template(name, None)
    try:
        return Template(name, BLANKS.read(name, "the paper's template"))
    except FormError as error:
        raise RecipeError(f"collect.template: {name}: {error}") from error


def seam(prompt: Prompt, answer: str) -> str:
    """The answer as the completion of a prompt: a blank keeps plain texts apart."""
    joins = isinstance(prompt, str) and not prompt[-1:].isspace()
    return f" {answer}" if joins else answer
