"""A comparison made up for tests: tables with the columns of a real one and planted differences."""

from pathlib import Path

import pandas as pd

from csreft_core.analysis.methods.tables import MethodTables
from csreft_core.comparison.folder import Comparison, Plan, Variant, begin
from csreft_core.methods.presets import named_config

SKILLS = ("french", "category", "plural", "spelling")
METHODS = ("csreft", "loreft", "lora", "olora")
SEEDS = (0, 1, 2, 3, 4)
SPLITS = ("test_items", "test_paraphrases", "test_both")
INDEX = {"csreft": 0.10, "loreft": 0.30, "lora": 0.50, "olora": 0.20}
JOINT_LOST = {"csreft": 0.6, "loreft": 0.1, "lora": 0.4, "olora": 0.3}
FORGETTING = {"csreft": 0.01, "loreft": 0.60, "lora": 0.90, "olora": 0.40}
TOTAL = {"csreft": 6_000, "loreft": 5_900, "lora": 6_100, "olora": 12_000}


def made_up_tables(failed: tuple[tuple[str, int], ...] = ()) -> MethodTables:
    """Four methods, five seeds; seed s adds s/1000 to every number, so intervals have a width."""
    cells, scores, interference, sequential, conflict = [], [], [], [], []
    for method in METHODS:
        for seed in SEEDS:
            if (method, seed) in failed:
                cells.append(_cell(method, seed, "failed", "ran out of memory"))
                continue
            cells.append(_cell(method, seed, "finished", ""))
            noise = seed / 1000
            for skill in SKILLS:
                exact = 0.95 - INDEX[method] / 2 + noise
                scores += [
                    (method, seed, split, skill, 0.2 + INDEX[method] + noise, exact, 30)
                    for split in SPLITS
                ]
                for other in SKILLS:
                    own = skill == other
                    change = -1.0 if own else INDEX[method] - noise
                    lost = -0.9 if own else INDEX[method] / 10 - noise
                    interference.append(
                        (method, seed, "untrained", skill, other, change, 1.25, -lost, 0.02, 40)
                    )
                    lost = -0.01 if own else JOINT_LOST[method] - noise
                    interference.append(
                        (method, seed, "joint", skill, other, 2 * lost, 0.05, -lost, 0.98, 40)
                    )
                    stage, later = SKILLS.index(skill), SKILLS.index(skill) - SKILLS.index(other)
                    loss = 0.1 + FORGETTING[method] * max(0, later) + noise
                    exact = 0.9 - FORGETTING[method] / 8 * max(0, later)
                    sequential.append((method, seed, stage, skill, other, loss, exact))
                    if later < 0:
                        conflict.append((method, seed, skill, other, 0.1 - INDEX[method] + noise))
            scores.append((method, seed, "test_two_skills", "french+plural", 1.5, 0.0, 60))
    return MethodTables(
        "made-up",
        pd.DataFrame(cells),
        _frame(scores, "method seed split skill loss exact_match n"),
        _frame(
            interference,
            "method seed start trained evaluated change before exact_change exact_before n",
        ),
        _frame(sequential, "method seed stage trained evaluated loss exact_match"),
        _frame(conflict, "method seed first second cosine"),
        {"csreft": 8, "loreft": 8},
        ("the same work",),
        f"2-{'a' * 32}-{'b' * 12}-{'c' * 12}-{'d' * 12}-{'e' * 16}",
    )


def _frame(rows: list[tuple], columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


def _cell(method: str, seed: int, state: str, message: str) -> dict:
    known = state == "finished"
    noise = seed / 1000
    return {
        "method": method,
        "seed": seed,
        "state": state,
        "message": message,
        "subspaces": TOTAL[method] - 1000 if known else None,
        "router": 1000 if known else None,
        "total": TOTAL[method] if known else None,
        "share": TOTAL[method] / 12_000 if known else None,
        "base_parameters": 1_200_000,
        "steps": 250,
        "train_s": 12.0 + seed if known else None,
        "peak_bytes": 30e6 + seed if known else None,
        "tokens_per_s": 900.0 - seed if known else None,
        "harm": INDEX[method] - noise if known else None,
        "harm_exact": INDEX[method] / 10 - noise if known else None,
        "joint_harm": 2 * (JOINT_LOST[method] - noise) if known else None,
        "joint_harm_exact": JOINT_LOST[method] - noise if known else None,
        "gain": 1.0 if known else None,
        "gain_exact": 0.9 if known else None,
        "to_gain": 1.25 if known else None,
        "forgetting": FORGETTING[method] + noise if known else None,
        "forgetting_exact": FORGETTING[method] / 4 + noise / 10 if known else None,
        "conflict": 0.1 - INDEX[method] if known else None,
    }


def made_up_comparison(folder: Path, failed: tuple[tuple[str, int], ...] = ()) -> Comparison:
    """The same numbers as a comparison's folder on the disk."""
    tables = made_up_tables(failed)
    asked = Plan(
        name="main",
        variants={method: Variant(config=named_config(method)) for method in METHODS},
        seeds=SEEDS,
        single_steps=50,
        sequential_steps=100,
        per_skill=None,
        budget=6000,
        base_fingerprint="made up",
        command="python -m csreft_core compare --out made-up",
        machine="Linux x86_64, 2 CPU threads",
        date="2026-11-21",
        versions={"torch": "2.13.0"},
    )
    comparison = begin(folder, asked)
    for cell in tables.cells.to_dict("records"):
        method, seed = str(cell["method"]), int(cell["seed"])
        if cell["state"] == "failed":
            comparison.write_result(method, seed, {"state": "failed", "message": cell["message"]})
            continue
        known = {name: cell[name] for name in ("steps", "train_s", "peak_bytes", "tokens_per_s")}
        parts = {name: int(cell[name]) for name in ("subspaces", "router", "total")}
        numbers = {
            part: _rows(getattr(tables, part), method, seed)
            for part in ("scores", "interference", "sequential", "conflict")
        }
        result = {"state": "finished", "parameters": parts, "base_parameters": 1_200_000}
        comparison.write_result(method, seed, result | known | numbers)
    return comparison


def _rows(table: pd.DataFrame, method: str, seed: int) -> list[dict]:
    own = table[(table["method"] == method) & (table["seed"] == seed)]
    return own.drop(columns=["method", "seed"]).to_dict("records")
