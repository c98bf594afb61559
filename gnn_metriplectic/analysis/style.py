"""One look for every figure: colour-blind safe (Okabe and Ito 2008), truth black, model vermilion."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TRUTH = "#111111"
MODEL = "#d55e00"
BAND = "#b8c0cc"
ACCENT = "#0072b2"
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.9,
    "axes.edgecolor": "#444c56",
    "axes.labelcolor": "#24292f",
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
    "axes.formatter.useoffset": False,
    "xtick.color": "#444c56",
    "ytick.color": "#444c56",
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "lines.linewidth": 1.9,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
    "figure.dpi": 100,
    "savefig.dpi": 170,
}


@contextmanager
def figure(width: float = 4.6, height: float = 3.5) -> Iterator[Figure]:
    """A figure of ``width`` x ``height`` inches in the house style, independent of pyplot and its back ends."""
    with matplotlib.rc_context(RC):
        yield Figure(figsize=(width, height), layout="constrained")


def curve_and_residual(fig: Figure) -> tuple[Axes, Axes]:
    """Axes for a curve, and below it, on the same abscissa, a quarter as high, for what it misses."""
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    upper.tick_params(labelbottom=False)
    lower.axhline(0, color=TRUTH, linewidth=0.9)
    return upper, lower


def to_png(fig: Figure) -> str:
    """The figure as a ``data:`` address of a PNG, to stand in an HTML page."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        fig.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return data_address(buffer.getvalue(), "image/png")


def data_address(content: bytes, kind: str) -> str:
    """``content`` of MIME type ``kind`` as a ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
