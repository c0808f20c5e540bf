"""What an engine gives back: an answer, or a trace of one forward."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """A prompt, the text that the model gave, and the gates it was given under (None: base)."""

    prompt: str
    text: str
    gates: dict[str, float] | None
    n_tokens: int


@dataclass(frozen=True)
class Trace:
    """What one forward over prompts did. Prompts are padded on the left.

    `before[l]` and `after[l]` are the output of block l without and with the edit of that layer;
    below the edits, and without an adapter, they are equal.

    Attributes:
        input_ids: Token ids.
        is_token: False for padding.
        gates: None without an adapter; per token where the router is.
        before: For each captured layer.
        after: For each captured layer.
        logits: Of the token that follows each prompt; of no token where the forward ended before.
    """

    input_ids: Int[Tensor, "prompt seq"]
    is_token: Bool[Tensor, "prompt seq"]
    gates: Float[Tensor, "prompt k"] | Float[Tensor, "prompt seq k"] | None
    before: dict[int, Float[Tensor, "prompt seq d_model"]]
    after: dict[int, Float[Tensor, "prompt seq d_model"]]
    logits: Float[Tensor, "prompt vocab"]
