"""Panels of the Geometry page: what the subspaces of the skills have in common, and since when."""

import streamlit as st

from csreft_core.analysis.geometry import sentences
from csreft_core.app.figures.figure import Figure
from csreft_core.app.figures.source import of_run, short_path
from csreft_core.app.page import base_loading, cached, kept, library
from csreft_core.app.page.choices import choose
from csreft_core.app.page.later import Later
from csreft_core.app.page.markup import plain
from csreft_core.app.page.parts import fold
from csreft_core.charts.geometry import drift, gram
from csreft_core.charts.geometry import figures as charts
from csreft_core.config import Config
from csreft_core.reft.base_record import differences
from csreft_core.runs.all_runs import Run

tables = Later("csreft_core.analysis.geometry.tables")

_MEASURES = {
    "smallest_angle": "Smallest angle",
    "mean_angle": "Mean angle",
    "overlap": "Overlap",
    "excess": "Overlap above chance",
    "grassmann": "Grassmann distance",
    "chordal": "Chordal distance",
}
_SEEDS = "other seeds"
_WIDTH = 280
SHARED, REACH, TRAINING, RUNS = "Shared directions", "Leaks", "Over training", "Other runs"
PARTS = (SHARED, REACH, TRAINING, RUNS)

_PAIRS = Figure("pairmatrix", tables.pairs_table, charts.pair_matrix)
_ANGLES = Figure("anglebars", tables.angles_table, charts.angle_bars, sentences.sentence_angles)
_GRAM = Figure("gram", tables.gram_table, gram.gram_matrix, sentences.sentence_gram)
_MIXING = Figure("mixing", tables.mixing_table, drift.mixing_curves, sentences.sentence_mixing)
_DRIFT = Figure("drift", tables.drift_table, drift.drift_curves, sentences.sentence_drift)
_CONSTRAINT = Figure(
    "chance", tables.training_table, drift.constraint_and_chance, sentences.sentence_training
)
_OTHER_RUNS = Figure("seeds", tables.seeds_table, drift.seed_dots, sentences.sentence_seeds)


def intro(run: Run) -> None:
    """What one is looking at, in numbers."""
    # One message, instead of one below every figure, where the run does not fit its base.
    spec = cached.spec_on_its_base(run)
    k, r, d = len(spec.names), spec.adapter.rank, spec.d_model
    subspaces = "one subspace" if k == 1 else f"{k} subspaces ({plain(', '.join(spec.names))})"
    st.markdown(
        f"The edit of this run has {subspaces} of rank r = {r} in hidden states of width "
        f"d = {d}, with the constraint `{spec.adapter.constraint}`. Every figure shows random "
        "subspaces of the same shape beside it: in a wide space, even those are nearly at right "
        "angles."
    )


def choose_place(run: Run) -> tuple[int, int]:
    """The layer and the group of positions, where there is something to choose."""
    spec = cached.spec_of(run)
    layers = [str(n) for n in spec.adapter.layers]
    layer, group = int(layers[0]), 0
    with st.container(horizontal=True):
        if len(layers) > 1:
            layer = int(choose("layer", "Edited layer", layers, width=_WIDTH))
        if spec.positions.n_groups > 1:
            labels = {"0": "first tokens", "1": "last tokens"}
            group = int(choose("group", "Edit of the", labels, width=_WIDTH))
    return layer, group


def show_pairs(run: Run, layer: int, group: int) -> None:
    """The matrix of all pairs, and the angles of one."""
    names = cached.spec_of(run).names
    measure = choose("measure", "Measure", _MEASURES, width=_WIDTH)
    table = _PAIRS.show(
        of_run(run),
        sentence=lambda table: sentences.sentence_pairs(table, measure),
        options={"names": names, "measure": measure},
        layer=layer,
        group=group,
    )
    pairs = table[table["kind"] == "run"]
    if not pairs.empty:
        # The pair that has most in common first; rounding to zero is no order.
        order = pairs.loc[(-pairs["overlap"].round(6)).sort_values(kind="stable").index]
        by_label = {f"{a}·{b}": (a, b) for a, b in zip(order["a"], order["b"], strict=True)}
        shown = {label: f"{a} and {b}" for label, (a, b) in by_label.items()}
        pair = by_label[choose("pair", "Pair of skills", shown, width=_WIDTH)]
        _ANGLES.show(of_run(run), pair=pair, layer=layer, group=group)


def show_gram(run: Run, layer: int, group: int) -> None:
    """The Gram matrix of all basis vectors, with a random one."""
    names = cached.spec_of(run).names
    _GRAM.show(of_run(run), options={"names": names}, layer=layer, group=group)


def show_reach(run: Run, layer: int, group: int) -> None:
    """Leaks at the edited block, and mixing after it."""
    if len(cached.spec_of(run).names) == 1:
        st.info(
            "This run has one subspace for everything, so there is no other one to write into or "
            "to read from. Choose a run with several skills on the left, such as `recommended`.",
            icon=":material/info:",
        )
        return
    _show_leaks(run, layer, group)
    _show_mixing(run, layer, group)


def _show_leaks(run: Run, layer: int, group: int) -> None:
    """What edits write and read, and where the states are, on held-out prompts."""
    names = cached.spec_of(run).names
    panels = (
        ("writeleak", "write leak"),
        ("readleak", "read leak"),
        ("dataoverlap", "data-weighted overlap"),
    )
    columns = st.columns(3, gap="medium") if len(names) <= 5 else [st.container() for _ in panels]
    for column, (name, measure) in zip(columns, panels, strict=True):
        with column:
            Figure(name, tables.leaks_table, charts.leak_matrix).show(
                of_run(run),
                sentence=lambda table, measure=measure: sentences.sentence_leaks(table, measure),
                options={"names": names, "measure": measure},
                layer=layer,
                group=group,
            )


def _show_mixing(run: Run, layer: int, group: int) -> None:
    """Downstream mixing; at once on a base that loads at once, else when asked for."""
    names = cached.spec_of(run).names
    fold(
        "Downstream: do the later blocks mix what the edit kept apart?",
        lambda: _MIXING.show(of_run(run), options={"names": names}, layer=layer, group=group),
        key="mixing-panel",
        expanded=kept.is_kept(run) or base_loading.loads_at_once(run.config().base),
    )


def show_training(run: Run, layer: int, group: int) -> None:
    """Drift from the snapshots, and the constraint from the metrics."""
    names = cached.spec_of(run).names
    left, right = st.columns(2, gap="large")
    with left:
        _DRIFT.show(of_run(run), options={"names": names}, layer=layer, group=group)
    with right:
        _CONSTRAINT.show(of_run(run))


def show_seeds(run: Run, layer: int, group: int) -> None:
    """The same skill in other runs."""
    runs = _comparable(run, layer, group)
    if not runs:
        st.info(
            "There is no other finished run on this base with this layer to compare with. Train "
            "the same settings with another `train.seed` on the Train page.",
            icon=":material/info:",
        )
        return
    seeds = [i for i, other in runs.items() if _same_but_seed(run.config(), other.config())]
    labels = {i: library.label(i) for i in runs}
    if seeds:
        together = f"same settings, {len(seeds)} other seed{'s' * (len(seeds) > 1)}"
        labels = {_SEEDS: together, **labels}
    chosen = choose("against", "Compare with", labels, width=_WIDTH)
    others = [runs[i] for i in (seeds if chosen == _SEEDS else [chosen])]
    _OTHER_RUNS.show(
        of_run(run),
        options={"names": cached.spec_of(run).names},
        others=tuple(short_path(other.path) for other in others),
        layer=layer,
        group=group,
    )


def _comparable(run: Run, layer: int, group: int) -> dict[str, Run]:
    """Other runs with an adapter on the same base that edit this layer."""
    mine, comparable = run.config(), {}
    for identity, other in library.other_runs(run).items():
        theirs = other.config()
        if (
            not differences(_base_of(theirs), _base_of(mine))
            and layer in theirs.adapter.layers
            and (group == 0 or not theirs.adapter.tied)
        ):
            comparable[identity] = other
    return comparable


def _base_of(config: Config) -> str:
    return "" if config.provenance is None else config.provenance.base_fingerprint


def _same_but_seed(one: Config, other: Config) -> bool:
    def plain(config: Config) -> object:
        train = config.train
        return (
            config.adapter,
            config.router,
            config.base,
            config.data,
            [v for k, v in vars(train).items() if k not in ("seed", "threads")],
        )

    return plain(one) == plain(other) and one.train.seed != other.train.seed
