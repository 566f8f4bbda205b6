"""The data of the data benchmark: what is cheap to read, and what is work."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np

BATCH = 32
SIDE = 96


class Kind(NamedTuple):
    """A kind of data.

    Attributes:
        what: what the table calls it.
        samples: how many there are in an epoch.
    """

    what: str
    samples: int


KINDS = {
    "tensors": Kind("TensorDataset", 32_000),
    "own": Kind("a cheap class of one's own", 16_000),
    "images": Kind("PNG decoded, cropped, flipped", 1_600),
}


def rows(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Float32 features of shape (count, 64) and int64 labels, which are the samples' own numbers."""
    return np.random.default_rng(7).standard_normal((count, 64), np.float32), np.arange(count)


class Own:
    """Samples that take next to nothing to read."""

    def __init__(self, count: int) -> None:
        self.features, self.labels = rows(count)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], np.int64]:
        return self.features[index], self.labels[index]


class Images:
    """Pictures that are decoded and augmented, with numpy's global stream as people do; about a millisecond each."""

    def __init__(self, count: int) -> None:
        from PIL import Image

        self.labels = np.arange(count)
        self.files = []
        generator = np.random.default_rng(7)
        for _ in range(16):
            coarse = generator.integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
            file = io.BytesIO()
            Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "PNG")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], np.int64]:
        from PIL import Image

        pixels: Any = np.asarray(Image.open(io.BytesIO(self.files[index % len(self.files)])), np.float32)
        top, left = np.random.randint(0, 17, 2)
        pixels = pixels[top : top + SIDE - 16, left : left + SIDE - 16]
        if np.random.rand() < 0.5:
            pixels = pixels[:, ::-1]
        pixels = pixels / 255 + np.random.normal(0, 0.02, pixels.shape).astype(np.float32)
        normal = (pixels - pixels.mean((0, 1))) / (pixels.std((0, 1)) + 1e-6)
        return np.ascontiguousarray(normal.transpose(2, 0, 1)), self.labels[index]


class Numbers:
    """As many samples as one likes, each nothing but its number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index
