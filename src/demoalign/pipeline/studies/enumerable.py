"""Two tiny policies whose completions can all be written down, with exact probabilities."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq

from demoalign.config import AdapterConfig, ModelConfig
from demoalign.demonstrations.render import render
from demoalign.errors import TrainingError
from demoalign.pipeline.studies.worlds import Array
from demoalign.policies.backbone import Backbone
from demoalign.policies.policy import INITIAL, SFT, Policy
from demoalign.rewards.comparisons import Answer

LETTERS = "abc"
MOST_TOKENS = 4
"""A completion is up to three letters and the end, or four letters that are cut there."""
PROMPT = "abc"
PAD, END = "<pad>", "</s>"

NATS = 1.0
"""KL(p, q) of every pair."""
SCALES = np.geomspace(0.1, 2.0, 12)
"""Standard deviations of LoRA's second matrices at which p is looked for, that far from q."""
MOST_DRAWS = 100

HIDDEN = 24
SHAPE = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
CONTEXT = 16
LAYERS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
"""What the adapter changes: nothing that writes into the first hidden feature."""

STEADY = 3.0
"""What the first hidden feature is for every token, so that the head can rule out padding."""
NEVER = -1000.0
"""The head's weight on it for the padding, whose probability is then 0."""


@dataclass(frozen=True)
class EnumerablePair:
    """Positives p and negatives q, two policies on one backbone.

    Attributes:
        config: how the base was loaded.
        positive: the base with a LoRA adapter whose weights are random.
        negative: the bare base.
        completions: all Y that there are, the same for both.
        log_p, log_q: (Y,) their log-probabilities (nats), from plain forward passes in float64.
    """

    config: ModelConfig
    positive: Policy
    negative: Policy
    completions: tuple[Answer, ...]
    log_p: Array
    log_q: Array

    @cached_property
    def log_ratio(self) -> Array:
        """(Y,) log p - log q: the best discriminator's logit (Eq. 9 and 12)."""
        return self.log_p - self.log_q

    def bce(self, logits: Array) -> float:
        """Eq. 11 of logits (Y,) on endless data, in nats."""
        ups, downs = np.logaddexp(0, -logits), np.logaddexp(0, logits)
        return float(np.exp(self.log_p) @ ups + np.exp(self.log_q) @ downs) / 2

    def excess_bce(self, logits: Array) -> float:
        """What they lose to the best discriminator's, which is log 2 - JS(p, q)."""
        return self.bce(logits) - self.bce(self.log_ratio)

    def rmse(self, logits: Array) -> float:
        """Root mean squared distance (nats) from the log-ratio, y drawn from (p + q) / 2."""
        weights = (np.exp(self.log_p) + np.exp(self.log_q)) / 2
        return math.sqrt(weights @ (logits - self.log_ratio) ** 2)


def all_completions() -> tuple[Answer, ...]:
    """Every text of up to `MOST_TOKENS` tokens; the longest are cut before an end."""
    return tuple(
        Answer("".join(letters), finished=count < MOST_TOKENS)
        for count in range(MOST_TOKENS + 1)
        for letters in itertools.product(LETTERS, repeat=count)
    )


def make_pair(folder: Path, seed: int, device: str = "cpu") -> EnumerablePair:
    """Store a random base and put a random adapter on it.

    Args:
        folder: gets the base model with its tokenizer.
        seed: of all weights.
        device: where to compute.
    """
    save_base(folder, seed)
    return load_pair(folder, seed, LAYERS, device)


def load_pair(
    folder: Path, seed: int, layers: Sequence[str], device: str = "cpu"
) -> EnumerablePair:
    """The pair of a stored base: an adapter is drawn, and scaled until KL(p, q) = `NATS`.

    One that does not get there is drawn again.

    Args:
        folder: of a base with the tokenizer of `letter_tokenizer`.
        seed: of the adapter.
        layers: what the adapter changes.
        device: where to compute.

    Raises:
        TrainingError: none does.
    """
    config = ModelConfig(base=str(folder), dtype="float32", device=device)
    backbone = Backbone.load(config)
    backbone.add_adapter(SFT, AdapterConfig(r=4, alpha=4, target_modules=list(layers)), seed)
    positive, negative = Policy(SFT, backbone, SFT), Policy(INITIAL, backbone)
    completions = all_completions()
    log_q = exact_logprobs(negative, completions)
    weights = [each for name, each in backbone.causal.named_parameters() if "lora_B" in name]

    def excess(scale: float, directions: Sequence[torch.Tensor]) -> float:
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.copy_(scale * direction)
        log_p = exact_logprobs(positive, completions)
        return float(np.exp(log_p) @ (log_p - log_q)) - NATS

    for _ in range(MOST_DRAWS):
        drawn = [torch.randn_like(each) for each in weights]
        far = next((scale for scale in SCALES if excess(scale, drawn) > 0), None)
        if far is not None:
            break
    else:
        raise TrainingError(f"study: an adapter must reach KL = {NATS:g}, none of {MOST_DRAWS} did")
    excess(brentq(excess, 0.0, far, args=(drawn,)), drawn)
    return EnumerablePair(
        config, positive, negative, completions, exact_logprobs(positive, completions), log_q
    )


def save_base(folder: Path, seed: int) -> None:
    """A Llama with random weights, which never says the padding, and a tokenizer of letters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = letter_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        model.model.embed_tokens.weight[:, 0] = STEADY
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        model.lm_head.weight[:, 0] = 0
        model.lm_head.weight[tokenizer.pad_token_id, 0] = NEVER
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def letter_tokenizer() -> Any:
    """One token a letter, and no others than padding and end."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate((PAD, END, *LETTERS))}
    core = Tokenizer(models.WordLevel(words, unk_token=PAD))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END)


@torch.inference_mode()
def exact_logprobs(policy: Policy, completions: Sequence[Answer]) -> Array:
    """(Y,) log pi(y | `PROMPT`) in nats, with weights and sums in float64.

    Plain forward passes of whole rows of one length: neither shared prompts nor padding.
    """
    tokenizer = policy.backbone.tokenizer
    rows = [render(tokenizer, PROMPT, each.completion, each.finished) for each in completions]
    found = torch.zeros(len(rows), dtype=torch.float64)
    with policy.active():
        causal = copy.deepcopy(policy.backbone.causal).double()
        for length in {len(row.ids) for row in rows}:
            places = [i for i, row in enumerate(rows) if len(row.ids) == length]
            ids = torch.tensor([rows[i].ids for i in places], device=causal.device)
            start = len(rows[places[0]].prompt_ids)
            logprobs = causal(input_ids=ids).logits[:, start - 1 : -1].log_softmax(-1)
            found[places] = logprobs.gather(-1, ids[:, start:, None]).sum((1, 2)).cpu()
    values: Array = found.numpy()
    return values
