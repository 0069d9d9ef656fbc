"""Reward models: text in, one number out; stored the way transformers and PEFT load them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from demoalign.config import ModelConfig
from demoalign.demonstrations.render import render_completion, render_prompt
from demoalign.errors import EvaluationError, ModelError
from demoalign.policies.backbone import Backbone
from demoalign.policies.last_hidden import Row, last_hidden
from demoalign.policies.load import load_model
from demoalign.policies.policy import Policy
from demoalign.policies.tokenizer import load_tokenizer
from demoalign.progress import meter
from demoalign.records import Prompt
from demoalign.rewards.losses import deviation
from demoalign.rewards.scorers import (
    Scorer,
    SharedScorer,
    WholeScorer,
    linear_head,
)
from demoalign.store import read_json, write_json

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
Judged = tuple[Tensor, Tensor | None]

CARD = "demoalign.json"
SCORE_KEY = "base_model.model.score.weight"
VARIANCE_FILE = "variance_head.safetensors"


class RewardModel:
    """r(x, y): the discriminator's logit (Eq. 12), or any sequence classifier's first logit.

    Attributes:
        name: as in the recipe (``init-sft``, ...).
        scorer: the network.
        tokenizer: used to render; its pad token is no end token.
        ends_answers: whether a finished answer is scored with its end token, as ours are;
            other people's reward models are given the text alone.
    """

    def __init__(
        self, name: str, scorer: Scorer, tokenizer: Any, ends_answers: bool = True
    ) -> None:
        self.name = name
        self.scorer = scorer
        self.tokenizer = tokenizer
        self.ends_answers = ends_answers

    @classmethod
    def load(
        cls,
        folder: str | Path,
        name: str = "reward",
        device: str = "auto",
        backbone: Backbone | None = None,
    ) -> RewardModel:
        """Load a reward model's folder or hub id.

        Args:
            folder: what `save` wrote, or any sequence classifier with one label.
            name: label of its scores.
            device: where to compute.
            backbone: put an adapter reward model on these weights instead of loading its base.

        Raises:
            ModelError: it cannot be loaded safely, or has more than one label.
        """
        path = Path(folder)
        card = read_json(path / CARD) if (path / CARD).is_file() else {}
        if (path / "adapter_config.json").is_file():
            return _load_adapter(cls, path, name, device, backbone, card)
        from transformers import AutoModelForSequenceClassification

        config = ModelConfig(base=str(folder), device=device, dtype="float32")
        model = load_model(AutoModelForSequenceClassification, str(folder), config)
        if model.config.num_labels != 1:
            raise ModelError(
                f"reward model {folder}: must have one label, found {model.config.num_labels}"
            )
        tokenizer = load_tokenizer(str(folder), model.get_input_embeddings().num_embeddings)
        model.config.pad_token_id = tokenizer.pad_token_id
        variance = (
            _load_variance(path, linear_head(model.config.hidden_size, 0, model.device))
            if card
            else None
        )
        scorer = WholeScorer(model, variance)
        return cls(name, scorer, tokenizer, bool(card.get("ends_answers")))

    def save(self, folder: Path) -> None:
        """Store it so that ``AutoModelForSequenceClassification`` (or PEFT on it) loads it."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.scorer, SharedScorer):
            if self.scorer.adapter is None:
                _save_head_on_whole_model(self.scorer, folder)
            else:
                extra = {SCORE_KEY: self.scorer.head.weight}
                self.scorer.backbone.save_adapter(self.scorer.adapter, folder, "SEQ_CLS", extra)
        else:
            self.scorer.model.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))
        if self.scorer.variance is not None:
            from safetensors.torch import save_file

            weight = self.scorer.variance.weight.detach().cpu().contiguous()
            save_file({"weight": weight}, folder / VARIANCE_FILE, metadata={"format": "pt"})
        write_json(folder / CARD, {"name": self.name, "ends_answers": self.ends_answers})

    def score(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        batch_size: int = 64,
        hidden: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float64]:
        """Rewards of completions.

        Args:
            prompts: B prompts.
            completions: B answers, one for each prompt.
            finished: whether each answer ended by itself (all did, by default).
            batch_size: sequences a forward pass; the scores do not depend on it.
            hidden: (B, H) states that are known already, as in `score_together`; only for a
                model that `reads` the policy they are from.

        Returns:
            (B,) rewards in logits (nats of log-odds for a discriminator).

        Raises:
            EvaluationError: lengths differ, or a score is not finite.
        """
        return score_together([self], prompts, completions, finished, batch_size, hidden)[0][0]

    def reads(self, policy: Policy) -> bool:
        """Whether the reward is a head on this policy's own hidden states."""
        scorer = self.scorer
        return (
            isinstance(scorer, SharedScorer)
            and scorer.backbone is policy.backbone
            and scorer.adapter == policy.adapter
            and self.ends_answers
        )

    def judge_states(self, hidden: NDArray[np.float32]) -> NDArray[np.float64]:
        """Rewards (B,) of hidden states (B, H) of the policy that it `reads`."""
        states = torch.from_numpy(np.ascontiguousarray(hidden)).to(self.scorer.device)
        with torch.inference_mode():
            return self.scorer.judge(states)[0].double().cpu().numpy()

    def score_with_deviation(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        finished: Sequence[bool] | None = None,
        batch_size: int = 64,
    ) -> Scores:
        """As `score`, with V(x,y) of Eq. 15 beside it, both (B,); V is 1 without such a head."""
        return score_together([self], prompts, completions, finished, batch_size)[0]


def score_together(
    models: Sequence[RewardModel],
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    finished: Sequence[bool] | None = None,
    batch_size: int = 64,
    hidden: NDArray[np.float32] | None = None,
) -> list[Scores]:
    """Scores and deviations of several models; heads on the same hidden states share the pass.

    Completions of the same prompt share its keys and values, so each prompt is read once.

    Args:
        models: any; grouped by what they read.
        prompts, completions, finished, batch_size: as in `RewardModel.score`.
        hidden: (B, H) final hidden states of the completions' last tokens where they are known
            already, NaN elsewhere. Given only if all models read just these states.

    Returns:
        For each model its rewards and its V of Eq. 15, both (B,).
    """
    found: dict[int, Scores] = {}
    groups: dict[object, list[int]] = {}
    for number, model in enumerate(models):
        groups.setdefault(_reads(model), []).append(number)
    if hidden is not None and (len(groups) > 1 or not models[0].scorer.reads_last_token):
        raise EvaluationError("hidden: needs models that all read the same states, found others")
    for numbers in groups.values():
        members = [models[number] for number in numbers]
        rows = _render_all(members[0], prompts, completions, finished)
        scores = _score_rows(members, rows, batch_size, hidden)
        found.update(zip(numbers, scores, strict=True))
    return [found[number] for number in range(len(models))]


def _reads(model: RewardModel) -> object:
    """What a model's score is a function of: equal keys can share a forward pass."""
    scorer = model.scorer
    if isinstance(scorer, SharedScorer):
        return id(scorer.backbone), scorer.adapter, model.ends_answers
    return id(model)


def _render_all(
    model: RewardModel,
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    finished: Sequence[bool] | None,
) -> list[Row]:
    flags = [True] * len(completions) if finished is None else list(finished)
    if not len(prompts) == len(completions) == len(flags):
        raise EvaluationError(
            f"reward {model.name}: needs one completion and one flag for each prompt, found "
            f"{len(prompts)}, {len(completions)} and {len(flags)}"
        )
    room = model.scorer.context or sys.maxsize  # of a longer sequence the beginning is scored
    questions: dict[str, tuple[int, ...]] = {}
    rows = []
    for prompt, completion, done in zip(prompts, completions, flags, strict=True):
        key = prompt if isinstance(prompt, str) else json.dumps(prompt)
        if key not in questions:
            questions[key] = tuple(render_prompt(model.tokenizer, prompt)[:room])
        question = questions[key]
        answer = render_completion(model.tokenizer, prompt, completion, done and model.ends_answers)
        rows.append(Row(question, tuple(answer[: room - len(question)])))
    return rows


def _score_rows(
    models: Sequence[RewardModel],
    rows: Sequence[Row],
    batch_size: int,
    hidden: NDArray[np.float32] | None,
) -> list[Scores]:
    """Score rendered sequences; results in the order of ``rows``.

    Equal sequences are scored once, so that their scores are equal to the last bit.
    """
    number = {row: i for i, row in enumerate(dict.fromkeys(rows))}
    distinct = list(number)
    values, deviations = (
        np.empty((len(models), len(distinct))),
        np.ones((len(models), len(distinct))),
    )
    names = ", ".join(model.name for model in models)
    for model in models:
        model.scorer.eval()
    with (
        meter(f"scores of {names}", len(distinct)) as shown,
        torch.inference_mode(),
        models[0].scorer.active(),
    ):
        for chunk, judged in _judged(models, rows, number, batch_size, hidden):
            for member, (rewards, raw) in enumerate(judged):
                values[member, chunk] = rewards.double().cpu().numpy()
                if raw is not None:
                    deviations[member, chunk] = deviation(raw).double().cpu().numpy()
            shown.advance(len(chunk))
    if not np.isfinite(values).all():
        raise EvaluationError(
            f"reward {names}: every score must be finite, found "
            f"{int((~np.isfinite(values)).sum())} of {values.size} that are not"
        )
    picks = np.array([number[row] for row in rows], dtype=np.int64)
    return [(values[m, picks], deviations[m, picks]) for m in range(len(models))]


def _judged(
    models: Sequence[RewardModel],
    rows: Sequence[Row],
    number: Mapping[Row, int],
    batch_size: int,
    hidden: NDArray[np.float32] | None,
) -> Iterator[tuple[list[int], list[Judged]]]:
    """Numbers of distinct rows, and what each model says of them."""
    scorers, distinct = [model.scorer for model in models], list(number)
    waiting = list(range(len(distinct)))
    if hidden is not None:
        known = [bool(np.isfinite(row).all()) for row in hidden]
        place = {number[row]: i for i, row in enumerate(rows) if known[i]}
        states = torch.from_numpy(np.asarray(hidden[list(place.values())]))
        if place:
            yield list(place), [each.judge(states.to(scorers[0].device)) for each in scorers]
        waiting = [i for i in waiting if i not in place]
    if scorers[0].reads_last_token:
        left = [distinct[i] for i in waiting]
        for chunk, state in last_hidden(scorers[0].model, left, batch_size):
            yield [waiting[i] for i in chunk], [each.judge(state) for each in scorers]
        return
    whole = [[*row.prompt, *row.completion] for row in distinct]
    waiting.sort(key=lambda i: len(whole[i]))
    pad, device = models[0].tokenizer.pad_token_id, scorers[0].device
    for start in range(0, len(waiting), batch_size):
        chunk = waiting[start : start + batch_size]
        ids, mask = pad_right([whole[i] for i in chunk], pad)
        yield chunk, [each(ids.to(device), mask.to(device)) for each in scorers]


def pad_right(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask, both (B, T), padded on the right."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(longest) < lengths[:, None]).long()


def _load_adapter(
    cls: type[RewardModel],
    path: Path,
    name: str,
    device: str,
    backbone: Backbone | None,
    card: dict[str, Any],
) -> RewardModel:
    if backbone is None:
        base = read_json(path / "adapter_config.json")["base_model_name_or_path"]
        backbone = Backbone.load(ModelConfig(base=base, device=device))
    adapter, extra = backbone.load_shared_adapter(adapter_name(name), path)
    if SCORE_KEY not in extra:
        raise ModelError(f"reward model {path}: needs a score head, found none in its adapter")
    head = linear_head(backbone.hidden_size, 0, backbone.device)
    with torch.no_grad():
        head.weight.copy_(extra[SCORE_KEY])
    variance = _load_variance(path, linear_head(backbone.hidden_size, 0, backbone.device))
    scorer = SharedScorer(backbone, adapter, head, variance)
    return cls(name, scorer, backbone.tokenizer, bool(card.get("ends_answers")))


def adapter_name(name: str) -> str:
    """The adapter's name on the backbone: PEFT allows no dots."""
    return "reward_" + name.replace(".", "_")


def _load_variance(path: Path, head: nn.Linear) -> nn.Linear | None:
    if not (path / VARIANCE_FILE).is_file():
        return None
    from safetensors.torch import load_file

    head.load_state_dict(load_file(path / VARIANCE_FILE))
    return head


def _save_head_on_whole_model(scorer: SharedScorer, folder: Path) -> None:
    """A head on fully fine-tuned weights: stored as one whole classifier."""
    from transformers import AutoModelForSequenceClassification

    causal = scorer.backbone.causal
    config = json.loads(causal.config.to_json_string())
    fresh = type(causal.config)(**{**config, "num_labels": 1})
    fresh.pad_token_id = scorer.backbone.tokenizer.pad_token_id
    model = AutoModelForSequenceClassification.from_config(fresh)
    model.base_model.load_state_dict(scorer.trunk.state_dict())
    with torch.no_grad():
        model.score.weight.copy_(scorer.head.weight.cpu())
    model.save_pretrained(str(folder))
