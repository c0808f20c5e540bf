"""What is read of transformers' inner life, in one place: the arguments of a call, and its cache.

These names and forms move from version to version (read while 5.17 to 5.24 were at hand). What is
known here is read; anything else raises, so that a new name never counts as something that it is
not. No table of model families.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers import Cache

from csreft_core.errors import ConfigError

# By the oldest version alone, by both, by a few families.
_CACHES = ("past_key_values", "cache_params", "cache", "state", "mems", "past_buckets_states")
_WITHOUT_FORM = ("state", "mems", "past_buckets_states")  # lists of tensors, no class
# Given by collators that lay several texts end to end in one row.
_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "cu_seqlens", "seq_idx", "block_sequence_ids")
HOOKS_THAT_ONLY_READ = "transformers.utils.output_capturing"
"""The module whose hooks record outputs that someone asked for, and change none."""
SERVES_ALONE = "init_continuous_batching"
"""The method that every kind of continuous batching goes through; it reads rows of many texts."""


class Cached:
    """A key-value cache (or recurrent state) as a call hands it over.

    Args:
        name: Of the argument.
        cache: Any class of transformers.

    Raises:
        ConfigError: a form that is not known, such as tuples of tensors.
    """

    def __init__(self, name: str, cache: Any) -> None:
        self.name, self.cache = name, cache
        cache = getattr(cache, "self_attention_cache", cache)
        self._counters = _counters(cache)
        if self._counters or isinstance(cache, Cache) or name in _WITHOUT_FORM:
            self._blank = isinstance(cache, Cache) and not _has_state(cache)
            return
        raise ConfigError(
            f"the argument {name!r} of the call is a {type(cache).__name__}, a key-value cache "
            "whose length cannot be read; give a Cache of transformers, or use_cache=False"
        )

    def length(self) -> int | None:
        """Tokens that it holds; None if it holds some but does not count them."""
        if self._counters:
            return max(int(count()) for count in self._counters)
        return 0 if self._blank else None

    def counter(self) -> Callable[[], Any] | None:
        """The quickest way to its length, for a cache that is filled; None without a length."""
        return max(self._counters, key=lambda count: int(count()), default=None)


def _counters(cache: Any) -> list[Callable[[], Any]]:
    """Functions that count its tokens; some layers of a mixed cache count none, or are unused."""
    layers = getattr(cache, "layers", None)
    if layers is not None:
        return [layer.get_seq_length for layer in layers if hasattr(layer, "get_seq_length")]
    if hasattr(cache, "get_seq_length"):
        return [cache.get_seq_length]
    return [lambda: cache.seqlen_offset] if hasattr(cache, "seqlen_offset") else []


def _has_state(cache: Cache) -> bool:
    return any(cache.is_linear) and cache.has_previous_state()


@dataclass(frozen=True)
class Call:
    """One call of a causal model.

    Attributes:
        tokens: Token ids, or embeddings with a third axis.
        mask: Which tokens are real, those in the cache included; None if the call does not say.
        places: `position_ids`, if given: [batch or 1, seq], with a leading axis in some families.
        cached: The cache, None without one.
        packed: A name of an argument that says that rows hold several texts.
        use_cache: As given.
    """

    tokens: Tensor
    mask: Bool[Tensor, "batch total"] | None
    places: Tensor | None
    cached: Cached | None
    packed: str | None
    use_cache: bool | None

    def past(self) -> int | None:
        """Tokens in the cache; None if it holds some but does not count them."""
        return 0 if self.cached is None else self.cached.length()

    def real(self, total: int) -> Bool[Tensor, "batch total"]:
        """Which tokens are real, the cached ones included; all, if the call does not say.

        Raises:
            ConfigError: the mask is of another length.
        """
        if self.mask is None:
            shape = (len(self.tokens), total)
            return torch.ones(shape, dtype=torch.bool, device=self.tokens.device)
        if self.mask.shape[1] != total:
            raise ConfigError(
                f"attention_mask has {self.mask.shape[1]} values a row, the call has {total} "
                "tokens, those in its key-value cache included; give one value for each"
            )
        return self.mask


def read_call(inputs: dict[str, Any]) -> Call:
    """Read the named arguments of a forward.

    Raises:
        ConfigError: a mask or a cache of a form that is not known.
    """
    ids, embeddings = inputs.get("input_ids"), inputs.get("inputs_embeds")
    tokens = embeddings if ids is None else ids
    if not isinstance(tokens, Tensor) or tokens.ndim < 2:
        raise ConfigError(
            "a call of the base needs input_ids [batch, seq] or inputs_embeds [batch, seq, d_model]"
        )
    return Call(
        tokens,
        _mask(inputs.get("attention_mask"), tokens),
        inputs.get("position_ids"),
        _cache_of(inputs),
        next((name for name in _PACKED if inputs.get(name) is not None), None),
        inputs.get("use_cache"),
    )


def _mask(mask: Any, tokens: Tensor) -> Bool[Tensor, "batch total"] | None:
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2 or len(mask) != len(tokens):
        form = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ConfigError(
            f"attention_mask must have one value for each token [batch, seq], got {form}; masks "
            "of four dimensions (static caches, packed rows) are not supported"
        )
    mask = mask.to(tokens.device)
    real = mask.to(torch.bool)
    if mask.dtype != torch.bool and not torch.equal(real.to(mask.dtype), mask):
        raise ConfigError(
            "attention_mask must be 1 for a real token and 0 for padding; masks that number the "
            "texts of a row, or are added to scores, are not supported"
        )
    return real


def _cache_of(inputs: dict[str, Any]) -> Cached | None:
    caches = []
    for name, value in inputs.items():
        if value is None or isinstance(value, (Tensor, bool, int, str)):
            continue
        if name in _CACHES:
            caches.append(Cached(name, value))
        elif isinstance(value, Cache) or hasattr(value, "get_seq_length"):
            raise ConfigError(
                f"the call has a {type(value).__name__} in its argument {name!r}, which is not "
                "known as a key-value cache; use_cache=False does without, and so does another "
                "version of transformers"
            )
    if len(caches) > 1:  # some families are given an unused one beside their own
        caches = [one for one in caches if one.length() != 0] or caches[:1]
    if len(caches) > 1:
        names = " and ".join(one.name for one in caches)
        raise ConfigError(f"the call has two key-value caches, {names}; give one")
    return caches[0] if caches else None


def refuse_several_texts(call: Call, real: Bool[Tensor, "batch seq"]) -> None:
    """Raise if a row holds several texts end to end: each would need a prompt of its own.

    Without a mask transformers takes each step of the places that is not 1 for a new text; with a
    mask, a place that comes again is taken for one here.

    Raises:
        ConfigError: it does.
    """
    again = False
    if isinstance(call.places, Tensor) and call.places.shape[-1] == real.shape[1] > 1:
        several_axes = call.places.ndim == 3  # of images; their tokens share a place in time
        places = call.places[0] if several_axes else call.places
        places = places.to(real.device).expand(real.shape)
        if call.mask is None and not several_axes:
            again = bool((places.diff(dim=1) != 1).any())
        else:
            earlier = torch.where(real, places, -1).cummax(1).values[:, :-1]
            back = places[:, 1:] < earlier if several_axes else places[:, 1:] <= earlier
            again = bool((back & real[:, 1:]).any())
    if again or call.packed is not None:
        why = call.packed or "position_ids start again, or jump, inside a row"
        raise ConfigError(
            f"rows with several texts are not supported ({why}): which tokens are whose prompt is "
            "not known; give each text a row of its own, with an attention_mask"
        )


def refuse_tracing() -> None:
    """Raise while the model is recorded, for one prompt's gates and tokens would be written down.

    Raises:
        ConfigError: it is.
    """
    is_traced = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if is_traced or torch.compiler.is_exporting():
        raise ConfigError(
            "an attached base cannot be exported or traced: its gates and edited tokens depend on "
            "the prompt; torch.compile works, and detach() gives the plain model"
        )


def named_inputs(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a forward by name."""
    return {**dict(zip(_parameters(type(model)), args, strict=False)), **kwargs} if args else kwargs


def takes_places(model: nn.Module) -> bool:
    """Whether the model takes `position_ids`."""
    return "position_ids" in _parameters(type(model))


def cache_argument(model: nn.Module) -> str:
    """The name under which the model takes its key-value cache.

    Raises:
        ConfigError: none that is known.
    """
    for name in _parameters(type(model)):
        if name in _CACHES:
            return name
    raise ConfigError(
        f"{type(model).__name__} takes no key-value cache under a name that is known; choose "
        "another method, or another version of transformers"
    )


@dataclass(frozen=True)
class Prompts:
    """What `generate` was given.

    Attributes:
        tokens: Ids [prompt, seq], or embeddings; None if it starts from nothing.
        custom: Code that is not of transformers chooses the tokens, and may move the rows.
    """

    tokens: Tensor | None
    custom: bool


def prompts_of(model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Prompts:
    """The prompts among the arguments of `model.generate`."""
    inputs = kwargs
    if args:
        names = _names(type(model).generate)  # type: ignore[attr-defined]
        inputs = {**dict(zip(names[1:], args, strict=False)), **kwargs}
    prompts = (inputs.get(name) for name in ("inputs_embeds", "inputs", "input_ids"))
    tokens = next((value for value in prompts if isinstance(value, Tensor)), None)
    return Prompts(tokens, inputs.get("custom_generate") is not None)


@lru_cache
def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _parameters(model: type[nn.Module]) -> tuple[str, ...]:
    return _names(model.forward)[1:]
