"""How a training went, as a picture. matplotlib."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from segcli.drawing.charts import BLUE, GREEN, ORANGE


def curves(history: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: loss and mean IoU over epochs, and the learning rate; `history` has these for each epoch."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row["loss"] for row in history], color=ORANGE)
    left.set_ylabel("training loss")
    rate = left.twinx()
    rate.plot(epochs, [row["learning_rate"] for row in history], color=GREEN, linewidth=0.8, linestyle=":")
    rate.set_ylabel("learning rate")
    right.plot(epochs, [row["mean_iou"] for row in history], color=BLUE, marker="." if len(epochs) < 40 else None)
    right.set_ylabel("mean IoU, validation")
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.set_xlabel("epoch")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120, metadata={"Software": None})
    return data.getvalue()
