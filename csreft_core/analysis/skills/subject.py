"""What the tables about a skill set are made from: its rows, and the settings of the next run.

The base's tokeniser is loaded when a table needs it, without the base's weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from csreft_core.base.files import base_folder, read_description
from csreft_core.base.text.chat_templates import resolve_template
from csreft_core.base.text.tokenisers import load_tokenizer, pad_token
from csreft_core.config import BaseConfig, Config, configured
from csreft_core.skills.encoding import Example, encode
from csreft_core.skills.skill_set import Row, SkillSet, read_skills


@dataclass(frozen=True)
class Reader:
    """How a base reads texts.

    Attributes:
        tokenizer: A Hugging Face tokeniser.
        context: Most tokens that the base can read; None where its description names no limit.
        vocabulary: Rows of its embedding; None where its description does not say.
    """

    tokenizer: Any
    context: int | None
    vocabulary: int | None

    @property
    def pad_id(self) -> int:
        """Token to pad with, as `base.load.Base.pad_id`."""
        return pad_token(self.tokenizer, self.vocabulary)


def load_reader(config: BaseConfig) -> Reader:
    """Load the tokeniser of a base, but not its weights.

    Raises:
        UnsupportedModelError: no such base, one that cannot be edited, or one without a tokeniser.
    """
    folder = base_folder(config, weights=False)
    about = read_description(config, folder)
    has_tokenizer = any(folder.glob("tokenizer*")) or any(folder.glob("vocab*"))
    source, revision = (folder, None) if has_tokenizer else (config.path, config.revision)
    tokenizer = load_tokenizer(source, f"base.path {config.path!r}", revision)
    text = about.get_text_config()
    names = ("max_position_embeddings", "vocab_size")
    return Reader(tokenizer, *(getattr(text, name, None) for name in names))


@dataclass(frozen=True)
class SkillSubject:
    """A skill set and the settings under which it would be trained on.

    Attributes:
        skill_set: The rows.
        config: The settings of the next run.
    """

    skill_set: SkillSet
    config: Config

    @cached_property
    def reader(self) -> Reader:
        """The base's tokeniser; raises `UnsupportedModelError`."""
        return load_reader(self.config.base)

    @property
    def template(self) -> str:
        """The resolved template of the prompts."""
        return resolve_template(self.config.data.template, self.reader.tokenizer)

    @property
    def max_length(self) -> int:
        """Most tokens of a row, as training cuts it: the setting, or what the base can read."""
        longest = self.config.train.max_length
        return min(longest, self.reader.context or longest)

    def encoded(self, rows: Sequence[Row], max_length: int | None = None) -> list[Example]:
        """Rows as tokens, cut as in training or to another length."""
        length = self.max_length if max_length is None else max_length
        reader = self.reader
        return encode(rows, reader.tokenizer, self.template, length, reader.vocabulary)[0]


def open_skills(path: str, settings: Sequence[str] = ()) -> SkillSubject:
    """Read a skill set for the tables about it.

    Args:
        path: As `data.path`: a shipped name, a file or a folder.
        settings: What differs from the preset `recommended`, such as `train.max_length=64`.

    Raises:
        ConfigError: a setting that does not exist or does not fit.
        SkillSetError: what is wrong with the skill set.
    """
    config = configured("recommended", settings)
    skill_set = read_skills(path, config.data.skill_column)
    return SkillSubject(skill_set, config)
