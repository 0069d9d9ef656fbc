"""Architectures that a miniature can have, and what their real tokenizers look like."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTEXT = 512
WIDTH, LAYERS, HEADS = 32, 2, 4

END = "<|endoftext|>"
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """An architecture with its tokenizer's habits.

    Attributes:
        config_class: of transformers.
        names: special tokens by role (``eos_token``, ``pad_token``, ...); a role without one has
            none, as where GPT-2 has no pad token.
        others: further special tokens.
        starts: whether a text begins with the BOS token.
        chat_template: of those models of the family that have one, else None.
        settings: of the configuration, beyond the common ones.
    """

    config_class: str
    names: Mapping[str, str]
    others: tuple[str, ...] = ()
    starts: bool = False
    chat_template: str | None = None
    settings: Mapping[str, Any] | None = None


_END_ONLY = {"bos_token": END, "eos_token": END, "unk_token": END}
_SENTENCES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_GROUPED = {"num_key_value_heads": 2, "tie_word_embeddings": False}

FAMILIES: Mapping[str, Family] = {
    "gpt2": Family("GPT2Config", _END_ONLY),
    "gpt_neox": Family("GPTNeoXConfig", _END_ONLY, ("<|padding|>",), settings={"rotary_pct": 0.25}),
    "gemma": Family(
        "GemmaConfig",
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
        ("<start_of_turn>", "<end_of_turn>"),
        starts=True,
        chat_template=GEMMA,
        settings={"num_key_value_heads": 1, "head_dim": 8},
    ),
    "mistral": Family(
        "MistralConfig",
        {**_SENTENCES, "pad_token": "</s>"},  # as zephyr-7b-sft-full has it
        starts=True,
        chat_template=ZEPHYR,
        settings={**_GROUPED, "sliding_window": 4096},
    ),
    "llama": Family(
        "LlamaConfig", _SENTENCES, starts=True, chat_template=ZEPHYR, settings=_GROUPED
    ),
    "qwen2": Family(
        "Qwen2Config",
        {"eos_token": "<|im_end|>", "pad_token": END},
        ("<|im_start|>",),
        chat_template=CHATML,
        settings=_GROUPED,
    ),
}
"""By transformers' ``model_type``."""

_NAMED = (
    (r"gpt-?2", "gpt2"),
    (r"pythia|neox", "gpt_neox"),
    (r"gemma", "gemma"),
    (r"zephyr|mistral", "mistral"),
    (r"qwen", "qwen2"),
)
UNKNOWN = "llama"
_CHATS = r"chat|instruct|zephyr|-it\b|rm-gemma|qwen"


def family_of(model: str) -> str:
    """The architecture of a model: read from its folder's configuration, or told by its name.

    A Llama stands in for what is not in `FAMILIES`.
    """
    config = Path(model).expanduser() / "config.json"
    if config.is_file():
        kind = str(json.loads(config.read_text(encoding="utf-8")).get("model_type"))
        return kind if kind in FAMILIES else UNKNOWN
    name = model.rpartition("/")[2].lower()
    return next((family for pattern, family in _NAMED if re.search(pattern, name)), UNKNOWN)


def has_template(model: str) -> bool:
    """Whether a model has a chat template: read from its folder, or told by its name."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        if (folder / "chat_template.jinja").is_file():
            return True
        config = folder / "tokenizer_config.json"
        return config.is_file() and "chat_template" in config.read_text(encoding="utf-8")
    return re.search(_CHATS, model.lower()) is not None
