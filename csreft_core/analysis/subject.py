"""What the tables are made from: a trained run with its loaded base, its adapter and its data.

Every table of the Inspect pages is a function `NAME_table(subject, ...)` whose further arguments
are plain strings, numbers and tuples. So the page, the command line and the code that the page
shows call the very same function.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from csreft_core.config import PLAIN_TEMPLATE, PROJECT, Config
from csreft_core.config.templates import is_chat
from csreft_core.inference.engine import Engine, Prompt
from csreft_core.inference.scoring import Encoded, check_labels, encode_rows
from csreft_core.reft.adapter import CSReFT, load_adapter
from csreft_core.reft.base_record import check_base
from csreft_core.reft.gate_settings import setting_as_trained
from csreft_core.runs.all_runs import Run, open_run
from csreft_core.skills.skill_set import Row, SkillSet, evenly


@dataclass(frozen=True)
class Subject:
    """A trained adapter on its base.

    Attributes:
        engine: The loaded base.
        adapter: The trained adapter.
        config: The run's settings.
        skill_set: The data it was trained and tested on.
        run: The folder, for what was recorded in training; None where there is none.
    """

    engine: Engine
    adapter: CSReFT
    config: Config
    skill_set: SkillSet = field(default_factory=lambda: SkillSet((), ()))
    run: Run | None = None

    @property
    def name(self) -> str:
        """Of the run, for people."""
        return self.run.name if self.run is not None else "this run"

    @property
    def template(self) -> str:
        """The resolved template of the run's prompts."""
        provenance = self.config.provenance
        return PLAIN_TEMPLATE if provenance is None else provenance.template

    @property
    def trained_gates(self) -> str:
        """The gate setting of its training: `learned`, `oracle` or `uniform`.

        The subspaces were trained under these gates, also where a router was taught beside them.
        """
        return self.config.router.gates

    def gates_as_trained(self, skills: Collection[str]) -> str:
        """The setting under which a prompt with these skills is asked as in training.

        See `gate_settings.setting_as_trained`.
        """
        return setting_as_trained(self.trained_gates, self.adapter.names, skills)

    @property
    def skills(self) -> tuple[str, ...]:
        """The skills of the data, in their order."""
        return self.skill_set.names

    def split(self, name: str, per_skill: int | None = None) -> tuple[Row, ...]:
        """Rows of a split, at most `per_skill` of each skill, taken evenly.

        Raises:
            SkillSetError: the split is unknown or empty.
        """
        rows = self.skill_set.split(name)
        return rows if per_skill is None else evenly(rows, per_skill)

    def asked(
        self, prompts: Sequence[str], split: str = "test", per_skill: int | None = None
    ) -> tuple[Row, ...]:
        """The prompts as rows, with their skill and answer where the data knows them.

        Without prompts, the rows of the split.
        """
        if not prompts:
            return self.split(split, per_skill)
        known = {row.prompt: row for row in reversed(self.skill_set.rows)}
        return tuple(known.get(prompt, Row((), prompt, "", "")) for prompt in prompts)

    def has_labels(self, rows: Sequence[Row]) -> bool:
        """Whether `oracle` gates can be given: each row has skills, each of them a subspace."""
        names = set(self.adapter.names)
        return all(row.skills and set(row.skills) <= names for row in rows)

    def gates(self, rows: Sequence[Row], setting: str = "learned") -> Float[Tensor, "prompt k"]:
        """The gates of each prompt under a setting; of its last token where they are per token.

        Raises:
            ConfigError: an empty or too long prompt, or a setting that does not fit, such as
                `oracle` for a prompt without a known skill.
        """
        if setting == "oracle":
            check_labels(rows, self.adapter.names)
        return self.engine.gates(
            self.adapter,
            self.prompts_of(rows),
            setting,
            template=self.template,
            skills=[row.skills for row in rows],
        )

    def encoded(self, rows: Sequence[Row]) -> Encoded:
        """The rows as tokens, cut as in training."""
        base, length = self.engine.base, self.config.train.max_length
        return encode_rows(rows, base, self.template, length)

    def prompts_of(self, rows: Sequence[Row]) -> list[Prompt]:
        """What the base reads of prompts: of rows of the data their tokens, cut as in training.

        A typed prompt stays a text: one that is too long is refused, not cut.
        """
        examples = self.encoded(rows).examples
        return [
            e.prompt if row.split else row.prompt for row, e in zip(rows, examples, strict=True)
        ]


def open_subject(path: str, engine: Engine | None = None) -> Subject:
    """Open a run folder; loads its base unless an engine of that base is given.

    Raises:
        RunError: no run there, or a damaged one.
        AdapterError: no adapter yet, a damaged one, or one of another base.
    """
    run = find_run(path)
    config, adapter, skill_set = run.config(), load_adapter(run.adapter_path), run.skill_set()
    engine = engine or Engine.load(config.base)
    return on_its_base(Subject(engine, adapter, config, skill_set, run))


def beside(subject: Subject, path: str) -> Subject:
    """Another run on the same loaded base, to be asked about the same data.

    Raises:
        RunError: no run there, or a damaged one.
        AdapterError: no adapter, a damaged one, or one of another base.
    """
    run = find_run(path)
    adapter = load_adapter(run.adapter_path)
    return on_its_base(replace(subject, adapter=adapter, config=run.config(), run=run))


def find_run(path: str) -> Run:
    """The run in a folder; shipped ones are found from any folder, as `assets/examples/NAME`.

    Raises:
        RunError: there is none.
    """
    shipped = PROJECT / path
    return open_run(shipped if shipped.exists() and not Path(path).exists() else Path(path))


def on_its_base(subject: Subject) -> Subject:
    """The subject, if its adapter was trained on its base; raises `AdapterError` where not."""
    base, chat = subject.engine.base, is_chat(subject.template)
    check_base(subject.adapter.spec.base_fingerprint, base.fingerprint, base.id, chat=chat)
    return subject
