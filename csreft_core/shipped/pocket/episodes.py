"""The documents that ``pocket`` reads while it is trained.

An *episode* is a row of questions with answers that all follow one function (a skill, two skills
at once, or repeating the item). The instruction in a question says nothing about the function: it
is absent, or of a kind drawn independently. So the base learns every function from examples and
none from instructions. Some episodes show two skills apart first and then both together.

A *worksheet* is a row of instructions of one kind with the answers left blank, about one noun or
several, and a *word list* holds words of such instructions. They teach which words mean alike and
where the noun stands, and no function.

In a *closed* document the answer mark ``A:`` is a bottleneck: in an episode only the mark sees the
examples before it; in a worksheet only earlier marks are seen. So the state at a mark holds the
function that the examples show, and the kind of the question. Randomness comes from the caller's
generator only.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from csreft_core.shipped.pocket.lexicon import ECHO, SKILLS, answer, joint_answer, read_nouns
from csreft_core.shipped.pocket.paraphrases import (
    ITEM_SLOT,
    content_tokens,
    read_pair_paraphrases,
    read_paraphrases,
    skill_pairs,
)
from csreft_core.shipped.pocket.tokenizer import ANSWER, QUESTION

_Choice = TypeVar("_Choice")
Function = tuple[str, ...]
Template = tuple[list[int], list[int]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How documents are mixed; every number is a share in [0, 1] or a count of tokens."""

    length: int = 112
    list_share: float = 0.30
    word_list_share: float = 0.25
    word_list_length: int = 32
    one_noun_share: float = 0.5
    pair_list_share: float = 0.10
    echo_share: float = 0.30
    pair_share: float = 0.25
    apart_share: float = 0.5
    bare_share: float = 0.35
    one_kind_share: float = 0.5
    scrambled_share: float = 0.4
    scrambled_length: int = 12
    closed_share: float = 0.6


@dataclass(frozen=True)
class Batch:
    """Documents of one step; ``is_target`` marks the tokens to predict.

    Padded on the right, so that a causal model needs no attention mask for the real tokens.
    """

    input_ids: Int[Tensor, "batch seq"]
    is_target: Bool[Tensor, "batch seq"]
    may_see: Bool[Tensor, "batch 1 seq seq"]


@dataclass
class _Document:
    """Token ids, and for each token what it may see and whether it is to be predicted."""

    ids: list[int] = field(default_factory=list)
    targets: list[bool] = field(default_factory=list)
    example: list[int] = field(default_factory=list)
    looks_back: list[bool] = field(default_factory=list)
    is_relay: list[bool] = field(default_factory=list)

    def add(
        self,
        ids: Sequence[int],
        *,
        target: bool = False,
        example: int = 0,
        looks_back: bool = True,
        is_relay: bool = False,
    ) -> None:
        """Append tokens that are alike: one that looks back sees all, a relay is seen by all."""
        self.ids += ids
        self.targets += [target] * len(ids)
        self.example += [example] * len(ids)
        self.looks_back += [looks_back] * len(ids)
        self.is_relay += [is_relay] * len(ids)


class EpisodeWriter:
    """Writes documents as token ids; an equal generator gives equal documents."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
        """Tokenise every noun, answer and instruction once."""
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._bos, self._eos = self._ids("<bos>")[0], self._ids("<eos>")[0]
        self._mark = self._ids(ANSWER)[0]
        nouns = read_nouns()
        self._nouns = [self._ids(noun.noun) for noun in nouns]
        self._singles: list[Function] = [(skill,) for skill in SKILLS]
        self._pairs: list[Function] = [*skill_pairs()]
        self._answers: dict[Function, list[list[int]]] = {
            (ECHO,): [self._ids(answer(ECHO, noun)) for noun in nouns],
            **{
                function: [self._ids(joint_answer(function, noun)) for noun in nouns]
                for function in (*self._singles, *self._pairs)
            },
        }
        self._episode_templates: dict[Function, list[Template]] = {}
        self._list_templates: dict[Function, list[Template]] = {}
        self._words: dict[Function, list[int]] = {}
        for skill, ways in read_paraphrases().items():
            self._episode_templates[skill,] = [self._template(text) for text in ways.train]
            self._list_templates[skill,] = [self._template(text) for text in ways.every]
            self._words[skill,] = [
                i for text in ways.every for word in content_tokens(text) for i in self._ids(word)
            ]
        for pair, ways in read_pair_paraphrases().items():
            self._episode_templates[pair] = [self._template(text) for text in ways.train]
            self._list_templates[pair] = [self._template(text) for text in ways.every]
        self._bare = self._template(ITEM_SLOT)
        self._question_mark = self._bare[0][0]
        templates = [
            template for templates in self._episode_templates.values() for template in templates
        ]
        self._instruction_words = sorted(
            {i for before, after in templates for i in (*before[1:], *after)}
        )
        answer_words = {i for answers in self._answers.values() for ids in answers for i in ids}
        self._other_words = sorted(answer_words - {i for ids in self._nouns for i in ids})

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """One batch of ``size`` documents drawn with ``rng``."""
        documents = [self._document(rng) for _ in range(size)]
        width = max(len(document.ids) for document in documents)
        return Batch(
            torch.tensor([_pad(d.ids, width, self._eos) for d in documents]),
            torch.tensor([_pad(d.targets, width, False) for d in documents]),
            _may_see(
                torch.tensor([_pad(d.example, width, -1) for d in documents]),
                torch.tensor([_pad(d.looks_back, width, False) for d in documents]),
                torch.tensor([_pad(d.is_relay, width, False) for d in documents]),
            ),
        )

    def _document(self, rng: np.random.Generator) -> _Document:
        if rng.random() < self._recipe.list_share:
            return self._list(rng)
        return self._episode(rng)

    def _list(self, rng: np.random.Generator) -> _Document:
        is_pair = rng.random() < self._recipe.pair_list_share
        if is_pair or rng.random() >= self._recipe.word_list_share:
            return self._worksheet(rng, _pick(rng, self._pairs if is_pair else self._singles))
        words = self._words[_pick(rng, self._singles)]
        document = _Document()
        document.add([self._bos])
        sample = [words[i] for i in rng.integers(len(words), size=self._recipe.word_list_length)]
        document.add(sample, target=True)
        return document

    def _worksheet(self, rng: np.random.Generator, kind: Function) -> _Document:
        is_open = bool(rng.random() >= self._recipe.closed_share)
        nouns = range(len(self._nouns))
        if rng.random() < self._recipe.one_noun_share:
            nouns = [_pick(rng, nouns)]
        document = _Document()
        document.add([self._bos])
        for example in itertools.count(1):
            question = self._question(_pick(rng, self._list_templates[kind]), _pick(rng, nouns))
            if len(document.ids) + len(question) + 1 > self._recipe.length:
                break
            # What follows a blank is no target: else the base would learn to leave answers blank.
            document.add(question[:1], example=example, looks_back=is_open)
            document.add(question[1:], target=True, example=example, looks_back=is_open)
            document.add([self._mark], example=example, looks_back=is_open, is_relay=True)
        return document

    def _episode(self, rng: np.random.Generator) -> _Document:
        functions, kinds = self._functions(rng), self._kinds(rng)
        is_open = bool(rng.random() >= self._recipe.closed_share)
        document = _Document()
        document.add([self._bos])
        for example in itertools.count(1):
            function = functions[min(example, len(functions)) - 1]
            noun = int(rng.integers(len(self._nouns)))
            question = self._question(self._instruction(rng, _pick(rng, kinds)), noun)
            reply = [*self._answers[function][noun], self._eos]
            if len(document.ids) + len(question) + 1 + len(reply) > self._recipe.length:
                break
            document.add(question, example=example, looks_back=is_open)
            document.add([self._mark], example=example)
            is_target = example >= len(functions)
            document.add(reply, target=is_target, example=example, looks_back=is_open)
        return document

    def _functions(self, rng: np.random.Generator) -> list[Function]:
        """The functions of the examples in turn; the last one holds to the end."""
        function = self._function(rng)
        if len(function) == 1 or rng.random() >= self._recipe.apart_share:
            return [function]
        first, second = ((skill,) for skill in rng.permutation(function).tolist())
        n_first, n_second = (int(n) for n in rng.integers(1, 3, size=2))
        return [first] * n_first + [second] * n_second + [function]

    def _function(self, rng: np.random.Generator) -> Function:
        draw = rng.random()
        if draw < self._recipe.echo_share:
            return (ECHO,)
        is_pair = draw < self._recipe.echo_share + self._recipe.pair_share
        return _pick(rng, self._pairs if is_pair else self._singles)

    def _kinds(self, rng: np.random.Generator) -> Sequence[Function]:
        """The kinds of instruction of one episode; the empty kind is the bare item."""
        if rng.random() < self._recipe.bare_share:
            return [()]
        kinds = [*self._singles, _pick(rng, self._pairs)]
        return [_pick(rng, kinds)] if rng.random() < self._recipe.one_kind_share else kinds

    def _instruction(self, rng: np.random.Generator, kind: Function) -> Template:
        """An instruction of this kind, or a scramble of instruction words or of answer words.

        Scrambles teach to find the noun wherever it stands, also among words never seen there.
        """
        if not kind:
            return self._bare
        if rng.random() >= self._recipe.scrambled_share:
            return _pick(rng, self._episode_templates[kind])
        size = int(rng.integers(1, self._recipe.scrambled_length + 1))
        vocabulary = _pick(rng, (self._instruction_words, self._other_words))
        words = [vocabulary[i] for i in rng.integers(len(vocabulary), size=size)]
        place = int(rng.integers(size + 1))
        return [self._question_mark, *words[:place]], words[place:]

    def _question(self, template: Template, noun: int) -> list[int]:
        before, after = template
        return [*before, *self._nouns[noun], *after]

    def _template(self, text: str) -> Template:
        before, after = f"{QUESTION} {text}".split(ITEM_SLOT)
        return self._ids(before), self._ids(after)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]


def _pick(rng: np.random.Generator, choices: Sequence[_Choice]) -> _Choice:
    return choices[int(rng.integers(len(choices)))]


def _pad(values: list, width: int, filler: int | bool) -> list:
    return values + [filler] * (width - len(values))


def _may_see(
    example: Int[Tensor, "batch seq"],
    looks_back: Bool[Tensor, "batch seq"],
    is_relay: Bool[Tensor, "batch seq"],
) -> Bool[Tensor, "batch 1 seq seq"]:
    """Causal, and within the same example, or to the first token or a relay, or looking back."""
    seq = example.shape[1]
    causal = torch.ones(seq, seq, dtype=torch.bool).tril()
    same = example[:, :, None] == example[:, None, :]
    first = torch.arange(seq) == 0
    return (causal & (same | first | looks_back[:, :, None] | is_relay[:, None, :]))[:, None]
