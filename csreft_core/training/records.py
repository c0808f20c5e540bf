"""The records of `metrics.jsonl`: what a training writes down, as plain JSON values."""

import time
from typing import Any

import torch
from torch import Tensor

from csreft_core.reft.router import binary_entropy
from csreft_core.skills.skill_set import Row, skill_name
from csreft_core.training.loss import Window
from csreft_core.training.state import TrainingState


def start_record(training: TrainingState) -> dict[str, Any]:
    """What is trained, in numbers, and which settings are not in use."""
    return {
        "kind": "start",
        "step": training.step,
        "parameters": training.adapter.counts(),
        "base_parameters": training.attachment.base.n_parameters,
        "n_processes": training.accelerator.num_processes,
        "n_rows": len(training.train_rows.rows),
        "n_cut": training.train_rows.n_cut,
        "notes": list(training.notes),
    }


def step_record(training: TrainingState, window: Window) -> dict[str, Any]:
    """The steps since the last record.

    Args:
        window: Of all processes. Losses are means over its answer tokens, in nats.

    A method without gates or subspaces has no record of them.
    """
    config, adapter = training.config, training.adapter
    scores = [score for rows in window.scores.values() for score in rows]
    elapsed_s = training.spent_s()
    seconds = max(time.perf_counter() - window.since, 1e-9)
    rates = training.scheduler.get_last_lr()
    alphas = [alpha for rows in window.gates.values() for alpha in rows]
    return {
        "kind": "step",
        "step": training.step,
        "loss": sum(s[0] for s in scores) / sum(s[1] for s in scores),
        "loss_by_skill": {
            name: sum(s[0] for s in rows) / sum(s[1] for s in rows)
            for name, rows in sorted(window.scores.items())
        },
        "gates_by_skill": _gate_means(adapter.names, dict(sorted(window.gates.items()))),
        **({"gate_entropy": binary_entropy(torch.stack(alphas)).item()} if alphas else {}),
        **adapter.figures(),
        "grad_norm": training.grad_norm,
        "lr": rates[0],
        "router_lr": rates[2],
        "tokens_per_second": window.tokens / seconds,
        "time_left_s": elapsed_s / training.step * (config.train.steps - training.step),
        "elapsed_s": elapsed_s,
    }


def eval_record(
    training: TrainingState, scores: dict[str, Any], row_gates: list[tuple[Row, Tensor]]
) -> dict[str, Any]:
    """An evaluation on the validation rows.

    Args:
        scores: What `evaluate` gives.
        row_gates: Rows with their gates, from the snapshot.
    """
    by_skill: dict[str, list[Tensor]] = {}
    for row, alpha in row_gates:
        by_skill.setdefault(skill_name(row), []).append(alpha)
    return {
        "kind": "eval",
        "step": training.step,
        "split": "validation",
        **scores,
        "gates_by_skill": _gate_means(training.adapter.names, by_skill),
    }


def _gate_means(
    names: tuple[str, ...], gates: dict[str, list[Tensor]]
) -> dict[str, dict[str, float]]:
    """Mean gate of each subspace over the prompts of each skill: skill -> subspace -> mean."""
    means = {skill: torch.stack(rows).mean(0).tolist() for skill, rows in gates.items()}
    return {skill: dict(zip(names, mean, strict=True)) for skill, mean in means.items()}
