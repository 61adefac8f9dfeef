"""A loop of all stages in one process stays as large as it was (soak.py, in short)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from soak import flat, growth, soak
import torch
torch.set_num_threads(1)
grown = growth(soak(Path(sys.argv[2]), int(sys.argv[3]), None))
print(json.dumps([flat(grown), grown]))
"""


def test_nothing_grows(tmp_path, long):
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run([*words, "200" if long else "9"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steady, grown = json.loads(done.stdout.splitlines()[-1])
    print(grown)
    assert steady, grown
