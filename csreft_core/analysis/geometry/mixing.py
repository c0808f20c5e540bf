"""How far the blocks after an edit carry one subspace into another: Jacobian-vector products.

The base is driven through its engine. A direction is added to a state by a probe: an adapter whose
edit is linear in its gates, so that the derivative by a gate is the product with that direction.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from csreft_core.analysis.subject import Subject
from csreft_core.attachment.passes import request
from csreft_core.config import AdapterConfig, RouterConfig
from csreft_core.inference.known import read_ahead
from csreft_core.reft.adapter import CSReFT
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row

# Torch keeps the level of forward differentiation for the whole process, not for each thread.
_ONE_AT_A_TIME = Lock()


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Forward differentiation through the base."""
    # The fused attention kernels have no forward derivative; the plain one has.
    with _ONE_AT_A_TIME, sdpa_kernel(SDPBackend.MATH), ExitStack() as stack:
        with warnings.catch_warnings():
            # Torch itself still uses torch.jit.script when the first dual number is made.
            warnings.simplefilter("ignore", DeprecationWarning)
            stack.enter_context(forward_ad.dual_level())
            forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
        yield


def edits_first(adapter: CSReFT, group: int) -> bool:
    """Whether a group edits first tokens and no last ones."""
    rule = adapter.positions
    return rule.prefix > 0 and (rule.suffix == 0 or (rule.n_groups == 2 and group == 0))


def probe_adapter(
    subject: Subject, layer: int, group: int, directions: Float[Tensor, "direction d_model"]
) -> CSReFT:
    r"""An adapter with the edit $h \mapsto h + \sum_m g_m v_m$ at one token, g being its gates.

    That token is the last prompt token, or the first one for a group that edits first tokens only.
    """
    names = tuple(f"direction {m}" for m in range(len(directions)))
    settings = AdapterConfig(
        layers=(layer,),
        rank=1,
        form="lobireft",
        constraint="none",
        positions="f1" if edits_first(subject.adapter, group) else "l1",
        init="identity",
    )
    spec = replace(
        subject.adapter.spec,
        names=names,
        skills=names,
        adapter=settings,
        router=RouterConfig(gates="uniform"),
    )
    probe = CSReFT(spec, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        probe.at(layer).raw.copy_(directions[None, :, None])
        probe.at(layer).b.fill_(1.0)
    return probe


@torch.no_grad()
def push_forward(
    subject: Subject,
    row: Row,
    layer: int,
    group: int,
    directions: Float[Tensor, "direction d_model"],
) -> dict[int, Float[Tensor, "direction d_model"]]:
    r"""$J v_m$ for each direction, $J = \partial h^{(l')} / \partial h^{(l)}$ at one token (6.2).

    The derivative of the base itself, without any edit, by forward-mode differentiation: exact to
    rounding, one forward for all directions and layers.

    Args:
        subject: The opened run.
        row: A prompt.
        layer: l.
        group: See `probe_adapter`, also for the token.
        directions: $v_m$.

    Returns:
        For l' = layer (J is the identity) and every later layer.
    """
    base, n = subject.engine.base, len(directions)
    prompt = Example(subject.encoded([row]).examples[0].prompt, ())
    attachment = subject.engine.attachment
    probe = probe_adapter(subject, layer, group, directions).to(base.device)
    layers = tuple(range(layer, base.n_layers))
    known = read_ahead(attachment, probe, collate([prompt], base.pad_id).to(base.device))
    if known is None:
        inputs = collate([prompt] * n, base.pad_id).to(base.device).inputs
    else:
        known = known.repeated(n)
        inputs = {**known.batch.inputs, "start": known.start(probe)}
    with _forward_mode():
        gates = forward_ad.make_dual(
            torch.zeros(n, n, device=base.device), torch.eye(n, device=base.device)
        )
        _, forward = attachment.forward(
            request(probe, gates, capture=layers),
            **inputs,
            last_block=base.n_layers - 1,
            use_cache=False,
        )
        token = 0 if edits_first(subject.adapter, group) else -1
        pushed = {}
        for later, (_, after) in forward.states.items():
            tangent = forward_ad.unpack_dual(after[:, token]).tangent
            assert tangent is not None, "the probe's layer is below every captured one"
            pushed[later] = tangent.double().cpu()
        return pushed


def mean_norms(
    subject: Subject,
    rows: Sequence[Row],
    layer: int,
    group: int,
    sources: Sequence[Float[np.ndarray, "rank d_model"]],
    readers: Mapping[int, Sequence[Float[np.ndarray, "rank d_model"]]],
) -> dict[int, Float[np.ndarray, "source target"]]:
    r"""Mean over the prompts of $\|Q_j J Q_i^\top\|_F$ for each source i, target j and layer.

    Args:
        subject: The opened run.
        rows: Prompts.
        layer: Where the sources are.
        group: See `probe_adapter`.
        sources: Orthonormal rows.
        readers: For each layer its targets; a layer that is missing reads with those of `layer`.
    """
    directions = torch.from_numpy(np.concatenate(sources)).float()
    ends = np.cumsum([len(rows_) for rows_ in sources])[:-1]
    sums: dict[int, np.ndarray] = {}
    for row in rows:
        for later, pushed in push_forward(subject, row, layer, group, directions).items():
            blocks = np.split(pushed.numpy(), ends)
            targets = readers.get(later, readers[layer])
            norms = np.array([[np.linalg.norm(v @ Q.T) for Q in targets] for v in blocks])
            sums[later] = sums.get(later, 0.0) + norms / len(rows)
    return sums
