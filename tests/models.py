"""Tiny real models and tokenizers, made on the spot from their configurations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from demoalign.config import ModelConfig
from demoalign.policies.backbone import Backbone
from demoalign.records import Prompt
from tests.architectures import other_config

ARCHITECTURES = ("gpt2", "llama", "gpt_neox", "gemma", "qwen2")
TOKENIZERS = ("eos_only", "bos", "chat", "chat_bos")
CONTEXT = 128

END, BOS, PAD = "<|endoftext|>", "<s>", "<pad>"
TURN, TURN_END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = {
    "eos_only": [END],
    "bos": [PAD, BOS, END],
    "chat": [PAD, END, TURN, TURN_END],
    "chat_bos": [PAD, BOS, END, TURN, TURN_END],
    "chat_end_first": [END, PAD, TURN, TURN_END],
}
SENTENCES = [
    "The router is off. Turn it on again, please.",
    "Why does the printer not print? It has no paper.",
    "I am sorry for the trouble. Your warranty covers the repair.",
    "Hold the reset key until the lamp turns green.",
]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def make_tokenizer(kind: str) -> Any:
    """A byte-level BPE tokenizer.

    ``eos_only`` has one special token, as GPT-2; ``bos`` distinct pad, BOS and EOS, and puts the
    BOS before a text; ``chat`` ends turns with <|im_end|>; ``chat_bos`` does both, and its
    template writes the BOS; ``chat_end_first`` is ``chat`` with 0 as the id of its end token.
    """
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(SPECIALS[kind]) + 30,
        special_tokens=SPECIALS[kind],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES, trainer)
    names = {"eos_token": END}
    if kind == "eos_only":
        names |= {"bos_token": END, "unk_token": END}
    else:
        names["pad_token"] = PAD
    if kind.endswith("bos"):
        names["bos_token"] = BOS
        core.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, core.token_to_id(BOS))]
        )
    extra = {"additional_special_tokens": [TURN, TURN_END]} if kind.startswith("chat") else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names, **extra)
    if kind == "chat_bos":
        tokenizer.chat_template = "{{ bos_token }}" + CHATML
    elif kind.startswith("chat"):
        tokenizer.chat_template = CHATML
    return tokenizer


def make_config(architecture: str, vocabulary: int) -> Any:
    """Two layers of width 32; Llama, Gemma and Qwen2 with grouped queries."""
    common = {"vocab_size": vocabulary, "max_position_embeddings": CONTEXT, **SHAPE}
    wide = {**common, "intermediate_size": 48, "initializer_range": 0.1}
    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=vocabulary,
            n_positions=CONTEXT,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_inner=48,
            initializer_range=0.1,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    if architecture == "llama":
        return LlamaConfig(**wide, num_key_value_heads=2, tie_word_embeddings=False)
    if architecture == "gpt_neox":
        return GPTNeoXConfig(**wide, rotary_pct=0.5, tie_word_embeddings=False)
    if architecture == "gemma":
        return GemmaConfig(**wide, num_key_value_heads=1, head_dim=8)
    return Qwen2Config(**wide, num_key_value_heads=2, tie_word_embeddings=False)


def make_model(architecture: str, tokenizer: Any, seed: int = 0) -> Any:
    """A model with random weights whose answers end now and then."""
    make = make_config if architecture in ARCHITECTURES else other_config
    config = make(architecture, len(tokenizer))
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    ends = [i for text, i in tokenizer.get_vocab().items() if text in {END, TURN_END}]
    with torch.no_grad():
        model.get_output_embeddings().weight *= 4
        model.get_output_embeddings().weight[ends] *= 2
    return model.eval()


def save_model(folder: Path, architecture: str, kind: str) -> Path:
    """Store a model with its tokenizer."""
    tokenizer = make_tokenizer(kind)
    make_model(architecture, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_backbone(folder: Path) -> Backbone:
    """With the default settings, as a recipe that only names its base model."""
    return Backbone.load(ModelConfig(base=str(folder)))


def chat(text: str) -> Prompt:
    """A prompt of one user turn."""
    return [{"role": "user", "content": text}]


def logits_of(model: Any, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Logits (T, V) of each row on its own."""
    with torch.inference_mode():
        return [
            model(input_ids=torch.tensor([list(row)], device=model.device)).logits[0].cpu()
            for row in rows
        ]
