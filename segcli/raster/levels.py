"""Which level of a pyramid is meant, by its number or by how large its pixels are."""

from collections.abc import Iterator

from segcli.errors import InputError, UsageError
from segcli.raster.names import Name

MPP_TOLERANCE = 0.25
"""By how much a pyramid level may differ from the pixel size that was asked for."""


def check_choice(level: int | None, mpp: float | None) -> None:
    """UsageError where a level is asked for in two ways."""
    if level is not None and mpp is not None:
        raise UsageError("--level and --mpp", "both given", "expected one of them")


def counted(path: Name, level: int, count: int) -> int:
    """The level, if there is one of that number."""
    if level >= count:
        raise InputError(path, f"pyramid levels 0 to {count - 1}", f"no level {level}")
    return level


def nearest(name: Name, scales: list[float], pixel_um: float | None, mpp: float) -> int:
    """The level whose pixels have about that size."""
    if pixel_um is None:
        remedy = "choose with --level" if len(scales) > 1 else "it has one level, which is taken without --mpp"
        raise InputError(name, "the size of its pixels is not stated", "--mpp needs it", remedy)
    sizes = [pixel_um * scale for scale in scales]
    best = min(range(len(sizes)), key=lambda n: abs(sizes[n] - mpp))
    if abs(sizes[best] - mpp) > MPP_TOLERANCE * mpp:
        found = ", ".join(f"{size:.3g}" for size in sizes)
        remedy = "choose with --level" if len(sizes) > 1 else "there is no other; bring it to that size first"
        if any(abs(size - 1e6 * mpp) <= MPP_TOLERANCE * 1e6 * mpp for size in sizes):
            remedy += f"; --mpp counts micrometres: {1e6 * mpp:.0f} for {mpp:g} m"
        raise InputError(name, f"levels of {found} micrometres a pixel", f"none is near {mpp:g}", remedy)
    return best


def other_size(name: Name, pixel_m: float | None, learnt: float | None) -> Iterator[str]:
    """A line where pixels so many metres wide are surely not what weights `learnt` from, in micrometres."""
    if pixel_m is not None and learnt is not None and abs(1e6 * pixel_m - learnt) > MPP_TOLERANCE * learnt:
        one, other = (f"{1e6 * m:.3g} um" if m < 1e-3 else f"{m:.3g} m" for m in (pixel_m, learnt / 1e6))
        yield f"{name}: pixels of {one}, and the weights learnt from {other}; --mpp {learnt:g} looks for these"
