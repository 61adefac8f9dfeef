"""An encoder's numbers are those of its model, and its description changes when they would."""

import shutil

import numpy as np
import pytest
import torch
from tiny_inputs import picture, save_convolutional, save_vit

from cbmf.cache.errors import InputError
from cbmf.precompute.encoders import EncoderOptions, FrozenEncoder

TEXTS = ["a cat", "the red dog runs under the tree on the green tree", "cat"]


def test_texts_in_one_padded_batch_are_as_each_alone(text_encoder):
    encoder = FrozenEncoder(str(text_encoder), "text", EncoderOptions(layout="tokens"))
    together = encoder.encode_texts(encoder.tokenize(TEXTS))
    for i, text in enumerate(TEXTS):
        alone = encoder.encode_texts(encoder.tokenize([text]))
        np.testing.assert_allclose(together.pooled[i], alone.pooled[0], atol=1e-6)
        np.testing.assert_allclose(together.tokens[i], alone.tokens[0], atol=1e-6)
        assert len(together.tokens[i]) == len(text.split()) + 2


def test_the_pooled_text_is_the_mean_of_its_own_tokens(text_encoder):
    encoder = FrozenEncoder(str(text_encoder), "text", EncoderOptions(layout="tokens"))
    encoded = encoder.encode_texts(encoder.tokenize(TEXTS))
    for pooled, tokens in zip(encoded.pooled, encoded.tokens, strict=True):
        np.testing.assert_allclose(pooled, tokens.mean(0), atol=1e-6)


def test_image_tokens_are_the_models_own_and_the_grid_their_averages(image_encoder):
    whole = FrozenEncoder(str(image_encoder), "image", EncoderOptions(layout="tokens"))
    coarse = FrozenEncoder(str(image_encoder), "image", EncoderOptions(layout="tokens", grid=2))
    pixels = torch.from_numpy(np.stack([whole.preprocess(picture(i)) for i in range(3)]))
    with torch.inference_mode():
        hidden = whole.model(pixel_values=pixels).last_hidden_state.numpy()
    fine = whole.encode_images(pixels)
    np.testing.assert_allclose(np.stack(fine.tokens), hidden, atol=1e-6)
    cls_and_mean = np.concatenate([hidden[:, 0], hidden[:, 1:].mean(1)], axis=1)
    np.testing.assert_allclose(fine.pooled, cls_and_mean, atol=1e-6)
    square = hidden[:, 1:].reshape(3, 4, 4, -1)
    first = square[:, :2, :2].mean((1, 2))
    np.testing.assert_allclose(
        np.stack(coarse.encode_images(pixels).tokens)[:, 1], first, atol=1e-6
    )
    assert (whole.image_tokens, coarse.image_tokens) == (17, 5)


def test_a_pooler_that_the_checkpoint_lacks_is_never_used(image_encoder, tmp_path):
    with pytest.raises(InputError, match="no trained pooler; choose --pool mean"):
        FrozenEncoder(str(image_encoder), "image", EncoderOptions(pool="pooler"))
    trained = save_vit(tmp_path / "with-pooler", pooler=True)
    encoder = FrozenEncoder(str(trained), "image", EncoderOptions(pool="pooler"))
    assert encoder.pooled_width == 12


def test_the_description_is_the_same_wherever_the_folder_lies(text_encoder, tmp_path):
    moved = shutil.copytree(text_encoder, tmp_path / "elsewhere")
    options = EncoderOptions()
    here = FrozenEncoder(str(text_encoder), "text", options)
    assert FrozenEncoder(str(moved), "text", options).made_of == here.made_of
    here.encode_texts(here.tokenize(TEXTS))  # using it must not change it
    assert FrozenEncoder(str(text_encoder), "text", options).made_of == here.made_of


def test_everything_that_changes_the_numbers_changes_the_description(text_encoder, tmp_path):
    base = FrozenEncoder(str(text_encoder), "text", EncoderOptions()).made_of
    for changed in (
        EncoderOptions(pool="cls"),
        EncoderOptions(layer=1),
        EncoderOptions(max_length=9),
    ):
        assert FrozenEncoder(str(text_encoder), "text", changed).made_of != base
    other = shutil.copytree(text_encoder, tmp_path / "other")
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name] + 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert FrozenEncoder(str(other), "text", EncoderOptions()).made_of["weights"] != base["weights"]


def test_an_inner_layer_is_that_of_the_model(text_encoder):
    encoder = FrozenEncoder(str(text_encoder), "text", EncoderOptions(layer=1, layout="tokens"))
    ids = encoder.tokenize(["a cat"])
    with torch.inference_mode():
        states = encoder.model(torch.tensor(ids), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(encoder.encode_texts(ids).tokens[0], states[1][0].numpy(), atol=1e-6)
    with pytest.raises(InputError, match=r"--layer 9: the encoder has 3 states"):
        FrozenEncoder(str(text_encoder), "text", EncoderOptions(layer=9))


@pytest.mark.parametrize("name", ["./no/such/folder", "/tmp"])
def test_a_folder_without_an_encoder_is_one_line(name):
    with pytest.raises(InputError, match=r"no config\.json there"):
        FrozenEncoder(name, "text", EncoderOptions())


def test_a_checkpoint_that_lacks_weights_is_refused(text_encoder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(text_encoder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights.pop(next(name for name in weights if "layer.1" in name))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights"):
        FrozenEncoder(str(broken), "text", EncoderOptions())


def test_one_tower_of_clip_serves_as_an_encoder(tmp_path):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision = {**small, "image_size": 32, "patch_size": 8}
    text = {**small, "vocab_size": 50, "max_position_embeddings": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size=size, crop_size=size).save_pretrained(tmp_path)
    encoder = FrozenEncoder(str(tmp_path), "image", EncoderOptions(layout="tokens"))
    assert (encoder.pool, encoder.image_tokens, encoder.pooled_width) == ("cls+mean", 17, 32)


def test_a_convolutional_encoder_gives_the_mean_of_its_cells_and_the_cells_behind_it(tmp_path):
    folder = save_convolutional(tmp_path / "tiny-mobilenet")
    options = EncoderOptions(layout="tokens")
    encoder = FrozenEncoder(str(folder), "image", options)
    pixels = torch.from_numpy(np.stack([encoder.preprocess(picture(i)) for i in range(3)]))
    with torch.inference_mode():
        output = encoder.model(pixel_values=pixels)
    cells = output.last_hidden_state.flatten(2).transpose(1, 2).numpy()  # (3, 4, D)
    encoded = encoder.encode_images(pixels)
    np.testing.assert_allclose(encoded.pooled, cells.mean(1), atol=1e-5)
    np.testing.assert_allclose(encoded.pooled, output.pooler_output.flatten(1), atol=1e-5)
    assert encoded.tokens is not None
    np.testing.assert_allclose(np.stack(encoded.tokens)[:, 0], cells.mean(1), atol=1e-5)
    np.testing.assert_allclose(np.stack(encoded.tokens)[:, 1:], cells, atol=1e-5)
    assert (encoder.pool, encoder.image_tokens) == ("mean", 5)
    assert encoder.made_of["first_token"] == "mean"
    pooled = FrozenEncoder(str(folder), "image", EncoderOptions())
    assert pooled.identity == encoder.identity and pooled.image_tokens == 1
    with pytest.raises(InputError, match="no class token; choose --pool mean"):
        FrozenEncoder(str(folder), "image", EncoderOptions(pool="cls"))
