"""Write what `benchmarks/best_of_n.py` measured into README.md and docs/rollouts.md.

python benchmarks/best_of_n.py --json > docs/results/best-of-n.json
python docs/best_of_n.py docs/results/best-of-n.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pages import insert

HERE = Path(__file__).parent
SHOWN = {
    "sampling_n64": "sampling, N = 64, eight prompts",
    "sampling_n64_one_prompt": "sampling, N = 64, one prompt",
    "sampling_n64_tuned_malloc": "sampling, N = 64, malloc tuned for `generate`",
    "sampling_n256": "sampling, N = 256, four prompts",
    "sampling_n256_one_prompt": "sampling, N = 256, one prompt",
    "sampling_gpt2_n64": "sampling, N = 64, a model of GPT-2's size",
    "scoring_adapter": "scoring with an adapter reward model",
    "end_to_end_n64": "best of 64: sample, score, select",
    "reward_training": "a reward model's training step, against TRL's RewardTrainer",
    "cache_memory_n256": "bytes of keys and values at N = 256",
}
SHARES = {
    "head_scoring_overhead": "generation with a head's scores over generation alone",
    "decode_step_share_64_rows": "matrix products' share of a decode step, 64 rows",
    "decode_step_share_256_rows": "matrix products' share of a decode step, 256 rows",
}


def main() -> None:
    """Read the figures and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    found = json.loads(parser.parse_args().results.read_text(encoding="utf-8"))
    lines = ["| times as fast, or as small | |", "|---|---|"]
    lines += [f"| {words} | {found[key]:.1f} |" for key, words in SHOWN.items()]
    insert(HERE.parent / "README.md", "best-of-n", "\n".join(lines))
    lines += [f"| {words} | {found[key]:.2f} |" for key, words in SHARES.items()]
    insert(HERE / "rollouts.md", "best-of-n", "\n".join(lines))


if __name__ == "__main__":
    main()
