"""How an answer is decoded: by settings of this program alone, unless a base's own are asked for.

A base brings settings of its own: in `generation_config.json`, or in old fields of `config.json`.
transformers follows them in every `generate`, so they would decide what is measured here. They are
read once and kept aside. No randomness: what draws is in `sampling`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import TypedDict

from csreft_core.base.decoding_kinds import BASE_OWN, OURS
from csreft_core.errors import ConfigError, UnsupportedModelError, first_line

FILE = "generation_config.json"

_Id = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]


class Scores(TypedDict, total=False):
    """Settings of a base that change the score of a token, and what they may be."""

    repetition_penalty: _Positive
    no_repeat_ngram_size: _Id
    bad_words_ids: list[Annotated[list[_Id], Field(min_length=1)]]
    sequence_bias: list[tuple[Annotated[list[_Id], Field(min_length=1)], float]]
    suppress_tokens: list[_Id]
    begin_suppress_tokens: list[_Id]
    forced_bos_token_id: _Id
    forced_eos_token_id: _Id | list[_Id]
    min_new_tokens: _Id
    exponential_decay_length_penalty: tuple[_Id, _Positive]


class Draws(TypedDict, total=False):
    """Settings of a base that say how a token is drawn, and what they may be."""

    temperature: _Positive
    top_k: _Id
    top_p: Annotated[_Share, Field(gt=0)]
    min_p: _Share
    typical_p: Annotated[_Share, Field(gt=0)]
    epsilon_cutoff: _Share
    eta_cutoff: _Share


# What changes no token of an answer of one sequence.
_NEUTRAL = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}


def greedy(
    max_new_tokens: int, ends: Sequence[int], pad_id: int, **changes: Any
) -> GenerationConfig:
    """The most likely token at each step, until an end token or the longest answer.

    Args:
        max_new_tokens: Longest answer.
        ends: Tokens that end it; none decodes exactly the longest answer.
        pad_id: Stands behind an answer that has ended before others of its batch.
        changes: Settings of transformers that are wanted beside it.
    """
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends),  # an empty list, where None would take the model's
        pad_token_id=pad_id,
        **changes,
    )


def read_own(name: str, folder: Path) -> dict[str, Any]:
    """The settings that a base's files bring.

    Args:
        name: Of the base, for messages.
        folder: With its files.

    Raises:
        UnsupportedModelError: a file that is no JSON object, or settings that make no sense.
    """
    path = folder / FILE
    try:
        if path.is_file():
            settings = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(settings, dict):
                raise ValueError("it is not a JSON object")
            return settings
        return of_config(
            GenerationConfig.from_pretrained(
                folder, config_file_name="config.json", _from_model_config=True
            )
        )
    except (ValueError, TypeError, OSError, RecursionError) as error:
        where = FILE if path.is_file() else "the decoding settings in config.json"
        raise UnsupportedModelError(
            f"{name}: {where} cannot be read ({first_line(error, 100)}); copy the file "
            "again, or delete it: this program decodes by settings of its own"
        ) from None


def of_config(config: GenerationConfig | None) -> dict[str, Any]:
    """The settings of a model in memory."""
    return {} if config is None else config.to_dict()


def take_over(model: PreTrainedModel, ends: Sequence[int], pad_id: int) -> None:
    """Leave the model no settings of its own, so that no call of `generate` follows them."""
    model.generation_config = GenerationConfig(eos_token_id=list(ends) or None, pad_token_id=pad_id)


def end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, own: Mapping[str, Any]
) -> tuple[int, ...]:
    """The tokens that end an answer: first the one that training writes, then the base's own.

    Of the base's own, only those that stand for no text: where its files disagree with the
    tokeniser, its end can be an ordinary word of an answer.
    """
    embedding = model.get_input_embeddings().weight
    assert isinstance(embedding, Tensor)
    config = model.config.get_text_config()
    ends = list(token_ids(tokenizer.eos_token_id))
    for token in _own_ends(own, config):
        fits = 0 <= token < len(embedding) and token not in ends
        if fits and not tokenizer.decode([token], skip_special_tokens=True):
            ends.append(token)
    return tuple(ends)


def _own_ends(own: Mapping[str, Any], config: Any) -> tuple[int, ...]:
    values = (own.get("eos_token_id"), getattr(config, "eos_token_id", None))
    return tuple(token for value in values for token in token_ids(value))


def token_ids(value: object) -> tuple[int, ...]:
    """The tokens of a setting that names one, several or none."""
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool))


def settings_that_differ(own: Mapping[str, Any]) -> dict[str, Any]:
    """Which of a base's own settings would change an answer, as far as `BASE_OWN` follows them.

    It follows what changes the score of a token and how one is drawn. Beams, caches, helper models
    and the longest answer stay ours.
    """
    draws = {"top_k": 50, **_settings_of(own, Draws)} if own.get("do_sample") is True else {}
    settings = {
        **_settings_of(own, Scores),
        **draws,
    }  # where nothing is said, transformers takes 50
    differs = {name: value for name, value in settings.items() if value != _NEUTRAL.get(name)}
    return {"do_sample": True, **differs} if own.get("do_sample") is True else differs


def _settings_of(own: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return {name: own[name] for name in kind.__annotations__ if own.get(name) is not None}


def scores_and_draws(
    own: Mapping[str, Any], n_tokens: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The settings that `BASE_OWN` follows: those of scores, and of the draw if tokens are drawn.

    Args:
        own: As the base brings them.
        n_tokens: Of the base's vocabulary.

    Raises:
        ConfigError: a setting that makes no sense.
    """
    settings = settings_that_differ(own)
    scores, draws = _settings_of(settings, Scores), _settings_of(settings, Draws)
    try:
        TypeAdapter(Scores).validate_json(json.dumps(scores), strict=True)
        TypeAdapter(Draws).validate_json(json.dumps(draws), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"the base's own decoding setting {'.'.join(map(str, first['loc']))} cannot be used "
            f"({first['msg']}); choose decoding 'ours'"
        ) from None
    lists = (
        "bad_words_ids",
        "suppress_tokens",
        "begin_suppress_tokens",
        "forced_bos_token_id",
        "forced_eos_token_id",
    )
    tokens = [token for name in lists for token in _flat(scores.get(name, []))]
    beyond = [token for token in (*tokens, *_bias_tokens(scores)) if token >= n_tokens]
    if beyond:
        raise ConfigError(
            f"the base's own decoding settings name token {beyond[0]}, but it has {n_tokens}; "
            "choose decoding 'ours'"
        )
    return scores, draws if settings.get("do_sample") else None


def _bias_tokens(scores: Mapping[str, Any]) -> list[int]:
    return [token for tokens, _ in scores.get("sequence_bias", ()) for token in tokens]


def _flat(value: Any) -> list[int]:
    return [t for part in value for t in _flat(part)] if isinstance(value, list) else [value]


def check_decoding(kind: str, temperature: float = 0.0, top_p: float = 1.0) -> None:
    """See that a way to decode is one, and that nothing else is asked for beside the base's own.

    Raises:
        ConfigError: it is not, or a temperature or top-p of one's own beside it.
    """
    if kind not in (OURS, BASE_OWN):
        raise ConfigError(f"decoding is {kind!r}; it must be {OURS!r} or {BASE_OWN!r}")
    if kind == BASE_OWN and (temperature, top_p) != (0.0, 1.0):
        raise ConfigError(
            "decoding 'base' takes temperature and top-p from the base; leave them at 0 and 1, or "
            "choose decoding 'ours'"
        )


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings in one line."""
    texts = (f"{name} {json.dumps(value)[:40]}" for name, value in settings.items())
    return ", ".join(texts) or "none that differs from ours"
