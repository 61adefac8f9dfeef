"""A second device that stands in for a GPU: the CPU under another name.

Like a GPU it refuses to compute with tensors of the CPU beside its own, numbers apart. So code that
leaves a tensor behind, or makes one in the wrong place, fails here as it would there. What only
CUDA has (streams, pinned memory, autocast, its generator) it does not show.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "second"
MIXED = {"_to_copy", "copy_", "index", "index_put_", "_index_put_impl_"}
"""Operators that a GPU too lets see tensors of the CPU."""


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend(NAME, _Module())
DEVICE = torch.device(NAME, 0)
torch.inference_mode = torch.no_grad  # of a tensor in Python, torch cannot take views there


class Elsewhere(torch.Tensor):
    """A tensor of the second device, around one of the CPU."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), dtype=here.dtype, device=DEVICE
        )
        made.here = here
        return made

    def __repr__(self) -> str:
        return f"Elsewhere({self.here!r})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if func is torch.Tensor.__getitem__ and isinstance(args[1], list):
                args = args[0], torch.tensor(args[1])  # torch would make it beyond our reach
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """While it holds, `torch.device("second")` exists."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = any(isinstance(value, Elsewhere) for value in tree_leaves((args, kwargs)))
        return _computed(func, args, kwargs) if ours or _asked(kwargs) else func(*args, **kwargs)


def _asked(kwargs: dict[str, Any]) -> bool | None:
    """Whether the result shall lie on the second device; None where nothing is said."""
    place = kwargs.get("device")
    return None if place is None else torch.device(place).type == NAME


def _computed(func, args, kwargs):
    name = func._schema.name.partition("::")[2]
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    ours = [t for t in tensors if isinstance(t, Elsewhere)]
    foreign = [t for t in tensors if not isinstance(t, Elsewhere) and t.dim()]
    if ours and foreign and name not in MIXED:
        shapes = [(t.device.type, tuple(t.shape)) for t in tensors]
        raise RuntimeError(f"{func}: tensors on two devices: {shapes}")
    there = _asked(kwargs)
    if there is None:
        there = isinstance(args[0], Elsewhere) if name == "copy_" else bool(ours)
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(t.here): t for t in ours}
    inner = tree_map(lambda x: x.here if isinstance(x, Elsewhere) else x, (args, kwargs))
    found = func(*inner[0], **inner[1])

    def back(value):
        if not isinstance(value, torch.Tensor) or not there:
            return value
        if any(value is t for t in foreign):
            value = value.clone()
        return known[id(value)] if id(value) in known else Elsewhere(value)

    return tree_map(back, found)
