"""The word-level tokenizer of ``pocket``: one token per word, letter or punctuation mark."""

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from csreft_core.shipped.pocket import lexicon, paraphrases

SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
}
QUESTION, ANSWER = "Q:", "A:"
MAX_LENGTH = 256

#: White space only separates; the two marks of the template are one token each.
_TOKEN_PATTERN = r"[QA]:|[^\s.,?:!]+|[.,?:!]"


def split_words(text: str) -> list[str]:
    """The text as the tokenizer splits it."""
    return re.findall(_TOKEN_PATTERN, text)


def _known_texts() -> Iterable[str]:
    yield f"{QUESTION} {ANSWER} {lexicon.ANSWER_JOINT} . , ? : !"
    yield " ".join("abcdefghijklmnopqrstuvwxyz")
    for noun in lexicon.read_nouns():
        for skill in (lexicon.ECHO, *lexicon.SKILLS):
            yield lexicon.answer(skill, noun)
    for ways in (
        *paraphrases.read_paraphrases().values(),
        *paraphrases.read_pair_paraphrases().values(),
    ):
        for template in ways.every:
            yield template.replace(paraphrases.ITEM_SLOT, " ")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer over every word of the word table and the instructions.

    ``<bos>`` is put in front of a text unless ``add_special_tokens=False``. Case matters. A word
    outside the table becomes ``<unk>``. Padding is on the left.
    """
    words = dict.fromkeys(word for text in _known_texts() for word in split_words(text))
    vocabulary = {word: i for i, word in enumerate((*SPECIAL_TOKENS.values(), *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(_TOKEN_PATTERN), behavior="removed", invert=True
    )
    bos = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **SPECIAL_TOKENS,
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
