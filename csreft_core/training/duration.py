"""About how long a training will take, from what a forward of its base takes."""

import math

from csreft_core.base.speed import Speed
from csreft_core.config import Config
from csreft_core.inference.scoring import scored_rows


def training_seconds(
    config: Config, speed: Speed, *, n_layers: int, length: float, n_validation: int
) -> float:
    """Seconds of steps and evaluations, without loading the base.

    A step reads all tokens once, and goes back through the blocks above the first edit; an
    evaluation reads each scored row twice, for its loss and for its answer.

    Args:
        config: Of the run.
        speed: Of its base on this machine.
        n_layers: Blocks of the base.
        length: Mean tokens of a row.
        n_validation: Validation rows.
    """
    train = config.train
    first = min(config.adapter.layers, default=0)
    back = (n_layers - 1 - first) / n_layers
    step = train.batch_size * length * speed.token_s * (1 + back)
    scored = len(scored_rows(n_validation)) if n_validation else 0
    n_evaluations = 1 + math.ceil(train.steps / train.eval_every)
    return train.steps * step + n_evaluations * scored * 2 * length * speed.token_s
