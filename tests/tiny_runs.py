"""A base, skill sets and runs on disk that train in a second, for the tests of whole commands."""

import hashlib
import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import N_TOKENS, tiny_tokenizer

SKILLS = ("red", "blue")


def save_base(folder: Path, seed: int = 0, vocab_size: int = N_TOKENS) -> Path:
    """A random Llama with its tokeniser: d_model 32, 3 blocks, at most 64 tokens."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    # Logits of a fresh model are nearly flat; larger embeddings give an edit something to steer.
    model.get_input_embeddings().weight.data *= 20
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def rows(n_train: int = 24, skills: tuple[str, ...] = SKILLS) -> list[dict]:
    """Skill i asks with the word w(3+i) and is answered by w(40+i) w(50+i), whatever the item."""
    splits = ["train"] * n_train + ["validation"] * 6 + ["test_items"] * 6
    made = [
        {
            "skill": skill,
            "prompt": f"w{3 + i} w{10 + j % 29} w{10 + j // 2}",
            "response": f"w{40 + i} w{50 + i}",
            "split": split,
        }
        for j, split in enumerate(splits)
        for i, skill in enumerate(skills)
    ]
    pair = {"skill": list(skills[:2]), "prompt": "w3 w4 w60", "response": "w41 w51"}
    return [*made, {**pair, "split": "test_two_skills"}]


def write_rows(path: Path, lines: list[dict]) -> Path:
    """A JSONL file of rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return path


def settings(base: Path, skills: Path, **changes: object) -> list[str]:
    """`--set` arguments of a quick run; names of changes have `__` for the dot."""
    chosen = {
        "base.path": str(base),
        "data.path": str(skills),
        "adapter.layers": [1],
        "train.steps": 12,
        "train.batch_size": 8,
        "train.threads": 1,
        "train.eval_every": 6,
        "train.checkpoint_every": 4,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return [
        argument
        for name, value in chosen.items()
        for argument in (
            "--set",
            f"{name}={value if isinstance(value, str) else json.dumps(value)}",
        )
    ]


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, to see that nothing was touched."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
