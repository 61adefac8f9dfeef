"""Image paths that a table names: found under one root, and never outside it."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from ..images import ImageFile, ImageSource
from .captions import NO_FILE

OUTSIDE = "its path leads out of the folder of the table"
LINKED_OUTSIDE = "a link on its path leads out of the folder of the table"
ABSOLUTE = "its path is absolute; paths are relative to the folder of the table"
ADDRESS = "is a web address, not a file"


class PathFinder:
    """Looks up image paths below a folder, with one listing of each folder that they name."""

    def __init__(self, root: Path) -> None:
        """Look below `root`."""
        self._root = root
        self._real_root = os.path.realpath(root)
        self._listings: dict[str, dict[str, bool] | str] = {}

    def normal(self, path: str) -> str:
        """The one way to write a path, so that `./a.jpg` and `a.jpg` are one image."""
        return posixpath.normpath(path) if "://" not in path else path

    def find(self, path: str) -> ImageSource | str:
        """The image at a normal path, or the reason why there is none."""
        if "://" in path:
            return ADDRESS
        if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", path):
            return ABSOLUTE
        if path == ".." or path.startswith("../"):
            return OUTSIDE
        folder, _, name = path.rpartition("/")
        if folder not in self._listings:
            self._listings[folder] = self._list(folder)
        listing = self._listings[folder]
        if isinstance(listing, str):
            return listing
        if name not in listing:
            return NO_FILE
        if listing[name] and not self._inside(self._root / path):
            return LINKED_OUTSIDE
        return ImageFile(self._root, path)

    def _list(self, folder: str) -> dict[str, bool] | str:
        """Names in a folder and whether each is a link, or the reason why none can be taken."""
        whole = self._root / folder
        try:
            if not self._inside(whole):
                return LINKED_OUTSIDE
            with os.scandir(whole) as entries:
                return {e.name: e.is_symlink() for e in entries if e.is_symlink() or e.is_file()}
        except (OSError, ValueError):
            return NO_FILE

    def _inside(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return os.path.commonpath((real, self._real_root)) == self._real_root
