"""The documents: they teach functions by example and never by instruction."""

import re

import numpy as np
import pytest
import torch

from csreft_core.shipped.pocket import lexicon, paraphrases
from csreft_core.shipped.pocket.episodes import EpisodeWriter, Recipe, _may_see
from csreft_core.shipped.pocket.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def documents(tokenizer, n=600, seed=5, recipe=None):
    """Decoded documents, one string each."""
    batch = EpisodeWriter(tokenizer, recipe or Recipe()).batch(np.random.default_rng(seed), n)
    return [text.split("<bos> ")[1] for text in tokenizer.batch_decode(batch.input_ids)]


@pytest.fixture(scope="module")
def many(tokenizer):
    """Documents to count words in."""
    return documents(tokenizer)


def test_same_generator_same_documents(tokenizer):
    assert documents(tokenizer, 20) == documents(tokenizer, 20)
    assert documents(tokenizer, 20) != documents(tokenizer, 20, seed=6)


def has_answers(text):
    """Whether a document is an episode: worksheets have blanks, word lists have no mark."""
    return "A:" in text and "A: Q:" not in text


def test_held_out_words_never_stand_in_an_episode(many):
    words = {
        word
        for ways in paraphrases.read_paraphrases().values()
        for text in (*ways.test, *ways.validation)
        for word in paraphrases.content_words(text)
    }
    asked = {
        word
        for ways in (
            *paraphrases.read_paraphrases().values(),
            *paraphrases.read_pair_paraphrases().values(),
        )
        for text in ways.train
        for word in paraphrases.content_words(text)
    }
    only_held_out = words - asked
    seen = {True: set(), False: set()}
    for text in many:
        seen[has_answers(text)] |= set(re.findall(r"\w+", text.lower()))
    assert len(only_held_out) > 30
    assert seen[True] & only_held_out == set()
    assert len(seen[False] & only_held_out) > 0.9 * len(only_held_out)


def test_lists_have_no_answer_and_episodes_have_one_each(many):
    lists = [text for text in many if not has_answers(text)]
    assert 0.2 < len(lists) / len(many) < 0.4
    assert all("mice" not in text.split() and "<eos> Q:" not in text for text in lists)
    for text in set(many) - set(lists):
        assert text.count("Q:") == text.count("A:")


def test_nothing_is_learned_from_a_blank(tokenizer):
    """What follows the mark of a blank is no target: the base must not learn to answer nothing."""
    batch = EpisodeWriter(tokenizer, Recipe()).batch(np.random.default_rng(1), 200)
    mark, question = tokenizer.convert_tokens_to_ids(["A:", "Q:"])
    is_mark = batch.input_ids[:, :-1] == mark
    after_blank = is_mark & (batch.input_ids[:, 1:] == question)
    assert after_blank.sum() > 100
    assert not batch.is_target[:, 1:][after_blank].any()
    assert batch.is_target[:, 1:][is_mark & ~after_blank].float().mean() > 0.8


def first_answer(text):
    return text.split("A: ")[1].split(" <eos>")[0]


def test_instruction_does_not_predict_the_function(tokenizer):
    """An episode that asks for the plural gives it as often as one that asks for the category."""
    nouns = {noun.noun: noun for noun in lexicon.read_nouns()}
    gives_plural = {"plural": [], "category": []}
    only_instructions = Recipe(list_share=0.0, bare_share=0.0, scrambled_share=0.0)
    for text in documents(tokenizer, n=2000, recipe=only_instructions):
        words = re.findall(r"\w+", text.split("A:")[0])
        (item,) = [word for word in words if word in nouns]
        for kind, seen in gives_plural.items():
            if kind in words:
                seen.append(first_answer(text) == nouns[item].plural)
    shares = {kind: np.mean(seen) for kind, seen in gives_plural.items()}
    assert min(len(seen) for seen in gives_plural.values()) > 100
    # 45 % of the episodes give one skill, a sixth of them the plural, and some of those on two
    # skills start with it: about 9 %. Three standard errors of that on 100 documents are 0.09.
    assert shares["plural"] == pytest.approx(shares["category"], abs=0.09), shares
    assert shares["plural"] < 0.2


def test_may_see_by_hand():
    """bos; a token and the mark of example 1; a token, the mark and a token of example 2.

    The first mark is a relay: later tokens see it. The second mark looks back: it sees everything.
    """
    example = torch.tensor([[0, 1, 1, 2, 2, 2]])
    looks_back = torch.tensor([[True, False, False, False, True, False]])
    is_relay = torch.tensor([[False, False, True, False, False, False]])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 0, 1, 1, 1, 1],
    ]
    assert _may_see(example, looks_back, is_relay)[0, 0].int().tolist() == expected


def test_padding_may_see_something(tokenizer):
    """A row of the mask without a single True would give nan."""
    batch = EpisodeWriter(tokenizer, Recipe()).batch(np.random.default_rng(0), 32)
    assert batch.may_see.any(-1).all()
    assert not batch.is_target[batch.input_ids == tokenizer.bos_token_id].any()
