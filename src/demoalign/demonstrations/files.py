"""The rows of one file, streamed; which kind it is, its name says."""

from __future__ import annotations

import codecs
import gzip
import importlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from demoalign.demonstrations.csv_file import csv_rows
from demoalign.demonstrations.json_file import json_rows, jsonl_rows
from demoalign.demonstrations.row import Row, refuse_repeated
from demoalign.errors import DataError

TEXT_READERS = {".jsonl": jsonl_rows, ".json": json_rows, ".csv": csv_rows}
PARQUET = ".parquet"
ENDINGS = (*TEXT_READERS, *(f"{ending}.gz" for ending in TEXT_READERS), PARQUET)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BATCH_ROWS = 1024


def is_data_file(path: Path | str) -> bool:
    """Whether the name ends as a data file's does."""
    return str(path).lower().endswith(ENDINGS)


def file_rows(path: Path, name: str) -> Iterator[Row]:
    """Every row of a file.

    Args:
        path: a file with one of `ENDINGS`.
        name: what to call it in ``where``.

    Raises:
        DataError: the file cannot be opened, is damaged, or has an unknown ending.
    """
    if not is_data_file(path):
        raise DataError(f"{name}: a data file must end in {', '.join(ENDINGS)}")
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if f".{ending}" == PARQUET:
        return _parquet_rows(path, name)
    return TEXT_READERS[f".{ending}"](name, _lines(path, name))


def _lines(path: Path, name: str) -> Iterator[bytes]:
    try:
        compressed = path.suffix.lower() == ".gz"
        with gzip.open(path) if compressed else path.open("rb") as stream:
            for number, line in enumerate(stream):
                if number:
                    yield line
                elif line.startswith(UTF16):
                    raise DataError(f"{name}: must be UTF-8, found UTF-16; save it as UTF-8")
                else:
                    yield line.removeprefix(codecs.BOM_UTF8)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: cannot be read: {error}") from error


def _parquet_rows(path: Path, name: str) -> Iterator[Row]:
    # Imported by name: pyarrow is heavy and has no type information.
    pyarrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            refuse_repeated(name, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{name}:row {number}", value)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{name}: cannot be read as parquet after row {number}: {error}") from error
