"""Demonstrations ranked by what a finished run thinks of them: its reward, and its SFT policy.

A low reward says that an answer looks like the initial policy's, a high loss a token that the SFT
policy would not have said it: bad answers do both, but so do good ones that are rare, and a policy
that was trained on a row finds it likelier than one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from demoalign.errors import RecipeError, StoreError
from demoalign.pipeline.judging import stored_recipe
from demoalign.pipeline.models import Models
from demoalign.pipeline.preference_scores import Asked, Reader, lengths_of, score_with
from demoalign.pipeline.preferring import baseline_scores
from demoalign.records import Demonstration
from demoalign.store import Run

By = Literal["both", "reward", "loss"]
BY: tuple[By, ...] = ("both", "reward", "loss")
SHOWN = 10
TOO_LONG = "it is longer than the model's context"


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a run thinks of a demonstration.

    Attributes:
        index: of the row.
        reward: by the run's reward, None if the row does not fit into its context.
        loss: of the SFT policy, nats a token; None as above.
        place: 0 for the worst, 1 for the best; None if reward or loss is missing.
    """

    index: int
    reward: float | None
    loss: float | None
    place: float | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """All rows ranked.

    Attributes:
        by: what counts.
        reward: name of the reward.
        rows: one for each demonstration, in order.
    """

    by: By
    reward: str
    rows: tuple[Ranked, ...]

    def worst(self) -> list[Ranked]:
        """Rows with a place, worst first; of equals the earlier."""
        placed = [each for each in self.rows if each.place is not None]
        return sorted(placed, key=lambda each: (each.place, each.index))

    def reasons(self, keep: float) -> dict[int, list[str]]:
        """Why the worst rows are dropped, if this share of those with a place is kept."""
        worst = self.worst()
        gone = len(worst) - round(keep * len(worst))
        return {each.index: [self._why(each, keep)] for each in worst[:gone]}

    def as_json(self, rows: Sequence[Demonstration]) -> dict[str, Any]:
        """Plain objects, with the worst rows."""
        placed = self.worst()
        unranked = len(self.rows) - len(placed)
        return {
            "by": self.by,
            "reward": self.reward,
            "rows": len(self.rows),
            "unranked": {"count": unranked, "reason": TOO_LONG if unranked else None},
            "worst": [
                {"id": rows[each.index].id, "reward": each.reward, "loss": each.loss}
                for each in placed[:SHOWN]
            ],
        }

    def _why(self, row: Ranked, keep: float) -> str:
        return (
            f"not among the best {keep:g} by {self.by}: {self.reward} {row.reward:.3f}, "
            f"loss {row.loss:.3f} nats a token"
        )


def rank(run: Path, rows: Sequence[Demonstration], by: str, selector: str | None) -> Ranking:
    """Rank demonstrations by a finished run.

    Args:
        run: its folder.
        rows: any demonstrations.
        by: ``reward``, ``loss``, or ``both``: the mean of a row's places by either.
        selector: name of one of its rewards; the first by default.

    Raises:
        StoreError: the folder is not a run's, or a stage is not finished.
        RecipeError: the run has no such reward, or ``by`` is unknown.
    """
    order = next((each for each in BY if each == by), None)
    if order is None:
        raise RecipeError(f"--by: must be one of {', '.join(BY)}, found {by!r}")
    recipe = stored_recipe(run)
    titles = [config.title for config in recipe.reward]
    name = selector or titles[0]
    if name not in titles:
        raise RecipeError(f"--selector: must be one of {', '.join(titles)}, found {name!r}")
    for stage in ("sft", f"reward/{name}"):
        manifest = Run(run).manifest(stage)
        if manifest is None or manifest.status != "done":
            raise StoreError(f"{run / stage}: the stage must be finished. Run the recipe first.")
    models = Models(recipe, run)
    asked = Asked([row.prompt for row in rows], [row.completion for row in rows])
    rewards = score_with(models.named(name), asked, []).values
    models.drop_rewards()
    losses = _losses(models, asked)
    places = _places(order, rewards, losses)
    found = zip(rewards, losses, places, strict=True)
    return Ranking(order, name, tuple(Ranked(i, *each) for i, each in enumerate(found)))


def _losses(models: Models, asked: Asked) -> list[float | None]:
    policy = models.sft()
    reader = Reader(policy.backbone.tokenizer, policy.context)
    lengths = [completion for _, completion in lengths_of(asked, reader)]
    means = baseline_scores(policy, asked, lengths)["mean-logprob"].values
    models.release()
    return [None if value is None else -value for value in means]


def _places(
    by: By, rewards: Sequence[float | None], losses: Sequence[float | None]
) -> list[float | None]:
    """Places in [0, 1] of the rows that have both; equals share theirs."""
    known = [
        index for index, both in enumerate(zip(rewards, losses, strict=True)) if None not in both
    ]
    if not known:
        return [None] * len(rewards)
    good = {
        "reward": rankdata([rewards[index] for index in known]),
        "loss": rankdata([-(losses[index] or 0.0) for index in known]),
    }
    good["both"] = (good["reward"] + good["loss"]) / 2
    places = (good[by] - 1) / max(len(known) - 1, 1)
    found: list[float | None] = [None] * len(rewards)
    for index, place in zip(known, np.asarray(places), strict=True):
        found[index] = float(place)
    return found
