"""k gated low-rank edits at one layer, with stacked matrices: the edit and its constraints.

No I/O. Randomness only at construction, from the generator that is passed in, and in the dropout of
training, from a seed that the trainer sets.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csreft_core.config import Constraint, Form
from csreft_core.errors import ConfigError

_HAS_W = ("loreft", "direft", "noreft")
_SUBTRACTS_R = ("loreft", "noreft", "consreft")
# An imported basis is orthonormal to float32 rounding already and is used bit for bit.
_ALREADY_ORTHONORMAL = 2e-6


def orthonormal_rows(
    A: Float[Tensor, "*lead rows d_model"],
) -> Float[Tensor, "*lead rows d_model"]:
    r"""Orthonormal rows with the same span, from a thin QR with a positive diagonal.

    $A^\top = Q T$ with $T_{ii} > 0$, which makes $Q$ unique and smooth in $A$; returns $Q^\top$.
    """
    Q, T = torch.linalg.qr(A.mT)
    signs = torch.where(T.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(A.dtype)
    return (Q * signs.unsqueeze(-2)).mT


def _sequential_rows(
    raw: Float[Tensor, "group k rank d_model"],
) -> Float[Tensor, "group k rank d_model"]:
    """Rows of each subspace in the complement of the earlier ones, which it cannot rotate."""
    rank = raw.shape[-2]
    blocks: list[Tensor] = []
    for i in range(raw.shape[1]):
        earlier = [block.detach() for block in blocks]
        blocks.append(orthonormal_rows(torch.cat([*earlier, raw[:, i]], dim=-2))[:, -rank:])
    return torch.stack(blocks, dim=1)


def constrained_basis(
    raw: Float[Tensor, "group k rank d_model"], constraint: Constraint
) -> Float[Tensor, "group k rank d_model"]:
    r"""The basis R that a raw parameter stands for under a constraint.

    `none`, `fixed`: the raw parameter itself. `within`, `penalty`: $R_i R_i^\top = I_r$ for each i.
    `joint`: all $k r$ rows orthonormal; training one subspace then rotates the others too.
    `sequential`: all rows orthonormal, and the loss of subspace j moves no $R_i$ with $i < j$.
    Exact to float32 rounding (about 1e-6).
    """
    if constraint in ("none", "fixed"):
        return raw
    if constraint in ("within", "penalty"):
        return orthonormal_rows(raw)
    if constraint == "joint":
        return orthonormal_rows(raw.flatten(1, 2)).view_as(raw)
    return _sequential_rows(raw)


def _row_error(R: Float[Tensor, "*lead rows d_model"]) -> float:
    identity = torch.eye(R.shape[-2], dtype=R.dtype, device=R.device)
    return (R @ R.mT - identity).abs().max().item()


class Subspaces(nn.Module):
    r"""k subspace edits of one layer (CS-ReFT, section 3.2; forms: ReFT, eq. 2, 3, table 17).

    $$ \delta(h) = \sum_{i=1}^{k} \alpha_i\, \delta_i(h) $$

    | form     | $\delta_i(h)$                   | pyreft's name       |
    |----------|---------------------------------|---------------------|
    | loreft   | $R_i^\top (W_i h + b_i - R_i h)$ | Loreft              |
    | direft   | $R_i^\top (W_i h + b_i)$         | Nodireft; Direft with constraint `within` |
    | noreft   | as loreft, free rows            | Noreft              |
    | consreft | $R_i^\top (b_i - R_i h)$         | Consreft            |
    | lobireft | $R_i^\top b_i$                   | Lobireft            |

    A closed gate adds exactly zero. All parameters are float32. The stored parameter is `raw`;
    the basis R follows from it by the constraint, so weight decay must not touch `raw`.

    Args:
        d_model: Width d of the hidden state.
        n_subspaces: k.
        rank: r, dimensions of each subspace.
        n_groups: 2 for untied first and last tokens, else 1.
        form: See the table.
        constraint: See `constrained_basis`; `fixed` freezes R.
        init: `identity` starts with $\delta = 0$; `random` as pyreft does.
        dropout: Share of edit coordinates dropped in training; the edit stays in its subspace.
        generator: Source of the start.

    Raises:
        ConfigError: more rows than `d_model` has dimensions for the constraint.
    """

    W: nn.Parameter | None

    def __init__(
        self,
        *,
        d_model: int,
        n_subspaces: int,
        rank: int,
        generator: torch.Generator,
        n_groups: int = 1,
        form: Form = "loreft",
        constraint: Constraint = "joint",
        init: str = "identity",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        is_stacked = constraint in ("joint", "sequential", "fixed")
        rows = n_subspaces * rank if is_stacked else rank
        if constraint != "none" and rows > d_model:
            what = f"k*r = {n_subspaces}*{rank} = {rows}" if is_stacked else f"rank {rank}"
            raise ConfigError(
                f"constraint '{constraint}' needs orthonormal rows, but {what} is more than "
                f"d_model {d_model}; lower adapter.rank or adapter.n_subspaces"
            )
        self.d_model, self.n_subspaces, self.rank = d_model, n_subspaces, rank
        self.n_groups, self.form, self.dropout = n_groups, form, dropout
        # NoReFT has free rows by definition, so its penalty acts on them as they are.
        self.constraint: Constraint = constraint
        self._basis_rule: Constraint = "none" if form == "noreft" else constraint
        self.dropout_seed = 0
        self._kept_maps: (
            tuple[tuple[int, ...], list[tuple[Tensor | None, Tensor, Tensor]]] | None
        ) = None
        self._start(init, generator)

    def _start(self, init: str, generator: torch.Generator) -> None:
        shape = (self.n_groups, self.n_subspaces, self.rank, self.d_model)
        bound = 1 / math.sqrt(self.d_model)
        # The type is named: while another thread loads a base, torch's default can be its type.
        raw = torch.randn(shape, generator=generator, dtype=torch.float32) * bound
        fits = self.n_subspaces * self.rank <= self.d_model
        if self._basis_rule in ("none", "fixed") and self.rank <= self.d_model:
            raw = constrained_basis(raw, "joint" if fits else "within")
        self.raw = nn.Parameter(raw, requires_grad=self.constraint != "fixed")
        self.register_parameter("W", None)
        if self.form in _HAS_W:
            W = torch.zeros(shape, dtype=torch.float32)
            if init == "random":
                W.uniform_(-bound, bound, generator=generator)
            elif self.form != "direft":
                W = constrained_basis(raw, self._basis_rule).clone()
            self.W = nn.Parameter(W)
        b = torch.zeros(shape[:-1], dtype=torch.float32)
        if init == "random":
            low, high = (-bound, bound) if self.form in _HAS_W else (0.0, 1.0)
            b.uniform_(low, high, generator=generator)
        self.b = nn.Parameter(b)

    def basis(self) -> Float[Tensor, "group k rank d_model"]:
        """R, one basis vector a row, by the constraint.

        With a gradient it is always computed from `raw`. Without, a `raw` whose rows are
        orthonormal already (an imported basis) is returned bit for bit.
        """
        rule = self._basis_rule
        if rule in ("within", "penalty", "joint", "sequential") and not torch.is_grad_enabled():
            rows = self.raw.flatten(1, 2) if rule in ("joint", "sequential") else self.raw
            if _row_error(rows) <= _ALREADY_ORTHONORMAL:
                return self.raw
        return constrained_basis(self.raw, rule)

    def _edit_maps(self) -> list[tuple[Tensor | None, Tensor, Tensor]]:
        """Per group: the map to edit coordinates (or None), its offset, and R, with rows k*r."""
        R = self.basis()
        to_coordinates = self.W
        if self.form in _SUBTRACTS_R:
            to_coordinates = -R if self.W is None else self.W - R
        return [
            (
                None if to_coordinates is None else to_coordinates[group].flatten(0, 1),
                self.b[group].flatten(),
                R[group].flatten(0, 1),
            )
            for group in range(self.n_groups)
        ]

    def edit_maps(self) -> list[tuple[Tensor | None, Tensor, Tensor]]:
        """As `_edit_maps`, kept while no parameter changes and no gradient is wanted."""
        if torch.is_grad_enabled():
            return self._edit_maps()
        parameters = (self.raw, self.b) if self.W is None else (self.raw, self.b, self.W)
        key = tuple(x for p in parameters for x in (p.data_ptr(), p._version))
        entry = self._kept_maps
        if entry is None or entry[0] != key:
            entry = (key, self._edit_maps())
            self._kept_maps = entry
        return entry[1]

    def forward(
        self,
        h: Float[Tensor, "site d_model"],
        gates: Float[Tensor, "site k"],
        group: int = 0,
    ) -> Float[Tensor, "site d_model"]:
        r"""The gated sum $\delta(h)$ in float32; the caller adds it to h.

        Args:
            h: Hidden states at the edited sites, any float dtype.
            gates: $\alpha$; values outside [0, 1] are allowed.
            group: 0, or 1 for the last tokens of an untied edit.
        """
        to_coordinates, b, R = self.edit_maps()[group]
        coordinates = b.expand(h.shape[0], -1)
        if to_coordinates is not None:
            coordinates = torch.addmm(b, h.to(R.dtype), to_coordinates.mT)
        if self.training and self.dropout > 0:
            coordinates = coordinates * self._keep(coordinates, group)
        of_subspace = coordinates.view(-1, self.n_subspaces, self.rank)
        return (of_subspace * gates.to(R.dtype).unsqueeze(-1)).flatten(1) @ R

    def at_gates(
        self, gates: Float[Tensor, "site k"], group: int = 0
    ) -> Callable[[Float[Tensor, "site d_model"]], Float[Tensor, "site d_model"]]:
        r"""The gated sum $\delta$ as a function of h, for many calls with the same gates.

        The same numbers as `forward` outside training, and no longer those of parameters that
        change afterwards.
        """
        to_coordinates, b, R = self.edit_maps()[group]
        scale = gates.to(R.dtype).repeat_interleave(self.rank, -1)
        if to_coordinates is None:
            constant = (b * scale) @ R
            return lambda _h: constant
        read = to_coordinates.mT
        return lambda h: (torch.addmm(b, h.to(R.dtype), read) * scale) @ R

    def _keep(self, coordinates: Float[Tensor, "site rows"], group: int) -> Tensor:
        # A fresh generator for each call: a recomputed forward must drop the same coordinates.
        generator = torch.Generator(coordinates.device).manual_seed(self.dropout_seed + group)
        draws = torch.rand(coordinates.shape, generator=generator, device=coordinates.device)
        return (draws >= self.dropout).to(coordinates.dtype) / (1 - self.dropout)

    @torch.no_grad()
    def orthonormality_error(self) -> float:
        r"""Largest entry of $|R_i R_i^\top - I_r|$ over all i; dimensionless, 0 is exact."""
        return _row_error(constrained_basis(self.raw, self._basis_rule))

    @torch.no_grad()
    def constraint_error(self) -> float:
        r"""Largest violation of what the constraint promises; 0 where it promises nothing.

        `joint`, `sequential` and `fixed` promise $R R^\top = I_{kr}$, `within` and `penalty`
        $R_i R_i^\top = I_r$.
        """
        if self._basis_rule == "none":
            return 0.0
        R = constrained_basis(self.raw, self._basis_rule)
        return _row_error(R.flatten(1, 2) if self._basis_rule in _STACKED else R)

    @torch.no_grad()
    def overlap(self) -> float:
        r"""Mean over pairs of $\|Q_i Q_j^\top\|_F^2 / r$, in [0, 1]; r/d by chance, 0 if disjoint.

        $Q_i$ is an orthonormal basis of the rows of $R_i$.
        """
        if self.n_subspaces == 1:
            return 0.0
        Q = orthonormal_rows(constrained_basis(self.raw, self._basis_rule))
        return (_cross_overlap(Q) / (self.rank * _n_pairs(Q))).item()

    def overlap_penalty(self) -> Float[Tensor, ""]:
        r"""$\sum_{i<j} \|R_i R_j^\top\|_F^2$, summed over groups (O-LoRA's idea, on R)."""
        return _cross_overlap(constrained_basis(self.raw, self._basis_rule))


_STACKED = ("joint", "sequential", "fixed")


def _n_pairs(R: Float[Tensor, "group k rank d_model"]) -> int:
    return R.shape[0] * math.comb(R.shape[1], 2)


def _cross_overlap(R: Float[Tensor, "group k rank d_model"]) -> Float[Tensor, ""]:
    k, rank = R.shape[1:3]
    rows = R.flatten(1, 2)
    gram = (rows @ rows.mT).square()
    block = torch.arange(k, device=R.device).repeat_interleave(rank)
    return (gram * (block[:, None] < block[None, :])).sum()
