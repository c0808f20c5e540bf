"""Small tokenisers of the kinds that bases come with, and chat templates in their usual forms."""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers import normalizers as norms
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def _joined(vocabulary: dict[str, int], words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges that make each word one token, letter by letter."""
    merges = []
    for word in words:
        for i in range(1, len(word)):
            if word[: i + 1] not in vocabulary:
                vocabulary[word[: i + 1]] = len(vocabulary)
                merges.append((word[:i], word[i]))
    return merges


def sentencepiece(kind: str = "always") -> PreTrainedTokenizerFast:
    """Spaces are `▁`, unknown letters bytes, `<s>` in front, as Llama-2 has it.

    Args:
        kind: `always` or `first` (Metaspace's `prepend_scheme`), or `prepend` (a normaliser).
    """
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{i:02X}>": 3 + i for i in range(256)}
    for letter in "abcdefghijklmnopqrstuvwxyzQA:?.[]/▁":
        words[letter] = len(words)
    merges = _joined(words, ("▁dogs", "dogs", "▁Q:", "A:", "▁return", "▁▁▁"))
    made = Tokenizer(
        models.BPE(vocab=words, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    if kind == "prepend":
        made.normalizer = norms.Sequence([norms.Prepend("▁"), norms.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ("<unk>", "<s>", "</s>")
    made.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_level(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """GPT-2's kind: bytes, and one special token that is all of bos, eos and unk."""
    words = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = _joined(words, ("Ġdogs", "dogs", "ĊĊ", "Ġreturn", "ĠĠĠ"))
    made = Tokenizer(models.BPE(vocab=words, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=end,
        eos_token=end,
        unk_token=end,
        chat_template=chat_template,
    )


def lower_casing() -> PreTrainedTokenizerFast:
    """Words without capitals and accents, an end behind every text, clean-up of what it says."""
    names = ("[UNK]", "[CLS]", "[SEP]", "q", ":", "a", "the", "capital", "berlin", "it", "'", "s")
    words = {word: i for i, word in enumerate(names)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.normalizer = norms.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="[CLS]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        clean_up_tokenization_spaces=True,
    )


def description(**changes: object) -> str:
    """A `tokenizer.json` of one word, with some of its parts replaced."""
    tree = json.loads(Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).to_str())
    return json.dumps(tree | changes)
