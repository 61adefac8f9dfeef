import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as reference_matrix
from torch.nn import functional as F

from cbmf.evaluate.classification import (
    class_embeddings,
    class_ranks,
    confusion_matrix,
    depths,
    mean_class_recall,
)
from cbmf.evaluate.ranks import recall_at


def random_case(images: int = 300, classes: int = 7):
    random = torch.Generator().manual_seed(2)
    rows = F.normalize(torch.randn(images, 5, generator=random), dim=1)
    centres = F.normalize(torch.randn(classes, 5, generator=random), dim=1)
    labels = torch.randint(0, classes, (images,), generator=random).numpy()
    return rows, centres, labels


def test_class_embedding_is_the_mean_direction_of_its_prompts():
    prompts = torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, -2.0]])
    rows = class_embeddings(prompts, np.array([0, 0, 1]), 2)
    half = 0.5**0.5  # lengths 3 and 5 do not matter
    assert rows.tolist() == [pytest.approx([half, half]), pytest.approx([0, -1])]


def test_a_class_without_a_prompt_is_refused():
    with pytest.raises(ValueError, match="class 1 of 3"):
        class_embeddings(torch.ones(2, 2), np.array([0, 2]), 3)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_top_k_agrees_with_scikit_learn(k):
    rows, centres, labels = random_case()
    expected = top_k_accuracy_score(labels, (rows @ centres.T).numpy(), k=k, labels=range(7))
    assert recall_at(class_ranks(rows, centres, labels), k) == pytest.approx(expected)


def test_recall_and_confusion_agree_with_scikit_learn():
    rows, centres, labels = random_case()
    taken = (rows @ centres.T).argmax(1).numpy()
    matrix = confusion_matrix(rows, centres, labels)
    assert matrix.tolist() == reference_matrix(labels, taken, labels=range(7)).tolist()
    recall = mean_class_recall(class_ranks(rows, centres, labels), labels)
    assert recall == pytest.approx(balanced_accuracy_score(labels, taken))


def test_classes_that_do_not_occur_have_no_recall():
    ranks, labels = np.array([1, 1, 2, 1]), np.array([0, 0, 0, 3])
    assert mean_class_recall(ranks, labels) == pytest.approx((2 / 3 + 1) / 2)


def test_depth_is_capped_at_the_number_of_classes():
    assert list(depths(10)) == [1, 2, 3, 4, 5]
    assert list(depths(3)) == [1, 2, 3]


def test_two_classes_alike_are_not_told_apart():
    rows, centres, labels = random_case(classes=2)
    ranks = class_ranks(rows, centres[:1].repeat(2, 1), labels)
    assert set(ranks.tolist()) == {2}
