"""Where a GPU would be: nothing is left on the CPU, and the numbers are the CPU's."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cbmf.precompute.encoded import Launched

ONE_IMAGE = 0.051
"""Of the 20 that fine-tuning is scored on: rounding may turn one."""


@pytest.mark.slow
def test_all_stages_on_a_second_device_give_what_the_cpu_gives(tmp_path):
    backend = pytest.importorskip("torch.utils.backend_registration")
    if not hasattr(backend, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot take a device made in Python")
    script = Path(__file__).with_name("stages.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["farthest"] < 1e-4
    assert len(told["fits"]) >= 8
    for name, found in told["fits"].items():
        here, there = found["cpu"], found["second"]
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-4), name
        assert there["scores"].keys() == here["scores"].keys()
        for score, value in here["scores"].items():
            tolerance = ONE_IMAGE if score.startswith("fine-tune") else 1e-4
            assert there["scores"][score] == pytest.approx(value, abs=tolerance), (name, score)


def test_results_are_awaited_on_the_gpu_that_makes_them(monkeypatch):
    awaited = []
    event = SimpleNamespace(record=awaited.append, synchronize=lambda: awaited.append("waited"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    there = SimpleNamespace(
        device=torch.device("cuda:1"), to=lambda *place, **how: torch.ones(2, 3)
    )
    Launched(there, None, None).collect()
    assert awaited == ["stream of cuda:1", "waited"]
