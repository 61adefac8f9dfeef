"""What the quickstart shows in Python runs as it stands there."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"


def test_every_block_of_python_runs(maker, drawn, tmp_path, monkeypatch):
    cache, run = maker("pooled")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "own").symlink_to(run.folder)
    (tmp_path / "embeddings").symlink_to(cache.root)
    (tmp_path / "pictures").symlink_to(drawn / "coco")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        if "cosines" in names and "model" not in names:
            assert names["rows"].shape == (2, 32) and names["cosines"].shape == (4, 2)
    assert names["rows"].shape[1] == 32
    assert 0 <= names["recall"] <= 1
