"""Images: files and arrays as uint8 pixels, and sources of many images, for training and for serving."""

from convvae_service.images.arrays import (
    BadArray,
    as_images,
    as_uint8,
    is_array_file,
    open_array,
    open_labels,
)
from convvae_service.images.decode import (
    DEFAULT_MAX_PIXELS,
    FORMATS,
    InvalidImage,
    decode_file,
    fit_pixels,
    picture_shape,
    pixels_of,
    shape_of,
)
from convvae_service.images.files import IMAGE_SUFFIXES, image_files
from convvae_service.images.source import BadSource, ImageBatch, ModelInput, RejectedRow, Source
from convvae_service.images.source_kinds import open_source

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "IMAGE_SUFFIXES",
    "BadArray",
    "BadSource",
    "ImageBatch",
    "InvalidImage",
    "ModelInput",
    "RejectedRow",
    "Source",
    "as_images",
    "as_uint8",
    "decode_file",
    "fit_pixels",
    "image_files",
    "is_array_file",
    "open_array",
    "open_labels",
    "open_source",
    "picture_shape",
    "pixels_of",
    "shape_of",
]
