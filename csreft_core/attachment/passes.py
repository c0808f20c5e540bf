"""One forward of a base under a request: who asks, which tokens are edited, with which gates.

Nothing is wrapped here; `attach` does that, and fills a `Pass` on the way.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from csreft_core.attachment.start import Start
from csreft_core.errors import ConfigError
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.gate_settings import GateSetting, parse_gate_setting
from csreft_core.reft.given_gates import given_gates
from csreft_core.reft.subspaces import Subspaces
from csreft_core.reft.tuning import Tuning


@dataclass(frozen=True)
class Request:
    """Who is calling: an adapter (None: no gates, no edits) and how its gates are decided.

    `labels` are the skills of the rows, for `oracle`. States of the layers in `capture` are kept.
    """

    adapter: Tuning | None
    setting: GateSetting = field(default_factory=lambda: GateSetting("learned"))
    labels: Tensor | None = None
    capture: tuple[int, ...] = ()


@dataclass
class Pass:
    """One forward of the base: what the wrapped blocks share, and what the caller may read.

    `gates` is [batch, k], or [batch, seq, k] for a router per token. `states[layer]` holds the
    hidden states before and after the edit, for the layers that the request captures. `logits_at`
    holds rows and columns of the only tokens that the head is to see, `head_picked` whether it did.
    Blocks above `last_block` do not run; they pass on what they get. Nor does what `start` knows.
    A pass that `repeats` is that of every decoding step; `prepared` are its edits by layer.
    """

    request: Request
    index: Int[Tensor, "batch seq"]
    prompt_mask: Bool[Tensor, "batch seq"]
    prompt_length: Int[Tensor, " batch"]
    skip: bool = False
    gates: Tensor | None = None
    logits: Tensor | None = None
    states: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    logits_at: tuple[Tensor, Tensor] | None = None
    head_picked: bool = False
    last_block: int | None = None
    start: Start | None = None
    repeats: bool = False
    prepared: dict[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    _sites: list[Tensor] | None = None

    def sites(self) -> list[Int[Tensor, " site"]]:
        """The edited tokens, row by row counted, for each group of an untied edit."""
        if self._sites is None:
            assert self.request.adapter is not None
            positions = self.request.adapter.positions
            groups = positions.groups(self.index, self.prompt_length).flatten()
            self._sites = [
                torch.nonzero(groups == group).squeeze(1) for group in range(positions.n_groups)
            ]
        return self._sites

    def skip_columns(self, n: int) -> None:
        """Leave out the first columns, which do not run, once the gates are decided."""
        if not n:
            return
        self.index, self.prompt_mask = self.index[:, n:], self.prompt_mask[:, n:]
        if self.gates is not None and self.gates.ndim == 3:
            self.gates = self.gates[:, n:]
        if self.logits is not None and self.logits.ndim == 3:
            self.logits = self.logits[:, n:]

    def last_prompt_column(self) -> Int[Tensor, " batch"]:
        """Column of each row's last prompt token."""
        columns = torch.arange(self.index.shape[1], device=self.index.device)
        return torch.where(self.prompt_mask, columns, 0).amax(1)

    def prompt_gates(self) -> Float[Tensor, "batch k"]:
        """The gates of each prompt; of its last token where the router is per token."""
        assert self.gates is not None
        return self.of_prompts(self.gates)

    def of_prompts(self, values: Tensor) -> Float[Tensor, "batch size"]:
        """Values of each prompt; of its last token, which has seen all of it, if per token."""
        if values.ndim == 2:
            return values
        last = self.last_prompt_column().to(values.device)
        return values[torch.arange(len(values), device=last.device), last]

    def token_gates(self) -> Float[Tensor, "batch seq k"]:
        """The gates of each token; those of its prompt where the router is not per token."""
        assert self.gates is not None
        if self.gates.ndim == 3:
            return self.gates
        return self.gates.unsqueeze(1).expand(-1, self.index.shape[1], -1)


def request(
    adapter: Tuning,
    gates: str | Sequence[float] | Float[Tensor, "row k"] = "learned",
    labels: Tensor | None = None,
    capture: tuple[int, ...] = (),
) -> Request:
    """A request from a gate setting as text; `learned` means `uniform` without a router.

    A matrix gives each row of the batch its own gates. A method without gates has no settings.

    Raises:
        ConfigError: a setting that does not fit the adapter's subspaces.
    """
    if not adapter.has_gates:
        return Request(None, capture=capture)
    if isinstance(gates, Tensor):
        if gates.shape[1] != adapter.n_subspaces:
            raise ConfigError(
                f"expected {adapter.n_subspaces} gates a row, one for each of "
                f"{', '.join(adapter.names)}, got {gates.shape[1]}"
            )
        return Request(adapter, GateSetting("oracle"), gates.float(), capture)
    if gates == "learned" and adapter.router is None and adapter.spec.router.gates == "uniform":
        gates = "uniform"
    return Request(adapter, parse_gate_setting(gates, adapter.names), labels, capture)


def decide_gates(
    forward_pass: Pass, layer: int, hidden: Float[Tensor, "batch seq d_model"]
) -> bool:
    """Decide the gates at the place where the router reads; False elsewhere, and if they are known.

    Raises:
        ConfigError: learned gates without a router, or gates for another number of prompts.
    """
    adapter = forward_pass.request.adapter
    if adapter is None or forward_pass.gates is not None or layer != adapter.spec.router.layer:
        return False
    fixed = given_gates(forward_pass.request.setting, len(hidden), forward_pass.request.labels)
    router, home = adapter.router, next(adapter.parameters()).device
    if fixed is not None:
        forward_pass.gates = for_rows(fixed.to(home, torch.float32), len(hidden))
    elif router is None:
        raise ConfigError(
            "this adapter has no router, so its gates cannot be learned; use the gate setting "
            "'uniform', 'oracle', 'only:<skill>' or a vector"
        )
    if router is not None:
        with in_float32(hidden.device):
            logits = router(router.features(hidden.to(home), forward_pass.prompt_mask.to(home)))
            forward_pass.logits = logits
            if fixed is None:
                forward_pass.gates = router.gates(logits)
                if forward_pass.request.setting.kind == "hard":
                    forward_pass.gates = router.binary(forward_pass.gates)
    return True


def edit(forward_pass: Pass, layer: int, hidden: Tensor) -> Tensor:
    """The hidden states with their sites edited; the very same tensor where nothing is."""
    edit_states = forward_pass.prepared.get(layer)
    if edit_states is not None:
        return edit_states(hidden)
    adapter = forward_pass.request.adapter
    if adapter is None or layer not in adapter.layers:
        return hidden
    assert isinstance(adapter, CSReFT), "no other method edits the output of a block"
    with in_float32(hidden.device):
        return _edit_sites(forward_pass, layer, adapter.at(layer), hidden)


def _edit_sites(forward_pass: Pass, layer: int, subspaces: Subspaces, hidden: Tensor) -> Tensor:
    """States of the sites go to the adapter's device and back; blocks may lie on several GPUs."""
    home = subspaces.raw.device
    assert forward_pass.gates is not None, "the router reads above the first edited layer"
    if not any(map(len, forward_pass.sites())):
        return hidden
    shape, gates_of_tokens = hidden.shape, forward_pass.token_gates().flatten(0, 1)
    hidden = hidden.flatten(0, 1)
    for group, sites in enumerate(forward_pass.sites()):
        if len(sites) == 0:
            continue
        if len(sites) == len(hidden):  # all, and in their order: nothing is picked
            if forward_pass.repeats and hidden.device == home:
                forward_pass.prepared[layer] = _every_token(
                    subspaces.at_gates(gates_of_tokens, group)
                )
            hidden = hidden + subspaces(hidden.to(home), gates_of_tokens, group).to(hidden)
            continue
        here, at_home = sites.to(hidden.device), sites.to(home)
        h, gates = hidden.index_select(0, here), gates_of_tokens.index_select(0, at_home)
        hidden = hidden.index_add(0, here, subspaces(h.to(home), gates, group).to(h))
    return hidden.view(shape)


def _every_token(delta: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def edit_states(hidden: Tensor) -> Tensor:
        h = hidden.flatten(0, 1)
        return (h + delta(h).to(h.dtype)).view_as(hidden)

    return edit_states


def in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """Where autocast is on, it ends here: the adapter's arithmetic is float32."""
    return torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext()


def autocasts(device: torch.device) -> bool:
    """Whether matrices are multiplied in another format on such a device, here and now."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def for_rows(gates: Float[Tensor, "given k"], rows: int) -> Float[Tensor, "rows k"]:
    """Beams and several samples of a prompt stand next to each other and share its gates."""
    if len(gates) == rows:
        return gates
    if rows % len(gates):
        raise ConfigError(f"gates are given for {len(gates)} prompts, the batch has {rows} rows")
    return gates.repeat_interleave(rows // len(gates), dim=0)
