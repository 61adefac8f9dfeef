"""What `cbmf compare` takes away from CBMF: the learning of contexts, projections of their own."""

import pytest
import torch
from solvable import specs

from cbmf.train.config import FUSIONS, ModelConfig, preset
from cbmf.train.fit import fit
from cbmf.train.model import CBMF
from cbmf.train.run import Run

TINY = {"width": 16, "projection_width": 16, "ffn_width": 32, "heads": 2, "batch_size": 16}


def build(**options):
    torch.manual_seed(0)
    return CBMF(specs(12, 10), ModelConfig(**{"width": 16, "heads": 2, **options}))


def loss_of(model):
    one = torch.ones(6, 1, dtype=torch.bool)
    left = model.encode(0, torch.randn(6, 1, 12), one)
    return (left * model.encode(1, torch.randn(6, 1, 10), one)).sum()


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "none"])
def test_a_random_context_gets_no_gradient_and_all_else_does(fusion):
    model = build(fusion=fusion, learn_context=False, null_key=True, zero_start=False).train()
    loss_of(model).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("context.")
        assert parameter.requires_grad != frozen and (parameter.grad is None) >= frozen, name
    assert any(name.startswith("context.") for name, _ in model.named_parameters())


@pytest.mark.usefixtures("undrawn")
def test_a_random_context_is_after_a_fit_what_it_was_before(small, tmp_path):
    small.image_text()
    options = {**TINY, "epochs": 2, "learn_context": False, "baseline": False}
    run = fit(small.cache, preset("best", **options), out=tmp_path / "run")
    before, after = run.untrained.state_dict(), run.model.state_dict()
    contexts = {name for name in after if name.startswith("context.")}
    assert contexts and all(torch.equal(before[name], after[name]) for name in contexts)
    assert not torch.equal(before["projections.0.skip.weight"], after["projections.0.skip.weight"])


def test_a_shared_projection_reads_both_encoders_with_the_same_weights():
    model = build(shared_projection=True, fusion="none").eval()
    assert not len(model.projections) and model.projection.hidden.in_features == 12
    text = torch.randn(5, 1, 10)
    filled = torch.cat([text, torch.zeros(5, 1, 2)], dim=-1)
    one = torch.ones(5, 1, dtype=torch.bool)
    torch.testing.assert_close(model.encode(1, text, one), model.encode(0, filled, one))
    with_context = build(shared_projection=True).eval()  # which alone tells the encoders apart
    assert not torch.allclose(
        with_context.encode(1, text, one), with_context.encode(0, filled, one), atol=1e-3
    )


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_a_model_with_a_shared_projection_is_fitted_and_loaded(small, tmp_path, layout):
    small.image_text(layout="tokens")
    options = {**TINY, "epochs": 2, "shared_projection": True, "baseline": False}
    run = fit(small.cache, preset("best", layout=layout, **options), out=tmp_path / "run")
    loaded = Run.load(run.folder).model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in run.model.state_dict().items())
