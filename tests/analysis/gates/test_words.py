"""Which words decide: against shortened prompts, a plain integral, and routers of every input."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from csreft_core.analysis.gates import attributions
from csreft_core.analysis.gates import word_sentences as say
from csreft_core.analysis.gates import words as w
from csreft_core.analysis.prompt_tokens import prompt_tokens, visible
from csreft_core.analysis.subject import Subject
from csreft_core.attachment.passes import request
from csreft_core.base.load import load_base
from csreft_core.config import PLAIN_TEMPLATE, BaseConfig, Provenance, RouterConfig, preset
from csreft_core.errors import ConfigError
from csreft_core.inference.engine import Engine
from csreft_core.skills.encoding import prompt_ids
from csreft_core.skills.skill_set import SkillSet
from tests.tiny import make_adapter, tiny_base, tiny_tokenizer

PROMPT = "w5 w6 w7 w8"
SHORTER = ("w6 w7 w8", "w5 w7 w8", "w5 w6 w8", "w5 w6 w7")


@pytest.fixture
def engine(tiny_llama):
    with_hooks = Engine(tiny_base(tiny_llama))
    yield with_hooks
    with_hooks.close()


def subject_of(engine, template="{prompt}", **router):
    provenance = Provenance(base_fingerprint="0" * 64, template=template, versions={})
    config = replace(preset("recommended"), provenance=provenance, router=RouterConfig(**router))
    adapter = make_adapter(engine.base, router=config.router)
    if adapter.router is not None:
        with torch.no_grad():
            adapter.router.fc2.weight *= 10
    return Subject(engine, adapter, config, SkillSet((), ()))


def values(table, method, quantity="logit"):
    part = table[(table["method"] == method) & (table["quantity"] == quantity)]
    return part["value"].to_numpy().reshape(-1, part["subspace"].nunique())


@pytest.mark.parametrize("layer", [-1, 0, 1])
@pytest.mark.parametrize("granularity", ["per_prompt", "per_token"])
def test_taking_a_token_out_is_asking_the_shorter_prompt(engine, layer, granularity):
    subject = subject_of(engine, layer=layer, granularity=granularity)
    found = values(w.words_table(subject, prompts=(PROMPT,)), say.OCCLUSION, "gate")
    full = engine.gates(subject.adapter, [PROMPT], template="{prompt}")
    expected = full - torch.cat(
        [engine.gates(subject.adapter, [text], template="{prompt}") for text in SHORTER]
    )
    assert found == pytest.approx(expected.numpy(), abs=1e-6)
    assert abs(found).max() > 1e-3


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("router_input", ["mean_prompt", "last_prompt_token", "first_token"])
def test_integrated_gradients_are_complete(engine, layer, router_input):
    subject = subject_of(engine, layer=layer, input=router_input)
    table = w.words_table(subject, prompts=(PROMPT,), steps=400)
    part = table[table["method"] == say.GRADIENTS]
    for _, of_gate in part.groupby("subspace"):
        change = of_gate["full"].iloc[0] - of_gate["reference"].iloc[0]
        assert of_gate["value"].sum() == pytest.approx(change, abs=0.02 * abs(change) + 0.05)
    assert part["value"].abs().max() > 0.05


def test_integrated_gradients_are_the_plain_integral(engine):
    subject = subject_of(engine)
    found = values(w.words_table(subject, prompts=(PROMPT,), steps=300), say.GRADIENTS)
    router = subject.adapter.router.double()
    embedding = engine.base.model.get_input_embeddings().weight.double()
    x = embedding[prompt_ids(PROMPT, engine.base.tokenizer, "{prompt}")]
    n = 4000
    alpha = ((torch.arange(n) + 0.5) / n).double().reshape(-1, 1, 1)
    start = embedding.mean(0)
    points = (start + alpha * (x - start)).requires_grad_()
    # `features` works in float32; the mean of all tokens is the same thing here.
    logits = router(points.mean(1))
    for gate in range(2):
        (gradient,) = torch.autograd.grad(logits[:, gate].sum(), points, retain_graph=True)
        expected = (gradient.mean(0) * (x - start)).sum(-1)
        assert found[:, gate] == pytest.approx(expected.detach().numpy(), abs=2e-2)


def test_the_router_on_the_embedding_answers_as_in_a_whole_forward(engine):
    subject = subject_of(engine)
    ids = torch.tensor([prompt_ids(PROMPT, engine.base.tokenizer, "{prompt}")])
    embedded = engine.base.model.get_input_embeddings()(ids)
    mask = torch.ones_like(ids, dtype=torch.bool)
    short = attributions.router_logits(subject, embedded, mask)
    _, this = engine.attachment.forward(request(subject.adapter), input_ids=ids)
    assert torch.equal(short, this.logits)


def test_no_word_decides_for_a_first_token_router(engine):
    subject = subject_of(engine, "w20 {prompt}", input="first_token", hidden="paper")
    table = w.words_table(subject, prompts=(PROMPT,))
    on_words = table[table["kind"] == "word"]
    assert (on_words["value"] == 0).all()
    assert say.no_word_decides(table)
    for text in (say.sentence_word_map(table), say.sentence_words(table)):
        assert text.startswith("No word decides: taking away any of the 4 words leaves every gate")
        assert "Only “w20” moves them, and that stands in every prompt." in text
    other = w.words_table(subject_of(engine, "w20 {prompt}"), prompts=(PROMPT,))
    assert not say.no_word_decides(other)
    assert "No word decides" not in say.sentence_words(other)


def test_several_prompts_and_rows_of_the_table(engine):
    subject = subject_of(engine)
    table = w.words_table(subject, prompts=("w5 w6", PROMPT))
    assert list(table) == list(w.COLUMNS)
    assert table.groupby("prompt", sort=False).size().tolist() == [2 * 3 * 2, 4 * 3 * 2]
    alone = w.words_table(subject, prompts=(PROMPT,))
    pd.testing.assert_frame_equal(table.iloc[12:].reset_index(drop=True), alone, rtol=1e-4)


def test_a_prompt_of_one_token_has_nothing_to_take_out(engine):
    table = w.words_table(subject_of(engine), prompts=("w5",))
    assert set(table["method"]) == {say.GRADIENTS}
    assert say.sentence_word_map(table) == "There is no token to take away."
    assert len(say.sentence_words(table)) > 10


def test_a_long_prompt_is_taken_in_parts(engine, monkeypatch):
    subject = subject_of(engine)
    whole = w.words_table(subject, prompts=(PROMPT,))
    monkeypatch.setattr(attributions, "MOST_ROWS", 2)
    pd.testing.assert_frame_equal(w.words_table(subject, prompts=(PROMPT,)), whole, rtol=1e-4)


def test_what_cannot_be_asked_is_refused(engine):
    with pytest.raises(ConfigError, match="no router"):
        w.words_table(subject_of(engine, gates="oracle"), prompts=(PROMPT,))
    with pytest.raises(ConfigError, match="prompt is empty"):
        w.words_table(subject_of(engine), prompts=(" ",))


def words_of(*rows):
    """Rows token, kind, occlusion of the gate, of the logit, integrated gradients."""
    found = []
    for position, (token, kind, gate, logit, share) in enumerate(rows):
        start = ("p", position, token, kind, "a")
        found += [
            (*start, say.OCCLUSION, "gate", gate, 0.9, 0.9 - gate),
            (*start, say.OCCLUSION, "logit", logit, 2.0, 2.0 - logit),
            (*start, say.GRADIENTS, "logit", share, 2.0, 0.5),
        ]
    return pd.DataFrame(found, columns=list(w.COLUMNS))


def test_sentences_name_the_word():
    table = words_of(
        ("<bos>", "special", 0.8, 9.0, 9.0),
        ("dog", "word", -0.1, -0.3, -0.5),
        ("cat", "word", 0.4, 1.5, 1.0),
        ("of", "word", 0.0, 0.1, -8.0),
    )
    assert say.sentence_word_map(table) == (
        "Without “cat” the gate a falls from 0.900 to 0.500: of 3 words it moves a gate most."
    )
    text = say.sentence_words(table)
    assert "taking away “cat” changes the logit most" in text
    assert "integrated gradients give most to “of”" in text
    assert "Rank correlation of the methods over 3 words: 0.50." in text
    assert "sum to 1.500 of a logit difference of 1.500" in text
    agreeing = words_of(("dog", "word", 0.01, 0.3, 0.5), ("cat", "word", 0.0494, 1.5, 1.0))
    assert "Both methods: “cat” counts most for the gate a." in say.sentence_words(agreeing)
    assert "no gate moves by more than 0.050" in say.sentence_word_map(agreeing)


def test_tokens_of_the_template_are_told_from_words():
    tokenizer = load_base(BaseConfig()).tokenizer
    for template in (PLAIN_TEMPLATE, "Q: {prompt}\nA:", "{prompt}"):
        prompt = "What is the plural of dog?"
        tokens = prompt_tokens(prompt, tokenizer, template)
        assert [token.id for token in tokens] == prompt_ids(prompt, tokenizer, template)
        on_words = [token.text for token in tokens if token.kind == "word"]
        assert on_words == ["What", "is", "the", "plural", "of", "dog", "?"]
        kinds = [token.kind for token in tokens]
        assert kinds[0] == "special"
        assert tokens[0].text == "<bos>"
        assert ("template" in kinds) == (template != "{prompt}")


def test_tokens_of_a_chat_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ bos_token }} w90 {{ messages[0]['content'] | trim }} w91"
    found = prompt_tokens(" w5 w90 ", tokenizer, "chat")
    assert [t.id for t in found] == prompt_ids(" w5 w90 ", tokenizer, "chat")
    assert [(t.text, t.kind) for t in found] == [
        ("<bos>", "special"),
        ("w90", "template"),
        ("w5", "word"),
        ("w90", "word"),
        ("w91", "template"),
    ]


def test_white_space_is_visible():
    assert visible(" a ") == "a"
    assert visible("\n\n") == "⏎⏎"
    assert visible("") == "(nothing)"


def test_a_prompt_that_also_stands_in_the_chat_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "w90 {{ messages[0]['content'] }} w91"
    found = prompt_tokens("w90", tokenizer, "chat")
    assert [t.kind for t in found] == ["template", "word", "template"]
