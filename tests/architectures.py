"""Further tiny architectures: windows, soft-capping, sinks, ALiBi, attention of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import transformers

WINDOW = 5
FAR = 300
CONTEXT = 128

_SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.1,
}
_WIDE: dict[str, Any] = {
    **_SIZE,
    "max_position_embeddings": CONTEXT,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
_LONG: dict[str, Any] = {**_WIDE, "max_position_embeddings": 2 * FAR}
_ALTERNATING = ["sliding_attention", "full_attention"]

Make = Callable[[dict[str, Any]], Any]


def _kind(name: str, **settings: Any) -> Make:
    """A configuration class of transformers with its settings; the rest is given at the call."""
    return lambda rest: getattr(transformers, name)(**settings, **rest)


SHARED: Mapping[str, Make] = {
    "gemma2": _kind(
        "Gemma2Config",
        **_WIDE,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=_ALTERNATING,
        attn_logit_softcapping=1.0,
        final_logit_softcapping=3.0,
    ),
    "gemma3": _kind(
        "Gemma3TextConfig",
        **_WIDE,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=_ALTERNATING,
    ),
    "mistral": _kind("MistralConfig", **_WIDE, sliding_window=WINDOW),
    "mistral_far": _kind("MistralConfig", **_LONG, sliding_window=FAR),
    "qwen2_window": _kind(
        "Qwen2Config",
        **_WIDE,
        sliding_window=WINDOW,
        use_sliding_window=True,
        max_window_layers=1,
    ),
    "qwen3": _kind("Qwen3Config", **_WIDE, head_dim=8),
    "phi3": _kind("Phi3Config", **_WIDE, sliding_window=WINDOW),
    "opt": _kind(
        "OPTConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        init_std=0.1,
        ffn_dim=48,
        word_embed_proj_dim=32,
        max_position_embeddings=CONTEXT,
        dropout=0.0,
    ),
}
"""They use the attention interface and say all there is to know through it."""

REFUSED: Mapping[str, Make] = {
    "bloom": _kind("BloomConfig", hidden_size=32, n_layer=2, n_head=4, initializer_range=0.1),
    "falcon_alibi": _kind("FalconConfig", **_SIZE, alibi=True),
    "gpt_neo": _kind(
        "GPTNeoConfig",
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=48,
        attention_types=[[["global", "local"], 1]],
        window_size=WINDOW,
        max_position_embeddings=CONTEXT,
        initializer_range=0.1,
    ),
    "gpt_oss": _kind(
        "GptOssConfig",
        **_WIDE,
        head_dim=8,
        sliding_window=WINDOW,
        num_local_experts=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "lfm2": _kind(
        "Lfm2Config",
        **_WIDE,
        layer_types=["conv", "full_attention"],
    ),
    "phimoe": _kind("PhimoeConfig", **_WIDE, sliding_window=2 * WINDOW, num_local_experts=2),
    "phimoe_far": _kind("PhimoeConfig", **_LONG, sliding_window=FAR, num_local_experts=2),
}
"""ALiBi, attention of their own, attention sinks, convolutions, windows in the mask alone."""


def other_config(architecture: str, vocabulary: int) -> Any:
    """The configuration of one of `SHARED` or `REFUSED`."""
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return {**SHARED, **REFUSED}[architecture]({"vocab_size": vocabulary, **ids})
