"""One prompt and its answer in one forward under many rows of gates."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csreft_core.analysis.subject import Subject
from csreft_core.attachment.passes import Request, request
from csreft_core.errors import ConfigError
from csreft_core.inference.known import read_ahead
from csreft_core.inference.scoring import row_labels
from csreft_core.skills.batching import collate
from csreft_core.skills.skill_set import Row
from csreft_core.skills.unwritable import why_lost


@torch.no_grad()
def answer_under(
    subject: Subject, row: Row, gates: str | Float[Tensor, "pattern k"]
) -> tuple[Float[np.ndarray, " pattern"], Float[np.ndarray, "pattern vocab"]]:
    """Of each row of gates: nats of the whole answer, and the logits of its first token."""
    base = subject.engine.base
    encoded = subject.encoded([row])
    if encoded.n_cut and not row.split:
        raise ConfigError(
            "prompt and answer are longer than the base reads, or than train.max_length; shorten "
            "them"
        )
    why = why_lost(encoded.examples[0], row.response, base.tokenizer)
    if why:
        raise ConfigError(
            f"the base cannot write the answer {row.response[:40]!r} ({why}), so it has no "
            "probability; write another answer"
        )
    n = len(gates) if isinstance(gates, Tensor) else 1
    attachment, req = subject.engine.attachment, _request(subject, row, gates)
    batch = collate([encoded.examples[0]], base.pad_id).to(base.device)
    width = int(batch.n_answer_tokens.max())
    labels = batch.labels[:, -width:, None].expand(n, -1, -1)
    known = read_ahead(attachment, subject.adapter, batch)
    if known is None:
        batch = collate([encoded.examples[0]] * n, base.pad_id).to(base.device)
        inputs = {**batch.inputs, "prompt_mask": batch.prompt_mask, "use_cache": False}
        output, _ = attachment.forward(req, **inputs, logits_to_keep=width + 1)
        logits = output.logits[:, -width - 1 : -1].double()
    else:
        logits = known.repeated(n).logits(attachment, subject.adapter, req, width).double()
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(-1, labels)[..., 0].sum(1)
    return nll.cpu().numpy(), logits[:, 0].cpu().numpy()


def _request(subject: Subject, row: Row, gates: str | Tensor) -> Request:
    if isinstance(gates, Tensor):
        return request(subject.adapter, gates)
    return request(subject.adapter, gates, row_labels([row], subject.adapter.names))
