"""Two real processes that fit together, against one process on the same batches."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from cbmf.cache.errors import InputError
from cbmf.train.config import preset
from cbmf.train.distributed import Team, meet
from cbmf.train.fit import fit

pytestmark = pytest.mark.usefixtures("undrawn")
TINY = {
    "width": 16,
    "projection_width": 16,
    "ffn_width": 32,
    "heads": 2,
    "zero_start": False,
    "epochs": 3,
    "batch_size": 24,
}
CALM = {"input_dropout": 0.0, "projection_dropout": 0.0, "block_dropout": 0.0, "token_dropout": 0.0}
# On a machine without a GPU --multi_gpu is still what makes accelerate start several processes.
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0"),
]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
]


def start(command, check=True):
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def script(tmp_path, code):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(code))
    return path


def weights(folder):
    return load_file(folder / "model.safetensors")


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def settings(options):
    return [word for name, value in options.items() for word in ("--set", f"{name}={value}")]


@pytest.mark.slow
def test_accelerate_launch_fits_what_one_process_fits(small, tmp_path):
    small.image_text(images=100)
    options = {**TINY, **CALM, "seed": 1}
    line = ["fit", "--cache", small.root, "--device", "cpu", "--out", tmp_path / "two"]
    done = start([*ACCELERATE, "-m", "cbmf", *line, *settings(options)])
    fit(small.cache, preset("best", **options), out=tmp_path / "one", device="cpu")
    assert done.stdout.count("next: cbmf evaluate all") == 1  # one process tells
    assert done.stdout.count("epoch 1:") == 2  # of the heads, and of the model
    for part in ("", "baselines/linear"):
        one, two = (history(tmp_path / run / part) for run in ("one", "two"))
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
            assert b["val_loss"] == pytest.approx(a["val_loss"], rel=1e-4)
            assert (a.get("processes"), b["processes"]) == (None, 2)
        one, two = (weights(tmp_path / run / part) for run in ("one", "two"))
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
    facts = [json.loads((tmp_path / r / "environment.json").read_text()) for r in ("one", "two")]
    assert [fact["processes"] for fact in facts] == [1, 2]


STEP = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import torch
    from conftest import SmallCache
    from test_step import step_of
    from cbmf.train.batches import generator
    from cbmf.train.config import preset
    from cbmf.train.distributed import meet, part

    def main():
        team = meet("cpu")
        found = []
        for options in {cases!r}:
            step, banks, batch = step_of(SmallCache(Path({root!r})), preset("best", **options))
            step.team = team
            loss = step.backward(banks, batch, generator(0, 0, purpose=2))
            gradients = {{name: p.grad for name, p in step.model.named_parameters()}}
            step.take(banks, batch, generator(0, 0, purpose=2))
            found.append((loss, gradients, step.model.state_dict()))
        torch.save(found, Path({out!r}) / f"{{team.size}}-{{team.rank}}.pt")
        part()

    main()
"""


@pytest.mark.slow
def test_a_step_of_two_processes_is_that_of_one(small, tmp_path):
    small.image_text(images=60, layout="tokens")
    tokens = {**TINY, **CALM, "layout": "tokens", "batch_size": 40, "captions_per_image": 2}
    pooled = {**tokens, "layout": "pooled", "mixup": 1.0}
    cases = [
        {**pooled, "batch_size": 39},
        tokens,
        {**tokens, "targets": "soft", "detach_targets": False, "log_scale": 1.0},
        {**tokens, "batch_unit": "pairs"},
        {**tokens, "chunk_size": 7},
    ]
    names = {"tests": os.path.dirname(__file__), "root": str(small.root), "out": str(tmp_path)}
    path = script(tmp_path, STEP.format(cases=cases, **names))
    start([*TORCHRUN, path])
    start([sys.executable, path])
    one, two, other = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for (loss, gradients, after), *rest in zip(one, two, other, strict=True):
        for its_loss, its_gradients, its_after in rest:
            torch.testing.assert_close(its_loss, loss, rtol=1e-6, atol=0)
            for name, gradient in gradients.items():
                torch.testing.assert_close(its_gradients[name], gradient, rtol=1e-4, atol=2e-6)
            for name, value in after.items():
                torch.testing.assert_close(its_after[name], value, rtol=1e-4, atol=1e-4)
        assert all(torch.equal(rest[0][2][name], rest[1][2][name]) for name in after)


FIT = """
    import os, signal, sys
    from pathlib import Path
    from cbmf.cache.catalog import Cache
    from cbmf.cache.errors import PeerError
    from cbmf.train.config import preset
    from cbmf.train.distributed import part
    from cbmf.train.fit import fit

    def stop(progress):
        if progress.epoch == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    config = preset("best", **{options!r})
    fit(Cache(Path({root!r})), config, out=Path(sys.argv[1]), device="cpu", report=stop)
    part()
"""


@pytest.mark.slow
def test_two_processes_go_on_after_a_kill_bit_by_bit(small, tmp_path):
    small.image_text(images=60, layout="tokens")
    options = {**TINY, "layout": "tokens", "ema": 0.9, "schedule": "plateau", "baseline": False}
    options |= {"plateau_patience": 0, "epochs": 4}
    path = script(tmp_path, FIT.format(options=options, root=str(small.root)))
    killed = start([*TORCHRUN, path, tmp_path / "parts", 2], check=False)
    assert killed.returncode and len(history(tmp_path / "parts")) == 2
    start([*TORCHRUN, path, tmp_path / "parts", -1])
    start([*TORCHRUN, path, tmp_path / "whole", -1])
    parts, whole = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    losses = [[x["train_loss"] for x in history(tmp_path / name)] for name in ("parts", "whole")]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--cache", "nowhere"], "no data set with training pairs"),
        (["--lr", "1e30", "--set", "clip=0"], "loss is nan in epoch 1"),
    ],
)
def test_a_failure_ends_all_processes_with_one_line(small, tmp_path, given, why):
    small.image_text()
    line = ["fit", "--cache", small.root, "--device", "cpu", "--out", tmp_path / "run", *given]
    done = start([*TORCHRUN, "-m", "cbmf", *line], check=False)
    assert done.returncode
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("cbmf: ")]
    assert why in said


def test_alone_a_process_has_everything_and_loads_no_accelerate():
    code = """
        import sys
        from cbmf.train.distributed import meet
        from cbmf.train.fit import fit
        team = meet("cpu")
        with team.as_one():
            assert team.main and list(team.share(3)) == [0, 1, 2] and team.agree(lambda: 5) == 5
        assert "accelerate" not in sys.modules
    """
    start([sys.executable, "-c", textwrap.dedent(code)])


def test_shares_of_a_batch_are_nearly_equal_and_a_batch_that_is_too_small_is_refused():
    teams = [Team(torch.device("cpu"), rank, 3) for rank in range(3)]
    assert [team.share(7).tolist() for team in teams] == [[0, 3, 6], [1, 4], [2, 5]]
    with pytest.raises(InputError, match="3 processes for a batch of 2 items"):
        teams[0].share(2)


def test_several_processes_take_their_own_gpus(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "99"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="each takes its own GPU"):
        meet("cuda:0")
    with pytest.raises(InputError, match="start as many processes as there are GPUs"):
        meet("cuda")
