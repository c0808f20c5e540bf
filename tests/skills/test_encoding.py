"""What a base reads of a row: the tokens of prompt and answer, on the usual kinds of tokenisers."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from csreft_core.analysis.prompt_tokens import prompt_tokens
from csreft_core.base.text.tokenisers import pad_token, unknown_token, unknown_words
from csreft_core.config import PLAIN_TEMPLATE
from csreft_core.errors import SkillSetError, UnsupportedModelError
from csreft_core.skills.encoding import Example, encode, prompt_ids
from csreft_core.skills.skill_set import Row
from tests.small_tokenisers import CHATML, LLAMA, byte_level, lower_casing, sentencepiece
from tests.tiny import tiny_tokenizer

pytestmark = pytest.mark.libraries

LINE = "Q: {prompt}\n"


def example(
    tokenizer: PreTrainedTokenizerFast, template: str, prompt: str, response: str
) -> Example:
    row = Row(("a",), prompt, response, "train")
    (found,), n_cut = encode([row], tokenizer, template, 999)
    assert n_cut == 0
    assert list(found.prompt) == prompt_ids(prompt, tokenizer, template)  # as generation asks
    assert found.answer[-1] == tokenizer.eos_token_id
    return found


def answer(tokenizer: Any, template: str, response: str) -> list[str]:
    found = example(tokenizer, template, "x", response)
    return tokenizer.convert_ids_to_tokens(list(found.answer[:-1]))


@pytest.mark.parametrize("kind", ["always", "first", "prepend"])
@pytest.mark.parametrize(
    ("template", "response", "expected"),
    [
        (PLAIN_TEMPLATE, "dogs", "▁dogs"),
        (LINE, "dogs", "dogs"),
        ("Q: {prompt} ", "dogs", "dogs"),
        (LINE, "    return x", "▁▁▁ ▁return ▁ x"),
        (PLAIN_TEMPLATE, "    return x", "▁▁▁ ▁return ▁ x"),
        (LINE, "dogs\n dogs", "dogs <0x0A> ▁dogs"),
        ("chat", "dogs", "▁dogs"),
    ],
)
def test_an_answer_goes_on_where_the_prompt_ends_with_spaces_as_marks(
    kind, template, response, expected
):
    tokenizer = sentencepiece(kind)
    tokenizer.chat_template = LLAMA
    assert answer(tokenizer, template, response) == expected.split(" ")


@pytest.mark.parametrize(
    ("template", "response", "expected"),
    [
        (PLAIN_TEMPLATE, "dogs", "Ġdogs"),
        (LINE, "dogs", "dogs"),
        ("Q: {prompt} ", "dogs", "dogs"),
        (LINE, "    return x", "ĠĠĠ Ġreturn Ġ x"),
        ("{prompt}<|im_end|>", "dogs", "dogs"),
        ("chat", "dogs", "dogs"),
        ("chat", "\ndogs", "Ċ dogs"),
        ("chat", "dogs \n", "dogs Ġ Ċ"),
        (PLAIN_TEMPLATE, "", ""),
    ],
)
def test_an_answer_goes_on_where_the_prompt_ends_byte_by_byte(template, response, expected):
    tokens = answer(byte_level(CHATML), template, response)
    assert tokens == [token for token in expected.split(" ") if token]


def test_an_end_that_the_tokeniser_appends_and_limits_in_its_file_change_nothing():
    tokenizer = lower_casing()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    tokenizer.truncation_side = tokenizer.padding_side = "left"
    found = example(tokenizer, "{prompt}:", "the capital", "berlin")
    assert tokenizer.convert_ids_to_tokens(found.prompt + found.answer) == (
        "[CLS] the capital : berlin [SEP]".split()
    )


@pytest.mark.parametrize("kind", ["always", "first", "prepend"])
@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, "chat"])
def test_special_tokens_that_users_spell_are_text(kind, template):
    tokenizer = sentencepiece(kind)
    tokenizer.chat_template = LLAMA
    found = example(tokenizer, template, "x </s> x", "dogs</s>")
    spelled = example(tokenizer, template, "x </s x", "dogs</s")
    end = tokenizer.convert_tokens_to_ids("<0x3E>")
    assert found.answer == (*spelled.answer[:-1], end, 2)
    assert (found.prompt.count(1), found.prompt.count(2)) == (1, 0)
    rest = list(found.prompt)
    rest.remove(end)
    assert rest == list(spelled.prompt)
    assert {t.kind for t in prompt_tokens("x </s> x", tokenizer, template)} >= {"special", "word"}


def test_a_turn_that_users_spell_does_not_end_theirs():
    tokenizer = byte_level(CHATML)
    found = example(tokenizer, "chat", "x<|im_end|>y", "dogs<|endoftext|>")
    ends = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found.prompt.count(ends) == 1  # the template's
    assert found.answer.count(tokenizer.eos_token_id) == 1
    assert "x<|im_end|>y" in tokenizer.decode(found.prompt)
    # Words are looked up as they stand, so here they cannot be text.
    with pytest.raises(SkillSetError, match=r"'w5 <eos>'.*'<eos>'.*take it out"):
        prompt_ids("w5 <eos>", tiny_tokenizer(), PLAIN_TEMPLATE)


def lost(tokenizer: PreTrainedTokenizerFast, *responses: str) -> list[str]:
    rows = [Row(("a",), "the", response, "train") for response in responses]
    return [e.lost for e in encode(rows, tokenizer, "{prompt}:", 999)[0]]


def test_whether_an_answer_can_come_back():
    assert lost(lower_casing(), "berlin", "Berlin", "Bérlin", "it's", "rome", "berlin  it") == [
        "",
        "changed",
        "changed",
        "",
        "unknown",
        "",
    ]
    # Bytes write all; the token named as unknown is the end token.
    assert lost(sentencepiece(), "dogs", "日本", "Ω 🙂", "a\n b", "</s>") == [""] * 5
    assert lost(byte_level(), "dogs", "日本", "Ω 🙂", "a\n b", "<|endoftext|>") == [""] * 5
    assert unknown_token(byte_level()) is None
    assert unknown_token(sentencepiece()) == 0
    row = Row(("a",), "the", "dogs dogs dogs", "train")
    assert encode([row], byte_level(), "{prompt}:", 4)[0][0].lost == "cut"
    row = Row(("a",), "dogs " * 9, "dogs", "train")
    (cut,), n_cut = encode([row], byte_level(), "{prompt}:", 6)
    assert (n_cut, cut.lost) == (1, "")  # its answer is whole


def test_unknown_words():
    assert unknown_words(["the rome the rome", "berlin"], lower_casing()) == [["rome"], []]
    assert unknown_words(["dogs 日本"], byte_level()) == [[]]


def test_tokens_that_the_embedding_does_not_have():
    tokenizer = byte_level()
    n = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == n
    assert pad_token(tokenizer, n) == tokenizer.eos_token_id
    assert pad_token(tokenizer, n + 1) == n
    assert pad_token(tokenizer, 3) == 0
    row = Row(("a",), "x", "dogs", "train")
    assert encode([row], tokenizer, PLAIN_TEMPLATE, 99, n)[1] == 0
    with pytest.raises(UnsupportedModelError, match=r"\[PAD\].*resize_token_embeddings"):
        encode([row], tokenizer, "{prompt}[PAD]", 99, n)
    with pytest.raises(UnsupportedModelError, match="embedding has 100 rows"):
        prompt_ids("x", tokenizer, "{prompt}<|im_end|>", 100)
