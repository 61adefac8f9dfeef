import pytest
import torch

from cbmf.train.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.75])
def test_it_drops_the_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    given = torch.ones(100, 7, 301, requires_grad=True)
    out = Dropout(share)(given)
    assert (out == 0).double().mean().item() == pytest.approx(share, abs=0.004)
    assert out.double().mean().item() == pytest.approx(1, abs=0.01)
    out.sum().backward()
    torch.testing.assert_close(given.grad, out.detach())  # what was dropped gets no gradient


def test_elements_are_dropped_apart_from_each_other():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(4000, 64)) > 0).double()
    together = torch.corrcoef(kept.T) - torch.eye(64)
    assert together.abs().max() < 0.08
    again = (Dropout(0.5)(torch.ones(4000, 64)) > 0).double()
    assert (kept == again).double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_the_seed_makes_it_the_same_and_evaluation_leaves_all():
    layer, given = Dropout(0.3), torch.randn(50, 33)
    torch.manual_seed(3)
    one = layer(given)
    torch.manual_seed(3)
    assert torch.equal(layer(given), one)
    assert torch.equal(layer.eval()(given), given)


def test_half_precision_stays_half():
    assert Dropout(0.2)(torch.ones(8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
