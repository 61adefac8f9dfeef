"""SIGKILL at any moment: nothing finished is lost, and the end is that of an undisturbed run."""

import random
import shutil
import signal
import time

import forked
import pytest
from campaign import check_run, digests, findings, shards

KILLS, KILLS_LONG = 8, 200
STEPS = 10
"""Of all touches, so many are tried in the short form; in the long one all."""

pytestmark = pytest.mark.slow


def chosen(count, long):
    """Numbers of touches before which a process dies."""
    numbers = list(range(1, count + 1))
    return numbers if long else random.Random(0).sample(numbers, min(STEPS, count))


def test_precompute_killed_at_any_touch_of_a_file(workshop, undisturbed, tmp_path, long):
    cache = tmp_path / "cache"
    assert workshop.run(workshop.precompute(cache), watched=cache) == 0
    tried = chosen(forked.touches(workshop.said), long)
    for number in tried:
        shutil.rmtree(cache)
        words = workshop.precompute(cache)
        assert workshop.run(words, watched=cache, die_at=number) == -signal.SIGKILL, number
        assert findings(cache) == [], number
        kept = shards(cache)
        assert workshop.run(words) == 0, (number, workshop.words_said())
        now = shards(cache)
        assert all(now[name] == found for name, found in kept.items()), number
        assert digests(cache) == digests(undisturbed), number
    print(f"precompute: killed at {len(tried)} of {forked.touches(workshop.said)} touches")


def test_precompute_killed_at_random_moments(workshop, undisturbed, tmp_path, long):
    rng, kills, ends = random.Random(1), 0, 0
    cache = tmp_path / "cache"
    begun = time.monotonic()
    workshop.run(workshop.precompute(cache))
    whole_s = time.monotonic() - begun
    while kills < (KILLS_LONG if long else KILLS):
        kept = shards(cache) if cache.exists() and not digests_equal(cache, undisturbed) else {}
        if not kept and cache.exists():
            shutil.rmtree(cache)
        process = forked.start(workshop.precompute(cache), workshop.said)
        process.join(rng.uniform(0, whole_s))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert findings(cache) == []
        now = shards(cache)
        assert all(now[name] == found for name, found in kept.items())
        if process.exitcode == 0:
            ends += 1
            assert digests(cache) == digests(undisturbed)
    assert workshop.run(workshop.precompute(cache)) == 0
    assert digests(cache) == digests(undisturbed)
    print(f"precompute: {kills} kills at random, {ends} runs that came to their end between")


def digests_equal(cache, other):
    return digests(cache) == digests(other)


def test_fit_killed_at_any_touch_of_a_file(workshop, undisturbed, fitted, tmp_path, long):
    out = tmp_path / "run"
    assert workshop.run(workshop.fit(undisturbed, out), watched=out) == 0
    tried = chosen(forked.touches(workshop.said), long)
    for number in tried:
        shutil.rmtree(out)
        words = workshop.fit(undisturbed, out)
        assert workshop.run(words, watched=out, die_at=number) == -signal.SIGKILL, number
        assert workshop.run(words) == 0, (number, workshop.words_said())
        check_run(out, fitted)
    print(f"fit: killed at {len(tried)} touches")


def test_fit_killed_at_random_moments(workshop, undisturbed, fitted, tmp_path, long):
    rng, kills, ends = random.Random(2), 0, 0
    out = tmp_path / "run"
    begun = time.monotonic()
    workshop.run(workshop.fit(undisturbed, out))
    whole_s = time.monotonic() - begun
    while kills < (KILLS_LONG if long else KILLS):
        process = forked.start(workshop.fit(undisturbed, out), workshop.said)
        process.join(rng.uniform(0, whole_s))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL), workshop.words_said()
        if process.exitcode == 0:
            ends += 1
            check_run(out, fitted)
            out = (
                tmp_path / f"run-{ends}"
            )  # curves of a killed fit may still be drawn in the old one
    assert workshop.run(workshop.fit(undisturbed, out)) == 0
    check_run(out, fitted)
    print(f"fit: {kills} kills at random, {ends} fits that came to their end between")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
@pytest.mark.parametrize("stage", ["precompute", "fit"])
def test_a_signal_ends_a_stage_cleanly(
    workshop, undisturbed, fitted, tmp_path, number, code, stage, long
):
    rng, ended = random.Random(3), 0
    target = tmp_path / stage
    words = (
        workshop.precompute(target) if stage == "precompute" else workshop.fit(undisturbed, target)
    )
    while ended < (25 if long else 3):
        process = forked.start(words, workshop.said)
        process.join(rng.uniform(0.3, 1.2))
        if process.is_alive():
            forked.os.kill(process.pid, number)
        process.join()
        assert process.exitcode in (0, code), workshop.words_said()
        assert "Traceback" not in workshop.words_said()
        if process.exitcode == code:
            ended += 1
            assert "everything finished is kept" in workshop.words_said()
            assert not list(target.rglob("*.tmp")) and not list(target.rglob("*.claim"))
        else:
            shutil.rmtree(target)
    assert workshop.run(words) == 0
    if stage == "precompute":
        assert digests(target) == digests(undisturbed)
    else:
        check_run(target, fitted)
