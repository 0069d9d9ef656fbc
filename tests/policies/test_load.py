"""Loading: what is refused, and with what words."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from demoalign.config import AdapterConfig, ModelConfig
from demoalign.errors import ModelError
from demoalign.policies import Backbone, Policy
from demoalign.policies.load import check_folder, choose_device, choose_dtype
from tests.conftest import ModelFolder
from tests.models import CONTEXT, load_backbone, logits_of


@pytest.fixture
def copied(model_folder: ModelFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder("llama", "bos"), tmp_path / "model"))


def error_of(folder: Path, trust_remote_code: bool = False) -> str:
    config = ModelConfig(base=str(folder), trust_remote_code=trust_remote_code)
    with pytest.raises(ModelError) as caught:
        Backbone.load(config)
    return str(caught.value)


def test_default_settings_load_on_this_machine(
    model_folder: ModelFolder, architecture: str
) -> None:
    backbone = load_backbone(model_folder(architecture, "bos"))
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert backbone.device.type == wanted
    assert (backbone.hidden_size, backbone.context) == (32, CONTEXT)
    assert not backbone.causal.training


def test_a_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path / 'nowhere'}: no such folder" in error_of(tmp_path / "nowhere")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert "a model folder needs config.json, found none in" in error_of(tmp_path)


def test_pickled_weights_are_refused(copied: Path) -> None:
    model = load_backbone(copied).causal
    (copied / "model.safetensors").unlink()
    assert "weights must be safetensors, found no weights" in error_of(copied)
    torch.save(model.state_dict(), copied / "pytorch_model.bin")
    message = error_of(copied, trust_remote_code=True)
    assert "must be safetensors, found only pickled weights (pytorch_model.bin)" in message
    assert "model.save_pretrained(folder)" in message


def test_code_from_a_folder_is_refused_unless_trusted(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    witness = copied / "ran"
    (copied / "modeling_evil.py").write_text(
        f"from pathlib import Path\nPath({str(witness)!r}).touch()\n", encoding="utf-8"
    )
    message = error_of(copied)
    assert "brings its own code (auto_map in config.json), which is not run" in message
    assert "Set model.trust_remote_code: true if you have read it." in message
    assert not witness.exists()
    check_folder(str(copied), trust_remote_code=True)


def test_damaged_weights(copied: Path) -> None:
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert f"model {copied}: cannot be loaded: " in error_of(copied)


def test_devices_and_dtypes() -> None:
    with pytest.raises(ModelError, match=r"model\.device: must be auto, cpu or a device .* 'tpu9'"):
        choose_device("tpu9")
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_dtype(ModelConfig(base="b"), cpu) == torch.float32
    assert choose_dtype(ModelConfig(base="b", dtype="bfloat16"), cpu) == torch.bfloat16
    whole = ModelConfig(base="b", adapter=AdapterConfig(kind="none"))
    assert choose_dtype(whole, torch.device("cuda")) == torch.float32


def test_a_policy_from_a_model_folder_and_from_an_adapter_folder(
    model_folder: ModelFolder, tmp_path: Path
) -> None:
    backbone = load_backbone(model_folder("llama", "bos"))
    backbone.add_adapter("mine", AdapterConfig(r=4), seed=0)
    with torch.no_grad():
        for name, weight in backbone.causal.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    backbone.save_adapter("mine", tmp_path)
    loaded = Policy.load(tmp_path)
    ids = [[1, 40, 50, 60]]
    ours, whole = Policy("mine", backbone, "mine"), Policy.load(model_folder("llama", "bos"))
    found = []
    for policy in (ours, loaded, whole, Policy("initial", backbone)):
        with policy.active():
            found.append(logits_of(policy.backbone.causal, ids)[0])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.allclose(found[0], found[2], atol=1e-2)


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed"
)
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_base_needs_bitsandbytes(model_folder: ModelFolder, bits: str) -> None:
    config = ModelConfig.model_validate(
        {"base": str(model_folder("llama", "bos")), "quantisation": bits}
    )
    message = f"model.quantisation: {bits} needs bitsandbytes, which is not installed"
    with pytest.raises(ModelError, match=message):
        Backbone.load(config)
