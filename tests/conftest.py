"""Settings and tiny models that all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

from tests.models import ARCHITECTURES, TOKENIZERS, make_tokenizer, save_model

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "search")

ModelFolder = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The folder of a tiny model: ``model_folder(architecture, tokenizer)``, made once."""
    made: dict[tuple[str, str], Path] = {}

    def get(architecture: str = "llama", tokenizer: str = "bos") -> Path:
        key = (architecture, tokenizer)
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{architecture}-{tokenizer}-")
            made[key] = save_model(folder, architecture, tokenizer)
        return made[key]

    return get


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Each kind of model in turn."""
    return str(request.param)


@pytest.fixture(params=TOKENIZERS)
def tokenizer_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of tokenizer in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tokenizer alone: ``tokenizer_folder(kind)``, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(f"tokenizer-{kind}-")
            make_tokenizer(kind).save_pretrained(made[kind])
        return made[kind]

    return get
