"""Which way a network is run: streamed in rows, exact, or in blended windows. Both take strips and give strips."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from segcli.errors import InputError, UsageError
from segcli.network.blend import Windows
from segcli.network.checkpoint import Model
from segcli.network.device import advice_on_precision, choose_precision, is_out_of_memory, name_of
from segcli.network.ensemble import Ensemble, Network
from segcli.network.normalise import Inputs
from segcli.network.plan import Plan
from segcli.network.stream import Stream
from segcli.network.tracing import NotStreamableError
from segcli.network.views import AS_IT_IS, MeanOverViews, Views, views_for
from segcli.options import PredictOptions

TOGETHER = 64
"""At most so many images in one go: each has an open output file."""

TOGETHER_PIXELS = {"cuda": 2**23, "mps": 2**22}
"""At most so many pixels, too: enough to fill a GPU. On the CPU small images alone gain by company."""


OF_WINDOWS = ("window", "overlap", "weighting")
"""Options that change nothing where rows stream."""


@dataclass(frozen=True)
class Scorer:
    """A network on a device, in a precision, in one of the two ways, over one view of the image or several."""

    network: Network
    way: Stream | Windows
    device: torch.device
    dtype: torch.dtype
    options: PredictOptions
    views: Views
    _on_cpu: list["Scorer"] = field(default_factory=list, init=False, repr=False, compare=False)

    def plans(self, height: int, width: int, images: int, budget: float, beside: float = 0.0) -> Iterator[Plan]:
        """Ways to cut the images, best first, as both ways have them. `beside` are bytes of this machine's memory that
        each column of an image takes elsewhere."""
        return self.way.plans(height, width, images, budget, beside if self.device.type == "cpu" else 0.0)

    @property
    def always(self) -> float:
        """Bytes that are taken however small the pieces: for a window, where there are windows. 0 where counting alone
        takes more than there is: the first piece shows it."""
        try:
            return self.way.always
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return 0.0

    @property
    def networks(self) -> int:
        """How many run side by side, each with rows of its own: one for each view and each of the weights."""
        members = len(self.network.networks) if isinstance(self.network, Ensemble) else 1
        return members * len(self.views) if isinstance(self.way, Stream) else 1

    def pixels_of(self, height: int, width: int) -> int:
        """How many are computed for an image: in windows more than it has, where they overlap."""
        return self.way.pixels_of(height, width)

    def scores(self, strips: Iterable[Inputs], height: int, name: Path | str) -> Iterator[tuple[int, Tensor]]:
        """Strips in, strips of scores, (first_row, (image, class, row, col)), out. In the end an InputError, of the
        image's `name`, where not all of them are numbers: the first class would be the highest of such."""
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        for first_row, scores in self.way.scores(strips, height):
            # The sum is no number where one score is none, in a sixteenth of the time; a GPU is asked once, in the end.
            finite &= scores.sum(dtype=torch.float32).isfinite()
            yield first_row, scores
        if not finite:
            other = "" if self.dtype == torch.float32 else ", or give --precision fp32"
            raise InputError(name, "scores that are no numbers", "its values, or those of the weights, are too large"
                             f" for {str(self.dtype).removeprefix('torch.')}", f"mark what is no data (nodata){other}"
                             )  # fmt: skip

    def together(self, height: int, width: int) -> int:
        """How many images of one size go through together."""
        return min(TOGETHER, max(1, TOGETHER_PIXELS.get(self.device.type, 2**16) // (height * width)))

    def with_fallback(self, say: Callable[[str], None]) -> Iterator["Scorer"]:
        """This one, and after it the CPU, for the case that the device's memory is too small for anything; from then on
        the CPU alone."""
        if not self._on_cpu:
            yield self
        if self.device.type != "cpu":
            if not self._on_cpu:
                self._on_cpu.append(_on_the_cpu(self.network, self.device, self.options, say, self.views))
            yield self._on_cpu[0]

    def plans_within(self, height: int, width: int, images: int, budget: float, beside: float = 0.0) -> Iterator[Plan]:
        """`plans`; none where already counting bytes takes more memory than there is."""
        try:
            yield from self.plans(height, width, images, budget, beside)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise


def in_numbers_of(
    device: torch.device, options: PredictOptions, say: Callable[[str], None]
) -> tuple[PredictOptions, torch.dtype]:
    """The options as the record of a run has them, and the numbers that the network computes in."""
    dtype = choose_precision(options.precision, device)
    if dtype == torch.bfloat16:  # automatic on a GPU, whose masks are not quite those of a CPU
        options = replace(options, precision="bf16")
    if device.type != "cpu":
        say(f"on {name_of(device)}, {str(dtype).removeprefix('torch.')}")
    if advice := advice_on_precision(device, options.precision):
        say(advice)
    return options, dtype


def first_scorer(
    models: Sequence[Model],
    device: torch.device,
    dtype: torch.dtype,
    options: PredictOptions,
    say: Callable[[str], None],
) -> Scorer:
    """As `make_scorer`, for the mean of the models, over the views that `--tta` means; on the CPU where the device has
    no room for the weights."""
    network = (
        models[0].network
        if len(models) == 1
        else Ensemble([model.network for model in models], [model.normalisation for model in models])
    )
    views = views_for(options.tta, any(model.upright for model in models))
    try:
        return make_scorer(network, device, dtype, options, say, views)
    except (RuntimeError, MemoryError) as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    return _on_the_cpu(network, device, options, say, views)


def _on_the_cpu(
    network: Network, device: torch.device, options: PredictOptions, say: Callable[[str], None], views: Views
) -> Scorer:
    say(f"out of memory on {device}; going on on the CPU, in float32")
    return make_scorer(network, torch.device("cpu"), torch.float32, options, say, views)


def make_scorer(
    network: Network,
    device: torch.device,
    dtype: torch.dtype,
    options: PredictOptions,
    say: Callable[[str], None],
    views: Views = AS_IT_IS,
) -> Scorer:
    """Streamed if the network can be and `--stitch` lets it, else in windows; `say` is told why not.

    Raises UsageError where `--stitch stream` is asked of a network that cannot be streamed.
    """
    config = network.config
    if options.stitch != "windows":
        try:
            seen = network if views == AS_IT_IS else MeanOverViews(network, views)
            stream = Stream(seen, config.bands, config.total_stride, device, dtype, "scores", config.context)
            if any(getattr(options, name) != getattr(PredictOptions, name) for name in OF_WINDOWS):
                say("--window, --overlap and --weighting do nothing: there are no windows but with --stitch windows")
            return Scorer(network, stream, device, dtype, options, views)
        except NotStreamableError as error:
            if options.stitch == "stream":
                raise UsageError("--stitch stream", f"the network does not stream: {error}") from error
            say(f"the network does not stream ({error}); it is run in windows that overlap by {options.overlap:g}")
    # A copy of torchvision's encoders comes out in training mode, where norms take the statistics of the window.
    moved = copy.deepcopy(network).eval()
    moved = moved.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    # A multiple of the total stride, so that windows are padded at the image's border alone.
    size = max(config.total_stride, options.window // config.total_stride * config.total_stride)
    windows = Windows(
        moved, size, options.overlap, options.weighting, views, config.total_stride, config.bands, config.classes,
        device, dtype,
    )  # fmt: skip
    if (size, windows.step) != (options.window, round(options.window * (1 - options.overlap))):
        stride = config.total_stride
        say(
            f"windows of {size} pixels every {windows.step}: multiples of {stride}, which the network divides images by"
        )
    return Scorer(network, windows, device, dtype, options, views)
