"""The Interference page: first start, other runs, its address, and trainings on request."""

from dataclasses import replace

import pytest

from csreft_core.app.interference import panels as interference
from csreft_core.config import preset
from csreft_core.runs import all_runs as runs_module
from csreft_core.runs import queue
from csreft_core.runs.all_runs import Run, create_run
from csreft_core.skills.skill_set import SkillSet
from tests.page_runs import SKILLS, assert_no_bug, n_charts, opened_parts, records, run_until, texts

PAGE = "pages/Interference.py"
# Matrix and its cell; pairs and bottleneck; patterns, divergence, Shapley, interactions, tokens.
FIGURES = dict(zip(interference.PARTS, (2, 2, 5, 0), strict=True))


def parts(open_app, **query):
    asked = {"i-rows": "10"} | query
    return opened_parts(open_app, PAGE, "i-part", interference.PARTS, **asked)


def figures(apps):
    return {part: n_charts(app) for part, app in apps.items()}


def part_of(open_app, part, **query):
    """The page with one of its tabs open, on few prompts."""
    return open_app(PAGE, **({"i-rows": "10", "i-part": part} | query))


@pytest.fixture(autouse=True)
def _nothing_shipped(no_examples):
    """Before every other fixture, so that `examples` can ship something again."""


@pytest.fixture
def examples(monkeypatch, tmp_path, make_run):
    """Two shipped runs, untrained but whole: one and its control."""
    folder = tmp_path / "examples"
    monkeypatch.setattr(runs_module, "SHIPPED_RUNS", folder)
    make_run("recommended-0", root=folder)
    make_run("loreft-0", config=preset("loreft"), root=folder)


@pytest.fixture
def submitted(monkeypatch, tmp_runs):
    """What the page asks to train; the runs are made, no process is started."""
    asked: list[tuple[Run, object, SkillSet]] = []

    def submit(config, skill_set, name):
        run = create_run(tmp_runs / name, config, skill_set)
        asked.append((run, config, skill_set))
        return run

    monkeypatch.setattr(queue, "submit", submit)
    return asked


def of_address(app, name):
    value = app.query_params[name]
    return value[0] if isinstance(value, list) else value


def finish(run):
    """As the trainer leaves it."""
    for record in records():
        run.append_metric(record)
    run.write_status(replace(run.status(), state="finished", step=4))


@pytest.mark.usefixtures("examples", "tmp_runs")
def test_first_start_shows_matrix_pairs_and_a_prompt(open_app, submitted):
    apps = parts(open_app)
    assert figures(apps) == FIGURES
    assert not any(app.error for app in apps.values())
    app = apps[interference.SETTINGS]
    assert app.selectbox(key="run").value == "example:recommended-0"
    shown = texts(app)
    assert "Which gates help or hurt which skill?" in shown
    assert "The control loreft-0 has" in shown
    assert any("loreft-0" in option for option in app.selectbox(key="i-gates").options)
    assert len(app.dataframe) == 1
    assert not submitted  # nothing starts without a click


@pytest.mark.parametrize(
    ("name", "absent", "charts"),
    [
        ("oracle", "learned", (2, 1, 5, 0)),
        ("loreft", "uniform", (2, 0, 4, 0)),
        ("paper", None, (2, 2, 5, 0)),
    ],
)
def test_runs_of_every_preset(open_app, make_run, name, absent, charts):
    make_run(config=preset(name))
    apps = parts(open_app, run="mine")
    assert tuple(figures(apps).values()) == charts
    assert not any(app.error for app in apps.values())
    app = apps[interference.SETTINGS]
    assert absent not in app.selectbox(key="i-gates").options
    buttons = {b.key for b in apps[interference.ONE_SKILL].button}
    if name == "loreft":
        assert "need several" in texts(app)
        assert not buttons & {"i-train", "i-train-control"}
    else:
        assert "No control row: there is no shared LoReFT of rank 8" in texts(app)
        assert "i-train" in buttons
    if name == "oracle":
        assert "This run has no learned gates" in texts(apps[interference.PAIRS])


def test_an_empty_prompt_gives_a_message(open_app, make_run):
    make_run()
    app = part_of(open_app, interference.OWN_PROMPT, run="mine")
    app.text_input(key="prompt").set_value(" ").run()
    assert_no_bug(app)
    assert any("prompt is empty" in error.value for error in app.error)
    assert not n_charts(app)


def test_choices_are_in_the_address_and_unknown_ones_are_left(open_app, make_run):
    make_run()
    chosen = {"i-rows": "10", "i-measure": "S", "i-gates": "only:plural", "i-skill": "spelling"}
    app = open_app(PAGE, run="mine", **chosen)
    assert app.selectbox(key="i-gates").value == "only:plural"
    assert app.selectbox(key="i-skill").value == "spelling"
    pairs = part_of(open_app, interference.PAIRS, run="mine", **{"i-measure": "S"})
    assert "Does one gate alone help or hurt each skill?" in texts(pairs)
    app.selectbox(key="i-skill").select("plural").run()
    assert_no_bug(app)
    assert of_address(app, "i-skill") == "plural"
    assert "prompts of plural" in texts(app)
    wrong = dict.fromkeys((*chosen, "i-split", "i-unit", "i-pool"), "nothing")
    other = part_of(open_app, interference.PAIRS, run="mine", **wrong)
    assert not other.error
    assert other.selectbox(key="i-split").value == "test"


def test_the_answer_can_be_changed_and_does_not_stay_for_another_prompt(open_app, make_run):
    make_run()
    app = part_of(
        open_app, interference.OWN_PROMPT, run="mine", prompt="What is the plural of dog?"
    )
    known = app.text_input(key="i-answer").value
    app.text_input(key="i-answer").set_value("le chien").run()
    assert_no_bug(app)
    assert of_address(app, "i-answer") == "le chien"
    assert "'le chien'" in texts(app)
    app.text_input(key="prompt").set_value("Spell the word cat.").run()
    assert_no_bug(app)
    assert app.text_input(key="i-answer").value not in ("le chien", known)
    assert "i-answer" not in app.query_params


def test_the_answer_of_a_link_holds(open_app, make_run):
    make_run()
    asked = {"prompt": "What is the plural of dog?", "i-answer": "cats"}
    app = part_of(open_app, interference.OWN_PROMPT, run="mine", **asked)
    assert app.text_input(key="i-answer").value == "cats"


def test_more_than_eight_subspaces_are_too_many_patterns(open_app, make_run):
    config = preset("recommended")
    adapter = replace(config.adapter, n_subspaces=9)
    router = replace(config.router, supervision=0.0)
    make_run(config=replace(config, adapter=adapter, router=router))
    app = open_app(PAGE, run="mine", **{"i-rows": "10"})
    assert "2^9 = 512 patterns" in texts(app)
    assert not app.error
    assert not [e for e in app.expander if "Regret" in e.label]


def test_regret_and_overlap_are_computed_when_opened(open_app, make_run):
    make_run()
    app = part_of(open_app, interference.PAIRS, run="mine")
    before = n_charts(app)
    app.session_state["i-regret"] = True
    app.session_state["i-overlap"] = True
    app.run()
    assert_no_bug(app)
    assert n_charts(app) == before + 2
    shown = texts(app)
    assert "The scatter cannot answer" in shown
    assert "from the best pattern of each prompt" in shown


def test_one_training_for_each_skill_is_queued_on_request(open_app, make_run, submitted):
    make_run()
    app = part_of(open_app, interference.ONE_SKILL, run="mine")
    assert "4 trainings of 4 steps, one after the other; mine took 4 s" in texts(app)
    assert not submitted
    app.button(key="i-train").click().run()
    assert_no_bug(app)
    assert [run.name for run, _, _ in submitted] == [f"mine-only-{skill}" for skill in SKILLS]
    for (_, config, rows), skill in zip(submitted, SKILLS, strict=True):
        assert config == replace(make_config(submitted), provenance=None)
        assert {row.skills for row in rows.rows if row.split == "train"} == {(skill,)}
        assert rows.names == SKILLS
    shown = [bar.proto.text if hasattr(bar, "proto") else "" for bar in app.get("progress")]
    assert len(shown) == 4
    assert not [b for b in app.button if b.key == "i-train"]  # they are there, or wait
    assert not app.error


def make_config(submitted):
    return submitted[0][0].config()


def test_finished_trainings_are_shown_beside_their_control(open_app, make_run, submitted):
    make_run()
    make_run("shared", config=preset("loreft"))
    app = part_of(open_app, interference.ONE_SKILL, run="mine")
    before = n_charts(app)
    app.button(key="i-train").click().run()
    app.button(key="i-train-control").click().run()
    assert_no_bug(app)
    assert len(submitted) == 8
    assert [run.name for run, _, _ in submitted][4:] == [f"shared-only-{s}" for s in SKILLS]
    for run, _, _ in submitted:
        finish(run)
    app.run()
    assert_no_bug(app)
    assert n_charts(app) == before + 1
    shown = texts(app)
    assert "This run's settings (4 trained skills)" in shown
    assert "Shared control (4 trained skills)" in shown
    assert not [b for b in app.button if b.key in ("i-train", "i-train-control")]


def test_one_skill_that_cannot_be_trained_on_starts_nothing(open_app, make_run, submitted):
    run = make_run()
    lines = (run.path / "skills.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if '"plural"' not in line or '"train"' not in line]
    assert len(kept) < len(lines)
    (run.path / "skills.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    app = part_of(open_app, interference.ONE_SKILL, run="mine")
    app.button(key="i-train").click().run()
    assert_no_bug(app)
    assert not submitted  # not even the skills before it
    assert any("no train row has the skill 'plural'" in e.value.lower() for e in app.error), [
        e.value for e in app.error
    ]


def test_a_base_that_is_not_shipped_is_loaded_only_when_asked_to(open_app, make_run):
    config = preset("recommended")
    make_run(config=replace(config, base=replace(config.base, path="no/such-base")))
    app = open_app(PAGE, run="mine")
    assert not app.error
    assert not n_charts(app)
    app.button(key="load").click().run()
    run_until(app, lambda a: a.error)
    assert_no_bug(app)
    assert any("no/such-base" in error.value for error in app.error)
