"""Weights on disk: safetensors, with everything that prediction must know as one JSON text in the metadata.

The text stands under the key `segcli` and has a `format` number. A checkpoint is data, never code: nothing is
unpickled, and the sizes that it claims are checked against the tensors in the file before a network is built. Its
values are looked at, too: NaN would go through a network without a word.
"""

import glob
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

import segcli
from segcli.band_names import plain, stand_elsewhere
from segcli.classes import ClassTable
from segcli.errors import NothingDoneError, UsageError
from segcli.files import matching, replacing
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import Axes, Band, Percentiles, bands_text

FORMAT, FORMAT_WITH_PERCENTILES = 1, 2
"""Who does not know of percentiles would take values as they are, without a word: hence a number of their own."""

KEY, KEY_OF_STATE = "segcli", "segcli-training"
"""Of weights, and of a training that was stopped (training/state.py)."""


@dataclass(frozen=True)
class Model:
    """A network and what its inputs and outputs mean."""

    network: UNet
    normalisation: Normalisation
    classes: ClassTable
    training: dict[str, Any] = field(default_factory=dict)
    learnt: tuple[Band, ...] | None = None  # which bands of its files a training chose; None: all
    upright: bool = False  # it learnt from images that have an up: turned ones would be new to it
    called: tuple[str, ...] = ()  # the names of its bands in all files of a training, where these give them
    axes: Axes | None = None  # of the pages of its files, where a training was told them
    mpp: float | None = None  # micrometres a pixel of the level that a training asked for

    @property
    def bands(self) -> int:
        return self.network.config.bands


def save(model: Model, path: Path, half: bool = False) -> None:
    """Write `model`; with `half`, convolution weights as float16 (norm layers stay float32: their range needs it)."""
    norms = {name for name, module in model.network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    tensors = {}
    for name, tensor in model.network.state_dict().items():
        keep = not half or not tensor.is_floating_point() or name.rpartition(".")[0] in norms
        tensors[name] = tensor.detach().cpu().to(tensor.dtype if keep else torch.float16).contiguous()
    record = {
        "format": FORMAT_WITH_PERCENTILES if model.normalisation.percentiles else FORMAT,
        "segcli": segcli.__version__,
        "network": {"name": "unet", **asdict(model.network.config)},
        "normalisation": asdict(model.normalisation),
        **model.classes.to_json(),
        "pixel_size_m": None,  # nobody knows it, but earlier versions want the word
        "training": model.training,
        "bands": model.learnt,
        "upright": model.upright,
        "band_names": model.called,
        "axes": model.axes and str(model.axes),
        "mpp": model.mpp,
    }
    with replacing(path) as part:
        part.write_bytes(to_bytes(tensors, {KEY: json.dumps(record)}))


def load(path: Path) -> Model:
    """The model in `path`, in eval mode, float32, on the CPU. Raises NothingDoneError with what is wrong."""
    try:
        return _load(path)
    except OSError as error:
        best = f"give --weights {path / 'best.safetensors'}" if (path / "best.safetensors").is_file() else ""
        raise NothingDoneError(path, error.strerror or str(error) or "cannot be read", _EXPECTED, best) from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise NothingDoneError(path, found, _EXPECTED, "give --weights a file that segcli train wrote") from error


_EXPECTED = "expected weights in safetensors format with segcli's metadata"


def _load(path: Path) -> Model:
    with path.open("rb"):  # for the system's own words: safetensors has others for a folder or a missing file
        pass
    with safe_open(path, framework="pt") as file:
        text, state = map((file.metadata() or {}).get, (KEY, KEY_OF_STATE))
        if text is None and state is not None:
            raise NothingDoneError(path, "the state that train --resume goes on from", "expected weights",
                                   f"give --weights {path.with_name('best.safetensors')}")  # fmt: skip
        if text is None:
            raise ValueError(f"metadata has no key {KEY!r}")
        record = json.loads(text)
        if record["format"] not in (FORMAT, FORMAT_WITH_PERCENTILES):
            raise ValueError(f"checkpoint format {record['format']}, this segcli reads formats {FORMAT} to "
                             f"{FORMAT_WITH_PERCENTILES}")  # fmt: skip
        settings = dict(record["network"])
        if settings.pop("name") != "unet":
            raise ValueError(f"network {record['network']['name']!r:.40} is not known")
        config = NetworkConfig(**settings)
        with torch.device("meta"):  # no memory is taken until the shapes are known to be right
            network = UNet(config)
        empty = network.state_dict()
        expected = {name: tuple(tensor.shape) for name, tensor in empty.items()}
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise ValueError(f"tensor {name:.60} has shape {found.get(name)}, the network {expected.get(name)}")
        tensors = {name: _sound(name, file.get_tensor(name), like.dtype) for name, like in empty.items()}
    network.load_state_dict(tensors, strict=True, assign=True)
    network.requires_grad_(False).eval()
    constants = record["normalisation"]
    shares = Percentiles(**constants["percentiles"]) if record["format"] == FORMAT_WITH_PERCENTILES else None
    normalisation = Normalisation(constants["dtype"], tuple(constants["mean"]), tuple(constants["deviation"]), shares)
    classes = ClassTable.from_json(record)
    if len(normalisation.mean) != config.bands or len(classes.entries) != config.classes:
        raise ValueError(
            f"{config.bands} bands with {len(normalisation.mean)} constants, "
            f"{config.classes} classes with {len(classes.entries)} names"
        )
    learnt = record.get("bands")  # earlier versions had none
    if learnt is not None and not (isinstance(learnt, list) and learnt and all(map(_is_band, learnt))):
        raise ValueError(f"bands {learnt!r:.60}")
    if learnt is not None and not _fits(len(learnt), config.bands):
        raise ValueError(f"{config.bands} bands, of which it names {len(learnt)}")
    training = record["training"]
    upright = record["upright"] if "upright" in record else _was_upright(training)
    if not isinstance(upright, bool):
        raise ValueError(f"upright {upright!r:.60}, which is true or false")
    called = record.get("band_names", [])
    if not (isinstance(called, list) and all(map(_is_name, called))):
        raise ValueError(f"names of bands {called!r:.60}")
    if called and not _fits(len(called), config.bands):
        raise ValueError(f"{config.bands} bands, with names for {len(called)}")
    axes, mpp = record.get("axes"), record.get("mpp")
    if not (mpp is None or (type(mpp) in (int, float) and 0 < mpp < math.inf)):
        raise ValueError(f"mpp {mpp!r:.60}, which is a number of micrometres")
    return Model(network, normalisation, classes, training, learnt and tuple(learnt), upright, tuple(called),
                 None if axes is None else Axes.parse(axes, for_nameless=True), mpp)  # fmt: skip


def _fits(count: int, bands: int) -> bool:
    """Whether so many bands of a file are those of a network: for one of three a single one is repeated."""
    return count == bands or (count, bands) == (1, 3)


def _is_band(value: Any) -> bool:
    return (type(value) is int and value > 0) or _is_name(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _was_upright(training: Any) -> bool:
    """What earlier versions noted among the options of a training alone."""
    options = training.get("options") if isinstance(training, dict) else None
    return isinstance(options, dict) and options.get("upright") is True


def _sound(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor, of a network that has it in `dtype`, floats in full precision. ValueError on values with which every
    score would be NaN, so that all pixels were of the first class."""
    if not (tensor.is_floating_point() if dtype.is_floating_point else tensor.dtype == dtype):
        raise ValueError(f"tensor {name:.60} is of {tensor.dtype}, the network's of {dtype}")
    tensor = tensor.to(dtype)
    if not tensor.isfinite().all():
        raise ValueError(f"tensor {name:.60} has values that are not finite")
    if name.endswith(".running_var") and (tensor < 0).any():
        raise ValueError(f"tensor {name:.60} has variances below 0")
    return tensor


PAGES = "pages of its files"


def load_all(paths: Sequence[Path], are_axes_given: bool = False) -> list[Model]:
    """The models in the files, whose scores may be averaged, whatever they know of pages where axes are given. Raises
    NothingDoneError where one is none or is of another kind, UsageError where one is named twice."""
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise UsageError("--weights", f"{path}, twice", "expected each file once")
    models = [load(path) for path in paths]
    for path, model in zip(paths[1:], models[1:], strict=True):
        for (what, found), (_, expected) in zip(_must_agree(model), _must_agree(models[0]), strict=True):
            if found != expected and not (are_axes_given and what == PAGES):
                raise NothingDoneError(path, f"{what} {found}", f"expected {expected}, as {paths[0]} has",
                                       "scores can be averaged of weights for one task alone")  # fmt: skip
        if stand_elsewhere(model.called, models[0].called):
            raise NothingDoneError(path, f"bands {', '.join(model.called)}", f"expected {', '.join(models[0].called)}, "
                                   f"as {paths[0]} has, in this order")  # fmt: skip
        models[0] = replace(models[0], called=models[0].called or model.called)
    return models


def _must_agree(model: Model) -> list[tuple[str, object]]:
    """What is told from model to model, in the order in which it is looked at."""
    config, constants = model.network.config, model.normalisation
    every = tuple(range(1, config.bands + 1))
    learnt = every if model.learnt is None else model.learnt
    return [
        ("classes", ", ".join(f"{entry.index} {entry.name}" for entry in model.classes.entries)),
        ("ignore index", model.classes.ignore),
        ("bands", config.bands),
        ("bands of its files", "all" if learnt == every else plain(bands_text(learnt))),
        (PAGES, "as these say" if model.axes is None else str(model.axes)),
        ("images between", "no percentiles" if constants.percentiles is None else str(constants.percentiles)),
        ("values of", constants.dtype if constants.percentiles is None else "any type"),
        ("depth", config.depth),
        ("padding", config.padding),
    ]


def find(name: str | None) -> Path:
    """The file behind `--weights`: a path, or the name of weights that come with segcli (nuclei when left out)."""
    name = name or "nuclei"
    if name in (known := bundled()):
        return known[name]
    path = Path(name)
    if not path.exists():
        raise NothingDoneError(
            path, "no such file, and no bundled weights of that name", f"bundled are {', '.join(known) or 'none'}"
        )
    return path


def find_all(names: Sequence[str]) -> list[Path]:
    """The files behind each `--weights`, which may be a pattern, too."""
    found: list[Path] = []
    for name in names:
        is_pattern = glob.has_magic(name) and not Path(name).exists()
        found += matching(name, "expected weights that segcli train wrote") if is_pattern else [find(name)]
    return found or [find(None)]


def bundled() -> dict[str, Path]:
    """Weights that come with segcli, by name: inside the installed package, or beside it in a checkout."""
    package = Path(segcli.__file__).parent
    for folder in (package / "weights", package.parent / "weights"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    return {}
