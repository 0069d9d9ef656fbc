"""Golden rewards from a function, the embedded world and a reward model's folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from demoalign import lab
from demoalign.demonstrations.transcripts import as_messages
from demoalign.errors import EvaluationError, ModelError
from demoalign.evaluation import GoldenReward, load_golden
from demoalign.pipeline.miniature.models import store_reward
from tests.models import make_config, make_tokenizer

MODULE = "golden_of_the_test"
Write = Callable[[str], None]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write the module into the working directory; it is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()

    def write(source: str) -> None:
        (tmp_path / f"{MODULE}.py").write_text(source, encoding="utf-8")

    yield write
    sys.modules.pop(MODULE, None)


def given(values: list[Any]) -> GoldenReward:
    """A golden reward that gives these values whatever it is asked."""
    return GoldenReward("mine", lambda *_: values)


def test_a_function_of_a_module(write_module: Write) -> None:
    write_module(
        "def reward(prompts, completions):\n"
        "    assert isinstance(prompts, list) and isinstance(completions, list)\n"
        "    return [len(c) - len(p) / 10 for p, c in zip(prompts, completions)]\n"
    )
    golden = load_golden(f"{MODULE}:reward")
    assert golden.name == f"{MODULE}:reward"
    assert golden.score(("Why?", "How?"), ("So", "Thus")) == [1.6, 3.6]


def test_the_working_directory_is_looked_in_once(write_module: Write, tmp_path: Path) -> None:
    write_module("def reward(prompts, completions): return [1] * len(prompts)\n")
    load_golden(f"{MODULE}:reward")
    load_golden(f"{MODULE}:reward")
    assert sys.path.count(str(tmp_path)) == 1


def test_no_such_module(write_module: Write, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as caught:
        load_golden(f"{MODULE}:reward")
    assert str(caught.value) == (
        f"evaluation.golden: '{MODULE}:reward' must be lab, module:function or a model folder; "
        f"No module named '{MODULE}'. The module is looked for beside the working directory "
        f"{tmp_path}."
    )


@pytest.mark.parametrize("function", ["reward", ""])
def test_no_such_function(write_module: Write, function: str) -> None:
    write_module("other = 1\n")
    with pytest.raises(EvaluationError, match=f"has no attribute '{function}'. The module is"):
        load_golden(f"{MODULE}:{function}")


def test_not_callable(write_module: Write) -> None:
    write_module("reward = 3\n")
    with pytest.raises(EvaluationError, match=f"'{MODULE}:reward' must be callable, found 3$"):
        load_golden(f"{MODULE}:reward")


@pytest.mark.parametrize(
    ("source", "error"), [("def reward(:\n", "SyntaxError"), ("1 / 0\n", "ZeroDivisionError")]
)
def test_a_module_that_cannot_be_imported(write_module: Write, source: str, error: str) -> None:
    write_module(source)
    wanted = f"evaluation.golden: .* importing '{MODULE}' failed: {error}"
    with pytest.raises(EvaluationError, match=wanted):
        load_golden(f"{MODULE}:reward")


@pytest.mark.parametrize("spec", [":reward", ".:reward"])
def test_a_module_without_a_name(spec: str) -> None:
    with pytest.raises(EvaluationError, match=f"evaluation.golden: '{spec}'"):
        load_golden(spec)


def test_a_function_that_fails(write_module: Write) -> None:
    write_module("def reward(prompts, completions): raise KeyError('facet')\n")
    with pytest.raises(EvaluationError) as caught:
        load_golden(f"{MODULE}:reward").score(["a"], ["b"])
    assert str(caught.value) == f"golden reward {MODULE}:reward: failed: KeyError('facet')"
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0]])
def test_another_number_of_values(values: list[object]) -> None:
    wanted = (
        f"golden reward mine: must give one value for each of 2 completions, found {len(values)}"
    )
    with pytest.raises(EvaluationError, match=wanted):
        given(values).score(["a", "b"], ["c", "d"])


@pytest.mark.parametrize("value", ["good", "0.5", b"1", [1.0, 2.0], {}, 10**400, 1j])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(EvaluationError, match="golden reward mine: must give numbers or None"):
        given([1.0, value]).score(["a", "b"], ["c", "d"])


def test_what_cannot_be_scored_is_none_and_never_zero() -> None:
    values = [None, float("nan"), float("inf"), -float("inf"), 0, np.float32(0.5)]
    letters = list("abcdef")
    assert given(values).score(letters, letters) == [None, None, None, None, 0.0, 0.5]


def test_arrays_and_tensors_are_values_too() -> None:
    letters = ["a", "b"]
    tensor = GoldenReward("tensor", lambda *_: torch.tensor([1.5, -2.0]).tolist())
    assert tensor.score(letters, letters) == [1.5, -2.0]
    assert given(list(np.array([1, 2]))).score(letters, letters) == [1.0, 2.0]
    assert given(list(torch.tensor([1.5, 2.0]))).score(letters, letters) == [1.5, 2.0]


def test_nothing_to_score_asks_nobody() -> None:
    assert given([1.0, 2.0]).score([], []) == []


def test_the_embedded_world() -> None:
    rows = lab.demonstrations(5, seed=1, dial=0.5)
    prompts = [row.prompt for row in rows]
    completions = [row.completion for row in rows]
    golden = load_golden("lab")
    assert golden.name == "lab"
    found = golden.score(prompts, completions)
    assert found == lab.golden_reward(prompts, completions)
    assert any(found)


def save_classifier(folder: Path, labels: int) -> Path:
    tokenizer = make_tokenizer("bos")
    config = make_config("llama", len(tokenizer))
    config.num_labels = labels
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_reward_models_folder(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "golden", 1)
    golden = load_golden(str(folder), device="cpu")
    assert golden.name == str(folder)
    prompts = ["Why?", "The router is off."]
    completions = [" It has no paper.", " Turn it on again, please."]
    found = golden.score(prompts, completions)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = make_tokenizer("bos")
    for prompt, completion, value in zip(prompts, completions, found, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        ids += tokenizer(completion, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            wanted = model(input_ids=torch.tensor([ids])).logits.item()
        assert value == pytest.approx(wanted, abs=1e-5)
    assert len(set(found)) == 2


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "a:b", 1)
    assert len(load_golden(str(folder)).score(["Why?"], [" So."])) == 1


def test_a_classifier_of_two_labels(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "golden", 2)
    with pytest.raises(ModelError, match="must have one label, found 2"):
        load_golden(str(folder))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load_golden(str(tmp_path / "absent"))


TRANSCRIPT = "\n\nHuman: Is it off?\n\nAssistant: Yes.\n\nHuman: Why?\n\nAssistant:"


def test_a_transcript_as_messages() -> None:
    assert as_messages(TRANSCRIPT) == [
        {"role": "user", "content": "Is it off?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Why?"},
    ]
    words = "\n\nHuman: What does Assistant: mean?\nHuman: too\n\nAssistant:"
    assert as_messages(words) == [
        {"role": "user", "content": "What does Assistant: mean?\nHuman: too"}
    ]
    twice = "\n\nHuman: a\n\nHuman: b\n\nAssistant:\n\nHuman: c\n\nAssistant:"
    assert as_messages(twice) == [{"role": "user", "content": "a\n\nb\n\nc"}]
    assert as_messages("Plain.") == [{"role": "user", "content": "Plain."}]
    chat = [{"role": "user", "content": "Hi"}]
    assert as_messages(chat) == chat


def test_a_reward_model_that_reads_its_chat_template(tmp_path: Path) -> None:
    texts = ["How do I mend a chair?", "Begin by testing it first."]
    store_reward(tmp_path / "golden", "gemma", texts, chat=True, seed=1)
    folder = str(tmp_path / "golden")
    golden = load_golden(folder, device="cpu", chat=True)
    prompts, completions = [TRANSCRIPT, "Plain."], [" It broke. ", "So it is, I think, really."]
    found = golden.score(prompts, completions)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversation = [*as_messages(TRANSCRIPT), {"role": "assistant", "content": "It broke."}]
    ids = tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False)
    assert ids.count(tokenizer.bos_token_id) == 1
    with torch.inference_mode():
        wanted = model(input_ids=torch.tensor([ids])).logits.item()
    assert found[0] == pytest.approx(wanted, abs=1e-5)
    assert load_golden(folder, device="cpu").score(prompts, completions)[0] != found[0]


def test_chat_needs_a_template(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "golden", 1)
    with pytest.raises(EvaluationError, match="chat: true needs a reward model with a chat templ"):
        load_golden(str(folder), chat=True)
