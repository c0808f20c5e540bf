"""docs/configuration.md lists every setting and preset as the code has them."""

import pytest

from tests.architecture.configuration_table import ROW_START, preset_rows, setting_rows
from tests.repository import ROOT

pytestmark = pytest.mark.fast


def _rows_of_the_page() -> list[str]:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    return [line for line in page.splitlines() if line.startswith(ROW_START)]


def test_the_page_has_a_row_for_every_setting_and_preset():
    expected = setting_rows() + preset_rows()
    assert _rows_of_the_page() == expected, (
        "docs/configuration.md differs from csreft_core/config/settings.py; "
        "python -m tests.architecture.configuration_table writes the rows"
    )


def test_the_rows_hold_paths_defaults_values_and_meanings():
    rows = setting_rows()
    assert "| `adapter.rank` | `2` | whole number ≥ 1 | Dimensions r of each subspace. |" in rows
    assert any(row.startswith("| `router.gates` | `learned` | `learned`, `oracle`") for row in rows)
    assert len(rows) == len(set(rows)) >= 35
