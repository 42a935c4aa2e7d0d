"""Which bands of a file are those that a network was trained on: by their number, by their names, or as they come."""

import shlex
from collections.abc import Sequence

from segcli.band_names import only_count
from segcli.errors import InputError, UsageError
from segcli.options import Band, bands_text, has_names
from segcli.raster.source import Source


def match_bands(
    source: Source, wanted: int, chosen: tuple[Band, ...] | None = None, learnt: tuple[Band, ...] | None = None,
    by_name: bool = True,
) -> tuple[int, ...]:  # fmt: skip
    """Bands of the file, from 0, for a network of `wanted` bands; InputError where they do not fit.

    The same number fits, leaving alpha out; so does, for a network of three, a grey one repeated, also one that was
    `chosen` of several, and red, green and blue with one band more (near infrared, or alpha not marked as such).
    `learnt` are those that training chose of its files: of a file that has them nobody knows whether it is such a one,
    or has them in the network's order already, so that they are to be chosen again. Names say which they are, and are
    taken if `by_name`; a file that says what its bands are, and has other ones, does not fit.
    """
    if chosen is not None:
        if wrong := _wrong_count(chosen, wanted):
            raise InputError(source.path, *wrong)
        if missing := [band for band in chosen if source.band_of(band) is None]:
            raise no_band(source, missing[0])
        return _places(source, chosen, wanted)
    by_names = has_names(learnt)
    taken: tuple[int, ...] | None = None
    is_one = by_names and len(learnt or ()) == 1 and wanted == 3  # which the network has three times
    has_one_more = wanted == 3 and source.bands == 4 and source.begins_with_rgb and not by_names
    if (source.bands == wanted and not is_one) or has_one_more:
        taken = tuple(range(wanted))
    elif source.bands == 1 and wanted == 3:
        taken = (0, 0, 0)
    has_all = bool(learnt) and known_bands(source, learnt) == learnt
    if learnt and has_all:
        places = _places(source, learnt, wanted)
        if places == taken or (by_name and all(isinstance(band, str) for band in learnt)):
            return places
    elif taken is not None and not (by_names and source.called.says_what_they_are):
        return taken
    found = f"{source.bands} band{'s' * (source.bands != 1)}" + (f" {source.called}" if by_names else "")
    if learnt and (has_all or by_names):
        remedy = f"give --bands {_shell(learnt)}, or those that" if has_all else "choose with --bands what"
        raise InputError(source.path, found, f"the weights learnt from bands {_shell(learnt)} of such files",
                         f"{remedy} show{'s' * (not has_all)} the same here")  # fmt: skip
    raise InputError(source.path, found, f"the weights expect {wanted}{_or_grey(wanted)}",
                     "choose with --bands, or other weights")  # fmt: skip


def check_count(chosen: tuple[Band, ...] | None, wanted: int, learnt: tuple[Band, ...] | None) -> None:
    """UsageError where so many bands fit no file."""
    if chosen is not None and (wrong := _wrong_count(chosen, wanted)):
        of = f", learnt from {bands_text(learnt)}" if learnt else ""
        raise UsageError("--bands", wrong[0].removeprefix("--bands "), wrong[1] + of)


def _wrong_count(chosen: tuple[Band, ...], wanted: int) -> tuple[str, str] | None:
    """What was found and what was expected, where so many bands are none for a network of `wanted`."""
    if len(chosen) == wanted or (len(chosen) == 1 and wanted == 3):
        return None
    count = f"{len(chosen)} band{'s' * (len(chosen) != 1)}"
    return f"--bands names {count}", f"the weights expect {wanted}{_or_grey(wanted)}"


def guess(
    source: Source, bands: tuple[int, ...], chosen: tuple[Band, ...] | None, learnt: tuple[Band, ...] | None,
    called: tuple[str, ...] = (),
) -> str | None:  # fmt: skip
    """What is taken for granted of a file where nobody chose its bands, for people; None if nothing is. In training
    bands were `called` so, all or those that were chosen."""
    if chosen is not None:
        return None
    if called and not has_names(learnt) and any(source.band_names) and not only_count(source.band_names):
        if not _alike([source], called):
            return f"bands {source.called} are taken for {', '.join(called)}; --bands chooses others"
        are_all = bands == tuple(range(source.bands))
        return None if are_all else f"bands {', '.join(called)} are taken by their names"
    if learnt is not None and has_names(learnt) and not source.called.says_what_they_are:
        return f"its bands have no names, and are taken for {bands_text(learnt)}; --bands chooses others"
    if source.has_channels and len(set(bands)) == 3 and learnt is None:  # else it says which channels it learnt from
        named = f" ({', '.join(source.band_names)})" if all(source.band_names) else ""
        return f"its 3 channels{named} are taken for red, green and blue; --bands 1 takes one"
    return None


def _alike(images: Sequence[Source], called: tuple[str, ...]) -> tuple[str, ...]:
    """The names that bands were `called` by, if each image has a band for each of them; else none."""
    is_so = all(image.called.has_names and image.called.has_each_once(called) for image in images)
    return called if is_so else ()


def match_images(
    images: Sequence[Source], wanted: int, chosen: tuple[Band, ...] | None, learnt: tuple[Band, ...] | None,
    called: tuple[str, ...] = (),
) -> tuple[int, ...]:  # fmt: skip
    """`match_bands` for all images of a file; InputError also where these differ in their bands. Where nobody chose,
    bands that all its images call as those of training were `called` are taken, wherever they stand."""
    first = images[0]
    chosen = (_alike(images, called) or None) if chosen is None else chosen
    bands = match_bands(first, wanted, chosen, learnt)
    if other := next((image.bands for image in images if image.bands != first.bands), None):
        raise InputError(first.path, f"images of {first.bands} and of {other} bands", "expected the same")
    unlike = [image.called for image in images if image.band_names != first.band_names]
    if unlike and has_names(chosen or learnt):
        raise InputError(first.path, f"images with bands {first.called} and {unlike[0]}", "expected the same",
                         "choose by numbers, or split it")  # fmt: skip
    return bands


def known_bands(source: Source, learnt: tuple[Band, ...] | None) -> tuple[Band, ...]:
    """Those that the file has: by name only where it says itself which is which, since colours may be made up."""
    return tuple(
        band
        for band in learnt or ()
        if (isinstance(band, int) or source.called.says_what_they_are) and source.band_of(band) is not None
    )


def no_band(source: Source, band: Band) -> InputError:
    """What is wrong with a file that has no such band."""
    has = f"it has {source.bands}, {source.called}"
    if isinstance(band, int):
        return InputError(source.path, f"band {band} is alpha, or not there", f"--bands names it, and {has}",
                          "name others")  # fmt: skip
    return InputError(source.path, f"no band is called {band}", has, "name others, or count them from 1")


def _places(source: Source, bands: tuple[Band, ...], wanted: int) -> tuple[int, ...]:
    """Those bands, from 0; a single one repeated for a network of three."""
    places = tuple(place for band in bands if (place := source.band_of(band)) is not None)
    return places * (3 if len(places) == 1 and wanted == 3 else 1)


def _shell(bands: tuple[Band, ...]) -> str:
    """As --bands takes them on a command line."""
    return shlex.quote(bands_text(bands))


def _or_grey(wanted: int) -> str:
    return " or 1 (grey)" if wanted == 3 else ""
