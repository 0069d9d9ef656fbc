"""Tokenizers: the pad token is never an end token, and takes nothing from the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from demoalign.demonstrations.render import answer_end, render_completion
from demoalign.errors import ModelError
from demoalign.policies.tokenizer import choose_pad, load_tokenizer
from tests.conftest import ModelFolder
from tests.models import END, PAD, TURN_END, load_backbone, make_tokenizer

TokenizerFolder = Callable[[str], Path]
BYTE_FF = "ÿ"


def test_pad_is_no_end_id(tokenizer_folder: TokenizerFolder, tokenizer_kind: str) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder(tokenizer_kind)), 1000)
    wanted = BYTE_FF if tokenizer_kind == "eos_only" else PAD
    assert tokenizer.pad_token == wanted
    for is_chat in (False, True):
        assert tokenizer.pad_token_id not in answer_end(tokenizer, is_chat).stop_ids


@pytest.mark.parametrize("end", [END, TURN_END])
def test_a_pad_that_is_an_end_is_replaced(tmp_path: Path, end: str) -> None:
    tokenizer = make_tokenizer("chat")
    tokenizer.pad_token = end
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path), 1000)
    assert loaded.pad_token == PAD
    assert loaded.pad_token_id not in answer_end(loaded, is_chat=True).stop_ids


def test_the_pad_byte_leaves_the_letter_alone(
    tmp_path: Path, tokenizer_folder: TokenizerFolder
) -> None:
    first = load_tokenizer(str(tokenizer_folder("eos_only")), 1000)
    first.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path), 1000)
    plain = AutoTokenizer.from_pretrained(tokenizer_folder("eos_only"))
    text = "L'Haÿ ÿ"
    wanted = plain(text)["input_ids"]
    for tokenizer in (first, again):
        assert tokenizer.pad_token_id == plain.get_vocab()[BYTE_FF]
        assert tokenizer(text)["input_ids"] == wanted
        assert tokenizer.pad_token_id not in wanted
        assert tokenizer.decode(wanted, skip_special_tokens=True) == text
        assert render_completion(tokenizer, "", text)[:-1] == wanted
    assert again(f"ÿ{END}")["input_ids"][-1] == again.eos_token_id


def test_a_pad_outside_the_embedding_is_replaced() -> None:
    tokenizer = make_tokenizer("bos")
    tokenizer.add_special_tokens({"pad_token": "[new]"})
    assert tokenizer.pad_token_id == len(tokenizer) - 1
    assert choose_pad(tokenizer, len(tokenizer)) == tokenizer.pad_token_id
    assert choose_pad(tokenizer, len(tokenizer) - 1) == tokenizer.get_vocab()[PAD]


def test_no_token_left_for_padding() -> None:
    tokenizer = make_tokenizer("eos_only")
    with pytest.raises(ModelError, match=r"needs a pad token that is not its end token.*Set pad"):
        choose_pad(tokenizer, tokenizer.get_vocab()[BYTE_FF])


def test_a_tokenizer_without_an_end_token(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("bos")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer of .*: needs an eos_token .*found none\. Set"):
        load_tokenizer(str(tmp_path), 1000)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer of .*: cannot be loaded: "):
        load_tokenizer(str(tmp_path), 1000)


def test_a_saved_model_pads_with_no_end_id(model_folder: ModelFolder, tmp_path: Path) -> None:
    backbone = load_backbone(model_folder("gpt2", "eos_only"))
    backbone.causal.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    again = load_backbone(tmp_path).causal
    for config in (again.config, again.generation_config):
        ends = config.eos_token_id
        assert config.pad_token_id == backbone.tokenizer.pad_token_id
        assert config.pad_token_id not in (ends if isinstance(ends, list) else [ends])
