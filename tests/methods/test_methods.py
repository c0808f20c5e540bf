"""Every method behind the one interface: what it computes, trains, stores and leaves alone."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from csreft_core.attachment.attach import Attachment, attach
from csreft_core.attachment.passes import request
from csreft_core.base.load import Base
from csreft_core.config import Config, MethodConfig, RouterConfig, with_overrides
from csreft_core.errors import AdapterError, ConfigError
from csreft_core.methods.build import build_method, load_method
from csreft_core.methods.presets import METHODS
from csreft_core.reft.adapter import load_adapter, read_adapter_file
from csreft_core.reft.tuning import Tuning
from tests.families import build, generated, step_logits
from tests.tiny import padded, tiny_base, tokens

SKILLS = ("skill 0", "skill 1")
# Float32 against float64 over three blocks; the changes move the logits by more than 0.1.
CLOSE = 2e-5


@pytest.fixture(scope="module")
def gpt2() -> Base:
    """A base with biases, for all methods."""
    return tiny_base(build("gpt2"))


@pytest.fixture(scope="module")
def llama() -> Base:
    return tiny_base(build("llama"))


def config_of(label: str, *changes: str) -> Config:
    return with_overrides(METHODS[label].config, ["adapter.layers=[1]", *changes])


def moved(label: str, base: Base, *changes: str) -> Any:
    """Moved off the start, so that every parameter has a gradient and changes the logits."""
    method = build_method(config_of(label, *changes), base, SKILLS).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return method


def logits_of(base: Base, method: Tuning | None, inputs: dict[str, Tensor]) -> Tensor:
    with attach(base) as attachment:
        return _logits(attachment, method, inputs)


def _logits(attachment: Attachment, method: Tuning | None, inputs: dict[str, Tensor]) -> Tensor:
    from csreft_core.attachment.passes import Request

    if method is None:
        return attachment.forward(Request(None), **inputs)[0].logits
    with method.applied(attachment.current_pass):
        return attachment.forward(request(method, "learned"), **inputs)[0].logits


def batch() -> dict[str, Tensor]:
    return padded(tokens(9, 6, 4))


def even() -> dict[str, Tensor]:
    return padded(tokens(8, 8, 8))


@pytest.mark.fast
@pytest.mark.parametrize("label", METHODS)
def test_the_base_is_bit_equal_afterwards(gpt2, label):
    model = gpt2.model
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    modules = dict(model.named_modules())
    attributes = {name: set(module.__dict__) for name, module in modules.items()}
    before = logits_of(gpt2, None, batch())
    method = moved(label, gpt2)
    changed = logits_of(gpt2, method, batch())
    assert (changed - before).abs().max() > 1e-3
    assert torch.equal(logits_of(gpt2, None, batch()), before)
    assert {name: id(m) for name, m in model.named_modules()} == {
        name: id(m) for name, m in modules.items()
    }
    assert {name: set(module.__dict__) for name, module in modules.items()} == attributes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("label", [label for label in METHODS if label != "bitfit"])
def test_a_fresh_method_other_than_prefix_and_consreft_changes_nothing(llama, label):
    method = build_method(config_of(label), llama, SKILLS)
    gap = (logits_of(llama, method, batch()) - logits_of(llama, None, batch())).abs().max()
    if label in ("prefix", "consreft"):
        assert gap > 1e-3
    else:
        # LoReFT forms subtract what they add, DoRA divides by the length it multiplies with.
        assert gap < 1e-5


@pytest.mark.parametrize("label", METHODS)
def test_saved_and_loaded_it_is_the_same(gpt2, tmp_path, label):
    method, path = moved(label, gpt2), tmp_path / "adapter.safetensors"
    method.save(path)
    loaded = load_method(path, gpt2)
    assert loaded.counts() == method.counts()
    assert torch.equal(logits_of(gpt2, loaded, batch()), logits_of(gpt2, method, batch()))
    if isinstance(loaded.spec, type(build_method(Config(), gpt2, SKILLS).spec)):
        return
    with pytest.raises(AdapterError, match="no subspaces to look at"):
        load_adapter(path)


def test_a_file_of_another_base_or_with_other_tensors_is_refused(gpt2, llama, tmp_path):
    path = tmp_path / "adapter.safetensors"
    moved("red", gpt2).save(path)
    with pytest.raises(AdapterError, match="other weights"):
        load_method(path, llama)
    method = moved("red", gpt2)
    del method.trained["0/s"]
    method.save(path)
    with pytest.raises(AdapterError, match="names and shapes"):
        load_method(path, gpt2)


@pytest.mark.parametrize("label", METHODS)
def test_the_task_loss_reaches_every_trainable_tensor(gpt2, label):
    method = moved(label, gpt2, "router.supervision=0").train()
    logits = logits_of(gpt2, method, batch())
    F.cross_entropy(logits[:, -1], torch.tensor([5, 6, 7])).backward()
    trainable = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert trainable
    for name, parameter in trainable.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert sum(p.numel() for p in trainable.values()) == method.counts()["total"]


@pytest.mark.parametrize("label", METHODS)
def test_generation_is_the_same_with_cache_without_and_alone(gpt2, label):
    method = moved(label, gpt2)
    rows = tokens(9, 6, 4)

    def answers(inputs: dict[str, Tensor], **how: Any) -> Tensor:
        with attach(gpt2) as attachment, method.applied(attachment.current_pass):
            req = request(method, "learned")
            found, _ = attachment.generate(
                req,
                **inputs,
                max_new_tokens=5,
                min_new_tokens=5,
                do_sample=False,
                pad_token_id=0,
                **how,
            )
        return found[:, inputs["input_ids"].shape[1] :]

    together = answers(padded(rows))
    assert torch.equal(answers(padded(rows), use_cache=False), together)
    for i, row in enumerate(rows):
        assert torch.equal(answers(padded([row]))[0], together[i])


@pytest.mark.parametrize("label", METHODS)
def test_wanted_logits_are_those_of_all(gpt2, label):
    """As in training, where parts of the last block see the wanted tokens alone."""
    method, inputs = moved(label, gpt2), batch()
    rows, columns = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([-3, -1, -2, -2, -1])
    whole = logits_of(gpt2, method, inputs)
    with attach(gpt2) as attachment, method.applied(attachment.current_pass):
        for _ in range(2):  # whether a part takes tokens one by one is tried out at first
            wanted, _ = attachment.logits(request(method), (rows, columns), **inputs)
            assert (wanted - whole[rows, columns]).abs().max() < CLOSE


def peft_config(name: str) -> Any:
    """As the user of peft writes it for a Llama."""
    import peft

    attention, ffn = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
    return {
        "lora": peft.LoraConfig(r=4, lora_alpha=8, target_modules=attention + ffn),
        "dora": peft.LoraConfig(r=4, lora_alpha=8, target_modules=attention + ffn, use_dora=True),
        "ia3": peft.IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
        "prefix": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    }[name]


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing.:FutureWarning",
    "ignore:.past_key_values. is deprecated:FutureWarning",  # peft's own name for it
)
@pytest.mark.parametrize("name", ["lora", "dora", "ia3", "prefix"])
def test_methods_of_peft_are_those_of_peft_used_directly(llama, name):
    """Logits at the start and after a step of AdamW, and the parameters after it."""
    import peft

    ours, inputs = build_method(config_of(name), llama, SKILLS), even()
    torch.manual_seed(0)
    theirs = peft.get_peft_model(copy.deepcopy(llama.model), peft_config(name))
    labels = torch.tensor([5, 6, 7])
    with attach(llama) as attachment:
        runs: list[tuple[Callable[[], Tensor], list[nn.Parameter]]] = [
            (lambda: _logits(attachment, ours, inputs), list(ours.parameters())),
            (lambda: theirs(**inputs).logits, [p for p in theirs.parameters() if p.requires_grad]),
        ]
        start = [forward() for forward, _ in runs]
        assert (start[0] - start[1]).abs().max() <= 1e-6
        stepped = []
        for forward, parameters in runs:
            optimizer = torch.optim.AdamW(parameters, lr=1e-2)
            F.cross_entropy(forward()[:, -1], labels).backward()
            optimizer.step()
            stepped.append(forward())
        assert (stepped[0] - stepped[1]).abs().max() <= CLOSE
        assert (stepped[0] - start[0]).abs().max() > 1e-2
    mine = {n.removeprefix("trained."): p for n, p in ours.named_parameters()}
    others = {
        n.replace("base_model.model.", "").replace("prompt_encoder.", "").replace(".", "/"): p
        for n, p in theirs.named_parameters()
        if p.requires_grad
    }
    assert mine.keys() == others.keys()
    # AdamW's first step is the gradient's sign, so where it is 0 up to rounding it may differ.
    for n, p in mine.items():
        assert ((p - others[n]).abs() > 1e-6).float().mean() < 0.01, n


@pytest.mark.parametrize("lengths", [(5, 5), (6, 3)], ids=["equal", "unequal"])
@torch.no_grad()
def test_answers_under_prefix_tuning_are_those_of_one_forward(llama, lengths):
    method, inputs, n = moved("prefix", llama), padded(tokens(*lengths)), max(lengths)
    with attach(llama) as attachment, method.applied(attachment.current_pass):
        with attachment.calling(request(method, "learned")):
            found = [generated(llama, inputs, use_cache=cached) for cached in (True, False)]
        mask = F.pad(inputs["attention_mask"], (0, 6), value=1)
        whole = {"input_ids": found[0].sequences, "attention_mask": mask}
        expected = attachment.forward(request(method, "learned"), **whole)[0].logits[:, n - 1 : -1]
    for out in found:
        assert torch.equal(out.sequences, found[0].sequences)
        assert (step_logits(out) - expected).abs().max() <= CLOSE
    assert (step_logits(generated(llama, inputs)) - expected).abs().max() > 1e-2


def reference(base: Base, change: Callable[[int, Tensor, Tensor], Tensor], ids: Tensor) -> Tensor:
    """A Llama in float64, block after block, `change(block, input, output)` after each."""
    model: Any = copy.deepcopy(base.model).double()
    h = model.model.embed_tokens(ids)
    places = torch.arange(ids.shape[1]).unsqueeze(0)
    turns = model.model.rotary_emb(h, places)
    later = torch.full((ids.shape[1],) * 2, -torch.inf, dtype=torch.float64).triu(1)[None, None]
    for i, block in enumerate(model.model.layers):
        h = change(i, h, block(h, position_embeddings=turns, attention_mask=later))
    return model.lm_head(model.model.norm(h))


def test_red_is_the_reference(llama):
    method = moved("red", llama)
    p = {n: t.double() for n, t in method.trained.items()}
    theirs = reference(
        llama, lambda i, _h, out: p[f"{i}/s"] * out + p[f"{i}/b"], even()["input_ids"]
    )
    assert (logits_of(llama, method, even()) - theirs).abs().max() <= CLOSE


@pytest.mark.parametrize("label", ["series_adapter", "parallel_adapter"])
def test_adapters_are_the_reference(llama, label):
    method = moved(label, llama)
    p = {n: t.double() for n, t in method.trained.items()}

    def change(i: int, h: Tensor, out: Tensor) -> Tensor:
        x = out if label == "series_adapter" else h
        hidden = (x @ p[f"{i}/down"].T + p[f"{i}/down_bias"]).clamp(min=0)
        return out + hidden @ p[f"{i}/up"].T + p[f"{i}/up_bias"]

    theirs = reference(llama, change, even()["input_ids"])
    assert (logits_of(llama, method, even()) - theirs).abs().max() <= CLOSE


def test_bitfit_is_the_base_with_other_biases(gpt2):
    method = moved("bitfit", gpt2)
    other: Any = copy.deepcopy(gpt2.model).double()
    parameters = dict(other.named_parameters())
    biases = {n for n in parameters if n.endswith("bias")}
    assert {n.replace("/", ".") for n in method.trained} == biases
    with torch.no_grad():
        for name, value in method.trained.items():
            parameters[name.replace("/", ".")].copy_(value)
        theirs = other(**even()).logits
    assert (logits_of(gpt2, method, even()) - theirs).abs().max() <= CLOSE


def with_weights(base: Base, method: Any, gates: Tensor) -> Any:
    """The base with W + s sum_i alpha_i B_i A_i in place of W, in float64."""
    other = copy.deepcopy(base.model).double()
    for name, module in other.named_modules():
        if isinstance(module, nn.Linear) and "layers." in name:
            A, B = (method.trained[f"{name.replace('.', '/')}/{part}"].double() for part in "AB")
            for alpha, a, b in zip(gates.double(), A, B, strict=True):
                module.weight.data += method.spec.method.scale * alpha * b.T @ a
    return other


@pytest.mark.parametrize("gates", [(1.0, 0.0), (0.3, 0.9), (0.0, 0.0)])
def test_lora_per_skill_is_the_gated_sum_of_weights(llama, gates):
    method = moved("lora_per_skill", llama)
    with attach(llama) as attachment, method.applied(attachment.current_pass):
        ours = attachment.forward(request(method, gates), **even())[0].logits
    with torch.no_grad():
        theirs = with_weights(llama, method, torch.tensor(gates))(**even()).logits
    assert (ours - theirs).abs().max() <= CLOSE
    if gates == (0.0, 0.0):
        assert torch.equal(ours, logits_of(llama, None, even()))


def test_each_row_has_the_gates_of_its_own_prompt(llama):
    method = moved("lora_per_skill", llama)
    with attach(llama) as attachment, method.applied(attachment.current_pass):
        output, this = attachment.forward(request(method, "learned"), **batch())
    gates = this.prompt_gates()
    assert (gates[0] - gates[1]).abs().max() > 1e-4
    for i, row in enumerate(tokens(9, 6, 4)):
        with torch.no_grad():
            theirs = with_weights(llama, method, gates[i])(row.unsqueeze(0)).logits
        assert (output.logits[i, -len(row) :] - theirs[0]).abs().max() <= CLOSE


def test_the_penalty_of_olora_is_the_sum_over_pairs(llama):
    method = moved("olora", llama)
    assert method.penalty_weight == 0.1
    naive = 0.0
    for name, A in method.trained.items():
        if name.endswith("/A"):
            naive += sum(
                abs(torch.dot(A[0, r], A[1, s]).item())
                for r in range(A.shape[1])
                for s in range(A.shape[1])
            )
    assert naive > 0
    assert math.isclose(method.overlap_penalty().item(), naive, rel_tol=1e-5)


D, N, FFN, KV = 32, 3, 64, 16  # the tiny Llama
LINEARS = [(D, D), (D, KV), (D, KV), (D, D), (D, FFN), (D, FFN), (FFN, D)]
ROUTER = D + 32 * (D + 1) + 2 * (32 + 1)
COUNTS = {
    "csreft": 2 * 2 * (2 * D + 1) + ROUTER,
    "loreft": 8 * (2 * D + 1),
    "direft": 8 * (2 * D + 1),
    "pyreft_direft": 8 * (2 * D + 1),
    "noreft": 8 * (2 * D + 1),
    "consreft": 8 * (D + 1),
    "lobireft": 8 * (D + 1),
    "red": 2 * D * N,
    "lora": N * sum(4 * (i + o) for i, o in LINEARS),
    "dora": N * sum(4 * (i + o) + o for i, o in LINEARS),
    "prefix": 4 * 2 * N * KV,
    "ia3": N * (KV + KV + FFN),
    "lora_per_skill": N * sum(2 * (i + o) for i, o in LINEARS) + ROUTER,
    "olora": N * sum(2 * (i + o) for i, o in LINEARS) + ROUTER,
    "series_adapter": N * (2 * D * 4 + 4 + D),
    "parallel_adapter": N * (2 * D * 4 + 4 + D),
}


@pytest.mark.fast
@pytest.mark.parametrize("label", COUNTS)
def test_parameter_counts_are_the_formulas(llama, label):
    assert build_method(config_of(label), llama, SKILLS).counts()["total"] == COUNTS[label]


def test_full_fine_tuning_counts_shared_weights_once(tiny_llama):
    """This one's head is its embedding."""
    base = tiny_base(tiny_llama)
    method = build_method(config_of("full"), base, SKILLS)
    assert method.counts() == {"total": base.n_parameters}


def test_chosen_blocks_only(llama):
    method = moved("lora", llama, "method.layers=[2]")
    assert method.counts()["total"] == COUNTS["lora"] // N
    with attach(llama) as attachment, method.applied(attachment.current_pass):
        before = attachment.forward(request(method, "learned"), **even())[0].logits
    assert (before - logits_of(llama, None, even())).abs().max() > 1e-3


def test_bitfit_of_chosen_blocks_trains_their_biases_alone(gpt2):
    total = build_method(config_of("bitfit", "method.layers=[2]"), gpt2, SKILLS).counts()["total"]
    biases = [p for n, p in gpt2.blocks[2].named_parameters() if n.endswith("bias")]
    assert total == sum(p.numel() for p in biases)
    assert total < build_method(config_of("bitfit"), gpt2, SKILLS).counts()["total"]


@pytest.mark.parametrize("family", ["mixtral", "phi3", "gemma3", "neox", "opt"])
@pytest.mark.parametrize("label", ["lora", "lora_per_skill", "ia3", "parallel_adapter", "prefix"])
def test_every_family(family, label):
    """Layers are found from the module tree; whatever does not fit says so."""
    base = tiny_base(build(family))
    try:
        method = moved(label, base)
    except ConfigError as error:
        assert label == "ia3"
        assert "choose another method" in str(error)  # noqa: PT017
        return
    before = logits_of(base, None, even())
    assert (logits_of(base, method, even()) - before).abs().max() > 1e-4
    assert torch.equal(logits_of(base, None, even()), before)


REFUSED = {
    "bitfit on a base without biases": ("bitfit", (), "has none"),
    "a block that is not there": ("lora", ("method.layers=[3]",), "layers 0 to 2"),
    "a late router": ("lora_per_skill", ("router.layer=0",), "set it to -1"),
    "a cache filled twice": ("prefix", ("train.checkpointing=true",), "fill twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_says_so(llama, case):
    label, changes, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        build_method(config_of(label, *changes), llama, SKILLS)


def test_skills_are_needed_for_a_lora_each(llama):
    with pytest.raises(ConfigError, match="skill names"):
        build_method(config_of("lora_per_skill"), llama, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"name": "lora", "penalty": 1.0}, "penalty"), ({"name": "full", "layers": (1,)}, "layers")],
)
def test_settings_that_contradict_each_other(changes, message):
    with pytest.raises(Exception, match=message):
        MethodConfig(**changes)


def test_a_config_without_the_section_is_csreft(llama):
    method = build_method(Config(router=RouterConfig()), llama, SKILLS)
    assert method.spec.adapter == Config().adapter


def test_the_file_is_written_whole(llama, tmp_path):
    moved("red", llama).save(tmp_path / "a.safetensors")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("name", ["lora", "lora_per_skill", "prefix", "series_adapter"])
def test_a_description_that_asks_for_more_than_its_file_holds(gpt2, tmp_path, name):
    path = tmp_path / "adapter.safetensors"
    moved(name, gpt2).save(path)
    description, tensors = read_adapter_file(path)
    key = next(iter(description))
    for claims, message in (
        ({"method": {"size": 10**9}}, r"asks for \d+ numbers or more, but it holds"),
        ({"n_layers": 4}, "is of a base of 4 blocks of width 32, but 'tiny' has 3 of 32"),
        ({"d_model": 64}, "is of a base of 3 blocks of width 64"),
    ):
        tree = json.loads(description[key])
        for field, value in claims.items():
            tree[field] = {**tree[field], **value} if isinstance(value, dict) else value
        save_file(tensors, path, metadata={key: json.dumps(tree)})
        with pytest.raises(AdapterError, match=message):
            load_method(path, gpt2)
