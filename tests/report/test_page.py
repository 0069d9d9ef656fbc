"""The page: complete, self-contained, inert against hostile text, honest about what is missing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from base64 import b64encode
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from demoalign.errors import StoreError
from demoalign.report import write_report

from .conftest import change_json, shrink, write_json

SECTIONS = ["run", "results", "curves", "rewards", "samples", "glossary", "caveats", "settings"]
HOSTILE = (
    "</script><script>alert(1)</script>{{7*7}}{% raw %}<!--<img src=x onerror=alert(2)>"
    "\x00\x07\x1b[31m\ud800 😀 \u202eevil\u202c שלום $\\alpha$"
)
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """What a browser would see: tags with attributes, text by element, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "unclosed elements"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def complete(full_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = shutil.copytree(full_run, tmp_path_factory.mktemp("page") / "help-desk")
    return write_report(Path(run)).read_text(encoding="utf-8")


def test_every_section_is_there_and_every_link_lands(complete: str) -> None:
    page = Page(complete)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert [i for i in ids if i in SECTIONS] == SECTIONS
    assert "which" in ids
    links = {(attrs.get("href") or "")[1:] for tag, attrs in page.tags if tag == "a"}
    assert set(SECTIONS) <= links <= set(ids)
    assert page.text.count("not measured") == 0
    assert "Best of 16 under init-sft beats the SFT policy's plain samples by" in page.text


def test_nothing_is_loaded_from_anywhere(complete: str) -> None:
    for tag, attrs in Page(complete).tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert (attrs.get(name) or "#").startswith("#"), (tag, name)
    assert not re.search(r"https?://|@import|url\((?!#)", complete)


def test_the_content_policy_forbids_network_and_foreign_scripts(complete: str) -> None:
    page = Page(complete)
    policy = next(
        attrs["content"] or ""
        for tag, attrs in page.tags
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
    )
    digest = b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert len(page.scripts) == 2


def test_the_same_run_gives_the_same_bytes(run_copy: Path, complete: str) -> None:
    assert write_report(run_copy).read_text(encoding="utf-8") == complete
    assert not (run_copy / "report.html.partial").exists()


def test_tables_and_charts_can_be_heard(complete: str) -> None:
    page = Page(complete)
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == sum(tag == "caption" for tag, _ in page.tags) >= 6
    for tag, attrs in page.tags:
        if tag == "th":
            assert attrs["scope"] in {"col", "row", "rowgroup"}
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or len(attrs["aria-label"] or "") > 20
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))


def test_hostile_text_is_inert_wherever_it_comes_from(run_copy: Path) -> None:
    def spoil_samples(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        samples[0]["candidates"][0]["completion"] = HOSTILE
        samples[0]["prompt"] = [{"role": HOSTILE, "content": HOSTILE}]
        samples[0]["demonstration"] = samples[0]["prompt_id"] = HOSTILE
        samples[0]["candidates"][0]["scores"][HOSTILE] = 1.0
        return samples

    def spoil_results(results: dict[str, Any]) -> dict[str, Any]:
        for row in results["metrics"]:
            if row["selector"] == "sft-demo":
                row["selector"] = HOSTILE
            if row["metric"] == "win_rate_over_greedy":
                row.update(value=None, ci95=None, reason=HOSTILE)
        return results

    change_json(run_copy / "evaluation/samples.json", spoil_samples)
    change_json(run_copy / "evaluation/results.json", spoil_results)
    change_json(run_copy / "evaluation/rewards.json", lambda r: {**r, HOSTILE: r["sft-demo"]})
    write_json(run_copy / "env.json", {HOSTILE: {"x": HOSTILE}})
    (run_copy / "recipe.yaml").write_bytes(
        b"name: |\n  " + HOSTILE.encode("utf-8", "replace").replace(b"\x00", b"") + b"\n"
    )
    page = page_of(run_copy)
    assert len(page.scripts) == 2
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "{{7*7}}" in page.text
    assert "49" not in re.findall(r"alert\(1\)</script>(\d+)", page.text)
    text = page.data["samples"][0]["candidates"][0]["text"]
    assert text.startswith("</script><script>alert(1)</script>{{7*7}}")
    assert "\u2400\u2407\u241b[31m\ufffd 😀 \u202eevil\u202c שלום" in text
    written = (run_copy / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", written)


def test_an_empty_run_says_what_is_missing_and_shows_no_number(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {*SECTIONS, "problems"} <= ids
    assert "evaluation/results.json is not in the run folder." in page.text
    assert "No golden reward was measured" in page.text
    assert page.text.count("not measured") + page.text.count("Not measured") > 10
    cells = re.findall(r"<td>(.*?)</td>", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert cells
    assert not any(re.search(r"\d", re.sub(r"<[^>]*>", "", cell)) for cell in cells)
    assert not any(tag == "svg" for tag, _ in page.tags)


@pytest.mark.parametrize(
    "name",
    [
        "recipe.yaml",
        "env.json",
        "evaluation/results.json",
        "evaluation/rewards.json",
        "evaluation/samples.json",
        "sft/manifest.json",
    ],
)
def test_each_part_may_be_missing(run_copy: Path, name: str) -> None:
    shrink(run_copy)
    (run_copy / name).unlink()
    assert f"{name} is not in the run folder." in page_of(run_copy).text


def test_nulls_are_not_measured_with_their_reason_and_never_zero(run_copy: Path) -> None:
    def forget(results: dict[str, Any]) -> dict[str, Any]:
        for row in results["metrics"]:
            if row["metric"] in ("win_rate_over_greedy", "heldout_accuracy"):
                row.update(value=None, ci95=None, reason="the greedy answers were not scored")
        return results

    change_json(run_copy / "evaluation/results.json", forget)
    page = page_of(run_copy)
    assert "Wins over greedy not measured for SFT, temperature-0.7" in page.text
    assert "extrapolated, greedy, init-sft, init-demo" in page.text
    assert "golden: the greedy answers were not scored." in page.text
    assert "Not measured: the greedy answers were not scored." in page.text
    written = (run_copy / "report.html").read_text(encoding="utf-8")
    assert '<span class="value">0%</span>' not in written


def test_a_run_without_golden_reward_is_still_useful(run_copy: Path) -> None:
    def forget(results: dict[str, Any]) -> dict[str, Any]:
        keep = [m for m in results["metrics"] if not m["metric"].startswith(("golden", "win"))]
        return {**results, "metrics": keep}

    change_json(run_copy / "evaluation/results.json", forget)
    page = page_of(run_copy)
    assert "Golden reward: not measured." in page.text
    assert "Own reward" in page.text
    assert "On held-out comparisons init-sft prefers the positive in 86%" in page.text
    assert sum(tag == "svg" and "aria-label" in attrs for tag, attrs in page.tags) == 5 + 10


def test_trained_policies_and_new_selectors_find_their_place(run_copy: Path) -> None:
    def extend(results: dict[str, Any]) -> dict[str, Any]:
        rows = results["metrics"]
        for row in [r for r in rows if r["selector"] == "preference"]:
            rows.append({**row, "selector": "my-own"})
        for row in [r for r in rows if (r["policy"], r["selector"]) == ("sft", "none")]:
            rows.append({**row, "policy": "raft"})
        first = rows[0]
        rows.append({**first, "metric": "golden_reward:safety", "value": 0.123})
        return results

    change_json(run_copy / "evaluation/results.json", extend)
    page = page_of(run_copy)
    assert page.text.count("my-own") > 3
    assert "RAFT policy" in page.text
    assert "safety" in page.text
    assert "0.12" in page.text


def test_several_seeds_are_said(run_copy: Path) -> None:
    def reseed(results: dict[str, Any]) -> dict[str, Any]:
        results["metrics"][0]["seed"] = 5
        return results

    shrink(run_copy)
    assert "One seed." in page_of(run_copy).text
    change_json(run_copy / "evaluation/results.json", reseed)
    assert "2 seeds (0, 5)" in page_of(run_copy).text


def test_secrets_of_the_environment_are_not_shown(run_copy: Path) -> None:
    shrink(run_copy)
    write_json(run_copy / "env.json", {"HF_TOKEN": "hf_abc", "api_key": "sk-1", "tokenizers": "1"})
    page = page_of(run_copy)
    assert "hf_abc" not in page.text
    assert "sk-1" not in page.text
    assert page.text.count("(not shown)") == 2


def test_a_folder_that_cannot_be_written_is_an_error(run_copy: Path) -> None:
    (run_copy / "report.html").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        write_report(run_copy)
