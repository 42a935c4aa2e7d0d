"""segcli labels every pixel of large satellite and medical images with a PyTorch U-Net."""

__version__ = "0.1.0"
