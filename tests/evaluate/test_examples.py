import numpy as np
import torch
from tiny_caches import caption_set, run_of
from torch.nn import functional as F

from cbmf.evaluate.examples import EACH, FOUND, galleries
from cbmf.evaluate.retrieval import prepare
from cbmf.evaluate.spaces import Space


def gallery_of(maker, tmp_path, images=20, noise=0.6):
    items = caption_set(maker, "toy", "test", images)
    task = prepare(maker.cache, items, run_of(tmp_path / "run"))
    random = torch.Generator().manual_seed(0)
    left = F.normalize(torch.randn(images, 6, generator=random), dim=1)
    right = left.repeat_interleave(5, 0)
    right = F.normalize(right + noise * torch.randn(len(right), 6, generator=random), dim=1)
    return items, left, right, galleries(task, Space("s", left, right))


def test_examples_are_what_the_whole_matrix_says(maker, tmp_path):
    items, left, right, (forth, back) = gallery_of(maker, tmp_path)
    assert (forth.name, back.name) == ("image_to_text", "text_to_image")
    assert (forth.query, forth.candidate, forth.queries, forth.candidates) == (
        ("image", "text", 20, 100)
    )
    partners = {(int(i), int(t)) for i, t in items.pairs.rows}
    for gallery, whole in ((forth, left @ right.T), (back, right @ left.T)):
        order = np.argsort(-whole.numpy(), axis=1)
        assert gallery.right and gallery.wrong
        first = 0
        for row, found in enumerate(order):
            pair = (row, int(found[0])) if gallery is forth else (int(found[0]), row)
            first += pair in partners
        assert gallery.right_share == first / len(order)
        for example in gallery.right + gallery.wrong:
            listed = [found.row for found in example.found]
            assert listed[:FOUND] == order[example.row, :FOUND].tolist()
            right_ones = [found for found in example.found if found.right]
            assert right_ones and min(found.rank for found in right_ones) == example.rank
            for found in example.found:
                pair = (example.row, found.row)
                assert found.right == ((pair if gallery is forth else pair[::-1]) in partners)
                assert abs(found.cosine - float(whole[example.row, found.row])) < 1e-6
        assert all(example.rank == 1 for example in gallery.right)
        assert all(example.rank > 1 for example in gallery.wrong)
        assert len(gallery.right) <= EACH and len(gallery.wrong) <= EACH


def test_no_more_are_shown_than_asked_for(maker, tmp_path):
    items = caption_set(maker, "toy", "test", 20)
    task = prepare(maker.cache, items, run_of(tmp_path / "run"))
    shape = torch.Generator().manual_seed(0)
    left, right = (F.normalize(torch.randn(n, 6, generator=shape), dim=1) for n in (20, 100))
    for gallery in galleries(task, Space("s", left, right), each=2):
        assert len(gallery.wrong) == 2 and len(gallery.right) <= 2


def test_without_a_mistake_there_are_only_right_ones(maker, tmp_path):
    forth = gallery_of(maker, tmp_path, noise=0.0)[3][0]
    assert forth.right_share == 1.0 and forth.wrong == []
    assert all(found.right for example in forth.right for found in example.found[:4])
