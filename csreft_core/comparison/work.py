"""Work on a comparison: train and measure its cells, one after another.

Any number of processes can work on one folder; each cell is locked by the one that works on it.
What is finished is not done again, and a cell that was killed goes on: its trainings are runs. A
cell of an older version, which lacks a measurement, gets that one and keeps the others.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from csreft_core.attachment.attach import attach
from csreft_core.base.load import Base
from csreft_core.base.text.chat_templates import resolve_template
from csreft_core.comparison.folder import (
    JOINT,
    STARTS,
    UNTRAINED,
    Comparison,
    Variant,
    missing_starts,
    start_of,
)
from csreft_core.comparison.measures import gradient_conflict, step_bytes, tokens_per_second
from csreft_core.config import Config
from csreft_core.errors import CsreftError, RunError
from csreft_core.files import storage_errors, write_atomic
from csreft_core.inference.scoring import Encoded, encode_rows, evaluate
from csreft_core.methods.build import build_method, load_method
from csreft_core.reft.base_record import differences
from csreft_core.runs.all_runs import Run, create_run, open_run
from csreft_core.runs.single_skill import first_and_last, only_rows
from csreft_core.skills.skill_set import SkillSet, evenly, read_skills
from csreft_core.training.loop import train

SCORED_SPLITS = ("test_items", "test_paraphrases", "test_both", "test_two_skills")
SAME_LOSS = 0.01
"""A training that is done again counts as the same if each loss is within this share of the known
one, or of 0.01 nats where that is smaller. Other versions and processors round otherwise."""
_FOLDERS = {UNTRAINED: "single", JOINT: "joint"}
_CONFLICT_ROWS = 64

Tell = Callable[[str, int, str], None]


def work(comparison: Comparison, base: Base, tell: Tell) -> None:
    """Do the cells that are not finished and that nobody else works on.

    A cell that fails is marked with its message; it is tried again the next time.

    Args:
        comparison: The folder.
        base: The frozen base of its plan.
        tell: Is told method, seed and how it goes: `running`, then the state at its end.

    Raises:
        RunError: the comparison was begun on another base.
    """
    plan = comparison.plan()
    other = differences(plan.base_fingerprint, base.fingerprint)
    if other:
        raise RunError(
            f"comparison {comparison.name!r} was begun on a base with other {' and '.join(other)} "
            f"than {base.id!r} has; restore that base, or begin a new comparison"
        )
    for method, seed in comparison.cells():
        try:
            lock = comparison.lock(method, seed)
            with storage_errors(comparison.path), lock.acquire(blocking=False):
                before = comparison.result(method, seed)
                earlier = before if before and before["state"] == "finished" else None
                if earlier and not missing_starts(earlier):
                    continue
                tell(method, seed, "running")
                result = _cell_result(comparison, method, seed, base, earlier)
                comparison.write_result(method, seed, result)
                tell(method, seed, (result["message"] if earlier else "") or result["state"])
        except Timeout:
            continue


def _cell_result(
    comparison: Comparison, method: str, seed: int, base: Base, earlier: dict[str, Any] | None
) -> dict[str, Any]:
    """The result of a cell; what is known stays, also where the rest fails."""
    try:
        cell = _Cell(comparison, method, seed, base)
        result = cell.measure() if earlier is None else earlier | cell.missing(earlier)
    except Exception as error:  # noqa: BLE001 - one cell that fails must not end the others
        message = str(error) if isinstance(error, CsreftError) else repr(error)
        failure = {"method": method, "seed": seed, "state": "failed", "message": message}
        return failure if earlier is None else earlier | {"message": message}
    return {"method": method, "seed": seed, **result, "state": "finished", "message": ""}


class _Cell:
    """One method from one seed, with its folder, data and settings."""

    def __init__(self, comparison: Comparison, method: str, seed: int, base: Base) -> None:
        plan = comparison.plan()
        variant = plan.variants[method]
        config = variant.config
        self.plan, self.base = plan, base
        self.path = comparison.cell_path(method, seed)
        self.config = replace(config, train=replace(config.train, seed=seed))
        self.skill_set = chosen_skills(variant)
        self.template = resolve_template(config.data.template, base.tokenizer)

    def measure(self) -> dict[str, Any]:
        """Train and measure everything.

        Raises:
            CsreftError: the method does not fit, or a training fails.
        """
        # Before any folder is made: a method that does not fit leaves nothing behind.
        counts = build_method(self.config, self.base, self.skill_set.names).counts()
        run = self.main_run()
        steps = run.metrics("step")
        return {
            "parameters": counts,
            "base_parameters": self.base.n_parameters,
            "steps": self.config.train.steps,
            "train_s": steps[-1]["elapsed_s"],
            "peak_bytes": self.peak_bytes(),
            "tokens_per_s": self.speed(run),
            "scores": list(self.scores(run)),
            "conflict": json.loads((self.path / "conflict.json").read_text(encoding="utf-8")),
            "interference": [row for start in STARTS for row in self.single_skills(start, run)],
            "sequential": list(self.one_after_another()),
        }

    def missing(self, earlier: dict[str, Any]) -> dict[str, Any]:
        """What a result of an older version lacks, measured now.

        Where the trainings are not there any more, they are done again.

        Raises:
            RunError: the training that was done again gives other scores than the known ones.
        """
        run, starts = None, missing_starts(earlier)
        if JOINT in starts:
            run = self.same_run(earlier["scores"])
        known_rows = [row for row in earlier["interference"] if start_of(row) not in starts]
        new_rows = [row for start in starts for row in self.single_skills(start, run)]
        return {"interference": [*known_rows, *new_rows]}

    def same_run(self, scores: list[dict[str, Any]]) -> Run:
        """The run of the cell, trained again if it is gone, with the scores that are known."""
        if (self.path / "config.json").is_file():
            return self.finish(open_run(self.path))
        # In a folder of its own: the result must stay where it is until there is a new one.
        run = self.finish(self.run(self.path / "again", self.config, self.skill_set))
        scores_now = {(row["split"], row["skill"]): row for row in self.scores(run, decode=False)}
        for row in scores:
            again = scores_now[row["split"], row["skill"]]
            off = abs(again["loss"] - row["loss"])
            if off > SAME_LOSS * max(row["loss"], SAME_LOSS):
                raise RunError(
                    f"trained again, the loss on {row['split']} ({row['skill']}) is "
                    f"{again['loss']:.4f} and was {row['loss']:.4f}; delete {self.path}, and all "
                    "of the cell is measured again"
                )
        return run

    def encode_split(self, split: str, per_skill: int | None = None) -> Encoded:
        """Rows of a split as tokens."""
        rows = self.skill_set.split(split)
        rows = rows if per_skill is None else evenly(rows, per_skill)
        return encode_rows(rows, self.base, self.template, self.config.train.max_length)

    def main_run(self) -> Run:
        """The run of the cell; half-way it is stopped, for the conflict of the gradients."""
        run, conflict_path = (
            self.run(self.path, self.config, self.skill_set),
            self.path / "conflict.json",
        )
        if not conflict_path.exists():
            half = self.config.train.steps // 2
            if run.status().step < half or not run.adapter_path.exists():
                for record in train(run, self.base, resume=True):
                    if record["kind"] == "step" and record["step"] >= half:
                        run.request_stop()
            conflict = self.conflict(run)
            write_atomic(conflict_path, json.dumps(conflict))
        return self.finish(run)

    def run(self, path: Path, config: Config, skill_set: SkillSet) -> Run:
        """The run in a folder, made if it is not there."""
        if (path / "config.json").is_file():
            return open_run(path)
        (path / "result.json").unlink(missing_ok=True)  # of a cell that failed before
        return create_run(path, config, skill_set)

    def finish(self, run: Run, start: Path | None = None) -> Run:
        """The run, trained to its end."""
        if run.status().state != "finished":
            for _ in train(run, self.base, resume=True, start=start):
                pass
        return run

    def conflict(self, run: Run) -> list[dict[str, Any]]:
        """Cosines of the gradients at the parameters that the run has saved."""
        method = load_method(run.adapter_path, self.base)
        rows = self.encode_split("train", _CONFLICT_ROWS)
        with attach(self.base) as attachment, method.applied(attachment.current_pass):
            return gradient_conflict(attachment, method, self.config, rows)

    def peak_bytes(self) -> int:
        """Of a training step of the main run."""
        method = build_method(self.config, self.base, self.skill_set.names).train()
        with attach(self.base) as attachment, method.applied(attachment.current_pass):
            return step_bytes(attachment, method, self.config, self.encode_split("train"))

    def speed(self, run: Run) -> float:
        """Of the trained method, in tokens a second."""
        method, rows = load_method(run.adapter_path, self.base), self.encode_split("train")
        with attach(self.base) as attachment, method.applied(attachment.current_pass):
            return tokens_per_second(attachment, method, rows, self.config.router.gates)

    def scores(self, run: Run, *, decode: bool = True) -> Iterator[dict[str, Any]]:
        """On each test split that the data has, by greedy decoding or teacher-forced."""
        method = load_method(run.adapter_path, self.base)
        gate_setting = self.config.router.gates
        with attach(self.base) as attachment, method.applied(attachment.current_pass):
            for split in SCORED_SPLITS:
                if split not in self.skill_set.splits:
                    continue
                rows = self.encode_split(split, self.plan.per_skill)
                result = evaluate(attachment, method, rows, gates=gate_setting, decode=decode)
                for skill, score in result["skills"].items():
                    yield {"split": split, "skill": skill, **score}

    def short(self, steps: int) -> Config:
        """The settings of the cell for fewer steps, evaluated at the start and at the end."""
        few = {"steps": steps, "eval_every": steps, "checkpoint_every": steps}
        return replace(self.config, train=replace(self.config.train, **few))

    def single_skills(self, start: str, joint: Run | None) -> Iterator[dict[str, Any]]:
        """`I_train`: short runs on one skill alone, all from the same start.

        Each has a fresh optimiser, and a rate that rises and falls as in every short run; so two
        starts differ in nothing but the parameters that they begin with.

        Args:
            start: `untrained`, or `joint`: the end of the training on all skills.
            joint: That training.
        """
        config = self.short(self.plan.single_steps)
        adapter = joint.adapter_path if start == JOINT and joint is not None else None
        for place, skill in enumerate(self.skill_set.names):
            path = self.path / _FOLDERS[start] / str(place)
            run = self.run(path, config, only_rows(self.skill_set, skill))
            for ends in first_and_last(self.finish(run, adapter)):
                (loss, loss_after), (exact, exact_after) = ends.loss, ends.exact_match
                yield {
                    "start": start,
                    "trained": skill,
                    "evaluated": ends.skill,
                    "before": loss,
                    "change": loss_after - loss,
                    "exact_before": exact,
                    "exact_change": exact_after - exact,
                    "n": ends.n,
                }

    def one_after_another(self) -> Iterator[dict[str, Any]]:
        """Short runs on one skill after another, each from the parameters of the one before."""
        config, start = self.short(self.plan.sequential_steps), None
        for stage, skill in enumerate(self.skill_set.names):
            path = self.path / "sequence" / str(stage)
            run = self.run(path, config, only_rows(self.skill_set, skill))
            start = self.finish(run, start).adapter_path
            last = run.metrics("eval")[-1]
            for other, score in last["skills"].items():
                yield {
                    "stage": stage,
                    "trained": skill,
                    "evaluated": other,
                    "loss": score["loss"],
                    "exact_match": score["exact_match"],
                }


def chosen_skills(variant: Variant) -> SkillSet:
    """The data of a variant: all skills, or the first few with the rows that need no other.

    Raises:
        SkillSetError: the data cannot be read.
        RunError: it has fewer skills.
    """
    config = variant.config
    whole = read_skills(config.data.path, config.data.skill_column)
    if variant.n_skills is None:
        return whole
    if variant.n_skills > len(whole.names):
        raise RunError(
            f"{config.data.path!r} has {len(whole.names)} skills, {variant.n_skills} are asked "
            "for; choose a skill set with more"
        )
    names = whole.names[: variant.n_skills]
    rows = tuple(row for row in whole.rows if set(row.skills) <= set(names))
    return SkillSet(rows, names, whole.notes)
