"""Sentences of the States view, on small tables with known numbers."""

import pandas as pd
import pytest

from csreft_core.analysis.states import sentences as say

pytestmark = pytest.mark.fast


def states(edit=(0.001, 0.0), variance=(0.5, 0.25), moved=1.0, **alike):
    rows = [
        ("p", "a", own, kind, 0.0, 0.0, moved, 2.0)
        for own in (False, True)
        for kind in ("base", "edited")
    ]
    columns = ["prompt", "skill", "own", "kind", "x", "y", "moved", "size"]
    alike = {
        "x_variance_frac": variance[0],
        "y_variance_frac": variance[1],
        "x_edit_frac": edit[0],
        "y_edit_frac": edit[1],
        "d_model": 128,
        "layer": 1,
        "position": "last",
        "basis": "base",
        "gates": "learned",
        "edited_layers": "1",
        "edited_tokens": "l1",
    } | alike
    return pd.DataFrame(rows, columns=columns).assign(**alike)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            states(),
            "75.0% of the variance of 1 base states and 0.1% of the edit, less than "
            "random axes would (1.6%). The picture hides the edit. Choose the axes of the",
        ),
        (
            states(edit=(0.1, 0.05)),
            "15.0% of the edit (random axes: 1.6%). The picture hides most of the edit. Choose",
        ),
        (states(edit=(0.1, 0.05), basis="differences"), "The picture hides most of the edit."),
        (states(edit=(0.9, 0.05)), "95.0% of the edit (random axes: 1.6%)."),
        (
            states(moved=0.0, layer=0),
            "layer 0 lies below the first edited layer, 1. The difference is exactly 0.",
        ),
        (states(moved=0.0, gates="off"), "all gates are 0. The difference is exactly 0."),
        (states(moved=0.0, position="-2"), "the adapter edits the tokens l1"),
        (states(moved=1e-9), "at most 5e-10 of |h|, which is rounding"),
        (
            states(variance=(float("nan"),) * 2, edit=(1.0, 0.0), position="first"),
            "At layer 1, the first token, the base gives all 1 prompts the same state. They show "
            "100.0% of the edit",
        ),
    ],
)
def test_what_a_picture_shows(table, expected):
    assert expected in say.sentence_states(table)


def test_a_picture_that_shows_the_edit_does_not_warn():
    assert "hides" not in say.sentence_states(states(edit=(0.9, 0.05)))
    assert "Choose" not in say.sentence_states(states(edit=(0.1, 0.05), basis="differences"))


def test_the_scree_counts_the_axes():
    rows = [
        ("base states", 1, 0.6, 0.6),
        ("base states", 2, 0.2, 0.8),
        ("edit", 1, 0.95, 0.95),
        ("edit", 2, 0.05, 1.0),
        ("edit on the axes of the base states", 1, 0.0, 0.0),
        ("edit on the axes of the base states", 2, 0.01, 0.01),
    ]
    table = pd.DataFrame(rows, columns=["kind", "component", "frac", "cumulative"])
    table = table.assign(n=9, chance=1 / 128)
    assert say.sentence_scree(table) == (
        "The base states need more than 2 axes: these show 80.0%. The edit needs 1 axis for 90%. "
        "n = 9 prompts. The first 2 axes of the base states show 1.0% of the edit; 2 random axes "
        "would show 1.6%."
    )
    still = say.sentence_scree(table[table["kind"].eq("base states")])
    assert still.endswith("No state moves: there is no edit to show.")


def coordinates(*points):
    columns = ["gate", "moved", "distance", "start", "error", "kind", "subspace"]
    rows = [(*point, kind, "a") for kind in ("before", "after", "target") for point in points]
    return pd.DataFrame(rows, columns=columns)


def test_coordinates_of_open_and_closed_gates():
    found = say.sentence_coordinates(
        coordinates((0.99, 5.0, 0.05, 5.0, 1e-6), (0.01, 0.2, 4.0, 4.1, 1e-6))
    )
    assert found == (
        "Where the gate of a is above 0.5 (1 of 2 prompts; 0.990 to 0.990), the coordinates end at "
        "most 0.05 from the target, having started up to 5 away. Where it is not (1 prompts; gate "
        "at most 0.010), they move by at most 0.2. R h' = (1 - gate) R h + gate · target holds "
        "within 1e-06."
    )
    leaking = say.sentence_coordinates(coordinates((0.99, 5.0, 0.5, 5.0, 0.5)))
    assert "misses (1 - gate) R h + gate · target by up to 0.5" in leaking


def size(cells):
    rows = [(layer, place, "", value, value, 1.5, 3) for layer, place, value in cells]
    columns = ["layer", "place", "text", "size", "highest", "between", "n"]
    return pd.DataFrame(rows, columns=columns)


def test_the_largest_size_and_the_zeros():
    cells = [(0, -2, 0.0), (0, -1, 0.0), (1, -2, 0.0), (1, -1, 0.5), (2, -2, 0.0), (2, -1, 0.25)]
    assert say.sentence_size(size(cells)) == (
        "The edited run is furthest from the base at layer 1, the last prompt token: |h' - h| is "
        "0.50 of |h| (n = 3). Two prompts' base states there are 1.50 of |h| apart. After the last "
        "layer it is 0.25. The difference is exactly 0 in 4 of 6 cells: below layer 1, and at "
        "tokens that see no edited token."
    )
    assert say.sentence_size(size(cells[:3])).endswith("the edit is exactly 0.")
    first = say.sentence_size(size([(0, -2, 0.0), (0, -1, 0.5)]))
    assert "1 of 2 cells: at tokens" in first


def test_how_the_edit_grew():
    rows = [
        (step, f"p{i}", "edited", moved, share)
        for step, moved, share in ((0, 0.0, float("nan")), (10, 3.0, 0.2), (20, 4.0, 0.3))
        for i in range(2)
    ]
    table = pd.DataFrame(rows, columns=["step", "prompt", "kind", "moved", "edit_frac"])
    assert say.sentence_training(table.assign(fitted_step=20)) == (
        "The mean of |h' - h| over 2 validation prompts is exactly 0 at step 0 and 4 at step 20; "
        "half of that is there by step 10. Axes are fitted at step 20 and fixed; they show 30.0% "
        "of its edit."
    )
    still = table.assign(fitted_step=20, moved=0.0)
    assert say.sentence_training(still) == "The edit is 0 at every snapshot."


def test_separation_before_and_after():
    rows = [
        ("h", "silhouette", "true labels", 0.1, 0.05, 0.15),
        ("h", "probe accuracy", "true labels", 0.5, 0.4, 0.6),
        ("h", "probe accuracy", "majority class", 0.25, 0.25, 0.25),
        ("h'", "silhouette", "true labels", 0.3, 0.25, 0.35),
        ("h'", "probe accuracy", "true labels", 1.0, 0.9, 1.0),
    ]
    columns = ["features", "measure", "kind", "value", "low", "high"]
    assert say.sentence_separation(pd.DataFrame(rows, columns=columns).assign(n=40)) == (
        "The silhouette of the skills goes from 0.100 [0.050, 0.150] in the base states to 0.300 "
        "[0.250, 0.350] in the edited ones. A linear probe names the skill right for 50% from base "
        "states, 100% from edited states (n = 40 prompts; the most frequent skill alone: 25%)."
    )


def energy(own, names=("a", "b"), subspaces=("a", "b")):
    rows = [
        (kind, skill, subspace, own if i == j else 1 - own, 6)
        for kind, own in (("gated", own), ("all gates 1", 0.5))
        for i, skill in enumerate(names)
        for j, subspace in enumerate(subspaces)
    ]
    return pd.DataFrame(rows, columns=["kind", "skill", "subspace", "share", "n"])


def test_whose_energy_it_is():
    assert say.sentence_energy(energy(0.99999)) == (
        "On a skill's prompts its own subspace makes at least 99.99% of the edit (lowest: a; n = "
        "12 prompts). With all gates at 1 it would be 50.0% to 50.0%."
    )
    assert "strongest subspace" in say.sentence_energy(energy(0.75, subspaces=("s 1", "s 2")))
    assert "makes the whole edit" in say.sentence_energy(energy(1.0, subspaces=("s 1",)))
    assert "No prompt is edited" in say.sentence_energy(energy(float("nan")))
