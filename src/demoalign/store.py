"""Run folders: atomic files, fingerprints and stage manifests.

A stage runs again only if its fingerprint changed. The fingerprint covers the stage's
settings, the seed, the package version and the fingerprints of the stages it reads (a Merkle
chain), so a changed setting reruns that stage and what depends on it, and nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demoalign.errors import StoreError
from demoalign.version import __version__

MANIFEST, CARD = "manifest.json", "README.md"
"""Files of a model's folder that say something about it and are no part of it."""
WHOLE_DIGEST_BYTES = 64 * 2**20
EDGE_BYTES = 2**20
STARTING_SECONDS = 10.0
"""How long a lock may stand without the number of the process that took it."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a stage: path relative to the stage's folder, size in bytes, digest."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished stage left behind; ``seconds`` is wall time, ``started`` ISO 8601 UTC."""

    stage: str
    status: str
    fingerprint: str
    seed: int
    started: str
    seconds: float
    files: tuple[StoredFile, ...]


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Run its stage again.") from error


def append_line(path: Path, line: Mapping[str, object]) -> None:
    """Add one JSON object to a file of lines; NaN and infinity are refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(line, ensure_ascii=False, allow_nan=False)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def read_lines(path: Path) -> list[Any]:
    """The objects that `append_line` wrote; none if there is no such file.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Run its stage again.") from error


def digest_file(path: Path) -> str:
    """SHA-256 of a file; of size, first and last MiB for files above 64 MiB."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if size <= WHOLE_DIGEST_BYTES:
            while chunk := stream.read(EDGE_BYTES):
                digest.update(chunk)
        else:
            digest.update(str(size).encode())
            digest.update(stream.read(EDGE_BYTES))
            stream.seek(-EDGE_BYTES, os.SEEK_END)
            digest.update(stream.read())
    return digest.hexdigest()


def digest_folder(folder: Path, skip: frozenset[str] = frozenset({MANIFEST, CARD})) -> str:
    """SHA-256 over the names and contents of a folder's files, in a fixed order."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in skip):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{digest_file(path)}\n".encode())
    return digest.hexdigest()


def fingerprint(**parts: object) -> str:
    """SHA-256 of the parts' canonical JSON and the package version."""
    text = json.dumps({"version": __version__, **parts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Run:
    """A run folder, one sub-folder a stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self, stage: str) -> Manifest | None:
        """The stage's manifest, or None if it did not finish or its record is damaged."""
        path = self.folder / stage / MANIFEST
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            files = tuple(StoredFile(**entry) for entry in raw.pop("files"))
            return Manifest(files=files, **raw)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def is_current(self, stage: str, wanted: str) -> bool:
        """Whether the stage finished with this fingerprint and its files are whole."""
        manifest = self.manifest(stage)
        if manifest is None or manifest.status != "done" or manifest.fingerprint != wanted:
            return False
        return all(self._is_whole(stage, stored) for stored in manifest.files)

    def do(
        self, stage: str, wanted: str, seed: int, work: Callable[[Path], None], keep: bool = False
    ) -> Manifest:
        """Run a stage's work in its folder, then write its manifest.

        The folder is emptied first, unless ``keep`` (the work resumes what an interrupted
        attempt with the same fingerprint left).
        """
        folder = self.folder / stage
        pending = folder / ".pending"
        resumes = keep and pending.is_file() and pending.read_text(encoding="utf-8") == wanted
        if folder.exists() and not resumes:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(pending, wanted)
        started, clock = utc_now(), time.monotonic()
        work(folder)
        pending.unlink()
        manifest = Manifest(
            stage=stage,
            status="done",
            fingerprint=wanted,
            seed=seed,
            started=started,
            seconds=round(time.monotonic() - clock, 3),
            files=_stored_files(folder),
        )
        write_json(folder / MANIFEST, dataclasses.asdict(manifest))
        return manifest

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run folder against a second process.

        Raises:
            StoreError: another live process holds it.
        """
        with hold(self.folder / ".lock", self.folder, "run folder"):
            yield

    def _is_whole(self, stage: str, stored: StoredFile) -> bool:
        path = self.folder / stage / stored.path
        return (
            path.is_file()
            and path.stat().st_size == stored.size
            and digest_file(path) == stored.sha256
        )


@contextmanager
def hold(lock: Path, where: Path, what: str) -> Iterator[None]:
    """Hold a lock file while the block runs.

    Args:
        lock: the file.
        where: what it stands for.
        what: kind of thing that is.

    Raises:
        StoreError: another live process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _take(lock)
    except FileExistsError as error:
        raise StoreError(
            f"{where}: another process ({_holder(lock) or 'just started'}) works in this {what}. "
            f"Wait for it, or delete {lock} if it is gone."
        ) from error
    os.write(descriptor, str(os.getpid()).encode())
    os.close(descriptor)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def settings_of(section: object) -> Mapping[str, Any]:
    """A recipe section as plain values, for a fingerprint."""
    dump = getattr(section, "model_dump", None)
    if dump is None:
        raise TypeError(f"expected a recipe section, found {type(section).__name__}")
    plain: Mapping[str, Any] = dump(mode="json")
    return plain


def _stored_files(folder: Path) -> tuple[StoredFile, ...]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return tuple(
        StoredFile(p.relative_to(folder).as_posix(), p.stat().st_size, digest_file(p))
        for p in paths
    )


def _take(lock: Path) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        return os.open(lock, flags, 0o644)
    except FileExistsError:
        if _is_alive(lock):
            raise
        lock.unlink(missing_ok=True)
        return os.open(lock, flags, 0o644)


def _is_alive(lock: Path) -> bool:
    holder = _holder(lock)
    try:
        if not holder:  # taken this moment: the number is written after the file is made
            return time.time() - lock.stat().st_mtime < STARTING_SECONDS
        os.kill(int(holder), 0)
    except (OSError, ValueError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return True


def _holder(lock: Path) -> str:
    """The number of the process that took the lock; empty if it cannot be read."""
    try:
        return lock.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def utc_now() -> str:
    """This moment, ISO 8601 UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
