"""Tiny encoders with random weights, made by transformers itself, and small data sets on disk."""

import pytest
from tiny_inputs import WORDS, save_vit, write_coco


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory):
    """A BERT of two layers, 16 wide."""
    from transformers import BertConfig, BertModel, BertTokenizer

    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("encoders") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    BertTokenizer(str(vocabulary), model_max_length=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image_encoder(tmp_path_factory):
    """A ViT of two layers, 12 wide, 16 patches, without a pooler."""
    return save_vit(tmp_path_factory.mktemp("encoders") / "tiny-vit", pooler=False)


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path / "coco")
