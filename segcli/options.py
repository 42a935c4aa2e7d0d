"""What each verb can be told: one frozen dataclass a verb, and the only place where defaults are written."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segcli.shard import Shard

Stitch = Literal["auto", "stream", "windows"]
Weighting = Literal["gaussian", "hann"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
TrainPrecision = Literal["auto", "fp32", "bf16"]
Format = Literal["auto", "tif", "cog", "png"]
Compression = Literal["deflate", "zstd", "lzw", "packbits", "none"]
Quantity = Literal["uint8", "float16", "float32"]
PolygonFormat = Literal["gpkg", "geojson", "fgb"]
BoundaryUnit = Literal["pixels", "metres"]
Absent = Literal["skip", "one", "zero"]
Unpredicted = Literal["skip", "wrong"]
ObjectKind = Literal["components", "labels", "against-labels"]
Edge = Literal["shift", "pad", "keep", "drop"]
TileFormat = Literal["auto", "tif", "png"]
Merge = Literal["auto", "cut", "average"]
Norm = Literal["batch", "none"]
Padding = Literal["same", "valid"]
Up = Literal["transpose", "nearest", "bilinear", "unpool", "bed-of-nails"]
Skip = Literal["concat", "add", "none"]
EncoderName = Literal[
    "plain", "resnet18", "resnet34", "resnet50", "efficientnet_b0", "mobilenet_v3_large", "convnext_tiny"
]
Augment = Literal["none", "light", "geometric", "full"]
Legend = Literal["none", "picture", "file"]
OnError = Literal["skip", "stop"]
LossKind = Literal["ce", "dice", "ce+dice", "focal", "lovasz", "ce+lovasz"]


Band = int | str
"""Of a file: its number, from 1, or the name that the file gives it."""


def has_names(bands: Iterable[Band] | None) -> bool:
    """Whether some of them are named, not numbered."""
    return any(isinstance(band, str) for band in bands or ())


def bands_text(bands: Iterable[Band]) -> str:
    """As --bands takes them: numbers, and names, in quotes where they would be taken for something else."""
    return ",".join(str(band) if isinstance(band, int) or is_plain(band) else _quoted(band) for band in bands)


def is_plain(name: str) -> bool:
    """Whether a band's name needs no quotes: it has a letter, so that it is no number, and nothing that parts names."""
    return not set(name) & set(',"') and any(letter.isalpha() for letter in name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Percentiles:
    """Two values of each image, by the share of its values that are lower, in percent: of all its bands together, or of
    each by itself. ValueError unless they lie between 0 and 100, the lower one first."""

    low: float
    high: float
    per_band: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.low < self.high <= 100 and isinstance(self.per_band, bool)):
            raise ValueError(f"percentiles {self.low:g} and {self.high:g}")

    def __str__(self) -> str:
        return f"{self.low:g}%,{self.high:g}%" + ",per-band" * self.per_band


@dataclass(frozen=True)
class Axes:
    """How the pages of stacks lie, the axis that runs slowest first: T, Z and C, the bands, each once, with its length
    where that is said. `for_nameless`: only of stacks that do not say it themselves. ValueError for other text."""

    letters: str
    lengths: tuple[int | None, ...]
    for_nameless: bool = False

    @classmethod
    def parse(cls, text: str, for_nameless: bool = False) -> "Axes":
        """From letters with numbers behind some, such as ZC3; rows and columns, YX, may stand at the end."""
        text = re.sub("YX$", "", text.strip().upper())
        found = re.findall(r"([TZC])([1-9][0-9]{0,5})?", text)
        letters = "".join(letter for letter, _ in found)
        if not found or "".join(map("".join, found)) != text or len({*letters}) < len(letters):
            raise ValueError(f"axes {text!r:.40}")
        return cls(letters, tuple(int(number) if number else None for _, number in found), for_nameless)

    def of_others(self, bands: int) -> "Axes | None":
        """Those of other files of the kind, as weights keep them: which pages are bands, and how many of these a file
        has, where others are none."""
        if "C" not in self.letters:
            return None
        kept = tuple(bands if letter == "C" and len(self.letters) > 1 else None for letter in self.letters)
        return Axes(self.letters, kept, for_nameless=True)

    def __str__(self) -> str:
        return "".join(f"{letter}{n or ''}" for letter, n in zip(self.letters, self.lengths, strict=True))


@dataclass(frozen=True)
class PredictOptions:
    inputs: tuple[Path | str, ...]  # text for what GDAL opens and is no file of this machine
    out: Path
    weights: tuple[str, ...] = ()  # files, patterns or names of bundled ones; none: nuclei
    bands: tuple[Band, ...] | None = None
    axes: Axes | None = None
    level: int | None = None
    mpp: float | None = None  # micrometres a pixel
    format: Format = "auto"
    compress: Compression = "deflate"
    probabilities: bool = False
    confidence: bool = False
    quantity: Quantity = "uint8"
    objects: bool = False
    polygons: PolygonFormat | None = None
    min_pixels: int = 0
    min_area: float = 0.0
    simplify: float = 0.0
    overlay: bool = False
    alpha: float = 0.5
    input_range: tuple[float, float] | Percentiles | None = None
    stitch: Stitch = "auto"
    window: int = 512
    overlap: float = 0.25
    weighting: Weighting = "gaussian"
    tta: bool = False
    recursive: bool = False
    overwrite: bool = False
    device: str = "auto"
    precision: Precision = "auto"
    memory_bytes: int | None = None
    jobs: int | None = None
    shard: Shard | None = None
    dry_run: bool = False
    verify: bool = False
    on_error: OnError = "skip"
    debug: bool = False


@dataclass(frozen=True)
class EvalOptions:
    predicted: Path
    truth: Path | None = None  # None where `predicted` is a table of pairs
    out: Path | None = None
    classes: Path | None = None
    absent: Absent = "skip"
    unpredicted: Unpredicted = "skip"
    align: bool = False
    boundary: tuple[float, BoundaryUnit] | None = None
    distances: BoundaryUnit | None = None
    objects: ObjectKind | None = None
    scores: Path | None = None
    images: Path | None = None
    axes: Axes | None = None  # of these
    group_by: str | None = None
    compare: Path | None = None
    min_miou: float | None = None
    min_iou: tuple[tuple[str, float], ...] = ()
    jobs: int | None = None
    recursive: bool = False
    debug: bool = False

    @property
    def is_numbered(self) -> bool:
        """Whether true masks hold a number for each object."""
        return self.objects in ("labels", "against-labels")


@dataclass(frozen=True)
class ColorizeOptions:
    inputs: tuple[Path | str, ...]
    out: Path
    palette: str | None = None  # a name or a file
    classes: tuple[str, ...] | None = None  # values or names
    palette_only: bool = False
    over: Path | None = None
    bands: tuple[Band, ...] | None = None
    axes: Axes | None = None
    alpha: float = 0.5
    contours: int = 0  # pixels
    legend: Legend = "none"
    scale_bar: bool = False
    compare: Path | None = None
    to_index: bool = False
    tolerance: float = 0.0  # in RGB
    jobs: int | None = None
    format: Format = "auto"
    compress: Compression = "deflate"
    recursive: bool = False
    overwrite: bool = False
    shard: Shard | None = None
    dry_run: bool = False
    verify: bool = False
    on_error: OnError = "skip"
    debug: bool = False


@dataclass(frozen=True)
class TrainOptions:
    data: Path
    out: Path | None = None
    classes: Path | None = None
    val: float = 0.2
    split_seed: int = 0
    fold: tuple[int, int] | None = None  # which, from 1, of how many
    group_by: str | None = None
    check: bool = False
    epochs: int = 50
    minutes: float | None = None
    patience: int | None = None
    weights: Path | None = None  # or the name of bundled ones
    bands: tuple[Band, ...] | None = None
    axes: Axes | None = None  # None: as the weights that it begins with
    level: int | None = None
    mpp: float | None = None  # micrometres a pixel
    input_range: Percentiles | Literal["none"] | None = None  # None: as the weights that it begins with
    width: int = 32
    depth: int = 4
    norm: Norm = "batch"
    dropout: float = 0.0
    padding: Padding = "same"
    up: Up = "nearest"
    skip: Skip = "concat"
    encoder: EncoderName = "plain"
    pretrained: bool = True
    encoder_weights: Path | None = None  # of torchvision's model
    freeze: int = 0
    freeze_norms: bool = False
    crop: int = 256
    batch: int = 8
    augment: Augment = "light"
    upright: bool = False
    keep_values: bool = False  # of pixels, which measure something
    balance: bool = False
    loss: LossKind = "ce+dice"
    class_weights: Literal["none", "auto"] | tuple[float, ...] = "none"
    border_weight: float = 0.0
    border_gap: int = 2
    label_smoothing: float = 0.0
    ignore: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    precision: TrainPrecision = "auto"
    compile: bool = False
    half: bool = False
    workers: int | None = None
    resume: bool = False
    resume_if_any: bool = False  # begin anew where there is nothing to go on with
    overwrite: bool = False
    device: str = "auto"

    @property
    def percentiles(self) -> Percentiles | None:
        """What each image is brought to."""
        return None if self.input_range == "none" else self.input_range


@dataclass(frozen=True)
class TileOptions:
    inputs: tuple[Path | str, ...]  # with `join`, folders of tiles
    out: Path | None = None
    size: int = 512
    overlap: float = 0.0  # pixels; below 1, a share of a tile
    edge: Edge = "shift"
    format: TileFormat = "auto"
    compress: Compression = "deflate"
    masks: Path | None = None
    attribute: str | None = None
    classes: Path | None = None
    min_valid: float = 0.0
    min_label: float = 0.0
    split: tuple[float, ...] | None = None
    sample: int | None = None
    seed: int = 0
    shard: Shard | None = None
    dry_run: bool = False
    verify: bool = False
    join: bool = False
    manifest: Path | None = None
    merge: Merge = "auto"
    allow_missing: bool = False
    jobs: int | None = None
    recursive: bool = False
    overwrite: bool = False
    on_error: OnError = "skip"
    debug: bool = False

    @property
    def overlap_pixels(self) -> int:
        """Of a share, too; of what is no number of pixels one more than there are."""
        if not math.isfinite(self.overlap):
            return self.size
        return round(self.overlap * self.size) if self.overlap < 1 else int(self.overlap)
