"""What the network makes of the validation part: as `predict` does it, each image in one pass, small or in rows."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segcli.ahead import ahead
from segcli.measures.confusion import confusion_matrix
from segcli.network.device import return_freed_memory
from segcli.network.normalise import normalise
from segcli.network.scorer import Scorer, make_scorer
from segcli.network.unet import UNet
from segcli.options import PredictOptions
from segcli.training.pairs import Pair
from segcli.training.sampling import Reading
from segcli.training.survey import Facts
from segcli.validity import Validity, written_out

WHOLE_PIXELS = 2**21
"""Images up to this go through the network whole, larger ones in rows."""

STRIP_HEIGHT = 64


@dataclass(frozen=True)
class Strip:
    """Rows of one image: class positions, true ones (-1 without a label or without data) and predicted ones."""

    first_row: int
    true: NDArray[np.int16]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class Validation:
    """How pairs are predicted while training: by which device, and whether in half precision; `say` tells users."""

    reading: Reading
    facts: dict[Pair, Facts]
    device: torch.device
    half: bool
    say: Callable[[str], None]

    def of(self, network: UNet) -> "Predicted":
        """By a network in eval mode, on the device, whose weights stay as they are now."""
        return Predicted(self, network)


@dataclass(frozen=True)
class Predicted:
    """What one network makes of pairs."""

    setting: Validation
    network: UNet

    def matrix(self, pairs: tuple[Pair, ...]) -> NDArray[np.int64]:
        """The confusion matrix over all pixels of the pairs."""
        count = self.network.config.classes
        matrix = np.zeros((count, count), np.int64)
        for pair in pairs:
            for strip in self.strips(pair):
                matrix += confusion_matrix(strip.true, strip.predicted, count)
        return matrix

    def strips(self, pair: Pair) -> Iterator[Strip]:
        """One pair, from the top."""
        fact, device = self.setting.facts[pair], self.setting.device
        if fact.height * fact.width <= WHOLE_PIXELS:
            image, true, void = self.setting.reading.seen(pair, 0, 0, fact.height, fact.width)
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self.setting.half):
                batch = torch.from_numpy(image)[None].to(device, memory_format=torch.channels_last)
                found = self.network(batch)[0].argmax(0).cpu().numpy()
            yield Strip(0, true, found if void is None else np.where(void.all(0) & (true < 0), -1, found))
        else:
            yield from self._in_rows(pair)

    @cached_property
    def _scorer(self) -> Scorer:
        dtype = torch.bfloat16 if self.setting.half else torch.float32
        return make_scorer(self.network, self.setting.device, dtype, PredictOptions((), Path()), self.setting.say)

    def _in_rows(self, pair: Pair) -> Iterator[Strip]:
        scorer, reading = self._scorer, self.setting.reading
        with reading.files.image(pair) as image:
            bands = reading.bands_of(image)
            seen = Validity()
            read = ahead(  # turned photographs come as views that run backwards
                (row, np.ascontiguousarray(pixels[None]), None if valid is None else np.ascontiguousarray(valid[None]))
                for row, pixels, valid in image.strips(STRIP_HEIGHT, bands)
            )
            with closing(read):
                inputs = normalise(
                    seen.noted(read), reading.constants, [reading.ranges.get(pair)], scorer.device, scorer.dtype
                )
                for first_row, scores in scorer.way.scores(inputs, image.grid.height):
                    found = scores[0].argmax(0).cpu().numpy()
                    true = reading.target(pair, first_row, 0, *found.shape)
                    known = written_out(seen.take(len(found)), (1, *found.shape))[0]
                    yield Strip(first_row, np.where(known, true, np.int16(-1)), np.where(known, found, -1))
        return_freed_memory()
