"""A disk that is full or read-only: one line, nothing lost, and on when there is room."""

import os
import random
import shutil
import time

import forked
import pytest
from campaign import check_run, digests, findings, remount, shards

pytestmark = pytest.mark.slow


def check_refusal(workshop):
    """One line that says what is wrong."""
    lines = workshop.words_said().splitlines()
    refusals = [line for line in lines if "disk is full" in line or "are free" in line]
    assert refusals == lines[-1:], workshop.words_said()
    assert refusals[0].startswith("cbmf: ") and "Traceback" not in workshop.words_said()


def test_precompute_on_a_disk_that_grows_from_too_small(workshop, undisturbed, small_disk, long):
    cache, size, refusals = small_disk / "cache", 8192, 0
    kept: dict = {}
    while True:
        remount(small_disk, size)
        code = workshop.run(workshop.precompute(cache))
        now = shards(cache)
        assert all(now[name] == found for name, found in kept.items())
        kept = now
        if code == 0:
            break
        refusals += 1
        check_refusal(workshop)
        assert findings(cache) == []
        assert not list(small_disk.rglob("*.tmp"))
        size += 8192 if long else 32768
    assert digests(cache) == digests(undisturbed)
    print(f"precompute: refused {refusals} times on the way to {size} bytes")


def test_precompute_on_a_disk_that_fills_up_meanwhile(workshop, undisturbed, small_disk, long):
    cache, ballast, rng = small_disk / "cache", small_disk / "ballast", random.Random(4)
    remount(small_disk, 2**24)
    full = 0
    while full < (40 if long else 4):
        process = forked.start(workshop.precompute(cache), workshop.said)
        process.join(rng.uniform(0.3, 1.5))
        fill(ballast)
        process.join()
        kept = shards(cache)
        assert process.exitcode in (0, 1), workshop.words_said()
        if process.exitcode == 1:
            full += 1
            check_refusal(workshop)
        assert findings(cache) == []
        ballast.unlink()
        if process.exitcode == 0 or len(kept) > 12:
            assert workshop.run(workshop.precompute(cache)) == 0
            now = shards(cache)
            assert all(now[name] == found for name, found in kept.items())
            assert digests(cache) == digests(undisturbed)
            shutil.rmtree(cache)


def fill(path):
    """Take all the room that is left on a disk, a page at a time at its end."""
    with path.open("wb", buffering=0) as file:
        for step in (2**20, 4096):
            try:
                while True:
                    file.write(bytes(step))
            except OSError:
                continue


def test_fit_on_a_disk_that_grows_from_too_small(workshop, undisturbed, fitted, small_disk, long):
    out, size, refusals = small_disk / "run", 8192, 0
    while True:
        remount(small_disk, size)
        if workshop.run(workshop.fit(undisturbed, out)) == 0:
            break
        refusals += 1
        check_refusal(workshop)
        assert not list(small_disk.rglob("*.tmp"))
        size += 65536 if long else 524288
    check_run(out, fitted)
    print(f"fit: refused {refusals} times on the way to {size} bytes")


def test_a_cache_that_cannot_be_written_to_is_fitted_and_evaluated_from(
    workshop, undisturbed, fitted, small_disk, tmp_path
):
    remount(small_disk, 2**24)
    shutil.copytree(undisturbed, small_disk / "cache")
    (small_disk / "cache").joinpath("coco2017").exists()
    os.sync()
    remount_read_only(small_disk)
    out = tmp_path / "run"
    assert workshop.run(workshop.fit(small_disk / "cache", out)) == 0, workshop.words_said()
    check_run(out, fitted)
    words = ["evaluate", "all", "--run", str(out), "--cache", str(small_disk / "cache")]
    assert workshop.run(words) == 0, workshop.words_said()
    assert workshop.run(workshop.precompute(small_disk / "cache")) == 0, workshop.words_said()


def remount_read_only(disk):
    import subprocess

    for _ in range(20):
        if not subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False).returncode:
            return
        time.sleep(0.1)
    raise OSError(f"{disk} is busy")
