"""One loaded base that answers many callers at once, each with its own adapter and gates.

Thread-safe: the base is wrapped once, and reads the caller's request from a context variable.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import replace
from threading import Thread
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessorList, TextIteratorStreamer

from csreft_core.attachment.attach import Attachment
from csreft_core.attachment.passes import Pass, Request, request
from csreft_core.attachment.start import Start
from csreft_core.base.decoding import OURS, check_decoding, scores_and_draws
from csreft_core.base.load import Base, load_base
from csreft_core.base.memory.exhausted import memory_errors
from csreft_core.config import PLAIN_TEMPLATE, BaseConfig
from csreft_core.config.templates import is_chat
from csreft_core.errors import ConfigError
from csreft_core.inference.answers import Answer, Trace
from csreft_core.inference.known import Known, read_ahead, shares
from csreft_core.inference.sampling import check_sampling, own_sampler, sampler
from csreft_core.reft.adapter import CSReFT
from csreft_core.reft.base_record import check_base
from csreft_core.skills.batching import Batch, collate
from csreft_core.skills.encoding import Example, prompt_ids

# A text without template, or the tokens of a row's prompt as `encode` cuts it in training.
Prompt = str | tuple[int, ...]
_FEWER = "look at fewer or shorter prompts at once"

SettingOrGates = str | Sequence[float] | Float[Tensor, "prompt k"]
"""A gate setting for all prompts, or a row of gates for each."""


class Engine:
    """Answers prompts on one base; adapter None is the bare base.

    The engine owns the base: nothing else may attach to it. Its `attachment` serves passes of
    one's own.
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self.attachment = Attachment(base)

    @classmethod
    def load(cls, config: BaseConfig) -> "Engine":
        """Load the base and make an engine of it."""
        return cls(load_base(config))

    def _request(
        self,
        adapter: CSReFT | None,
        gates: SettingOrGates,
        skills: Sequence[Sequence[str]] | None,
        template: str,
        capture: tuple[int, ...] = (),
    ) -> Request:
        if adapter is None:
            return Request(None, capture=capture)
        recorded, here = adapter.spec.base_fingerprint, self.base.fingerprint
        check_base(recorded, here, self.base.id, chat=is_chat(template))
        labels = None
        if skills is not None:
            labels = torch.tensor([[float(n in row) for n in adapter.names] for row in skills])
        return request(adapter, gates, labels, capture)

    def _encode(self, prompts: Sequence[Prompt], template: str) -> Batch:
        if not prompts or any(isinstance(p, str) and not p.strip() for p in prompts):
            raise ConfigError("the prompt is empty; write a question")
        ids = [
            tuple(prompt_ids(prompt, self.base.tokenizer, template, self.base.vocabulary))
            if isinstance(prompt, str)
            else prompt
            for prompt in prompts
        ]
        longest = max(len(i) for i in ids)
        limit = self.base.context
        if limit is not None and longest >= limit:
            raise ConfigError(
                f"the prompt has {longest} tokens, the base reads at most {limit}; shorten it"
            )
        return collate([Example(i, ()) for i in ids], self.base.pad_id).to(self.base.device)

    def _new_tokens(self, inputs: dict[str, Tensor], max_new_tokens: int) -> int:
        limit = self.base.context
        width = inputs["input_ids"].shape[1]
        return max_new_tokens if limit is None else max(1, min(max_new_tokens, limit - width))

    def _decoding(
        self, kind: str, n_tokens: int, sampling: tuple[float, float, int]
    ) -> dict[str, Any]:
        """How `generate` of transformers is to decode."""
        if kind == OURS:
            steps = sampler(*sampling)
            return {"generation_config": self.base.greedy(n_tokens), "logits_processor": steps}
        check_decoding(kind, *sampling[:2])
        scores, draws = scores_and_draws(self.base.own_decoding, self.base.vocabulary)
        steps = LogitsProcessorList() if draws is None else own_sampler(draws, sampling[2])
        return {
            "generation_config": self.base.greedy(n_tokens, **scores),
            "logits_processor": steps,
        }

    def _answer(
        self,
        adapter: CSReFT | None,
        prompt: Prompt,
        new: Int[Tensor, " answer"],
        forward_pass: Pass,
    ) -> Answer:
        text = self.base.tokenizer.batch_decode(new[None], skip_special_tokens=True)[0].strip()
        by_name = None
        if adapter is not None:
            by_name = dict(zip(adapter.names, forward_pass.prompt_gates()[0].tolist(), strict=True))
        question = (
            prompt if isinstance(prompt, str) else str(self.base.tokenizer.decode(list(prompt)))
        )
        return Answer(question, text, by_name, len(new))

    def _memory(self, doing: str, advice: str) -> AbstractContextManager[None]:
        return memory_errors(doing, self.base.device, lambda: advice)

    @torch.no_grad()
    def generate(
        self,
        adapter: CSReFT | None,
        prompt: Prompt,
        gates: str | Sequence[float] = "learned",
        *,
        max_new_tokens: int = 32,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        decoding: str = OURS,
        template: str = PLAIN_TEMPLATE,
        skills: Sequence[str] | None = None,
        streamer: TextIteratorStreamer | None = None,
    ) -> Answer:
        """The answer to one prompt: greedy, or drawn where the temperature is above 0.

        The global random state is neither read nor changed.

        Args:
            adapter: None is the bare base.
            prompt: The user's text, without template.
            gates: See `gate_settings`; `oracle` needs `skills`.
            max_new_tokens: Longest answer; capped by what the base can read.
            temperature: See `sampling.sampler`, also for the next two.
            top_p: Share of probability to draw from.
            seed: Of the draw.
            decoding: `ours`, or `base`: by the settings that the base brings, see `decoding`.
            template: The run's resolved template.
            skills: The prompt's true skills.
            streamer: Is handed the pieces of the answer as they come.

        Raises:
            ConfigError: an empty or too long prompt, or a setting that does not fit.
            AdapterError: the adapter is of another base.
            NotEnoughMemoryError: it does not fit.
        """
        check_sampling(temperature, top_p, seed, max_new_tokens)
        sampling = (temperature, top_p, seed)
        req = self._request(adapter, gates, None if skills is None else [skills], template)
        inputs = self._encode([prompt], template).inputs
        with self._memory("the answer", "shorten the prompt, or ask for fewer new tokens"):
            tokens, forward_pass = self.attachment.generate(
                req,
                **inputs,
                **self._decoding(decoding, self._new_tokens(inputs, max_new_tokens), sampling),
                streamer=streamer,
            )
        return self._answer(
            adapter, prompt, tokens[0, inputs["input_ids"].shape[1] :], forward_pass
        )

    def stream(
        self,
        adapter: CSReFT | None,
        prompt: Prompt,
        gates: str | Sequence[float] = "learned",
        **settings: Any,
    ) -> Generator[str, None, Answer]:
        """As `generate`, with its settings, piece by piece; returns what it returns.

        The pieces joined and stripped are the answer's text.
        """
        streamer = TextIteratorStreamer(
            self.base.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        answers: list[Answer] = []
        failure: list[Exception] = []

        def work() -> None:
            try:
                answers.append(self.generate(adapter, prompt, gates, streamer=streamer, **settings))
            except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(error)
                streamer.end()

        thread = Thread(target=copy_context().run, args=(work,), daemon=True)
        thread.start()
        yield from streamer
        thread.join()
        if failure:
            raise failure[0]
        return answers[0]

    @torch.no_grad()
    def gates(
        self,
        adapter: CSReFT,
        prompts: Sequence[Prompt],
        setting: str | Sequence[float] = "learned",
        *,
        template: str = PLAIN_TEMPLATE,
        skills: Sequence[Sequence[str]] | None = None,
        batch_size: int = 128,
    ) -> Float[Tensor, "prompt k"]:
        """The gates of each prompt; of its last token where the router is per token."""
        parts = [torch.zeros(0, adapter.n_subspaces)]
        for start in range(0, len(prompts), batch_size):
            part = slice(start, start + batch_size)
            rows = None if skills is None else skills[part]
            req = self._request(adapter, setting, rows, template)
            with self._memory("reading the prompts", _FEWER):
                decided = self._gates(adapter, req, self._encode(prompts[part], template))
            parts.append(decided.prompt_gates().cpu())
        return torch.cat(parts)

    def _gates(self, adapter: CSReFT, req: Request, batch: Batch) -> Pass:
        """A forward that ends where the gates are decided."""
        layer = adapter.spec.router.layer
        known = None
        if layer >= 0 and shares(batch):
            known = read_ahead(self.attachment, adapter, batch, last_block=layer)
        inputs: dict[str, Any] = {**batch.inputs, "use_cache": False, "last_block": layer}
        if known is not None:
            inputs |= {**known.batch.inputs, "start": Start({layer: known.states[layer]})}
        return self.attachment.forward(req, **inputs)[1]

    @torch.no_grad()
    def trace(
        self,
        adapter: CSReFT | None,
        prompts: Sequence[Prompt],
        setting: SettingOrGates = "learned",
        *,
        layers: Sequence[int] = (),
        template: str = PLAIN_TEMPLATE,
        skills: Sequence[Sequence[str]] | None = None,
    ) -> Trace:
        """One forward over all prompts; keeps the states of the layers, on the CPU.

        Args:
            adapter: None is the bare base.
            prompts: Texts without template.
            setting: Gate setting, or a row of gates for each prompt.
            layers: Whose output to keep, 0-based.
            template: The run's resolved template.
            skills: The prompts' true skills, for `oracle`.

        Raises:
            ConfigError: an empty or too long prompt, or a setting that does not fit.
            AdapterError: the adapter is of another base.
            NotEnoughMemoryError: it does not fit.
        """
        req = self._request(adapter, setting, skills, template, tuple(layers))
        batch = self._encode(prompts, template)
        with self._memory("reading the prompts", _FEWER):
            output, forward_pass = self.attachment.forward(
                req, **batch.inputs, logits_to_keep=1, use_cache=False
            )
        return _trace(batch, forward_pass, output.logits[:, -1].float().cpu())

    @torch.no_grad()
    def next_logits(
        self,
        adapter: CSReFT,
        prompts: Sequence[Prompt],
        settings: Sequence[str | Sequence[float] | None],
        *,
        template: str = PLAIN_TEMPLATE,
        skills: Sequence[Sequence[str]] | None = None,
    ) -> list[Float[Tensor, "prompt vocab"]]:
        """Logits of the token that follows each prompt, under each setting; None is the base."""
        requests = [
            self._request(None if one is None else adapter, one or "learned", skills, template)
            for one in settings
        ]
        batch = self._encode(prompts, template)
        with self._memory("reading the prompts", _FEWER):
            known = read_ahead(self.attachment, adapter, batch)
            if known is None:
                inputs = {**batch.inputs, "logits_to_keep": 1, "use_cache": False}
                outputs = [self.attachment.forward(req, **inputs)[0] for req in requests]
                return [output.logits[:, -1].float().cpu() for output in outputs]
            found = [known.logits(self.attachment, adapter, req) for req in requests]
            return [logits[:, -1].float().cpu() for logits in found]

    @torch.no_grad()
    def traces(
        self,
        adapter: CSReFT,
        prompts: Sequence[Prompt],
        setting: SettingOrGates = "learned",
        *,
        layers: Sequence[int],
        template: str = PLAIN_TEMPLATE,
        skills: Sequence[Sequence[str]] | None = None,
    ) -> tuple[Trace, Trace]:
        """As `trace` without and with the adapter; no block above the layers runs, and no logits.

        Up to the first edited layer one forward brings both.
        """
        bare = self._request(None, setting, None, template, tuple(layers))
        req = self._request(adapter, setting, skills, template, tuple(layers))
        batch = self._encode(prompts, template)
        top = max(*layers, adapter.spec.router.layer)
        with self._memory("reading the prompts", _FEWER):
            known = None
            if max(layers) >= min(adapter.layers) and not _per_token(adapter):
                known = read_ahead(self.attachment, adapter, batch, layers, top)
            if known is not None:
                return self._traces_from(known, adapter, req, batch, top)
            inputs = {**batch.inputs, "use_cache": False, "last_block": top}
            edited = _trace(batch, self.attachment.forward(req, **inputs)[1])
            if max(layers) <= min(adapter.layers):
                return replace(edited, gates=None, after=edited.before), edited
            return _trace(batch, self.attachment.forward(bare, **inputs)[1]), edited

    def _traces_from(
        self, known: Known, adapter: CSReFT, req: Request, batch: Batch, top: int
    ) -> tuple[Trace, Trace]:
        """Of what the base has read, and of the few tokens that an edit can change."""
        start = known.start(adapter)
        _, forward_pass = self.attachment.forward(
            req, **known.batch.inputs, use_cache=False, last_block=top, start=start
        )
        plain = {layer: known.left_padded(known.states[layer]) for layer in req.capture}
        pairs = {layer: (h, h) for layer, h in plain.items()}
        trace = _trace(batch, replace(forward_pass, states=pairs))
        for layer, both in forward_pass.states.items():
            if layer >= min(adapter.layers):
                for kept, new in zip((trace.before, trace.after), both, strict=True):
                    whole = torch.cat([known.states[layer][:, : start.n_columns], new], 1)
                    kept[layer] = known.left_padded(whole).float().cpu()
        bare = replace(forward_pass, states=pairs, gates=None)
        return _trace(batch, bare), trace

    def close(self) -> None:
        """Unwrap the base."""
        self.attachment.detach()


def _per_token(adapter: CSReFT) -> bool:
    return adapter.spec.router.granularity == "per_token"


def _trace(
    batch: Batch, forward_pass: Pass, logits: Float[Tensor, "prompt vocab"] | None = None
) -> Trace:
    return Trace(
        batch.input_ids.cpu(),
        batch.attention_mask.bool().cpu(),
        None if forward_pass.gates is None else forward_pass.gates.float().cpu(),
        {layer: before.float().cpu() for layer, (before, _) in forward_pass.states.items()},
        {layer: after.float().cpu() for layer, (_, after) in forward_pass.states.items()},
        torch.zeros(len(batch.input_ids), 0) if logits is None else logits,
    )
