"""Options of a training against each other, against what lies in its folder, and against the data."""

import os
from pathlib import Path

from segcli.classes import ClassTable
from segcli.errors import UsageError
from segcli.network.checkpoint import Model
from segcli.network.encoders import STRIDES
from segcli.options import TrainOptions
from segcli.raster.levels import check_choice
from segcli.raster.zarrs import check_outside
from segcli.training.folder import BEST, LAST, OPTIONS, VALIDATION
from segcli.training.pairs import INSTANCES, Splits
from segcli.training.start import batch_norms


def check_options(options: TrainOptions, start: Model | None) -> None:
    """UsageError where options contradict each other, or one would have no part in the training.

    `start` is the model of --weights.
    """
    if options.fold is not None and options.val != TrainOptions.val:
        raise UsageError("--val", "with --fold, which says what share it is", "expected one of them")
    if options.encoder != "plain" and options.up == "unpool":
        raise UsageError("--up unpool", "needs the positions of the plain encoder", "expected --encoder plain")
    if options.encoder != "plain" and options.padding == "valid":
        raise UsageError("--padding valid", f"{options.encoder} pads its own convolutions", "expected --encoder plain")
    if options.encoder != "plain" and options.depth not in (TrainOptions.depth, STRIDES):
        raise UsageError("--depth", f"{options.encoder} halves {STRIDES} times", f"expected {STRIDES}",
                         "leave --depth out")  # fmt: skip
    if options.encoder_weights is not None:
        _check_encoder_weights(options, start)
    check_choice(options.level, options.mpp)
    if options.border_gap != TrainOptions.border_gap and not options.border_weight:
        raise UsageError("--border-gap", "goes with --border-weight", "expected both")
    is_known = start is not None or (options.encoder != "plain" and options.pretrained)
    if options.freeze and not is_known:
        raise UsageError("--freeze", "nothing is pretrained", "--freeze goes with --weights or a pretrained encoder")
    if options.freeze > options.epochs and options.minutes is None:
        raise UsageError("--freeze", f"{options.freeze} epochs of {options.epochs}", "the encoder would never learn",
                         "expected at most --epochs")  # fmt: skip
    if options.freeze_norms and start is None:
        raise UsageError("--freeze-norms", "no weights to take them from", "--freeze-norms goes with --weights")
    if options.freeze_norms and start is not None and not batch_norms(start.network):
        raise UsageError("--freeze-norms", f"{options.weights} has no batch norm", "there is nothing to freeze",
                         "leave --freeze-norms out")  # fmt: skip
    for name, given in (("--upright", options.upright), ("--keep-values", options.keep_values)):
        if given and options.augment == "none":
            raise UsageError(name, "with --augment none", "nothing is mirrored, turned or changed", "leave it out")
    if options.keep_values and options.augment == "full":
        raise UsageError("--keep-values", "with --augment full", "which changes colours, blurs and adds noise",
                         "expected --augment geometric or light")  # fmt: skip
    if (options.resume or options.resume_if_any) and options.overwrite:
        name = "--resume-if-any" if options.resume_if_any else "--resume"
        raise UsageError(name, "with --overwrite", "the one goes on, the other begins anew", "give one of them")
    depth = depth_of(options)
    if options.crop < 2 << depth:
        raise UsageError("--crop", f"{options.crop} pixels", f"depth {depth} needs {2 << depth} or more")
    no_pixels = options.loss in ("dice", "lovasz")
    no_smoothing = no_pixels or options.loss == "focal"
    for name, given, idle, losses in (
        ("--class-weights", options.class_weights != "none", no_pixels, "ce, ce+dice, ce+lovasz or focal"),
        ("--border-weight", options.border_weight > 0, no_pixels, "ce, ce+dice, ce+lovasz or focal"),
        ("--label-smoothing", options.label_smoothing > 0, no_smoothing, "ce, ce+dice or ce+lovasz"),
    ):
        if given and idle:
            raise UsageError(name, f"has no part in --loss {options.loss}", f"expected {losses}")


def _check_encoder_weights(options: TrainOptions, start: Model | None) -> None:
    """UsageError where a file of the encoder's weights would have no part in the training."""
    for text, is_so in (
        ("with --weights, which has the encoder's, too", start is not None),
        ("plain has none that others made", options.encoder == "plain"),
        ("with --no-pretrained", not options.pretrained),
    ):
        if is_so:
            raise UsageError("--encoder-weights", text, "it goes with an --encoder of torchvision's", "leave it out")


def check_folder(options: TrainOptions, out: Path) -> None:
    """UsageError where there is nothing to go on with, or where an earlier training would be overwritten."""
    check_outside(out)
    best, last = out / BEST, out / LAST
    if not options.check and out.resolve() == options.data.resolve():
        raise UsageError(out, "the data's own folder", "a training writes validation/ there, which would be data next "
                         "time", f"choose another --out, such as {out / 'run'}")  # fmt: skip
    is_trained, theirs = any((out / name).exists() for name in (BEST, LAST, OPTIONS)), out / VALIDATION
    if not (is_trained or options.check or _is_empty(theirs)):
        raise UsageError(theirs, "exists, without a training beside it", "a training writes its masks there and takes "
                         "away what lies there under their names", "choose another --out")  # fmt: skip
    if options.resume and not last.exists():
        raise UsageError(last, "no such file", "--resume goes on with a training that was begun there",
                         "--resume-if-any begins one where there is none")  # fmt: skip
    # One that was stopped in its first epoch has left the last weights alone.
    there = next((path for path in (best, last) if path.exists()), None)
    if there is not None and not (options.overwrite or options.resume or options.check):
        raise UsageError(
            there, "exists", "nothing is overwritten", "choose another --out, or give --resume or --overwrite"
        )


def _is_empty(folder: Path) -> bool:
    """Whether nothing is there but folders; links lead to somebody's."""
    found = (folder, *folder.rglob("*")) if os.path.lexists(folder) else ()
    return all(path.is_dir() and not path.is_symlink() for path in found)


def check_pairs(options: TrainOptions, splits: Splits, out: Path) -> None:
    """UsageError where a split is asked for that the data have already, borders without numbers of objects, or data
    that lie where the training writes."""
    own = (out / VALIDATION).resolve()
    files = (path for pair in splits.all for path in (pair.image, pair.mask, pair.instances) if path is not None)
    for folder in {path.parent for path in files}:
        place = folder.resolve()
        if options.data.is_dir() and place in own.parents and not (options.check or options.resume):
            raise UsageError(out, f"lies in {folder}, among the data", "a training writes pictures and masks, which "
                             "would be data next time", "choose another --out")  # fmt: skip
        if own in (place, *place.parents):
            raise UsageError(folder, f"lies in {out / VALIDATION}", "a training writes its masks there, in place of "
                             "others", "choose another --out")  # fmt: skip
    is_asked = {"--group-by": options.group_by is not None, "--val": options.val != TrainOptions.val,
                "--split-seed": options.split_seed != TrainOptions.split_seed,
                "--fold": options.fold is not None}  # fmt: skip
    for name in (name for name, is_given in is_asked.items() if is_given and splits.is_given):
        raise UsageError(name, f"{options.data} says itself what is for validation", "there is nothing to split",
                         f"leave {name} out")  # fmt: skip
    if options.border_weight and not any(pair.instances for pair in splits.train):
        raise UsageError("--border-weight", f"no {INSTANCES}/ beside the images", "expected numbers of objects")


def check_classes(options: TrainOptions, classes: ClassTable) -> None:
    """UsageError where options do not go with the classes of the data."""
    count = len(classes.entries)
    if isinstance(options.class_weights, tuple) and len(options.class_weights) != count:
        raise UsageError("--class-weights", f"{len(options.class_weights)} weights", f"expected {count}, one a class")
    if options.border_weight and options.border_gap and classes.background is None:
        raise UsageError("--border-weight", f"none of {', '.join(classes.names)} is background, to put between objects",
                         "expected a class of that name, or with index 0", "--border-gap 0 puts nothing")  # fmt: skip


def check_counts(options: TrainOptions, images: int, processes: int) -> None:
    """UsageError where there are fewer crops or images than processes."""
    if min(options.batch, images) < processes:
        raise UsageError("--batch", f"{options.batch} crops of {images} images",
                         f"expected at least one for each of {processes} processes")  # fmt: skip


def depth_of(options: TrainOptions) -> int:
    """How often the network halves the image."""
    return options.depth if options.encoder == "plain" else STRIDES
