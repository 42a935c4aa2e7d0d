"""The mean over an image's symmetries: kernels turned are images turned, and it streams."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from helpers import random_model, write_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segcli import predict, train
from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.network import checkpoint
from segcli.network.device import keep_all_bits_of_float32
from segcli.network.frame import frame
from segcli.network.normalise import Inputs
from segcli.network.scorer import first_scorer, make_scorer
from segcli.network.stream import Stream
from segcli.network.tracing import NotStreamableError, fold
from segcli.network.unet import NetworkConfig, UNet
from segcli.network.views import AS_IT_IS, EIGHT, MIRRORED, MeanOverViews, View, Views, turned, views_for
from segcli.options import Padding, PredictOptions, TrainOptions

CPU, QUIET = torch.device("cpu"), Console(quiet=True)


def learnt(config: NetworkConfig) -> UNet:
    """A network whose norms are none that do nothing."""
    network = UNet(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def by_turning_images(network: UNet, image: Tensor, views: Views) -> Tensor:
    """The slow way: the image in its frame is turned, and the scores are turned back."""
    height, width = image.shape[2:]
    framed = frame(image, network.config.total_stride, network.config.context)
    seen = [view.back(network.scores(view.of(framed))) for view in views]
    return torch.stack(seen).mean(0)[..., :height, :width]


def test_the_eight_views_are_different_ones_and_come_back() -> None:
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    seen = [view.of(image) for view in EIGHT]
    assert len({(tuple(one.shape), tuple(one.flatten().tolist())) for one in seen}) == 8
    assert all(torch.equal(view.back(one), image) for view, one in zip(EIGHT, seen, strict=True))
    assert torch.equal(View(0, True).of(image), image.flip(3))


configs = st.builds(
    NetworkConfig,
    bands=st.integers(1, 3),
    classes=st.integers(1, 3),
    width=st.integers(1, 5),
    depth=st.integers(1, 3),
    norm=st.sampled_from(["batch", "none"]),
    up=st.sampled_from(["transpose", "nearest", "bilinear", "unpool", "bed-of-nails"]),
    skip=st.sampled_from(["concat", "add", "none"]),
    padding=st.sampled_from(["same", "valid"]),
)


@settings(max_examples=40, deadline=None)
@given(configs, st.integers(1, 40), st.integers(1, 40), st.sampled_from([MIRRORED, EIGHT]), st.integers(0, 2**20))
def test_turned_kernels_are_turned_images(
    config: NetworkConfig, height: int, width: int, views: Views, seed: int
) -> None:
    torch.manual_seed(seed)
    network = learnt(config)
    image = torch.randn(2, config.bands, height, width)
    with torch.inference_mode():
        expected = by_turning_images(network, image, views)
        framed = frame(image, config.total_stride, config.context)
        found = MeanOverViews(network, views).eval().scores(framed)[..., :height, :width]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@settings(max_examples=12, deadline=None)
@given(configs, st.integers(1, 60), st.integers(1, 40), st.integers(1, 9), st.sampled_from([MIRRORED, EIGHT]))
def test_the_mean_streams(config: NetworkConfig, height: int, width: int, strip: int, views: Views) -> None:
    """In strips of any height, as the slow way has it for the whole image."""
    torch.manual_seed(height)
    network = learnt(config)
    stride = config.total_stride
    stream = Stream(MeanOverViews(network, views), config.bands, stride, CPU, method="scores", context=config.context)
    image = torch.randn(1, config.bands, height, width)
    rows = strip * stride
    strips = [Inputs(first, image[:, :, first : first + rows]) for first in range(0, height, rows)]
    with torch.inference_mode():
        expected = by_turning_images(network, image, views)
        found = torch.cat([part for _, part in stream.scores(strips, height)], 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_the_mean_streams_on_a_gpu(padding: Padding) -> None:
    keep_all_bits_of_float32()
    torch.manual_seed(0)
    network = learnt(NetworkConfig(3, 4, 8, 3, padding=padding))
    config = network.config
    stream = Stream(MeanOverViews(network, EIGHT), 3, 8, torch.device("cuda"), method="scores", context=config.context)
    image = torch.randn(1, 3, 201, 117)
    strips = [Inputs(first, image[:, :, first : first + 64].cuda()) for first in range(0, 201, 64)]
    with torch.inference_mode():
        expected = by_turning_images(network, image, EIGHT)
        found = torch.cat([part.cpu() for _, part in stream.scores(strips, 201)], 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_weights_are_shared_but_for_turned_kernels() -> None:
    """And the network is left as it was."""
    network = learnt(NetworkConfig(3, 2, 4, 2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    mean = MeanOverViews(network, EIGHT)
    own = {tensor.data_ptr() for tensor in mean.networks[0].state_dict().values()}
    more = sum(
        tensor.nbytes for tensor in mean.state_dict().values() if tensor.numel() and tensor.data_ptr() not in own
    )
    kernels = sum(m.weight.nbytes for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    ups = sum(m.weight.nbytes for m in network.modules() if isinstance(m, nn.ConvTranspose2d))
    assert more == 7 * (kernels + ups)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("view", EIGHT)
def test_each_view_by_itself(view: View) -> None:
    """A mean over all eight does not tell a turn to the left from one to the right."""
    network = learnt(NetworkConfig(2, 2, 3, 2, up="transpose"))
    image = torch.randn(1, 2, 20, 28)
    with torch.inference_mode():
        found = turned(fold(network, "scores"), view)(image)
        torch.testing.assert_close(found, view.back(network.scores(view.of(image))), rtol=1e-4, atol=1e-5)
        for other in EIGHT:
            if other != view:
                assert (other.back(network.scores(other.of(image))) - found).abs().max() > 1e-3


def test_strides_that_count_from_one_side_are_seen_in_windows(tmp_path: Path) -> None:
    """A torchvision encoder's: said in one line, an error where rows are asked for."""
    network, said = UNet(NetworkConfig(3, 2, 4, 5, encoder="resnet18")).eval(), []
    with pytest.raises(NotStreamableError, match="resnet18, whose strides find other pixels in an image turned"):
        MeanOverViews(network, EIGHT)
    options = PredictOptions((), tmp_path, window=128)
    scorer = make_scorer(network, CPU, torch.float32, options, said.append, MIRRORED)
    assert scorer.way.views == MIRRORED  # type: ignore[union-attr]
    assert len(said) == 1
    assert "resnet18, whose strides" in said[0]
    assert "in windows that overlap by 0.25" in said[0]
    with pytest.raises(UsageError, match="--stitch stream: the network does not stream: resnet18"):
        make_scorer(network, CPU, torch.float32, replace(options, stitch="stream"), said.append, EIGHT)


def test_images_that_have_an_up_are_only_mirrored(tmp_path: Path) -> None:
    assert [views_for(tta, upright) for tta in (False, True) for upright in (False, True)] == [
        AS_IT_IS, AS_IT_IS, EIGHT, MIRRORED,
    ]  # fmt: skip
    model, options = random_model(), PredictOptions((), tmp_path, tta=True, stitch="windows")
    for upright, views in ((True, MIRRORED), (False, EIGHT)):
        assert first_scorer([replace(model, upright=upright)], CPU, torch.float32, options, print).views == views
    both = [model, replace(random_model(), upright=True)]
    assert first_scorer(both, CPU, torch.float32, options, print).views == MIRRORED


def change_record(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """What weights say of themselves, changed."""
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["segcli"])
    change(record)
    save_file(load_file(path), path, {"segcli": json.dumps(record)})


def test_weights_say_that_their_images_have_an_up(tmp_path: Path) -> None:
    """Those of earlier versions among the options of the training alone, if at all."""
    path = tmp_path / "w.safetensors"
    for upright in (True, False):
        checkpoint.save(replace(random_model(), upright=upright), path)
        assert checkpoint.load(path).upright is upright
        change_record(path, lambda record: record.pop("upright"))
        assert not checkpoint.load(path).upright
    for training, found in (
        ({"options": {"upright": True}}, True), ({"options": {"upright": False}}, False), ({}, False), ([], False),
        ({"options": None}, False),
    ):  # fmt: skip
        change_record(path, lambda record, training=training: record.update(training=training))  # type: ignore[misc]
        assert checkpoint.load(path).upright is found
    change_record(path, lambda record: record.update(upright="true"))
    with pytest.raises(NothingDoneError, match="upright 'true', which is true or false"):
        checkpoint.load(path)


@pytest.mark.parametrize("upright", [False, True])
def test_what_train_writes_is_what_predict_averages(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, upright: bool
) -> None:
    """From the option to the mask, in panels as well; the probabilities are those of the slow way."""
    for name in ("a", "b"):
        image = rng.integers(0, 255, (64, 64, 3), np.uint8)
        write_picture(tmp_path / "data/images" / f"{name}.png", image)
        write_picture(tmp_path / "data/masks" / f"{name}.png", (image[:, :, 0] > image[:, ::-1, 1]).astype(np.uint8))
    out = tmp_path / "run"
    train.run(
        TrainOptions(tmp_path / "data", out, epochs=1, width=4, depth=2, crop=32, batch=2, workers=0, upright=upright,
                     val=0.5), QUIET,
    )  # fmt: skip
    scan = rng.integers(0, 255, (70, 3000, 3), np.uint8)
    path = write_picture(tmp_path / "scan.png", scan)
    model = checkpoint.load(out / "best.safetensors")
    mean, deviation = (
        np.array(constants, np.float32) for constants in (model.normalisation.mean, model.normalisation.deviation)
    )
    image = torch.from_numpy((scan - mean) / deviation).permute(2, 0, 1)[None]
    with torch.inference_mode():
        scores = by_turning_images(model.network, image, MIRRORED if upright else EIGHT)
    expected = scores[0].softmax(0).permute(1, 2, 0)
    widths = []
    flow = predict.flow
    monkeypatch.setattr(predict, "flow", lambda *given: (widths.append(given[3].panel_width), flow(*given)))
    for memory in (None, 2**20):
        options = PredictOptions(
            (path,), tmp_path / "masks", (str(out / "best.safetensors"),), tta=True, probabilities=True,
            quantity="float32", overwrite=True, memory_bytes=memory,
        )  # fmt: skip
        assert predict.run(options, QUIET) == 0
        found = tifffile.imread(tmp_path / "masks/probabilities/scan.tif")
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert widths[0] == 3000 > widths[1]


def test_options_of_windows_that_are_none_are_told(tmp_path: Path) -> None:
    network = random_model().network
    for change, told in (({}, 0), ({"window": 256}, 1), ({"overlap": 0.5}, 1), ({"weighting": "hann"}, 1)):
        said: list[str] = []
        options = replace(PredictOptions((), tmp_path), **change)  # type: ignore[arg-type]
        make_scorer(network, CPU, torch.float32, options, said.append)
        assert len(said) == told
        assert all(line.startswith("--window, --overlap and --weighting do nothing") for line in said)
