"""The choice of a base: known ones, a folder or a Hub id; its number format and its device."""

import re
from pathlib import Path
from typing import Any

import streamlit as st
import torch

from csreft_core.app.page.base_folders import (
    check_allowed,
    limiting_folder,
    named_bases,
    offered_folders,
)
from csreft_core.app.page.ceilings import MOST_CHARACTERS
from csreft_core.app.page.choices import SEGMENTS, ask_text
from csreft_core.app.page.choices import choose as choose_option
from csreft_core.app.page.parts import fold
from csreft_core.app.page.widgets import help_text
from csreft_core.base.quantization import QUANTIZED
from csreft_core.config import BaseConfig, KnownBase, known_bases

KNOWN, FOLDER, HUB = "known", "folder", "hub"
_SOURCES = {KNOWN: "A known base", FOLDER: "A folder", HUB: "A Hub id"}
PRECISIONS = {
    "fp32": "fp32, 4 bytes",
    "bf16": "bf16, 2 bytes",
    "fp16": "fp16, 2 bytes",
    "int8": "int8, 1 byte",
    "nf4": "nf4, ½ byte",
    "fp4": "fp4, ½ byte",
}


def choose() -> BaseConfig | None:
    """Draw the choice; None where nothing is given yet.

    Raises:
        ConfigError: a base that this server does not offer.
    """
    path, revision = _choose_path()
    with st.grid(3, min_column_width=150):
        precision = _select("precision", "Precision", "fp32", PRECISIONS)
        compute = "auto"
        if precision in QUANTIZED:
            compute = _select("compute", "Compute in", "auto", _computes())
        device = _select("device", "Device", "auto", _devices())
    if not path:
        return None
    check_allowed(path)
    chosen: dict[str, Any] = {"precision": precision, "compute": compute, "device": device}
    return BaseConfig(path=path, revision=revision, **chosen)


def _select(name: str, label: str, default: str, labels: dict[str, str]) -> str:
    return choose_option(name, label, labels, default, help=help_text(name))


def _computes() -> dict[str, str]:
    on_gpu = torch.cuda.is_available()
    return {
        "auto": f"auto ({'bf16' if on_gpu else 'fp32'})",
        "fp32": "fp32",
        "bf16": "bf16",
        "fp16": "fp16",
    }


def _devices() -> dict[str, str]:
    n_gpus = torch.cuda.device_count()
    several = {"balanced": f"all {n_gpus} GPUs"} if n_gpus > 1 else {}
    gpus = {f"cuda:{i}": f"cuda:{i}, {torch.cuda.get_device_name(i)}" for i in range(n_gpus)}
    return {"auto": f"auto ({'GPU' if n_gpus else 'no GPU: cpu'})", "cpu": "cpu", **gpus, **several}


def _choose_path() -> tuple[str, str | None]:
    limited = limiting_folder() is not None
    sources = (KNOWN, FOLDER) if limited else tuple(_SOURCES)
    source = choose_option(
        "base-from",
        "Base",
        {source: _SOURCES[source] for source in sources},
        widget=SEGMENTS,
        help=help_text("base_from"),
    )
    if source == KNOWN:
        return _choose_known(limited), None
    if source == HUB:
        return _choose_hub()
    return (_choose_offered() if limited else _choose_folder()), None


def _choose_known(limited: bool) -> str:
    known = {path: p for path, p in known_bases().items() if not limited or path in named_bases()}
    labels = {path: _label(base) for path, base in known.items()}
    default = BaseConfig().path
    chosen = choose_option("base", "Known base", labels, default, help=help_text("base_known"))
    st.caption(_about(known[chosen]))
    if known[chosen].shipped_folder is not None:
        card = known[chosen]
        fold("Its card", lambda: _show_card(card), key="base-card", icon=":material/badge:")
    return chosen


def _show_card(known: KnownBase) -> None:
    """What the base is and whose; a shipped text, with its headings made small."""
    assert known.shipped_folder is not None
    text = (known.shipped_folder / "README.md").read_text(encoding="utf-8")
    text = text.removeprefix("---").partition("\n---\n")[2] if text.startswith("---") else text
    st.markdown(re.sub(r"^#+", "####", text, flags=re.MULTILINE))


def _label(known: KnownBase) -> str:
    notes = {
        "shipped": known.is_shipped,
        "one command fetches it": known.wheel is not None,
        "licence to accept": known.gated,
    }
    return " · ".join([known.name, *(note for note, holds in notes.items() if holds)])


def _about(known: KnownBase) -> str:
    if known.is_shipped:
        return f"Shipped with this program, {known.licence}. Its card below says what it knows."
    if known.wheel is not None:
        return f"`{known.path}`, {known.licence}. Fetched from the package index, once."
    page = f"[{known.path}](https://huggingface.co/{known.path})"
    if known.gated:
        return (
            f"{page}, {known.licence}. Gated: accept the licence on that page, then log in on this "
            "machine with `hf auth login`. Loading fetches it from the Hub."
        )
    return f"{page}, {known.licence}. Loading fetches it from the Hub, once."


def _choose_folder() -> str:
    return ask_text(
        "base-folder",
        "Folder",
        max_chars=MOST_CHARACTERS,
        placeholder="models/my-base",
        help=help_text("base_folder"),
    ).strip()


def _choose_offered() -> str:
    folders = offered_folders()
    if not folders:
        st.info("This server offers no base besides the shipped one.", icon=":material/info:")
        return ""
    names = {folder: Path(folder).name for folder in folders}
    return choose_option("base-folder", "Folder", names, help=help_text("base_folder"))


def _choose_hub() -> tuple[str, str | None]:
    left, right = st.columns([3, 2])
    with left:
        name = _ask_name("base-hub", "Hub id", "owner/name", "base_hub")
    with right:
        revision = _ask_name("revision", "Revision", "main", "revision")
    return name, revision or None


def _ask_name(name: str, label: str, placeholder: str, help_name: str) -> str:
    help = help_text(help_name)
    return ask_text(name, label, max_chars=200, placeholder=placeholder, help=help).strip()
