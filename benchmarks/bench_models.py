"""Models for benchmarks: random weights, and answers that end with a given hazard at each token."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from demoalign.config import ModelConfig
from demoalign.policies.backbone import Backbone

END = "</s>"
HAZARD = 1 / 32
_CONSTANT = 8.0
"""What every embedding has in its first dimension: it carries the end token's logit."""


def word_tokenizer(vocabulary: int) -> Any:
    """A token is a word, so that every sampled sequence is what its text encodes to."""
    words = {END: 0, **{f"w{i}": i for i in range(1, vocabulary)}}
    core = Tokenizer(models.WordLevel(words, unk_token="w1"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.WordPiece(prefix="##")
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token="w2")


def small_llama(layers: int = 4, width: int = 256, vocabulary: int = 4096) -> Any:
    """The bar's model: 4 layers of width 256, 4 heads."""
    return _with_hazard(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=2048,
            eos_token_id=0,
            bos_token_id=None,
            pad_token_id=2,
        )
    )


def gpt2_small() -> Any:
    """124M parameters."""
    return _with_hazard(
        GPT2Config(
            n_positions=1024,
            eos_token_id=0,
            bos_token_id=None,
            pad_token_id=2,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )


def as_backbone(model: Any) -> Backbone:
    """With a tokenizer of as many words as the model has."""
    tokenizer = word_tokenizer(model.config.vocab_size)
    return Backbone(ModelConfig(base="benchmark", device="cpu"), model, tokenizer)


def prompt_ids(length: int, number: int = 0, vocabulary: int = 4096) -> list[int]:
    """A random prompt."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(3, vocabulary, (length,), generator=generator).tolist()


def text_of(ids: list[int]) -> str:
    """The text that encodes to ids."""
    return " ".join(f"w{i}" for i in ids)


def _with_hazard(config: Any) -> Any:
    """Random weights whose end token has probability `HAZARD` on average."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = _CONSTANT
        head[:, 0] = _CONSTANT if head is model.get_input_embeddings().weight else 0.0
        ids = torch.randint(3, config.vocab_size, (4, 128))
        for _ in range(20):
            found = model(ids).logits.softmax(-1)[..., 0].mean()
            logits = torch.log(torch.tensor(HAZARD / (1 - HAZARD))) - torch.logit(found)
            hidden = model.base_model(ids).last_hidden_state[..., 0].mean()
            head[0, 0] += logits / hidden
    return model
