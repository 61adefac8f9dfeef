import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cbmf.evaluate.nearest import nearest


def unit(count, width, seed):
    return F.normalize(
        torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1
    )


@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_blocks_find_what_the_whole_matrix_has(block):
    queries, candidates = unit(11, 5, 0), unit(40, 5, 1)
    scores, places = nearest(queries, candidates, 6, block=block)
    whole = (queries @ candidates.T).numpy()
    assert (places == np.argsort(-whole, axis=1)[:, :6]).all()
    assert np.allclose(scores, -np.sort(-whole, axis=1)[:, :6], atol=1e-6)


def test_no_more_are_found_than_there_are():
    scores, places = nearest(unit(2, 4, 0), unit(3, 4, 1), 10, block=2)
    assert scores.shape == places.shape == (2, 3)
    assert sorted(places[0]) == [0, 1, 2]


def test_vectors_of_other_width_are_refused():
    with pytest.raises(ValueError, match="same width"):
        nearest(unit(2, 4, 0), unit(3, 5, 1), 1)
