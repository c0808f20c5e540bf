"""Answers to a file of instructions, in the form that the `alpaca_eval` tool reads.

Each object of the list has `instruction`, `output`, `generator`, and `dataset` and `datasplit`
where the instructions have them: https://github.com/tatsu-lab/alpaca_eval, `--model_outputs`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from csreft_core.attachment.passes import request
from csreft_core.base.memory.exhausted import memory_errors
from csreft_core.errors import ConfigError
from csreft_core.files import write_atomic
from csreft_core.inference.engine import Engine
from csreft_core.reft.adapter import CSReFT
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example, prompt_ids

REFT_DECODING = {"repetition_penalty": 1.1, "no_repeat_ngram_size": 5}
REFT_LONGEST = 2048
"""How ReFT decoded for AlpacaEval (its appendix D.1): greedy, at most 2048 tokens."""

_KEPT = ("dataset", "datasplit")


def read_instructions(path: Path) -> list[dict[str, Any]]:
    """The list of a JSON file: objects with `instruction`, and perhaps `input`.

    Raises:
        ConfigError: no such file, no JSON, or an entry without an instruction.
    """
    instructions = _read_list(path, "a list of objects with 'instruction'")
    if not instructions:
        raise ConfigError(f"{path}: the list is empty; give at least one instruction")
    for place, row in enumerate(instructions):
        for name in ("instruction", *(n for n in ("input",) if isinstance(row, dict) and n in row)):
            text = row.get(name) if isinstance(row, dict) else None
            if not isinstance(text, str) or (name == "instruction" and not text.strip()):
                raise ConfigError(
                    f"{path}: entry {place}: expected a text in {name!r}, got {str(text)[:40]!r}"
                )
    return instructions


def _read_list(path: Path, expected: str) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give {expected}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON ({str(error)[:80]}); give {expected}") from None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: expected {expected}, got a {type(entries).__name__}")
    return entries


def write_outputs(
    engine: Engine,
    adapter: CSReFT,
    instructions: Sequence[dict[str, Any]],
    out: Path,
    *,
    gates: str,
    template: str,
    generator: str,
    max_new_tokens: int = REFT_LONGEST,
) -> Iterator[int]:
    """Answer the instructions one by one; the file is whole after each, and is gone on with.

    Args:
        engine: The loaded base.
        adapter: The trained adapter.
        instructions: As `read_instructions` gives them.
        out: The file; answers of the same generator that it begins with are kept.
        gates: A gate setting.
        template: The run's resolved template.
        generator: Name of the model, for the leaderboard.
        max_new_tokens: Longest answer; capped by what the base can read.

    Yields:
        How many are answered.

    Raises:
        ConfigError: `out` holds something else, or a prompt is too long.
    """
    outputs = _earlier_answers(out, instructions, generator)
    yield len(outputs)
    for row in instructions[len(outputs) :]:
        prompt = "\n".join(filter(None, (row["instruction"], row.get("input", "").strip())))
        text = _answer(engine, adapter, prompt, gates, template, max_new_tokens)
        output = {"instruction": row["instruction"], "output": text, "generator": generator}
        outputs.append(output | {name: row[name] for name in _KEPT if name in row})
        write_atomic(out, json.dumps(outputs, ensure_ascii=False, indent=1) + "\n")
        yield len(outputs)


def _earlier_answers(
    out: Path, instructions: Sequence[dict[str, Any]], generator: str
) -> list[Any]:
    """The answers that are there from before."""
    if not out.exists():
        return []
    outputs = _read_list(out, "a new file, or one that this command began")
    questions = [row["instruction"] for row in instructions[: len(outputs)]]
    same = [
        row.get("instruction") if isinstance(row, dict) else None for row in outputs
    ] == questions
    if not same or any(row.get("generator") != generator for row in outputs):
        raise ConfigError(
            f"{out}: holds other answers (other instructions, or another generator than "
            f"{generator!r}); choose a new file"
        )
    return outputs


@torch.no_grad()
def _answer(
    engine: Engine,
    adapter: CSReFT,
    prompt: str,
    gate_setting: str,
    template: str,
    max_new_tokens: int,
) -> str:
    base = engine.base
    ids = tuple(prompt_ids(prompt, base.tokenizer, template, base.vocabulary))
    limit = max_new_tokens if base.context is None else min(max_new_tokens, base.context - len(ids))
    if limit < 1:
        raise ConfigError(
            f"the instruction {prompt[:40]!r} has {len(ids)} tokens, the base reads at most "
            f"{base.context}; take it out"
        )
    batch = collate([Example(ids, ())], base.pad_id).to(base.device)
    advice = "take the instruction out, or lower --max-new-tokens"
    with memory_errors("the answer", base.device, lambda: advice):
        tokens, _ = engine.attachment.generate(
            request(adapter, gate_setting, None),
            **batch.inputs,
            generation_config=base.greedy(limit, **REFT_DECODING),
        )
    new = tokens[0, batch.input_ids.shape[1] :]
    return base.tokenizer.batch_decode(new[None], skip_special_tokens=True)[0].strip()
