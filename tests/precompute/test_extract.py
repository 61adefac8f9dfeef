"""Unpacking of hostile, damaged and ordinary archives."""

import io
import os
import re
import stat
import tarfile
import time
import zipfile
from collections import namedtuple

import pytest
from loopback import Notes

from cbmf.cache.errors import DiskFullError, InputError
from cbmf.precompute.extract import Limits, unpack


def zipped(path, members, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return path


def tarred(path, members, odd=()):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind in odd:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return path


PACKERS = {"a.zip": zipped, "a.tar.gz": tarred}


@pytest.fixture(params=list(PACKERS))
def pack(request, tmp_path):
    return lambda members: PACKERS[request.param](tmp_path / request.param, members)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def tree(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def refused(archive, home, reason, **more):
    before = tree(home.parent)
    with pytest.raises(InputError, match=reason) as caught:
        unpack(archive, home, Notes(), **more)
    assert "\n" not in str(caught.value)
    assert tree(home.parent) == before
    assert not [name for name in os.listdir(home) if name.startswith(".")]


def test_an_archive_is_unpacked_whole(pack, home):
    members = {"data/a.txt": b"one", "./data/b/c.txt": b"two", "__MACOSX/._a": b"no"}
    notes = Notes()
    unpack(pack(members), home, notes)
    assert tree(home) == {"data/a.txt": b"one", "data/b/c.txt": b"two"}
    assert os.listdir(home) == ["data"]
    assert notes.steps[-1][1:] == (6, 6)


def test_only_what_is_asked_for_is_unpacked_and_where_it_should_be(pack, home):
    archive = pack({"x/captions_a.json": b"1", "x/captions_b.json": b"2", "x/other.json": b"3"})
    unpack(archive, home, Notes(), only=["x/captions_*.json"], below="in")
    assert tree(home) == {"in/x/captions_a.json": b"1", "in/x/captions_b.json": b"2"}
    refused(archive, home, "holds no y/", only=["y/*"])


def test_what_is_there_already_stays(pack, home):
    (home / "data").mkdir()
    (home / "data" / "a.txt").write_bytes(b"mine")
    unpack(pack({"data/a.txt": b"theirs", "data/b.txt": b"new"}), home, Notes())
    assert tree(home) == {"data/a.txt": b"mine", "data/b.txt": b"new"}


@pytest.mark.parametrize(
    "name", ["../out.txt", "data/../../out.txt", "/out.txt", "C:/out.txt", "..\\out.txt", "a\\b"]
)
def test_no_member_leaves_the_folder(pack, home, name):
    reason = "absolute path|leads out|not a path"
    refused(pack({"fine.txt": b"1", name: b"2"}), home, reason)
    refused(pack({"fine.txt": b"1", name: b"2"}), home, reason, only=["fine.txt"])


def test_a_zero_byte_hides_no_ending(tmp_path, home):
    archive = zipped(tmp_path / "a.zip", {"fine.txtX.exe": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"txtX", b"txt\0"))
    refused(archive, home, "not a path")


def test_links_and_devices_are_refused(tmp_path, home):
    refused(zipped(tmp_path / "l.zip", {"a": b"1"}, ["link"]), home, "'link' is a link or a device")
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
    for kind in kinds:
        archive = tarred(tmp_path / "l.tar.gz", {"a": b"1"}, [("odd", kind)])
        refused(archive, home, "'odd' is a link or a device")


def test_bombs_are_refused_before_they_are_unpacked(pack, home):
    archive = pack({"zeros": bytes(40_000_000)})
    assert archive.stat().st_size < 50_000
    began = time.monotonic()
    refused(archive, home, "holds more than", limits=Limits(least_bytes=1_000_000))
    assert time.monotonic() - began < 0.5
    archive = pack({f"{number}": b"" for number in range(30)})
    refused(archive, home, "holds more than 20 files", limits=Limits(members=20))


def test_a_member_that_lies_about_its_size_is_refused(tmp_path, home):
    archive = zipped(tmp_path / "a.zip", {"a": bytes(500_000)})
    true, told = (500_000).to_bytes(4, "little"), (400_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(true, told))
    refused(archive, home, "get it again")


def test_a_name_that_is_there_twice_is_refused(tmp_path, home):
    with pytest.warns(UserWarning, match="Duplicate name"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a", "1")
            archive.writestr("a", "2")
    refused(tmp_path / "a.zip", home, "there twice")


def test_a_file_where_a_folder_should_be_is_refused(pack, home):
    refused(pack({"a": b"1", "a/b": b"2"}), home, "cannot be unpacked")


def test_damaged_archives_are_one_line(pack, home):
    archive = pack({"a.bin": os.urandom(200_000), "b.bin": os.urandom(200_000)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-100_000])
    refused(archive, home, re.escape(str(archive)))
    archive.write_bytes(whole[:90_000] + bytes(1000) + whole[91_000:])
    refused(archive, home, re.escape(str(archive)))
    archive.write_bytes(b"no archive at all")
    refused(archive, home, re.escape(str(archive)))


def test_what_a_killed_run_left_is_taken_away(pack, home):
    archive = pack({"data/a.txt": b"one"})
    left = home / f".unpacking-{archive.name}" / "data"
    left.mkdir(parents=True)
    (left / "half.txt").write_bytes(b"ha")
    unpack(archive, home, Notes())
    assert tree(home) == {"data/a.txt": b"one"}
    assert os.listdir(home) == ["data"]


def test_a_disk_that_is_too_small_is_said_before_unpacking(pack, home, monkeypatch):
    archive = pack({"a": bytes(3 * 2**20)})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 2**20))
    with pytest.raises(DiskFullError, match="to be unpacked"):
        unpack(archive, home, Notes())
    assert not os.listdir(home)
