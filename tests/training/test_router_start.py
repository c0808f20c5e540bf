"""The scale of a router that centres what it reads: of the training prompts, kept with it."""

import pytest
import torch

from csreft_core.base.load import load_base
from csreft_core.config import PLAIN_TEMPLATE, configured
from csreft_core.reft.adapter import load_adapter
from csreft_core.runs.all_runs import create_run
from csreft_core.skills.encoding import encode
from csreft_core.skills.skill_set import read_skills
from csreft_core.training.loop import train
from tests import tiny_runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("router")
    tiny_runs.save_base(folder / "base")
    tiny_runs.write_rows(folder / "skills.jsonl", tiny_runs.rows())
    return folder


@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("input", ["mean_prompt", "last_prompt_token"])
@pytest.mark.parametrize("granularity", ["per_prompt", "per_token"])
def test_the_scale_is_that_of_the_training_prompts(folder, tmp_path, layer, input, granularity):
    changes = {
        "train__steps": 2,
        "router__layer": layer,
        "router__input": input,
        "router__granularity": granularity,
        "router__standardize": "true",
    }
    chosen = tiny_runs.settings(folder / "base", folder / "skills.jsonl", **changes)
    config = configured("recommended", chosen[1::2])
    skill_set = read_skills(str(folder / "skills.jsonl"))
    run, base = create_run(tmp_path / "run", config, skill_set), load_base(config.base)
    list(train(run, base))

    router = load_adapter(run.adapter_path).router
    assert router is not None
    examples, _ = encode(skill_set.split("train"), base.tokenizer, PLAIN_TEMPLATE, 512)
    features = []
    for example in examples:
        ids = torch.tensor([example.prompt])
        states = base.model(ids, output_hidden_states=True).hidden_states[layer + 1][0]
        features.append(states.mean(0) if input == "mean_prompt" else states[-1])
    expected = torch.stack(features)
    torch.testing.assert_close(router.mean, expected.mean(0))
    spread = expected.std(0, correction=0)
    if (layer, input) == (-1, "last_prompt_token"):  # the template's own last word in all of them
        assert not spread.any()
        spread += 1
    torch.testing.assert_close(router.spread, spread)
