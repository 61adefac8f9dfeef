import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from cbmf.train.config import ModelConfig, preset
from cbmf.train.model import CBMF, EncoderSpec
from cbmf.train.schedule import AdamW, Schedule, build_optimizer

SPECS = [EncoderSpec(name, "text", "text", name, 4) for name in ("a", "b")]


def test_cosine_rises_to_the_rate_and_falls_to_zero():
    schedule = Schedule(preset("best", lr=0.5, schedule="cosine", warmup=0.2), steps=50)
    assert [schedule.rate(s) for s in (0, 4, 9, 10)] == pytest.approx([0.05, 0.25, 0.5, 0.5])
    assert schedule.rate(30) == pytest.approx(0.25)
    assert schedule.rate(49) == pytest.approx(0.25 * (1 + math.cos(math.pi * 39 / 40)))


def test_a_plateau_lowers_the_rate_like_torchs():
    losses = [5, 4, 4, 4.1, 4, 4, 3.9999, 3.99, 4, 4, 4, 4, 3, 3, 3, 3, 3]
    schedule = Schedule(
        preset("released", lr=0.1, plateau_patience=2, plateau_factor=0.5), steps=100
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    for epoch, loss in enumerate(losses):
        schedule.observe(loss)
        torchs.step(loss)
        assert schedule.rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        again = Schedule(schedule.config, 100)
        again.restore(schedule.state())
        assert again == schedule


def test_only_matrices_decay_unless_all_shall():
    model = CBMF(SPECS, ModelConfig(width=8, heads=2))
    free = {
        id(p)
        for group in build_optimizer(model, preset("best", weight_decay=0.3)).param_groups
        if group["weight_decay"] == 0
        for p in group["params"]
    }
    names = {name for name, p in model.named_parameters() if id(p) in free}
    assert {"temperature.log_scale", "context.vectors", "dfe.norm.weight"} <= names
    assert not any(name.endswith("hidden.weight") for name in names)
    (everything,) = build_optimizer(model, preset("released")).param_groups
    assert len(everything["params"]) == len(list(model.parameters()))
    assert everything["weight_decay"] == 1e-3


def weights_after_steps(optimizer_of):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    optimizer = optimizer_of(model.parameters())
    for step in range(30):
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(5, 8)).square().sum().backward()
        optimizer.step()
        if step == 12:
            optimizer.load_state_dict(optimizer.state_dict())
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("fused", [False, True])
def test_the_optimizer_is_torchs_bit_for_bit(fused):
    ours, torchs = (
        weights_after_steps(lambda parameters, kind=kind: kind(parameters, lr=1e-2, fused=fused))
        for kind in (AdamW, torch.optim.AdamW)
    )
    assert torch.equal(ours, torchs)


def test_a_first_step_loads_no_compiler():
    script = """
import sys, torch
from torch import nn
from cbmf.train.config import preset
from cbmf.train.schedule import build_optimizer
model = nn.Linear(3, 2)
optimizer = build_optimizer(model, preset("best"))
optimizer.zero_grad(set_to_none=True)
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
