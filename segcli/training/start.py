"""Training that goes on from weights of an earlier one: what of them is taken, and what is new."""

import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from segcli.band_names import in_another_order, plain
from segcli.classes import ClassTable
from segcli.errors import InputError, UsageError
from segcli.network.checkpoint import Model
from segcli.network.encoders import imagenet_weights
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import Band, Percentiles, TrainOptions, bands_text, has_names
from segcli.raster.bands import known_bands, match_bands
from segcli.raster.fit import Range
from segcli.raster.source import Source
from segcli.training.constants import normalisation
from segcli.training.files import Files
from segcli.training.pairs import Pair
from segcli.training.survey import Survey

OF_NETWORK = ("width", "depth", "norm", "padding", "up", "skip", "encoder")
"""Options that weights have decided already."""


def of_the_same_network(options: TrainOptions, config: NetworkConfig, given: frozenset[str]) -> TrainOptions:
    """The options with those of the weights' network. UsageError where another network is asked for: by a value that
    is not the default, or by one that is and was `given`."""
    for name in OF_NETWORK:
        asked, there = getattr(options, name), getattr(config, name)
        if asked != there and (name in given or asked != getattr(TrainOptions, name)):
            raise UsageError(f"--{name}", f"{asked}, and {options.weights} has {there}",
                             "with --weights the network is theirs", f"leave --{name} out")  # fmt: skip
    return replace(options, pretrained=False, **{name: getattr(config, name) for name in OF_NETWORK})


def encoder_weights(options: TrainOptions) -> Path | None:
    """The file that the encoder begins with, which may have to be fetched; None where all begins anew, or goes on."""
    if options.resume or options.encoder == "plain" or options.encoder_weights is not None:
        return None if options.resume else options.encoder_weights
    return imagenet_weights(options.encoder) if options.pretrained else None


def seen_as(found: Survey, model: Model, chosen: tuple[Band, ...] | None, files: Files | None = None) -> Survey:
    """The data set, of which these bands were `chosen` if any, with those that the weights know: grey repeated, alpha
    left out. UsageError where none fit."""
    files = files or Files()
    is_known = model.learnt is None or chosen is not None  # what bands of as many as the network's are
    asked = [pair for pair in found.splits.all if not (is_known and found.facts[pair].bands == model.bands)]
    unfit = [error for pair in asked if (error := _fault(files.image(pair), model, chosen)) is not None]
    if unfit:
        more = f"{len(unfit) - 1} more do not fit" if len(unfit) > 1 else ""
        raise UsageError(unfit[0].subject, unfit[0].reason, more, "without --weights all begins anew")
    if chosen is None and in_another_order(found.called, model.called):
        raise UsageError(found.splits.train[0].image, f"bands {', '.join(found.called)}",
                         f"the weights learnt from {', '.join(model.called)}, in this order",
                         f"give --bands {shlex.quote(bands_text(model.called))}")  # fmt: skip
    names = model.learnt if chosen is None and has_names(model.learnt) else None
    # In this order, or they were unfit.
    if names is not None and all(_has(files.image(pair), names) for pair in found.splits.all):
        return replace(found, bands=model.bands, chosen=names)
    return replace(found, bands=model.bands)


def renamed(found: Survey, model: Model, chosen: tuple[Band, ...] | None) -> str | None:
    """What is taken for granted where nobody chose, and the data set's bands have other names than the weights'; for
    people."""
    one, other = (set(map(plain, names)) for names in (found.called, model.called))
    if chosen is not None or not one or not other or one == other:
        return None
    return f"bands {', '.join(found.called)} are taken for {', '.join(model.called)}, which the weights learnt from"


def _has(opened: AbstractContextManager[Source], bands: tuple[Band, ...]) -> bool:
    with opened as image:
        return known_bands(image, bands) == bands


def _fault(opened: AbstractContextManager[Source], model: Model, chosen: tuple[Band, ...] | None) -> InputError | None:
    """What is wrong with its bands, if anything."""
    with opened as image:
        try:
            match_bands(image, model.bands, chosen, model.learnt, by_name=False)
        except InputError as error:
            return error
    return None


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The layers that keep running means and variances."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def constants(
    found: Survey, model: Model | None, wanted: Percentiles | None, ends: Mapping[Pair, Range]
) -> Normalisation:
    """Those of the weights, so that they see what they know; of other data types, of other percentiles, or without
    weights, the data's."""
    known = None if model is None else model.normalisation
    if known is not None and known.percentiles == wanted and known.needed_dtype in (None, found.dtype):
        return known
    return normalisation(found, wanted, ends)


def take_over(network: UNet, model: Model, classes: ClassTable) -> str:
    """Copy the weights into `network`, whose last layer stays as it is where classes differ; say what was taken."""
    tensors = model.network.state_dict()
    same = model.classes.names == classes.names
    if not same:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    network.load_state_dict(tensors, strict=same)
    config = asdict(model.network.config)
    form = ", ".join(f"{name} {config[name]}" for name in ("encoder", "width", "depth"))
    new = "" if same else f"; the last layer is new, because the classes were {', '.join(model.classes.names)}"
    return f"begins with them, of {form}{new}"
