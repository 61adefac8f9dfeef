from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_caches import Maker


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, which only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "cache")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing of figures out: it takes longer than a small evaluation."""
    monkeypatch.setattr("cbmf.evaluate.suite.draw_results", lambda folder: None)
