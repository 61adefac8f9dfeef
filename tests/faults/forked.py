"""The `cbmf` command in processes forked from one that has loaded everything: real, and quick.

A process can be told to kill itself before its n-th touch of a file in a folder. Python reports
every open, rename, removal and making of a folder to an audit hook, so that n runs through all
moments between which anything on disk can change.
"""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

PRELOADED = [
    "torch",
    "h5py",
    "PIL.Image",
    "safetensors.torch",
    "tokenizers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.vit.modeling_vit",
    "cbmf.cli",
    "cbmf.precompute.stage",
    "cbmf.evaluate.suite",
    "cbmf.train.fit",
]
TOUCHES = ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "shutil.rmtree")
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(PRELOADED)


def start(words, said: Path, watched: Path | None = None, die_at: int | None = None):
    """Begin `cbmf <words>`; what it says goes to a file.

    Of the folder `watched` it counts the touches, into the file `<said>.touches`, and kills itself
    before touch number `die_at`.
    """
    process = PROCESSES.Process(target=_main, args=(list(words), said, watched, die_at))
    process.start()
    return process


def run(words, said: Path, watched: Path | None = None, die_at: int | None = None) -> int:
    """The exit code of `cbmf <words>`; -9 if it was killed."""
    process = start(words, said, watched, die_at)
    process.join()
    return process.exitcode


def touches(said: Path) -> int:
    return int(said.with_suffix(".touches").read_text())


def _main(words, said, watched, die_at):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    import torch

    torch.set_num_threads(1)
    if watched is not None:
        _watch(str(watched), die_at, said.with_suffix(".touches"))
    from cbmf.cli import main

    sys.argv = ["cbmf", *map(str, words)]
    main()


def _watch(watched, die_at, counts):
    count = 0

    def hook(event, args):
        nonlocal count
        if event not in TOUCHES or not any(_within(watched, arg) for arg in args):
            return
        count += 1
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    import atexit
    from multiprocessing import util

    sys.addaudithook(hook)
    util.Finalize(None, lambda: counts.write_text(str(count)), exitpriority=0)
    atexit.register(lambda: counts.write_text(str(count)))


def _within(watched, arg):
    if not isinstance(arg, str | bytes | os.PathLike):
        return False
    return os.fsdecode(arg).startswith(watched)
