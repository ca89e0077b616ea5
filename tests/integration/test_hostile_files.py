"""Image files of every odd kind, sent to the service: each is read as it should be, or named by its index."""

import io

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from convvae.v1 import vae_pb2 as pb
from convvae.v1 import vae_pb2_grpc
from support.tiny_bundle import SHAPE
from support.wire import TIMEOUT_S, pixels, png, png_bomb, random_images, refused, unpack

GREY = random_images(8, 6, 1)
# Colour, 10 x 12, as the model `colour` has it.
RGB = random_images(10, 12, 3)
ORIENTATION = 0x0112


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    entries = Image.Exif()
    entries[ORIENTATION] = orientation
    return entries


def sixteen_bit() -> tuple[bytes, NDArray[np.uint8]]:
    """A grey PNG of 16 bits, from black to white."""
    wide = np.linspace(0, 65535, SHAPE.num_values).astype(np.uint16).reshape(8, 6)
    scaled = ((wide.astype(np.int64) + 128) // 257).astype(np.uint8)
    return encode(Image.fromarray(wide), "PNG"), scaled[..., None]


def see_through() -> tuple[bytes, NDArray[np.uint8]]:
    """White that is transparent above, opaque below."""
    rgba = np.full((10, 12, 4), 255, np.uint8)
    rgba[:5, :, 3] = 0
    over_black = np.repeat(rgba[..., 3:], 3, axis=2)
    return encode(Image.fromarray(rgba), "PNG"), over_black


def on_its_side() -> tuple[bytes, NDArray[np.uint8]]:
    """A picture that the camera stored turned by a quarter."""
    stored = Image.fromarray(np.rot90(RGB).copy())
    return encode(stored, "PNG", exif=exif(6)), RGB


def moving(form: str) -> bytes:
    """Two frames, the first of which is `RGB`."""
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    lossless = {"lossless": True} if form == "WEBP" else {}
    return encode(frames[0], form, save_all=True, append_images=frames[1:], **lossless)


def four_inks() -> tuple[bytes, NDArray[np.uint8]]:
    """A JPEG for print, CMYK, of one colour."""
    colour = np.full((10, 12, 3), (200, 40, 90), np.uint8)
    return encode(Image.fromarray(colour).convert("CMYK"), "JPEG", quality=100), colour


READ = {
    "16 bits": ("tiny", *sixteen_bit(), 0),
    "alpha": ("colour", *see_through(), 0),
    "EXIF orientation": ("colour", *on_its_side(), 0),
    "animated WebP": ("colour", moving("WEBP"), RGB, 0),
    "animated PNG": ("colour", moving("PNG"), RGB, 0),
    "CMYK JPEG": ("colour", *four_inks(), 3),
}


@pytest.mark.parametrize("kind", READ)
def test_odd_files_are_read_as_the_picture_they_show(zoo: vae_pb2_grpc.VaeServiceStub, kind: str) -> None:
    """A file is encoded as what a viewer shows: upright, over black, in 8 bits, its first frame."""
    name, data, shown, steps = READ[kind]
    model = pb.ModelRef(name=name)
    from_file = zoo.Encode(pb.EncodeRequest(model=model, files=[data]), timeout=TIMEOUT_S)
    # The change that a lossy file may make, as an allowance on the model's own scale.
    low, high = (np.clip(shown.astype(int) + change, 0, 255).astype(np.uint8) for change in (-steps, steps))
    expected = zoo.Encode(
        pb.EncodeRequest(model=model, pixels=pixels(np.stack([shown, low, high]))), timeout=TIMEOUT_S
    )
    exact, lowest, highest = unpack(expected.mean)
    allowance = np.abs(highest - lowest).max() + 1e-5
    np.testing.assert_allclose(unpack(from_file.mean)[0], exact, atol=allowance)


TRUNCATED_JPEG = encode(Image.fromarray(random_images(64, 64, 3)), "JPEG")[:-400]
BAD = {
    "a GIF": (moving("GIF"), "not a JPEG, PNG or WebP image"),
    "nothing": (b"", "the file is empty"),
    "text": (b"<svg/>", "not a JPEG, PNG or WebP image"),
    "a truncated JPEG": (TRUNCATED_JPEG, "image file is cut short"),
    "a truncated WebP": (encode(Image.fromarray(RGB), "WEBP")[:-20], "image file is cut short"),
    "a header alone": (png(GREY)[:40], "image file is cut short"),
    "a bomb": (png_bomb(), "60000x60000 is more than the limit of 32000000 pixels"),
    "a picture above the limit": (
        png_bomb(6000),
        "6000x6000 is more than the limit of 32000000 pixels",
    ),
}


def test_each_bad_file_of_a_call_has_its_own_reason(zoo: vae_pb2_grpc.VaeServiceStub) -> None:
    """Good files between bad ones of every kind: each bad index comes back with what is wrong with it."""
    files, violations = [png(GREY)], {}
    for data, reason in BAD.values():
        violations[f"files[{len(files)}]"] = reason
        files += [data, png(GREY)]
    for method in ("Encode", "Reconstruct", "Score"):
        request = getattr(pb, f"{method}Request")(model=pb.ModelRef(name="tiny"), files=files)
        refusal = refused(getattr(zoo, method), request)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.violations == violations
        assert refusal.message == f"files[1]: {BAD['a GIF'][1]} (and {len(BAD) - 1} more)"
