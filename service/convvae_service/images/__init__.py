"""Images: files and arrays as uint8 pixels, and sources of many images, for training and for serving."""

from convvae_service.images.arrays import (
    BadArray,
    as_images,
    as_uint8,
    is_array_file,
    open_array,
    open_labels,
)
from convvae_service.images.batch_decoding import InvalidImages, decode_files
from convvae_service.images.decode import (
    DEFAULT_MAX_PIXELS,
    decode_file,
    decode_image,
    most_decoding_bytes,
    read_header,
)
from convvae_service.images.decoding_processes import DecodingProcesses
from convvae_service.images.decoding_threads import DecodingThreads
from convvae_service.images.file_decoder import FileDecoder, are_small, decode_here
from convvae_service.images.file_rows import FileRows
from convvae_service.images.files import (
    IMAGE_SUFFIXES,
    ImageFiles,
    LeftOut,
    image_files,
    left_out_of,
    read_file,
)
from convvae_service.images.header import ImageHeader, InvalidImage, TooManyPixels
from convvae_service.images.model_input import ModelInput
from convvae_service.images.pillow_decoder import pillow_pixels, pillow_shape
from convvae_service.images.resizing import resize_pixels
from convvae_service.images.source import (
    BadSource,
    Cursor,
    ImageBatch,
    RejectedRow,
    Shard,
    Source,
    SourceChanged,
    SourceOptions,
    UndecodedRows,
)
from convvae_service.images.source_kinds import open_source, open_sources
from convvae_service.printable import printable

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "BadArray",
    "BadSource",
    "Cursor",
    "DecodingProcesses",
    "DecodingThreads",
    "FileDecoder",
    "FileRows",
    "ImageBatch",
    "ImageFiles",
    "ImageHeader",
    "InvalidImage",
    "InvalidImages",
    "LeftOut",
    "ModelInput",
    "RejectedRow",
    "Shard",
    "Source",
    "SourceChanged",
    "SourceOptions",
    "TooManyPixels",
    "UndecodedRows",
    "are_small",
    "as_images",
    "as_uint8",
    "decode_file",
    "decode_files",
    "decode_here",
    "decode_image",
    "image_files",
    "is_array_file",
    "left_out_of",
    "most_decoding_bytes",
    "open_array",
    "open_labels",
    "open_source",
    "open_sources",
    "pillow_pixels",
    "pillow_shape",
    "printable",
    "read_file",
    "read_header",
    "resize_pixels",
]
