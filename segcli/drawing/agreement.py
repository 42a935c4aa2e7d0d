"""Where a mask and the true one agree, and in which way they do not. numpy only."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from segcli.classes import ClassEntry, ClassTable

TRUE_NEGATIVE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, CONFUSED, LEFT_OUT = range(6)

# In Okabe and Ito's colours, so that colour-blind eyes tell them apart.
KINDS = ClassTable(
    (
        ClassEntry(TRUE_NEGATIVE, "true negative", (40, 40, 40)),
        ClassEntry(TRUE_POSITIVE, "true positive", (0, 158, 115)),
        ClassEntry(FALSE_POSITIVE, "false positive", (213, 94, 0)),
        ClassEntry(FALSE_NEGATIVE, "false negative", (86, 180, 233)),
        ClassEntry(CONFUSED, "another class", (204, 121, 167)),
    ),
    LEFT_OUT,
)


def agreement(true: NDArray[np.int16], predicted: NDArray[np.int16], positive: Collection[int]) -> NDArray[np.uint8]:
    """Which of `KINDS` each pixel is, of class positions (row, col), negative without a label.

    What is positive are the classes at those positions: found and true are one of them, or two (another class).
    """
    table = np.zeros(257, np.uint8)  # by position + 1
    table[[place + 1 for place in positive]] = 1
    in_truth, found = table[true.clip(-1) + 1], table[predicted.clip(-1) + 1]
    kinds = np.array([TRUE_NEGATIVE, FALSE_POSITIVE, FALSE_NEGATIVE, TRUE_POSITIVE], np.uint8)[2 * in_truth + found]
    kinds[(in_truth & found).astype(bool) & (true != predicted)] = CONFUSED
    kinds[(true < 0) | (predicted < 0)] = LEFT_OUT
    return kinds
