"""The config tree: strict, complete, stable paths, and presets that are what they say."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csreft_core.config import (
    PRESET_NOTES,
    PRESETS,
    RECIPES,
    SCHEMA_VERSION,
    AdapterConfig,
    Config,
    Provenance,
    RouterConfig,
    config_from_dict,
    config_to_dict,
    configured,
    lead,
    nearest_preset,
    preset,
    read_config,
    with_overrides,
)
from csreft_core.errors import ConfigError
from csreft_core.skills.skill_set import read_skills

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = preset(name)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    assert PRESET_NOTES[name]


def test_presets_are_different():
    assert len({json.dumps(config_to_dict(config)) for config in PRESETS.values()}) == len(PRESETS)
    assert set(PRESET_NOTES) == set(PRESETS)
    assert set(PRESETS) >= {"recommended", "paper", "loreft", "oracle", "unsupervised"}


def test_paper_preset_is_what_the_paper_states():
    router = preset("paper").router
    assert (router.input, router.hidden, router.gate) == ("first_token", "paper", "sigmoid")
    assert (router.threshold, router.omega) == (0.5, "l1")
    assert router.sparsity > 0
    assert preset("paper").adapter.form == "loreft"


def test_control_presets():
    loreft, oracle, free = preset("loreft"), preset("oracle"), preset("unsupervised")
    recommended = preset("recommended").adapter
    # One edit with as many rows as the four skills have together.
    assert (loreft.adapter.n_subspaces, loreft.adapter.rank) == (1, 4 * recommended.rank)
    assert loreft.router.gates == "uniform"
    assert (oracle.router.gates, oracle.router.supervision) == ("oracle", 0)
    assert (free.router.gates, free.router.supervision) == ("learned", 0)


@pytest.mark.parametrize("base", RECIPES)
def test_a_base_with_a_recipe_has_all_presets(base):
    assert list(RECIPES[base]) == list(PRESETS)
    for name in PRESETS:
        config = preset(name, base)
        assert config.base.path == base
        assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    recommended, loreft = preset("recommended", base), preset("loreft", base)
    n_skills = len(read_skills(recommended.data.path).names)
    assert loreft.adapter.rank == n_skills * recommended.adapter.rank
    assert preset("unsupervised", base).train == recommended.train


@pytest.mark.parametrize("base", [*RECIPES, "some/folder"])
@pytest.mark.parametrize("name", PRESETS)
def test_the_lead_from_a_preset_names_its_base_and_what_differs(base, name):
    start = configured(name, [f"base.path={base}"])
    plain = [] if base == PRESETS[name].base.path else [f"base.path={base}"]
    assert (nearest_preset(start), lead(name, start)) == ((name, plain), plain)
    changed = with_overrides(start, ["adapter.rank=3", "train.seed=5"])
    assert lead(name, changed) == [*plain, "adapter.rank=3", "train.seed=5"]
    assert configured(name, lead(name, changed)) == changed


def test_a_base_without_a_recipe_takes_that_of_pocket():
    config = configured("paper", ["base.path=some/folder"])
    assert config == with_overrides(preset("paper"), ["base.path=some/folder"])


def test_unknown_preset():
    with pytest.raises(ConfigError, match="unknown preset 'best'; choose one of recommended"):
        preset("best")


def test_json_round_trip_with_everything_set():
    config = replace(
        preset("recommended"),
        adapter=AdapterConfig(layers=(0, 3), positions="f2+l2", tied=False, n_subspaces=5),
        router=RouterConfig(hidden=7, gate="top_k", top_k=2),
        provenance=Provenance(
            base_fingerprint="f", base_revision="main", template="chat", versions={"torch": "2"}
        ),
    )
    tree = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(tree) == config
    assert tree["adapter"]["layers"] == [0, 3]
    assert config_to_dict(config_from_dict(tree)) == tree


def test_left_out_keys_take_their_defaults():
    assert config_from_dict({}) == Config()
    assert config_from_dict({"adapter": {"rank": 3}}).adapter == AdapterConfig(rank=3)


@given(st.integers(1, 8), st.sampled_from(["l1", "f2", "f1+l2", "all"]), st.floats(0.001, 1))
def test_overrides_are_read_back(rank, positions, lr):
    config = with_overrides(
        Config(), [f"adapter.rank={rank}", f"adapter.positions={positions}", f"train.lr={lr}"]
    )
    assert (config.adapter.rank, config.adapter.positions) == (rank, positions)
    assert config.train.lr == lr
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("adapter.layers=[2,4]", ("adapter", "layers"), (2, 4)),
        ("adapter.tied=true", ("adapter", "tied"), True),
        ("adapter.n_subspaces=null", ("adapter", "n_subspaces"), None),
        ("router.hidden=paper", ("router", "hidden"), "paper"),
        ("router.hidden=8", ("router", "hidden"), 8),
        ("base.path=my/model=v2", ("base", "path"), "my/model=v2"),
        (" train.steps = 7", ("train", "steps"), 7),
        ("train.lr=1", ("train", "lr"), 1.0),
        ("base.device=cuda:1", ("base", "device"), "cuda:1"),
        ("data.template=<s>{prompt}</s>", ("data", "template"), "<s>{prompt}</s>"),
    ],
)
def test_override_values(assignment, path, value):
    config = with_overrides(Config(), [assignment])
    assert getattr(getattr(config, path[0]), path[1]) == value


def test_overrides_change_nothing_else():
    config = preset("recommended")
    assert with_overrides(config, []) == config
    changed = with_overrides(config, ["train.steps=7"])
    assert replace(changed, train=config.train) == config
    assert changed.train != config.train


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.steps", "expected group.field=value"),
        ("steps=3", "expected group.field=value"),
        ("train.steps.more=3", "expected group.field=value"),
        ("", "expected group.field=value"),
        ("=3", "expected group.field=value"),
        ("train.step=3", "unknown setting 'train.step'"),
        ("training.steps=3", "unknown setting 'training.steps'"),
        ("provenance.template=x", "unknown setting"),
        ("schema_version.x=1", "unknown setting"),
        ("train.steps=0", "train.steps: should be greater than or equal to 1, got 0"),
        ("train.steps=1.5", "train.steps: .*got 1.5"),
        ("train.steps=" + "[" * 100_000, "train.steps: "),
        ("train.steps=many", 'train.steps: .*got "many"'),
        ("train.steps=true", "train.steps: .*got true"),
        ("train.steps=", "train.steps: "),
        ("train.steps=null", "train.steps: .*got null"),
        ("train.lr=-0.1", "train.lr: should be greater than 0, got -0.1"),
        ("train.lr=0", "train.lr: should be greater than 0"),
        ("train.lr=NaN", "train.lr: should be a finite number"),
        ("train.lr=Infinity", "train.lr: should be a finite number"),
        ("train.lr=1e999", "train.lr: should be a finite number"),
        ("train.weight_decay=-1", "train.weight_decay: "),
        ("train.warmup=1", "train.warmup: should be less than 1"),
        ("train.seed=-1", "train.seed: "),
        ("train.max_length=7", "train.max_length: "),
        ("train.batch_size=0", "train.batch_size: "),
        ("train.threads=0", "train.threads: "),
        ("adapter.rank=0", "adapter.rank: should be greater than or equal to 1, got 0"),
        ("adapter.rank=-2", "adapter.rank: "),
        ('adapter.rank="2"', 'adapter.rank: .*got "2"'),
        ("adapter.layers=[]", "adapter.layers: "),
        ("adapter.layers=2", "adapter.layers: "),
        ("adapter.layers=[2,2]", "adapter.layers: expected different layers in rising order"),
        ("adapter.layers=[3,1]", "adapter.layers: expected different layers in rising order"),
        ('adapter.layers=["2"]', "adapter.layers"),
        ("adapter.n_subspaces=0", "adapter.n_subspaces: "),
        ("adapter.form=lora", "adapter.form: .*'loreft'.*got \"lora\""),
        ("adapter.constraint=strict", "adapter.constraint: "),
        ("adapter.init=zero", "adapter.init: "),
        ("adapter.dropout=1", "adapter.dropout: should be less than 1"),
        ("adapter.penalty=-1", "adapter.penalty: "),
        ("adapter.positions=f0", "adapter.positions: expected 'all', 'all_prompt', 'fP'"),
        ("adapter.positions=l1+f1", "adapter.positions: expected"),
        ("adapter.positions=last", "adapter.positions: expected"),
        ("adapter.positions=f1+", "adapter.positions: expected"),
        ("adapter.positions=F1", "adapter.positions: expected"),
        ("adapter.tied=no", "adapter.tied: "),
        ("adapter.tied=false", "adapter: untied edits need two groups of positions"),
        ("adapter.form=noreft", "adapter: form 'noreft' has no orthonormal basis"),
        ("adapter.form=consreft", "adapter: form 'consreft' has no identity start"),
        ("router.input=second_token", "router.input: "),
        ("router.layer=-2", "router.layer: "),
        ("router.hidden=0", "router.hidden"),
        ("router.hidden=papers", "router.hidden"),
        ("router.gate=tanh", "router.gate: "),
        ("router.top_k=0", "router.top_k: "),
        ("router.threshold=1.5", "router.threshold: should be less than or equal to 1"),
        ("router.temperature=0", "router.temperature: should be greater than 0"),
        ("router.granularity=word", "router.granularity: "),
        ("router.gates=random", "router.gates: "),
        ("router.supervision=-1", "router.supervision: "),
        ("router.omega=l2", "router.omega: "),
        ("router.sparsity=-1e-3", "router.sparsity: "),
        ("base.precision=fp8", "base.precision: "),
        ("base.device=tpu", "base.device: "),
        ("base.device=cuda:", "base.device: "),
        ("base.path=", "base.path: "),
        ("data.path=", "data.path: "),
        ("data.template=Question", r"data.template: expected 'auto', 'chat', chat with settings"),
        ("data.template={prompt}{prompt}", "data.template: expected"),
        ("data.skill_column=", "data.skill_column: "),
    ],
)
def test_malformed_overrides_name_the_path(assignment, message):
    with pytest.raises(ConfigError, match=message) as caught:
        with_overrides(preset("recommended"), [assignment])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"adapters": {}}, "unknown setting 'adapters'; docs/configuration.md lists"),
        ({"adapter": {"ranks": 2}}, "unknown setting 'adapter.ranks'"),
        ({"adapter": 3}, "adapter: "),
        ({"adapter": None}, "adapter: "),
        ({"adapter": [1]}, "adapter: "),
        ({"schema_version": SCHEMA_VERSION + 1}, "schema_version is 2, this program knows up to 1"),
        ({"schema_version": "1"}, "schema_version: "),
        ({"provenance": {"template": "x"}}, "provenance"),
    ],
)
def test_malformed_trees(tree, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(tree)


def test_every_setting_has_a_description():
    for group in ("base", "data", "adapter", "router", "train"):
        section = getattr(Config(), group)
        for field in fields(section):
            assert section.__pydantic_fields__[field.name].description.endswith("."), field.name


def test_config_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        Config().train.steps = 5


def test_read_config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_to_dict(preset("oracle"))), encoding="utf-8")
    assert read_config(path) == preset("oracle")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"steps: 3", "is not JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b"3", "expected a JSON object, got int"),
        ('{"train": {"steps": 3}}'.encode("utf-16"), "is not UTF-8 text; save it as UTF-8"),
        (b'{"train": {"steps": 0}}', "train.steps: "),
        (b'{"train": {"lr": NaN}}', "train.lr: "),
        (b"\xef\xbb\xbf{}", None),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_malformed_files_are_named(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    if message is None:
        assert read_config(path) == Config()
        return
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match="no such config file; give a path or --preset"):
        read_config(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="is a folder; give the config file inside it"):
        read_config(tmp_path)
