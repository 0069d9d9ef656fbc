"""A bfloat16 copy to sample from: the same policy but for rounding, and the original untouched."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from demoalign.config import AdapterConfig, RolloutsConfig
from demoalign.errors import ModelError
from demoalign.policies import Policy
from demoalign.policies.sampling_copy import faster_copy, merged_copy, small_copy
from demoalign.rollouts import PromptSpec, TransformersEngine
from tests.conftest import ModelFolder
from tests.models import load_backbone

IDS = torch.tensor([[5, 9, 40, 77, 12]])


def tuned(folder: ModelFolder, architecture: str) -> Policy:
    backbone = load_backbone(folder(architecture, "bos"))
    backbone.add_adapter("sft", AdapterConfig(r=4, alpha=8), 0)
    with torch.no_grad():
        for name, weight in backbone.causal.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return Policy("sft", backbone, "sft")


def logits(policy: Policy) -> torch.Tensor:
    with torch.inference_mode(), policy.active():
        found: torch.Tensor = policy.backbone.causal(IDS).logits.float()
    return found


@pytest.mark.parametrize("adapter", ["sft", None])
def test_the_copy_is_the_policy_but_for_rounding(
    model_folder: ModelFolder, architecture: str, adapter: str | None
) -> None:
    policy = Policy("it", tuned(model_folder, architecture).backbone, adapter)
    before = {name: weight.clone() for name, weight in policy.backbone.causal.state_dict().items()}
    other = Policy("other", policy.backbone, None if adapter else "sft")
    copied = merged_copy(policy, torch.bfloat16)
    assert copied.dtype == torch.bfloat16
    assert not any("lora" in name for name, _ in copied.named_parameters())
    with torch.inference_mode():
        found = copied(IDS).logits.float()
    near, far = (found - logits(policy)).abs().max(), (found - logits(other)).abs().max()
    assert near < 0.05 * logits(policy).abs().max()
    assert far > 3 * near
    after = policy.backbone.causal.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_copy_in_the_same_precision_is_the_same_policy(
    model_folder: ModelFolder, architecture: str
) -> None:
    policy = tuned(model_folder, architecture)
    copied = small_copy(policy)
    assert copied is not None
    with torch.inference_mode():
        torch.testing.assert_close(copied(IDS).logits, logits(policy), atol=2e-4, rtol=0)
    initial = Policy("initial", policy.backbone)
    bare = small_copy(initial)  # adapters that are off cost time, too
    assert bare is not None
    with torch.inference_mode():
        torch.testing.assert_close(bare(IDS).logits, logits(initial), atol=2e-4, rtol=0)
    policy.backbone.remove_adapter("sft")
    assert small_copy(initial) is None, "nothing to leave out"


def test_sampling_from_the_copy(model_folder: ModelFolder) -> None:
    policy = tuned(model_folder, "llama")
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=6, precision="bfloat16"))
    spec = PromptSpec("p", "Why?")
    sampled = list(engine.sample_hidden(policy, [spec], 8, 0))
    assert engine.describe()["weights"] == "bfloat16"
    assert all(each.hidden is None for each in sampled), "states of a rounded copy are not kept"
    plain = TransformersEngine(RolloutsConfig(max_new_tokens=6))
    exact = list(plain.sample(policy, [spec], 8, 0))
    assert plain.describe()["weights"] == "float32"
    first = [(a.rollout.token_ids[0], b.token_ids[0]) for a, b in zip(sampled, exact, strict=True)]
    assert sum(a == b for a, b in first) >= 5, "the same random streams"


def test_auto_takes_what_is_faster(model_folder: ModelFolder) -> None:
    """Which one that is depends on the machine; the choice must be one of the two and work."""
    policy = tuned(model_folder, "gpt2")
    copied = faster_copy(policy)
    assert copied is None or copied.dtype == torch.bfloat16
    engine = TransformersEngine(RolloutsConfig(max_new_tokens=4, precision="auto"))
    assert len(list(engine.sample(policy, [PromptSpec("p", "Why?")], 3, 0))) == 3
    assert engine.describe()["weights"] in {"bfloat16", "float32"}


def test_an_adapter_that_is_more_than_lora_matrices_is_not_merged(
    model_folder: ModelFolder,
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    dora = LoraConfig(r=4, use_dora=True, target_modules="all-linear", task_type="CAUSAL_LM")
    backbone.peft = get_peft_model(backbone.causal, dora, adapter_name="sft")
    policy = Policy("sft", backbone, "sft")
    assert small_copy(policy) is None
    assert faster_copy(policy) is None
    with pytest.raises(ModelError, match="found another kind in sft"):
        merged_copy(policy, torch.bfloat16)
    assert small_copy(tuned(model_folder, "gpt2")) is not None
