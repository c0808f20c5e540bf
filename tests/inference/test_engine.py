"""One base, many callers: every answer is the one that a caller alone would get."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from csreft_core.attachment.attach import attach
from csreft_core.config import RouterConfig
from csreft_core.errors import AdapterError, ConfigError
from csreft_core.inference.engine import Engine
from csreft_core.inference.sampling import sampler
from tests.tiny import N_TOKENS, make_adapter, tiny_base, tokens

TEMPLATE = "{prompt} ?"


@pytest.fixture
def engine(tiny_llama):
    engine = Engine(tiny_base(tiny_llama))
    yield engine
    engine.close()


def text(*words: int) -> str:
    return " ".join(f"w{i}" for i in words)


PROMPT = text(5, 9, 31, 40)
SHORT = {"max_new_tokens": 4, "template": TEMPLATE}


@pytest.mark.fast
def test_answer_is_that_of_a_plain_generate(engine):
    adapter = make_adapter(engine.base, positions="all")
    answer = engine.generate(adapter, PROMPT, **SHORT)
    ids = engine.base.tokenizer(f"{PROMPT} ?", return_tensors="pt").input_ids
    engine.close()
    with torch.no_grad(), attach(engine.base, adapter):
        out = engine.base.model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    new = out[0, ids.shape[1] :]
    assert answer.text == engine.base.tokenizer.decode(new, skip_special_tokens=True)
    assert (answer.prompt, answer.n_tokens) == (PROMPT, len(new))


@pytest.mark.fast
def test_bare_base_and_adapter_answer_side_by_side(engine):
    adapter = make_adapter(engine.base, positions="all")
    bare, edited, off = (
        engine.generate(None, PROMPT, **SHORT),
        engine.generate(adapter, PROMPT, **SHORT),
        engine.generate(adapter, PROMPT, "off", **SHORT),
    )
    assert bare.gates is None
    assert bare.text == off.text
    assert bare.text != edited.text
    assert off.gates == {"skill 0": 0.0, "skill 1": 0.0}


@pytest.mark.fast
def test_gates_are_named_and_those_of_the_table(engine):
    adapter = make_adapter(engine.base)
    answer = engine.generate(adapter, PROMPT, **SHORT)
    table = engine.gates(adapter, [PROMPT, text(7)], template=TEMPLATE)
    assert tuple(answer.gates) == ("skill 0", "skill 1")
    assert list(answer.gates.values()) == pytest.approx(table[0].tolist(), abs=1e-6)
    assert not torch.equal(table[0], table[1])


def test_gates_of_many_prompts_do_not_depend_on_the_batch(engine):
    adapter = make_adapter(engine.base)
    prompts = [text(*row.tolist()) for row in tokens(3, 7, 5, 2, 9)]
    whole = engine.gates(adapter, prompts, template=TEMPLATE)
    parts = engine.gates(adapter, prompts, template=TEMPLATE, batch_size=2)
    torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)
    assert whole.shape == (5, 2)


def test_hard_gates_are_the_learned_ones_cut_at_the_threshold(engine):
    adapter = make_adapter(engine.base)
    prompts = [text(*row.tolist()) for row in tokens(3, 7, 5, 2, 9)]
    soft, hard = (
        engine.gates(adapter, prompts, how, template=TEMPLATE) for how in ("learned", "hard")
    )
    assert torch.equal(hard, (soft > adapter.router.threshold).float())
    assert not torch.equal(hard, soft)


def test_gates_need_no_block_above_the_router(engine):
    adapter = make_adapter(engine.base, layers=(2,), router=RouterConfig(layer=1))
    runs: list[int] = []
    above = engine.base.blocks[2].self_attn
    hook = above.register_forward_hook(lambda *_: runs.append(2))
    found = engine.gates(adapter, [PROMPT], template=TEMPLATE)
    assert not runs
    assert torch.equal(found, engine.trace(adapter, [PROMPT], template=TEMPLATE).gates)
    assert runs
    hook.remove()


@pytest.mark.parametrize("granularity", ["per_prompt", "per_token"])
def test_gates_per_token_report_the_last_prompt_token(engine, granularity):
    adapter = make_adapter(engine.base, router=RouterConfig(granularity=granularity))
    answer = engine.generate(adapter, PROMPT, **SHORT)
    table = engine.gates(adapter, [PROMPT, text(4, 5, 6, 7, 8, 9)], template=TEMPLATE)
    assert list(answer.gates.values()) == pytest.approx(table[0].tolist(), abs=1e-6)


def test_oracle_takes_the_true_skills(engine):
    adapter = make_adapter(engine.base)
    answer = engine.generate(adapter, PROMPT, "oracle", skills=["skill 1"], **SHORT)
    only = engine.generate(adapter, PROMPT, "only:skill 1", **SHORT)
    assert answer == only
    assert answer.gates == {"skill 0": 0.0, "skill 1": 1.0}
    rows = [["skill 0"], ["skill 0", "skill 1"]]
    table = engine.gates(adapter, [PROMPT, PROMPT], "oracle", template=TEMPLATE, skills=rows)
    assert table.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    with pytest.raises(ConfigError, match="needs the skill of each prompt"):
        engine.generate(adapter, PROMPT, "oracle", **SHORT)


def test_streamed_pieces_are_the_answer(engine):
    adapter = make_adapter(engine.base, positions="all")
    expected = engine.generate(adapter, PROMPT, **SHORT)
    pieces, answer = drained(engine.stream(adapter, PROMPT, **SHORT))
    assert "".join(pieces).strip() == expected.text
    assert len(pieces) > 1
    assert answer == expected


def drained(stream):
    """The pieces of a stream, and what it returns."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def test_a_failure_while_streaming_reaches_the_caller(engine):
    adapter = make_adapter(engine.base, router=RouterConfig(gates="oracle"))
    with pytest.raises(ConfigError, match="has no router"):
        list(engine.stream(adapter, PROMPT, **SHORT))
    assert engine.generate(None, PROMPT, **SHORT).n_tokens > 0


def test_a_stream_that_is_left_early_harms_nobody(engine):
    adapter = make_adapter(engine.base, positions="all")
    stream = engine.stream(adapter, PROMPT, **SHORT)
    next(stream)
    stream.close()
    bare = engine.generate(None, PROMPT, **SHORT)
    assert bare.gates is None
    assert bare == engine.generate(None, PROMPT, **SHORT)


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_empty_prompt(engine, prompt):
    with pytest.raises(ConfigError, match="the prompt is empty; write a question"):
        engine.generate(None, prompt, **SHORT)


def test_no_prompts(engine):
    assert engine.gates(make_adapter(engine.base), [], template=TEMPLATE).shape == (0, 2)


def test_too_long_prompt(engine):
    with pytest.raises(ConfigError, match="has 128 tokens, the base reads at most 128; shorten"):
        engine.generate(None, text(*[5] * 127), **SHORT)
    answer = engine.generate(None, text(*[5] * 125), max_new_tokens=50, template=TEMPLATE)
    assert 1 <= answer.n_tokens <= 2


def test_adapter_of_another_base(engine):
    with pytest.raises(AdapterError, match="trained on a base with other weights"):
        engine.generate(make_adapter(), PROMPT, **SHORT)


def test_setting_that_does_not_fit(engine):
    with pytest.raises(ConfigError, match="no subspace 'french'"):
        engine.generate(make_adapter(engine.base), PROMPT, "only:french", **SHORT)


def test_adapters_in_training_mode_do_not_drop_anything(engine):
    adapter = make_adapter(engine.base, dropout=0.5, positions="all")
    expected = engine.generate(adapter, PROMPT, **SHORT)
    assert engine.generate(adapter, PROMPT, **SHORT) == expected


def test_close_unwraps_the_base(engine):
    engine.generate(make_adapter(engine.base, layers=(0,)), PROMPT, **SHORT)
    parts = engine.base.model, engine.base.blocks[0]
    assert all("forward" in vars(part) for part in parts)
    engine.close()
    assert not any("forward" in vars(part) for part in parts)


# --- drawing -----------------------------------------------------------------------------------

DRAWN = {"max_new_tokens": 8, "template": TEMPLATE, "temperature": 1.0}


def test_a_seed_gives_one_text_and_other_seeds_give_others(engine):
    adapter = make_adapter(engine.base, positions="all")
    answers = [engine.generate(adapter, PROMPT, seed=seed, **DRAWN) for seed in range(4)]
    assert answers == [engine.generate(adapter, PROMPT, seed=seed, **DRAWN) for seed in range(4)]
    assert len({answer.text for answer in answers}) >= 3
    streamed = [drained(engine.stream(adapter, PROMPT, seed=s, **DRAWN))[1] for s in range(4)]
    assert streamed == answers


def test_temperature_zero_is_greedy_whatever_the_seed(engine):
    adapter = make_adapter(engine.base, positions="all")
    greedy = engine.generate(adapter, PROMPT, **SHORT)
    for seed in range(4):
        cold = engine.generate(adapter, PROMPT, temperature=0.0, top_p=0.5, seed=seed, **SHORT)
        assert cold == greedy
    # A narrow nucleus leaves only the most likely token: drawn, and the same again.
    narrow = {**SHORT, "temperature": 1.0, "top_p": 1e-6}
    assert engine.generate(adapter, PROMPT, seed=5, **narrow) == greedy
    assert engine.generate(adapter, PROMPT, seed=5, **{**narrow, "top_p": 1.0}) != greedy


def test_drawing_leaves_the_global_random_state_alone(engine):
    before = torch.get_rng_state()
    engine.generate(None, PROMPT, seed=3, **DRAWN)
    list(engine.stream(None, PROMPT, seed=3, **DRAWN))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        other = engine.generate(None, PROMPT, seed=3, **DRAWN)
    assert other == engine.generate(None, PROMPT, seed=3, **DRAWN)


def first_tokens(logits, n, temperature=1.0, top_p=1.0):
    """The first token drawn under each of n seeds."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    drawn = [int(sampler(temperature, top_p, seed)(ids, logits).argmax(-1)) for seed in range(n)]
    return np.bincount(drawn, minlength=logits.shape[1])


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_first_token_over_many_seeds_follows_the_softmax(engine, temperature):
    """The p-value is that of these fixed seeds; a wrong law gives far below 1e-6 (last line)."""
    logits = 8 * engine.trace(None, [PROMPT], template=TEMPLATE).logits
    n = 2000
    found = first_tokens(logits, n, temperature)
    probability = (logits[0].double() / temperature).softmax(-1).numpy()

    def p_value(expected):
        large = expected * n >= 5  # the test needs 5 expected draws a cell
        large &= expected > expected[large].min()  # the rest is one cell, never an empty one
        cells = [np.append(x[large], x[~large].sum()) for x in (found, expected * n)]
        assert large.sum() >= 3
        return chisquare(*cells).pvalue

    assert p_value(probability) > 0.01
    assert p_value((logits[0].double() / (1.3 * temperature)).softmax(-1).numpy()) < 1e-6


def test_the_engine_draws_what_the_sampler_draws(engine):
    logits = engine.trace(None, [PROMPT], template=TEMPLATE).logits
    found = np.zeros(N_TOKENS)
    for seed in range(20):
        answer = engine.generate(
            None, PROMPT, max_new_tokens=1, temperature=0.7, seed=seed, template=TEMPLATE
        )
        ids = engine.base.tokenizer(answer.text).input_ids or [None]
        found[ids[0]] += ids[0] is not None
    expected = first_tokens(logits, 20, 0.7)
    expected[[0, 1, 2, -1]] = 0  # special tokens are left out of the text
    assert expected.sum() > 10
    assert found.tolist() == expected.tolist()


def test_top_p_draws_from_the_most_likely_tokens_only():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert (first_tokens(logits, 300) > 0).all()
    assert (first_tokens(logits, 300, top_p=0.75) > 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 5.1}, "temperature is 5.1"),
        ({"top_p": 0.0}, "top-p is 0.0; it must be above 0"),
        ({"top_p": 1.5}, "top-p is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_a_setting_of_the_draw_out_of_its_range(engine, setting, message):
    with pytest.raises(ConfigError, match=message):
        engine.generate(None, PROMPT, **setting)


def test_four_threads_draw_what_they_would_draw_alone(engine):
    adapter = make_adapter(engine.base, positions="all")
    jobs = [(None if seed % 2 else adapter, seed) for seed in range(8)]

    def ask(job):
        return drained(engine.stream(job[0], PROMPT, seed=job[1], **DRAWN))[1]

    alone = [ask(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, jobs)) == alone
    assert len({answer.text for answer in alone}) >= 6


# --- many callers ----------------------------------------------------------------------------

N_THREADS, N_CALLS = 8, 5
SETTINGS = ("learned", "hard", "uniform", "off", "only:skill 0", "0.3,-1", "learned", "uniform")


class Caller:
    """One thread's adapter, setting and prompts; the last one streams."""

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine, self.number = engine, number
        self.adapter = None
        if number != 3:
            positions = ("all", "l1", "f2+l2", "all_prompt")[number % 4]
            granularity = "per_token" if number % 3 == 1 else "per_prompt"
            self.adapter = make_adapter(
                engine.base,
                layers=((1,), (0, 2))[number % 2],
                positions=positions,
                router=RouterConfig(granularity=granularity),
                seed=number,
            )
        lengths = [2 + (number + i) % 5 for i in range(N_CALLS)]
        self.prompts = [text(*row.tolist()) for row in tokens(*lengths, seed=number)]

    def call(self, i: int) -> object:
        prompt, setting = self.prompts[i], SETTINGS[self.number]
        if self.number == N_THREADS - 1:
            pieces = self.engine.stream(
                self.adapter, prompt, setting, max_new_tokens=2, template=TEMPLATE
            )
            return "".join(pieces).strip()
        return self.engine.generate(
            self.adapter, prompt, setting, max_new_tokens=2, template=TEMPLATE
        )


def test_eight_threads_get_the_answers_that_they_would_get_alone(engine):
    """5 calls each; two new tokens, so that the edit of the prompt and of an answer both show."""
    torch.set_num_threads(1)
    callers = [Caller(engine, number) for number in range(N_THREADS)]
    alone = [[caller.call(i) for i in range(N_CALLS)] for caller in callers]
    together = threading.Barrier(N_THREADS)

    def work(caller: Caller) -> list[object]:
        together.wait()
        return [caller.call(i) for i in range(N_CALLS)]

    with ThreadPoolExecutor(N_THREADS) as pool:
        answers = list(pool.map(work, callers))
    for caller, got, expected in zip(callers, answers, alone, strict=True):
        assert got == expected, caller.number
    # Callers differ, or a mix-up would not show.
    prompt = callers[0].prompts[0]
    texts = {
        engine.generate(caller.adapter, prompt, SETTINGS[caller.number], **SHORT).text
        for caller in callers
    }
    assert len(texts) >= 4
