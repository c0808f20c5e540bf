"""Trainable parameters as tables: the papers' counts, any setting of one's own, and 0.0098 %.

Arithmetic on published shapes (`parameter_formulas`): no model is built. Shares are in percent.
"""

import pandas as pd

from csreft_core.analysis.claims.parameter_formulas import (
    Shape,
    edit_parameters,
    lora_parameters,
    paper_router_parameters,
    print_interval,
    red_parameters,
    round_like,
    router_parameters,
    shape_of,
    share,
    subspace_parameters,
)
from csreft_core.analysis.claims.published import published_counts
from csreft_core.errors import ConfigError

TABLES = ("published", "calculator", "inversion", "configurations")
"""The tables of this view, `NAME_table`."""

PAPER_SHARE = "0.0098"
"""What CS-ReFT's table 1 prints for itself, in percent of Llama-2 7B."""


def published_table() -> pd.DataFrame:
    """The papers' parameter counts from the published shapes, beside the share that they print.

    Returns:
        Columns method, base, setting, parameters, denominator, share (%), printed (text, % of the
        paper; empty where it prints none), agrees (the share rounds to it; None where there is
        none), source.
    """
    rows = []
    for method, base, setting, count, of, text, source in published_counts():
        value = share(count, of)
        agrees = round_like(value, text) == text if text else None
        rows.append((method, base, setting, count, of, value, text, agrees, source))
    columns = [
        "method",
        "base",
        "setting",
        "parameters",
        "denominator",
        "share",
        "printed",
        "agrees",
        "source",
    ]
    return pd.DataFrame(rows, columns=columns)


def calculator_table(
    *,
    base: str = "Llama-2 7B",
    subspaces: int = 4,
    rank: int = 4,
    layers: int = 4,
    groups: int = 1,
    router: str = "paper",
) -> pd.DataFrame:
    """What a setting of CS-ReFT trains, in its two parts, beside other methods on the same base.

    Args:
        base: A published shape.
        subspaces: k, at least 1.
        rank: r of each subspace, at least 1.
        layers: How many layers are edited, 1 to those of the base.
        groups: 1, or 2 for untied first and last tokens.
        router: `paper` (d to d/2 to k), the width of this project's router (with a norm), or
            `none`.

    Returns:
        Columns method, part (`subspaces`, `router`, or `all` where there are no parts), parameters,
        share (% of the base), share_nominal (% of the round number in the base's name).

    Raises:
        ConfigError: an unknown base, or a number out of its range.
    """
    shape = shape_of(base)
    _check_setting(shape, subspaces, rank, layers, groups)
    d = shape.d_model
    own = subspace_parameters(d, rank=rank, layers=layers, subspaces=subspaces, groups=groups)
    parts = [
        ("CS-ReFT", "subspaces", own),
        ("CS-ReFT", "router", _router(d, subspaces, router)),
        (
            f"LoReFT of rank {subspaces * rank}",
            "all",
            subspace_parameters(d, rank=subspaces * rank, layers=layers, groups=groups),
        ),
        (
            "LoReFT of the paper",
            "all",
            subspace_parameters(d, rank=4, layers=min(4, shape.n_layers), groups=2),
        ),
        ("RED", "all", red_parameters(shape)),
        ("LoRA of the paper", "all", lora_parameters(shape, 16, ("q", "v"))),
    ]
    table = pd.DataFrame(parts, columns=["method", "part", "parameters"])
    exact, nominal = (100 * table["parameters"] / of for of in (shape.parameters, shape.nominal))
    return table.assign(share=exact, share_nominal=nominal)


def _check_setting(shape: Shape, subspaces: int, rank: int, layers: int, groups: int) -> None:
    if min(subspaces, rank) < 1 or groups not in (1, 2):
        raise ConfigError(
            f"subspaces {subspaces}, rank {rank}, groups {groups}: the first two must be at least "
            "1, groups is 1 (tied) or 2 (untied)"
        )
    if not 1 <= layers <= shape.n_layers:
        raise ConfigError(f"layers is {layers}; {shape.base} has 1 to {shape.n_layers}")


def _router(d_model: int, subspaces: int, router: str) -> int:
    if router == "none":
        return 0
    if router == "paper":
        return paper_router_parameters(d_model, subspaces)
    if not router.isdigit() or int(router) < 1:
        raise ConfigError(f"router is {router!r}; give 'paper', 'none' or a width such as '32'")
    return router_parameters(d_model, int(router), subspaces, norm=True)


def configurations_table(
    *, ranks: int = 80, subspaces: int = 4, base: str = "Llama-2 7B"
) -> pd.DataFrame:
    """The settings with k subspaces whose ranks add up to `ranks`, over all layers and groups.

    Args:
        ranks: g |L| k r.
        subspaces: k.
        base: A published shape; bounds the layers.

    Returns:
        Columns subspaces, rank, layers, groups, parameters (subspaces alone); empty where no
        setting has that sum.
    """
    shape = shape_of(base)
    rows = [
        (
            subspaces,
            ranks // (subspaces * layers * groups),
            layers,
            groups,
            ranks * edit_parameters("loreft", shape.d_model, 1),
        )
        for groups in (1, 2)
        for layers in range(1, shape.n_layers + 1)
        if ranks % (subspaces * layers * groups) == 0
    ]
    return pd.DataFrame(rows, columns=["subspaces", "rank", "layers", "groups", "parameters"])


def inversion_table() -> pd.DataFrame:
    """Which settings could have printed 0.0098 %: CS-ReFT names k = 4 and its router, no more.

    Returns:
        Columns reading, ranks (sum over layers, groups and subspaces), subspaces, router, total
        (parameters), share (% of all 6,738,415,616), share_nominal (% of 6.7 billion), prints and
        prints_nominal (with four digits), possible (a setting with k = 4 has that sum of ranks).
        The first two rows are the ends of the interval that prints 0.0098.
    """
    shape = shape_of("Llama-2 7B")
    d, one = shape.d_model, edit_parameters("loreft", shape.d_model, 1)
    low, high = print_interval(PAPER_SHARE, shape.parameters)
    paper, small = paper_router_parameters(d, 4), router_parameters(d, 32, 4, norm=True)
    readings = [
        ("fewest parameters that print 0.0098", None, low, 0),
        ("most parameters that print 0.0098", None, high, 0),
        ("subspaces alone, ranks that fit", 81, 81 * one, 0),
        ("subspaces alone, nearest with k = 4", 80, 80 * one, 0),
        ("a small router (32 wide, with a norm), counted", 64, 64 * one, small),
        ("the router of section 4 alone", 0, 0, paper),
        ("80 ranks and the router of section 4", 80, 80 * one, paper),
    ]
    rows = []
    for reading, ranks, subspaces, router in readings:
        total = subspaces + router
        exact, nominal = share(total, shape.parameters), share(total, shape.nominal)
        possible = None if not ranks else not configurations_table(ranks=ranks).empty
        prints = round_like(exact, PAPER_SHARE), round_like(nominal, PAPER_SHARE)
        rows.append((reading, ranks, subspaces, router, total, exact, nominal, *prints, possible))
    columns = [
        "reading",
        "ranks",
        "subspaces",
        "router",
        "total",
        "share",
        "share_nominal",
        "prints",
        "prints_nominal",
        "possible",
    ]
    return pd.DataFrame(rows, columns=columns).astype({"ranks": "Int64", "possible": "boolean"})
