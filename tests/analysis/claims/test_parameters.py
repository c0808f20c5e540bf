"""The parameter calculator against the papers' printed numbers and against real modules."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaModel

from csreft_core.analysis.claims import parameter_formulas as f
from csreft_core.analysis.claims import parameters as p
from csreft_core.config import preset, with_overrides
from csreft_core.errors import ConfigError
from csreft_core.reft.adapter import build_adapter, parameter_counts
from csreft_core.reft.router import Router

PUBLISHED = {
    ("LoReFT, instructions", "Llama-2 7B"): 262_176,
    ("LoReFT, instructions, half rank", "Llama-2 7B"): 131_088,
    ("LoReFT, commonsense", "Llama-2 7B"): 2_097_408,
    ("LoReFT, commonsense", "Llama-2 13B"): 3_277_120,
    ("LoReFT, commonsense", "Llama-3 8B"): 2_097_408,
    ("LoReFT, GLUE", "RoBERTa base"): 18_444,
    ("LoReFT, GLUE", "RoBERTa large"): 49_176,
    ("RED", "Llama-2 7B"): 262_144,
    ("LoRA", "Llama-2 7B"): 8_388_608,
    ("LoRA of LLM-Adapters", "Llama-2 7B"): 56_098_816,
    ("DoRA", "Llama-2 7B"): 56_975_360,
    ("prefix tuning", "Llama-2 7B"): 2_621_440,
    ("CS-ReFT's router alone", "Llama-2 7B"): 8_398_852,
}


def test_published_counts_to_the_unit():
    table = p.published_table()
    found = dict(
        zip(zip(table["method"], table["base"], strict=True), table["parameters"], strict=True)
    )
    assert found == PUBLISHED


def test_every_printed_share_is_reached():
    table = p.published_table()
    with_share = table[table["printed"] != ""]
    assert len(with_share) == len(PUBLISHED) - 1
    assert with_share["agrees"].all()
    # The denominators differ: only the tables of LLM-Adapters count what is trained as well.
    lora = table.set_index("method").loc["LoRA of LLM-Adapters"]
    llama = f.shape_of("Llama-2 7B").parameters
    assert f.round_like(f.share(int(lora["parameters"]), llama), "0.826") != "0.826"
    assert (
        f.round_like(f.share(int(lora["parameters"]), int(lora["denominator"])), "0.826") == "0.826"
    )


def test_two_readings_of_the_lora_baseline_have_the_same_count():
    llama = f.shape_of("Llama-2 7B")
    both = [f.lora_parameters(llama, 16, ("q", "v")), f.lora_parameters(llama, 8, tuple("qkvo"))]
    assert both == [8_388_608, 8_388_608]
    # The first weight matrix of the paper's router has the very same number of entries.
    assert both[0] == 4096 * 2048


@pytest.mark.parametrize(
    ("base", "model", "config"),
    [
        ("Llama-2 7B", LlamaForCausalLM, LlamaConfig()),
        (
            "Llama-2 13B",
            LlamaForCausalLM,
            LlamaConfig(
                hidden_size=5120,
                intermediate_size=13824,
                num_hidden_layers=40,
                num_attention_heads=40,
            ),
        ),
        (
            "Llama-3 8B",
            LlamaForCausalLM,
            LlamaConfig(intermediate_size=14336, num_key_value_heads=8, vocab_size=128256),
        ),
        (
            "RoBERTa base",
            RobertaModel,
            RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1),
        ),
        (
            "RoBERTa large",
            RobertaModel,
            RobertaConfig(
                vocab_size=50265,
                max_position_embeddings=514,
                type_vocab_size=1,
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                intermediate_size=4096,
            ),
        ),
    ],
)
def test_the_shapes_are_those_of_the_real_models(base, model, config):
    with torch.device("meta"):
        built = model(config)
    shape = f.shape_of(base)
    assert sum(x.numel() for x in built.parameters()) == shape.parameters
    assert (shape.d_model, shape.n_layers) == (config.hidden_size, config.num_hidden_layers)
    assert shape.d_ff == config.intermediate_size
    names = dict(built.named_parameters())
    key = next(x for name, x in names.items() if name.endswith(("k_proj.weight", "key.weight")))
    assert shape.d_kv == key.shape[0]


@pytest.mark.parametrize("form", ["loreft", "direft", "noreft", "consreft", "lobireft"])
@pytest.mark.parametrize("positions", ["l1", "f2+l2"])
def test_the_subspace_formula_is_what_the_modules_hold(form, positions):
    groups = 2 if "+" in positions else 1
    constraint = "none" if form == "noreft" else "within"
    changes = [
        f"adapter.form={form}",
        f"adapter.constraint={constraint}",
        "adapter.init=random",
        "adapter.layers=[0,2]",
        "adapter.rank=3",
        f"adapter.positions={positions}",
        f"adapter.tied={'false' if groups == 2 else 'true'}",
    ]
    config = with_overrides(preset("recommended"), changes)
    adapter = build_adapter(
        config, d_model=32, n_layers=3, skills=("a", "b", "c", "d"), base_fingerprint="x"
    )
    counts = parameter_counts(adapter)
    expected = f.subspace_parameters(32, rank=3, layers=2, subspaces=4, groups=groups, form=form)
    assert counts["subspaces"] == expected
    assert counts["router"] == f.router_parameters(32, 32, 4, norm=True)


def test_the_paper_router_formula_is_what_the_module_holds():
    router = Router(
        d_model=64, n_subspaces=4, hidden="paper", generator=torch.Generator().manual_seed(0)
    )
    assert sum(x.numel() for x in router.parameters()) == f.paper_router_parameters(64, 4)


def test_the_calculator_gives_both_parts_and_the_controls():
    table = p.calculator_table(subspaces=4, rank=4, layers=4, router="paper")
    found = table.set_index(["method", "part"])["parameters"]
    assert found["CS-ReFT", "subspaces"] == 524_352
    assert found["CS-ReFT", "router"] == 8_398_852
    assert found["LoReFT of rank 16", "all"] == found["CS-ReFT", "subspaces"]
    small = p.calculator_table(router="32").set_index(["method", "part"])["parameters"]
    assert small["CS-ReFT"].sum() == 659_684
    none = p.calculator_table(router="none").set_index(["method", "part"])["parameters"]
    assert none["CS-ReFT", "router"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "Llama-9"}, "unknown base 'Llama-9'; choose one of Llama-2 7B"),
        ({"rank": 0}, "must be at least 1"),
        ({"groups": 3}, "groups is 1"),
        ({"layers": 33}, "Llama-2 7B has 1 to 32"),
        ({"router": "wide"}, "give 'paper', 'none' or a width"),
        ({"router": "0"}, "give 'paper', 'none' or a width"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        p.calculator_table(**change)


def test_the_interval_that_prints_the_papers_share():
    llama = f.shape_of("Llama-2 7B").parameters
    low, high = f.print_interval("0.0098", llama)
    assert (low, high) == (656_996, 663_733)
    inside = [f.round_like(f.share(n, llama), "0.0098") for n in (low, high)]
    outside = [f.round_like(f.share(n, llama), "0.0098") for n in (low - 1, high + 1)]
    assert inside == ["0.0098", "0.0098"]
    assert outside == ["0.0097", "0.0099"]


def test_the_inversion_of_the_papers_share():
    table = p.inversion_table().set_index("reading")
    alone = table.loc["subspaces alone, ranks that fit"]
    assert alone["ranks"] == 81
    assert alone["prints"] == "0.0098"
    assert not alone["possible"]
    near = table.loc["subspaces alone, nearest with k = 4"]
    assert (near["total"], near["prints"], near["prints_nominal"]) == (655_440, "0.0097", "0.0098")
    assert near["possible"]
    small = table.loc["a small router (32 wide, with a norm), counted"]
    assert (small["subspaces"], small["router"], small["total"]) == (524_352, 135_332, 659_684)
    assert small["prints"] == "0.0098"
    whole = table.loc["80 ranks and the router of section 4"]
    assert (whole["total"], whole["prints"]) == (9_054_292, "0.1344")
    assert table.loc["the router of section 4 alone", "prints"] == "0.1246"


def test_only_81_ranks_fit_and_no_setting_with_four_subspaces_has_them():
    llama = f.shape_of("Llama-2 7B")
    low, high = f.print_interval(p.PAPER_SHARE, llama.parameters)
    one = f.edit_parameters("loreft", llama.d_model, 1)
    assert [n for n in range(1, 200) if low <= n * one <= high] == [81]
    assert p.configurations_table(ranks=81).empty
    settings = p.configurations_table(ranks=80)
    assert len(settings) == 10
    sums = settings["subspaces"] * settings["rank"] * settings["layers"] * settings["groups"]
    assert (sums == 80).all()
    assert {(4, 5, 4, 1), (4, 4, 5, 1), (4, 20, 1, 1), (4, 5, 2, 2)} <= set(
        settings[["subspaces", "rank", "layers", "groups"]].itertuples(index=False, name=None)
    )
