"""The bytes on disk are what docs/cache-format.md says, and nothing else is accepted."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from sealing import seal_again

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import CacheError, ShardError
from cbmf.cache.files import file_digest, read_json, write_json
from cbmf.cache.manifest import Manifest
from cbmf.cache.stream import Stream

PAGE = Path(__file__).parents[2] / "docs" / "cache-format.md"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("layout", ["tokens", "pooled"])
def test_the_code_in_the_documentation_reads_what_was_written(toy, layout, dtype):
    folder = toy.fill(toy.spec(layout=layout, dtype=dtype))
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)[1], names)
    ids, pooled, tokens = names["read_stream"](folder)
    assert ids == toy.items.columns["image"].ids
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 0}[dtype]
    np.testing.assert_allclose(pooled, toy.pooled, rtol=tolerance, atol=tolerance / 100)
    np.testing.assert_array_equal(pooled, Stream(folder).pooled())
    if layout == "tokens":
        whole = np.concatenate(tokens)
        np.testing.assert_allclose(whole, toy.values, rtol=tolerance, atol=tolerance / 100)
        assert [len(t) for t in tokens] == np.diff(toy.offsets).tolist()


def test_bfloat16_is_rounded_as_torch_rounds_it(toy):
    torch = pytest.importorskip("torch")
    stream = Stream(toy.fill(toy.spec(layout="pooled", dtype="bfloat16")))
    expected = torch.from_numpy(toy.pooled).bfloat16().float().numpy()
    np.testing.assert_array_equal(stream.pooled(), expected)


def test_large_arrays_are_mapped_and_aligned(toy):
    for block in Stream(toy.fill(toy.spec())).blocks():
        assert isinstance(block.values, np.memmap)
        assert block.values.offset % 64 == 0


def test_writing_twice_gives_the_same_bytes(toy, tmp_path):
    other = type(toy)(tmp_path / "again")
    other.write_items()
    for folder in (toy.fill(toy.spec()), other.fill(other.spec())):
        digests = [entry.sha256 for entry in Manifest.load(folder).shards.values()]
        assert digests == [e.sha256 for e in Manifest.load(toy.fill(toy.spec())).shards.values()]


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "unsealed"])
@pytest.mark.parametrize("file", ["items.h5", "manifest.json"])
def test_another_format_version_is_refused_by_name(toy, file, sealed):
    folder = toy.fill(toy.spec())
    if file == "items.h5":
        with h5py.File(toy.parent / file, "r+") as items:
            items.attrs["version"] = 99
        if sealed:
            seal_again(toy.parent / file)
    else:
        table = {**json.loads((folder / file).read_text()), "version": 99}
        del table["sha256"]
        if sealed:
            write_json(folder / file, table)
        else:
            (folder / file).write_text(json.dumps(table))
    with pytest.raises(CacheError, match=rf"{file}.*version 2, got cbmf-\w+ version 99"):
        Cache(toy.root).find("toy", "train", "image")


def _soft_link(file: h5py.File, where: Path) -> None:
    file["pooled2"] = file["pooled"]
    del file["pooled"]
    file["pooled"] = h5py.SoftLink("/pooled2")


def _external_link(file: h5py.File, where: Path) -> None:
    with h5py.File(where / "other.h5", "w") as other:
        other["pooled"] = np.zeros((256, 16), np.float16)
    del file["pooled"]
    file["pooled"] = h5py.ExternalLink(str(where / "other.h5"), "pooled")


def _external_storage(file: h5py.File, where: Path) -> None:
    (where / "raw").write_bytes(bytes(256 * 16 * 2))
    del file["pooled"]
    file.create_dataset("pooled", (256, 16), "f2", external=[(str(where / "raw"), 0, 256 * 32)])


def _chunks(file: h5py.File, where: Path) -> None:
    del file["pooled"]
    file.create_dataset("pooled", (256, 16), "f2", chunks=(16, 16), fillvalue=1)


def _absurd_shape(file: h5py.File, where: Path) -> None:
    del file["pooled"]
    file.create_dataset("pooled", (2**40, 16), "f2")


def _other_type(file: h5py.File, where: Path) -> None:
    del file["pooled"]
    file["pooled"] = np.zeros((256, 16), np.float64)


@pytest.mark.parametrize(
    "harm", [_soft_link, _external_link, _external_storage, _chunks, _absurd_shape, _other_type]
)
def test_a_shard_that_leads_elsewhere_or_declares_nonsense_is_refused(toy, tmp_path, harm):
    folder = toy.fill(toy.spec())
    with h5py.File(folder / "00000.h5", "r+") as file:
        harm(file, tmp_path)
    seal_again(folder / "00000.h5")
    table = read_json(folder / "manifest.json")
    entry = table["shards"]["0"]
    entry["size_bytes"] = (folder / "00000.h5").stat().st_size
    entry["sha256"] = file_digest(folder / "00000.h5")
    write_json(folder / "manifest.json", table)
    with pytest.raises(ShardError, match=r"00000\.h5.*(pooled|link)"):
        list(Stream(folder).blocks())
