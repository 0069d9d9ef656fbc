"""What every section shares that asks a chat model behind an OpenAI-compatible address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from demoalign.config.section import PositiveInt, Section
from demoalign.config.server import ServerConfig

OWN_KEYS = frozenset({"model", "messages", "temperature", "max_tokens", "n", "stream", "prompt"})
"""Keys of a request that ``parameters`` may not set: they have a key of their own, or must not be
changed."""

SECRETS = frozenset({"api_key", "apikey", "authorization", "key", "secret", "token"})


class PriceConfig(Section):
    """What a million tokens cost, in any one currency."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class ChatConfig(ServerConfig):
    """A chat model behind an OpenAI-compatible address."""

    model: Annotated[str, Field(min_length=1)]
    """What the server calls it."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """None: not sent, for servers that refuse it."""
    max_tokens: PositiveInt | None = 1024
    """Tokens that it may say; None: not sent."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the request, such as ``max_completion_tokens`` or ``reasoning_effort``."""
    price: PriceConfig | None = None

    @field_validator("parameters")
    @classmethod
    def _leaves_the_question_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(OWN_KEYS.intersection(value)):
            raise ValueError(
                f"parameters must not hold {', '.join(sorted(OWN_KEYS))}, found {', '.join(taken)};"
                " the first keys have a place of their own beside it"
            )
        if secret := sorted(key for key in value if key.lower().replace("-", "_") in SECRETS):
            raise ValueError(
                "parameters must hold no key, they are stored with the results, found "
                f"{', '.join(secret)} (the value is not repeated here). A key belongs into "
                "OPENAI_API_KEY"
            )
        return value

    def body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """The request that sends messages."""
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        return {**body, **self.parameters}
