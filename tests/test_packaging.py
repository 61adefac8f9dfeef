import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("precompute", "train", "evaluate", "cache", "recipes")


def test_every_folder_of_a_room_is_a_listed_package():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(config["tool"]["setuptools"]["packages"])
    found = {p.parent for room in ROOMS for p in (ROOT / room).rglob("*.py")}
    assert {"cbmf." + ".".join(d.relative_to(ROOT).parts) for d in found} == listed - {"cbmf"}


def test_every_file_that_is_no_python_is_listed_to_be_packed():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = {
        path
        for package, patterns in config["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    found = {
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert found == listed - {ROOT / "py.typed"}


def test_the_command_tells_its_version():
    done = subprocess.run(
        [sys.executable, "-m", "cbmf", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"cbmf {version('cbmf')}\n"
