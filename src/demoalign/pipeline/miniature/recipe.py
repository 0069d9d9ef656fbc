"""From a recipe to the same recipe in miniature: what is swapped, and what is made smaller."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demoalign.config import LAB, Recipe, parse_recipe
from demoalign.evaluation.preferences.rewardbench import SECTION_OF
from demoalign.pipeline.miniature.families import FAMILIES, family_of, has_template
from demoalign.pipeline.miniature.models import store_model, store_reward
from demoalign.pipeline.miniature.rows import (
    Talk,
    benchmark,
    demonstration,
    preference,
    renamed,
    style_of,
    talks,
)
from demoalign.store import write_text

ROWS, TEST_ROWS, PAIRS = 200, 30, 32
INPUTS = "miniature"
"""The folder, below the run's, of tiny models and made-up rows."""

MOST: Mapping[str, float] = {
    "epochs": 1,
    "samples_per_prompt": 2,
    "train_prompts": 32,
    "min_new_tokens": 4,
    "max_new_tokens": 16,
    "max_length": 320,
    "max_prompt_tokens": 256,
    "n": 4,
    "win_n": 2,
    "samples": 2,
    "initial_samples": 2,
    "truncated_samples": 1,
    "prompts": 10,
    "browse": 4,
    "length": 16,
    "size": 2,
    "limit": ROWS,
    "train_limit": ROWS,
    "iterations": 2,
    "steps": 4,
    "rounds": 3,
    "every": 2,
}
"""The most that a number under such a key, in whatever section, may be."""

Plain = dict[str, Any]


def miniature(recipe: Recipe) -> Recipe:
    """The recipe with tiny models and made-up rows, which are written below its run's folder.

    Sections, formats, sources, methods, losses, batch sizes and learning rates stay. Models become
    ones of the same architecture with random weights, data files rows in their format, and numbers
    of rows, tokens, samples and epochs are cut to `MOST`.

    Raises:
        RecipeError: what is left breaks a rule.
    """
    plain: Plain = _smaller(recipe.model_dump(mode="json"))
    plain |= {"name": f"{recipe.name}-miniature", "tracking": "none"}
    plain["rollouts"] |= {"engine": "transformers", "endpoint": None, "precision": "same"}
    plain["rollouts"]["train_prompts"] = min(
        recipe.rollouts.train_prompts or ROWS, int(MOST["train_prompts"])
    )
    plain["evaluation"]["prompts"] = min(
        recipe.evaluation.prompts or TEST_ROWS, int(MOST["prompts"])
    )
    if plain["evaluation"]["lm_eval"] is not None:
        plain["evaluation"]["lm_eval"] = None
        sys.stderr.write("miniature: evaluation.lm_eval is left out, its tasks need downloads\n")
    folder = Path(plain["output"]) / plain["name"] / INPUTS
    asked = _Inputs(recipe, folder)
    asked.swap_rows(plain)
    asked.swap_models(plain)
    sys.stderr.write(f"miniature: tiny models and made-up rows in {folder}; scores mean nothing\n")
    return parse_recipe(plain, f"{recipe.name} in miniature")


def _smaller(value: Any, key: str = "") -> Any:
    """A copy with every number cut to what `MOST` says of its key."""
    if isinstance(value, Mapping):
        return {name: _smaller(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        if key in MOST and all(isinstance(item, int) for item in value):
            return sorted({min(item, int(MOST[key])) for item in value})
        return [_smaller(item) for item in value]
    if key in MOST and isinstance(value, int | float) and not isinstance(value, bool):
        return min(value, type(value)(MOST[key]))
    return value


class _Inputs:
    """Writes what a recipe reads, and names it instead of the real thing."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        data = recipe.demonstrations
        preferences = {each.preferences for each in (*recipe.reward, *recipe.baselines)}
        self.pairs = sorted(each for each in preferences if each not in (None, "golden"))
        checks = recipe.evaluation.preferences
        self.style = style_of(data.source, data.test_source, *self.pairs, *checks)
        self.form = data.format
        if data.format == "auto":
            self.form = "hh-rlhf" if "hh-rlhf" in data.source.lower() else "prompt-completion"
        self.is_chat = self.form in ("messages", "sharegpt")
        self.talks = talks(ROWS + TEST_ROWS + 2 * PAIRS, recipe.seed)

    def swap_rows(self, plain: Plain) -> None:
        """Made-up rows for every data file."""
        section = plain["demonstrations"]
        train, rest = self.talks[:ROWS], self.talks[ROWS:]
        if section["source"] != LAB:
            section["source"] = self._demonstrations("demonstrations.jsonl", train)
        if section["test_source"] is not None:
            section["test_source"] = self._demonstrations("test.jsonl", rest[:TEST_ROWS])
        pairs = rest[TEST_ROWS : TEST_ROWS + PAIRS]
        if self.pairs:
            path = self._write("preferences.jsonl", (self._pair(each) for each in pairs))
            for entry in (*plain["reward"], *plain["baselines"]):
                if entry["preferences"] in self.pairs:
                    entry["preferences"] = path
        checks = rest[TEST_ROWS + PAIRS :]
        plain["evaluation"]["preferences"] = [
            self._checks(number, source, checks)
            for number, source in enumerate(self.recipe.evaluation.preferences)
        ]

    def swap_models(self, plain: Plain) -> None:
        """Tiny models for the base, policies from elsewhere and golden rewards."""
        base = self.recipe.model.base
        if base != LAB:
            plain["model"] |= {
                "base": self._model("model", base, seed=self.recipe.seed),
                "dtype": "float32",
                "quantisation": "none",
                "trust_remote_code": False,
            }
        for entry in _sections(plain):
            for side in ("positives", "negatives"):
                if str(entry.get(side, "")).startswith("policy:"):
                    entry[side] = "policy:" + self._model("policy", base, self.recipe.seed + 1)
        goldens = self.recipe.evaluation.goldens
        plain["evaluation"]["golden"] = [
            {**each.model_dump(), "name": each.title, "source": self._golden(number, each.source)}
            for number, each in enumerate(goldens)
        ] or None

    def _texts(self) -> list[str]:
        return [json.dumps(self._pair(each), ensure_ascii=False) for each in self.talks]

    def _model(self, name: str, model: str, seed: int) -> str:
        family, folder = family_of(model), self.folder / name
        chat = FAMILIES[family].chat_template is not None and (self.is_chat or has_template(model))
        sys.stderr.write(f"miniature: a tiny {family} stands in for {model}\n")
        store_model(folder, family, self._texts(), chat=chat, seed=seed)
        return str(folder)

    def _golden(self, number: int, source: str) -> str:
        is_function = ":" in source and "/" not in source
        if source == LAB or is_function:
            return source
        folder = self.folder / f"golden-{number}"
        family = family_of(source)
        chat = FAMILIES[family].chat_template is not None and has_template(source)
        sys.stderr.write(f"miniature: a tiny {family} stands in for {source}\n")
        store_reward(folder, family, self._texts(), chat=chat, seed=self.recipe.seed + 2)
        return str(folder)

    def _demonstrations(self, name: str, said: Sequence[Talk]) -> str:
        columns = self.recipe.demonstrations.map
        rows = (renamed(demonstration(each, self.form, self.style), columns) for each in said)
        return self._write(name, rows)

    def _pair(self, talk: Talk) -> Plain:
        in_transcripts = self.style == "transcript"
        return preference(talk, self.style, chat=self.is_chat, in_transcripts=in_transcripts)

    def _checks(self, number: int, source: str, said: Sequence[Talk]) -> str:
        """A preference set: RewardBench in all its subsets, or pairs as the recipe's."""
        if "reward-bench" not in source.lower() and "rewardbench" not in source.lower():
            return self._write(f"held-out-{number}.jsonl", (self._pair(each) for each in said))
        subsets = list(SECTION_OF)
        rows = (benchmark(each, subsets[i % len(subsets)], i) for i, each in enumerate(said))
        return self._write(f"reward-bench-{number}.jsonl", rows)

    def _write(self, name: str, rows: Iterable[Plain]) -> str:
        path = self.folder / name
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        write_text(path, "".join(lines))
        return str(path)


def _sections(plain: Plain) -> list[Plain]:
    """The sections that name sources of completions."""
    return [*plain["reward"], *plain["baselines"], plain["improve"]]
