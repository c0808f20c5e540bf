"""How answers look on a terminal."""

from csreft_core.cli.output import rows_text


def test_texts_stand_to_the_left_and_numbers_to_the_right():
    rows = [{"name": "a", "n": 1}, {"name": "bb", "n": 22}]
    assert rows_text(rows).splitlines() == ["name   n", "a      1", "bb    22"]
