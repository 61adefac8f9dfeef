"""A process beside: it answers for what went wrong, and a stop leaves nothing of it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cbmf.cache.files import run_apart

WRITER = """
import sys, time
from pathlib import Path
from cbmf.cache.files import new_file
with new_file(Path(sys.argv[1]) / "figure.png") as part:
    part.write_text("half")
    time.sleep(60)
"""
CALLER = """
import signal, sys
from pathlib import Path
from cbmf.cache.files import run_apart
signal.signal(signal.SIGINT, signal.default_int_handler)
run_apart("slow_writer", sys.argv[1], folder=Path(sys.argv[1]))
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder of modules that every process finds."""
    found = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{found}")
    return tmp_path


def test_a_stop_leaves_nothing_half_written(modules, tmp_path):
    (modules / "slow_writer.py").write_text(WRITER)
    out = tmp_path / "out"
    out.mkdir()
    caller = subprocess.Popen([sys.executable, "-c", CALLER, out], stderr=subprocess.DEVNULL)
    while caller.poll() is None and not list(out.iterdir()):
        time.sleep(0.02)
    assert list(out.glob("*.tmp"))
    caller.send_signal(signal.SIGINT)
    caller.wait()
    assert caller.returncode
    assert not list(out.iterdir())


def test_the_last_line_of_a_failure_comes_back(modules, tmp_path):
    (modules / "failing.py").write_text("raise SystemExit('first\\nno ink')")
    (modules / "fine.py").write_text("print('drawn')")
    assert run_apart("failing", folder=tmp_path) == "no ink"
    assert run_apart("fine", folder=tmp_path) is None
