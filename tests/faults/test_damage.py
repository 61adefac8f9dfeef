"""Flipped bytes and cuts in every kind of file: found, never used, and mended file by file."""

import random
import shutil
from pathlib import Path

import pytest
from campaign import digests, shards

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import CacheError, RunError
from cbmf.cache.stream import Stream
from cbmf.cache.upkeep import verify
from cbmf.train.upkeep import verify_run

HARMS, HARMS_LONG = 80, 600
MENDED = 12
"""Every so many damages the commands mend it."""
KEPT = (".h5", ".json", ".jsonl", ".safetensors")

pytestmark = pytest.mark.slow


def harmed(content: bytes, rng: random.Random) -> bytes:
    """One byte changed, or the end cut off."""
    place = rng.randrange(len(content))
    if rng.random() < 0.3:
        return content[:place]
    other = rng.choice([value for value in range(256) if value != content[place]])
    return content[:place] + bytes([other]) + content[place + 1 :]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in KEPT and not p.name.startswith("."))


def use_cache(root: Path) -> None:
    """Read all of it, as a fit and an evaluation do."""
    cache = Cache(root)
    for dataset, split in cache.splits():
        cache.items(dataset, split)
        for stream in cache.streams(dataset, split):
            cache.items_of(stream)
            Stream(stream.path).pooled()


def test_every_damage_of_a_cache_is_found_and_none_is_used(workshop, undisturbed, tmp_path, long):
    cache, rng = tmp_path / "cache", random.Random(5)
    shutil.copytree(undisturbed, cache)
    use_cache(cache)
    every, mended = files(cache), 0
    for number in range(HARMS_LONG if long else HARMS):
        path = rng.choice(every)
        content = path.read_bytes()
        path.write_bytes(harmed(content, rng))
        found = [f for _, findings in verify(Cache(cache)) for f in findings]
        assert path in [f.path for f in found], (path, number)
        with pytest.raises(CacheError):
            use_cache(cache)
        if number % MENDED == 0:
            mend(workshop, cache, path)
            mended += 1
            assert digests(cache) == digests(undisturbed)
        else:
            path.write_bytes(content)
    use_cache(cache)
    print(f"cache: {number + 1} damages found, {mended} mended by the commands")


def mend(workshop, cache, path):
    """`cache verify`, then the same precompute: it writes that file anew and no other shard."""
    before = shards(cache)
    name = str(path.relative_to(cache))
    assert workshop.run(["cache", "verify", "--cache", str(cache)]) == 1
    assert path.name in workshop.words_said()
    assert workshop.run(workshop.precompute(cache)) == 0, workshop.words_said()
    after = shards(cache)
    assert {key for key in after if after[key] != before.get(key)} <= {name}
    assert workshop.run(["cache", "gc", "--cache", str(cache)]) == 0
    assert workshop.run(["cache", "verify", "--cache", str(cache)]) == 0, workshop.words_said()


def test_a_precompute_goes_on_over_a_damaged_journal(workshop, undisturbed, tmp_path, long):
    rng = random.Random(6)
    for number in range(12 if long else 3):
        cache = tmp_path / f"cache-{number}"
        words = workshop.precompute(cache)
        workshop.run(words, watched=cache, die_at=150 + 5 * number)
        kept = shards(cache)
        for journal in cache.rglob("finished.jsonl"):
            journal.write_bytes(harmed(journal.read_bytes(), rng))
        assert workshop.run(words) == 0, workshop.words_said()
        now = shards(cache)
        assert all(now[name] == found for name, found in kept.items())
        assert digests(cache) == digests(undisturbed)


@pytest.fixture(scope="session")
def unfinished(workshop, undisturbed):
    """A fit that was killed half-way."""
    out, number = workshop.root / "unfinished", 60
    while not (out / "checkpoint.safetensors").exists():
        shutil.rmtree(out, ignore_errors=True)
        words = workshop.fit(undisturbed, out)
        assert workshop.run(words, watched=out, die_at=number) == -9
        number += 1
    return out


def test_every_damage_of_a_run_is_found_and_none_is_used(
    workshop, undisturbed, fitted, unfinished, tmp_path, long
):
    rng = random.Random(7)
    score = ["evaluate", "retrieval", "--run", str(tmp_path / "fitted"), "--cache"]
    runs = []
    for whole in (fitted, unfinished):
        runs.append(tmp_path / whole.name)
        shutil.copytree(whole, runs[-1])
    assert workshop.run([*score, str(undisturbed)]) == 0
    assert [verify_run(run) for run in runs] == [[], []]
    every = [path for run in runs for path in files(run)]
    for number in range(HARMS_LONG if long else HARMS):
        path = rng.choice(every)
        content = path.read_bytes()
        path.write_bytes(harmed(content, rng))
        found = [f.path for run in runs for f in verify_run(run)]
        cut_line = path.name == "history.jsonl" and path.is_relative_to(runs[1])
        assert path in found or cut_line, (path, number)
        use_run(runs, path, undisturbed, tmp_path / "beside")
        path.write_bytes(content)
    print(f"run: {number + 1} damages found")


def use_run(runs, path, cache, beside):
    """Loaded, or gone on with: refused if the file is one that this reads."""
    from cbmf.train.run import Run

    read = {"config.json", "model.safetensors"}
    for run in runs:
        if path.is_relative_to(run):
            try:
                Run.load(run)
            except RunError:
                assert path.name in read
            else:
                assert path.name not in read


def test_a_damaged_checkpoint_is_refused_in_one_line(workshop, undisturbed, unfinished, tmp_path):
    rng = random.Random(8)
    for number in range(3):
        out = tmp_path / f"run-{number}"
        shutil.copytree(unfinished, out)
        path = out / "checkpoint.safetensors"
        path.write_bytes(harmed(path.read_bytes(), rng))
        assert workshop.run(workshop.fit(undisturbed, out)) == 1
        said = workshop.words_said()
        assert "checkpoint.safetensors" in said and "Traceback" not in said


def test_a_damaged_shard_stops_a_fit_in_one_line(workshop, undisturbed, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(undisturbed, cache)
    path = next(cache.glob("coco2017/train/image@*/00001.h5"))
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)
    assert workshop.run(workshop.fit(cache, tmp_path / "run")) == 1
    said = workshop.words_said()
    assert "00001.h5" in said and "cbmf cache verify" in said and "Traceback" not in said
