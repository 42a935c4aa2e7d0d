"""From inputs to work: which raster's tiles go where, in which format, and which of them are in the sample."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from segcli import inputs
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.files import Places
from segcli.options import TileOptions
from segcli.raster.align import difference
from segcli.raster.burn import BurntReader
from segcli.raster.contents import TURNED_BYTES
from segcli.raster.ellipsoid import around
from segcli.raster.exact import not_kept
from segcli.raster.faults import faults_of_writing
from segcli.raster.grid import Grid
from segcli.raster.names import Name
from segcli.raster.origins import origins
from segcli.raster.sidecars import tables_beside
from segcli.raster.source import Source
from segcli.raster.stored import Stored, stored
from segcli.raster.zarrs import check_outside
from segcli.shard import Shard
from segcli.tiling.cutting import Layer, Rules, Work, look, why_not
from segcli.tiling.journal import journals
from segcli.tiling.labelling import Labels, find_labels
from segcli.tiling.layout import TILE_PLACE, Tiling, count, tiling
from segcli.tiling.ledger import Ledger
from segcli.tiling.manifest import CLASSES, MANIFEST, Place, Scene, accounts
from segcli.tiling.marks import changed, digest, drawn_from, seen_from, unchanged
from segcli.tiling.splits import NONE, SPLITS, Box, balanced, deal, meeting, quotas, split

MOST_TILES = 1_000_000
"""Of one raster: more come of a header that claims too much, or of a --size that was not meant."""


@dataclass(frozen=True)
class Target:
    """One raster, the name of its tiles, and the folder that they go to; `relative` is its name among those found. Its
    tiles are all of one `split`, unless that is None."""

    source: Name
    name: str
    folder: Path
    relative: str
    split: int | None = None


def find_targets(options: TileOptions) -> list[Target]:
    """Every raster among the inputs, with a name of its own in its folder: that of its path below the folder that was
    given, so that tiles of all lie side by side. Tiles, known by their names in a folder of tiles, are no inputs.
    UsageError where two have one name."""
    targets: list[Target] = []
    seen: dict[tuple[Path, str], Name] = {}
    holds_tiles = cache(lambda folder: bool(accounts(folder) or journals(folder)))
    for source, relative in inputs.find(options.inputs, options.out, options.recursive).items():
        name = "_".join(relative.with_suffix("").parts)
        beside = source.parent if isinstance(source, Path) else Path()
        check_outside(folder := options.out or beside / f"{relative.stem}_tiles")
        if (
            isinstance(source, Path)
            and source not in options.inputs
            and re.search(TILE_PLACE + "$", source.stem)
            and any(holds_tiles(source.parents[n]) for n in range(len(relative.parts)))
        ):
            continue
        if (folder, name) in seen:
            raise UsageError(source, f"its tiles would have the names of those of {seen[folder, name]}", "",
                             "rename one, or run them apart")  # fmt: skip
        seen[folder, name] = source
        targets.append(Target(source, name, folder, relative.with_suffix("").as_posix()))
    if not targets:
        raise NothingDoneError(", ".join(map(str, options.inputs)), "tiles", "expected rasters to cut",
                               "--join puts tiles together; to cut them again, name the files")  # fmt: skip
    return targets


def check_unchanged(work: Work, source: Name, labels: Labels | None) -> None:
    """InputError where the raster or its labels are not what they were when they were opened."""
    mask = labels.files[source] if labels is not None else None
    for name, before in ((source, work.scene.changed), (mask, (work.scene.mask or ())[1:])):
        if name is not None and changed(name) != before:
            raise InputError(name, "changed while it was read", "", "give --overwrite to start over when it is whole")


def labels_of(targets: list[Target], options: TileOptions) -> Labels | None:
    if options.masks is None:
        return None
    wants_meaning = not options.verify and (
        options.min_label > 0 or options.sample is not None or options.edge == "pad"
    )
    names = {target.source: target.relative for target in targets}
    return find_labels(names, options.masks, options.attribute, options.classes, wants_meaning)


def open_ledgers(targets: list[Target], labels: Labels | None, options: TileOptions) -> dict[Path, Ledger]:
    """The account of each folder. UsageError where one holds tiles of other options."""
    chosen = {
        "size": options.size, "overlap": options.overlap_pixels, "edge": options.edge, "format": options.format,
        "compress": options.compress, "masks": options.masks is not None, "attribute": options.attribute,
        "min_valid": options.min_valid, "min_label": options.min_label,
        "split": list(options.split) if options.split is not None else None, "sample": options.sample,
        "seed": options.seed,
    }  # fmt: skip
    if options.sample is not None:
        chosen["sample_of"] = drawn_from(target.name for target in targets)
    classes = labels.classes if labels is not None else None
    shard = options.shard if options.out is not None else None  # folders of one raster are not shared
    read = (*(target.source for target in targets), *(labels.files.values() if labels is not None else ()))
    where = Places()
    named = (path for name in read for path in (name, *(origins(name) or ())) if isinstance(path, Path))
    inputs = frozenset(map(where.of, named))
    folders = dict.fromkeys(target.folder for target in targets)
    ledgers = {folder: Ledger(folder, chosen, classes, shard, inputs) for folder in folders}
    for ledger in ledgers.values():
        if not (options.verify or options.overwrite):  # the one says so of each raster
            ledger.check()
    return ledgers


def shared_out(targets: list[Target], shard: Shard | None) -> list[Target]:
    """Those that are this run's part."""
    return [target for target in targets if shard is None or shard.holds(target.relative)]


def why(target: Target, ledger: Ledger, labels: Labels | None) -> str | None:
    """Why the tiles of a raster are to be made; None if all are there, of it as it is now, with these options."""
    scene = ledger.known.scenes.get(target.name)
    if scene is None:
        return "new"
    if ledger.other_options():
        return "options changed"
    mask = labels.files[target.source] if labels is not None else None
    if not unchanged(scene, [target.source, *([mask] if mask is not None else [])], target.folder):
        return "source changed"
    if not scene.is_done:
        return "not finished"
    if labels is not None and labels.classes is not None and not (target.folder / CLASSES).exists():
        return f"{CLASSES} missing"
    return None if all(map(ledger.is_whole, scene.records.values())) else "output missing"


@contextmanager
def opened(target: Target, labels: Labels | None, options: TileOptions) -> Iterator[Work]:
    """The work on one raster; its files are closed at the end of the block."""
    work = open_work(target, labels, options)
    try:
        yield work
    finally:
        close(work)


def close(work: Work) -> None:
    for layer in work.layers:
        layer.source.close()


def open_work(target: Target, labels: Labels | None, options: TileOptions) -> Work:
    """InputError where a raster, or its labels, cannot be cut."""
    source = Source(target.source, "stored")
    layers: list[Layer] = []
    try:
        like = stored(source)
        layers.append(Layer(source, like, like.empty))
        if source.is_turned and source.size_bytes <= TURNED_BYTES:
            source.load()
        if labels is not None:
            mask, mask_like = labels.open(target.source, source.grid)
            layers.append(Layer(mask, mask_like, labels.empty(mask_like)))
            if (unlike := difference(mask, source)) is not None:
                raise InputError(mask.path, *unlike)
        grid = source.grid
        _check_count(target.source, grid, options)
        tiles = tiling(grid.height, grid.width, options.size, options.overlap_pixels, options.edge)
        if not tiles.places:
            raise InputError(target.source, f"{grid.width} x {grid.height} pixels", f"a tile has {options.size}",
                             "--edge drop leaves nothing of it; choose another")  # fmt: skip
        rules = Rules(
            _ending(layers, tiles, options), options.compress.upper(), options.min_valid, options.min_label,
            labels.unlabelled if labels is not None else frozenset(),
        )  # fmt: skip
        mask_file = labels.files[target.source] if labels is not None else None
        scene = Scene(
            target.name, seen_from(target.folder, target.source), changed(target.source), grid, like,
            (seen_from(target.folder, mask_file), *changed(mask_file)) if mask_file is not None else None,
            SPLITS[target.split] if target.split is not None else "",
        )  # fmt: skip
        splits = None
        if options.split is not None and target.split is not None:
            splits = np.full((len(tiles.rows), len(tiles.cols)), target.split, np.int8)
        elif options.split is not None:
            splits = split(tiles, options.split, options.seed)
        return Work(scene, tuple(layers), tiles, rules, splits)
    except BaseException:
        for layer in layers or [Layer(source, Stored(1, "uint8"), 0)]:
            layer.source.close()
        raise


def dealt(targets: list[Target], ledgers: dict[Path, Ledger], options: TileOptions, console: Console) -> list[Target]:
    """The rasters of each folder, small ones with the split that they belong to as a whole. Those that overlap or
    adjoin on earth and are not of one split are said: nobody looks whether their tiles do."""
    if options.split is None:
        return targets
    out = []
    by_folder: dict[Path, list[Target]] = {}
    for target in targets:
        by_folder.setdefault(target.folder, []).append(target)
    for folder, those in by_folder.items():
        counts, grids = zip(*(_facts(target, options) for target in those), strict=True)
        sizes, (places, circle) = [(grid.height, grid.width) for grid in grids], _places(grids)
        scenes = [None if options.overwrite else ledgers[folder].known.scenes.get(target.name) for target in those]
        known = [None if scene is None else SPLITS.index(scene.split) if scene.split else NONE for scene in scenes]
        splits = deal(counts, options.split, options.seed, places, known, circle)
        out += [replace(target, split=split) for target, split in zip(those, splits, strict=True)]
        if pairs := meeting(places, splits, sizes, circle):
            one, other = (those[n].source for n in pairs[0])
            more = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
            console.say(f"--split: {one} and {other} adjoin or overlap on earth{more}; their tiles of different splits "
                        "may, too, unless they are made one raster first, such as a VRT")  # fmt: skip
    return out


def _facts(target: Target, options: TileOptions) -> tuple[int, Grid]:
    """How many tiles, and where; a raster that cannot be opened is left for its turn to be named."""
    with suppress(InputError), Source(target.source, "stored") as source:
        grid = source.grid
        sides = [count(n, options.size, options.overlap_pixels, options.edge) for n in (grid.height, grid.width)]
        return sides[0] * sides[1], grid
    return 0, Grid(0, 0)


def _places(grids: Sequence[Grid]) -> tuple[list[Box | None], float]:
    """Where rasters lie, in the reference system that all of them have, if there is one: the boxes of those that adjoin
    there overlap in degrees, by some percent. And what is once around in it."""
    systems = {grid.crs.to_wkt() for grid in grids if grid.crs is not None}
    system = min(systems) if len(systems) == 1 else "EPSG:4326"
    return [grid.bounds_in(system) for grid in grids], around(system)


def _check_count(name: Name, grid: Grid, options: TileOptions) -> None:
    """InputError where there are too many tiles, before they are counted out one by one."""
    rows, cols = (count(n, options.size, options.overlap_pixels, options.edge) for n in (grid.height, grid.width))
    if rows * cols > MOST_TILES:
        raise InputError(name, f"{grid.width} x {grid.height} pixels, {rows * cols} tiles",
                         f"expected at most {MOST_TILES}", "give a larger --size")  # fmt: skip


def _ending(layers: list[Layer], tiles: Tiling, options: TileOptions) -> str:
    """PNG where it keeps all there is, else TIFF, unless one of them is asked for."""
    if options.format != "auto":
        return f".{options.format}"
    if layers[0].source.grid.is_georeferenced:
        return ".tif"
    for layer in layers:
        if tiles.has_padding and not layer.stored.can_be_empty:
            return ".tif"  # a mask says what is padding
        try:
            if not_kept(layer.source.path, layers[0].source.grid, layer.stored, ".png"):
                return ".tif"
        except InputError:
            return ".tif"
    return ".png"


def losses(work: Work) -> list[str]:
    """What the tiles cannot keep, in lines for people. InputError where they cannot hold the pixels."""
    said = []
    for layer in work.layers:
        path, reader = layer.source.path, layer.source.reader
        if isinstance(reader, BurntReader) and not reader.inside:
            said.append(f"{path}: none of its {reader.polygons} polygons lies on {work.scene.name}")
        said += [f"{path}: tiles cannot keep its {table}" for table in tables_beside(path)]
        words = not_kept(path, work.scene.grid, layer.stored, work.rules.ending)
        if work.tiles.has_padding and not layer.stored.can_be_empty and work.rules.ending == ".png":
            words.append("which pixels are padding")
        if words:
            kept = f"{path}: {work.rules.ending[1:].upper()} tiles cannot keep {'; '.join(words)}"
            said.append(kept + (f"; {MANIFEST} does" if layer is work.layers[0] else ""))
    return said


def may_begin(work: Work, names: Sequence[str], ledger: Ledger, overwrite: bool) -> None:
    """InputError where the raster is another than that of the tiles that are there, or where files of these names are
    that segcli did not write, or that are read."""
    ledger.spare(names)
    if not overwrite:
        ledger.check_source(work.scene, [layer.source.path for layer in work.layers])
        ledger.guard(work.scene.name, names)


def make_room(work: Work, ledger: Ledger, overwrite: bool) -> Work:
    """Begin in the folder, or go on there: leftovers of a killed run go, tiles that are whole stay."""
    names = work.names()
    may_begin(work, names, ledger, overwrite)
    if overwrite:
        ledger.remove(work.scene.name)
    if work.scene.name not in ledger.known.scenes:
        files = [layer.source.path for layer in work.layers]
        found = digest(files)
        work.scene.digest = found if unchanged(work.scene, files, ledger.folder) else ""  # not of what was opened
    scene = ledger.begin(work.scene)
    pattern = re.escape(scene.name) + TILE_PLACE + re.escape(work.rules.ending)
    coming = [ledger.folder / name for name in {*names}.difference(*(one.files for one in scene.records.values()))]
    for folder in {(ledger.folder / name).parent for name in names}:
        with faults_of_writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            ledger.sweep(folder, pattern, coming)
    return replace(work, scene=scene)


def sample(
    targets: list[Target], labels: Labels | None, options: TileOptions, console: Console
) -> dict[Name, frozenset[Place] | InputError] | None:
    """The tiles of each raster that are in the sample over all of them, or why it could not be looked at; None where no
    sample is wanted."""
    if options.sample is None:
        return None
    found: list[tuple[Name, Place, dict[str, int], str]] = []
    failed: dict[Name, InputError] = {}
    for target in targets:
        try:
            with opened(target, labels, options) as work:
                facts, plan = look(work), work.plan()
        except InputError as error:
            failed[target.source] = error
            continue
        kept = [place for place in facts if not why_not(facts[place], plan[place], work.rules)]
        found += [(target.source, place, facts[place][1], plan[place].split) for place in kept]
    if len(found) < options.sample:
        console.say(f"--sample {options.sample}: there are {len(found)} tiles")
    out: dict[Name, set[Place]] = {target.source: set() for target in targets}
    splits = SPLITS[: len(options.split)] if options.split else ("",)
    groups = [[tile for tile in found if tile[3] == split] for split in splits]
    for tiles, wanted in zip(groups, quotas(options.sample, [*map(len, groups)], options.split or (1,)), strict=True):
        for n in balanced([_labels(pixels, labels) for _, _, pixels, _ in tiles], wanted, options.seed):
            out[tiles[n][0]].add(tiles[n][1])
    return {source: frozenset(places) for source, places in out.items()} | failed


def _labels(pixels: dict[str, int], labels: Labels | None) -> dict[str, int]:
    """Classes to balance by: background counts, what is ignored does not."""
    return {value: count for value, count in pixels.items() if labels is None or value not in labels.ignored}
