"""What names of bands say: which of them mean the same, and which say nothing."""

import re
import unicodedata
from collections.abc import Sequence


def in_another_order(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether the bands that have these names stand in another order than those that have the others."""
    one, other = list(map(plain, names)), list(map(plain, others))
    return one != other and sorted(one) == sorted(other)


def stand_elsewhere(names: Sequence[str], others: Sequence[str]) -> bool:
    """Whether a band of one of these names stands at another place among the others: of those that have no name in
    common nobody knows whether they are the same."""
    one, other = list(map(plain, names)), list(map(plain, others))
    return one != other and any(name in other and other[n : n + 1] != [name] for n, name in enumerate(one))


def only_count(names: Sequence[str]) -> bool:
    """Whether names number the bands and say nothing more: Layer_1, Layer_2 or Channel:0:0, Channel:0:1."""
    found = [parts for name in names if (parts := _COUNTED.fullmatch(name.strip())) is not None]
    numbers = [int(parts[2]) for parts in found]
    is_one_kind = len(found) == len(names) and len({parts[1] for parts in found}) == 1
    return is_one_kind and numbers in (list(range(len(names))), list(range(1, len(names) + 1)))


_COUNTED = re.compile(r"(.*?)([0-9]{1,6})")


def plain(name: str) -> str:
    """The same for what people take for one name."""
    return unicodedata.normalize("NFC", name.strip()).casefold()
