"""Methods of other libraries, as contestants. Each function runs in that library's environment.

Every method gets a copy of the model of its own. Rank, layers and edited positions are those of
`workload`. Names say what differs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.workload import (
    LAYERS,
    PREFIX,
    RANK,
    SUFFIX,
    Padded,
    Sample,
    Step,
    llama,
    step_of,
)

Generate = Callable[..., Tensor]


def _trainable(model: torch.nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _plain_step(model: Any, data: Sequence[Sample]) -> Step:
    """A method whose model is called like any transformers model."""

    def loss(batch: Padded) -> Tensor:
        return model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=batch.labels,
            use_cache=False,
        ).loss

    return step_of(loss, _trainable(model), data)


# --- pyreft ----------------------------------------------------------------------------------


def _pyreft_model(vocabulary: int) -> Any:
    import pyreft

    representations = [
        {
            "layer": layer,
            "component": "block_output",
            "low_rank_dimension": RANK,
            "intervention": pyreft.LoreftIntervention(
                embed_dim=256, low_rank_dimension=RANK, dtype=torch.float32
            ),
        }
        for layer in LAYERS
    ]
    model = pyreft.get_reft_model(
        llama(vocabulary), pyreft.ReftConfig(representations=representations)
    )
    model.set_device("cpu")
    return model


def _locations(
    prompt_lengths: Sequence[int], first: int = PREFIX, last: int = SUFFIX
) -> dict[str, Any]:
    """First and last prompt tokens of right-padded rows, for each intervention."""
    rows = [[*range(first), *range(n - last, n)] for n in prompt_lengths]
    return {"sources->base": (None, [rows] * len(LAYERS))}


def pyreft_steps(vocabulary: int, data: Sequence[Sample]) -> dict[str, Step]:
    """LoReFT of pyreft, also at the last prompt token alone."""
    return {
        "pyreft LoReFT": _pyreft_step(vocabulary, data, PREFIX, SUFFIX),
        "pyreft LoReFT at l1": _pyreft_step(vocabulary, data, 0, 1),
    }


def _pyreft_step(vocabulary: int, data: Sequence[Sample], first: int, last: int) -> Step:
    model = _pyreft_model(vocabulary)

    def loss(batch: Padded) -> Tensor:
        base = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        _, output = model(
            base,
            unit_locations=_locations(batch.prompt_lengths, first, last),
            labels=batch.labels,
            use_cache=False,
        )
        return output.loss

    interventions = [p for i in model.interventions.values() for p in i.parameters()]
    return step_of(loss, interventions, data)


def pyreft_generations(vocabulary: int) -> dict[str, Generate]:
    """LoReFT on the prompt, and on every token."""
    model = _pyreft_model(vocabulary)
    model.model.generation_config.eos_token_id = None

    def generate(input_ids: Tensor, locations: Any, **settings: Any) -> Tensor:
        base = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        _, tokens = model.generate(
            base, unit_locations=locations, intervene_on_prompt=True, **settings
        )
        return tokens

    def on_prompt(input_ids: Tensor, **settings: Any) -> Tensor:
        lengths = [input_ids.shape[1]] * len(input_ids)
        return generate(input_ids, _locations(lengths), **settings)

    def on_every_token(input_ids: Tensor, **settings: Any) -> Tensor:
        return generate(input_ids, None, **settings)

    return {
        "pyreft LoReFT, prompt only": on_prompt,
        "pyreft LoReFT, every token": on_every_token,
    }


# --- adapters --------------------------------------------------------------------------------


def _adapters_model(vocabulary: int, config: Any) -> Any:
    import adapters

    model = llama(vocabulary)
    adapters.init(model)
    model.add_adapter("skill", config=config)
    model.train_adapter("skill")
    return model.eval()


def adapters_steps(vocabulary: int, data: Sequence[Sample]) -> dict[str, Step]:
    """LoReFT and LoRA of adapters. Its last positions are those of the whole row."""
    from adapters import LoRAConfig, LoReftConfig

    loreft, at_last = (
        LoReftConfig(layers=list(LAYERS), prefix_positions=first, suffix_positions=last, r=RANK)
        for first, last in ((PREFIX, SUFFIX), (0, 1))
    )
    lora = LoRAConfig(r=RANK, alpha=2 * RANK, attn_matrices=["q", "v"])
    return {
        "adapters LoReFT": _plain_step(_adapters_model(vocabulary, loreft), data),
        "adapters LoReFT at l1": _plain_step(_adapters_model(vocabulary, at_last), data),
        "adapters LoRA, q and v, all layers": _plain_step(_adapters_model(vocabulary, lora), data),
    }


def adapters_generations(vocabulary: int) -> dict[str, Generate]:
    """LoReFT with a prefix: with a suffix its cached decoding fails.

    With this model its cache stays empty, so its answer is not that of the edited model; the time
    is what its users wait.
    """
    from adapters import LoReftConfig

    config = LoReftConfig(layers=list(LAYERS), prefix_positions=PREFIX, suffix_positions=0, r=RANK)
    model = _adapters_model(vocabulary, config)
    return {"adapters LoReFT, prefix": _plain_generate(model)}


# --- peft ------------------------------------------------------------------------------------


def _peft_model(vocabulary: int, **settings: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj"], **settings
    )
    return get_peft_model(llama(vocabulary), config)


def peft_steps(vocabulary: int, data: Sequence[Sample]) -> dict[str, Step]:
    """LoRA in all layers and in the edited ones, DoRA in all layers."""
    return {
        "peft LoRA, q and v, all layers": _plain_step(_peft_model(vocabulary), data),
        "peft LoRA, q and v, edited layers": _plain_step(
            _peft_model(vocabulary, layers_to_transform=list(LAYERS)), data
        ),
        "peft DoRA, q and v, all layers": _plain_step(_peft_model(vocabulary, use_dora=True), data),
    }


def peft_generations(vocabulary: int) -> dict[str, Generate]:
    """LoRA in all layers, not merged: a merged one is the base with other weights."""
    return {"peft LoRA, not merged": _plain_generate(_peft_model(vocabulary).eval())}


def _plain_generate(model: Any) -> Generate:
    model.generation_config.eos_token_id = None

    def generate(input_ids: Tensor, **settings: Any) -> Tensor:
        mask = torch.ones_like(input_ids)
        return model.generate(input_ids=input_ids, attention_mask=mask, **settings)

    return generate


STEPS = {"pyreft": pyreft_steps, "adapters": adapters_steps, "peft": peft_steps}
GENERATIONS = {
    "pyreft": pyreft_generations,
    "adapters": adapters_generations,
    "peft": peft_generations,
}
