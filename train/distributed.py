"""The processes that fit one model together, each with a share of every batch.

N rows of a batch, P processes, D width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache.errors import CbmfError, InputError, PeerError, RunError
from .aligner import Aligner

Result = TypeVar("Result")


@dataclass(frozen=True)
class Team:
    """This process among those that fit together; by default it is alone."""

    device: torch.device
    """Where this process computes."""
    rank: int = 0
    """Place of this process, 0 to size - 1."""
    size: int = 1
    """P."""
    beside: int = 1
    """Processes on this machine, which share its memory."""

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def share(self, count: int) -> np.ndarray:
        """Places in a batch of `count` items of those that this process encodes, int64.

        They lie apart, so that what a batch has side by side falls to different processes.

        Raises:
            InputError: If there is not an item for each process; elsewhere than in the main
                process PeerError.
        """
        if count < self.size and not self.main:
            raise PeerError("the main process says why")
        if count < self.size:
            raise InputError(
                f"{self.size} processes for a batch of {count} items; fit with fewer processes or "
                "a larger batch_size"
            )
        return np.arange(self.rank, count, self.size)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """All rows of a batch, in its order, without gradient, (N, D).

        Args:
            rows: Those of `share(count)`.
            count: N.
        """
        rows = rows.detach()
        if self.size == 1:
            return rows
        from accelerate.utils import gather  # type: ignore[import-untyped]

        most = -(-count // self.size)
        padded = F.pad(rows, (0, 0, 0, most - len(rows)))
        with self._talking():
            everyone = gather(padded)  # (P * most, D), process after process
        return everyone.unflatten(0, (self.size, most)).transpose(0, 1).flatten(0, 1)[:count]

    def sum_gradients(self, model: Aligner) -> None:
        """Let each gradient be the sum of what all processes found for their own rows.

        That of the temperature follows from all rows, and each process has it in full: it counts
        once.
        """
        if self.size == 1:
            return
        from accelerate.utils import reduce

        if not self.main:
            model.temperature.zero_grad(set_to_none=False)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        with self._talking():
            total = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        parts = total.split([gradient.numel() for gradient in gradients])
        for gradient, whole in zip(gradients, parts, strict=True):
            gradient.copy_(whole.view_as(gradient))

    def agree(self, function: Callable[[], Result]) -> Result:
        """What the function gives in the main process, which alone calls it; in every process.

        Raises:
            PeerError: If it fails there; in the main process, what it fails with.
        """
        if self.size == 1:
            return function()
        if not self.main:
            done, value = self._from_main(None)
            if not done:
                raise PeerError("the main process has failed; it says why")
            return value
        try:
            value = function()
        except (CbmfError, OSError):
            self._from_main((False, None))
            raise
        self._from_main((True, value))
        return value

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """What each process does in this block succeeds in all of them or in none.

        Raises:
            PeerError: Where another process tells of a failure: the first one that has it.
        """
        failure: Exception | None = None
        try:
            yield
        except (CbmfError, OSError) as error:
            failure = error
            if self.size == 1:
                raise
        if self.size == 1:
            return
        from accelerate.utils import gather_object

        with self._talking():
            failed: list[bool] = gather_object([failure is not None])
        if True in failed:
            if failure is not None and failed.index(True) == self.rank:
                raise failure
            raise PeerError("another process has failed; it says why") from failure

    def _from_main(self, value: Any) -> Any:
        from accelerate.utils import broadcast_object_list

        box = [value]
        with self._talking():
            broadcast_object_list(box)
        return box[0]

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torch has no class for a connection that broke
            if not self.main:
                raise PeerError("another process is gone") from error
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"another process of this fit has ended, and this one with it ({reason})"
            ) from error


def meet(device: torch.device | str | None = None) -> Team:
    """This process and those that `accelerate launch` or torchrun has started beside it.

    Args:
        device: `cpu`, `cuda` or None for the GPU if there is one. Of several processes each takes
            the GPU of its number on its machine; alone, `cuda:1` and the like may be named too.

    Raises:
        InputError: If there are more processes than GPUs, or a GPU is named for several of them.
    """
    wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team(wanted)
    if wanted.index is not None:
        raise InputError(f"--device {wanted} with several processes; each takes its own GPU")
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if wanted.type == "cuda" and local >= gpus:
        raise InputError(
            f"process {local + 1} of this machine finds {gpus} GPUs; start as many processes as "
            "there are GPUs (--num_processes), or fit with --device cpu"
        )
    from accelerate import PartialState  # type: ignore[import-untyped]

    state = PartialState(cpu=wanted.type == "cpu")
    # Accelerate says cpu:0, which torch holds for another device than cpu.
    place = state.device if wanted.type == "cuda" else wanted
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Team(place, state.process_index, state.num_processes, beside)


def part() -> None:
    """End what `meet` began, after all went well; where something failed, ending it may hang."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
