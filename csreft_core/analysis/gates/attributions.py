"""How much each token of a prompt does to each gate: taken out, and by integrated gradients."""

from collections.abc import Sequence

import torch
from captum.attr import IntegratedGradients
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from csreft_core.analysis.labels import GATE, GRADIENTS, LOGIT, OCCLUSION
from csreft_core.analysis.prompt_tokens import PromptToken
from csreft_core.analysis.subject import Subject
from csreft_core.attachment.attach import EMBEDDING
from csreft_core.attachment.passes import request

MOST_ROWS = 128


def tokens_left(tokens: Sequence[PromptToken], prompt: tuple[int, ...]) -> Sequence[PromptToken]:
    """The tokens of a row that are left of its prompt: the end, after a leading special token."""
    n_head = int(len(prompt) < len(tokens) and prompt[0] == tokens[0].id)
    return [*tokens[:n_head], *tokens[len(tokens) - len(prompt) + n_head :]]


def router_logits(
    subject: Subject, embeddings: Float[Tensor, "row seq d_model"], mask: Bool[Tensor, "row seq"]
) -> Float[Tensor, "row k"]:
    """Router logits of embedded, left-padded prompts; differentiable.

    A router on the embedding needs nothing else of the base; one that reads a layer runs the base
    on the embeddings.
    """
    adapter = subject.adapter
    router = adapter.router
    assert router is not None
    if adapter.spec.router.layer == EMBEDDING:
        logits = router(router.features(embeddings, mask))
    else:
        weight = subject.engine.base.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        _, read = subject.engine.attachment.forward(
            request(adapter),
            inputs_embeds=embeddings.to(weight.dtype),
            attention_mask=mask.long(),
            last_block=adapter.spec.router.layer,
            use_cache=False,
        )
        assert read.logits is not None
        logits = read.logits
    # Padding is on the left: the last column is the last token of the prompt.
    return logits[:, -1] if logits.ndim == 3 else logits


def _embed(subject: Subject, ids: Sequence[int]) -> Float[Tensor, "seq d_model"]:
    base = subject.engine.base
    with torch.no_grad():
        embeddings = base.model.get_input_embeddings()(torch.tensor(ids, device=base.device))
    return embeddings.float()


def _mean_token(subject: Subject) -> Float[Tensor, " d_model"]:
    """The mean embedding of the vocabulary: a token that says nothing."""
    weight = subject.engine.base.model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.detach().mean(0, dtype=torch.float32)


@torch.no_grad()
def occlusion(subject: Subject, text: str, tokens: Sequence[PromptToken]) -> list[tuple]:
    """All shortened prompts beside the whole one, in one forward (a long prompt in several)."""
    router = subject.adapter.router
    assert router is not None
    embedded = _embed(subject, [token.id for token in tokens])
    keep = torch.arange(len(tokens))
    rows = [embedded, *(embedded[keep != i] for i in range(len(tokens)) if len(tokens) > 1)]
    padded = pad_sequence(rows, batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    mask = (torch.arange(padded.shape[1]) >= padded.shape[1] - lengths).to(padded.device)
    logits = torch.cat(
        [
            router_logits(subject, padded[i : i + MOST_ROWS], mask[i : i + MOST_ROWS])
            for i in range(0, len(rows), MOST_ROWS)
        ]
    )
    return [
        row
        for quantity, values in ((GATE, router.gates(logits)), (LOGIT, logits))
        for row in _rows(
            subject,
            text,
            tokens,
            (OCCLUSION, quantity),
            values[:1] - values[1:],
            values[0],
            values[1:],
        )
    ]


def gradients(
    subject: Subject, text: str, tokens: Sequence[PromptToken], steps: int
) -> list[tuple]:
    """All gates at once: the prompt is repeated, and each copy asks for another logit."""
    k = subject.adapter.n_subspaces
    embedded = _embed(subject, [token.id for token in tokens])
    start = _mean_token(subject).expand_as(embedded)

    def logits(inputs: Tensor) -> Tensor:
        mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        return router_logits(subject, inputs, mask)

    with torch.enable_grad():
        attributions = IntegratedGradients(logits).attribute(
            embedded.expand(k, -1, -1).contiguous(),
            start.expand(k, -1, -1).contiguous(),
            target=torch.arange(k, device=embedded.device),
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(k, 64 * MOST_ROWS // max(1, len(tokens))),
        )
    with torch.no_grad():
        full, reference = logits(torch.stack([embedded, start]))
    values = attributions.sum(-1).T
    references = reference.expand(len(tokens), -1)
    return _rows(subject, text, tokens, (GRADIENTS, LOGIT), values, full, references)


def _rows(
    subject: Subject,
    text: str,
    tokens: Sequence[PromptToken],
    what: tuple[str, str],
    values: Float[Tensor, "seq k"],
    full: Float[Tensor, " k"],
    reference: Float[Tensor, "seq k"],
) -> list[tuple]:
    names, whole = subject.adapter.names, full.tolist()
    return [
        (text, i, token.text, token.kind, name, *what, value, whole[j], without)
        for i, (token, of_token, before) in enumerate(
            zip(tokens, values.tolist(), reference.tolist(), strict=False)
        )
        for j, (name, value, without) in enumerate(zip(names, of_token, before, strict=True))
    ]
