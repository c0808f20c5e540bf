"""How long a text one vector can hold: an edit of rank 1 at one layer and one token.

ReFT, appendix F.1: a ConsReFT edit $h + R^\\top(b - Rh)$ with one row, on the last prompt token, is
trained until greedy decoding gives the text back. The controls are the same words in random order,
and words drawn at random. Every training is a run; a finished one is not trained again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import request
from csreft_core.base.load import Base
from csreft_core.base.text.tokenisers import tokens_of, unknown_words
from csreft_core.config import PLAIN_TEMPLATE, PRESETS, Config
from csreft_core.errors import ConfigError
from csreft_core.inference.scoring import encode_as_configured
from csreft_core.reft.adapter import load_adapter
from csreft_core.runs.all_runs import Run, create_run, open_run
from csreft_core.skills.skill_set import Row, SkillSet, read_skills
from csreft_core.training.loop import train

Kind = Literal["text", "scrambled", "random"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STEPS = 1000
"""Steps of each training."""
_LR = 1e-1
_PROMPT = "text"


@dataclass(frozen=True)
class Trial:
    """One text to learn.

    Attributes:
        kind: The text, its words in random order, or words drawn at random.
        layer: Whose output is edited.
        tokens: Length of the text in tokens.
        seed: Of the text, the order of its words, and the start of the edit.
    """

    kind: Kind
    layer: int
    tokens: int
    seed: int

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"{self.kind}-layer{self.layer}-{self.tokens}-{self.seed}"


def trial_config(trial: Trial) -> Config:
    """The settings of ReFT's appendix F.1, with a learning rate for narrow bases."""
    start = PRESETS["loreft"]
    edit = replace(
        start.adapter,
        layers=(trial.layer,),
        rank=1,
        form="consreft",
        init="random",
        positions="l1",
    )
    training = replace(
        start.train,
        steps=STEPS,
        batch_size=1,
        lr=_LR,
        warmup=0.0,
        eval_every=STEPS,
        checkpoint_every=STEPS,
        seed=trial.seed,
        keep_states=True,
        max_length=2**20,
    )
    return replace(start, adapter=edit, train=training)


def words_to_learn(trial: Trial, source: str, base: Base) -> str:
    """The text of a trial.

    The text begins at a word that the seed draws. The scrambled one has the same words.

    Args:
        trial: Which one.
        source: A longer text.
        base: Its tokeniser counts the tokens.

    Raises:
        ConfigError: the source is shorter than the text is to be.
    """
    rng = np.random.default_rng(trial.seed)
    words, tokenizer = source.split(), base.tokenizer
    word_ids = tokens_of([f" {word}" for word in words], tokenizer)["input_ids"] if words else []
    counts = np.cumsum([len(ids) for ids in word_ids])
    if len(words) == 0 or counts[-1] < trial.tokens:
        raise ConfigError(
            f"the source has {counts[-1] if len(words) else 0} tokens, a text of {trial.tokens} is "
            "asked for; give a longer one, or smaller --lengths"
        )
    last = int(np.searchsorted(counts, counts[-1] - trial.tokens, side="right"))
    first = int(rng.integers(last + 1))
    before = counts[first - 1] if first else 0
    text = words[first : int(np.searchsorted(counts, before + trial.tokens)) + 1]
    if trial.kind == "scrambled":
        text = [text[i] for i in rng.permutation(len(text))]
    if trial.kind == "random":
        special = set(tokenizer.all_special_ids)
        n = min(len(tokenizer), base.vocabulary)
        plain_ids = [i for i in range(n) if i not in special]
        sample = [plain_ids[i] for i in rng.integers(len(plain_ids), size=trial.tokens)]
        return str(tokenizer.decode(sample))
    return " ".join(text)


def default_source(seed: int = 0) -> str:
    """A text that the embedded base knows the words of: exercises of all six skills, mixed."""
    rows = read_skills("six").rows
    order = np.random.default_rng(seed).permutation(len(rows))
    return " ".join(
        f"{PLAIN_TEMPLATE.format(prompt=rows[i].prompt)} {rows[i].response}" for i in order
    )


def memorise(
    folder: Path, trials: Iterable[Trial], base: Base, source: str
) -> Iterator[dict[str, Any]]:
    """Learn every text, and see how much of it comes back.

    Args:
        folder: Of the runs; what is finished there is used.
        trials: What to learn.
        base: The frozen base.
        source: The text that the texts are taken from.

    Yields:
        kind, layer, tokens (asked for), seed, n (tokens that were learned), given_back (tokens
        from the beginning that greedy decoding gives), loss (nats per token, after training),
        parameters (trained).

    Raises:
        ConfigError: a text that the base cannot read at once, or a layer that it does not have.
        RunError: a run in the folder is damaged.
    """
    for trial in trials:
        run = _train(folder / trial.name, trial, base, source)
        yield {**asdict(trial), **_recall(run, base)}


def _train(path: Path, trial: Trial, base: Base, source: str) -> Run:
    if (path / "config.json").is_file():
        run = open_run(path)
    else:
        text = words_to_learn(trial, source, base)
        row = Row((_PROMPT,), _PROMPT, text, "train")
        config = trial_config(trial)
        config = replace(config, base=replace(config.base, path=base.id))
        _check_fits(row, config, base, trial)
        run = create_run(path, config, SkillSet((row,), (_PROMPT,)))
    if run.status().state != "finished":
        for _ in train(run, base, resume=True):
            pass
    return run


def _check_fits(row: Row, config: Config, base: Base, trial: Trial) -> None:
    encoded = encode_as_configured([row], base, config)
    unknown = unknown_words([row.response], base.tokenizer)[0]
    if unknown:
        raise ConfigError(
            f"the base has no token for {unknown[0]!r}, so this text cannot come back from it; "
            "give a text in its words"
        )
    if encoded.n_cut:
        raise ConfigError(
            f"the base reads {base.context} tokens at once, a text of {trial.tokens} and its "
            "prompt do not fit; choose smaller --lengths"
        )


@torch.no_grad()
def _recall(run: Run, base: Base) -> dict[str, Any]:
    config = run.config()
    encoded = encode_as_configured(run.skill_set().rows, base, config)
    text_ids = torch.tensor(encoded.examples[0].answer[:-1], device=base.device)  # without its end
    prompt = torch.tensor([encoded.examples[0].prompt], device=base.device)
    adapter = load_adapter(run.adapter_path).to(base.device).eval()
    with attach(base) as attachment:
        tokens, _ = attachment.generate(
            request(adapter, config.router.gates),
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=base.exactly(len(text_ids)),
        )
    scores = run.metrics("eval")[-1]
    return {
        "n": len(text_ids),
        "given_back": beginning(tokens[0, prompt.shape[1] :], text_ids),
        "loss": scores["mean"]["loss"],
        "parameters": adapter.counts()["total"],
    }


def beginning(answer: Int[Tensor, " token"], text: Int[Tensor, " token"]) -> int:
    """How many tokens are the same from the first one on."""
    return int((answer == text).long().cumprod(0).sum())
