"""segcli train: from images and masks to weights."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

import segcli
from segcli.console import Console
from segcli.errors import NothingDoneError
from segcli.files import held
from segcli.network import checkpoint
from segcli.network.device import (
    advice_on_precision,
    choose_device,
    cpu_has_bfloat16,
    keep_all_bits_of_float32,
    keep_freed_memory,
    out_of_memory_named,
)
from segcli.network.unet import NetworkConfig, UNet
from segcli.options import TrainOptions
from segcli.raster.faults import faults_of_writing
from segcli.training.checks import check_classes, check_counts, check_folder, check_options, check_pairs, depth_of
from segcli.training.constants import ranges
from segcli.training.files import Files
from segcli.training.findings import as_record, tables, warnings
from segcli.training.folder import BEST, HISTORY, LAST, OPTIONS, VALIDATION, begin, leave_no_other
from segcli.training.history import Picture, row_of, write_history
from segcli.training.interrupts import noticed
from segcli.training.labels import Labels, find_classes, without
from segcli.training.loop import Training, train_epoch
from segcli.training.losses import Loss, class_weights
from segcli.training.pairs import INSTANCES, find_pairs, left_out
from segcli.training.processes import Processes, started
from segcli.training.report import write_validation
from segcli.training.sampling import Crops, Reading, crop_side
from segcli.training.start import constants, encoder_weights, of_the_same_network, renamed, seen_as, take_over
from segcli.training.state import Averaged, Progress, load_state, save_state
from segcli.training.survey import Survey, digest, survey
from segcli.training.validation import Validation

FREE = {"data", "out", "epochs", "minutes", "patience", "check", "resume", "resume_if_any", "overwrite", "device",
        "workers", "compile", "half"}  # fmt: skip
"""Options that may change when a training is resumed; of data what is in them may not."""

LESS = "lower --batch or --crop, or take a smaller network (--width, --depth)"
"""What to do where the memory is too small for a step."""


def run(options: TrainOptions, console: Console, given: frozenset[str] = frozenset()) -> int:
    """Train, keep the best weights by validation mIoU in OUT/best.safetensors, and return the exit code.

    `given` are the options that the user said: with weights, a width of 32 that was asked for is no default.
    """
    data = options.data.resolve()
    out = options.out or Path("runs") / (data.stem if data.is_file() else data.name)  # a folder's dot is no ending
    if options.resume_if_any:
        options = replace(options, resume=options.resume or (out / LAST).exists())
    start = None if options.weights is None else checkpoint.load(checkpoint.find(str(options.weights)))
    if start is not None:
        options = of_the_same_network(options, start.network.config, given)
        options = replace(options, input_range=options.input_range or start.normalisation.percentiles,
                          axes=options.axes or start.axes)  # fmt: skip
    check_options(options, start)
    check_folder(options, out)
    keep_freed_memory()
    keep_all_bits_of_float32()
    with started(choose_device(options.device)) as (processes, device):
        if not processes.is_first:
            console = Console(quiet=True)
        if options.resume_if_any and not options.resume:
            console.say(f"{out}: no training to go on with; it begins anew")
        splits = find_pairs(options.data, options.val, options.split_seed, options.group_by, options.fold)
        check_pairs(options, splits, out)
        labels = without(find_classes(options.data, options.classes, splits.all), options.ignore)
        files = Files(options.axes, options.level, options.mpp)
        found = survey(splits, labels, console.fail, options.bands, options.percentiles is not None, files)
        for table in tables(found, labels.classes.names):
            console.table(*table, is_result=options.check)
        odd = [*left_out(options.data), *warnings(found, labels.classes.names)]
        for line in odd:
            console.say(line)
        numbered, count = sum(pair.instances is not None for pair in found.splits.train), len(found.splits.train)
        if options.border_weight and numbered < count:
            console.say(f"{INSTANCES}/ has {numbered} of {count} training images; the others have no borders to weigh")
        check_classes(options, labels.classes)
        check_counts(options, count, processes.count)
        if start is not None:
            found = seen_as(found, start, options.bands, files)
            if names := renamed(found, start, options.bands):
                console.say(names)
        if options.check:
            console.record(as_record(found, labels.classes.names) | {"warnings": odd})
            return 0
        with _own(out) if processes.is_first else nullcontext(), out_of_memory_named(device, LESS):
            if processes.is_first:
                check_folder(options, out)  # again: another run may have come to its end since
            return _train(options, out, found, labels, files, start, console, processes, device)


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """The folder, made if need be, for this run alone. BusyError where another one trains into it."""
    with _faults_of_folder(out):
        out.mkdir(parents=True, exist_ok=True)
    with held(out):
        yield


@contextmanager
def _faults_of_folder(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NothingDoneError(
            out, error.strerror or str(error), "expected a folder for weights and history"
        ) from error


def _train(
    options: TrainOptions, out: Path, found: Survey, labels: Labels, files: Files, start: checkpoint.Model | None,
    console: Console, processes: Processes, device: torch.device,
) -> int:  # fmt: skip
    classes, splits = labels.classes, found.splits
    wanted = options.percentiles
    ends = {} if wanted is None else ranges(found, wanted, files)
    normalisation = constants(found, start, wanted, ends)
    torch.manual_seed(options.seed)
    config = NetworkConfig(
        found.bands, len(classes.entries), options.width, depth_of(options), options.norm, options.dropout, options.up,
        options.skip, options.encoder, options.padding,
    )  # fmt: skip
    network = UNet(config, encoder_weights(options))
    if start is not None and not options.resume:
        console.say(f"{options.weights}: {take_over(network, start, classes)}")
    shown = copy.deepcopy(network).eval().requires_grad_(False)  # bears the averaged weights, and norms of one process
    shown = shown.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    reading = Reading(labels, normalisation, found.chosen, ends, files=files)
    weights = _weights_by_class(options, found)
    training = _prepared(network, options, found, reading, weights, processes, device)
    validation = Validation(training.crops.reading, found.facts, device, training.half, cache(console.say))
    same = {key: value for key, value in _plain(options).items() if key not in FREE}
    record = {**same, "data": digest(found), "classes": classes.to_json(), "processes": processes.count,
              "normalisation": asdict(normalisation)}  # fmt: skip
    record["normalisation"].pop("percentiles")  # an option says them
    record = json.loads(json.dumps(record))  # lists, not tuples, as they come back from the file
    progress = Progress()
    if options.resume:
        progress = load_state(out / LAST, training.network, training.averaged, training.optimiser, record)
        console.say(f"going on with epoch {progress.epoch + 1}, step {progress.step + 1}")
    by_name = None if weights is None else dict(zip(classes.names, weights, strict=True))
    if by_name is not None and options.class_weights == "auto":
        console.say(f"weights of classes: {', '.join(f'{name} {weight:.3g}' for name, weight in by_name.items())}")
    noted = {"segcli": segcli.__version__, **vars(options), "weights_by_class": by_name}
    if processes.is_first:
        with _faults_of_folder(out):
            begin(out, noted, options.resume)
            if progress.history:  # a kill may have come between the state and its last row
                write_history(progress.history, classes.names, out)
    of_files = max(fact.bands for fact in found.facts.values())
    axes = options.axes and options.axes.of_others(of_files)
    model = checkpoint.Model(shown, normalisation, classes, {
        "options": _plain(options), "data": record["data"], "segcli": segcli.__version__},
        found.chosen, options.upright, found.called, axes, options.mpp)  # fmt: skip
    bands = f"{found.bands} band{'s' * (found.bands != 1)}"
    console.say(f"{len(splits.train)} training and {len(splits.val)} validation images, {bands}, "
                f"classes {', '.join(classes.names)}, on {device}")  # fmt: skip
    if advice := advice_on_precision(device, options.precision):
        console.say(advice)
    if options.precision == "auto" and device.type == "cpu" and cpu_has_bfloat16():
        console.say("this processor computes in bfloat16, too: --precision bf16 takes about half the time")

    kept = Kept(out, model, record, noted, console, Picture(out))
    with _drawn(kept, progress) if processes.is_first else nullcontext():
        code = _epochs(training, validation, progress, kept)
    if code:
        return code
    if processes.is_first:
        best = checkpoint.load(out / BEST).network.to(device)
        write_validation(out / VALIDATION, validation.of(best), splits.val, classes)
        console.result(out / BEST)
        console.record({"best": str(out / BEST), "epoch": progress.best_epoch, "mean_iou": progress.best})
    page = out / VALIDATION / "report.html"
    console.say(f"best mIoU {progress.best:.4f} in epoch {progress.best_epoch}; see {page}")
    return 0


@dataclass(frozen=True)
class Kept:
    """What a run leaves behind: weights with their `model`'s meaning, the state to resume from with its `record`, and
    the options that are `noted`."""

    out: Path
    model: checkpoint.Model
    record: dict[str, Any]
    noted: dict[str, Any]
    console: Console
    picture: Picture

    def state(self, training: Training, progress: Progress) -> None:
        """All that --resume needs."""
        path = self.out / LAST
        with faults_of_writing(path):
            save_state(path, training.network, training.averaged, training.optimiser, progress, self.record)
        if progress.epoch == 0:
            with faults_of_writing(self.out / OPTIONS):
                leave_no_other(self.out, self.noted, with_weights=True)

    def best(self, row: dict[str, Any], half: bool) -> None:
        """The averaged weights of an epoch better than those before."""
        figures = {key: row[key] for key in ("epoch", "mean_iou", "iou")}
        training = {**self.model.training, "validation": figures, "seconds": round(row["seconds"])}
        with faults_of_writing(self.out / BEST):
            checkpoint.save(replace(self.model, training=training), self.out / BEST, half)
        if row["epoch"] == 1:
            with faults_of_writing(self.out / OPTIONS):
                leave_no_other(self.out, self.noted, with_weights=False)


@contextmanager
def _drawn(kept: Kept, progress: Progress) -> Iterator[None]:
    """Draw the curves of what has been, and again on the way out, after a failure too, which is what is told then. Who
    interrupts twice does not wait for it."""
    draw = partial(kept.picture.draw, progress.history, at_once=True)
    draw()
    try:
        yield
    except Exception:
        with suppress(Exception):
            draw()
        raise
    draw()


def _epochs(training: Training, validation: Validation, progress: Progress, kept: Kept) -> int:
    """Train and validate until the end is reached (0), or until a signal comes (its exit code)."""
    options, processes, names = training.options, training.processes, kept.model.classes.names
    splits, shown = training.crops.found.splits, kept.model.network
    columns = ["epoch", "loss", "mIoU", *names, "rate", "crops/s", "best"]
    with noticed() as interrupt, kept.console.growing_table(columns) as add_row:
        while not _is_done(training, progress):
            seconds, seen = progress.seconds, progress.seen
            if not train_epoch(training, progress, lambda: bool(interrupt)):
                if processes.is_first:
                    kept.state(training, progress)
                kept.console.say(f"stopped in epoch {progress.epoch + 1}; --resume goes on from here")
                return interrupt.exit_code
            if processes.is_first and progress.epoch == 0 and not (kept.out / BEST).exists():
                kept.state(training, progress)  # before its first weights, with which alone nothing could go on
            speed = (progress.seen - seen) / max(progress.seconds - seconds, 1e-9)
            kept_beside = [name for name, _ in shown.named_buffers()]
            processes.as_in_first(training.averaged.tensors[name] for name in kept_beside)
            shown.load_state_dict(training.averaged.tensors)
            mine = splits.val[processes.rank :: processes.count]
            began = monotonic()
            matrix = processes.sum(validation.of(shown).matrix(mine))
            spent = progress.seconds + monotonic() - began  # --minutes means all of it
            progress.seconds = training.by_all_clocks(spent)
            row = row_of(training, progress, matrix, kept.model.classes, speed)
            is_best = progress.epoch == 0 or (row["mean_iou"] or 0) > progress.best
            progress.end_epoch(row, is_best)
            if processes.is_first:
                if is_best:
                    kept.best(row, options.half)
                kept.state(training, progress)
                with faults_of_writing(kept.out / HISTORY):
                    write_history(progress.history, names, kept.out)
                kept.picture.draw(progress.history)
            kept.console.record(row)
            if processes.any(bool(interrupt)) and not _is_done(training, progress):
                kept.console.say(f"stopped after epoch {progress.epoch}; --resume goes on from here")
                return interrupt.exit_code
            cells = [_short(value) for value in (row["loss"], row["mean_iou"], *row["iou"].values())]
            cells += [f"{row['learning_rate']:.2g}", f"{speed:.1f}", "*" * is_best]
            add_row([f"{progress.epoch}", *cells], _left(training, progress))
    return 0


def _weights_by_class(options: TrainOptions, found: Survey) -> tuple[float, ...] | None:
    """Those that were given, or those that follow from how often classes occur; None where all count the same."""
    if options.class_weights == "auto":
        return tuple(class_weights(np.stack([found.facts[pair].pixels for pair in found.splits.train])).tolist())
    return None if options.class_weights == "none" else options.class_weights


def _prepared(
    network: UNet,
    options: TrainOptions,
    found: Survey,
    reading: Reading,
    weights: tuple[float, ...] | None,
    processes: Processes,
    device: torch.device,
) -> Training:
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    learnt = [weights for weights in network.parameters() if weights.requires_grad]
    optimiser = torch.optim.AdamW(learnt, options.learning_rate, weight_decay=options.weight_decay, fused=True)
    crops = Crops(
        found, reading, crop_side(options.crop, found, network.config), options.seed, options.augment, options.upright,
        options.keep_values, options.balance, options.border_weight, options.border_gap, network.config.context,
    )  # fmt: skip
    by_class = None if weights is None else torch.tensor(weights, device=device)
    loss = Loss(options.loss, by_class, options.label_smoothing)
    averaged = Averaged(network, options.ema)
    forward = processes.together(network, device, options.freeze > 0)
    if options.compile:
        forward = torch.compile(forward)  # type: ignore[assignment]
    return Training(network, forward, averaged, optimiser, crops, loss, device, processes, options)


def _is_done(training: Training, progress: Progress) -> bool:
    options = training.options
    if progress.epoch == 0:  # without a validation there are no weights to keep, however long it took
        return False
    if options.patience is not None and progress.epoch - progress.best_epoch >= options.patience:
        return True
    if options.minutes is not None:
        return training.is_over(progress)
    return progress.epoch >= options.epochs


def _left(training: Training, progress: Progress) -> str:
    done = training.share_done(progress)
    return f"{progress.seconds * (1 - done) / max(done, 1e-9):.0f} s left"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _plain(options: TrainOptions) -> dict[str, Any]:
    """Options for the record: of paths the name alone, since weights travel and where they were made is private."""
    values = {key: value.name if isinstance(value, Path) else value for key, value in vars(options).items()}
    texts = {"input_range": str(options.input_range), "fold": "/".join(map(str, options.fold or ())),
             "axes": str(options.axes)}  # fmt: skip
    return values | {name: text for name, text in texts.items() if values[name] is not None}
