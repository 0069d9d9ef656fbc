"""Log-probabilities of completions against one plain forward pass a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demoalign.config import AdapterConfig
from demoalign.policies import Policy, logprobs
from demoalign.policies.last_hidden import Row
from demoalign.policies.logprobs import completion_logprobs
from tests.conftest import ModelFolder
from tests.models import load_backbone

PROMPTS = [(5, 9, 40), (7,), (11, 12, 13, 14, 15, 16, 17)]
ROWS = [
    Row(PROMPTS[0], (20, 21, 22)),
    Row(PROMPTS[1], (30,)),
    Row(PROMPTS[0], (20, 23)),
    Row(PROMPTS[2], (40, 41, 42, 43, 44)),
    Row(PROMPTS[0], ()),
    Row(PROMPTS[0], (25,)),
]


def plain(policy: Policy, row: Row) -> list[list[float]]:
    ids = torch.tensor([row.prompt + row.completion])
    with torch.inference_mode(), policy.active():
        whole = torch.log_softmax(policy.backbone.causal(ids).logits[0].double(), dim=-1)
    start = len(row.prompt) - 1
    places = range(start, start + len(row.completion))
    values = [float(whole[t, token]) for t, token in zip(places, row.completion, strict=True)]
    return [values, [float(whole[t].max()) for t in places]]


@pytest.fixture
def tuned(model_folder: ModelFolder, architecture: str) -> Policy:
    backbone = load_backbone(model_folder(architecture, "bos"))
    backbone.add_adapter("sft", AdapterConfig(r=4, alpha=8), 0)
    with torch.no_grad():
        for name, weight in backbone.causal.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    return Policy("sft", backbone, "sft")


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_equal_to_a_plain_forward_pass(tuned: Policy, batch_size: int) -> None:
    for policy in (tuned, Policy("initial", tuned.backbone)):
        found = completion_logprobs(policy, ROWS, batch_size)
        for row, values in zip(ROWS, found, strict=True):
            np.testing.assert_allclose(np.stack(values), plain(policy, row), atol=1e-4)


def test_architectures_that_cannot_share(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = completion_logprobs(tuned, ROWS)
    monkeypatch.setattr(logprobs, "why_not_shared", lambda _: "no reason")
    for values, other in zip(completion_logprobs(tuned, ROWS), wanted, strict=True):
        np.testing.assert_allclose(np.stack(values), np.stack(other), atol=1e-4)


def test_few_logits_at_a_time(tuned: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = completion_logprobs(tuned, ROWS)
    monkeypatch.setattr(logprobs, "LOGIT_ELEMENTS", 1)
    for values, other in zip(completion_logprobs(tuned, ROWS), wanted, strict=True):
        np.testing.assert_allclose(np.stack(values), np.stack(other), atol=1e-4)


def test_watchers_see_the_logits_of_every_place(
    tuned: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all rows with a completion, in batches of any kind."""

    def seen() -> dict[int, torch.Tensor]:
        kept: dict[int, torch.Tensor] = {}
        completion_logprobs(tuned, ROWS, 2, lambda i, logits: kept.update({i: logits.clone()}))
        return kept

    shared = seen()
    monkeypatch.setattr(logprobs, "why_not_shared", lambda _: "no reason")
    for kept in (shared, seen()):
        assert sorted(kept) == [i for i, row in enumerate(ROWS) if row.completion]
        for number, logits in kept.items():
            found = logits.log_softmax(-1)
            said = torch.tensor(ROWS[number].completion)[:, None]
            values, highest = plain(tuned, ROWS[number])
            np.testing.assert_allclose(found.gather(-1, said)[:, 0], values, atol=1e-4)
            np.testing.assert_allclose(found.amax(-1), highest, atol=1e-4)
