"""An adapter in which one pair of skills interferes on purpose, and no other pair does.

Geometry and Interference must both point at that pair.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from csreft_core.analysis.subject import Subject, open_subject
from csreft_core.config import ASSETS
from csreft_core.inference.engine import Engine
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.adapter_spec import AdapterSpec
from csreft_core.skills.skill_set import Row, SkillSet, evenly

PAIR = ("french", "category")
PER_SKILL = 16


@dataclass(frozen=True)
class Planted:
    """A subject with the two skills that share a direction."""

    subject: Subject
    pair: tuple[str, str]


def planted_subject(
    engine: Engine | None = None, pair: tuple[str, str] = PAIR, trained: Subject | None = None
) -> Planted:
    r"""The shipped run `recommended-0` with a direction that two skills share, and no other does.

    It is made in three steps. All states are h at the edited site (layer 1, last prompt token) of
    the subject's own 64 rows, 16 of each skill, split `test_items`.

    1. Silence: each edit keeps what it does on its own skill's rows and does nothing on the
       others'. The map from h to the edit's coordinates c_i is linear with offset, so with fewer
       rows (64) than unknowns (129) it can be chosen to give exactly these values. Then opening
       gate i beside gate j changes nothing on the rows of j.
    2. Share: the second of the r = 2 directions of skill b becomes the main direction p of the
       edit of skill a; its first one is the main direction of its own edit, which it keeps.
       All other directions are those of the run, whose constraint makes them orthogonal.
    3. Collide: on the rows of a, edit b takes back what a moved along p; on the rows of b, edit a
       moves along p by the root mean square of what it moves on its own rows.

    So the smallest angle of the pair (a, b) is 0 and every other is 90 degrees, and
    I_on[i, j] = L_j(e_i + e_j) - L_j(e_j) is large for the pair, in both orders, and about 0 for
    every other pair. The form is `loreft`, the constraint `none` (the rows of each R_i are
    orthonormal all the same), the router is the run's own.

    Args:
        engine: Of the pocket base, if one is loaded already.
        pair: The skills a and b.
        trained: `recommended-0`, if it is open already.
    """
    trained = trained or open_subject(str(ASSETS / "examples" / "recommended-0"), engine)
    rows = evenly(trained.skill_set.split("test_items"), PER_SKILL)
    h = edited_states(trained, rows)
    R, c = _silenced(trained.adapter, rows, h)
    a, b = (trained.adapter.names.index(name) for name in pair)
    _share(R, c, a, b, *(torch.tensor([name in row.skills for row in rows]) for name in pair))
    adapter = _adapter(trained.adapter, R, c, h)
    config = replace(trained.config, adapter=adapter.spec.adapter)
    skill_set = SkillSet(rows, trained.skill_set.names)
    return Planted(Subject(trained.engine, adapter, config, skill_set), pair)


def edited_states(subject: Subject, rows: tuple[Row, ...]) -> Tensor:
    """The states at the edited site, the last prompt token, before the edit: [row, d], float64."""
    (layer,) = subject.adapter.layers
    trace = subject.engine.trace(
        None, [row.prompt for row in rows], layers=(layer,), template=subject.template
    )
    return trace.before[layer][:, -1].double()


def _silenced(adapter: CSReFT, rows: tuple[Row, ...], h: Tensor) -> tuple[Tensor, Tensor]:
    """R [k, r, d] and coordinates c_i = W_i h + b_i - R_i h [k, row, r], 0 on foreign rows."""
    (layer,) = adapter.layers
    subspaces = adapter.at(layer)
    R = subspaces.basis()[0].detach().double()
    assert subspaces.W is not None
    W, b = subspaces.W[0].detach().double(), subspaces.b[0].detach().double()
    c = torch.einsum("nd,krd->knr", h, W - R) + b[:, None]
    own = torch.tensor([[name in row.skills for row in rows] for name in adapter.names])
    return R, c * own[:, :, None]


def _share(R: Tensor, c: Tensor, a: int, b: int, rows_a: Tensor, rows_b: Tensor) -> None:
    """Turn both bases to their main directions, then give b the main direction of a."""
    for i in (a, b):
        _, _, axes = torch.linalg.svd(c[i], full_matrices=False)
        R[i], c[i] = axes @ R[i], c[i] @ axes.T
    R[b, 1], c[b, :, 1] = R[a, 0], 0.0
    size = c[a, rows_a, 0].square().mean().sqrt()
    c[b, rows_a, 1] = -c[a, rows_a, 0]
    c[a, rows_b, 0] = size


@torch.no_grad()
def _adapter(trained: CSReFT, R: Tensor, c: Tensor, h: Tensor) -> CSReFT:
    """The adapter with these bases whose edit has these coordinates on these states."""
    spec: AdapterSpec = replace(
        trained.spec, adapter=replace(trained.spec.adapter, constraint="none")
    )
    adapter = CSReFT(spec, torch.Generator().manual_seed(0)).eval()
    assert adapter.router is not None
    assert trained.router is not None
    adapter.router.load_state_dict(trained.router.state_dict())
    (layer,) = adapter.layers
    subspaces = adapter.at(layer)
    assert subspaces.W is not None
    with_one = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
    inverse = torch.linalg.pinv(with_one)
    maps = torch.einsum("fn,knr->krf", inverse, c)  # features are d states and the offset
    subspaces.raw.copy_(R[None])
    subspaces.W.copy_((R + maps[..., :-1])[None])
    subspaces.b.copy_(maps[..., -1][None])
    return adapter
