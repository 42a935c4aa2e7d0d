"""The training loop: batches in, better weights out, a figure of the validation part after each epoch."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from time import monotonic

import numpy as np
import torch
from torch import Tensor, nn

from segcli.errors import NothingDoneError
from segcli.network.device import gpu_has_bfloat16, sent
from segcli.network.unet import UNet
from segcli.options import TrainOptions
from segcli.training.losses import Loss
from segcli.training.processes import Processes
from segcli.training.sampling import Crops
from segcli.training.start import batch_norms
from segcli.training.state import Averaged, Progress

WARM_UP = 0.05
"""Share of the training in which the learning rate rises to its full value."""

CHECKED = 20
"""Every so many steps the loss is looked at; each look makes a GPU wait."""


@dataclass(frozen=True)
class Training:
    """What a step needs. `forward` runs `network`, maybe compiled and together with other processes."""

    network: UNet
    forward: Callable[[Tensor, bool], Tensor]
    averaged: Averaged
    optimiser: torch.optim.Optimizer
    crops: Crops
    loss: Loss
    device: torch.device
    processes: Processes
    options: TrainOptions

    @property
    def half(self) -> bool:
        """Whether to compute in bfloat16: asked for, or automatic on a GPU that has it."""
        if self.options.precision == "auto":
            return gpu_has_bfloat16(self.device)
        return self.options.precision == "bf16"

    def share_done(self, progress: Progress) -> float:
        """How much of the training is behind, 0 to 1: by steps, or by time where that was set."""
        if self.options.minutes is not None:
            return min(1.0, progress.seconds / (60 * self.options.minutes))
        steps = self.crops.steps(self.options.batch)
        return (progress.epoch * steps + progress.step) / (self.options.epochs * steps)

    def by_all_clocks(self, seconds: float) -> float:
        """Where time sets the learning rate it must be the same in all processes, or their weights part."""
        return seconds if self.options.minutes is None else self.processes.mean(seconds)

    def learns_encoder(self, progress: Progress) -> bool:
        """Whether the first epochs, in which the encoder is left as it is, are behind."""
        return progress.epoch >= self.options.freeze

    def is_over(self, progress: Progress) -> bool:
        """Whether time is up; the same in all processes, as their seconds are."""
        return self.options.minutes is not None and progress.seconds >= 60 * self.options.minutes


def train_epoch(training: Training, progress: Progress, stopped: Callable[[], bool]) -> bool:
    """The rest of one epoch, from `progress.step` on; False where `stopped` said so before its end.

    Raises NothingDoneError where the loss, or at the end a weight, is no number any more.
    """
    options, device = training.options, training.device
    training.network.train()
    if not training.learns_encoder(progress):
        training.network.encoder.eval()  # its running means, too, stay what they are
    if options.freeze_norms:
        leave_norms(training.network)
    training.network.encoder.requires_grad_(training.learns_encoder(progress))
    part = training.processes.rank, training.processes.count
    workers = options.workers or torch.get_num_threads()
    batches = training.crops.batches(progress.epoch, options.batch, progress.step, part, workers)
    steps = training.crops.steps(options.batch)
    total = torch.tensor(progress.loss, dtype=torch.float64, device=device if device.type != "mps" else "cpu")
    began, before = monotonic(), progress.seconds
    is_stopped = False
    with closing(batches):
        for batch in batches:
            rate = learning_rate(training.share_done(progress), options.learning_rate)
            for group in training.optimiser.param_groups:
                group["lr"] = rate
            seed_step(options.seed, progress.epoch * steps + progress.step, training.processes.rank)
            loss = _step(training, batch.images, batch.targets, batch.weights)
            training.averaged.update(training.network, progress.epoch * steps + progress.step)
            count = training.crops.in_step(options.batch)
            total += loss.detach().to(total.device).double() * count
            progress.seen += count
            progress.step += 1
            progress.seconds = training.by_all_clocks(before + monotonic() - began)
            over = training.is_over(progress)
            is_stopped = training.processes.any(stopped()) and progress.step < steps
            is_end = is_stopped or over or progress.step == steps
            if is_end or progress.step % CHECKED == 0:
                _check(float(total), training, progress)
            if is_end:  # what is saved now replaces the last good weights
                _check_weights(training, progress)
            if is_stopped or over:
                break
    # Each has added the loss of all, but where a loss is of its own crops alone.
    progress.loss = float(training.processes.total(total)) / training.processes.count
    return not is_stopped


def seed_step(seed: int, step: int, rank: int) -> None:
    """Let what dropout draws in a step of a process follow from these alone: a training goes on as it would have."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))


def leave_norms(network: nn.Module) -> None:
    """Let batch norms work with the means and variances that they have, until `network.train()`; they still scale."""
    for module in batch_norms(network):
        module.eval()


def _step(training: Training, images: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    device, processes = training.device, training.processes
    # All before the network is at work: a copy would wait for it to come to an end.
    images = sent(images, device).contiguous(memory_format=torch.channels_last)
    targets, weights = sent(targets, device), None if weights is None else sent(weights, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=training.half):
        scores = training.forward(images, True)
    loss = training.loss(scores, targets, weights, processes.total)
    training.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if training.options.clip:
        nn.utils.clip_grad_norm_(training.network.parameters(), training.options.clip)
    training.optimiser.step()
    return loss


def _check(total: float, training: Training, progress: Progress) -> None:
    if not math.isfinite(total):
        raise _run_away(f"the loss is {total}", training, progress)


def _check_weights(training: Training, progress: Progress) -> None:
    """The loss is of the weights before a step, which may have made them NaN."""
    tensors = [*training.network.state_dict().values(), *training.averaged.tensors.values()]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise _run_away("weights are no numbers any more", training, progress)


def _run_away(found: str, training: Training, progress: Progress) -> NothingDoneError:
    return NothingDoneError(
        training.crops.pairs[0].image.parent, f"{found} in epoch {progress.epoch + 1}",
        "the weights saved before are as they were", "lower --learning-rate",
    )  # fmt: skip


def learning_rate(done: float, highest: float) -> float:
    """Linear warm-up, then a half cosine to zero (Loshchilov and Hutter 2017, without restarts), by the share done."""
    if done < WARM_UP:
        return highest * (done + 0.002) / (WARM_UP + 0.002)
    return highest * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
