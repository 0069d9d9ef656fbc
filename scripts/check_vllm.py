"""The vLLM engine against the transformers engine and exact probabilities, on a tiny model.

    python -m scripts.check_vllm

Run it from the root of the repository, where vLLM is installed (a CPU build will do). It is no
part of the tests because vLLM is none of the package's requirements. Exit status 1 if a check
fails.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch
from scipy import stats
from tests.models import END, TURN_END, chat, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from demoalign.config import AdapterConfig, ModelConfig, RolloutsConfig
from demoalign.demonstrations.render import answer_end, render_prompt
from demoalign.policies.backbone import Backbone
from demoalign.policies.policy import Policy
from demoalign.records import Rollout
from demoalign.rollouts.engine import Engine, PromptSpec
from demoalign.rollouts.transformers_engine import TransformersEngine
from demoalign.rollouts.vllm_engine import VllmEngine

TEXTS = ("Why?", "The router is off. What now, please?", "Is it?", "Lamp", "Who pays?")
SPECS = [*(PromptSpec(f"p{i}", text) for i, text in enumerate(TEXTS)), PromptSpec("c", chat("Why"))]
LOGPROB_TOLERANCE = 1e-4
ALPHA = 1e-4
"""A chi-square test fails below this; there are six, so a run fails by chance once in 1,700."""
DRAWS = 4000


@dataclass
class Checks:
    """What was checked, and how it went."""

    failed: int = 0

    def add(self, name: str, passed: bool, detail: str = "") -> None:
        """Note one check and print it."""
        self.failed += not passed
        sys.stdout.write(f"{'ok' if passed else 'FAILED':7}{name:52}{detail}\n")
        sys.stdout.flush()


def make_base(folder: Path) -> Path:
    """A Llama with random weights and heads of width 64, whose answers end now and then."""
    tokenizer = make_tokenizer("chat_bos")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            initializer_range=0.1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        model.lm_head.weight *= 2
        model.lm_head.weight[tokenizer.convert_tokens_to_ids([END, TURN_END])] *= 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def add_adapter(backbone: Backbone, name: str, rank: int) -> Policy:
    """An adapter that changes much."""
    backbone.add_adapter(name, AdapterConfig(r=rank, alpha=2 * rank), seed=1)
    shake(backbone, name, seed=rank)
    return Policy(name, backbone, name)


def shake(backbone: Backbone, name: str, seed: int) -> None:
    """New weights for an adapter, in place."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, weight in backbone.peft.named_parameters():
            if f"lora_B.{name}." in key:
                weight.normal_(0, 0.1)


def config(**settings: Any) -> RolloutsConfig:
    """Settings with little to sample."""
    return RolloutsConfig(**{"max_new_tokens": 24, "batch_size": 64, **settings})


def with_settings(engine: VllmEngine, **settings: Any) -> VllmEngine:
    """The engine with other settings, without starting vLLM again."""
    engine.config = config(**settings)
    return engine


def draw(
    engine: Engine,
    policy: Policy,
    specs: Sequence[PromptSpec] = SPECS,
    n: int = 8,
    greedy: bool = False,
) -> list[Rollout]:
    """Rollouts with seed 3."""
    return list(engine.sample(policy, specs, n, 3, greedy))


def log_probs(policy: Policy, ids: Sequence[int]) -> torch.Tensor:
    """(T, V) log-probabilities of the next token, by one plain forward."""
    with torch.inference_mode(), policy.active():
        logits = policy.backbone.causal(torch.tensor([ids], device=policy.backbone.device)).logits
    return torch.log_softmax(logits[0].double().cpu(), dim=-1)


def logprob_error(policy: Policy, rollouts: Sequence[Rollout]) -> float:
    """Largest difference of a stored log-probability from a plain forward's, in nats."""
    prompts = {spec.id: spec.prompt for spec in SPECS}
    worst = 0.0
    for rollout in rollouts:
        prompt = render_prompt(policy.backbone.tokenizer, prompts[rollout.prompt_id])
        scores = log_probs(policy, [*prompt, *rollout.token_ids])[len(prompt) - 1 : -1]
        exact = scores.gather(-1, torch.tensor(rollout.token_ids)[:, None]).squeeze(-1)
        found = torch.tensor(rollout.token_logprobs, dtype=torch.float64)
        total = abs(float(exact.sum()) - (rollout.logprob or 0.0)) / len(exact)
        worst = max(worst, float((exact - found).abs().max()), total)
    return worst


def ends_well(policy: Policy, rollouts: Sequence[Rollout], longest: int) -> bool:
    """Whether each ends at its first stop token, or is as long as it may be."""
    tokenizer = policy.backbone.tokenizer
    is_chat = {spec.id: not isinstance(spec.prompt, str) for spec in SPECS}
    for rollout in rollouts:
        stops = answer_end(tokenizer, is_chat[rollout.prompt_id]).stop_ids
        stopped = rollout.token_ids[-1] in stops
        if stops.intersection(rollout.token_ids[:-1]):
            return False
        if (rollout.finish_reason == "stop") != stopped:
            return False
        if not stopped and len(rollout.token_ids) != longest:
            return False
    return True


def exact_first(policy: Policy, settings: RolloutsConfig) -> torch.Tensor:
    """(V,) probability of each first token: temperature, then top-k, then top-p."""
    prompt = render_prompt(policy.backbone.tokenizer, TEXTS[1])
    exact = torch.softmax(log_probs(policy, prompt)[-1] / settings.temperature, -1)
    ordered, order = exact.sort(descending=True)
    if settings.top_k is not None:
        ordered[settings.top_k :] = 0
        ordered /= ordered.sum()
    ordered[ordered.cumsum(-1) - ordered >= settings.top_p] = 0
    return torch.zeros_like(exact).scatter(-1, order, ordered / ordered.sum())


def first_token_p(policy: Policy, rollouts: Sequence[Rollout], settings: RolloutsConfig) -> float:
    """The chi-square test's p-value of first tokens; tokens expected under 5 times are one."""
    means = exact_first(policy, settings) * len(rollouts)
    counts = torch.zeros_like(means)
    for rollout in rollouts:
        counts[rollout.token_ids[0]] += 1
    if counts[means == 0].any():
        return 0.0
    common = means >= 5
    found, expected = counts[common].tolist(), means[common].tolist()
    if means[~common].sum() >= 1:
        found.append(float(counts[~common].sum()))
        expected.append(float(means[~common].sum()))
    scale = sum(found) / sum(expected)
    return float(stats.chisquare(found, [mean * scale for mean in expected]).pvalue)


def same(ours: Sequence[Rollout], theirs: Sequence[Rollout]) -> bool:
    """Whether two lists of rollouts say the same, log-probabilities aside."""
    one, other = (
        [(r.id, r.token_ids, r.completion, r.finish_reason) for r in side]
        for side in (ours, theirs)
    )
    return one == other


def check_policy(checks: Checks, engine: VllmEngine, policy: Policy) -> None:
    """Everything that holds for any policy."""
    reference = TransformersEngine(config())
    rollouts = draw(with_settings(engine), policy)
    names = [f"{spec.id}/{policy.name}/{i}" for spec in SPECS for i in range(8)]
    checks.add(f"{policy.name}: counts and order", [r.id for r in rollouts] == names)
    stopped = sum(rollout.finish_reason == "stop" for rollout in rollouts)
    passed = ends_well(policy, rollouts, 24) and 0 < stopped < len(rollouts)
    checks.add(f"{policy.name}: stop tokens", passed, f"{stopped} of {len(rollouts)} stopped")
    turns = draw(engine, policy, SPECS[-1:], 200)
    stops = answer_end(policy.backbone.tokenizer, is_chat=True).stop_ids
    seen = Counter(rollout.token_ids[-1] for rollout in turns if rollout.finish_reason == "stop")
    passed = ends_well(policy, turns, 24) and seen.keys() == stops and len(stops) == 2
    checks.add(f"{policy.name}: chat's two stop tokens", passed, f"{sorted(seen.values())} times")
    worst = logprob_error(policy, rollouts)
    checks.add(f"{policy.name}: log-probabilities", worst < LOGPROB_TOLERANCE, f"{worst:.1e} nats")
    ours, theirs = (draw(each, policy, greedy=True) for each in (engine, reference))
    checks.add(f"{policy.name}: greedy as transformers", same(ours, theirs), f"{len(ours)} prompts")
    later = [PromptSpec(spec.id, spec.prompt, first=5) for spec in SPECS]
    rest = draw(with_settings(engine, batch_size=5), policy, later)
    passed = same(rest, [rollout for rollout in rollouts if rollout.index >= 5])
    checks.add(f"{policy.name}: the same from first=5 on", passed)
    for heat, top_k, top_p in ((1.0, None, 1.0), (0.6, None, 1.0), (1.3, 20, 0.8)):
        asked = {"temperature": heat, "top_k": top_k, "top_p": top_p, "max_new_tokens": 1}
        with_settings(engine, batch_size=512, **asked)
        drawn = draw(engine, policy, [PromptSpec("d", TEXTS[1])], DRAWS)
        p = first_token_p(policy, drawn, engine.config)
        name = f"{policy.name}: first token at {heat}, top-k {top_k}, top-p {top_p}"
        checks.add(name, p > ALPHA, f"p = {p:.3f}")
    tempered = draw(with_settings(engine, temperature=0.7, top_p=0.9), policy)
    worst = logprob_error(policy, tempered)
    passed = worst < LOGPROB_TOLERANCE
    checks.add(f"{policy.name}: own log-probabilities, tempered", passed, f"{worst:.1e} nats")


def check_lengths(checks: Checks, engine: VllmEngine, policy: Policy) -> None:
    """Shortest and longest completions, and stop strings."""
    found = draw(with_settings(engine, min_new_tokens=9, max_new_tokens=11), policy, n=24)
    lengths = sorted({len(rollout.token_ids) for rollout in found})
    passed = ends_well(policy, found, 11) and lengths == [10, 11]
    checks.add("min_new_tokens 9, max_new_tokens 11", passed, f"lengths {lengths}")
    for greedy in (True, False):
        plain = draw(with_settings(engine), policy, greedy=greedy)
        stop = common_pair([rollout.completion for rollout in plain])
        cut = draw(with_settings(engine, stop=(stop,)), policy, greedy=greedy)
        passed = all(
            b.completion == a.completion.partition(stop)[0]
            and b.token_ids == a.token_ids[: len(b.token_ids)]
            and b.finish_reason == ("stop" if stop in a.completion else a.finish_reason)
            for a, b in zip(plain, cut, strict=True)
        )
        if greedy:
            reference = TransformersEngine(config(stop=(stop,)))
            passed = passed and same(cut, draw(reference, policy, greedy=True))
        hit = sum(stop in rollout.completion for rollout in plain)
        detail = f"{hit} of {len(cut)} cut"
        checks.add(f"stop string {stop!r}, {'greedy' if greedy else 'sampled'}", passed, detail)


def common_pair(texts: Sequence[str]) -> str:
    """The commonest two characters, of those that are one byte each."""
    pairs = Counter(text[i : i + 2] for text in texts for i in range(len(text) - 1))
    return max((pair for pair in pairs if pair.isascii()), key=lambda pair: pairs[pair])


def check_weights(checks: Checks, engine: VllmEngine, adapted: Policy, folder: Path) -> None:
    """Which weights are served, and when vLLM is started anew."""
    with_settings(engine)
    base = Policy("initial", adapted.backbone)
    held = engine.llm
    draw(engine, base, n=1)
    draw(engine, adapted, n=1)
    checks.add("one vLLM for base and adapters", engine.llm is held)
    shake(adapted.backbone, adapted.name, seed=99)
    worst = logprob_error(adapted, draw(engine, adapted, n=2))
    passed = worst < LOGPROB_TOLERANCE and engine.llm is held
    checks.add("changed adapter is served anew", passed, f"{worst:.1e} nats")
    add_adapter(adapted.backbone, "merged", 12)
    with adapted.backbone.using("merged"):
        whole = adapted.backbone.peft.merge_and_unload(adapter_names=["merged"])
    whole.save_pretrained(folder)
    adapted.backbone.tokenizer.save_pretrained(folder)
    tuned = Policy(
        "tuned",
        Backbone.load(ModelConfig(base=str(folder), adapter=AdapterConfig(kind="none"))),
    )
    worst = logprob_error(tuned, draw(engine, tuned, n=2))
    passed = worst < LOGPROB_TOLERANCE and engine.llm is not held
    checks.add("whole weights of another folder", passed, f"{worst:.1e} nats")
    left = list(Path(gettempdir()).glob("demoalign-adapter-*"))
    checks.add("no adapter folder is left", not left)


def speed(checks: Checks, engine: VllmEngine, policy: Policy) -> None:
    """Tokens a second of both engines at 8 prompts of 32 samples, the best of three."""
    specs = [PromptSpec(f"s{i}", f"{TEXTS[i % 5]} {TEXTS[1]} {i}") for i in range(8)]
    best = {}
    settings: dict[str, Any] = {"max_new_tokens": 96, "min_new_tokens": 64, "batch_size": 256}
    engines: dict[str, Engine] = {
        "vllm": with_settings(engine, **settings),
        "transformers": TransformersEngine(config(**settings)),
    }
    for name, each in engines.items():
        draw(each, policy, specs, 32)
        rates = []
        for _ in range(3):
            clock = time.perf_counter()
            tokens = sum(len(rollout.token_ids) for rollout in draw(each, policy, specs, 32))
            rates.append(tokens / (time.perf_counter() - clock))
        best[name] = max(rates)
    rates_text = ", ".join(f"{name} {rate:.0f}" for name, rate in best.items())
    ratio = best["vllm"] / best["transformers"]
    checks.add(f"tokens a second, {policy.name}", True, f"{rates_text} ({ratio:.2f} x)")


def main() -> int:
    """Run all checks; 1 if any failed."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    checks = Checks()
    for package in ("torch", "transformers", "peft"):
        sys.stdout.write(f"{package} {metadata.version(package)}\n")
    with TemporaryDirectory() as folder:
        base = make_base(Path(folder, "base"))
        backbone = Backbone.load(ModelConfig(base=str(base), adapter=AdapterConfig(r=4)))
        initial, adapted = Policy("initial", backbone), add_adapter(backbone, "sft", 12)
        engine = VllmEngine(config(batch_size=512))
        clock = time.perf_counter()
        draw(with_settings(engine), initial, n=1)
        sys.stdout.write(f"started in {time.perf_counter() - clock:.0f} s\n")
        for policy in (initial, adapted):
            check_policy(checks, engine, policy)
        check_lengths(checks, engine, adapted)
        speed(checks, engine, initial)
        speed(checks, engine, adapted)
        check_weights(checks, engine, adapted, Path(folder, "tuned"))
        engine.close()
    sys.stdout.write(f"{checks.failed} failed\n")
    return min(checks.failed, 1)


if __name__ == "__main__":
    sys.exit(main())
