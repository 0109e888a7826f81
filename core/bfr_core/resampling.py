"""Resampling: a picture in another size."""

from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # (height, width), or (height, width, channels)


def resized(picture: Picture, width: int, height: int) -> Picture:
    """Return the picture in another size; the same when it has that size already.

    Each direction is made smaller by the mean of the area that a pixel covers, and larger by
    interpolation between the two nearest pixels.
    """
    if picture.shape[:2] == (height, width):
        return picture
    # The direction that shrinks most goes first, to leave the least for the other.
    if height * picture.shape[1] <= width * picture.shape[0]:
        rescaled = _along_columns(_along_rows(picture, height), width)
    else:
        rescaled = _along_rows(_along_columns(picture, width), height)
    rounded: Picture = np.rint(rescaled).clip(0, 255).astype(np.uint8)
    return rounded


def _along_columns(picture: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    turned = np.ascontiguousarray(picture.swapaxes(0, 1))
    return _along_rows(turned, width).swapaxes(0, 1)


def _along_rows(picture: npt.NDArray[Any], height: int) -> npt.NDArray[Any]:
    """Return the picture with another number of rows, each a weighted sum of a few."""
    source_height = picture.shape[0]
    if source_height == height:
        return picture
    rows = picture.reshape(source_height, -1)
    out = np.empty((height, rows.shape[1]), np.float32)
    step = source_height / height
    for number in range(height):
        first, weights = _weights(number * step, step, source_height)
        block = rows[first : first + len(weights)].astype(np.float32, copy=False)
        np.dot(weights, block, out=out[number])
    return out.reshape(height, *picture.shape[1:])


def _weights(start: float, step: float, size: int) -> tuple[int, npt.NDArray[np.float32]]:
    """Return the first source row of an output row and the weights of it and those after it."""
    if step > 1:
        first = min(int(start), size - 1)
        last = max(first + 1, min(size, int(np.ceil(start + step - 1e-9))))
        edges = np.arange(first, last + 1, dtype=np.float64).clip(start, start + step)
        covered = np.diff(edges)
        return first, (covered / covered.sum()).astype(np.float32)
    centre = min(max(start + step / 2 - 0.5, 0.0), size - 1.0)
    first = min(int(centre), max(size - 2, 0))
    share = centre - first
    weights = [1 - share, share] if size > 1 else [1.0]
    return first, np.asarray(weights, np.float32)
