"""One file over HTTP, from a real server on this machine."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
from loopback import Notes, serving

from cbmf.cache.errors import CbmfError, DiskFullError, InputError
from cbmf.precompute.download import Wanted, fetch
from cbmf.precompute.file_lock import one_at_a_time
from cbmf.precompute.web import DownloadError, Patience, remote_size

CONTENT = random.Random(1).randbytes(900_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(tries=4, first_wait_s=0.01, timeout_s=5)


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as site:
        site.files["/a.bin"] = CONTENT
        yield site


def get(site, target, digest: str | None = SHA256, path="/a.bin", size=None, watcher=None):
    fetch(Wanted(site.address + path, digest, size), target, watcher or Notes(), QUICK)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names(folder):
    return sorted(os.listdir(folder))


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(site, tmp_path):
    notes = Notes()
    get(site, tmp_path / "a.bin", watcher=notes)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["a.bin"]
    assert ("fetching a.bin", len(CONTENT), len(CONTENT)) in notes.steps


def test_a_file_that_is_there_and_right_is_not_fetched_again(site, tmp_path):
    get(site, tmp_path / "a.bin")
    get(site, tmp_path / "a.bin")
    assert len(site.bodies()) == 1


def test_another_file_under_the_name_is_refused_and_left_alone(site, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(InputError, match="not the official file"):
        get(site, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert not site.asked


def test_a_broken_connection_goes_on_by_range(site, tmp_path):
    site.cuts = [300_000, 200_000]
    notes = Notes()
    get(site, tmp_path / "a.bin", watcher=notes)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [span for _, span in site.bodies()] == ["", "bytes=300000-", "bytes=500000-"]
    assert any("300,000 of 900,000" in note for note in notes.notes)


def test_a_server_without_ranges_starts_again(site, tmp_path):
    site.ranges = False
    site.cuts = [300_000]
    get(site, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_without_a_validator_nothing_is_gone_on_with(site, tmp_path):
    site.validators = False
    site.cuts = [300_000]
    get(site, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [span for _, span in site.bodies()] == ["", ""]


@pytest.mark.parametrize("honours", [True, False])
@pytest.mark.parametrize("grown", [0, 5000, -700_000])
def test_a_file_that_changed_meanwhile_is_never_mixed(site, tmp_path, honours, grown):
    """Without honouring If-Range the server sends the rest of the new file, or 416."""
    site.cuts = [300_000] * QUICK.tries
    with pytest.raises(DownloadError):
        fetch(Wanted(site.address + "/a.bin"), tmp_path / "a.bin", Notes(), Patience(tries=1))
    assert (tmp_path / "a.bin.part").stat().st_size == 300_000
    site.cuts = []
    site.honours_if_range = honours
    site.files["/a.bin"] = new = random.Random(2).randbytes(len(CONTENT) + grown)
    get(site, tmp_path / "a.bin", digest=None)
    assert (tmp_path / "a.bin").read_bytes() == new


def test_errors_of_the_moment_are_tried_again(site, tmp_path):
    site.statuses = [503, 429, 500]
    get(site, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_server_that_brings_nothing_is_given_up_and_what_came_is_kept(site, tmp_path):
    site.cuts = [300_000] + [0] * 10
    with pytest.raises(DownloadError, match="4 times; 300,000 bytes are kept") as caught:
        get(site, tmp_path / "a.bin")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.bin").exists()
    site.cuts = []
    get(site, tmp_path / "a.bin")
    assert site.bodies()[-1] == ("/a.bin", "bytes=300000-")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{site}/none", "404"),
        ("http://127.0.0.1:9/a", "no connection"),
        ("file:///etc/passwd", "unknown url type"),
        ("ftp://127.0.0.1/a", "unknown url type"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(site, tmp_path, url, reason):
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(Wanted(url.format(site=site.address)), tmp_path / "a", Notes(), QUICK)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_redirects_are_followed_to_http_alone(site, tmp_path):
    site.redirects = {"/to": site.address + "/a.bin", "/out": "file:///etc/passwd"}
    get(site, tmp_path / "a.bin", path="/to")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert remote_size(site.address + "/to") == len(CONTENT)
    assert site.bodies() == [("/to", ""), ("/a.bin", "")], "HEAD stays HEAD through a redirect"
    with pytest.raises(DownloadError):
        get(site, tmp_path / "b.bin", path="/out")
    assert not (tmp_path / "b.bin").exists()


def test_a_wrong_checksum_is_refused_and_the_file_not_kept(site, tmp_path):
    with pytest.raises(DownloadError, match=r"its md5 is .*, expected 0{32}; what came"):
        get(site, tmp_path / "a.bin", digest="md5:" + 32 * "0")
    assert names(tmp_path) == []


def test_without_a_published_checksum_that_of_the_first_download_holds(site, tmp_path):
    get(site, tmp_path / "a.bin", digest=None)
    record = tmp_path / "a.bin.sha256"
    assert record.read_text() == f"{SHA256[7:]}  a.bin\n"
    (tmp_path / "a.bin").write_bytes(b"damaged")
    with pytest.raises(InputError, match="not the official file"):
        get(site, tmp_path / "a.bin", digest=None)
    (tmp_path / "a.bin").unlink()
    site.files["/a.bin"] = b"another"
    with pytest.raises(DownloadError, match=re.escape(f"delete {record}")):
        get(site, tmp_path / "a.bin", digest=None)
    assert names(tmp_path) == ["a.bin.sha256"]


def test_a_size_other_than_the_published_one_is_refused_before_the_body(site, tmp_path):
    with pytest.raises(DownloadError, match="900,000 bytes, the official file has 5"):
        get(site, tmp_path / "a.bin", size=5)
    assert names(tmp_path) == []


def test_a_server_that_sends_more_than_it_should_is_cut_off(site, tmp_path):
    site.chunked = True
    with pytest.raises(DownloadError, match="more than 400,000 bytes"):
        get(site, tmp_path / "a.bin", size=400_000)
    assert not (tmp_path / "a.bin").exists()
    assert not (tmp_path / "a.bin.part").exists()


def test_a_chunked_body_has_a_provable_end_and_an_open_one_has_not(site, tmp_path):
    site.chunked = True
    get(site, tmp_path / "a.bin", digest=None)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    site.chunked, site.silent_length = False, True
    with pytest.raises(DownloadError, match="cannot be told"):
        get(site, tmp_path / "b.bin", digest=None)
    get(site, tmp_path / "b.bin", digest=SHA256)
    assert (tmp_path / "b.bin").read_bytes() == CONTENT


def test_a_declared_size_beyond_the_disk_is_refused_before_it_starts(site, tmp_path):
    site.declared = 60 * 1024**3
    usage = namedtuple("usage", "total used free")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 10 * 1024**3))
        with pytest.raises(DiskFullError, match=r"60.00 GiB are to be fetched, 10.00 GiB are free"):
            get(site, tmp_path / "a.bin")
    assert len(site.bodies()) == 1
    assert (tmp_path / "a.bin.part").stat().st_size == 0


def test_a_killed_process_loses_nothing(site, tmp_path):
    site.stall_after = 500_000
    program = (
        "import sys; sys.path.insert(0, sys.argv[3]);"
        "from loopback import Notes; from cbmf.precompute.download import Wanted, fetch;"
        "from pathlib import Path; fetch(Wanted(sys.argv[1]), Path(sys.argv[2]), Notes())"
    )
    url, target = site.address + "/a.bin", tmp_path / "a.bin"
    here = os.path.dirname(__file__)
    process = subprocess.Popen([sys.executable, "-c", program, url, str(target), here])
    part = tmp_path / "a.bin.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 400_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    have = part.stat().st_size
    assert not target.exists()
    site.stall_after = None
    get(site, target)
    assert target.read_bytes() == CONTENT
    assert site.bodies()[-1] == ("/a.bin", f"bytes={have}-")


def test_a_second_one_waits_and_finds_the_file_there(site, tmp_path):
    site.stall_after = 500_000
    target, notes = tmp_path / "a.bin", [Notes(), Notes()]
    both = [threading.Thread(target=get, args=(site, target), kwargs={"watcher": n}) for n in notes]
    both[0].start()
    wait_for(lambda: notes[0].steps)
    both[1].start()
    wait_for(lambda: notes[1].notes)
    assert "another process is at it" in notes[1].notes[0]
    site.stall_after = None
    site.go_on.set()
    for thread in both:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert [span for _, span in site.bodies()] == ["", "bytes=500000-"]
    assert names(tmp_path) == ["a.bin"]


def test_download_errors_are_of_the_family_that_the_command_line_prints():
    assert issubclass(DownloadError, CbmfError)


def test_a_lock_has_one_holder_at_a_time(tmp_path):
    inside, most = [], []

    def hold():
        for _ in range(40):
            with one_at_a_time(tmp_path / "a.bin", lambda text: None):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 240
    assert names(tmp_path) == []
