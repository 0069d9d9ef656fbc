"""What stages are made of, and what each part of it costs in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from demoalign.config import OptimiserConfig, Recipe, RewardConfig


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the estimate needs to know of data and model.

    Attributes:
        parameters: of the base model.
        adapter_parameters: trained by one adapter (all of them without LoRA).
        train, test: rows.
        prompt, completion: mean tokens.
        answers: how many each preference set has, by its name.
    """

    parameters: int
    adapter_parameters: int
    train: int
    test: int
    prompt: float
    completion: float
    answers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """Costs in seconds of what stages are made of, 2 FLOP a parameter and token forward.

    Attributes:
        forward: of one token.
        sizes: of data and model.
        recipe: what is to be run.
    """

    forward: float
    sizes: Sizes
    recipe: Recipe

    @property
    def row(self) -> float:
        """Tokens of a prompt and an answer."""
        return self.sizes.prompt + self.sizes.completion

    @property
    def sampled(self) -> int:
        """Training prompts that are answered."""
        return min(self.sizes.train, self.recipe.rollouts.train_prompts or self.sizes.train)

    @property
    def tests(self) -> int:
        """Test prompts."""
        return min(self.sizes.test, self.recipe.evaluation.prompts or self.sizes.test)

    def reading(self, rows: float) -> float:
        """Reading whole rows."""
        return self.forward * rows * self.row

    def training(self, config: OptimiserConfig, rows: float) -> float:
        """All epochs over some rows, 6 FLOP a parameter and token."""
        return 3 * self.reading(rows) * config.epochs

    def shared(self, prompts: float, reads: int, completions: float) -> float:
        """Sampling or scoring completions, each prompt read but ``reads`` times for all of them."""
        prompt, completion = self.sizes.prompt, self.sizes.completion
        return self.forward * prompts * (reads * prompt + completions * completion)

    def scoring(self, reward: RewardConfig, prompts: float, completions: float) -> float:
        """One reward's scores of completions; a mixture's are its members'.

        A reward in closed form reads both of its policies.
        """
        if reward.model == "mixture":
            members = [each for each in self.recipe.reward if each.title in reward.members]
            return sum(self.scoring(each, prompts, completions) for each in members)
        reads = 2 if reward.model == "density_ratio" else reward.ensemble.size
        return reads * self.shared(prompts, 1, completions)
