"""Image files, decoded by Pillow when they are needed: what is kept in memory is where they lie."""

from __future__ import annotations

import hashlib
import io
import logging
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from decaf_node.errors import BadData
from decaf_node.training.data import Stamp
from decaf_node.training.examples import Example, NoneReadable
from decaf_node.training.tasks.folders import Picture, image_files

# Pillow raises all of these for a file that is damaged, depending on its format
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
DEEP = ("I", "I;16", "I;16B", "I;16L")  # Pillow's modes for 16 bits of grey
logger = logging.getLogger(__name__)


class ImageFolders:
    """A ``data.Source`` of folders of images.

    find: a folder to its pictures; encode: pictures, with the content of each, to examples.
    """

    def __init__(
        self,
        find: Callable[[Path], list[Picture]],
        encode: Callable[[Sequence[Picture], Sequence[float]], list[Example]],
    ) -> None:
        self._find = find
        self._encode = encode
        self._seen: dict[Path, dict[Path, tuple[int, int, float]]] = {}

    def stamp(self, path: Path) -> Stamp | None:
        """Return what changes with any image in the folder, or with metadata.jsonl; None where there is none."""
        try:
            files = [*image_files(path), *path.glob("metadata.jsonl")]
            return len(files), hash(tuple((file, *_stamp(file)) for file in files))
        except OSError:
            return None

    def read(self, path: Path) -> list[Example]:
        """Look at the images of a folder that are new since the last time. Raises BadData."""
        pictures = self._find(path)
        try:
            known, seen = self._seen.get(path, {}), {}
            for picture in pictures:
                stamp = _stamp(picture.path)
                before = known.get(picture.path)
                seen[picture.path] = before if before and before[:2] == stamp else (*stamp, content_of(picture.path))
        except OSError as error:
            raise BadData("data.unreadable", f"{error.filename} cannot be read: {error.strerror}.") from error
        self._seen[path] = seen
        return self._encode(pictures, [seen[picture.path][2] for picture in pictures])


class Pixels:
    """Turns examples into what ``processor``, the model's own, makes of their images."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._said: set[str] = set()

    def __call__(self, examples: Sequence[Example]) -> tuple[list[Example], Tensor]:
        """Return the examples whose image can be read now, with their pixels (n, channels, height, width).

        One that cannot be decoded, or has gone, is said once and left out. Raises NoneReadable if none is left.
        """
        read = [(example, image) for example in examples if (image := self._image(example.image)) is not None]
        if not read:
            raise NoneReadable(
                "data.unreadable", f"No image of a batch can be read any more; one is {examples[0].image}."
            )
        pixels = self._processor(images=[image for _, image in read], return_tensors="pt")["pixel_values"]
        return [example for example, _ in read], pixels

    def _image(self, path: str) -> Image.Image | None:
        try:
            with Image.open(path) as image:
                return _in_colour(ImageOps.exif_transpose(image))
        except UNREADABLE:
            if path not in self._said:
                self._said.add(path)
                logger.warning("The image %s cannot be decoded and is left out.", path)
            return None


def content_of(path: Path) -> float:
    """Return a hash of the file's bytes, in [0, 1). Raises BadData unless it begins as an image does, OSError."""
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
    except UNREADABLE:
        raise BadData(
            "data.unreadable", f"{path} is no image that Pillow can read; mend it, or take it out of its folder."
        ) from None
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") / 2**64


def _in_colour(image: Image.Image) -> Image.Image:
    """Return ``image`` in RGB; Pillow itself would make white of all but the darkest of 16 bits of grey."""
    if image.mode in DEEP:
        grey = np.asarray(image).astype(np.int64).clip(0, 0xFFFF) >> 8
        image = Image.fromarray(grey.astype(np.uint8))
    return image.convert("RGB")


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
