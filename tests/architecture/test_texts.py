"""README, docs and settings say what is in the repository."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.measured_texts import TEXTS
from tests.repository import ROOT, repository_files

# Home folders of the usual systems, and the mount that build machines like to use.
_MACHINE_PATH = re.compile(rb"/(?:home|root|Users|work)/\w|[A-Z]:\\+Users\\+\w")
_HEADING_LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)#([^)\s]+)\)")
_READ_IN = {text.template.relative_to(ROOT).as_posix(): text.page for text in TEXTS.values()}
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s#]+)")


def test_no_file_holds_a_path_of_somebodys_machine():
    found = {
        str(path): match.group()
        for path in repository_files()
        if (match := _MACHINE_PATH.search((ROOT / path).read_bytes()))
    }
    assert not found


@pytest.mark.parametrize("text", ["/ho" + "me/ann/csreft", "/ro" + "ot/x", "C:\\Us" + "ers\\ann"])
def test_the_path_probe_sees_a_machine_path(text):
    assert _MACHINE_PATH.search(text.encode())
    assert not _MACHINE_PATH.search(b"assets/pocket ./runs https://arxiv.org/abs/2503.10617")


def test_links_between_the_texts_lead_somewhere():
    broken = [
        f"{page}: {target}"
        for page in repository_files()
        if page.suffix == ".md"
        for target in _LINK.findall((ROOT / page).read_text(encoding="utf-8"))
        if not (_READ_IN.get(page.as_posix(), ROOT / page).parent / target).exists()
    ]
    assert not broken


def _anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_to_a_heading_find_it():
    broken = [
        f"{page}: {target}#{anchor}"
        for page in repository_files()
        if page.suffix == ".md" and page.as_posix() not in _READ_IN
        for target, anchor in _HEADING_LINK.findall((ROOT / page).read_text(encoding="utf-8"))
        if anchor not in _anchors((ROOT / page).parent / target if target else ROOT / page)
    ]
    assert not broken


def test_contributing_fits_on_a_page():
    assert (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").count("\n") <= 70


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_formula_is_right():
    assert _contrast("#ffffff", "#000000") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_charts_stand_out_from_the_background(theme):
    settings = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))
    colours = settings["theme"][theme]
    backgrounds = (colours["backgroundColor"], colours["secondaryBackgroundColor"])
    for background in backgrounds:
        assert _contrast(colours["textColor"], background) >= 7
        assert _contrast(colours["linkColor"], background) >= 4.5
        assert _contrast(colours["primaryColor"], background) >= 3
        assert min(_contrast(c, background) for c in colours["chartCategoricalColors"]) >= 3


def test_charts_use_the_colours_of_the_pages():
    from csreft_core.charts.theme import DARK, LIGHT

    theme = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))["theme"]
    assert list(LIGHT.colours) == theme["light"]["chartCategoricalColors"]
    assert list(DARK.colours) == theme["dark"]["chartCategoricalColors"]


def test_streamlit_knows_every_setting():
    from streamlit import config

    settings = tomllib.loads((ROOT / ".streamlit/config.toml").read_text(encoding="utf-8"))
    known = set(config.get_config_options(force_reparse=False))
    names = {
        f"{section}.{name}"
        for section, values in settings.items()
        for name in values
        if not isinstance(values[name], dict)
    } | {f"theme.{theme}.{name}" for theme, values in settings["theme"].items() for name in values}
    assert "theme.light.textColor" in known
    assert names <= known
