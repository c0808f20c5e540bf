"""The Model page: a base, whether it fits, its load, its layers, and the next run."""

import json
import shlex
from pathlib import Path
from threading import Event

import pytest
from transformers import BertConfig, BertForMaskedLM

from csreft_core.__main__ import main
from csreft_core.analysis.base import tables
from csreft_core.app.base import fit as base_fit
from csreft_core.app.page import cached
from csreft_core.base.load import load_base
from csreft_core.config import known_bases
from csreft_core.inference.loaded_bases import LoadedBases
from tests.families import build
from tests.page_runs import assert_no_bug, n_charts, run_until, texts
from tests.tiny import tiny_tokenizer

PAGE = "pages/Model.py"
MB, GB = 10**6, 10**9

pytestmark = pytest.mark.usefixtures("tmp_runs")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    """A random Llama of 3 layers that reads 64 tokens, as transformers saves it."""
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    build("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def bases(monkeypatch):
    """No base is in memory at the beginning of a test."""
    found = LoadedBases(most=2)
    monkeypatch.setattr(cached, "bases", lambda: found)
    return found


@pytest.fixture
def free(monkeypatch):
    def set_to(n_bytes: int) -> None:
        for module in (tables, base_fit):
            monkeypatch.setattr(module, "free_bytes", lambda _device: n_bytes)

    return set_to


def table_of_layers(app):
    return next(d for d in app.dataframe if d.key == "base-layers").value


def ticked(app):
    return list(app.session_state["base-layers"]["selection"]["rows"])


def in_folder(folder: Path) -> dict[str, str]:
    return {"base-from": "folder", "base-folder": str(folder)}


def test_a_first_start_shows_the_shipped_base_loaded_with_true_numbers(open_app, bases):
    app = open_app(PAGE)
    assert not app.error
    assert n_charts(app) == 1
    assert "It fits. Training, 32 rows of 256 tokens" in texts(app)
    numbers = {metric.label: metric.value for metric in app.metric}
    assert numbers["Parameters"] == "1,419,904"
    assert numbers["Layers"] == "6"
    assert numbers["Estimate off by"] == "+0.00%"
    assert list(table_of_layers(app)["bytes"]) == [852_992] * 6
    assert ticked(app) == [1]
    assert [config.path for config in bases.everything()] == ["pocket"]


def test_the_shown_command_and_code_give_the_same_numbers(open_app, free, capsys, monkeypatch):
    free(GB)
    app = open_app(PAGE, batch="16", length="128")
    app.session_state["data-need"] = True
    app.run()
    assert_no_bug(app)
    code, command = (block.value for block in app.code[:2])
    assert main([*shlex.split(command)[3:], "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scope = {}
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda _figure: None)
    exec(code, scope)
    by_part = scope["table"].set_index("part")["bytes"]
    assert by_part.drop("free").sum() == printed["training"]["total"]
    assert (printed["rows"], printed["length"]) == (16, 128)


def test_the_choice_is_in_the_address_and_survives_a_page_switch(open_app):
    app = open_app(PAGE, batch="8", edit="2-4", **{"for": "answering"})
    assert ticked(app) == [2, 4]
    assert "Answering a prompt, 1 row of 256 tokens" in texts(app)
    app.select_slider(key="length").set_value("64").run()
    app.selectbox(key="precision").select("bf16").run()
    assert_no_bug(app)
    app.switch_page("pages/Runs.py").run()
    app.query_params.clear()
    app.switch_page(PAGE).run()
    assert_no_bug(app)
    found = {name: app.query_params.get(name) for name in ("batch", "length", "precision", "edit")}
    assert {k: v if isinstance(v, str) else v[0] for k, v in found.items()} == {
        "batch": "8",
        "length": "64",
        "precision": "bf16",
        "edit": "2-4",
    }


def test_what_the_address_says_wrongly_is_left_out(open_app):
    app = open_app(PAGE, base="none", precision="fp1", batch="x", edit="a-b", device="tpu")
    assert not app.error
    assert app.selectbox(key="base").value == "pocket"
    assert ticked(app) == [1]


@pytest.mark.fast
@pytest.mark.parametrize("source", ["folder", "hub"])
def test_without_a_base_the_page_says_what_to_give(open_app, source):
    app = open_app(PAGE, **{"base-from": source})
    assert "Give a folder or a Hub id" in texts(app)
    assert not app.error
    assert n_charts(app) == 0


def test_a_folder_that_is_none_and_an_encoder_are_refused_with_a_reason(open_app, tmp_path):
    app = open_app(PAGE, **in_folder(tmp_path / "missing"))
    assert ["no folder with a config.json" in error.value for error in app.error] == [True]
    assert n_charts(app) == 0
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 96,
        "intermediate_size": 64,
    }
    BertForMaskedLM(BertConfig(**small)).save_pretrained(tmp_path / "encoder")
    app.text_input(key="base-folder").set_value(str(tmp_path / "encoder")).run()
    assert_no_bug(app)
    assert ["decoder-only causal language model" in error.value for error in app.error] == [True]


def test_a_hub_id_without_a_network_is_a_message(open_app):
    app = open_app(PAGE, **{"base-from": "hub", "base-hub": "nobody/nothing"})
    assert ["cannot be reached" in error.value for error in app.error] == [True]


def test_a_gated_base_says_what_to_do_and_needs_no_network(open_app, free):
    free(10 * GB)
    app = open_app(PAGE, base="google/gemma-3-1b-pt", precision="bf16", edit="5-11")
    assert not app.error
    assert "accept the licence on that page" in texts(app)
    assert list(table_of_layers(app)["attention"][:6]) == ["last 512 tokens"] * 5 + [
        "all earlier tokens"
    ]
    assert not app.button(key="load").disabled


def test_what_does_not_fit_says_so_and_offers_what_does(open_app, free):
    free(100 * MB)
    app = open_app(PAGE)
    assert "It does not fit." in texts(app)
    assert "`train.accumulate=" in texts(app)
    app.button(key="smaller").click().run()
    assert_no_bug(app)
    assert "It fits" in texts(app)
    assert "train.accumulate=" in str(app.query_params["set"])
    app.select_slider(key="batch").set_value("1").run()
    assert_no_bug(app)
    assert "Training, 1 row of 256 tokens" in texts(app)


def test_a_base_whose_weights_do_not_fit_cannot_be_loaded(open_app, free, tiny_folder):
    free(10_000)
    app = open_app(PAGE, **in_folder(tiny_folder))
    assert app.button(key="load").disabled
    assert "weights alone do not fit" in texts(app)
    free(GB)
    app.run()
    assert not app.button(key="load").disabled


def test_a_load_shows_how_far_it_is_and_ends_in_the_measured_base(open_app, bases, tiny_folder):
    app = open_app(PAGE, **in_folder(tiny_folder))
    assert not app.metric
    assert "bytes" in table_of_layers(app)
    app.button(key="load").click().run()
    run_until(app, lambda a: a.metric)
    numbers = {metric.label: metric.value for metric in app.metric}
    assert numbers["Layers"] == "3"
    assert table_of_layers(app)["bytes"].gt(0).all()
    (held,) = bases.everything().values()
    assert numbers["Parameters"] == f"{held.engine.base.n_parameters:,}"
    unload = next(b for b in app.button if b.key.startswith("unload"))
    unload.click().run()
    assert_no_bug(app)
    assert not bases.everything()
    assert not app.button(key="load").disabled


def test_a_load_can_be_cancelled(open_app, monkeypatch, tiny_folder):
    halfway, go = Event(), Event()

    def slow(config, progress):
        progress("loading weights", 1, 4)
        halfway.set()
        assert go.wait(60)
        progress("loading weights", 2, 4)
        return load_base(config, progress)

    bases = LoadedBases(load=slow)
    monkeypatch.setattr(cached, "bases", lambda: bases)
    app = open_app(PAGE, **in_folder(tiny_folder))
    app.button(key="load").click().run()
    assert halfway.wait(60)
    app.run()
    assert_no_bug(app)
    assert app.get("progress")[0].text == "loading weights, 25%"
    (load,) = bases._loads.values()
    app.button(key="cancel").click().run()
    assert_no_bug(app)
    assert not app.get("progress")
    go.set()
    assert load.future.exception(60) is not None
    app.run()
    assert not app.error
    assert not bases.everything()
    assert not app.button(key="load").disabled


def test_a_load_that_fails_says_why(open_app, tiny_folder, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    app = open_app(PAGE, **in_folder(broken))
    assert not app.error
    app.button(key="load").click().run()
    run_until(app, lambda a: a.error)
    assert "safetensors" in app.error[0].value
    assert not app.button(key="load").disabled


def test_layers_that_the_base_lacks_are_said_and_the_middle_is_ticked(open_app, tiny_folder):
    app = open_app(PAGE, set=["adapter.layers=[4]"], **in_folder(tiny_folder))
    assert "edit layer 4, but this base has 3 (0 to 2)" in texts(app)
    assert ticked(app) == [1]
    assert "Edits at the output of layer 1 (0 to 2)" in texts(app)


def test_the_base_and_its_layers_become_those_of_the_next_run(open_app, tiny_folder):
    app = open_app(PAGE, precision="bf16", edit="0-2", **in_folder(tiny_folder))
    app.button(key="use").click().run()
    assert_no_bug(app)
    assert "`adapter.layers=[0, 2]`" in texts(app)
    app.switch_page("pages/Train.py").run()
    assert_no_bug(app)
    assert set(app.query_params["set"]) == {
        f"base.path={tiny_folder}",
        "base.precision=bf16",
        "adapter.layers=[0, 2]",
    }


def test_ticked_rows_are_the_edited_layers_and_none_cannot_be_used(open_app):
    app = open_app(PAGE, edit="")
    assert ticked(app) == []
    assert "No layer is chosen" in texts(app)
    assert app.button(key="use").disabled
    app.button(key="middle").click().run()
    assert_no_bug(app)
    assert ticked(app) == [2]
    assert not app.button(key="use").disabled


def test_a_server_can_limit_the_bases_to_a_folder(open_app, tiny_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CSREFT_BASES", str(tiny_folder.parent))
    app = open_app(PAGE, **in_folder(tmp_path), **{"base-hub": "a/b"})
    assert app.selectbox(key="base-folder").options == ["tiny"]
    assert app.segmented_control(key="base-from").options == ["A known base", "A folder"]
    assert not app.error
    assert list(table_of_layers(app)["layer"]) == [0, 1, 2]
    app.segmented_control(key="base-from").set_value("known").run()
    assert app.selectbox(key="base").options == [
        "Pocket · shipped",
        "SmolLM2 135M Instruct · one command fetches it",
    ]


def test_a_limited_server_refuses_other_bases_on_the_train_page(open_app, tiny_folder, monkeypatch):
    asked = {"set": [f"base.path={tiny_folder}"]}
    app = open_app("pages/Train.py", **asked)
    assert not any("cannot be chosen" in error.value for error in app.error)
    monkeypatch.setenv("CSREFT_BASES", str(tiny_folder))
    app = open_app("pages/Train.py", **asked)
    assert any("this server offers pocket" in error.value for error in app.error)
    assert app.button(key="start").disabled


def test_the_known_bases_are_compared_on_request(open_app, monkeypatch):
    few = {path: known_bases()[path] for path in ("pocket", "openai-community/gpt2")}
    monkeypatch.setattr(tables, "known_bases", lambda: few)
    app = open_app(PAGE)
    assert n_charts(app) == 1
    app.session_state["known-panel"] = True
    app.run()
    assert_no_bug(app)
    assert n_charts(app) == 2
    assert "In fp32 the weights of 2 of 2 known bases fit; the largest is GPT-2" in texts(app)
