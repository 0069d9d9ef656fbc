"""What to do about a server that does not give what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about a server that does not give what was asked for.

    Attributes:
        section: the recipe's section that names it.
        request: what a request that it does not take (400, 422) may be changed by.
        name: where the server's name of the model comes from.
    """

    section: str
    request: str
    name: str

    def on(self, status: int) -> str:
        """Advice on an answer's status."""
        section = self.section
        if status in {400, 422}:
            return f"The server does not take this request; {self.request}"
        if status in {401, 403}:
            return f"Set {KEY_VARIABLE} to a key that the server accepts."
        if status == 404:
            return (
                f"Check that {section}.base_url is the whole address of the API (it often ends in "
                f"/v1) and that the server serves the model under this name; {self.name}"
            )
        return f"Check {section} and the server's own log."

    @property
    def given_up(self) -> str:
        """Advice on a server that keeps failing."""
        return (
            f"Check that the server runs; {self.section}.retries, timeout and concurrency say how "
            "hard it is pressed."
        )


POLICIES = Advice(
    "rollouts.endpoint",
    "rollouts.* has its settings. If it is the log-probabilities that it refuses, set "
    "rollouts.endpoint.logprobs: false.",
    "rollouts.endpoint.models gives each policy the name that it has there.",
)
"""On servers of policies."""
