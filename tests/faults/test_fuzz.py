"""A forged cache is refused, not believed, and crashes nothing (fuzz_cache.py, in short)."""

from pathlib import Path

import pytest
from fuzz_cache import campaign

pytestmark = pytest.mark.slow


def test_forged_files_give_a_result_or_one_line(tmp_path: Path, long):
    failures = campaign(tmp_path, range(20_000 if long else 400))
    assert not failures, failures[0]
