"""What is painted, as numbers: events lie about pictures, pixels do not."""

import base64
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom

Picture = npt.NDArray[np.uint8]  # rows, columns, red-green-blue
Values = npt.NDArray[np.floating[Any]]

BLOCKS = 48


def picture_of_url(data_url: str) -> Picture:
    """Return the picture of a `data:` URL that holds a PNG."""
    png = base64.b64decode(data_url.partition(",")[2])
    return np.asarray(imagecodecs.png_decode(png), np.uint8)[:, :, :3]


def picture_of_png(png: bytes) -> Picture:
    """Return the picture in a PNG, grey as three equal colours."""
    picture = np.asarray(imagecodecs.png_decode(png), np.uint8)
    picture = picture.reshape(*picture.shape[:2], -1)
    return picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, :1].repeat(3, axis=2)


def bright_share(picture: Picture, brighter_than: int = 100) -> float:
    """Return the share of pixels that are brighter than a grey of 0 to 255."""
    return float((picture.max(axis=2) > brighter_than).mean())


def is_uniform(picture: Picture) -> bool:
    """Return whether the picture is one flat surface, such as black."""
    return float(picture.std()) < 2.0


def is_grey(picture: Picture) -> bool:
    """Return whether no pixel has a colour."""
    spread = picture.max(axis=2).astype(int) - picture.min(axis=2)
    return bool(spread.max() <= 2)


def difference(one: Picture, other: Picture) -> float:
    """Return the mean difference of two pictures of one size, 0 to 255."""
    return float(np.abs(one.astype(int) - other).mean())


def fitted(picture: Picture, rows: int, columns: int) -> Picture:
    """Return the part of a picture area that an image of a size fills when it just fits."""
    height, width = picture.shape[:2]
    scale = min(height / rows, width / columns)
    top = round((height - rows * scale) / 2)
    left = round((width - columns * scale) / 2)
    return picture[top : height - top, left : width - left]


def blocks(picture: Picture) -> Values:
    """Return the mean colours of BLOCKS × BLOCKS fields, which no interpolation changes much."""
    height, width = picture.shape[:2]
    rows = np.linspace(0, height, BLOCKS + 1).astype(int)
    columns = np.linspace(0, width, BLOCKS + 1).astype(int)
    summed = np.add.reduceat(picture.astype(np.float64), rows[:-1], axis=0)
    summed = np.add.reduceat(summed, columns[:-1], axis=1)
    mean: Values = summed / (np.diff(rows)[:, None] * np.diff(columns)[None, :])[:, :, None]
    return mean


def alike(painted: Picture, image: Picture) -> float:
    """Return the mean difference of a painted image and its pixels field by field, 0 to 255."""
    return float(np.abs(blocks(painted) - blocks(stretched(image, *painted.shape[:2]))).mean())


def pixels_of(painted: Picture, rows: int, columns: int) -> Picture:
    """Return an image of a size as it is painted: the screen in the middle of each of its pixels.

    Enlarged an odd whole number of times, no neighbour has a say in that point.
    """
    height, width = painted.shape[:2]
    scale = min(height / rows, width / columns)
    row = (height - rows * scale) / 2 + (np.arange(rows) + 0.5) * scale
    column = (width - columns * scale) / 2 + (np.arange(columns) + 0.5) * scale
    result: Picture = painted[row.astype(int)][:, column.astype(int)]
    return result


def stretched(image: Picture, rows: int, columns: int) -> Picture:
    """Return an image at another size, each pixel repeated or left out."""
    row = np.arange(rows) * image.shape[0] // rows
    column = np.arange(columns) * image.shape[1] // columns
    result: Picture = image[row][:, column]
    return result


def hounsfield(path: Path) -> Values:
    """Return the values of a CT image file, row by row, as the file itself says."""
    dataset = pydicom.dcmread(path)
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return dataset.pixel_array * slope + intercept


def windowed(values: Values, width: float, center: float) -> Picture:
    """Return values as greys through a linear window (PS3.3 §C.11.2.1.2.1)."""
    share = (values - (center - 0.5)) / (width - 1) + 0.5
    grey = np.clip(share * 255, 0, 255).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
