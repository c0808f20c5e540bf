"""Files as people bring them: right or refused by name, alike on the command line and a page."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from csreft_core.app.skills.uploads import open_upload, skill_set_of
from csreft_core.errors import SkillSetError
from csreft_core.skills.names import fold
from csreft_core.skills.skill_set import SkillSet, as_jsonl, read_kept, read_skills, write_skills
from tests.skills.data_files import DataFile, data_files

FILES = data_files()
# Words of a form, not of a row.
FORM = {"user", "assistant", "human", "gpt", "system", "text", "0", "1", "True"}


def from_the_command(file: DataFile, folder) -> SkillSet | str:
    (folder / file.name).write_bytes(file.data)
    try:
        return read_skills(str(folder / file.name))
    except SkillSetError as error:
        return str(error).replace(f"{folder}/", "")


def from_the_page(file: DataFile) -> SkillSet | str:
    try:
        return skill_set_of(open_upload(file.name, file.data))
    except SkillSetError as error:
        return str(error)


def texts(value: Any) -> Iterator[str]:
    """All texts and numbers of a record's value."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)
    elif value not in (None, "") and str(value) not in FORM:
        yield str(value)


def lost(record: dict[str, Any], row: str, notes: str) -> list[str]:
    """The fields of a record that are neither in its row nor named in a note."""
    named = {fold(name) for name in re.findall(r"'([^']+)'", notes)}
    return [
        name
        for name, value in record.items()
        if name not in named
        and name not in ("skill", "split")
        and not all(text.strip() in row for text in texts(value))
    ]


def test_there_are_at_least_two_hundred():
    assert len(FILES) >= 200


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_read_right_or_refused_by_name(case, tmp_path):
    file = FILES[case]
    found, on_page = from_the_command(file, tmp_path), from_the_page(file)
    if file.rows is None:
        assert isinstance(found, str), found
        assert found == on_page
        assert re.match(file.refusal, found, re.DOTALL), found
        assert "\n" not in found
        assert len(found) < 400
        return
    assert isinstance(found, SkillSet), found
    assert isinstance(on_page, SkillSet), on_page
    assert found == on_page
    notes = "\n".join(found.notes)
    assert notes.replace(f"{tmp_path}/", "") == "\n".join(on_page.notes)
    for row, (skills, prompt, response, split) in zip(found.rows, file.rows, strict=True):
        assert (row.skills, row.prompt, row.response) == (skills, prompt, response)
        assert split in ("", row.split)
    for name in file.noted:
        assert name in notes.lower()
    for record, row in zip(file.records, found.rows, strict=True):
        assert lost(record, "\n".join((*row.skills, row.prompt, row.response)), notes) == []


def test_the_check_for_lost_fields_sees_one():
    record = {"prompt": "p", "context": "the passage", "meta": {"by": "Ann"}}
    assert lost(record, "p", "") == ["context", "meta"]
    assert lost(record, "p\nthe passage", "the field 'meta' is not used") == []


@pytest.mark.parametrize("case", [name for name in FILES if name.endswith(": lines")][::4])
def test_what_is_kept_of_a_file_is_read_again(case, tmp_path):
    found = from_the_command(FILES[case], tmp_path)
    if isinstance(found, SkillSet):
        write_skills(found, tmp_path / "kept.jsonl")
        assert read_kept(tmp_path / "kept.jsonl") == found
        assert skill_set_of(open_upload("x.jsonl", as_jsonl(found.rows).encode())) == found
