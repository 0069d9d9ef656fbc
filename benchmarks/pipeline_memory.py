"""Peak memory of a whole LoRA run against what one base with one adapter in training takes.

    python benchmarks/pipeline_memory.py --json

The run is sft, rollouts, an adapter reward model, best-of-N and the evaluation, on a GPT-2 of 124M
random weights in float32. Beside it: three whole models (policy, reference, reward) of which one
has an adapter in training, as the usual stack holds them; and training the policy by rloo, in the
batches of its SFT, beside that SFT. Each is a process of its own that imports the same libraries;
their own memory is shown, and the ratios are given with and without it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Nothing heavy above: a child's peak is never below that of the process that it was forked from.

VOCABULARY, WORDS, PROMPT, COMPLETION, ROWS = 50_257, 50_000, 32, 32, 24
BATCH, SAMPLES, RANK = 4, 16, 32
MIB = 2**20


def peak() -> float:
    """Peak resident memory of this process in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MIB if sys.platform == "darwin" else most / 1024


def resident() -> float:
    """Resident memory of this process in MiB, where the system says."""
    path = Path("/proc/self/statm")
    pages = int(path.read_text(encoding="ascii").split()[1]) if path.exists() else 0
    return pages * resource.getpagesize() / MIB


class Watch:
    """Samples resident memory in a thread: the highest of each stage, in MiB."""

    def __init__(self) -> None:
        self.stage, self.highest = "start", {"start": resident()}
        threading.Thread(target=self._sample, daemon=True).start()

    def enter(self, stage: str) -> None:
        """From now on memory counts for this stage."""
        self.stage, self.highest[stage] = stage, resident()

    def _sample(self) -> None:
        pause = threading.Event()
        while not pause.wait(0.005):
            stage = self.stage
            self.highest[stage] = max(self.highest[stage], resident())


def make_base(folder: Path, small: bool) -> None:
    """Store random weights with a tokenizer of as many made-up words, and demonstrations."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = {"<end>": 0, "<pad>": 1, "<unk>": 2}
    vocabulary |= {f"w{number}": number + 3 for number in range(VOCABULARY - 3)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"eos_token": "<end>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 4} if small else {}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(**shape, **quiet, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    draws = np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(f"w{number}" for number in draws.integers(0, WORDS, count))

    rows = [{"prompt": words(PROMPT), "completion": " " + words(COMPLETION)} for _ in range(ROWS)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "demonstrations.jsonl").write_text(text, encoding="utf-8")


def import_libraries() -> None:
    """What a run imports, so that the processes differ in models alone."""
    import importlib

    from demoalign.console import quiet_libraries

    quiet_libraries()
    for name in ("demoalign.pipeline", "demoalign.report", "datasets", "peft", "scipy.stats"):
        importlib.import_module(name)
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel, Trainer
    from trl import SFTConfig, SFTTrainer

    assert all((AutoModelForCausalLM, GPT2LMHeadModel, Trainer, SFTConfig, SFTTrainer))


def trained_adapter(base: Path) -> Any:
    """The base with one adapter after one step of Adam; weights, gradients and moments held."""
    import torch

    from demoalign.config import AdapterConfig, ModelConfig
    from demoalign.policies import Backbone

    backbone = Backbone.load(ModelConfig(base=str(base), device="cpu"))
    backbone.add_adapter("sft", AdapterConfig(r=RANK, alpha=RANK), 0)
    ids = torch.randint(3, VOCABULARY, (BATCH, PROMPT + COMPLETION + 1))
    with backbone.using("sft"):
        trained = [weight for weight in backbone.causal.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(trained)
        loss = backbone.causal(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimiser.step()
    return backbone, optimiser


def one_adapter(base: Path, watch: Watch) -> None:
    """The base with one adapter in training."""
    watch.enter("base and adapter")
    trained_adapter(base)


def three_models(base: Path, watch: Watch) -> None:
    """Policy with an adapter in training, reference and reward model, each a whole model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    watch.enter("reference and reward model")
    kinds = (AutoModelForCausalLM, AutoModelForSequenceClassification)
    others = [kind.from_pretrained(base) for kind in kinds]
    touched = sum(float(weight.sum()) for model in others for weight in model.parameters())
    watch.enter("policy and adapter")
    trained_adapter(base)
    assert torch.isfinite(torch.tensor(touched))


def whole_run(base: Path, watch: Watch) -> None:
    """All stages of a recipe in one process."""
    from demoalign.config import parse_recipe
    from demoalign.pipeline import Pipeline

    training = {"batch_size": BATCH, "epochs": 1}
    with TemporaryDirectory() as output:
        recipe = parse_recipe(
            {
                "name": "memory",
                "output": output,
                "model": {"base": str(base), "device": "cpu", "adapter": {"r": RANK}},
                "demonstrations": {
                    "source": str(base / "demonstrations.jsonl"),
                    "test_fraction": 1 / 6,
                },
                "sft": training,
                "rollouts": {"max_new_tokens": COMPLETION, "batch_size": SAMPLES},
                "reward": training,
                "evaluation": {"n": SAMPLES},
            }
        )
        pipeline = Pipeline(recipe)
        for target in ("demonstrations", "sft", "rollouts", "reward", "best-of-n", "report"):
            watch.enter(target)
            pipeline.advance(target)


def trained_policy(base: Path) -> Any:
    """A run, kept beside the base, whose policy is trained by rloo in the batches of its SFT."""
    from demoalign.config import parse_recipe
    from demoalign.pipeline import Pipeline

    check = {"every": 2, "prompts": 4, "samples": 1}
    rounds = {"rounds": 2, "prompts": 4, "samples_per_prompt": 4, "batch_size": BATCH}
    rounds |= {"standardise": False}  # random weights say nothing that the reward tells apart
    recipe = parse_recipe(
        {
            "name": "policy",
            "output": str(base.parent / "runs"),
            "model": {"base": str(base), "device": "cpu", "adapter": {"r": RANK}},
            "demonstrations": {
                "source": str(base / "demonstrations.jsonl"),
                "test_fraction": 1 / 6,
            },
            "sft": {"batch_size": BATCH, "epochs": 1},
            "rollouts": {"max_new_tokens": COMPLETION, "batch_size": SAMPLES},
            "reward": {"model": "density_ratio"},
            "improve": {"method": "rloo", **rounds, "check": check},
            "evaluation": {"n": SAMPLES},
        }
    )
    return Pipeline(recipe)


def up_to_sft(base: Path, watch: Watch) -> None:
    """SFT alone."""
    watch.enter("sft")
    trained_policy(base).advance("sft")


def up_to_reward(base: Path, watch: Watch) -> None:
    """What rloo needs."""
    watch.enter("reward")
    trained_policy(base).advance("reward")


def up_to_policy(base: Path, watch: Watch) -> None:
    """The training by rloo alone, in a run that is done up to there."""
    watch.enter("policy")
    trained_policy(base).advance("policy")


PROCESSES: dict[str, Callable[[Path, Watch], None] | None] = {
    "libraries": None,
    "base and adapter": one_adapter,
    "whole run": whole_run,
    "three models": three_models,
    "sft": up_to_sft,
    "before rloo": up_to_reward,
    "rloo": up_to_policy,
}


def child(name: str, base: Path) -> None:
    """One process: do its work and print its peak."""
    import_libraries()
    watch = Watch()
    work = PROCESSES[name]
    if work is not None:
        work(base, watch)
    found = {"peak": peak(), "stages": watch.highest}
    sys.stdout.write(json.dumps(found) + "\n")


def in_process(name: str, base: Path, *more: str) -> dict[str, Any]:
    """Run this file for one process, on one core."""
    done = subprocess.run(
        [sys.executable, __file__, "--process", name, "--base", str(base), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    return found


def measure(repeats: int, quick: bool = False) -> dict[str, float]:
    """Peaks in MiB and their ratios; each the lowest of the repeats, as noise only adds.

    Args:
        repeats: how often each process is run.
        quick: with a model of two narrow layers, to see that it runs.
    """
    with TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        in_process("make", base, *(["--quick"] if quick else []))
        peaks = {}
        for name in PROCESSES:
            runs = [in_process(name, base) for _ in range(repeats)]
            best = min(runs, key=lambda run: float(run["peak"]))
            peaks[name] = float(best["peak"])
            stages = ", ".join(f"{stage} {mib:,.0f}" for stage, mib in best["stages"].items())
            sys.stderr.write(f"{name}: {peaks[name]:,.0f} MiB ({stages})\n")
    unit, libraries = peaks["base and adapter"], peaks["libraries"]

    def net(name: str) -> float:
        return (peaks[name] - libraries) / (unit - libraries)

    return {
        "peak_over_base_plus_adapter": peaks["whole run"] / unit,
        "separate_models_over_base_plus_adapter": peaks["three models"] / unit,
        "rloo_over_sft": peaks["rloo"] / peaks["sft"],
        "net_rloo_over_sft": net("rloo") / net("sft"),
        "net_peak_over_base_plus_adapter": net("whole run"),
        "net_separate_models_over_base_plus_adapter": net("three models"),
        **{f"{name.replace(' ', '_')}_mib": value for name, value in peaks.items()},
    }


def main() -> None:
    """Print the ratios, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--process", choices=["make", *PROCESSES], help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process == "make":
        make_base(arguments.base, arguments.quick)
        return
    if arguments.process is not None:
        child(arguments.process, arguments.base)
        return
    found = measure(arguments.repeats, arguments.quick)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for name, value in found.items():
            sys.stdout.write(f"{name}: {value:.2f}\n")


if __name__ == "__main__":
    main()
