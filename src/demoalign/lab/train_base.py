"""Train the world's base model: ``python -m demoalign.lab.train_base``.

A byte-level BPE tokenizer and a small Llama are trained on the mixed-quality corpus. A text is
BOS + prompt + completion + EOS, prompt and completion encoded apart as everywhere in the package;
the loss is on all tokens. Nothing is downloaded and no GPU is used. ``--hidden 48 --output DIR``
makes a smaller one, for studies over model sizes.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demoalign.errors import TrainingError
from demoalign.lab import BASE
from demoalign.lab.corpus import corpus
from demoalign.lab.demonstrator import prompts
from demoalign.lab.golden import golden_reward

PAD, BOS, EOS = "<pad>", "<s>", "</s>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
POSITIONS = 512
HEADS = 4
HELD_OUT_SEED_OFFSET = 1_000_003


@dataclass(frozen=True)
class Settings:
    """What one training run does; the defaults are those of the shipped model.

    Attributes:
        steps: optimizer steps. ``batch``: texts a step, each text seen once.
        rate: peak of the learning rate, after a linear warm-up and before a cosine to a tenth.
        vocabulary: tokens, special ones included.
        hidden: width of the model, a multiple of 8; the layers within are twice as wide.
        held_out: texts that the final loss is measured on; ``samples``: prompts whose sampled
            answers the golden reward is averaged over.
    """

    seed: int = 0
    steps: int = 2400
    batch: int = 48
    rate: float = 4e-3
    warmup: int = 100
    vocabulary: int = 1024
    hidden: int = 96
    held_out: int = 500
    samples: int = 300

    def __post_init__(self) -> None:
        """Refuse a width that four heads with rotary positions cannot share evenly."""
        if self.hidden < HEADS * 2 or self.hidden % (HEADS * 2):
            raise ValueError(f"hidden must be a multiple of {HEADS * 2}, found {self.hidden}")


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text encodes, decoding gives it back, digits stand alone.

    Encoding with special tokens puts one BOS in front and no EOS behind.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Token ids of BOS + prompt + completion + EOS for each pair."""
    asked = tokenizer([prompt for prompt, _ in pairs])["input_ids"]
    answered = tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
    return [first + second + [EOS_ID] for first, second in zip(asked, answered, strict=True)]


def build_model(vocabulary: int, seed: int, hidden: int) -> LlamaForCausalLM:
    """A fresh Llama; of 0.47 million parameters as shipped (vocabulary 1024, hidden 96)."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.04,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
    )
    return LlamaForCausalLM(config)


def batches(texts: list[list[int]], size: int, seed: int) -> Iterator[torch.Tensor]:
    """Right-padded batches of texts of like length, in random order.

    Yields:
        (B, T) token ids; every text comes once, B is ``size`` but for a last batch.
    """
    generator = random.Random(seed)
    pool = size * 40  # sorting within pools keeps padding low and batches mixed
    for start in range(0, len(texts), pool):
        ordered = sorted(texts[start : start + pool], key=len)
        groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
        generator.shuffle(groups)
        for group in groups:
            width = max(map(len, group))
            yield torch.tensor([text + [PAD_ID] * (width - len(text)) for text in group])


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats per token of (B, T) ids, padding apart.

    Attention looks back only, so padding on the right needs no mask.
    """
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD_ID
    )


def fit(model: LlamaForCausalLM, texts: list[list[int]], settings: Settings) -> None:
    """AdamW over one pass of the texts, with a line of progress every 100 steps."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1.0, (step + 1) / settings.warmup)
            * (0.55 + 0.45 * math.cos(math.pi * step / settings.steps))
        ),
    )
    model.train()
    began = time.monotonic()
    for step, ids in enumerate(batches(texts, settings.batch, settings.seed), start=1):
        loss = loss_of(model, ids)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == settings.steps:
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(f"loss must stay finite, found {value} at step {step}")
            seconds = time.monotonic() - began
            sys.stdout.write(f"step {step}/{settings.steps} loss {value:.4f} time {seconds:.0f}s\n")
            sys.stdout.flush()


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, texts: list[list[int]]) -> float:
    """Mean cross-entropy over all tokens of ``texts``, in nats per token."""
    model.eval()
    total, tokens = 0.0, 0
    for ids in batches(texts, 64, seed=0):
        count = int((ids[:, 1:] != PAD_ID).sum())
        total += loss_of(model, ids).item() * count
        tokens += count
    return total / tokens


@torch.no_grad()
def sampled_golden(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int, seed: int
) -> float:
    """Mean golden reward (points) of one answer sampled at temperature 1 for each prompt."""
    asked = prompts(count, seed + HELD_OUT_SEED_OFFSET)
    torch.manual_seed(seed)
    inputs = tokenizer(asked, return_tensors="pt", padding=True, padding_side="left")
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=160,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
    )
    answers = tokenizer.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    rewards = golden_reward(asked, answers)
    return sum(rewards) / len(rewards)


def train(output: Path, settings: Settings) -> None:
    """Train, measure and save the base model with its tokenizer and model card into ``output``."""
    began = time.monotonic()
    pairs = corpus(settings.steps * settings.batch, settings.seed)
    tokenizer = train_tokenizer(
        [prompt + answer for prompt, answer in pairs[:20_000]], settings.vocabulary
    )
    model = build_model(settings.vocabulary, settings.seed, settings.hidden)
    fit(model, encode(tokenizer, pairs), settings)
    held_out = encode(tokenizer, corpus(settings.held_out, settings.seed + HELD_OUT_SEED_OFFSET))
    # Figures are of the numbers that are stored: rounded to half precision.
    model.half().float()
    loss = held_out_loss(model, held_out)
    model.generation_config = GenerationConfig(
        pad_token_id=PAD_ID, bos_token_id=BOS_ID, eos_token_id=EOS_ID
    )
    golden = sampled_golden(model, tokenizer, settings.samples, settings.seed)
    seconds = time.monotonic() - began
    model.half().save_pretrained(output)
    tokenizer.save_pretrained(output)
    card = _CARD.format(
        parameters=model.num_parameters(),
        hidden=settings.hidden,
        texts=len(pairs),
        steps=settings.steps,
        seed=settings.seed,
        loss=loss,
        perplexity=math.exp(loss),
        held_out=len(held_out),
        golden=golden,
        samples=settings.samples,
        minutes=seconds / 60,
        threads=torch.get_num_threads(),
    )
    (output / "README.md").write_text(card, encoding="utf-8")
    sys.stdout.write(card)


_CARD = """\
# Base model of the embedded world

A Llama of {parameters:,} parameters (half precision) with a byte-level BPE tokenizer, trained
from nothing on the synthetic mixed-quality help-desk corpus of `demoalign.lab`. It is the initial
policy of the examples and tests, and good for nothing else.

| figure | value |
|---|---|
| width | {hidden} |
| training texts, each seen once | {texts:,} |
| optimizer steps | {steps} |
| seed | {seed} |
| held-out loss, nats per token ({held_out} texts, prompt included) | {loss:.4f} |
| held-out perplexity | {perplexity:.3f} |
| golden reward of samples at temperature 1 ({samples} prompts) | {golden:.2f} |
| minutes of training, with {threads} CPU thread(s) | {minutes:.1f} |

Made by `python -m demoalign.lab.train_base`, which writes this card too.
"""


def main() -> None:
    """Read the command line and train."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description="Train the base model of the embedded world.")
    parser.add_argument("--output", type=Path, help="its folder; by default the shipped one")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--hidden", type=int, default=defaults.hidden, help="width, 8 or more")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.hidden != defaults.hidden and arguments.output is None:
        parser.error("--hidden: a model of another width needs an --output of its own")
    try:
        settings = Settings(seed=arguments.seed, steps=arguments.steps, hidden=arguments.hidden)
    except ValueError as error:
        parser.error(f"--{error}")
    torch.set_num_threads(arguments.threads)
    train(arguments.output or BASE, settings)


if __name__ == "__main__":
    main()
