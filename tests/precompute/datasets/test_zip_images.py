import os
import zipfile

import pytest
from small_layouts import picture

from cbmf.cache.errors import InputError
from cbmf.precompute import images
from cbmf.precompute.images import ZipMember


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(picture(tmp_path / "a.png"), "a.png")
        file.writestr("text.png", "no picture")
    return path


def test_the_archive_is_opened_once_for_many_images(archive, monkeypatch):
    opened = []
    real = zipfile.ZipFile

    def count(path):
        opened.append(path)
        return real(path)

    monkeypatch.setattr(images.zipfile, "ZipFile", count)
    for _ in range(5):
        assert ZipMember(archive, "a.png").open().size == (8, 6)
    assert opened == [archive]


def test_an_archive_that_was_replaced_is_read_anew(archive):
    before = ZipMember(archive, "a.png").digest()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", "another")
    os.utime(archive, ns=(1, 1))
    assert ZipMember(archive, "a.png").digest() != before


def test_a_member_that_is_missing_damaged_or_huge_is_an_os_error(archive, monkeypatch):
    with pytest.raises(OSError, match=r"cannot be read from a\.zip"):
        ZipMember(archive, "none.png").digest()
    with pytest.raises(InputError, match="not a readable image"):
        ZipMember(archive, "text.png").open()
    monkeypatch.setattr(images, "MEMBER_LIMIT", 20)
    with pytest.raises(OSError, match="over the limit"):
        ZipMember(archive, "a.png").digest()
    monkeypatch.undo()
    content = bytearray(archive.read_bytes())
    content[45:60] = bytes(15)
    archive.write_bytes(content)
    os.utime(archive, ns=(2, 2))
    with pytest.raises(InputError, match=r"a\.png: cannot be read"):
        ZipMember(archive, "a.png").open()
    with pytest.raises(OSError, match="No such file"):
        ZipMember(archive.parent / "none.zip", "a.png").digest()
