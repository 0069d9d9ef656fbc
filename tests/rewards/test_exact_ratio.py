"""The unmasked reward is the log-ratio, on all that two policies can say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from demoalign.config import RatioConfig
from demoalign.pipeline.studies.enumerable import (
    PROMPT,
    EnumerablePair,
    letter_tokenizer,
    load_pair,
    make_pair,
)
from demoalign.rewards.density_ratio import DensityRatio
from tests.models import make_config

PLAIN = RatioConfig(clip=None, support=None)


def enumerable(architecture: str, folder: Path) -> EnumerablePair:
    """Policies of which every completion is known."""
    if architecture == "llama":
        return make_pair(folder, 0)
    tokenizer = letter_tokenizer()
    config = make_config("gpt2", len(tokenizer))
    config.tie_word_embeddings = False
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # the first hidden feature is always 1, and rules out the padding
        model.transformer.ln_f.weight[0], model.transformer.ln_f.bias[0] = 0, 1
        model.lm_head.weight[:, 0] = 0
        model.lm_head.weight[tokenizer.pad_token_id, 0] = -1000
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_pair(folder, 0, ["c_attn", "c_fc"])


@pytest.mark.parametrize(
    ("architecture", "kind", "tolerance"),
    [
        ("gpt2", torch.float64, 1e-12),
        ("llama", torch.float64, 1e-6),  # its norms compute in float32, whatever the weights are
        ("gpt2", torch.float32, 1e-5),
        ("llama", torch.float32, 1e-5),
    ],
)
def test_on_every_completion_the_unmasked_reward_is_the_log_ratio(
    tmp_path: Path, architecture: str, kind: torch.dtype, tolerance: float
) -> None:
    """Eq. 9 and 12 on all that the two policies can say, against plain passes in float64."""
    pair = enumerable(architecture, tmp_path)
    for log_probabilities in (pair.log_p, pair.log_q):
        assert np.exp(log_probabilities).sum() == pytest.approx(1, abs=1e-12)
    assert np.exp(pair.log_p) @ pair.log_ratio == pytest.approx(1, abs=1e-4)  # 1 nat apart
    pair.positive.backbone.causal.to(kind)
    texts = [each.completion for each in pair.completions]
    reward = DensityRatio("exact", lambda: pair.positive, lambda: pair.negative, PLAIN)
    found = reward.score([PROMPT] * len(texts), texts, [each.finished for each in pair.completions])
    assert len(set(pair.completions)) == len(found) == 1 + 3 + 9 + 27 + 81
    np.testing.assert_allclose(found, pair.log_ratio, rtol=0, atol=tolerance)
    assert np.exp(pair.log_q + found).sum() == pytest.approx(1, abs=tolerance)  # p itself
