"""Changes at random in the files of a cache, sealed again as a forger would, then read.

What is expected is a result or a CbmfError; never another exception, a crash, or a process that
takes all memory. By hand, for ten minutes: python tests/faults/fuzz_cache.py --seconds 600
"""

import argparse
import hashlib
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import CbmfError
from cbmf.cache.files import file_digest, read_json, write_json
from cbmf.cache.hdf5 import SEAL, SEAL_BYTES
from cbmf.cache.items import Column, Items, Pairs, write_items
from cbmf.cache.manifest import StreamSpec
from cbmf.cache.stream import Stream
from cbmf.cache.upkeep import garbage, verify
from cbmf.cache.writer import StreamWriter

MEMORY_BYTES = 4 * 2**30
"""What a reader may take of address space beyond what it has."""
ODD = [
    0, -1, 1, 2, 7, 2**31, 2**40, 2**62, 2**80, -(2**63), 1.5, 1e300, None, True, "", "x",
    "../../x",
    "/etc/passwd", "\ud800", "a" * 5000, [], [[]], {}, {"a": {}}, "NaN", "00000.h5", "float64",
]  # fmt: skip


def small_cache(root: Path) -> Path:
    """Twelve images and their captions, tokens, in three shards each."""
    count = 12
    ids = [f"item {k}" for k in range(count)]
    digests = np.array([list(hashlib.sha256(i.encode()).digest()) for i in ids], np.uint8)
    columns = {
        name: Column(name, ids, ids, digests, labels=np.arange(count) % 2)
        for name in ("image", "text")
    }
    rows = np.stack([np.arange(count)] * 2, axis=1)
    items = Items("toy", "train", columns, Pairs("image", "text", rows), ["cat", "dog"], ["{}"])
    write_items(root / "toy" / "train", items)
    rng = np.random.default_rng(0)
    for name in columns:
        spec = StreamSpec(
            dataset="toy", split="train", column=name, modality=name, encoder="enc",
            made_of={"class": "Toy", "weights": name}, items_digest=columns[name].digest(),
            count=count, width=4, pooled_width=6, layout="tokens",
        )  # fmt: skip
        writer = StreamWriter(root / "toy" / "train", spec, 4)
        for number in writer.missing():
            first, last = writer.manifest.range(number)
            values = rng.standard_normal((2 * (last - first), 4), dtype=np.float32)
            pooled = rng.standard_normal((last - first, 6), dtype=np.float32)
            offsets = 2 * np.arange(last - first + 1)
            writer.write(number, np.arange(first, last), pooled, values, offsets)
    return root


def harm(root: Path, rng: random.Random) -> str:
    """Change one file and seal everything again; what was done."""
    stream = rng.choice(sorted((root / "toy" / "train").glob("*@*")))
    kind = rng.choice(["manifest", "items", "shard", "shard", "shard"])
    if kind == "manifest":
        table = read_json(stream / "manifest.json")
        what = _change(table, rng)
        write_json(stream / "manifest.json", table)
        return f"manifest: {what}"
    path = root / "toy" / "train" / "items.h5"
    if kind == "shard":
        path = stream / f"{rng.randrange(3):05d}.h5"
    content = bytearray(path.read_bytes()[:-SEAL_BYTES])
    places = []
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        # Where HDF5 keeps its own tables: the beginning of the file, mostly.
        end = len(content) if rng.random() < 0.2 else min(len(content), 8192)
        places.append(rng.randrange(end))
        content[places[-1]] = rng.choice([0, 1, 255, 128, rng.randrange(256)])
    if rng.random() < 0.1:
        del content[rng.randrange(len(content)) :]
    sealed = bytes(content) + SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n"
    path.write_bytes(sealed)
    if kind == "shard":
        table = read_json(stream / "manifest.json")
        entry = table["shards"][str(int(path.stem))]
        entry |= {"size_bytes": len(sealed), "sha256": file_digest(path)}
        write_json(stream / "manifest.json", table)
    return f"{path.name}: bytes {places}"


def _change(table: dict, rng: random.Random) -> str:
    """Put something odd somewhere in a JSON object."""
    at, where = table, []
    while True:
        key = rng.choice(sorted(at) if isinstance(at, dict) else range(len(at)))
        where.append(str(key))
        if isinstance(at[key], dict | list) and at[key] and rng.random() < 0.7:
            at = at[key]
            continue
        if rng.random() < 0.15 and isinstance(at, dict):
            del at[key]
        else:
            at[key] = rng.choice(ODD)
        return ".".join(where)


def read_everything(root: Path) -> None:
    """All that the stages do with a cache that they did not write."""
    for work in (_find, _read, _verify, _garbage):
        try:
            work(Cache(root))
        except CbmfError as error:
            assert str(error)


def _find(cache: Cache) -> None:
    for column in ("image", "text"):
        cache.find("toy", "train", column, layout="tokens")


def _read(cache: Cache) -> None:
    from cbmf.train.bank import Bank

    for stream in cache.streams("toy", "train"):
        cache.items_of(stream)
        Bank.from_stream(Stream(stream.path), stream.layout)
        stream.pooled()


def _verify(cache: Cache) -> None:
    list(verify(cache))


def _garbage(cache: Cache) -> None:
    garbage(cache)


def one(root: Path, whole: Path, seed: int) -> None:
    """Harm a fresh copy and read it; an exception that is no CbmfError goes out."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(whole, root)
    what = harm(root, random.Random(seed))
    try:
        read_everything(root)
    except BaseException as error:
        raise AssertionError(f"seed {seed}, {what}: {type(error).__name__}: {error}") from error


def several(folder: Path, seeds: range, bad) -> None:
    """Many of these in this process; what went wrong is sent on, and before each its number."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    whole, root = folder / "whole", folder / "harmed"
    for seed in seeds:
        bad.send(("begun", seed))
        try:
            one(root, whole, seed)
        except AssertionError:
            bad.send(("failed", traceback.format_exc()))
    bad.send(("done", seeds.stop))


def campaign(folder: Path, seeds: range) -> list[str]:
    """What went wrong over many seeds, crashes included: a process is started anew after one."""
    shutil.rmtree(folder / "whole", ignore_errors=True)
    small_cache(folder / "whole")
    failures, start = [], seeds.start
    forked = multiprocessing.get_context("fork")
    while start < seeds.stop:
        receiver, sender = forked.Pipe(duplex=False)
        process = forked.Process(target=several, args=(folder, range(start, seeds.stop), sender))
        process.start()
        sender.close()
        last = start
        try:
            while True:
                kind, value = receiver.recv()
                if kind == "failed":
                    failures.append(value)
                elif kind == "begun":
                    last = value
                else:
                    last = value - 1
        except EOFError:
            pass
        process.join()
        if process.exitcode != 0:
            failures.append(f"seed {last}: the process ended with {process.exitcode}")
        start = last + 1
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun, seed, failures = time.monotonic(), given.seed, []
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - begun < given.seconds:
            failures += campaign(Path(folder), range(seed, seed + 200))
            seed += 200
    print(json.dumps({"changes": seed - given.seed, "failures": len(failures)}))
    for failure in failures[:20]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
