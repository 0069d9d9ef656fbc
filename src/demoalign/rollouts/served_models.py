"""Which models an OpenAI-compatible server has, asked before a run depends on it."""

from __future__ import annotations

from demoalign.config import EndpointConfig
from demoalign.endpoints.endpoint import Endpoint

PATIENCE = 10.0
"""Seconds to wait for the list, unless a request may take less."""


def served_models(config: EndpointConfig) -> frozenset[str] | None:
    """Names that the server lists at ``/models``; None if it offers no such list.

    Raises:
        RolloutError: nobody answers, or the key is refused.
    """
    endpoint = Endpoint(config)
    response = endpoint.get("models", min(config.timeout, PATIENCE))
    if response.status_code in {401, 403}:
        raise endpoint.refusal(f"GET {endpoint.url('models')}", response)
    if not response.is_success:
        return None
    try:
        return frozenset(str(entry["id"]) for entry in response.json()["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
