"""Whether the server that a recipe names has the policies that the run will ask it for."""

from __future__ import annotations

import difflib

from demoalign.config import EndpointConfig, Recipe
from demoalign.endpoints.endpoint import model_name
from demoalign.errors import RolloutError
from demoalign.policies.policy import INITIAL, SFT
from demoalign.rollouts.served_models import served_models


def check_served(recipe: Recipe, sft_is_trained: bool) -> tuple[str, ...]:
    """Ask the recipe's server, if it names one, for its models; return warnings.

    The SFT policy cannot be served before it is trained: until then its absence is a warning.

    Raises:
        RolloutError: the server does not answer, refuses the key, or lacks a policy.
    """
    endpoint = recipe.rollouts.endpoint
    if endpoint is None:
        return ()
    served = served_models(endpoint)
    if served is None:
        return (
            f"{endpoint.base_url} offers no list of its models: it cannot be checked whether it "
            f"serves {model_name(endpoint, INITIAL)!r} and {model_name(endpoint, SFT)!r}",
        )
    if model_name(endpoint, INITIAL) not in served:
        raise RolloutError(_missing(endpoint, INITIAL, served))
    if model_name(endpoint, SFT) in served:
        return ()
    if sft_is_trained:
        raise RolloutError(_missing(endpoint, SFT, served))
    return (
        f"{endpoint.base_url} does not serve {model_name(endpoint, SFT)!r} yet: once the sft stage "
        f"is done, serve {recipe.folder / 'sft'} under this name, and run the recipe again",
    )


def _missing(endpoint: EndpointConfig, policy: str, served: frozenset[str]) -> str:
    wanted = model_name(endpoint, policy)
    shown = difflib.get_close_matches(wanted, sorted(served), n=5, cutoff=0.3) or sorted(served)[:5]
    return (
        f"rollouts.endpoint.models.{policy}: must be a model that {endpoint.base_url} serves, "
        f"found {wanted!r}; it has {len(served)}, such as {', '.join(shown) or 'none'}. Serve the "
        f"policy under this name, or set rollouts.endpoint.models.{policy} to its name there."
    )
