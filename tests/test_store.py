"""Run folders: whole files or none, stages that run again only when they must, one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from demoalign import store
from demoalign.config import SftConfig
from demoalign.errors import StoreError
from demoalign.store import (
    Run,
    digest_file,
    digest_folder,
    fingerprint,
    read_json,
    settings_of,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_text_is_written_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "größer")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "größer".encode()
    write_text(tmp_path / "a" / "b.txt", "")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b""
    assert names(tmp_path) == ["a", "a/b.txt"]


def test_text_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "whole")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \ud83d")
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["a.txt"]


def test_the_new_text_is_whole_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption before the last step leaves the old file."""

    def interrupted(self: Path, target: Path) -> Path:
        assert self.read_text() == "new"
        assert target.read_text() == "old"
        raise KeyboardInterrupt

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"ä": [1, 2.5, None, True], "leer": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "ä" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_without_nan(tmp_path: Path, number: float) -> None:
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", [number])
    assert read_json(tmp_path / "a.json") == [1]
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"\xff"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.json: cannot be read .* Run its stage again\."):
        read_json(path)


def test_digest_of_a_small_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_file(path) == wanted


def test_digest_of_a_file_of_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    whole = digest_file(path)
    monkeypatch.setattr(store, "EDGE_BYTES", 7)
    assert digest_file(path) == whole


def test_digest_of_a_big_file_reads_its_edges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WHOLE_DIGEST_BYTES", 16)
    monkeypatch.setattr(store, "EDGE_BYTES", 4)
    path = tmp_path / "a"

    def digest(content: bytes) -> str:
        path.write_bytes(content)
        return digest_file(path)

    big = digest(b"head" + b"." * 20 + b"tail")
    assert digest(b"heaD" + b"." * 20 + b"tail") != big
    assert digest(b"head" + b"." * 20 + b"Tail") != big
    assert digest(b"head" + b"." * 21 + b"tail") != big
    assert digest(b"head" + b"!" * 20 + b"tail") == big
    small = digest(b"head" + b"." * 8 + b"tail")
    assert digest(b"head" + b"!" * 8 + b"tail") != small


def test_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_text(folder / "a", "1")
    write_text(folder / "deep" / "b", "2")
    first = digest_folder(folder)
    assert digest_folder(folder) == first
    write_text(folder / store.MANIFEST, "skipped")
    assert digest_folder(folder) == first
    assert digest_folder(folder, skip=frozenset()) != first
    (folder / "a").rename(folder / "c")
    renamed = digest_folder(folder)
    assert renamed != first
    (folder / "c").rename(folder / "a")
    assert digest_folder(folder) == first
    write_text(folder / "deep" / "b", "3")
    assert digest_folder(folder) != first
    write_text(folder / "a", "3")
    write_text(folder / "deep" / "b", "1")
    swapped = digest_folder(folder)
    write_text(folder / "a", "1")
    write_text(folder / "deep" / "b", "3")
    assert digest_folder(folder) != swapped


def test_the_digest_does_not_depend_on_where_the_folder_is(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_text(tmp_path / name / "a", "1")
    assert digest_folder(tmp_path / "one") == digest_folder(tmp_path / "two")


def test_fingerprint_changes_with_any_part(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(stage="sft", seed=0, settings={"a": 1, "b": [2, 3]})
    assert first == fingerprint(settings={"b": [2, 3], "a": 1}, seed=0, stage="sft")
    others = [
        fingerprint(stage="reward", seed=0, settings={"a": 1, "b": [2, 3]}),
        fingerprint(stage="sft", seed=1, settings={"a": 1, "b": [2, 3]}),
        fingerprint(stage="sft", seed=0, settings={"a": 1, "b": [3, 2]}),
        fingerprint(stage="sft", seed=0, settings={"a": 1, "b": [2, 3]}, data=None),
        fingerprint(stage="sft", seed="0", settings={"a": 1, "b": [2, 3]}),
    ]
    monkeypatch.setattr(store, "__version__", "0.0.0-other")
    others.append(fingerprint(stage="sft", seed=0, settings={"a": 1, "b": [2, 3]}))
    assert len({first, *others}) == 7
    assert all(len(each) == 64 for each in others)


def test_settings_of_a_section_are_plain() -> None:
    assert settings_of(SftConfig(epochs=3))["epochs"] == 3
    assert json.loads(json.dumps(settings_of(SftConfig()))) == settings_of(SftConfig())
    with pytest.raises(TypeError, match="expected a recipe section, found dict"):
        settings_of({})


def work(folder: Path) -> None:
    write_text(folder / "rows.jsonl", "0123456789")
    write_text(folder / "deep" / "weights", "w" * 50)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.do("sft", "print", 7, work)
    return run


def test_a_finished_stage_has_a_manifest(run: Run) -> None:
    manifest = run.manifest("sft")
    assert manifest is not None
    assert (manifest.stage, manifest.status, manifest.seed) == ("sft", "done", 7)
    assert manifest.fingerprint == "print"
    assert manifest.seconds >= 0
    assert manifest.started.endswith("Z")
    assert [(each.path, each.size) for each in manifest.files] == [
        ("deep/weights", 50),
        ("rows.jsonl", 10),
    ]
    assert names(run.folder / "sft") == ["deep", "deep/weights", "manifest.json", "rows.jsonl"]
    raw = read_json(run.folder / "sft" / "manifest.json")
    wanted = {"stage", "status", "fingerprint", "seed", "started", "seconds", "files"}
    assert set(raw) == wanted
    assert raw["files"][1]["sha256"] == digest_file(run.folder / "sft" / "rows.jsonl")


def test_a_stage_in_a_deeper_folder(run: Run) -> None:
    manifest = run.do("reward/init-sft", "other", 0, work)
    assert manifest == run.manifest("reward/init-sft")
    assert run.is_current("reward/init-sft", "other")
    assert run.is_current("sft", "print")


def truncate(stage: Path) -> None:
    write_text(stage / "rows.jsonl", "012345678")


def change(stage: Path) -> None:
    write_text(stage / "rows.jsonl", "0123456780")


def remove(stage: Path) -> None:
    (stage / "deep" / "weights").unlink()


def replace_by_folder(stage: Path) -> None:
    (stage / "rows.jsonl").unlink()
    (stage / "rows.jsonl").mkdir()


def remove_manifest(stage: Path) -> None:
    (stage / "manifest.json").unlink()


def truncate_manifest(stage: Path) -> None:
    text = (stage / "manifest.json").read_text()
    (stage / "manifest.json").write_text(text[: len(text) // 2])


def garble_manifest(stage: Path) -> None:
    (stage / "manifest.json").write_bytes(b"\xff\xfe{}")


def empty_manifest(stage: Path) -> None:
    write_json(stage / "manifest.json", [])


def lose_a_field(stage: Path) -> None:
    raw = read_json(stage / "manifest.json")
    del raw["status"]
    write_json(stage / "manifest.json", raw)


def lose_a_digest(stage: Path) -> None:
    raw = read_json(stage / "manifest.json")
    del raw["files"][0]["sha256"]
    write_json(stage / "manifest.json", raw)


def mark_as_running(stage: Path) -> None:
    raw = read_json(stage / "manifest.json")
    write_json(stage / "manifest.json", {**raw, "status": "running"})


DAMAGES = (
    truncate,
    change,
    remove,
    replace_by_folder,
    remove_manifest,
    truncate_manifest,
    garble_manifest,
    empty_manifest,
    lose_a_field,
    lose_a_digest,
    mark_as_running,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stage_is_not_current(run: Run, damage: Callable[[Path], None]) -> None:
    assert run.is_current("sft", "print")
    damage(run.folder / "sft")
    assert not run.is_current("sft", "print")


def test_another_fingerprint_or_stage_is_not_current(run: Run) -> None:
    assert not run.is_current("sft", "another print")
    assert not run.is_current("reward", "print")


def test_a_stage_that_runs_again_starts_from_an_empty_folder(run: Run) -> None:
    found: list[list[str]] = []
    run.do("sft", "new", 0, lambda folder: found.append(names(folder)))
    assert found == [[".pending"]]
    assert run.is_current("sft", "new")
    assert names(run.folder / "sft") == ["manifest.json"]


def failing(folder: Path) -> None:
    write_text(folder / "half", "done")
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("wanted", "keep", "left"),
    [("a", True, ["half"]), ("a", False, []), ("b", True, []), ("b", False, [])],
)
def test_only_the_same_work_is_resumed(run: Run, wanted: str, keep: bool, left: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        run.do("sft", "a", 0, failing, keep=True)
    assert run.manifest("sft") is None
    assert not run.is_current("sft", "a")
    found: list[list[str]] = []
    run.do("sft", wanted, 0, lambda folder: found.append(names(folder)), keep=keep)
    assert found == [[".pending", *left]]
    manifest = run.manifest("sft")
    assert manifest is not None
    assert [each.path for each in manifest.files] == left
    assert run.is_current("sft", wanted)


def test_a_finished_stage_is_not_resumed(run: Run) -> None:
    """What it left is damaged or outdated, else it would not run again."""
    found: list[list[str]] = []
    run.do("sft", "print", 0, lambda folder: found.append(names(folder)), keep=True)
    assert found == [[".pending"]]


TRY_THE_LOCK = """
import sys
from pathlib import Path
from demoalign.errors import StoreError
from demoalign.store import Run
try:
    with Run(Path(sys.argv[1])).locked():
        print("taken")
except StoreError as error:
    print(error)
"""


def try_from_another_process(folder: Path) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TRY_THE_LOCK, str(folder)], stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, out.strip()


def test_the_folder_is_held_against_another_process(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with Run(folder).locked():
        _, said = try_from_another_process(folder)
        assert said == (
            f"{folder}: another process ({os.getpid()}) works in this run folder. "
            f"Wait for it, or delete {folder / '.lock'} if it is gone."
        )
        assert (folder / ".lock").read_text() == str(os.getpid())
    assert not (folder / ".lock").exists()
    ended, said = try_from_another_process(folder)
    assert said == "taken"
    (folder / ".lock").write_text(str(ended))
    with Run(folder).locked():
        assert (folder / ".lock").read_text() == str(os.getpid())


def test_the_lock_is_freed_by_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Run(tmp_path).locked():
        raise ZeroDivisionError
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["not a number", "9" * 30])
def test_a_damaged_lock_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with Run(tmp_path).locked():
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_lock_just_taken_counts_as_held_before_its_number_is_written(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.touch()
    with (
        pytest.raises(StoreError, match=r"process \(just started\) works in"),
        Run(tmp_path).locked(),
    ):
        pass
    assert lock.exists()
    long_ago = lock.stat().st_mtime - 2 * store.STARTING_SECONDS
    os.utime(lock, (long_ago, long_ago))
    with Run(tmp_path).locked():
        assert lock.read_text() == str(os.getpid())
