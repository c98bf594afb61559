"""Films as grey frames: AVI, MP4 and what else FFmpeg reads, TIFF stacks, folders of PNG (or TIFF, JPEG)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

INSTALL = "pip install 'gnn-metriplectic[video]'"
STILLS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def read_film(path: str | Path) -> Iterator[np.ndarray]:
    """Frames ``[H, W]`` of a film, colours averaged, one after the other.

    Args:
        path: a film, a TIFF stack, or a folder of pictures in the order of the numbers in their names.

    Raises:
        FileNotFoundError: nothing there, or the libraries of the ``video`` extra are missing.
        ValueError: a file that cannot be decoded, or pictures of different size.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no film {path}")
    shape = None
    for number, frame in enumerate(_decoded(path)):
        grey = np.asarray(frame)
        grey = grey[..., :3].mean(axis=2) if grey.ndim == 3 else grey
        if grey.ndim != 2 or (shape is not None and grey.shape != shape):
            raise ValueError(f"{path}: frame {number} has shape {grey.shape}, the first {shape}: a film has one size")
        shape = grey.shape
        yield grey


def _decoded(path: Path) -> Iterator[np.ndarray]:
    imageio, tifffile = _libraries()
    try:
        if path.is_dir():
            files = sorted((f for f in path.iterdir() if f.suffix.lower() in STILLS), key=_numbers)
            if not files:
                raise ValueError(f"{path} holds no pictures ({', '.join(STILLS)})")
            for file in files:
                yield imageio.imread(file)
        elif path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as stack:
                for page in stack.pages:
                    yield page.asarray()
        else:
            yield from imageio.imiter(path, plugin="pyav")
    except (ValueError, FileNotFoundError):
        raise
    except Exception as error:  # decoders raise many kinds
        what = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} cannot be decoded: {what}. Convert it, as by ffmpeg -i film frames/%05d.png, and give the folder"
        ) from error


def _libraries():
    try:
        import av  # noqa: F401  the plugin of imageio needs it
        import imageio.v3 as imageio
        import tifffile
    except ImportError as error:
        raise FileNotFoundError(f"{error.name} is not installed: {INSTALL}") from error
    return imageio, tifffile


def _numbers(file: Path) -> list:
    """2 before 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]
