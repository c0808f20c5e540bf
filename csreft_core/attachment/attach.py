"""Attachments: the only place where a base model is edited or read.

`attach` wraps the `forward` of the base; a block, the embedding or the head is wrapped when a call
first needs it. What happens there is decided for each call: by the attachment's own adapter, or by
a `Request` that lives in a context variable, so that many threads can use one base, each with its
own adapter and gates.
Sites are absolute token positions, taken from the attention mask and the prompt's length: padding
and the key-value cache change nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from csreft_core.attachment.calls import Generation, new_pass
from csreft_core.attachment.passes import Pass, Request, autocasts, decide_gates, edit, request
from csreft_core.attachment.start import Start
from csreft_core.attachment.token_wise import at_sites, candidates, is_token_wise
from csreft_core.attachment.wrapped_forwards import (
    Forward,
    Wrapper,
    Wrappers,
    recompute_blocks,
    whole_rows,
)
from csreft_core.base.blocks import states_of, with_states
from csreft_core.base.library_calls import (
    SERVES_ALONE,
    cache_argument,
    named_inputs,
    prompts_of,
    read_call,
    takes_places,
)
from csreft_core.base.load import Base
from csreft_core.errors import ConfigError
from csreft_core.reft.adapter import CSReFT

EMBEDDING = -1
_ATTACHED: WeakSet[nn.Module] = WeakSet()
"""Models that have an attachment. A second one would take arguments such as `prompt_mask` away."""


class Attachment:
    """A wrapped base. Other people's hooks are left alone and run around; `detach` unwraps.

    Args:
        base: The frozen base.
        adapter: Applied when a call brings no request of its own; None means that every call
            must, and a call without one raises instead of silently giving the base.
        gates: Gate setting of that adapter.
        autocast: Number format in which `forward` and `generate` of this object multiply the
            base's matrices; None leaves it to the base. The adapter computes in float32.

    Raises:
        ConfigError: the base has an attachment already.
    """

    def __init__(
        self,
        base: Base,
        adapter: CSReFT | None = None,
        gates: str | Sequence[float] = "learned",
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.base = base
        self.autocast = autocast
        self.default = None if adapter is None else request(adapter, gates)
        # Instance-level, so that two bases in one thread do not see each other's calls.
        self._request: ContextVar[Request] = ContextVar("csreft_request")
        self._pass: ContextVar[Pass | None] = ContextVar("csreft_pass", default=None)
        self._generation: ContextVar[Generation | None] = ContextVar(
            "csreft_generation", default=None
        )
        self._recompute: Pass | None = None
        self._wrappers = Wrappers()
        if base.model in _ATTACHED:
            raise ConfigError(
                "the base has an attachment already; detach() it first, or give each call its own "
                "adapter inside `attachment.calling(request(adapter))`"
            )
        _ATTACHED.add(base.model)
        self._wrappers.of_forward(base.model, self._around_model)
        self._wrap_methods(adapter)

    def _block(self, layer: int) -> Wrapper:
        return self._wrappers.of_forward(
            self.base.blocks[layer], partial(self._around_block, layer)
        )

    def _wrap_what_is_needed(self, forward_pass: Pass) -> None:
        """An answer of a small model is 1 % slower with six blocks wrapped for nothing."""
        model, adapter = self.base.model, forward_pass.request.adapter
        layers = set(forward_pass.request.capture)
        if adapter is not None:
            layers |= {*adapter.layers, adapter.spec.router.layer}
        if forward_pass.start is not None:
            layers |= {*range(forward_pass.start.layer + 1)}
        if forward_pass.last_block is not None:
            layers |= {*range(forward_pass.last_block + 1, self.base.n_layers)}
        for layer in layers:
            if layer == EMBEDDING:
                self._wrappers.of_forward(model.get_input_embeddings(), self._around_embedding)
            else:
                self._block(layer)
        if forward_pass.logits_at is None:
            return
        for part in candidates(self.base.blocks[-1]):
            self._wrappers.of_forward(part, partial(self._around_part, part))
        head = model.get_output_embeddings()
        if head is not None:
            self._wrappers.of_forward(head, self._around_head)

    def _wrap_methods(self, adapter: CSReFT | None) -> None:
        """Note what `generate` is given; let `.eval()` and `.train()` reach the adapter."""
        model = self.base.model

        def note(generate: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            pass_to = kwargs.pop("pass_to", None)
            token = self._generation.set(Generation(prompts_of(model, args, kwargs), pass_to))
            try:
                return generate(*args, **kwargs)
            finally:
                self._generation.reset(token)

        def train_both(train: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if adapter is not None:
                adapter.train(*args, **kwargs)
            return train(*args, **kwargs)

        def refuse(_inner: Forward, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
            raise ConfigError(
                "an attached base cannot serve by continuous batching, where one row holds the "
                "tokens of many prompts; use generate with a batch"
            )

        for name, around in (("generate", note), ("train", train_both), (SERVES_ALONE, refuse)):
            self._wrappers.add_method(model, around, name)

    def detach(self) -> None:
        """Unwrap the base; it is as it was before."""
        if self._wrappers.restore():
            _ATTACHED.discard(self.base.model)
        self._recompute = None

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @contextmanager
    def calling(self, request: Request) -> Iterator[None]:
        """Calls of the base inside this block, in this context, follow the request."""
        token = self._request.set(request)
        try:
            yield
        finally:
            self._request.reset(token)

    def checkpointing(self, above: int) -> AbstractContextManager[None]:
        """Blocks above a layer run again in the backward pass; only their input is stored.

        Our edits stand around what is repeated, so gates and positions are decided once.
        """
        return recompute_blocks(
            [self._block(layer) for layer in range(above + 1, self.base.n_layers)]
        )

    def forward(self, request: Request, **inputs: Any) -> tuple[Any, Pass]:
        """One forward under a request; returns the model's output and the pass.

        With `last_block=l` among the inputs the blocks above l do not run, and there are no
        logits. With `start=Start(...)` only what comes after that runs; the other inputs are those
        of the whole rows, and the output has the columns that ran.
        """
        if inputs.get("last_block") is not None:
            nothing = torch.zeros(0, dtype=torch.long)
            inputs.setdefault("logits_at", (nothing, nothing))
        passes: list[Pass] = []
        token = self._generation.set(None)  # also if a call of `generate` is on its way
        try:
            with self.calling(request), self._number_format():
                output = self.base.model(**inputs, pass_to=passes)
        finally:
            self._generation.reset(token)
        return output, passes[0]

    def logits(
        self,
        request: Request,
        sites: tuple[Int[Tensor, " site"], Int[Tensor, " site"]],
        **inputs: Any,
    ) -> tuple[Float[Tensor, "site vocab"], Pass]:
        """Logits of these tokens in the base's number format, and the pass.

        The head sees no other token, where the base has one head as a module of its own. Nor does
        the feed-forward part of the last block, where it is a module and takes tokens one by one.

        Args:
            sites: Rows of the batch, and columns counted from the end: -1 is the last.
        """
        rows, columns = sites
        width = -int(columns.min()) if len(columns) else 1
        if not self.base.conduct.cuts_rows:  # else the head, which picks, would see other columns
            inputs["logits_to_keep"] = width
        output, forward_pass = self.forward(request, logits_at=sites, **inputs)
        return output.logits[0] if forward_pass.head_picked else output.logits[
            rows, columns
        ], forward_pass

    def generate(self, request: Request, **inputs: Any) -> tuple[Tensor, Pass]:
        """`model.generate` under a request; returns the token ids and the prompt's pass."""
        passes: list[Pass] = []
        with self.calling(request), self._number_format():
            tokens = self.base.model.generate(**inputs, pass_to=passes)  # type: ignore[operator]
        return tokens, passes[0]

    def _number_format(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.base.device.type, self.autocast)

    def _around_model(self, inner: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.base.conduct.cuts_rows:
            inner = whole_rows(inner)
        try:
            if self._goes_on(kwargs):
                return inner(*args, **kwargs)
            return inner(**self._begin(named_inputs(self.base.model, args, kwargs)))
        finally:
            self._pass.set(None)

    def _goes_on(self, inputs: dict[str, Any]) -> bool:
        """Whether this forward is a step of decoding like the one before, whose pass it takes."""
        generation = self._generation.get()
        current = None if generation is None else self._request.get(self.default)
        if generation is None or current is None:
            return False
        step = generation.same_step(current, inputs)
        self._pass.set(step)
        return step is not None

    def _begin(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Decide what this forward does; gives the arguments of the base, without our own."""
        inputs = dict(inputs)
        generation, current = self._generation.get(), self._request.get(self.default)
        pass_to, prompt_mask = inputs.pop("pass_to", None), inputs.pop("prompt_mask", None)
        logits_at, last_block = inputs.pop("logits_at", None), inputs.pop("last_block", None)
        start = inputs.pop("start", None)
        if current is None:
            raise RuntimeError(
                "no adapter is chosen in this context; call inside `calling(...)`, and start "
                "threads through contextvars.copy_context().run"
            )
        call = read_call(inputs)
        forward_pass = new_pass(current, call, prompt_mask, generation)
        if generation is not None and pass_to is None:
            pass_to, generation.pass_to = generation.pass_to, None
        if autocasts(call.tokens.device):  # would take prepared products out of float32
            forward_pass.repeats = False
        if call.places is None and takes_places(self.base.model):
            inputs["position_ids"] = forward_pass.index.clamp(min=0)
        forward_pass.logits_at, forward_pass.last_block = logits_at, last_block
        forward_pass.start = start
        self._wrap_what_is_needed(forward_pass)
        self._pass.set(forward_pass)
        if torch.is_grad_enabled() and current.adapter is not None and current.adapter.training:
            # A checkpointed block is recomputed in autograd's thread, where the context is empty.
            self._recompute = forward_pass
        if pass_to is not None:
            pass_to.append(forward_pass)
        if call.tokens.ndim == 3:
            self._route(forward_pass, EMBEDDING, call.tokens)
        if start is None:
            return inputs
        self._route_whole_rows(forward_pass, start, inputs.get("input_ids"))
        forward_pass.skip_columns(start.n_columns)
        cache = cache_argument(self.base.model) if start.n_columns else ""
        return start.rest_of(inputs, cache, self.base.n_layers)

    def _route_whole_rows(
        self, forward_pass: Pass, start: Start, ids: Int[Tensor, "batch seq"] | None
    ) -> None:
        """Decide the gates from all prompt tokens, before some columns are left out."""
        if forward_pass.request.adapter is None:
            return
        layer = forward_pass.request.adapter.spec.router.layer
        if layer in start.states:
            self._route(forward_pass, layer, start.states[layer])
        elif layer == EMBEDDING and start.n_columns and ids is not None:
            self.base.model.get_input_embeddings()(ids)

    def current_pass(self) -> Pass:
        """The pass that runs now in this context, for what else is put into the base.

        Raises:
            RuntimeError: none runs.
        """
        forward_pass = self._pass.get(None) or self._recompute
        if forward_pass is None:
            raise RuntimeError("a block of the base ran outside a forward of the base")
        return forward_pass

    def _around_embedding(
        self, inner: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        output = inner(*args, **kwargs)
        forward_pass = self._pass.get(None)
        # The embedding can be called on its own, by the model's owner; that is no pass.
        if forward_pass is not None:
            self._route(forward_pass, EMBEDDING, output)
            if EMBEDDING in forward_pass.request.capture:
                forward_pass.states[EMBEDDING] = (output, output)
        return output

    def _around_head(self, inner: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        forward_pass = self._pass.get(None)
        if forward_pass is None or forward_pass.logits_at is None or not args:
            return inner(*args, **kwargs)
        forward_pass.head_picked = True
        rows, columns = (at.to(args[0].device) for at in forward_pass.logits_at)
        return inner(args[0][rows, columns].unsqueeze(0), *args[1:], **kwargs)

    def _around_part(
        self, part: nn.Module, inner: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A part of the last block, whose output only the wanted tokens need."""
        forward_pass = self._pass.get(None)
        if forward_pass is None and torch._C._current_graph_task_id() != -1:
            forward_pass = self._recompute
        is_alone = (
            len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and args[0].ndim == 3
        )
        if (
            forward_pass is None
            or forward_pass.logits_at is None
            or not is_alone
            or self._reads_last_block(forward_pass)
        ):
            return inner(*args, **kwargs)
        rows, columns = (at.to(args[0].device) for at in forward_pass.logits_at)
        if not is_token_wise(part, inner, args[0], (rows, columns)):
            return inner(*args)
        return at_sites(inner, args[0], (rows, columns))

    def _reads_last_block(self, forward_pass: Pass) -> bool:
        last, adapter = self.base.n_layers - 1, forward_pass.request.adapter
        return last in forward_pass.request.capture or (
            adapter is not None and adapter.spec.router.layer == last
        )

    def _around_block(
        self, layer: int, inner: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        forward_pass = self.current_pass()
        own_input, start = args[0] if args else kwargs["hidden_states"], forward_pass.start
        if forward_pass.last_block is not None and layer > forward_pass.last_block:
            return self.base.conduct.forms[layer].holding(own_input)
        if start is not None and layer <= start.layer:
            output = self.base.conduct.forms[layer].holding(start.output(layer, own_input))
        else:
            output = inner(*args, **kwargs)
        if forward_pass.skip:
            return output
        hidden = states_of(output)
        self._route(forward_pass, layer, hidden)
        after = edit(forward_pass, layer, hidden)
        if layer in forward_pass.request.capture:
            forward_pass.states[layer] = (hidden, after)
        return output if after is hidden else with_states(output, after)

    def _route(self, forward_pass: Pass, layer: int, hidden: Tensor) -> None:
        if decide_gates(forward_pass, layer, hidden):
            generation = self._generation.get()
            if generation is not None and generation.request is forward_pass.request:
                generation.gates = forward_pass.prompt_gates()


def attach(
    base: Base,
    adapter: CSReFT | None = None,
    gates: str | Sequence[float] = "learned",
    *,
    autocast: torch.dtype | None = None,
) -> Attachment:
    """Attach an adapter to a base, which stays a plain transformers model.

    `with attach(base, adapter): base.model.generate(...)` edits; after the block, or after
    `.detach()`, the base is as before.
    """
    return Attachment(base, adapter, gates, autocast=autocast)
