"""The errors that a user may meet.

Each message says what was expected, what was got, where, and what to do.

CbmfError
├── InputError         a data set, a file or an option that cannot be used as it is
├── CacheError         the cache as a whole: nothing there, ambiguous, another format version
│   ├── StreamError    one stream: incomplete, of another encoder, of other items
│   └── ShardError     one file of a stream: missing, damaged, not what the manifest says
├── DiskFullError      the disk is full or too small for what is asked
└── RunError           a run folder: missing, damaged, of another version
    └── PeerError      another process of the same fit has failed, and tells why
"""

from __future__ import annotations


class CbmfError(Exception):
    """Base of every error that is reported as one line, without a traceback."""


class InputError(CbmfError, ValueError):
    """A data set, a file or an option cannot be used as it is."""


class CacheError(CbmfError, ValueError):
    """The cache has nothing that fits, more than one thing that fits, or another format version."""


class StreamError(CacheError):
    """A stream is incomplete, or not of the encoder or the items that are asked for."""


class ShardError(CacheError):
    """A file of the cache is missing, damaged, or not what its manifest says."""


class DiskFullError(CbmfError, OSError):
    """The disk is full, or too small for what is asked."""


class RunError(CbmfError, ValueError):
    """A run folder is missing, damaged, or of another version."""


class PeerError(RunError):
    """Another process of the same fit has failed; that one tells why, this one need not."""
