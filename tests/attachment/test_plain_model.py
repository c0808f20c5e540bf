"""An attached model stays a plain transformers model: whoever uses models can use it.

Each way to use it is tried three times: bare, with closed gates, which must give the same bit for
bit, and with the adapter's own gates, which must not.
"""

import json
import threading
from contextvars import copy_context
from typing import Any

import pytest
import torch
from transformers import TextIteratorStreamer, pipeline

from csreft_core.attachment.attach import attach, request
from csreft_core.base.load import Base
from csreft_core.inference.scoring import Encoded, answer_scores
from csreft_core.reft.adapter import CSReFT
from csreft_core.skills.batching import collate
from csreft_core.skills.encoding import Example
from csreft_core.skills.skill_set import Row
from tests.tiny import make_adapter, padded, tiny_base, tokens

PROMPT = "w5 w11 w40 w7"
N_NEW = 6
EXACTLY = {"max_new_tokens": N_NEW, "min_new_tokens": N_NEW, "pad_token_id": 0}
WAYS = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_p": 0.9, "temperature": 0.8},
    "beams": {"do_sample": False, "num_beams": 3},
    "several": {"do_sample": True, "num_return_sequences": 2},
}


@pytest.fixture
def base(tiny_llama) -> Base:
    return tiny_base(tiny_llama)


@pytest.fixture
def adapter(base) -> CSReFT:
    return make_adapter(base)


def three_times(base: Base, adapter: CSReFT, use):
    """What a use of the plain model gives: bare, with closed gates, with learned gates."""
    bare = use(base.model)
    with attach(base, adapter, gates="off"):
        closed = use(base.model)
    with attach(base, adapter):
        learned = use(base.model)
    return bare, closed, learned


@pytest.mark.parametrize("way", WAYS)
def test_generate(base, adapter, way):
    inputs = padded(tokens(6, 4))

    def use(model):
        torch.manual_seed(0)
        found = model.generate(
            **inputs, **EXACTLY, **WAYS[way], output_logits=True, return_dict_in_generate=True
        )
        return found.sequences, torch.stack(found.logits)

    bare, closed, learned = three_times(base, adapter, use)
    assert torch.equal(closed[0], bare[0])
    assert torch.equal(closed[1], bare[1])
    assert not torch.equal(learned[0], bare[0])


def test_greedy_answers_are_those_of_our_own_evaluation(base, adapter):
    inputs = padded(tokens(6, 4))
    with attach(base) as attachment:
        own, _ = attachment.generate(request(adapter), **inputs, **EXACTLY, do_sample=False)
    with attach(base, adapter):
        assert torch.equal(base.model.generate(**inputs, **EXACTLY, do_sample=False), own)


def test_text_generation_pipeline(base, adapter):
    def use(model):
        pipe = pipeline("text-generation", model=model, tokenizer=base.tokenizer, device="cpu")
        (answer,) = pipe(PROMPT, max_new_tokens=N_NEW, do_sample=False, return_full_text=False)
        return answer["generated_text"]

    bare, closed, learned = three_times(base, adapter, use)
    assert closed == bare != learned
    ids = base.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with attach(base, adapter):
        direct = base.model.generate(ids, max_new_tokens=N_NEW, do_sample=False, pad_token_id=0)
    assert learned.strip() == base.tokenizer.decode(direct[0, 4:], skip_special_tokens=True)


def test_streaming_from_a_thread_that_takes_the_context_along(base, adapter):
    inputs = padded(tokens(6))

    def streamed(attachment, gates):
        streamer = TextIteratorStreamer(base.tokenizer, skip_prompt=True)
        with attachment.calling(request(adapter, gates)):
            context = copy_context()
        thread = threading.Thread(
            target=context.run,
            args=(base.model.generate,),
            kwargs={**inputs, **EXACTLY, "do_sample": False, "streamer": streamer},
        )
        thread.start()
        text = "".join(streamer)
        thread.join()
        return text

    def answer():
        tokens_ = base.model.generate(**inputs, **EXACTLY, do_sample=False)
        return base.tokenizer.decode(tokens_[0, 6:])

    bare = answer()
    with attach(base, adapter):
        expected = answer()
    with attach(base) as attachment:
        assert streamed(attachment, "off") == bare
        assert streamed(attachment, "learned") == expected != bare


# --- lm_eval ---------------------------------------------------------------------------------

DOCUMENTS = [
    {"question": "w5 w11 w40", "answer": "w12 w13"},
    {"question": "w8 w9", "answer": "w30"},
    {"question": "w21 w22 w23 w24 w25", "answer": "w60 w61 w62"},
]


@pytest.fixture
def attached_hflm(monkeypatch, tmp_path):
    """Class of the model; the data sets library keeps its files in a temporary folder."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    pytest.importorskip("lm_eval", reason="lm_eval is optional: requirements-dev.txt")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from csreft_core.inference.lm_eval_model import AttachedHFLM

    return AttachedHFLM


def bare_hflm(base: Base):
    from lm_eval.models import huggingface

    HFLM: Any = huggingface.HFLM
    return HFLM(base.model, tokenizer=base.tokenizer, batch_size=2, device="cpu")


def task(kind: str, file) -> dict:
    """A task of lm_eval from a local file."""
    metrics = {"loglikelihood": "perplexity", "generate_until": "exact_match"}
    config = {
        "task": f"local_{kind}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": kind,
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{answer}}",
        "metric_list": [{"metric": metrics[kind]}],
    }
    if kind == "generate_until":
        config["generation_kwargs"] = {"until": ["\n"], "max_gen_toks": N_NEW, "do_sample": False}
    return config


def answers(kind: str, tmp_path):
    """A function that gives a model's answers to the documents, in their order."""
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    file = tmp_path / "documents.jsonl"
    file.write_text("\n".join(map(json.dumps, DOCUMENTS)), encoding="utf-8")
    # Not `simple_evaluate`, which also reads thousands of tasks and asks for the environment.
    tasks = TaskManager(include_defaults=False).load([task(kind, file)])

    def of(model) -> list:
        found: Any = evaluator.evaluate(model, tasks, bootstrap_iters=0)
        assert found is not None
        samples = sorted(found["samples"][f"local_{kind}"], key=lambda sample: sample["doc_id"])
        assert [sample["doc"] for sample in samples] == DOCUMENTS
        return [sample["filtered_resps"][0] for sample in samples]

    return of


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_lm_eval_with_a_local_task(base, adapter, attached_hflm, tmp_path, kind):
    answers_of = answers(kind, tmp_path)
    bare = answers_of(bare_hflm(base))
    with attach(base, adapter, gates="off") as attachment:
        closed = answers_of(attached_hflm(attachment, batch_size=2, device="cpu"))
    with attach(base, adapter) as attachment:
        learned = answers_of(attached_hflm(attachment, batch_size=2, device="cpu"))
    assert closed == bare
    assert all(ours != theirs for ours, theirs in zip(learned, bare, strict=True))
    if kind == "generate_until":
        assert learned == own_answers(base, adapter)
    else:
        expected = own_log_likelihoods(base, adapter)
        found = torch.tensor([value for value, _ in learned])
        # Left padding here, right padding there: float32 sums in another order.
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def encoded(base: Base) -> Encoded:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(base.tokenizer(text)["input_ids"])

    rows = [Row((), d["question"], d["answer"], "test_items") for d in DOCUMENTS]
    return Encoded(tuple(rows), tuple(Example(ids(r.prompt), ids(r.response)) for r in rows))


@torch.no_grad()
def own_log_likelihoods(base: Base, adapter: CSReFT) -> torch.Tensor:
    batch = collate(encoded(base).examples, base.pad_id)
    with attach(base) as attachment:
        nll, _, _ = answer_scores(attachment, request(adapter), batch)
    return -nll


def own_answers(base: Base, adapter: CSReFT) -> list[str]:
    found = []
    for row in encoded(base).rows:
        ids = base.tokenizer(row.prompt, return_tensors="pt")["input_ids"]
        with attach(base) as attachment:
            new, _ = attachment.generate(
                request(adapter),
                input_ids=ids,
                max_new_tokens=N_NEW,
                do_sample=False,
                pad_token_id=0,
            )
        found.append(base.tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True))
    return found


def test_equal_rows_with_other_contexts_are_told_apart(base, adapter, attached_hflm):
    ids = tokens(6)[0].tolist()
    asked = [("", ids[:n], ids[n:]) for n in (2, 4, 5, 4)]
    with attach(base, adapter) as attachment:
        model = attached_hflm(attachment, batch_size=4, device="cpu")
        together = model._loglikelihood_tokens(asked, disable_tqdm=True)
        alone = [model._loglikelihood_tokens([one], disable_tqdm=True)[0] for one in asked]
    assert [value for value, _ in together] == pytest.approx([value for value, _ in alone])
    # The same five tokens are read each time; only the edited ones among them differ.
    per_row = torch.tensor([value for value, _ in together])
    assert per_row[1] == per_row[3]
    examples = [Example(tuple(c), tuple(a)) for _, c, a in asked]
    with torch.no_grad(), attach(base) as attachment:
        nll, _, _ = answer_scores(attachment, request(adapter), collate(examples, base.pad_id))
    torch.testing.assert_close(per_row, -nll, atol=1e-4, rtol=0)
