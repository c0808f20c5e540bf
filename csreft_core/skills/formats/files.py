"""From the bytes of a JSONL, JSON, CSV or TSV file to records.

What the fields mean is the matter of `formats.rows`. Nothing is unpacked and nothing is run: an
archive, a pickle or another binary file is refused by its first bytes.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path

from csreft_core.errors import SkillSetError
from csreft_core.skills.formats.csv_records import csv_records
from csreft_core.skills.formats.json_records import json_records
from csreft_core.skills.formats.records import Record

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")

_UTF16_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BINARY = {
    b"PK\x03\x04": "a zip archive or an Excel file",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"PAR1": "a parquet file",
    b"%PDF": "a PDF document",
    **{b"\x80" + bytes([protocol]): "a Python pickle" for protocol in range(2, 6)},
}
_INSTEAD = {
    ".xlsx": "; save the sheet as CSV",
    ".xls": "; save the sheet as CSV",
    ".ods": "; save the sheet as CSV",
    ".parquet": "; convert it, in Python: pandas.read_parquet(FILE).to_json('skills.jsonl', "
    "orient='records', lines=True)",
    ".arrow": "; convert it, in Python: datasets.load_from_disk(FOLDER).to_json('skills.jsonl')",
    ".gz": "; unpack it first",
    ".zip": "; unpack it first",
    ".ndjson": "; rename it to .jsonl",
    ".txt": "; rename it to what it holds",
}


def read_file(path: Path) -> bytes:
    """The content of a file of rows.

    Raises:
        SkillSetError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SkillSetError(f"{path}: no such file; check data.path") from None
    except OSError as error:
        raise SkillSetError(f"{path}: cannot be read ({error.strerror})") from None


def read_records(data: bytes, source: str, suffix: str, *, header: bool = True) -> Iterator[Record]:
    """The records of a file, one after the other.

    Args:
        data: Its content.
        source: Its name, for messages.
        suffix: One of `SUFFIXES`.
        header: Whether the first line of a CSV file names its columns.

    Raises:
        SkillSetError: the content is not text of that form; names the line.
    """
    text = _decode(data, source)
    if suffix in (".csv", ".tsv"):
        return csv_records(text, source, header=header)
    return json_records(text, source)


def _decode(data: bytes, source: str) -> str:
    for magic, kind in _BINARY.items():
        if data.startswith(magic):
            raise SkillSetError(f"{source}: is {kind}, not text; give JSONL, JSON or CSV as it is")
    if data.startswith(_UTF16_32):
        raise SkillSetError(f"{source}: is UTF-16 or UTF-32 text; save it as UTF-8")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise SkillSetError(f"{source}:{line}: has a NUL byte; save the file as UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SkillSetError(f"{source}:{line}: is not UTF-8 text; save the file as UTF-8") from None
    if not text.strip():
        raise SkillSetError(f"{source}: is empty; each row needs a prompt and a response")
    return text


def suffix_of(name: str) -> str:
    """The ending of a file's name, in small letters.

    Raises:
        SkillSetError: none of `SUFFIXES`; says what to do with endings that are known.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise SkillSetError(
            f"{name}: expected a file that ends in {', '.join(SUFFIXES)}{_INSTEAD.get(suffix, '')}"
        )
    return suffix
