"""Pictures become the numbers that transformers' own image processors make of them."""

import numpy as np
import pytest
from tiny_inputs import picture

from cbmf.precompute import pixels
from cbmf.precompute.pixels import pixel_maker


def processors():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.convnext.image_processing_pil_convnext import (
        ConvNextImageProcessorPil,
    )
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return {
        "vit": ViTImageProcessorPil(),
        "bicubic": ViTImageProcessorPil(
            resample=3, image_mean=[0.4, 0.5, 0.6], image_std=[0.2] * 3
        ),
        "not normalised": ViTImageProcessorPil(do_normalize=False),
        "clip": CLIPImageProcessorPil(),
        "convnext": ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.7),
    }


@pytest.mark.parametrize("name", ["vit", "bicubic", "not normalised", "clip", "convnext"])
def test_pixels_are_those_of_transformers_bit_for_bit(name):
    processor = processors()[name]
    make = pixel_maker(processor)
    for image in (picture(0), picture(1).rotate(90, expand=True), picture(2).resize((640, 480))):
        wanted = processor(image, return_tensors="np")["pixel_values"][0].astype(np.float32)
        made = make(image)
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made, wanted)


def test_the_usual_processors_are_looked_up_and_others_called():
    fast = {name: "fast" in pixel_maker(p).__name__ for name, p in processors().items()}
    assert fast == {
        "vit": True,
        "bicubic": True,
        "not normalised": True,
        "clip": True,
        "convnext": False,  # its resizing asks for more than a size
    }


def test_a_processor_that_looks_beyond_a_byte_is_called_as_it_is(monkeypatch):
    processor = processors()["vit"]
    plain = type(processor).normalize

    def brightened(self, image, mean, std, **more):
        return plain(self, image, mean, std, **more) + np.float32(image.mean())

    monkeypatch.setattr(type(processor), "normalize", brightened)
    image = picture(3)
    wanted = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(pixels.pixel_maker(processor)(image), wanted)
