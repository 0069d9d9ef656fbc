"""Reward models: text in, one number out; stored the way transformers and PEFT load them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from demoalign.config import ModelConfig
from demoalign.errors import ModelError
from demoalign.policies.backbone import Backbone, whole_tensor
from demoalign.policies.load import load_model
from demoalign.policies.policy import Policy
from demoalign.policies.tokenizer import load_tokenizer
from demoalign.records import Prompt
from demoalign.rewards.scorers import (
    Scorer,
    SharedScorer,
    WholeScorer,
    linear_head,
)
from demoalign.rewards.scoring import Scores, score_together
from demoalign.store import read_json, write_json

CARD = "demoalign.json"
MIXTURE = "mixture.json"
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
        if (path / MIXTURE).is_file():
            raise ModelError(
                f"reward model {folder}: is a mixture of other rewards and has no weights of its "
                "own. Load its members, or have another entry of the recipe distil it."
            )
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

            weight = whole_tensor(self.scorer.variance.weight).cpu().contiguous()
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
    model.to(causal.dtype).save_pretrained(str(folder))
