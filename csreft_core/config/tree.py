"""The tree of settings: frozen dataclasses, each field with its type, its bounds and what it means.

The dotted paths (`adapter.rank`, `train.steps`, ...) are public and stable. What needs the base
model or the data to be judged (layer range, `k * rank <= d_model`) is checked where they are known.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from csreft_core.config import templates

SCHEMA_VERSION = 1
PLAIN_TEMPLATE = "Q: {prompt}\nA:"
EXACT_CONSTRAINTS = ("within", "joint", "sequential", "fixed")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

Form = Literal["loreft", "direft", "noreft", "consreft", "lobireft"]
MethodName = Literal[
    "csreft",
    "red",
    "bitfit",
    "lora",
    "dora",
    "prefix",
    "ia3",
    "lora_per_skill",
    "series_adapter",
    "parallel_adapter",
    "full",
]
Constraint = Literal["none", "within", "joint", "penalty", "sequential", "fixed"]


def _check_positions(rule: str) -> str:
    if not re.fullmatch(r"all|all_prompt|f[1-9]\d*|l[1-9]\d*|f[1-9]\d*\+l[1-9]\d*", rule):
        raise ValueError(
            "expected 'all', 'all_prompt', 'fP', 'lS' or 'fP+lS' "
            "(first P and last S prompt tokens), such as 'l1' or 'f2+l2'"
        )
    return rule


def _check_layers(layers: tuple[int, ...]) -> tuple[int, ...]:
    if list(layers) != sorted(set(layers)):
        raise ValueError("expected different layers in rising order, such as [2, 4]")
    return layers


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BaseConfig:
    """The frozen language model."""

    path: str = Field(
        default="pocket",
        min_length=1,
        description="Base model: 'pocket' (shipped), 'smollm2' (brought by `fetch-base smollm2`), "
        "a local folder or a Hub id.",
    )
    revision: str | None = Field(
        default=None, description="Revision of a Hub id; empty means the default branch."
    )
    precision: Literal["fp32", "bf16", "fp16", "nf4", "fp4", "int8"] = Field(
        default="fp32",
        description="Number format of the frozen weights; nf4, fp4 and int8 need bitsandbytes.",
    )
    compute: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Number format of the arithmetic when the weights are quantised; 'auto' is "
        "bf16 on a GPU and fp32 on the CPU.",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?|balanced)$",
        description="Where the base runs: 'auto', 'cpu', 'cuda', 'cuda:N', or 'balanced': its "
        "blocks over all GPUs.",
    )
    check_memory: bool = Field(
        default=True, description="Refuse to load weights that need more memory than is free."
    )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """The skill set."""

    path: str = Field(
        default="four",
        min_length=1,
        description="Skill set: a shipped name ('four', 'six', 'eight', 'two_skills', "
        "'english'), a file or a folder.",
    )
    template: Annotated[str, AfterValidator(templates.check_template)] = Field(
        default="auto",
        description="'auto' (the tokeniser's chat template if it has one, else a plain one), "
        "'chat', chat with settings such as chat {\"enable_thinking\": false}, or a text with "
        "{prompt}; the answer follows it behind a space, or right away where the text ends with "
        "{answer}, white space or a special token.",
    )
    skill_column: str = Field(
        default="skill", min_length=1, description="Name of the field that holds the skill."
    )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MethodConfig:
    """Which method is trained; all but `csreft` are there to be compared with it."""

    name: MethodName = Field(
        default="csreft",
        description="What is trained: 'csreft' (the subspace edits of `adapter`, of which LoReFT "
        "and DiReFT are settings), or another method that `adapter` then says nothing about.",
    )
    size: int = Field(
        default=4,
        ge=1,
        description="Rank of LoRA and DoRA, width of an adapter's bottleneck, length of a prefix.",
    )
    scale: float = Field(
        default=2.0, gt=0, description="LoRA's alpha / rank, the factor of what it adds."
    )
    layers: Annotated[tuple[int, ...], AfterValidator(_check_layers)] | None = Field(
        default=None,
        description="Blocks that the method changes, counted from 0; empty means all.",
    )
    penalty: float = Field(
        default=0.0,
        ge=0,
        description="Weight of O-LoRA's penalty on the overlap of the skills (lora_per_skill).",
    )

    def __post_init__(self) -> None:
        if self.penalty > 0 and self.name != "lora_per_skill":
            raise ValueError(
                f"penalty is for method 'lora_per_skill', not '{self.name}'; set it to 0"
            )
        if self.layers is not None and self.name in ("prefix", "full"):
            raise ValueError(f"method '{self.name}' changes all blocks; leave method.layers empty")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AdapterConfig:
    """The gated subspace edits."""

    layers: Annotated[tuple[int, ...], AfterValidator(_check_layers)] = Field(
        default=(1,),
        min_length=1,
        description="Edited layers: outputs of these blocks, counted from 0.",
    )
    rank: int = Field(default=2, ge=1, description="Dimensions r of each subspace.")
    n_subspaces: int | None = Field(
        default=None, ge=1, description="Subspaces k; empty means one for each skill in the data."
    )
    form: Form = Field(default="loreft", description="Edit: what is added to the hidden state.")
    constraint: Constraint = Field(
        default="joint",
        description="Orthonormality: none, within each subspace, joint over all of them, a "
        "penalty on their overlap, sequential (each in the complement of those before), or fixed.",
    )
    penalty: float = Field(
        default=1.0, ge=0, description="Weight of the overlap penalty (constraint 'penalty' only)."
    )
    init: Literal["identity", "random"] = Field(
        default="identity",
        description="Start: 'identity' changes nothing at first; 'random' is pyreft's start.",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Share of edit coordinates dropped in training."
    )
    positions: Annotated[str, AfterValidator(_check_positions)] = Field(
        default="l1",
        description="Edited tokens: 'all', 'all_prompt', 'fP' first, 'lS' last prompt tokens, "
        "'fP+lS' both.",
    )
    tied: bool = Field(
        default=True,
        description="One edit for first and last tokens; off gives each group its own.",
    )

    def __post_init__(self) -> None:
        if self.form == "noreft" and self.constraint in EXACT_CONSTRAINTS:
            raise ValueError(
                f"form 'noreft' has no orthonormal basis, so constraint '{self.constraint}' "
                "cannot hold; use constraint 'none' or 'penalty', or form 'loreft'"
            )
        if self.form == "consreft" and self.init == "identity":
            raise ValueError("form 'consreft' has no identity start; use init 'random'")
        if not self.tied and "+" not in self.positions:
            raise ValueError(
                f"untied edits need two groups of positions such as 'f2+l2', not '{self.positions}'"
            )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RouterConfig:
    """From a prompt to one gate per subspace."""

    input: Literal["first_token", "last_prompt_token", "mean_prompt"] = Field(
        default="mean_prompt", description="Which prompt tokens the router reads."
    )
    layer: int = Field(
        default=-1, ge=-1, description="Where it reads: -1 is the embedding, else a block's output."
    )
    standardize: bool = Field(
        default=False,
        description="Centre and scale what it reads by mean and spread over the training prompts; "
        "the states of a large base differ little from prompt to prompt.",
    )
    hidden: Annotated[int, Field(ge=1)] | Literal["paper"] = Field(
        default=32, description="Width of the hidden layer, or 'paper' for d/2 without a norm."
    )
    gate: Literal["sigmoid", "softmax", "hard", "top_k"] = Field(
        default="sigmoid", description="From router logits to gates."
    )
    top_k: int = Field(default=1, ge=1, description="Open gates of gate 'top_k'.")
    threshold: float = Field(default=0.5, ge=0, le=1, description="A gate above it counts as open.")
    temperature: float = Field(default=1.0, gt=0, description="Divides the router logits.")
    granularity: Literal["per_prompt", "per_token"] = Field(
        default="per_prompt", description="One gate vector for a prompt or for each token."
    )
    gates: Literal["learned", "oracle", "uniform"] = Field(
        default="learned", description="Gates in training: the router's, the labels', or all 1/k."
    )
    supervision: float = Field(
        default=0.0, ge=0, description="Weight of the loss that teaches the router the labels."
    )
    omega: Literal["l1", "entropy", "balance"] = Field(
        default="l1", description="Regulariser of the gates."
    )
    sparsity: float = Field(default=0.0, ge=0, description="Weight of that regulariser; 0 is off.")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """Optimisation."""

    steps: int = Field(default=250, ge=1, description="Optimiser steps.")
    batch_size: int = Field(default=32, ge=1, description="Prompts in a step, over all processes.")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Micro-batches in which each process computes its part of a step, one after "
        "the other; same loss, less memory.",
    )
    checkpointing: bool = Field(
        default=False,
        description="Compute the base's blocks again in the backward pass instead of storing them; "
        "same loss, less memory, more time.",
    )
    autocast: Literal["none", "bf16"] = Field(
        default="none",
        description="'bf16' multiplies the base's matrices in bfloat16 during training; the "
        "adapter stays in float32. For a base that computes in fp32.",
    )
    lr: float = Field(default=2e-2, gt=0, description="Peak learning rate of the subspaces.")
    router_lr: float = Field(default=1e-2, gt=0, description="Peak learning rate of the router.")
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps in which the rate rises."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, description="AdamW's decay of W, b and the router, never of R."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the start, the order and the dropout.")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of each process; empty means the machine's choice.",
    )
    eval_every: int = Field(
        default=50, ge=1, description="Steps between evaluations on the validation split."
    )
    checkpoint_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    keep_states: bool = Field(
        default=True,
        description="Compute what no edit changes once for each row and keep it: states up to the "
        "first edited layer, keys and values of the tokens before the first edited one.",
    )
    keep_states_gib: float = Field(
        default=1.0,
        ge=0,
        description="Memory of each process for what is kept in GiB; the rest goes to disk.",
    )
    max_length: int = Field(
        default=512, ge=8, description="Longest prompt with answer, in tokens; the rest is cut."
    )

    def __post_init__(self) -> None:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate}, more micro-batches than the "
                f"{self.batch_size} prompts of batch_size; lower it"
            )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Provenance:
    """What a run was made with; written by the trainer, not by the user."""

    base_fingerprint: str
    base_revision: str | None = None
    template: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Config:
    """Everything that decides a run."""

    schema_version: int = SCHEMA_VERSION
    base: BaseConfig = Field(default_factory=BaseConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    method: MethodConfig = Field(default_factory=MethodConfig)
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    router: RouterConfig = Field(default_factory=RouterConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    provenance: Provenance | None = None
