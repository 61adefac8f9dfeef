"""A small captioned data set with the encoders that ship with the package, and its undisturbed end.

`--faults-long` runs the campaigns at full length: hundreds of kills and of damages.
"""

import subprocess

import pytest
from campaign import Workshop

from cbmf.precompute.scenes import write_demo


@pytest.fixture(scope="session")
def long(request):
    return request.config.getoption("--faults-long")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    write_demo(
        root / "demo", train=40, val=12, test=12, labelled_train=2, labelled_test=2, sentences=8
    )
    return Workshop(root, root / "demo" / "coco")


@pytest.fixture(scope="session")
def undisturbed(workshop):
    """The cache that a precompute without faults makes."""
    cache = workshop.root / "undisturbed"
    assert workshop.run(workshop.precompute(cache)) == 0, workshop.words_said()
    return cache


@pytest.fixture(scope="session")
def fitted(workshop, undisturbed):
    """The run that a fit without faults makes."""
    out = workshop.root / "fitted"
    assert workshop.run(workshop.fit(undisturbed, out)) == 0, workshop.words_said()
    return out


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, which `remount` makes larger or smaller."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
