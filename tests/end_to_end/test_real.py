"""Real images, captions and encoders; CBMF_REAL_DATA is the folder with data/ and weights/."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = os.environ.get("CBMF_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(SHARED is None, reason="CBMF_REAL_DATA is not set"),
]


def cbmf(*words, cwd):
    done = subprocess.run(
        [sys.executable, "-c", "from cbmf.cli import main; main()", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_flickr8k_and_cifar10_through_all_three_stages(tmp_path):
    shared = Path(SHARED or "")
    weights = shared / "weights"
    encoders = (
        "--text", weights / "all-MiniLM-L6-v2", "--image", weights / "deit-tiny-patch16-224",
    )  # fmt: skip
    options = ("--root", shared / "data", "--layout", "tokens", "--grid", "7", *encoders)
    cbmf("precompute", "flickr8k", "--limit", "400", *options, cwd=tmp_path)
    cbmf("precompute", "cifar10", "--split", "test", "--limit", "300", *options, cwd=tmp_path)
    again = cbmf("precompute", "flickr8k", "--limit", "400", *options, cwd=tmp_path)
    assert "\n0 items encoded" in again
    cbmf("fit", "--cache", "--epochs", "12", "--set", "batch_size=128", cwd=tmp_path)
    cbmf("evaluate", "all", cwd=tmp_path)
    (path,) = tmp_path.glob("runs/*/results/results.json")
    found = {}
    for result in json.loads(path.read_text())["results"]:
        for row in result["rows"]:
            for name, value in row["metrics"].items():
                found[result["benchmark"], result["protocol"], row["kind"], name] = value
    for way in ("image_to_text", "text_to_image"):
        model, chance, untrained = (
            found["retrieval", "standard", kind, f"{way}/R@10"]
            for kind in ("model", "chance", "untrained")
        )
        assert model > 5 * chance and model > 5 * untrained
    assert found["zero-shot", "ensemble", "model", "top-1"] > 0.2
    run = path.parents[1]
    cbmf("report", run, "--root", shared / "data", "--out", "report.html", cwd=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 3 * 2**20 and page.count("data:image/jpeg") > 30
    assert "Zero-shot on cifar10-limit300/test" in page and "Left out" not in page
    said = cbmf("search", run, "a dog runs on the grass", "--html", "found.html", cwd=tmp_path)
    assert said.count("dog") >= 5  # in the captions of the ten images, and no other encoder named
    picture = shared / "data" / "flickr8k" / "Images" / re.findall(r"Images/(\S+\.jpg)", said)[0]
    texts = cbmf("search", run, "--image", picture, "-k", "20", cwd=tmp_path)
    assert picture.name in texts  # one of its own captions
