"""The crop before a skip connection of a network that pads nothing: torch.fx takes it as one operator."""

from torch import Tensor, nn


class Crop(nn.Module):
    """An image less `pixels` on each side."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.pixels : -self.pixels, self.pixels : -self.pixels]
