"""Parity with numbers that pyreft made (see `tests/golden/README.md`)."""

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from csreft_core.attachment.attach import attach
from csreft_core.base.load import Base
from csreft_core.config import RouterConfig
from csreft_core.reft.adapter import CSReFT
from tests.repository import ROOT
from tests.tiny import make_adapter, tiny_base

GOLDEN = ROOT / "tests/golden"
# float32 over two blocks: the worst measured is about 3e-6, and an edit moves logits by 4 to 5.
TOLERANCE = 1e-5
FORMS = {
    "loreft": ("loreft", "joint"),
    "direft": ("direft", "within"),
    "nodireft": ("direft", "none"),
    "noreft": ("noreft", "none"),
}


@cache
def golden(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"pyreft_{name}.safetensors")


@pytest.fixture(scope="module")
def base() -> Base:
    settings = json.loads((GOLDEN / "base_config.json").read_text(encoding="utf-8"))
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(load_file(GOLDEN / "base_llama.safetensors"))
    return tiny_base(model)


def adapter_of(name: str, base: Base, positions: str, constraint: str | None = None) -> CSReFT:
    """Our adapter with pyreft's numbers."""
    form, usual = FORMS[name]
    adapter = make_adapter(
        base,
        k=1,
        layers=(0, 1),
        rank=4,
        form=form,
        constraint=constraint or usual,
        positions=positions,
        router=RouterConfig(gates="uniform"),
    )
    with torch.no_grad():
        for layer in (0, 1):
            subspaces = adapter.at(layer)
            for ours, theirs in ((subspaces.raw, "R"), (subspaces.W, "W"), (subspaces.b, "b")):
                ours[0, 0] = golden(name)[f"layer{layer}.{theirs}"]
    return adapter


def worst(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Largest difference, at real tokens only."""
    difference = (ours - theirs).abs()
    return (difference if mask is None else difference[mask.bool()]).max().item()


def logits_of(base: Base, adapter: CSReFT, ids: str, att: str, name: str) -> torch.Tensor:
    g = golden(name)
    with torch.no_grad(), attach(base, adapter):
        return base.model(input_ids=g[ids].long(), attention_mask=g[att].long()).logits


def test_the_base_itself_is_the_same(base):
    g = golden("loreft")
    with torch.no_grad():
        logits = base.model(input_ids=g["ids"].long()).logits
    assert worst(logits, g["base_logits"]) <= TOLERANCE


@pytest.mark.parametrize("name", FORMS)
def test_first_and_last_two_tokens(base, name):
    logits = logits_of(base, adapter_of(name, base, "f2+l2"), "ids", "att", name)
    assert worst(logits, golden(name)["out.unpadded_f2l2"]) <= TOLERANCE
    assert worst(logits, golden("loreft")["base_logits"]) > 1


@pytest.mark.parametrize("constraint", ["within", "joint", "sequential", "fixed", "none"])
@pytest.mark.parametrize("name", ["loreft", "direft"])
def test_one_orthonormal_subspace_is_the_same_under_every_constraint(base, name, constraint):
    adapter = adapter_of(name, base, "f2+l2", constraint)
    logits = logits_of(base, adapter, "ids", "att", name)
    assert worst(logits, golden(name)["out.unpadded_f2l2"]) <= TOLERANCE


@pytest.mark.parametrize(
    ("ids", "att", "theirs"),
    [
        ("rp_ids", "rp_att", "out.rightpad_f2l2"),
        ("lp_ids", "lp_att", "out.leftpad_f2l2_with_position_ids"),
    ],
)
def test_padded_prompts(base, ids, att, theirs):
    """Position ids are ours: pyreft's user has to give them."""
    g = golden("loreft")
    logits = logits_of(base, adapter_of("loreft", base, "f2+l2"), ids, att, "loreft")
    assert worst(logits, g[theirs], g[att]) <= TOLERANCE
    shifted = logits_of(base, adapter_of("loreft", base, "f2+l3"), ids, att, "loreft")
    assert worst(shifted, g[theirs], g[att]) > 1


@pytest.mark.parametrize("name", ["loreft", "direft"])
def test_all_positions_with_loss_and_gradients(base, name):
    g, adapter = golden(name), adapter_of(name, base, "all")
    ids = g["ids"].long()
    with attach(base, adapter):
        logits = base.model(input_ids=ids).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    assert worst(logits, g["out.all_positions"]) <= TOLERANCE
    assert worst(loss, g["loss.all_positions"][0]) <= TOLERANCE
    for layer in (0, 1):
        subspaces = adapter.at(layer)
        for parameter, key in ((subspaces.W, "W"), (subspaces.b, "b")):
            assert worst(parameter.grad[0, 0], g[f"grad.layer{layer}.{key}"]) <= TOLERANCE
            assert parameter.grad.abs().max() > 1e-2


GENERATED = {
    "gen_prompt_only_unpadded": ("f2+l2", "ids", "att"),
    "gen_prompt_only_leftpad": ("f2+l2", "lp_ids", "lp_att"),
    "gen_every_token(unit_locations=None,intervene_on_prompt=True)": ("all", "ids", "att"),
}


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("mode", GENERATED)
def test_generation(base, mode, use_cache):
    """pyreft's edit of the prompt is lost without a cache; ours is not.

    Its fourth mode, decoding steps only, is no rule of ours: an edit starts with the prompt.
    """
    positions, ids, att = GENERATED[mode]
    g = golden("loreft")
    with torch.no_grad(), attach(base, adapter_of("loreft", base, positions)):
        out = base.model.generate(
            input_ids=g[ids].long(),
            attention_mask=g[att].long(),
            max_new_tokens=6,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
            use_cache=use_cache,
        )
    assert torch.equal(out.sequences, g[f"{mode}.sequences"].long())
    assert worst(torch.stack(out.scores, 1), g[f"{mode}.scores"]) <= TOLERANCE


def test_generation_modes_differ():
    sequences = {mode: golden("loreft")[f"{mode}.sequences"][:, 10:] for mode in GENERATED}
    assert len({tuple(s.flatten().tolist()) for s in sequences.values()}) == len(GENERATED)


@pytest.mark.parametrize("side", ["rp", "lp"])
def test_untied_first_and_last_tokens_are_a_naive_loop_in_float64(base, side):
    """pyreft gives a layer two edits, one for the first tokens, one for the last."""
    adapter = make_adapter(
        base,
        k=1,
        layers=(0, 1),
        rank=4,
        positions="f2+l2",
        tied=False,
        router=RouterConfig(gates="uniform"),
    )
    ids, att = f"{side}_ids", f"{side}_att"
    g = golden("loreft")
    logits = logits_of(base, adapter, ids, att, "loreft")
    for row, n in enumerate(g["lens"].tolist()):
        prompt = g[ids][row][g[att][row].bool()].long()
        expected = _naive_untied(base, adapter, prompt, n)
        assert worst(logits[row][g[att][row].bool()].double(), expected) <= TOLERANCE
        assert worst(_naive_untied(base, adapter, prompt, n, swap=True), expected) > 0.5


@torch.no_grad()
def _naive_untied(base, adapter, prompt, n, swap=False) -> torch.Tensor:
    """The blocks one by one in float64, each edit token by token."""
    import copy

    model = copy.deepcopy(base.model).double()
    h = model.model.embed_tokens(prompt[None])
    places = torch.arange(n)[None]
    rotary = model.model.rotary_emb(h, places)
    mask = torch.full((n, n), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    for layer, block in enumerate(model.model.layers):
        h = block(h, attention_mask=mask, position_ids=places, position_embeddings=rotary)
        subspaces = adapter.at(layer)
        R, W, b = (p.double() for p in (subspaces.basis(), subspaces.W, subspaces.b))
        for group, tokens in enumerate(((0, 1), (n - 2, n - 1))):
            i = 1 - group if swap else group
            for t in tokens:
                x = h[0, t]
                h[0, t] = x + R[i, 0].T @ (W[i, 0] @ x + b[i, 0] - R[i, 0] @ x)
    return model.lm_head(model.model.norm(h))[0]
