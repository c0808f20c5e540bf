"""What a router needs of the data before the first step: mean and spread of what it reads."""

import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.attachment.passes import Request
from csreft_core.inference.scoring import batches
from csreft_core.training.state import TrainingState


@torch.no_grad()
def scale_router(training: TrainingState) -> None:
    """Take the router's scale from the training prompts, where it has one (`router.standardize`).

    No block above the router's layer runs. Every process reads all rows, so all have one scale.
    """
    router = training.adapter.router
    if router is None or not router.standardize:
        return
    router.fit_scale(torch.cat(_features(training)))


def _features(training: TrainingState) -> list[Float[Tensor, "batch d_model"]]:
    """What the router reads of each training prompt, as a whole prompt."""
    attachment, router = training.attachment, training.adapter.router
    assert router is not None
    base, layer = attachment.base, training.adapter.spec.router.layer
    parts = []
    for _, batch in batches(
        training.train_rows, base.pad_id, training.config.train.batch_size, base.device
    ):
        _, forward_pass = attachment.forward(
            Request(None, capture=(layer,)),
            **batch.inputs,
            prompt_mask=batch.prompt_mask,
            last_block=layer,
            logits_to_keep=1,
            use_cache=False,
        )
        features = router.features(forward_pass.states[layer][0], forward_pass.prompt_mask)
        parts.append(forward_pass.of_prompts(features))
    return parts
