"""The record of a run, `run.json`: its command, its data, and what computed each of its segments.

A segment lasts from the start of the run, or from a resume, to the next resume.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from convvae_service.bundle import ImageShape, TrainedOn
from convvae_trainer.data.dataset import Dataset

__all__ = ["DataRecord", "RunRecord", "RunSegment", "WeightsOrigin"]

PRECISIONS = ("fp32", "bf16")

_T = TypeVar("_T")
_KIND_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecord:
    """The data set of a run. `sha256` is that of all pixels; `labels_sha256` is None without labels.

    `split` and `validation_split` are sentences on the choice of the test and validation images. A run of an
    earlier version, which held out other images, has None for `validation_images`. `trained_on` is the entry
    for the fingerprints of the training images; None: the run keeps none.
    """

    name: str
    image: ImageShape
    train_images: int
    validation_images: int | None
    test_images: int
    split: str
    validation_split: str
    sha256: str
    labels_sha256: str | None
    trained_on: TrainedOn | None = None

    @classmethod
    def of(cls, dataset: Dataset, trained_on: TrainedOn | None = None) -> Self:
        """Return the record of a data set in memory."""
        return cls(
            name=dataset.name,
            image=dataset.image,
            train_images=len(dataset.train),
            validation_images=0 if dataset.validation is None else len(dataset.validation),
            test_images=len(dataset.test),
            split=dataset.split,
            validation_split=dataset.validation_split,
            sha256=dataset.fingerprint(),
            labels_sha256=dataset.labels_fingerprint(),
            trained_on=trained_on,
        )

    def to_json_object(self) -> dict[str, Any]:
        """Return the record as JSON types; the image shape as [height, width, channels]."""
        return {**asdict(self), "image": list(self.image.as_tuple)}

    @classmethod
    def from_json_object(cls, values: Mapping[str, Any]) -> Self:
        """Return the record of what `to_json_object` returned.

        Raises:
            ValueError: A field is missing or of another type.
        """
        has_labels = values.get("labels_sha256", "") is not None
        is_of_earlier_version = "validation_images" not in values
        image = _field(values, "image", list)
        if len(image) != 3 or not all(type(side) is int for side in image):
            raise ValueError("'image' is not a list of height, width and channels")
        return cls(
            name=_field(values, "name", str),
            image=ImageShape(height=image[0], width=image[1], channels=image[2]),
            train_images=_field(values, "train_images", int),
            validation_images=None if is_of_earlier_version else _field(values, "validation_images", int),
            test_images=_field(values, "test_images", int),
            split=_field(values, "split", str),
            validation_split="" if is_of_earlier_version else _field(values, "validation_split", str),
            sha256=_field(values, "sha256", str),
            labels_sha256=_field(values, "labels_sha256", str) if has_labels else None,
            trained_on=_trained_on(values),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSegment:
    """The command, code and hardware that computed the steps from `step` to the next segment's.

    `epochs` or `minutes` is the end that the run had then; older versions, which never moved it, wrote none.
    `follows_end` says that the run had ended before, and was given this later end.
    """

    step: int
    command: str
    date: str
    commit: str
    libraries: dict[str, str]
    hardware: str
    device: str
    processes: int
    epochs: int | None = None
    minutes: float | None = None
    follows_end: bool = False

    @property
    def end(self) -> tuple[int | None, float | None]:
        """The epochs or minutes of the run."""
        return self.epochs, self.minutes

    @classmethod
    def from_json_object(cls, values: Mapping[str, Any]) -> Self:
        """Return the segment of its JSON object.

        Raises:
            ValueError: A field is missing or of another type.
        """
        return cls(
            step=_field(values, "step", int),
            command=_field(values, "command", str),
            date=_field(values, "date", str),
            commit=_field(values, "commit", str),
            libraries=_field(values, "libraries", dict),
            hardware=_field(values, "hardware", str),
            device=_field(values, "device", str),
            processes=_field(values, "processes", int),
            epochs=_optional(values, "epochs", int),
            minutes=_optional(values, "minutes", float),
            follows_end=_optional(values, "follows_end", bool) or False,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsOrigin:
    """The origin of the weights that a run started from; as a string its name.

    `reference` is a run folder or ROOT/MODEL/VERSION. `sha256` is that of the run's checkpoint or of the
    version's manifest. `step` is the step of the run, None for a version.
    """

    reference: str
    sha256: str
    step: int | None

    def __str__(self) -> str:
        path = Path(self.reference)
        return f"{path.parent.name}@{path.name}" if self.step is None else path.name

    @classmethod
    def from_json_object(cls, values: Mapping[str, Any]) -> Self:
        """Return the origin of its JSON object.

        Raises:
            ValueError: A field is missing or of another type.
        """
        return cls(
            reference=_field(values, "reference", str),
            sha256=_field(values, "sha256", str),
            step=_optional(values, "step", int),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The contents of `run.json`.

    `command` started the run. `precision` and `threads` (CPU threads of each process) hold for all segments;
    `reason` says why the precision was chosen. There is at least one segment. `weights_from` is the origin of
    the first weights; None: they were random.
    """

    command: str
    precision: str
    threads: int
    reason: str
    data: DataRecord
    segments: tuple[RunSegment, ...]
    weights_from: WeightsOrigin | None = None

    def to_json_object(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        segments = [asdict(segment) for segment in self.segments]
        return {**asdict(self), "data": self.data.to_json_object(), "segments": segments}

    @classmethod
    def from_json_object(cls, values: Mapping[str, Any]) -> Self:
        """Return the record of what `to_json_object` returned.

        Raises:
            ValueError: A field is missing, of another type, or out of range; the message names it.
        """
        segments = _field(values, "segments", list)
        if not segments or not all(isinstance(segment, dict) for segment in segments):
            raise ValueError("'segments' is not a list of one or more objects")
        origin = _optional(values, "weights_from", dict)
        record = cls(
            command=_field(values, "command", str),
            precision=_field(values, "precision", str),
            threads=_field(values, "threads", int),
            reason=_field(values, "reason", str),
            data=DataRecord.from_json_object(_field(values, "data", dict)),
            segments=tuple(RunSegment.from_json_object(segment) for segment in segments),
            weights_from=None if origin is None else WeightsOrigin.from_json_object(origin),
        )
        if record.precision not in PRECISIONS:
            raise ValueError(f"'precision' is {record.precision!r}, not {' or '.join(PRECISIONS)}")
        if record.threads < 1:
            raise ValueError(f"'threads' is {record.threads}, less than 1")
        return record

    def with_segment(self, segment: RunSegment) -> Self:
        """Return the record with one more segment, without those that no step of the run comes from."""
        kept = tuple(before for before in self.segments if before.step < segment.step)
        return replace(self, segments=(*kept, segment))

    def with_known_ends(self, *, epochs: int | None, minutes: float | None) -> Self:
        """Return the record with this end for the segments that have none."""
        segments = (
            replace(segment, epochs=epochs, minutes=minutes) if segment.end == (None, None) else segment
            for segment in self.segments
        )
        return replace(self, segments=tuple(segments))

    def distinct(self, name: str) -> list[Any]:
        """Return the different values that the segments have for a field, in the segments' order."""
        found: list[Any] = []
        for segment in self.segments:
            if (value := getattr(segment, name)) not in found:
                found.append(value)
        return found

    @property
    def libraries(self) -> dict[str, str]:
        """Versions of the libraries that trained the run; different versions of one library with a comma."""
        versions: dict[str, dict[str, None]] = {}
        for segment in self.segments:
            for name, version in segment.libraries.items():
                versions.setdefault(name, {})[version] = None
        return {name: ", ".join(different) for name, different in versions.items()}


def _trained_on(values: Mapping[str, Any]) -> TrainedOn | None:
    # Runs from before the key have none.
    if values.get("trained_on") is None:
        return None
    entry = _field(values, "trained_on", dict)
    return TrainedOn(
        file=_field(entry, "file", str),
        sha256=_field(entry, "sha256", str),
        count=_field(entry, "count", int),
    )


def _optional(values: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    """Return a field of a JSON object, or None if it is absent or null."""
    return None if values.get(name) is None else _field(values, name, kind)


def _field(values: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """Return a field of a JSON object; raise ValueError unless it is there and of this type."""
    value = values.get(name)
    # Not isinstance: True is an int.
    if type(value) is not kind:
        raise ValueError(f"{name!r} is missing or is not {_KIND_NAMES[kind]}")
    return value
