"""Tiny models and reward models with random weights, made on the spot from a configuration."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demoalign.pipeline.miniature.families import CONTEXT, FAMILIES, HEADS, LAYERS, WIDTH, Family

VOCABULARY = 640
"""Tokens: all bytes, special ones, and a few hundred merges of the made-up rows."""

LOUDER = 8.0
"""How much larger than usual the last layer's weights are, so that distributions are not flat."""


def store_model(folder: Path, family: str, texts: Sequence[str], *, chat: bool, seed: int) -> None:
    """Write a causal language model and its tokenizer.

    Args:
        folder: where to.
        family: one of `FAMILIES`.
        texts: what the tokenizer's merges are learned from.
        chat: whether the tokenizer has a chat template.
        seed: of the weights.
    """
    from transformers import AutoModelForCausalLM

    _store(folder, AutoModelForCausalLM, family, texts, chat, seed)


def store_reward(folder: Path, family: str, texts: Sequence[str], *, chat: bool, seed: int) -> None:
    """Write a sequence classifier with one label, as golden rewards are; see `store_model`."""
    from transformers import AutoModelForSequenceClassification

    _store(folder, AutoModelForSequenceClassification, family, texts, chat, seed, num_labels=1)


def _store(
    folder: Path, kind: Any, family: str, texts: Sequence[str], chat: bool, seed: int, **more: Any
) -> None:
    import torch

    tokenizer = make_tokenizer(FAMILIES[family], tuple(texts), chat)
    config = make_config(family, tokenizer)
    for key, value in more.items():
        setattr(config, key, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.from_config(config)
    head = getattr(model, "score", None) or model.get_output_embeddings()
    with torch.no_grad():
        head.weight *= LOUDER
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def make_config(family: str, tokenizer: Any) -> Any:
    """The family's configuration with two layers of width 32."""
    import transformers

    known = FAMILIES[family]
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": CONTEXT,
    }
    if family == "gpt2":
        sizes = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": CONTEXT}
    return getattr(transformers, known.config_class)(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
        **(known.settings or {}),
    )


def make_tokenizer(family: Family, texts: Sequence[str], chat: bool) -> Any:
    """A byte-level BPE tokenizer with the family's special tokens and, for chat, its template."""
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_str(_merges(tuple(dict.fromkeys(_specials(family))), tuple(texts)))
    if family.starts:
        bos = family.names["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **family.names)
    if family.others:
        tokenizer.add_special_tokens({"additional_special_tokens": list(family.others)})
    tokenizer.chat_template = family.chat_template if chat else None
    return tokenizer


def _specials(family: Family) -> list[str]:
    return [*family.names.values(), *family.others]


@functools.lru_cache(maxsize=8)
def _merges(specials: tuple[str, ...], texts: tuple[str, ...]) -> str:
    """A trained byte-level BPE as JSON."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return str(core.to_str())
