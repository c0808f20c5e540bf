"""`memory`: what a base and a training with it need, beside what is free."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from csreft_core.base.devices import free_bytes, resolve_device
from csreft_core.base.memory.need import (
    Need,
    in_gb,
    need,
    row_length,
    rows_at_a_time,
    smaller_setting,
    training_need,
)
from csreft_core.base.shapes import Shape, shape_of
from csreft_core.cli.output import quiet_libraries, rows_text
from csreft_core.config import Config, assignments


def memory_command(args: argparse.Namespace) -> int:
    """Print the need in parts, for training and for answering, and what is free."""
    quiet_libraries()
    config = args.asked
    record = memory_record(config, shape_of(config.base), free_bytes(config.base.device))
    print(json.dumps(record, indent=2) if args.json else memory_text(record))
    return 0


def memory_record(config: Config, shape: Shape, free: int) -> dict[str, Any]:
    """Everything that the command prints; sizes in bytes."""
    batch, length = rows_at_a_time(config), row_length(shape, config)
    answer = length // 4
    training = training_need(shape, config)
    answering = need(shape, config, batch=1, length=length, answer=answer, training=False)
    smaller = smaller_setting(shape, config, free)
    return {
        "base": config.base.path,
        "precision": config.base.precision,
        "device": str(resolve_device(config.base.device)),
        "parameters": shape.n_parameters,
        "rows": batch,
        "length": length,
        "answer": answer,
        "training": _parts(training),
        "answering": _parts(answering),
        "free": free,
        "fits": training.total <= free,
        "smaller": None if smaller is None else assignments(config, smaller),
    }


def _parts(parts: Need) -> dict[str, int]:
    return {**asdict(parts), "total": parts.total}


def memory_text(record: dict[str, Any]) -> str:
    """The record as a reader wants it."""
    rows = [
        {"part": part, "training": in_gb(size), "answering": in_gb(record["answering"][part])}
        for part, size in record["training"].items()
    ]
    if record["fits"]:
        verdict = "It fits."
    elif record["smaller"] is None:
        verdict = "It does not fit, and no smaller setting does; choose a smaller base."
    else:
        verdict = f"It does not fit. This does: --set {' --set '.join(record['smaller'])}"
    return (
        f"{record['base']} in {record['precision']} on {record['device']}: "
        f"{record['parameters']:,} weights\n"
        f"{record['rows']} rows at a time, up to {record['length']} tokens each, "
        f"{record['answer']} of them answer\n\n{rows_text(rows)}\n\n"
        f"free: {in_gb(record['free'])}. {verdict}"
    )
