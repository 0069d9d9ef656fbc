"""The base model: its folder, its tokenizer, its quality, and that it can be trained again."""

import math
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from demoalign.lab import BASE, corpus, demonstrations, prompts
from demoalign.lab.train_base import (
    Settings,
    build_model,
    encode,
    held_out_loss,
    main,
    train,
)


def test_the_folder_is_small_and_safe() -> None:
    files = [path for path in BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_every_special_id_is_set_and_different() -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert ids == (0, 1, 2)
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == ids
    assert model.dtype == torch.float16
    assert len(tokenizer) == model.config.vocab_size <= 1024


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Order 4821.\nAgent:",
        " two  blanks ",
        "Grüße, 日本 😀\t\r\n",
        "don't , . !",
        "\x00\x7f",
    ],
)
def test_tokenizer_round_trip_with_one_bos(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ids = tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[1:] == bare
    assert tokenizer.decode(bare) == tokenizer.decode(ids, skip_special_tokens=True) == text


def test_texts_are_short() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    assert max(map(len, tokenizer(prompts(500, 0))["input_ids"])) <= 48
    for dial, longest in ((0.0, 90), (1.0, 115)):
        answers = [each.completion for each in demonstrations(500, dial, 0)]
        lengths = sorted(map(len, tokenizer(answers)["input_ids"]))
        assert lengths[int(0.95 * len(lengths))] <= longest


def test_perplexity_on_held_out_text() -> None:
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    loss = held_out_loss(model, encode(tokenizer, corpus(200, seed=987_654)))
    card = (BASE / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"held-out perplexity \| ([\d.]+)", card)
    assert stated is not None
    assert math.exp(loss) == pytest.approx(float(stated[1]), rel=0.03)
    assert math.exp(loss) < 2.5


def test_training_again_gives_the_same_weights(tmp_path: Path) -> None:
    settings = Settings(steps=6, batch=8, warmup=2, vocabulary=400, held_out=16, samples=4)
    for name in ("first", "second"):
        train(tmp_path / name, settings)
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")
    )
    assert first == second
    fresh = build_model(400, settings.seed, settings.hidden).half().state_dict()
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "first").state_dict()
    assert any(not torch.equal(fresh[name], trained[name]) for name in trained)
    assert "held-out loss" in (tmp_path / "first" / "README.md").read_text(encoding="utf-8")


def test_the_default_width_is_that_of_the_shipped_model() -> None:
    settings = Settings()
    fresh = build_model(settings.vocabulary, settings.seed, settings.hidden)
    shipped = AutoModelForCausalLM.from_pretrained(BASE)
    shapes = {name: weight.shape for name, weight in fresh.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in shipped.state_dict().items()}
    assert f"| width | {settings.hidden} |" in (BASE / "README.md").read_text(encoding="utf-8")


def test_a_base_of_another_width(tmp_path: Path) -> None:
    tiny = {"steps": 1, "batch": 8, "vocabulary": 300, "held_out": 4, "samples": 2}
    train(tmp_path, Settings(hidden=16, **tiny))
    config = AutoModelForCausalLM.from_pretrained(tmp_path).config
    assert (config.hidden_size, config.intermediate_size) == (16, 32)
    assert "| width | 16 |" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--hidden", "20"], "--hidden must be a multiple of 8, found 20"),
        (["--hidden", "0"], "--hidden must be a multiple of 8, found 0"),
        (["--hidden", "48"], "needs an --output of its own"),
    ],
)
def test_a_width_that_is_refused(
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = [] if flags[1] == "48" else ["--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["train_base", *flags, *output])
    with pytest.raises(SystemExit):
        main()
    assert said in capsys.readouterr().err
