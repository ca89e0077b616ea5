"""The column of images in a Parquet file: bytes, a struct of bytes and path, or paths."""

from dataclasses import dataclass
from typing import Any

from convvae_service.images.header import InvalidImage
from convvae_service.images.location import Location, read_place
from convvae_service.images.packages import import_package
from convvae_service.images.source import BadSource

__all__ = ["ImageColumn", "find_image_column", "is_text", "with_plain_types"]

# The names that are looked for first, if several columns could be it.
_USUAL_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes")
_USUAL_PATHS = ("path", "file", "file_name", "filename", "file_path", "filepath", "image_path", "image")


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column of images.

    Attributes:
        name: Its name.
        form: `bytes`, `struct` of bytes and path, or `path`.
    """

    name: str
    form: str

    def content(self, value: Any, location: Location, *, max_pixels: int) -> bytes:
        """Return the image file of a row.

        Args:
            value: The row's Arrow scalar.
            location: The Parquet file: a path is relative to its folder.
            max_pixels: Largest width x height of an image file.

        Raises:
            InvalidImage: There is none, or its file cannot be read.
        """
        path: str | None = None
        if value.is_valid and self.form == "bytes":
            return bytes(value.as_buffer())
        if value.is_valid and self.form == "struct":
            data = value["bytes"]
            if data.is_valid:
                return bytes(data.as_buffer())
            path = value["path"].as_py() if "path" in value else None
        elif value.is_valid:
            path = value.as_py()
        if not path:
            raise InvalidImage("the row has no image")
        return read_place(path, beside=location, max_pixels=max_pixels)


def find_image_column(schema: Any, asked: str, name: str) -> ImageColumn:
    """Return the column of images.

    Args:
        schema: The Arrow schema of the file.
        asked: The column's name, or "" to find the only column of its kind, or one with a usual name.
        name: The file's name in messages.

    Raises:
        BadSource: There is no such column, or it is not clear which one it is.
    """
    forms = {field.name: _form(field.type) for field in schema if schema.names.count(field.name) == 1}
    if asked:
        form = forms.get(asked)
        if form is None:
            raise BadSource(
                f"{name} has no column {asked!r} of images or paths: it has {', '.join(schema.names)}"
            )
        return ImageColumn(asked, form)
    data = [column for column, form in forms.items() if form in ("bytes", "struct")]
    usual = [column for column in _USUAL_NAMES if column in data]
    for found in (data if len(data) == 1 else usual[:1], [p for p in _USUAL_PATHS if forms.get(p) == "path"]):
        if found:
            return ImageColumn(found[0], str(forms[found[0]]))
    candidates = [column for column, form in forms.items() if form is not None]
    if not candidates:
        raise BadSource(
            f"{name} has no column of images or paths, of bytes, structs of bytes and path, or texts: it has"
            f" {_named(schema)}"
        )
    raise BadSource(
        f"it is not clear which column of {name} has the images: name one of {', '.join(candidates)} with"
        " --image-column"
    )


def with_plain_types(schema: Any, image_column: str) -> Any:
    """Return an Arrow schema without views of texts and bytes, and with a column of images that is plain."""
    fields = [field.with_type(_plain(field.type, decode=field.name == image_column)) for field in schema]
    return import_package("pyarrow").schema(fields)


def _plain(kind: Any, *, decode: bool) -> Any:
    """Return an Arrow type without views, and, to `decode` it, without dictionaries."""
    arrow = import_package("pyarrow")
    types = arrow.types
    if types.is_string_view(kind):
        return arrow.string()
    if types.is_binary_view(kind):
        return arrow.binary()
    if types.is_dictionary(kind) and decode:
        return _plain(kind.value_type, decode=True)
    if types.is_struct(kind):
        return arrow.struct([field.with_type(_plain(field.type, decode=decode)) for field in kind])
    return kind


def _named(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is text."""
    types = import_package("pyarrow").types
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _form(stored: Any) -> str | None:
    types, kind = import_package("pyarrow").types, _plain(stored, decode=True)
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return "struct" if index >= 0 and _form(kind.field(index).type) == "bytes" else None
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    return "path" if is_text(kind) else None
