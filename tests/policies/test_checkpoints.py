"""Only whole checkpoints count, and a resumed training is the uninterrupted one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from demoalign.config import AdapterConfig, SftConfig
from demoalign.demonstrations.render import render
from demoalign.policies.backbone import Backbone
from demoalign.policies.checkpoints import newest_complete
from demoalign.policies.sft import train_sft
from tests.conftest import ModelFolder
from tests.models import load_backbone

CONFIG = SftConfig(epochs=2, batch_size=2, accumulation=1, learning_rate=1e-2, checkpoints=2)
ADAPTER = AdapterConfig(r=4, dropout=0.2)


def train(
    base: Path, folder: Path, adapter: str | None = "sft", config: SftConfig = CONFIG
) -> Backbone:
    backbone = load_backbone(base)
    if adapter is not None:
        backbone.add_adapter(adapter, ADAPTER, seed=3)
    rows = [render(backbone.tokenizer, f"Ask {i}", f" answer {i * i}") for i in range(6)]
    train_sft(backbone, adapter, rows, config, 3, folder)
    return backbone


@pytest.fixture(scope="module")
def trained(
    model_folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Backbone, Path]:
    """A training of 6 steps with checkpoints at 2, 4 and 6, of which the newest two are kept."""
    folder = tmp_path_factory.mktemp("trained")
    return train(model_folder("llama", "bos"), folder), folder


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in backbone.causal.named_parameters()}


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_newest_whole_one_counts(trained: tuple[Backbone, Path]) -> None:
    found = newest_complete(trained[1] / "checkpoints")
    assert found is not None
    assert found.name == "checkpoint-6"
    assert sorted(path.name for path in found.parent.glob("checkpoint-*"))[0] == "checkpoint-4"
    assert newest_complete(trained[1] / "nowhere") is None


@pytest.mark.parametrize("damage", ["truncate", "delete"])
def test_each_damaged_file_gives_the_older_one(
    trained: tuple[Backbone, Path], tmp_path: Path, damage: str
) -> None:
    names = files_of(trained[1] / "checkpoints" / "checkpoint-6")
    assert {"trainer_state.json", "complete.json", "optimizer.pt", "scheduler.pt"} <= set(names)
    assert any(name.endswith("adapter_model.safetensors") for name in names)
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        shutil.copytree(trained[1] / "checkpoints", folder)
        path = folder / "checkpoint-6" / name
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        found = newest_complete(folder)
        assert found == folder / "checkpoint-4", name
        assert not (folder / "checkpoint-6").exists(), name


def test_numbers_are_compared_as_numbers(trained: tuple[Backbone, Path], tmp_path: Path) -> None:
    for step in (4, 10):
        whole = trained[1] / "checkpoints" / "checkpoint-6"
        shutil.copytree(whole, tmp_path / f"checkpoint-{step}")
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-10"


def test_a_resumed_training_equals_an_uninterrupted_one(
    trained: tuple[Backbone, Path], model_folder: ModelFolder, tmp_path: Path
) -> None:
    backbone, folder = trained
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(folder / "checkpoints" / "checkpoint-4", checkpoints / "checkpoint-4")
    shutil.copytree(folder / "checkpoints" / "checkpoint-6", checkpoints / "checkpoint-6")
    (checkpoints / "checkpoint-6" / "optimizer.pt").write_bytes(b"half")
    before = (checkpoints / "checkpoint-4" / "trainer_state.json").stat().st_mtime_ns
    resumed = train(model_folder("llama", "bos"), tmp_path)
    assert (checkpoints / "checkpoint-4" / "trainer_state.json").stat().st_mtime_ns == before
    wanted, found = weights(backbone), weights(resumed)
    fresh = load_backbone(model_folder("llama", "bos"))
    fresh.add_adapter("sft", ADAPTER, seed=3)
    assert any(
        not torch.allclose(value, wanted[name], atol=1e-3) for name, value in weights(fresh).items()
    )
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grouped", [False, True])
def test_full_fine_tuning_is_resumed_too(
    model_folder: ModelFolder, tmp_path: Path, grouped: bool
) -> None:
    base = model_folder("gpt2", "eos_only")
    config = CONFIG.model_copy(update={"group_by_length": grouped})
    wanted = weights(train(base, tmp_path / "first", None, config))
    shutil.copytree(
        tmp_path / "first" / "checkpoints" / "checkpoint-4",
        tmp_path / "second" / "checkpoints" / "checkpoint-4",
    )
    found = weights(train(base, tmp_path / "second", None, config))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
