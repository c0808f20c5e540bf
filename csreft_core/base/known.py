"""The architectures of known bases, whose published shapes are facts that need no network."""

from transformers import AutoConfig, PreTrainedConfig

from csreft_core.config import KnownBase


def architecture(known: KnownBase) -> PreTrainedConfig:
    """The configuration that transformers would read from the base's `config.json`."""
    if known.config:
        return AutoConfig.for_model(**known.config)
    assert known.shipped_folder is not None, known.path
    return AutoConfig.from_pretrained(known.shipped_folder, trust_remote_code=False)
