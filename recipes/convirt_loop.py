"""The training of both encoders and their heads: steps, validation, the best weights, and resume.

B pairs, L tokens, n items to validate on, d_in width of an encoder's pooled vector, D shared width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from torch import Tensor, nn

from ..cache.errors import InputError, RunError
from ..precompute.tower import Tower
from ..train.bank import Bank
from ..train.batches import Batch, batch_count, epoch_batches
from ..train.checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from ..train.config import FitConfig
from ..train.convirt import ConVIRT
from ..train.data import PairedBanks
from ..train.loop import Progress
from ..train.run import build_model
from ..train.schedule import Schedule
from ..train.validation import batch_loss, validate
from ..train.weights import read_tensors, write_tensors
from .convirt_data import ConvirtData
from .convirt_model import DualEncoder, build_optimizer, encoder_spec

BEST_NAME = "best.safetensors"
CHECKPOINT_EVERY_S = 120.0
"""Seconds between two checkpoints within an epoch."""
REPORT_EVERY_S = 30.0
"""Seconds between two lines within an epoch."""
ITEMS_AT_ONCE = 64
"""Of a forward in validation."""
Report = Callable[[Progress], None]


class Training:
    """One training, and all that changes meanwhile."""

    def __init__(
        self,
        config: FitConfig,
        encoder_lr: float,
        data: ConvirtData,
        towers: tuple[Tower, Tower],
        folder: Path,
        accelerator: Accelerator,
        report: Report,
    ) -> None:
        """Begin in `folder`, or go on from the checkpoint that lies there.

        Args:
            config: The recipe; its rate is that of the heads.
            encoder_lr: Highest learning rate of the encoders.
            data: What to train on.
            towers: Image encoder, text encoder.
            folder: Holds the checkpoint and the best weights until all is kept.
            accelerator: Device and arithmetic, as `start_accelerator` gave it.
            report: Hears of steps and epochs.

        Raises:
            RunError: If the checkpoint is damaged.
        """
        self.config, self.data, self.folder, self.report = config, data, folder, report
        self.accelerator = accelerator
        if self.device.type == "cpu":
            for tower in towers:  # with gradients a quarter faster there than the fused kernel
                tower.set_plain_attention()
        heads = cast(ConVIRT, build_model([encoder_spec(t.encoder) for t in towers], config))
        model = DualEncoder(*towers, heads)
        optimizer = build_optimizer(model, config, encoder_lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.pad = towers[1].encoder.processor.pad_token_id or 0
        self.steps = batch_count(data.train.table, config)
        self.schedule = Schedule(config, self.steps * config.epochs)
        self.epoch = self.done = self.best_epoch = 0
        self.tally = {"loss": 0.0, "pairs": 0.0, "seconds": 0.0, "cpu_seconds": 0.0}
        self.history: list[dict[str, float]] = []
        self.saved = self.told = time.monotonic()
        if self.checkpoint.exists():
            self._restore()

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept until the training is finished."""
        return self.folder / CHECKPOINT_NAME

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.accelerator.device

    def run(self) -> None:
        """Train to the end.

        Raises:
            RunError: If the loss becomes infinite or no number.
        """
        while self.epoch < self.config.epochs:
            self._train_epoch()
            with self._timed():
                values = self._validate()
            self._note(values)

    def best(self) -> DualEncoder:
        """The model of the best epoch, on the CPU, in evaluation mode."""
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        model.load_state_dict(read_tensors(self.folder / BEST_NAME)[0])
        return model.cpu().eval()

    def clean(self) -> None:
        """Remove what only an unfinished training needs."""
        for path in (self.checkpoint, self.folder / BEST_NAME, *self.folder.glob("pictures-*.npy")):
            path.unlink(missing_ok=True)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.tally["seconds"] += time.perf_counter() - wall
        self.tally["cpu_seconds"] += time.process_time() - cpu

    def _train_epoch(self) -> None:
        """The steps of an epoch that are not done yet."""
        devices = [self.device] if self.device.type == "cuda" else []
        batches = epoch_batches(self.data.train.table, self.config, self.epoch)
        with torch.random.fork_rng(devices):
            self.model.train()
            for batch in islice(batches, self.done, None):
                with self._timed():
                    # Dropout is a function of the step, so that resume needs no random state.
                    random = np.random.default_rng([self.config.seed, self.epoch, 2, self.done])
                    torch.manual_seed(int(random.integers(2**62)))
                    loss = self._step(batch)
                self.tally["loss"] += loss * len(batch.owner)
                self.tally["pairs"] += len(batch.owner)
                self.done += 1
                self._look_at_the_clock(loss)

    def _step(self, batch: Batch) -> float:
        """One step of the optimizer; the loss before it, in nats."""
        for group in self.optimizer.param_groups:
            share = self.schedule.rate(self.epoch * self.steps + self.done) / self.config.lr
            group["lr"] = group["highest"] * share
        pictures = self.data.train.images(batch.left).to(self.device)
        ids, mask = self.data.train.texts(batch.right, self.pad)
        left, right = self.model(pictures, ids.to(self.device), mask.to(self.device))
        temperature = self.model.heads.temperature
        loss = batch_loss(left, right, batch, temperature.scale(), self.config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        temperature.clamp()
        if not math.isfinite(loss.item()):
            raise RunError(
                f"{self.folder}: the loss is {loss.item()} in step {self.done + 1} of epoch "
                f"{self.epoch + 1}; train with lower rates (--lr, --head-lr) into another folder"
            )
        return loss.item()

    def _look_at_the_clock(self, loss: float) -> None:
        """Keep a checkpoint and tell how far it is, now and then."""
        now = time.monotonic()
        if now - self.saved >= CHECKPOINT_EVERY_S and self.done < self.steps:
            self._save()
        if now - self.told >= REPORT_EVERY_S:
            self.told = now
            rate = self.tally["pairs"] / self.tally["seconds"]
            self._tell(
                f"epoch {self.epoch + 1} of {self.config.epochs}: step {self.done:,} of "
                f"{self.steps:,}, loss {loss:.3f}, {rate:,.1f} pairs/s"
            )

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Loss and recalls on the validation pairs, in evaluation mode."""
        self.model.eval()
        val = self.data.val
        left = [self._pooled(self.model.image, val.images(part)) for part in _parts(val.pictures)]
        right = [
            self._pooled(self.model.text, *val.texts(part, self.pad))
            for part in _parts(val.captions)
        ]
        one, two = (
            Bank(np.arange(len(vectors)), vectors, None)
            for vectors in (torch.cat(left), torch.cat(right))
        )
        return validate(self.model.heads, PairedBanks(one, two, val.table), self.config)

    def _pooled(self, tower: nn.Module, *inputs: Tensor) -> Tensor:
        """(B, d_in) float32."""
        with self.accelerator.autocast():
            return tower(*(part.to(self.device) for part in inputs)).float()

    def _note(self, values: dict[str, float]) -> None:
        """Keep an epoch: history, the best weights, the checkpoint; then tell."""
        tally, self.epoch, self.done = self.tally, self.epoch + 1, 0
        line = {"epoch": self.epoch, "train_loss": tally["loss"] / tally["pairs"], **values}
        line |= {
            "lr": float(self.optimizer.param_groups[-1]["lr"]),
            "temperature": 1 / self.model.heads.temperature.scale().item(),
            "seconds": tally["seconds"],
            "cpu_seconds": tally["cpu_seconds"],
            "pairs_per_s": tally["pairs"] / tally["seconds"],
        }
        self.history.append(line)
        self.tally = dict.fromkeys(tally, 0.0)
        best = self.history[self.best_epoch - 1]["val_recall"] if self.best_epoch else -math.inf
        if line["val_recall"] > best:
            self.best_epoch = self.epoch
            model = self.accelerator.unwrap_model(self.model)
            write_tensors(self.folder / BEST_NAME, model.state_dict())
        self._save()
        self._tell(
            f"epoch {self.epoch} of {self.config.epochs}: train loss {line['train_loss']:.3f}, val "
            f"loss {line['val_loss']:.3f}, mean recall {line['val_recall']:.1%}, "
            f"{line['seconds']:,.0f} s"
        )

    def _save(self) -> None:
        state = {
            "epoch": self.epoch,
            "done": self.done,
            "tally": self.tally,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        write_checkpoint(self.checkpoint, {"model": self.model}, self.optimizer, state)
        self.saved = time.monotonic()

    def _restore(self) -> None:
        state = read_checkpoint(self.checkpoint, {"model": self.model}, self.optimizer)
        self.epoch, self.done, self.tally = state["epoch"], state["done"], state["tally"]
        self.best_epoch, self.history = state["best_epoch"], state["history"]
        self._tell(f"goes on after step {self.done:,} of epoch {self.epoch + 1}")

    def _tell(self, text: str) -> None:
        self.report(Progress("convirt", text, self.epoch, self.config.epochs))


def start_accelerator(device: str | None, precision: str) -> Accelerator:
    """The device and the arithmetic.

    Args:
        device: `cpu` or `cuda`; None: the GPU if there is one.
        precision: `float32` or `bfloat16`.

    Raises:
        InputError: If there is no such device, or several processes.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is to be seen; use --device cpu")
    # Accelerate keeps one state a process and refuses another precision or device in it.
    AcceleratorState._reset_state(reset_partial_state=True)
    half = "bf16" if precision == "bfloat16" else "no"
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=half)
    if accelerator.num_processes > 1:
        raise InputError("cbmf convirt trains in one process; start it without accelerate launch")
    return accelerator


def _parts(items: Sized) -> list[np.ndarray]:
    """Their positions, a forward's worth at a time."""
    return np.array_split(np.arange(len(items)), -(-len(items) // ITEMS_AT_ONCE))
