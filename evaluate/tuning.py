"""A classifier on top of a model, trained together with it on cached vectors.

N images, B of a batch, L tokens of an image, d width of an encoder, D of a model, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cache.errors import InputError
from ..train.aligner import Aligner
from ..train.bank import Bank
from ..train.config import FitConfig
from ..train.step import in_half

RATE, HEAD_RATE = 1e-3, 1e-2
"""Highest learning rates of AdamW: of a model, and of the classifier on top of it. Rates and decay
were chosen on a fifth of CIFAR-100's training images, held out."""
FIXED_RATE = 1e-3
"""Of a classifier on fixed vectors: it learns at once, and overfits at the rate above."""
DECAY = 0.05
"""Of AdamW, on matrices alone."""
BATCH = 128
WARMUP = 0.1
"""Share of the steps in which the rates rise; a cosine takes them to 0 afterwards."""
CLIP = 1.0
"""Largest norm of the gradient."""
CPUS_WITH_HALF = ("avx512_bf16", "amx_bf16")
"""What a CPU that computes in bfloat16 calls it."""
ITEMS_AT_ONCE = 256
"""Images that are scored at once."""


class Classifier(nn.Module):
    """A linear classifier on standardised features: of a model's image side, or fixed ones."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, body: Aligner | None, encoder: int, width: int, classes: int) -> None:
        """Start the head at zero.

        Args:
            body: The model under the head; a copy of it is trained. None: fixed vectors.
            encoder: Which of the model's encoders the images come from.
            width: D; of fixed vectors d.
            classes: K.
        """
        super().__init__()
        self.body, self.encoder = copy.deepcopy(body), encoder
        self.register_buffer("mean", torch.zeros(width))  # (D,)
        self.register_buffer("deviation", torch.ones(width))  # (D,)
        self.head = nn.utils.skip_init(nn.Linear, width, classes)  # no random number is drawn
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, values: Tensor, mask: Tensor) -> Tensor:
        """What is classified, (B, L, d), (B, L) bool -> (B, D) float32."""
        if self.body is None:
            return values[:, 0]
        return self.body.features(self.encoder, values, mask)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Class scores, (B, L, d), (B, L) bool -> (B, K)."""
        return self.head((self.features(values, mask) - self.mean) / self.deviation)

    def keep(self) -> float:
        """Share of an image's tokens that is shown while training: as the model was fitted."""
        return 1.0 if self.body is None else 1.0 - self.body.config.token_dropout

    def measure(self, bank: Bank) -> None:
        """Standardise by the features that the images of a bank have now."""
        whole = self._over(bank, self.features)
        deviation = whole.std(0, correction=0)
        self.mean.copy_(whole.mean(0))
        self.deviation.copy_(deviation.where(deviation > 1e-6 * (1 + self.mean.abs()), 1.0))

    def scores(self, bank: Bank) -> np.ndarray:
        """Class scores of all images of a bank, (N, K) float32."""
        return self._over(bank, self.forward).cpu().numpy()

    def fixed(self, bank: Bank) -> Bank:
        """The features that the images of a bank have now, as a bank of pooled vectors."""
        return replace(bank, values=self._over(bank, self.features), offsets=None)

    @torch.no_grad()
    def _over(self, bank: Bank, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What a function gives all images of a bank, (N, any), in evaluation mode."""
        self.eval()
        parts = torch.arange(len(bank), device=bank.device).split(ITEMS_AT_ONCE)
        return torch.cat([function(*self._there(*bank.gather(part))) for part in parts])

    def _there(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """On the device of the weights; a bank may be too large for it."""
        return values.to(self.mean.device), mask.to(self.mean.device)

    def loss(self, bank: Bank, index: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of some images, as a training model sees them.

        Args:
            bank: Where the images are.
            index: Their places, (B,) int64, on the bank's device.
            labels: (B,) int64, on the device of the weights.
        """
        scores = self(*self._there(*bank.gather(index, self.keep())))
        return F.cross_entropy(scores.float(), labels)


def quick_half(config: FitConfig, device: torch.device) -> bool:
    """Whether to train in bfloat16: as the fit would, and on a CPU that is made for it.

    There it takes 0.6 of the time, and accuracies differ by less than their intervals. A torch that
    cannot tell what the CPU has trains in float32.
    """
    if in_half(config, device) or config.precision != "auto":
        return in_half(config, device)
    told: Callable[[], Mapping[str, object]] = getattr(torch.cpu, "get_capabilities", dict)
    return device.type == "cpu" and any(told().get(name) for name in CPUS_WITH_HALF)


@dataclass(frozen=True)
class Training:
    """How long, and how, a classifier is trained."""

    epochs: int = 100
    seed: int = 0
    """Of the order of the images, and of dropout."""
    half: bool = False
    """Whether the forward pass is bfloat16 (autocast)."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"fine-tuning takes at least 1 epoch; got {self.epochs}")

    @property
    def scored(self) -> list[int]:
        """After which epochs the images of the other split are scored: each fifth, and the last."""
        return sorted({math.ceil(self.epochs * fifth / 5) for fifth in range(1, 6)})


def train_classifier(
    classifier: Classifier,
    train: Bank,
    labels: np.ndarray,
    test: Bank,
    training: Training,
    report: Callable[[int], None],
) -> dict[int, np.ndarray]:
    """Train head and model together; class scores of the test images by epoch, (N, K) float32.

    AdamW with warm-up and a cosine, cross-entropy, no augmentation but the model's own dropout.
    Nothing is chosen on the test images.

    Args:
        classifier: Is trained in place.
        train: The training images.
        labels: Their classes, (N,) int64, in the bank's order.
        test: The images to score.
        training: How long; after which epochs to score.
        report: Called with the number of epochs done whenever the images are scored.
    """
    device = classifier.mean.device
    target = torch.from_numpy(labels).to(device)
    optimizer, scores, step = _optimizer(classifier), {}, 0
    highest = [float(group["lr"]) for group in optimizer.param_groups]
    steps = training.epochs * math.ceil(len(train) / BATCH)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(training.seed)
        classifier.measure(train)
        for epoch in range(1, training.epochs + 1):
            classifier.train()
            for index in torch.randperm(len(train)).split(BATCH):
                for group, rate in zip(optimizer.param_groups, highest, strict=True):
                    group["lr"] = rate * _share_of_rate(step, steps)
                with torch.autocast(device.type, torch.bfloat16, training.half):
                    loss = classifier.loss(train, index.to(train.device), target[index.to(device)])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(classifier.parameters(), CLIP)
                optimizer.step()
                step += 1
            if epoch in training.scored:
                scores[epoch] = classifier.scores(test)
                report(epoch)
    return scores


def _optimizer(classifier: Classifier) -> torch.optim.AdamW:
    """AdamW with a rate for the model and one for the head; matrices decay, contexts do not."""
    groups = []
    above = FIXED_RATE if classifier.body is None else HEAD_RATE
    for rate, part in ((RATE, classifier.body), (above, classifier.head)):
        named = [] if part is None else list(part.named_parameters())
        decays = {name for name, p in named if p.ndim >= 2 and name != "context.vectors"}
        groups += [
            {"params": [p for n, p in named if n in decays], "lr": rate, "weight_decay": DECAY},
            {"params": [p for n, p in named if n not in decays], "lr": rate, "weight_decay": 0.0},
        ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def _share_of_rate(step: int, steps: int) -> float:
    """What a step's rate is of the highest one."""
    warmup = int(WARMUP * steps)
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
