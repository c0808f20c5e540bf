"""What the processes of one training tell each other; a single process sends nothing.

Every process calls these functions in the same order. An error in one process becomes an error in
all, so none waits for another that has left.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor, nn

from csreft_core.errors import CsreftError, RunError, first_line

T = TypeVar("T")


def total(accelerator: Accelerator, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The sum of the processes' values.

    Raises:
        RunError: another process is gone.
    """
    if accelerator.num_processes == 1:
        return values
    with _others_there():
        sums = accelerator.reduce(values.to(accelerator.device), "sum")
    assert isinstance(sums, Tensor)
    return sums.to(values.device)


def any_of(accelerator: Accelerator, value: bool) -> bool:
    """Whether it is true in any process.

    Raises:
        RunError: another process is gone.
    """
    return bool(total(accelerator, torch.tensor([float(value)])) > 0)


def gather(accelerator: Accelerator, value: T) -> list[T]:
    """The value of every process, in their order.

    Raises:
        RunError: another process is gone.
    """
    if accelerator.num_processes == 1:
        return [value]
    with _others_there():
        return gather_object([value])


@contextmanager
def failing_together(accelerator: Accelerator) -> Iterator[None]:
    """What one process cannot do in this block, none goes on from.

    Raises:
        RunError: another process failed, or is gone.
    """
    if accelerator.num_processes == 1:
        yield
        return
    with _holding_errors() as errors:
        yield
    _tell_errors(accelerator, errors)


@contextmanager
def summing_gradients(
    accelerator: Accelerator, parameters: Sequence[nn.Parameter]
) -> Iterator[None]:
    """After this block each gradient is the sum over the processes.

    One message carries all gradients and whether a process failed. A process without a row has no
    gradient and adds zero.

    Raises:
        RunError: another process failed, or is gone.
    """
    if accelerator.num_processes == 1:
        yield
        return
    with _holding_errors() as errors:
        yield
    n_failed = torch.tensor([float(len(errors))], device=parameters[0].device)
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    sums = total(accelerator, torch.cat([n_failed, *(gradient.flatten() for gradient in own)]))
    if sums[0] > 0:
        _tell_errors(accelerator, errors)
    pieces = sums[1:].split([p.numel() for p in parameters])
    for parameter, gradient in zip(parameters, pieces, strict=True):
        parameter.grad = gradient.view_as(parameter).clone()


@contextmanager
def _holding_errors() -> Iterator[list[Exception]]:
    """Errors of this block, which are raised once the others know."""
    errors: list[Exception] = []
    try:
        yield errors
    except Exception as error:  # noqa: BLE001 - `_tell_errors` raises it again
        errors.append(error)


def _tell_errors(accelerator: Accelerator, errors: list[Exception]) -> None:
    """Raise this process's error, or one that tells of the first other process's."""
    texts = gather(accelerator, _text(errors[0]) if errors else None)
    if errors:
        raise errors[0]
    for process, text in enumerate(texts):
        if text is not None:
            raise RunError(f"process {process} of this training failed: {text}")


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, CsreftError) else repr(error)


@contextmanager
def _others_there() -> Iterator[None]:
    """Make of a broken connection an error that a user can act on."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"another process of this training is gone ({first_line(error, 120)}); its last words "
            "are in the log; go on with --resume"
        ) from error
