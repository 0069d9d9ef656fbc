"""Scores: the last real token's, whatever the batch, the padding and the loader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from demoalign.config import AdapterConfig, ModelConfig, RewardConfig
from demoalign.demonstrations.render import render
from demoalign.errors import EvaluationError, ModelError
from demoalign.policies import Policy
from demoalign.records import Prompt
from demoalign.rewards import RewardModel
from demoalign.rewards.scorers import last_positions, on_the_right
from demoalign.rewards.scoring import pad_right
from demoalign.rewards.train import train_reward_model
from tests.conftest import ModelFolder
from tests.models import BOS, END, chat, load_backbone
from tests.rewards.models import (
    ANSWERS,
    KINDS,
    PROMPTS,
    easy_pairs,
    effective_adapter,
    fresh_reward,
)

SOURCE = Path(__file__).parents[2] / "src"


def rows_of(model: RewardModel) -> list[list[int]]:
    return [render(model.tokenizer, p, a).ids for p, a in zip(PROMPTS, ANSWERS, strict=True)]


def padded(rows: list[list[int]], pad: int, left: bool, more: int) -> tuple[torch.Tensor, ...]:
    longest = max(map(len, rows)) + more
    gaps = [[pad] * (longest - len(row)) for row in rows]
    ids = [gap + row if left else row + gap for row, gap in zip(rows, gaps, strict=True)]
    mask = [
        [0] * len(gap) + [1] * len(row) if left else [1] * len(row) + [0] * len(gap)
        for row, gap in zip(rows, gaps, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(mask)


def forward(model: RewardModel, ids: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    device = model.scorer.device
    with torch.inference_mode():
        rewards, _ = model.scorer(ids.to(device), mask.to(device))
    result: np.ndarray = rewards.double().cpu().numpy()
    return result


def classify(model: torch.nn.Module, rows: list[list[int]]) -> list[float]:
    """Scores of a transformers classifier, each row alone and without padding."""
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([row])).logits.item() for row in rows]


# Padding and batches


def test_last_positions_and_shifts_by_hand() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0]])
    ids = torch.tensor([[5, 6, 0, 0], [0, 0, 7, 8], [1, 2, 3, 4], [0, 9, 0, 0]])
    assert last_positions(mask).tolist() == [1, 3, 3, 1]
    moved, kept = on_the_right(ids, mask)
    assert moved.tolist() == [[5, 6, 0, 0], [7, 8, 0, 0], [1, 2, 3, 4], [9, 0, 0, 0]]
    assert kept.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert pad_right([[1], [2, 3]], 0)[0].tolist() == [[1, 0], [2, 3]]


@pytest.mark.parametrize("kind", ["adapter", "full", "full with variance"])
def test_padding_and_batches_change_no_score(
    model_folder: ModelFolder, architecture: str, kind: str
) -> None:
    """Right, left, alone, together; with the pad that stands for end = pad too."""
    base = model_folder(architecture, "eos_only")
    model = fresh_reward(base, kind.partition(" ")[0], variance=kind.endswith("variance"))
    rows = rows_of(model)
    pad = model.tokenizer.pad_token_id
    assert pad != model.tokenizer.eos_token_id
    assert all(row[-1] == model.tokenizer.eos_token_id for row in rows)
    single = np.array(
        [forward(model, torch.tensor([r]), torch.ones(1, len(r)).long())[0] for r in rows]
    )
    assert np.ptp(single) > 0.05
    unfinished = model.score(PROMPTS, ANSWERS, finished=[False] * len(PROMPTS))
    assert np.abs(unfinished - single).max() > 1e-2
    for left in (False, True):
        for more in (0, 5):
            found = forward(model, *padded(rows, pad, left, more))
            np.testing.assert_allclose(found, single, atol=1e-5)
    for size in (1, 2, 8):
        np.testing.assert_allclose(
            model.score(PROMPTS, ANSWERS, batch_size=size), single, atol=1e-5
        )


@pytest.mark.parametrize("left", [False, True])
def test_our_own_heads_do_not_look_at_the_pad_id(model_folder: ModelFolder, left: bool) -> None:
    model = fresh_reward(model_folder("gpt2", "eos_only"))
    rows = rows_of(model)
    wanted = forward(model, *pad_right(rows, model.tokenizer.pad_token_id))
    found = forward(model, *padded(rows, model.tokenizer.eos_token_id, left, 3))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("prompt", ["Why?", BOS + "Why?", chat("Why?")], ids=["a", "b", "c"])
@pytest.mark.parametrize("kind", ["bos", "chat_bos"])
def test_one_bos_is_scored(model_folder: ModelFolder, kind: str, prompt: Prompt) -> None:
    """A score is that of the ids with exactly one BOS."""
    model = fresh_reward(model_folder("llama", kind))
    rendered = render(model.tokenizer, prompt, " No.")
    assert rendered.ids.count(model.tokenizer.bos_token_id) == 1
    row = torch.tensor([rendered.ids])
    wanted = forward(model, row, torch.ones_like(row))
    np.testing.assert_allclose(model.score([prompt], [" No."]), wanted, atol=1e-5)
    twice = torch.tensor([[model.tokenizer.bos_token_id, *rendered.ids]])
    assert abs(forward(model, twice, torch.ones_like(twice)) - wanted).max() > 1e-3


def test_an_end_text_is_scored_once(model_folder: ModelFolder) -> None:
    model = fresh_reward(model_folder("llama", "bos"))
    found = model.score(["Why?"] * 3, [" No.", " No." + END, " No" + END + "."])
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert abs(found[0] - found[2]) > 1e-3


def test_errors(model_folder: ModelFolder, tmp_path: Path) -> None:
    model = fresh_reward(model_folder("llama", "bos"))
    with pytest.raises(EvaluationError, match=r"one completion and one flag .*found 1, 2 and 2"):
        model.score(["a"], ["b", "c"])
    with torch.no_grad():
        next(p for n, p in model.scorer.named_parameters() if n == "head.weight")[0, 0] = torch.nan
    with pytest.raises(EvaluationError, match="every score must be finite, found 2 of 2"):
        model.score(["a", "b"], ["c", "d"])
    whole = AutoModelForSequenceClassification.from_pretrained(
        model_folder("llama", "bos"), num_labels=3
    )
    whole.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="must have one label, found 3"):
        RewardModel.load(tmp_path)


def test_equal_answers_have_exactly_equal_scores(model_folder: ModelFolder) -> None:
    """Else a tie would be decided by the rounding of one batch or another."""
    model = fresh_reward(model_folder("llama", "bos"))
    found = model.score(PROMPTS * 3, ANSWERS * 3, batch_size=4)
    assert (found[:5] == found[5:10]).all()
    assert (found[:5] == found[10:]).all()


# Against transformers, and through the disk

FRESH = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification as Auto
from demoalign.rewards import RewardModel

folders, base, prompts, completions, rows = json.loads(sys.argv[1])

def scores(model):
    with torch.inference_mode():
        return [model.eval()(input_ids=torch.tensor([row])).logits.item() for row in rows]

found = {}
for folder in folders:
    ours = RewardModel.load(folder, device="cpu")
    found[folder] = [list(ours.score(prompts, completions))]
    whole = Auto.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    found[folder].append(scores(whole))
    if not folder.endswith("full"):
        plain = Auto.from_pretrained(base, num_labels=1, dtype=torch.float32)
        found[folder].append(scores(PeftModel.from_pretrained(plain, folder)))
print(json.dumps(found))
"""


def test_scores_survive_a_fresh_process(model_folder: ModelFolder, tmp_path: Path) -> None:
    """Trained reward models of all kinds, by our loader, by transformers and by PEFT."""
    base = model_folder("llama", "eos_only")
    backbone = load_backbone(base)
    effective_adapter(backbone, "sft", 5)
    wanted = {}
    for kind in KINDS:
        config = RewardConfig.model_validate(
            {"model": kind, "epochs": 2, "learning_rate": 1e-2, "accumulation": 1}
        )
        model, _ = train_reward_model(
            config,
            ModelConfig(base=str(base), adapter=AdapterConfig(r=4)),
            backbone,
            Policy("sft", backbone, "sft"),
            easy_pairs(8),
            0,
            "mine",
        )
        model.save(tmp_path / kind)
        wanted[str(tmp_path / kind)] = model.score(PROMPTS, ANSWERS)
        is_adapter = (tmp_path / kind / "adapter_config.json").is_file()
        assert is_adapter == (kind != "full")
    work = json.dumps([list(wanted), str(base), PROMPTS, ANSWERS, rows_of(model)])
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, work],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [len(scores) for scores in found.values()] == [3, 3, 2]
    for folder, loaded in found.items():
        assert np.ptp(wanted[folder]) > 0.1
        for scores in loaded:
            np.testing.assert_allclose(scores, wanted[folder], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_all_loaders_agree(
    model_folder: ModelFolder, architecture: str, kind: str, tmp_path: Path
) -> None:
    base = model_folder(architecture, "eos_only")
    model = fresh_reward(base, kind)
    model.save(tmp_path)
    wanted = model.score(PROMPTS, ANSWERS)
    np.testing.assert_allclose(
        RewardModel.load(tmp_path).score(PROMPTS, ANSWERS), wanted, atol=1e-5
    )
    rows = rows_of(model)
    plain = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=1, dtype=torch.float32
    )
    np.testing.assert_allclose(classify(plain.eval(), rows), wanted, atol=1e-5)
    if kind == "adapter":
        bare = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, dtype=torch.float32
        )
        wrapped = PeftModel.from_pretrained(bare, tmp_path).eval()
        np.testing.assert_allclose(classify(wrapped, rows), wanted, atol=1e-5)
        shared = load_backbone(base)
        effective_adapter(shared, "sft", 9)
        beside = RewardModel.load(tmp_path, "other", backbone=shared)
        np.testing.assert_allclose(beside.score(PROMPTS, ANSWERS), wanted, atol=1e-5)
        assert shared.adapters == ("sft", "reward_other")


@pytest.mark.parametrize("kind", KINDS)
def test_the_variance_head_is_stored(model_folder: ModelFolder, kind: str, tmp_path: Path) -> None:
    model = fresh_reward(model_folder("llama", "bos"), kind, variance=True)
    model.save(tmp_path)
    wanted = model.score_with_deviation(PROMPTS, ANSWERS)
    found = RewardModel.load(tmp_path).score_with_deviation(PROMPTS, ANSWERS)
    assert np.ptp(wanted[1]) > 0.05
    assert (wanted[1] > 0).all()
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    without = fresh_reward(model_folder("llama", "bos"), kind)
    assert without.score_with_deviation(PROMPTS, ANSWERS)[1].tolist() == [1.0] * len(PROMPTS)


def test_an_adapter_without_a_score_head_is_refused(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    model = fresh_reward(model_folder("llama", "bos"))
    model.save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "score" not in k}, path)
    with pytest.raises(ModelError, match="needs a score head, found none in its adapter"):
        RewardModel.load(tmp_path)


def test_other_peoples_models_get_the_text_alone(model_folder: ModelFolder, tmp_path: Path) -> None:
    """No end token where the folder does not say that answers are scored with one."""
    ours = fresh_reward(model_folder("llama", "bos"), "full")
    ours.save(tmp_path)
    (tmp_path / "demoalign.json").unlink()
    theirs = RewardModel.load(tmp_path)
    unfinished = ours.score(PROMPTS, ANSWERS, finished=[False] * len(PROMPTS))
    np.testing.assert_allclose(theirs.score(PROMPTS, ANSWERS), unfinished, atol=1e-5)
    assert not theirs.ends_answers
    theirs.save(tmp_path / "again")
    assert not RewardModel.load(tmp_path / "again").ends_answers
