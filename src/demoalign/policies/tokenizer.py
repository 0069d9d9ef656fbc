"""Tokenizers made safe: fast ones, with a pad token that is never an end token."""

from __future__ import annotations

import json
from typing import Any

from demoalign.demonstrations.render import answer_end
from demoalign.errors import ModelError

_PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<unk>")
_NEVER_IN_UTF8 = "ÿ"
"""Byte 0xFF as byte-level BPE writes it: no valid text contains it, so no text encodes to it.

The letter U+00FF in a text is two other bytes. But a pad token named in a stored tokenizer is
matched in raw text when it is loaded again, and that would take the letter for padding.
"""


def load_tokenizer(folder: str, vocabulary_size: int, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer and give it a pad token that differs from every end token.

    Padding with the end token makes trainers mask the end token and makes classifiers score the
    wrong one, so demoalign never does it.

    Args:
        folder: model folder or hub id.
        vocabulary_size: rows of the model's embedding.
        trust_remote_code: whether code from the folder may run.

    Raises:
        ModelError: no tokenizer, or no end token, or no token fit for padding.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"tokenizer of {folder}: cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"tokenizer of {folder}: needs an eos_token so that answers can end, found none. "
            "Set eos_token in its tokenizer_config.json."
        )
    pad = choose_pad(tokenizer, vocabulary_size)
    if tokenizer.pad_token_id != pad:
        text = tokenizer.convert_ids_to_tokens(pad)
        tokenizer.add_special_tokens({"pad_token": text}) if text in _PAD_NAMES else setattr(
            tokenizer, "pad_token", text
        )
    if tokenizer.pad_token == _NEVER_IN_UTF8:
        _stop_matching(tokenizer, pad)
    tokenizer.padding_side = "right"
    return tokenizer


def choose_pad(tokenizer: Any, vocabulary_size: int) -> int:
    """The id to pad with: the tokenizer's own if it is no end token, else one that is unused.

    Raises:
        ModelError: every candidate is taken.
    """
    ends = answer_end(tokenizer, is_chat=True).stop_ids
    taken = {*ends, tokenizer.bos_token_id}
    own = tokenizer.pad_token_id
    if own is not None and own not in ends and own < vocabulary_size:
        return int(own)
    vocabulary = tokenizer.get_vocab()
    for name in (*_PAD_NAMES, _NEVER_IN_UTF8):
        token = vocabulary.get(name)
        if token is not None and token not in taken and token < vocabulary_size:
            return int(token)
    raise ModelError(
        "tokenizer: needs a pad token that is not its end token, and none of "
        f"{', '.join(_PAD_NAMES)} is in its vocabulary. Set pad_token to a token that your data "
        "never contains."
    )


def _stop_matching(tokenizer: Any, token_id: int) -> None:
    """Make an ordinary token that was registered as an added one ordinary again."""
    from tokenizers import Tokenizer

    plain = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in plain["added_tokens"] if token["id"] != token_id]
    if len(kept) < len(plain["added_tokens"]):
        plain["added_tokens"] = kept
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(plain))
