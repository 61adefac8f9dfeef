"""The product's training step on resident banks, and what it computes.

B items of a batch, L tokens, d and D widths in and out.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cbmf.cache.catalog import Cache
from cbmf.train.batches import batch_count, epoch_batches, generator
from cbmf.train.config import FitConfig, preset
from cbmf.train.data import PairedBanks, load_data
from cbmf.train.run import build_model
from cbmf.train.source import Source, choose_source
from cbmf.train.step import Step
from cbmf.train.validation import validate


@dataclass
class Ours:
    """A fit that is taken step by step."""

    config: FitConfig
    source: Source
    data: PairedBanks
    val: PairedBanks
    step: Step
    epoch: int = 0

    @classmethod
    def begin(
        cls, cache: Cache, dataset: str, layout: str, base: str = "best", **changes: Any
    ) -> Ours:
        """Load the data and build the model, as `cbmf fit` does, on a GPU if there is one."""
        config = preset(base, layout=layout, **changes)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        source = choose_source(cache, config, dataset)
        data = load_data(cache, source, config, device)
        assert isinstance(data.train, PairedBanks)  # not streamed: measured in memory
        return cls(
            config, source, data.train, data.val, _first_step(config, source, data.train, device)
        )

    def again(self, **changes: Any) -> Ours:
        """Another fit on the same banks."""
        config = preset(self.config.preset, layout=self.config.model.layout, **changes)
        step = _first_step(config, self.source, self.data, self.step.device)
        return Ours(config, self.source, self.data, self.val, step)

    def some(self, count: int) -> tuple[Callable[[], None], int]:
        """Work that takes `count` batches, at most an epoch, and the pairs in them.

        The batches are the same in each call: the order of the data is made within the work, as
        in a fit.
        """
        table, config = self.data.table, self.config
        count = min(count, batch_count(table, config))
        pairs = sum(len(b.right) for b in itertools.islice(epoch_batches(table, config, 0), count))

        def work() -> None:
            random = generator(config.seed, 0, purpose=2)
            self.step.model.train()
            for batch in itertools.islice(epoch_batches(table, config, 0), count):
                self.step.take(self.data, batch, random)
            synchronise()

        return work, pairs

    def train_epoch(self) -> None:
        """One whole pass."""
        random = generator(self.config.seed, self.epoch, purpose=2)
        self.step.model.train()
        for batch in epoch_batches(self.data.table, self.config, self.epoch):
            self.step.take(self.data, batch, random)
        synchronise()
        self.epoch += 1

    def recall(self) -> float:
        """Mean recall in validation, 0 to 1."""
        return validate(self.step.average or self.step.model, self.val, self.config)["val_recall"]

    def pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` pairs at most, drawn once, as dense float32: (P, L, d) left and right.

        The image stands again for each of its captions, texts are padded to the longest.
        """
        table = self.data.table
        chosen = np.random.default_rng(0).permutation(len(table.right))[:count]
        sides = (
            (self.data.left, table.left[table.owner[chosen]]),
            (self.data.right, table.right[chosen]),
        )
        left, right = (
            bank.gather(torch.from_numpy(positions).to(bank.device))[0].to(self.step.device)
            for bank, positions in sides
        )
        return left, right


def _first_step(config: FitConfig, source: Source, data: PairedBanks, device: torch.device) -> Step:
    model = build_model(source.encoders(config.model.layout), config)
    for index, bank in enumerate((data.left, data.right)):
        model.measure(index, bank.statistics())
    return Step(model.to(device), config, batch_count(data.table, config) * config.epochs)


def synchronise() -> None:
    """Wait for a GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def flops_of(work: Callable[[], object]) -> float:
    """Multiplications and additions of the matrix products of some work, backward included.

    As torch counts them: of attention on a CPU, only what dropout makes it compute as products.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def dominant_product(model: nn.Module, work: Callable[[], object]) -> tuple[int, int, int]:
    """Rows, d and D of the linear map that costs most of some work: (rows x d) @ (d x D)."""
    cost: Counter[tuple[int, int]] = Counter()
    rows: dict[tuple[int, int], list[int]] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        shape = (layer.in_features, layer.out_features)
        count = output.numel() // layer.out_features
        cost[shape] += count * shape[0] * shape[1]
        rows.setdefault(shape, []).append(count)

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Linear)]
    work()
    for hook in hooks:
        hook.remove()
    (shape, _), *_ = cost.most_common(1)
    return int(np.median(rows[shape])), *shape


def product(shape: tuple[int, int, int], dtype: torch.dtype, flops: float) -> Callable[[], None]:
    """Work that does `flops`, about, in products of a shape: the machine's own rate."""
    rows, width_in, width_out = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one = torch.randn(rows, width_in, device=device).to(dtype)
    two = torch.randn(width_in, width_out, device=device).to(dtype)
    out = torch.empty(rows, width_out, device=device, dtype=dtype)
    times = product_times(shape, flops)

    def work() -> None:
        for _ in range(times):
            torch.mm(one, two, out=out)
        synchronise()

    return work


def product_times(shape: tuple[int, int, int], flops: float) -> int:
    """How many products of a shape make about so many operations; at least 1."""
    rows, width_in, width_out = shape
    return max(1, round(flops / (2 * rows * width_in * width_out)))
