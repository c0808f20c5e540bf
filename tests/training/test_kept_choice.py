"""What is kept of rows is chosen by trying it out: not where it could be wrong, nor too large."""

import pytest
import torch

from csreft_core.attachment.attach import attach
from csreft_core.attachment.passes import Request
from csreft_core.training.kept_choice import choose
from csreft_core.training.kept_states import everything_of
from tests.causal_classes import tiny_config, tiny_model
from tests.families import build
from tests.tiny import make_adapter, tiny_base, tokens
from tests.training.steps import encoded

ROOM = 2**30


@pytest.fixture
def base(tiny_llama):
    return tiny_base(tiny_llama)


def choice(attachment, positions="l1", layers=(1,), in_memory=ROOM, on_disk=0):
    adapter = make_adapter(attachment.base, layers=layers, positions=positions)
    wanted = everything_of(adapter.spec)
    return choose(attachment, wanted, encoded(), in_memory=in_memory, on_disk=on_disk)


def test_everything_that_no_edit_changes_is_kept(base):
    with attach(base) as attachment:
        for positions, behind in (("l1", True), ("l2", True), ("f1+l2", False), ("all", False)):
            found = choice(attachment, positions)
            assert found.note is None
            assert found.contents.layers == (1,)
            assert any(map(found.contents.n_before, encoded().examples)) == behind


@pytest.mark.parametrize(
    ("model_type", "note"),
    [
        ("mamba2", "keeps states alone: blocks of the base read more of earlier tokens"),
        ("falcon_h1", "keeps states alone: blocks of the base read more of earlier tokens"),
        ("openai-gpt", "keeps states alone: blocks of the base read more of earlier tokens"),
        ("gemma4_text", "is not in use: blocks of the base read more of the lower ones"),
        ("gpt_oss", None),
        ("bloom", None),
    ],
)
def test_a_family_that_reads_more_keeps_less(model_type, note):
    base = tiny_base(tiny_model(tiny_config(model_type)))
    with attach(base) as attachment:
        found = choice(attachment, layers=(2 if model_type == "gemma4_text" else 0,))
    if note is None:
        assert found.note is None
        assert found.contents.positions is not None
    else:
        assert found.note.startswith(f"train.keep_states {note}")
        assert (found.contents is None) == ("not in use" in note)
        assert found.contents is None or found.contents.positions is None


def test_keys_and_values_that_are_not_the_blocks_own_are_found_out(base):
    """The positive control of the trial."""

    class Shifted(torch.nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, states):
            columns = torch.arange(states.shape[1])[None, :, None]
            return self.part(states) + 1e-3 * columns

    base.blocks[2].self_attn.v_proj = Shifted(base.blocks[2].self_attn.v_proj).eval()
    with attach(base) as attachment:
        assert "keys and values" in choice(attachment).note


def test_what_does_not_fit_is_not_kept(base):
    with attach(base) as attachment:
        whole = choice(attachment)
        states = choice(attachment, in_memory=9_500)
        on_disk = choice(attachment, in_memory=1000, on_disk=ROOM)
        nothing = choice(attachment, in_memory=1000)
    assert whole.contents == on_disk.contents
    assert whole.note is on_disk.note is None
    assert states.contents.positions is None
    assert "keeps states alone: those of all rows take" in states.note
    assert nothing.contents is None
    assert "and 0.0 MB are at hand" in nothing.note


@pytest.mark.parametrize("family", ["gpt2", "opt"])  # nn.Dropout, and dropout of the block's own
def test_a_base_in_training_mode_forbids_it(family):
    base = tiny_base(build(family))
    with attach(base) as attachment:
        assert choice(attachment).note is None
        base.blocks[2].training = True
        assert "training mode" in choice(attachment).note
        assert choice(attachment).contents is None
        base.model.train()
        inputs = {"input_ids": tokens(6)[0][None], "capture": (1,)}
        states = [captured(attachment, **inputs) for _ in range(2)]
        assert not torch.equal(*states)  # and rightly so
        base.model.eval()
        states = [captured(attachment, **inputs) for _ in range(2)]
        assert torch.equal(*states)


def captured(attachment, input_ids, capture):
    with torch.no_grad():
        _, this = attachment.forward(Request(None, capture=capture), input_ids=input_ids)
    return this.states[capture[0]][0]


def test_hooks_of_others_forbid_what_they_may_change(base):
    with attach(base) as attachment:
        above = base.blocks[2].register_forward_hook(lambda *_: None)
        assert "states alone: block 2" in choice(attachment).note
        assert choice(attachment, "f1+l2").note is None
        inside = base.blocks[1].mlp.register_forward_pre_hook(lambda *_: None)
        assert "not in use: block 1" in choice(attachment).note
        inside.remove()
        above.remove()
        with attachment.calling(Request(None)):  # transformers leaves hooks of its own
            base.model(tokens(4)[0][None], output_hidden_states=True)
        assert choice(attachment).note is None
