"""Tables about a base: need against free, estimate against measurement, its layers."""

from dataclasses import replace

import pandas as pd
import pytest
from transformers import Gemma2Config

from csreft_core.analysis.base import sentences as say
from csreft_core.analysis.base import tables
from csreft_core.base.load import load_base
from csreft_core.base.memory.need import need, shape_of
from csreft_core.config import BaseConfig, preset, with_overrides
from tests.families import build
from tests.tiny import tiny_base

GB = 10**9


@pytest.fixture(scope="module")
def pocket():
    return load_base(BaseConfig())


def test_the_need_table_is_the_need_of_the_settings_in_parts():
    config = with_overrides(preset("recommended"), ["train.batch_size=8", "train.max_length=64"])
    parts = need(shape_of(config.base), config, batch=8, length=64, answer=16)
    table = tables.need_table(config, free=5 * GB)
    by_part = table.set_index("part")["bytes"]
    assert by_part.drop("free").sum() == parts.total
    assert by_part["activations"] == parts.activations > 0
    assert by_part["free"] == 5 * GB


def test_rows_are_cut_to_what_the_base_reads_and_micro_batches_count():
    long = with_overrides(preset("recommended"), ["train.max_length=5000"])
    whole = with_overrides(preset("recommended"), ["train.max_length=256"])
    assert tables.needed(long) == tables.needed(whole)
    split = with_overrides(whole, ["train.accumulate=4"])
    assert tables.needed(split) == tables.needed(with_overrides(whole, ["train.batch_size=8"]))
    assert tables.needed(split).activations < tables.needed(whole).activations


def test_answering_is_for_one_prompt_and_needs_no_optimiser():
    one, many = (with_overrides(preset("recommended"), [f"train.batch_size={n}"]) for n in (1, 64))
    assert tables.needed(one, training=False) == tables.needed(many, training=False)
    assert tables.needed(one, training=False).optimizer == 0 < tables.needed(one).optimizer


def test_the_need_of_a_listed_base_is_known_without_its_files():
    # Published count of SmolLM2-135M; nothing is fetched in a test.
    config = with_overrides(preset("recommended"), ["base.path=HuggingFaceTB/SmolLM2-135M"])
    assert 0 <= tables.needed(config).weights - 4 * 134_515_008 < 10**5
    half = replace(config, base=replace(config.base, precision="bf16"))
    assert 0 <= tables.needed(half).weights - 2 * 134_515_008 < 10**5


def test_the_estimate_of_the_shipped_base_is_within_a_tenth(pocket):
    table = tables.measured_table(pocket, tables.needed(preset("recommended")))
    row = table.iloc[0]
    assert row["measured"] >= 4 * pocket.n_parameters
    assert abs(row["error"]) < 0.1
    assert row["error"] == pytest.approx(row["estimated"] / row["measured"] - 1)


def test_the_layers_of_a_loaded_base_add_up_to_its_weights(pocket):
    table = tables.layers_table(pocket)
    assert list(table["layer"]) == list(range(6))
    outside = [p for n, p in pocket.model.named_parameters() if "layers." not in n]
    assert table["parameters"].sum() + sum(p.numel() for p in outside) == pocket.n_parameters
    assert list(table["bytes"]) == list(4 * table["parameters"])
    assert set(table["device"]) == {"cpu"}
    assert set(table["d_model"]) == {128}


def test_planned_layers_are_those_of_the_loaded_base_but_for_bytes_and_device(pocket):
    planned, loaded = tables.planned_layers_table(BaseConfig()), tables.layers_table(pocket)
    same = ["layer", "block", "attention", "d_model", "parameters"]
    pd.testing.assert_frame_equal(planned[same], loaded[same])
    assert planned["bytes"].isna().all()
    assert not planned["device"].any()


def test_alternating_attention_is_named():
    table = tables.layers_table(tiny_base(build("gemma2")))
    window = Gemma2Config().sliding_window
    assert list(table["attention"]) == [
        f"last {window} tokens",
        "all earlier tokens",
        f"last {window} tokens",
    ]
    assert set(tables.layers_table(tiny_base(build("gpt2")))["attention"]) == {"all earlier tokens"}


def test_four_bit_layers_count_all_their_weights_and_fewer_bytes(tmp_path):
    pytest.importorskip("bitsandbytes")
    model = build("llama")
    model.save_pretrained(tmp_path)
    tiny_base(model).tokenizer.save_pretrained(tmp_path)
    plain, packed = (
        tables.layers_table(load_base(BaseConfig(path=str(tmp_path), precision=precision)))
        for precision in ("fp32", "nf4")
    )
    assert list(packed["parameters"]) == list(plain["parameters"])
    assert (packed["bytes"] < plain["bytes"]).all()


def need_rows(needed: int, free: int) -> pd.DataFrame:
    rows = [("needed", "weights", needed - 1), ("needed", "logits", 1), ("free", "free", free)]
    return pd.DataFrame(rows, columns=["kind", "part", "bytes"])


def test_the_sentence_says_whether_it_fits():
    assert "It fits. Training needs 2.0 GB of 2.0 GB free" in say.sentence_need(
        need_rows(2 * GB, 2 * GB), "Training"
    )
    text = say.sentence_need(need_rows(3 * GB, 2 * GB), "Training")
    assert text.startswith("It does not fit. Training needs 3.0 GB, 1.0 GB more than the 2.0")
    assert "largest part is weights, 3.0 GB" in text


def test_the_sentence_about_known_bases_names_the_largest_that_fits():
    rows = [
        ("a", "fp32", 1 * GB, 2 * GB),
        ("b", "fp32", 2 * GB, 2 * GB),
        ("c", "fp32", 3 * GB, 2 * GB),
    ]
    table = pd.DataFrame(rows, columns=["base", "precision", "bytes", "free"])
    text = say.sentence_known(table, "fp32")
    assert "2 of 3 known bases fit; the largest is b with 2.0 GB" in text
    assert "0 of 3" in say.sentence_known(table.assign(free=1), "fp32")


@pytest.mark.parametrize(
    ("estimated", "text"),
    [(100, "exact: 100 bytes"), (110, "10.00% too high"), (90, "10.00% too low")],
)
def test_the_sentence_about_the_estimate(estimated, text):
    row = ("weights", estimated, 100, estimated / 100 - 1)
    table = pd.DataFrame([row], columns=["part", "estimated", "measured", "error"])
    assert text in say.sentence_measured(table)


def test_the_sentence_about_layers_counts_the_blocks_above(pocket):
    table = tables.layers_table(pocket)
    assert "layer 4 (0 to 5). 1 block lies above" in say.sentence_layers(table, [4])
    assert "layers 1, 3 (0 to 5). 4 blocks lie above" in say.sentence_layers(table, [1, 3])
    assert "No layer" in say.sentence_layers(table, [])
