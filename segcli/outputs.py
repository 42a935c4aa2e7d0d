"""What predict writes beside a mask, where, and how: probabilities, confidence, overlays, objects, polygons."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from segcli import products
from segcli.batch import OVERLAYS, Beside, Job
from segcli.classes import ClassTable
from segcli.drawing.overlay import over_picture
from segcli.errors import InputError, UsageError
from segcli.files import part_of
from segcli.options import Percentiles, PredictOptions
from segcli.pictures import OVER, Style, painted, pictured, strip_height
from segcli.products import CONFIDENCE, PROBABILITIES, Product
from segcli.raster.endings import lost_in
from segcli.raster.images import Images, open_images
from segcli.raster.levels import check_choice
from segcli.raster.names import Name
from segcli.raster.objects import COUNTS, OBJECTS, find_objects, write_objects
from segcli.raster.sidecars import has_place, overviews, remove_aux
from segcli.raster.sink import Encoding
from segcli.raster.stack_sink import create_for
from segcli.raster.stretch import stretch_together
from segcli.raster.vectors import POLYGONS, Shapes, check_on_earth, check_polygons, write_polygons
from segcli.tiling.manifest import MANIFEST as TILES


def check(options: PredictOptions, say: Callable[[str], None]) -> None:
    """UsageError where options ask for what cannot be had; says what is likely not meant."""
    if options.polygons is not None:
        check_polygons(options.polygons)
    measured = options.probabilities or needs_confidence(options)
    for name, is_idle, without in (
        ("--min-pixels", options.min_pixels and not (options.objects or options.polygons), "--objects or --polygons"),
        ("--min-area", options.min_area and options.polygons is None, "--polygons"),
        ("--simplify", options.simplify and options.polygons is None, "--polygons"),
        ("--alpha", options.alpha != PredictOptions.alpha and not options.overlay, "--overlay"),
        (
            "--quantity",
            options.quantity != PredictOptions.quantity and not measured,
            "--probabilities, --confidence, --objects or --polygons",
        ),
    ):
        if is_idle:
            raise UsageError(name, f"without {without}", "it does nothing")
    if options.axes is not None and options.axes.for_nameless:
        say(f"weights of pages along {options.axes}: pages without axes are taken so; --axes says otherwise")
    check_choice(options.level, options.mpp)
    for folder in options.inputs if isinstance(options.input_range, Percentiles) else ():
        if isinstance(folder, Path) and (folder / TILES).is_file():
            say(f"{folder}: tiles have percentiles of their own each, so that one scene may be labelled in two ways "
                "where they meet; --input-range LOW,HIGH gives all the same")  # fmt: skip


def with_overviews(jobs: Sequence[Job], options: PredictOptions) -> list[Job]:
    """Jobs that are made of the overviews beside their sources, too, where one of these may be what is read."""
    if options.level is None and options.mpp is None:
        return list(jobs)

    made_of = (None if job.made_of is None else job.made_of + overviews(job.made_of) for job in jobs)
    return [replace(job, made_of=files) for job, files in zip(jobs, made_of, strict=True)]


def needs_confidence(options: PredictOptions) -> bool:
    """Objects and polygons say how sure the network was of each."""
    return options.confidence or options.objects or options.polygons is not None


def encoding(options: PredictOptions) -> Encoding:
    chosen = Encoding(options.compress.upper(), options.format == "cog")
    return chosen if options.jobs is None else replace(chosen, threads=options.jobs)


def beside(options: PredictOptions) -> list[Beside]:
    """The files that are written beside each mask."""
    found: list[Beside] = []
    if options.overlay:
        found.append(Beside(OVERLAYS))
    if options.probabilities:
        found.append(Beside(PROBABILITIES, ".tif"))
    if options.confidence:
        found.append(Beside(CONFIDENCE, ".tif"))
    if options.objects:
        found += [Beside(OBJECTS, ending) for ending in (".tif", ".csv", COUNTS)]
    if options.polygons is not None:
        found.append(Beside(POLYGONS, f".{options.polygons}"))
    return found


def wanted_products(classes: ClassTable, options: PredictOptions) -> tuple[Product, ...]:
    """The mask first. Where confidence is needed, and nobody asked for it, it goes to a file that is removed."""
    found = [products.mask(classes)]
    if options.probabilities:
        found.append(products.probabilities(classes, options.quantity))
    if needs_confidence(options):
        is_hidden_half = options.quantity == "float16" and not options.confidence  # which OME-TIFF has not
        found.append(products.confidence("float32" if is_hidden_half else options.quantity))
    return tuple(found)


def places(job: Job, wanted: Sequence[Product], options: PredictOptions) -> tuple[Path, ...]:
    """The file of each product; confidence that nobody asked for has a hidden one beside what needs it."""
    others = {one.folder: path for one, path in zip(beside(options), job.beside, strict=True)}

    def place(product: Product) -> Path:
        if product.folder is None:
            return job.output
        if product.folder in others:
            return others[product.folder]
        part = part_of(job.beside[-1])
        return part.with_name(f"{part.name}.confidence.tif")

    return tuple(map(place, wanted))


def cannot_hold(path: Name, images: Images, output: Path, options: PredictOptions) -> list[str]:
    """What is lost of an image in its mask and beside it, in lines for people. InputError where these cannot be."""
    grids, said = [plane.grid for plane in images.planes], []
    grid = grids[0]
    if options.objects or options.polygons:
        where = grid.crs, grid.transform is None
        if any((other.crs, other.transform is None) != where for other in grids):
            found = "images in several reference systems, or some that lie nowhere"
            raise InputError(path, found, "objects and polygons want one for all", "save them as files of their own")
        if any(other.transform is None and (other.gcps or other.rpcs is not None) for other in grids):
            drawn = " and ".join(["objects"] * options.objects + ["polygons"] * (options.polygons is not None))
            said.append(
                f"placed by control points or polynomials; its {drawn} are in columns and rows"
                + (", and --min-area counts pixels" if options.polygons and options.min_area else "")
            )
    if options.polygons == "geojson" and grid.crs is not None:
        check_on_earth(path, grid.crs)
    if images.in_pages and images.dialect == "ome" and options.quantity == "float16" and (
        options.probabilities or options.confidence
    ):  # fmt: skip
        raise InputError(path, "--quantity float16", "OME-TIFF has no such numbers", "expected uint8 or float32")
    is_placed = grid.is_georeferenced or images.dialect != "picture" or output.suffix != ".tif"
    if not is_placed and isinstance(path, Path) and has_place(path):
        said.append("what lies beside it says where it lies, and is not read of this kind of picture; GeoTIFF keeps it")
    return [*lost_in(path, images, output, encoding(options)), *(f"{path}: {line}" for line in said)]


def add_drawings(
    job: Job, images: Images, bands: tuple[int, ...], classes: ClassTable, wanted: Sequence[Product],
    options: PredictOptions,
) -> list[Path]:  # fmt: skip
    """Draw what is drawn from the finished mask of `images`, of which the network saw these bands, and give all files
    that were written beside it."""
    files = {product.folder: path for product, path in zip(wanted, places(job, wanted, options), strict=True)}
    others = dict(zip(beside(options), job.beside, strict=True))
    confidence = files.get(CONFIDENCE)
    written = [files[PROBABILITIES]] if options.probabilities else []
    try:
        if options.overlay:
            overlay = others[Beside(OVERLAYS)]
            draw_overlay(images, bands, job.output, overlay, classes, options)
            written.append(overlay)
        if (options.objects or options.polygons) and confidence is not None:
            try:
                written += add_objects(job.output, confidence, others, classes, images, options)
            except MemoryError as error:
                raise InputError(job.source, "too many objects for the memory", "",
                                 "leave out --objects and --polygons") from error  # fmt: skip
    finally:
        if confidence is not None and not options.confidence:
            confidence.unlink()
            remove_aux(confidence)
    return [*written, confidence] if confidence is not None and options.confidence else written


def add_objects(
    mask: Path, confidence: Path, others: dict[Beside, Path], classes: ClassTable, images: Images,
    options: PredictOptions,
) -> list[Path]:  # fmt: skip
    """Numbers, a table and polygons of a finished mask's objects, as they are asked for: the files written."""
    names = {entry.index: entry.name for entry in classes.entries if not entry.is_background}
    written: list[Path] = []
    with closing(open_images(mask, "mask")) as masks, closing(open_images(confidence, "mask")) as sure:
        pairs = zip(masks.planes, sure.planes, strict=True)
        objects = [find_objects(*pair, names, options.min_pixels) for pair in pairs]
        if options.objects:
            numbers, table, counts = (others[Beside(OBJECTS, ending)] for ending in (".tif", ".csv", COUNTS))
            write_objects(masks.planes, objects, numbers, table, counts, images, encoding(options))
            written += [numbers, table, counts]
        if options.polygons is not None:
            polygons = others[Beside(POLYGONS, f".{options.polygons}")]
            settings = Shapes(options.polygons, options.min_area, options.simplify)
            write_polygons(masks.planes, objects, polygons, images, settings)
            written.append(polygons)
    return written


def draw_overlay(
    images: Images, bands: tuple[int, ...], mask: Path, output: Path, classes: ClassTable, options: PredictOptions
) -> None:
    """The images, three of these bands or one, with the classes of their finished mask in colour over them, as 8-bit
    RGB on the same grid."""
    style = Style(over_picture(classes), options.alpha)
    shown = bands[: 3 if len(bands) >= 3 and len(set(bands)) > 1 else 1]  # a grey one may be repeated
    limits = stretch_together(images.planes, shown)
    with (
        closing(open_images(mask, "mask")) as masks,
        create_for(images, output, OVER, encoding(options)) as sinks,
    ):
        for source, labels, sink, ends in zip(images.planes, masks.planes, sinks, limits, strict=True):
            height = strip_height(source)
            indices = ((row, pixels[0]) for row, pixels in labels.rows(height))
            for first_row, picture in painted(indices, style, pictured(source, shown, height, ends)):
                sink.write(first_row, picture)
