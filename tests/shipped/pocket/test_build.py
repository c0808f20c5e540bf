"""The shipped base: rebuilt by the command, small, and knowing functions only from examples."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from csreft_core.errors import ConfigError
from csreft_core.shipped.pocket import build, check
from csreft_core.shipped.pocket.lexicon import POCKET_FOLDER, SKILLS
from csreft_core.shipped.pocket.tokenizer import build_tokenizer

N_STEPS = 2
CARD = (POCKET_FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def short_build(tmp_path_factory):
    """The records of a build of a few steps, and its folder; the caller's state stays as it was."""
    out = tmp_path_factory.mktemp("build") / "pocket"
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    records = list(build.build(out, steps=N_STEPS, threads=threads + 1))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    return records, out


def test_short_build_repeats_the_stored_loss_curve(short_build):
    records, _ = short_build
    losses = [record["loss"] for record in records if record["event"] == "step"]
    curve = json.loads((POCKET_FOLDER / build.CURVE_FILE).read_text(encoding="utf-8"))
    assert curve["step"][:N_STEPS] == list(range(1, N_STEPS + 1))
    # Other CPUs add in another order; that stays far below one part in a thousand.
    np.testing.assert_allclose(losses, curve["loss"][:N_STEPS], rtol=1e-3)
    assert curve["step"][-1] == build.FULL_STEPS


def test_another_seed_gives_another_curve_and_a_stopped_build_leaves_nothing(tmp_path, short_build):
    """Positive control of the test above: the tolerance tells seeds apart."""
    records, _ = short_build
    others = build.build(tmp_path / "other", steps=2, seed=1)
    assert next(others)["loss"] != pytest.approx(records[0]["loss"], rel=1e-3)
    others.close()
    assert list(tmp_path.iterdir()) == []


def test_build_leaves_a_folder_that_loads(short_build):
    records, out = short_build
    assert records[-1]["event"] == "saved"
    assert records[-1]["sha256"] == build.file_sha256(out / "model.safetensors")
    assert {path.name for path in out.parent.iterdir()} == {"pocket"}
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.num_parameters() == records[-1]["n_parameters"]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert AutoTokenizer.from_pretrained(out).get_vocab() == build_tokenizer().get_vocab()


def test_build_into_a_used_folder_is_an_error(tmp_path):
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(ConfigError, match="new or empty folder"):
        next(build.build(tmp_path, steps=1))
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "keep"


@pytest.mark.parametrize("steps", [0, build.FULL_STEPS + 1])
def test_build_refuses_steps_out_of_range(tmp_path, steps):
    with pytest.raises(ConfigError, match="steps"):
        next(build.build(tmp_path / "pocket", steps=steps))


def test_shipped_base_is_small():
    """12 MB with everything but the source tables."""
    files = [path for path in POCKET_FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert (POCKET_FOLDER / "model.safetensors").stat().st_size > 1e6


def test_card_names_the_shipped_weights():
    assert build.file_sha256(POCKET_FOLDER / "model.safetensors") in CARD


def test_shipped_tokenizer_is_the_built_one():
    shipped = AutoTokenizer.from_pretrained(POCKET_FOLDER)
    assert shipped.get_vocab() == build_tokenizer().get_vocab()
    text = "Q: In Lyon or Marseille, cat is known as what?\nA:"
    assert shipped(text)["input_ids"] == build_tokenizer()(text)["input_ids"]
    assert shipped(text)["input_ids"][0] == shipped.bos_token_id


def test_knows_from_examples_and_not_without():
    table = check.knowledge_table(POCKET_FOLDER, per_skill=10)
    by_skill = {row.skill: row for row in table}
    assert {skill for skill in by_skill if "+" not in skill} == set(SKILLS)
    assert all(row.n == 10 for row in table)
    assert all(by_skill[skill].zero_shot <= 0.35 for skill in SKILLS), table
    assert np.mean([by_skill[skill].few_shot for skill in SKILLS]) >= 0.90
    assert all(row.few_shot >= 0.8 for row in table if "+" in row.skill), table


def test_untrained_base_knows_nothing(short_build):
    """Positive control: the check tells a base that knows from one that does not."""
    table = check.knowledge_table(short_build[1], per_skill=2)
    assert max(row.few_shot for row in table) < 0.5


def test_card_has_the_numbers_of_every_skill():
    rows = re.findall(r"^\| ([a-z]+(?: \+ [a-z]+)?) \| (\d+) \| [\d.]+ \| [\d.]+ \|$", CARD, re.M)
    named = {name: int(n) for name, n in rows}
    assert {row for row in named if "+" not in row} == set(SKILLS)
    assert all(named[skill] >= 100 for skill in SKILLS)
