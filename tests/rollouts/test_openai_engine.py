"""Rollouts of served policies: number, order, content, how many requests and how far ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from demoalign.config import RolloutsConfig
from demoalign.demonstrations.render import render
from demoalign.endpoints.in_order import AHEAD
from demoalign.errors import RecipeError
from demoalign.lab import BASE
from demoalign.lab import demonstrations as lab_demonstrations
from demoalign.policies import Policy
from demoalign.records import Rollout
from demoalign.rollouts import PromptSpec, make_engine
from demoalign.rollouts.asking import request_seed
from demoalign.rollouts.openai_engine import OpenAIEngine
from tests.conftest import ModelFolder
from tests.models import chat, load_backbone, logits_of
from tests.rollouts.remote import (
    SPECS,
    config,
    engine,
    request_threads,
    wait_until,
    without_weights,
)
from tests.servers import PATIENCE, Server, closed_port, serving

# --- number, order, content


def test_every_rollout_comes_once_and_in_order(served: Policy) -> None:
    with serving() as server:
        found = list(engine(server).sample(served, SPECS, 3, seed=7))
        assert [(r.prompt_id, r.index) for r in found] == [
            (spec.id, index) for spec in SPECS for index in range(3)
        ]
        assert [r.completion for r in found] == [
            f" {spec.prompt} {request_seed(7, spec.id, first)} {number}"
            for spec in SPECS
            for first, number in ((0, 0), (0, 1), (2, 0))
        ]
        assert found[4].id == "p1/initial/1"
        assert {(r.policy, r.seed, r.finish_reason) for r in found} == {("initial", 7, "stop")}
        assert sorted(server.asked()) == sorted((spec.prompt, n) for spec in SPECS for n in (2, 1))
        assert server.noted()["requests"][0]["path"] == "/v1/completions"
    assert request_threads() == []


def test_those_before_the_first_are_not_asked_for(served: Policy) -> None:
    specs = [PromptSpec("a", "A?", first=3), PromptSpec("b", "B?", first=6), PromptSpec("c", "C?")]
    with serving() as server:
        found = list(engine(server, samples_per_request=4).sample(served, specs, 6, seed=0))
        assert [(r.prompt_id, r.index) for r in found] == [
            *(("a", i) for i in (3, 4, 5)),
            *(("c", i) for i in range(6)),
        ]
        # blocks begin where they would have begun without the interruption
        assert sorted(server.asked()) == [("A?", 1), ("A?", 2), ("C?", 2), ("C?", 4)]


def test_nothing_to_do_asks_nothing(served: Policy) -> None:
    done = [PromptSpec("a", "A?", first=2)]
    url = f"http://127.0.0.1:{closed_port()}/v1"
    assert list(engine(url).sample(served, done, 2, seed=0)) == []
    assert list(engine(url).sample(served, [], 2, seed=0)) == []


def test_seeds_differ_between_requests_and_stay_the_same(served: Policy) -> None:
    with serving() as server:
        texts = [
            [
                r.completion
                for r in engine(server, concurrency=concurrency).sample(served, SPECS, 4, seed)
            ]
            for seed, concurrency in ((0, 2), (0, 7), (1, 2))
        ]
        seeds = {body["seed"] for body in server.bodies()}
    assert texts[0] == texts[1] != texts[2]
    assert len(seeds) == 16
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_settings_are_sent(served: Policy) -> None:
    with serving() as server:
        plain = engine(server, models={"initial": "base-model"})
        list(plain.sample(served, SPECS[:1], 1, seed=0))
        list(plain.sample(served, SPECS[:1], 5, seed=0, greedy=True))
        hot: dict[str, Any] = {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "min_new_tokens": 2,
            "stop": ["\n"],
        }
        list(engine(server, **hot).sample(served, SPECS[:1], 1, seed=0))
        list(engine(server, logprobs=False).sample(served, SPECS[:1], 1, seed=0))
        sampled, greedy, truncated, without = server.bodies()
    seed = request_seed(0, "p0", 0)
    common = {"prompt": "Why 0?", "max_tokens": 16, "n": 1}
    at_one = {**common, "temperature": 1.0, "top_p": 1.0, "seed": seed}
    assert sampled == {**at_one, "model": "base-model", "logprobs": 1}
    assert greedy.pop("seed") != seed
    assert greedy == {**common, "model": "base-model", "temperature": 0.0, "top_p": 1.0}
    assert truncated == {
        **common,
        "model": "initial",
        "seed": seed,
        **{"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_tokens": 2, "stop": ["\n"]},
    }
    assert without == {**at_one, "model": "initial"}


def test_chat_goes_to_chat_completions(tokenizer_folder: Callable[[str], Path]) -> None:
    specs = [PromptSpec("c", chat("Why?")), PromptSpec("t", "Why not?")]
    with serving() as server:
        templated = without_weights(tokenizer_folder("chat"))
        found = list(engine(server).sample(templated, specs, 1, seed=0))
        requests = {each["path"]: each["body"] for each in server.noted()["requests"]}
    asked = requests["/v1/chat/completions"]
    assert asked["messages"] == [{"role": "user", "content": "Why?"}]
    assert asked["logprobs"] is True
    assert "prompt" not in asked
    assert requests["/v1/completions"]["prompt"] == "Why not?"
    ends = [templated.backbone.tokenizer.decode([r.token_ids[-1]]) for r in found]
    assert ends == ["<|im_end|>", "<|endoftext|>"]
    assert found[0].completion == f" Why? {asked['seed']} 0"


def test_chat_without_a_template_is_rendered_here(served: Policy) -> None:
    with serving() as server:
        list(engine(server).sample(served, [PromptSpec("c", chat("Why?"))], 1, seed=0))
        (asked,) = server.bodies()
    assert asked["prompt"] == "\n\nHuman: Why?\n\nAssistant:"


# --- a real model


@pytest.fixture(scope="module")
def real(model_folder: ModelFolder) -> Iterator[Server]:
    """The embedded world's model, which speaks English, and one of random weights with a chat."""
    folders = {"initial": BASE, "sft": model_folder("llama", "chat_bos")}
    with serving(folders=folders) as server:
        yield server


@pytest.mark.parametrize(("name", "least"), [("initial", 0.7), ("sft", 0.05)])
def test_a_real_models_rollouts(
    model_folder: ModelFolder, real: Server, name: str, least: float
) -> None:
    """Ids, texts and log-probabilities are what this machine computes from the same weights."""
    folder = BASE if name == "initial" else model_folder("llama", "chat_bos")
    served = Policy(name, load_backbone(folder))
    tokenizer, causal = served.backbone.tokenizer, served.backbone.causal
    texts = [row.prompt for row in lab_demonstrations(3, 0.0, 0)]
    specs = [PromptSpec(f"{i}", text) for i, text in enumerate(texts)]
    if name == "sft":
        specs = [PromptSpec(f"{i}", chat(text)) for i, text in enumerate("ABC")]
    found = list(engine(real, max_new_tokens=24).sample(served, specs, 6, seed=0))
    prompts = {spec.id: spec.prompt for spec in specs}
    told = [r for r in found if r.token_logprobs is not None]
    assert len(told) >= least * len(found)
    for each in told:
        ended = each.finish_reason == "stop"
        both = render(tokenizer, prompts[each.prompt_id], each.completion, ended)
        assert each.token_ids[:-1] == both.completion_ids[:-1]
        (logits_TV,) = logits_of(causal, [[*both.prompt_ids, *each.token_ids]])
        start = len(both.prompt_ids) - 1
        own = logits_TV.log_softmax(-1)[start:-1].gather(-1, _column(each.token_ids)).squeeze(-1)
        assert each.token_logprobs == pytest.approx(own.tolist(), abs=1e-4)
        assert each.logprob == pytest.approx(own.sum().item(), abs=1e-3)


def _column(ids: list[int]) -> torch.Tensor:
    return torch.tensor(ids)[:, None]


def test_greedy_has_no_logprob(served: Policy) -> None:
    with serving() as server:
        found = list(engine(server).sample(served, SPECS, 5, seed=0, greedy=True))
    assert [(r.id, r.index, r.logprob) for r in found] == [
        (f"p{i}/initial/greedy", -1, None) for i in range(4)
    ]


# --- how many at a time, how far ahead


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_at_a_time_as_the_recipe_says(served: Policy, concurrency: int) -> None:
    """The server answers nobody before so many are there, and counts how many ever were."""
    specs = [PromptSpec(f"p{i}", f"Why {i}?") for i in range(12)]
    with serving(together=concurrency) as server:
        found = list(engine(server, concurrency=concurrency).sample(served, specs, 3, seed=0))
        assert server.noted()["peak"] == concurrency
    assert len(found) == 36


def test_how_far_it_runs_ahead(served: Policy) -> None:
    specs = [PromptSpec(f"p{i}", f"Why {i}?") for i in range(40)]
    with serving({"Why 0?": [{"hang": True}]}) as server:
        rollouts = engine(server).sample(served, specs, 2, seed=0)
        found: list[Rollout] = []
        reader = threading.Thread(target=lambda: found.extend(rollouts))
        reader.start()
        wait_until(lambda: len(server.bodies()) == AHEAD * 2)
        assert found == []
        server.release()
        reader.join(PATIENCE)
        assert len(found) == 80
        assert {prompt for prompt, _ in server.asked()[: AHEAD * 2]} == {
            f"Why {i}?" for i in range(AHEAD * 2)
        }


def test_closed_early_it_leaves_nothing_behind(served: Policy) -> None:
    with serving({"Why 1?": [{"hang": True}]}) as server:
        rollouts = cast(Any, engine(server, timeout=PATIENCE).sample(served, SPECS, 2, seed=0))
        assert next(rollouts).id == "p0/initial/0"
        assert len(request_threads()) == 1
        before = len(threading.enumerate())
        rollouts.close()
        assert request_threads() == []
        assert len(threading.enumerate()) < before


def test_it_works_within_an_event_loop(served: Policy) -> None:
    """As in a notebook."""
    import asyncio

    async def cell(server: Server) -> list[Rollout]:
        return list(engine(server).sample(served, SPECS, 1, seed=0))

    with serving() as server:
        assert len(asyncio.run(cell(server))) == 4


# --- the recipe


def test_the_recipe_names_it() -> None:
    made = make_engine(config("http://127.0.0.1:1/v1"))
    assert isinstance(made, OpenAIEngine)
    with pytest.raises(RecipeError, match="endpoint"):
        OpenAIEngine(RolloutsConfig())


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secret@host/v1",
        "https://secret@host/v1",
        "https://host/v1?key=secret",
        "https://host/v1#secret",
    ],
)
def test_no_secrets_in_the_address(url: str) -> None:
    with pytest.raises(ValueError, match="base_url must have no user") as caught:
        config(url)
    assert "secret" not in str(caught.value).partition("[type")[0]


@pytest.mark.parametrize("url", ["http://:80/v1", "http://host:99999/v1", "ftp://host"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        config(url)
