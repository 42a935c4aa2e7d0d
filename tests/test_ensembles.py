"""Several networks as one: the mean of their scores, streamed as each of them."""

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

from segcli import predict
from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import NothingDoneError, UsageError
from segcli.network import checkpoint
from segcli.network.budget import Memory
from segcli.network.checkpoint import Model
from segcli.network.ensemble import Ensemble
from segcli.network.frame import frame
from segcli.network.normalise import Inputs, Normalisation
from segcli.network.scorer import Scorer, first_scorer, make_scorer
from segcli.network.stream import Stream
from segcli.network.tracing import NotStreamableError
from segcli.network.unet import NetworkConfig, UNet
from segcli.network.views import AS_IT_IS, EIGHT, MeanOverViews, Views
from segcli.options import Percentiles, PredictOptions

CPU, QUIET = torch.device("cpu"), Console(quiet=True)


def model_of(config: NetworkConfig, seed: int, mean: float = 120.0, deviation: float = 50.0) -> Model:
    torch.manual_seed(seed)
    constants = Normalisation("uint8", (mean,) * config.bands, (deviation,) * config.bands)
    return Model(UNet(config).eval(), constants, ClassTable.from_indices(range(config.classes)))


def alone(models: list[Model], values: torch.Tensor, views: Views = AS_IT_IS) -> torch.Tensor:
    """The slow way: the mean of the scores of each network, of the values as it wants them, turned and turned back."""
    scores = []
    for model in models:
        mean, deviation = (
            torch.tensor(constants).view(1, -1, 1, 1)
            for constants in (model.normalisation.mean, model.normalisation.deviation)
        )
        config, (height, width) = model.network.config, values.shape[2:]
        framed = frame((values - mean) / deviation, config.total_stride, config.context)
        for view in views:
            scores.append(view.back(model.network.scores(view.of(framed)))[..., :height, :width])
    return torch.stack(scores).mean(0)


members = st.tuples(
    st.integers(1, 6), st.sampled_from(["transpose", "nearest", "bilinear"]),
    st.sampled_from(["concat", "add", "none"]), st.sampled_from(["batch", "none"]),
    st.floats(60, 180), st.floats(20, 90),
)  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(
    st.lists(members, min_size=1, max_size=3), st.sampled_from(["same", "valid"]), st.integers(1, 3),
    st.integers(1, 40), st.integers(1, 40), st.booleans(),
)  # fmt: skip
def test_the_mean_of_the_scores_of_each(
    kinds: list[tuple[Any, ...]], padding: Any, bands: int, height: int, width: int, tta: bool
) -> None:
    """Of any image, in one pass and in strips, of networks of unlike widths, ways up and constants."""
    models = [
        model_of(NetworkConfig(bands, 2, size, 2, norm, up=up, skip=skip, padding=padding), n, mean, deviation)
        for n, (size, up, skip, norm, mean, deviation) in enumerate(kinds)
    ]
    constants = [model.normalisation for model in models]
    values = torch.randint(0, 256, (1, bands, height, width)).float()
    inputs = (values - constants[0].mean[0]) / constants[0].deviation[0]
    network: Any = Ensemble([model.network for model in models], constants)
    views = EIGHT if tta else AS_IT_IS
    if tta:
        network = MeanOverViews(network, views)
    stream = Stream(network, bands, 4, CPU, method="scores", context=models[0].network.config.context)
    strips = [Inputs(first, inputs[:, :, first : first + 8]) for first in range(0, height, 8)]
    with torch.inference_mode():
        expected = alone(models, values, views)
        config = models[0].network.config
        framed = frame(inputs, config.total_stride, config.context)
        whole = network.eval().scores(framed)[..., :height, :width]
        streamed = torch.cat([part for _, part in stream.scores(strips, height)], 2)
    for found in (whole, streamed):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_of_the_same_constants_nothing_is_computed_anew() -> None:
    """So that two networks that are alike have the scores of one to the last bit."""
    model = random_model()
    both = Ensemble([model.network, model.network], [model.normalisation] * 2)
    image = torch.randn(1, 3, 40, 48)
    assert torch.equal(both(image), model.network(image))


@pytest.fixture
def folds(tmp_path: Path) -> list[Path]:
    """Weights of two folds, of one task, whose images were not quite alike."""
    paths = [tmp_path / f"fold_{n}" / "best.safetensors" for n in (1, 2)]
    for n, path in enumerate(paths):
        path.parent.mkdir()
        checkpoint.save(model_of(NetworkConfig(3, 3, 4 + n, 3), n, 110.0 + 20 * n, 50.0 + 10 * n), path)
    return paths


def probabilities(tmp_path: Path, scan: Path, weights: tuple[str, ...], **more: object) -> np.ndarray:
    options = PredictOptions((scan,), tmp_path / "masks", weights, probabilities=True, quantity="float32",
                             overwrite=True, **more)  # type: ignore[arg-type]  # fmt: skip
    assert predict.run(options, QUIET) == 0
    return tifffile.imread(tmp_path / "masks" / "probabilities" / "scan.tif")


@pytest.mark.parametrize("stitch", ["auto", "windows"])
def test_predict_averages_all_weights_that_it_is_given(
    tmp_path: Path, folds: list[Path], rng: np.random.Generator, stitch: str
) -> None:
    """By their names or by a pattern, in whatever order."""
    pixels = rng.integers(0, 256, (70, 90, 3), np.uint8)
    scan = write_picture(tmp_path / "scan.png", pixels)
    with torch.inference_mode():
        scores = alone(
            [checkpoint.load(path) for path in folds], torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        )
    expected = scores[0].softmax(0).permute(1, 2, 0)
    one, two = map(str, folds)
    for weights in ((one, two), (two, one), (str(tmp_path / "fold_*" / "best.safetensors"),)):
        found = probabilities(tmp_path, scan, weights, stitch=stitch, window=128)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(probabilities(tmp_path, scan, (one,)) - expected.numpy()).max() > 0.01


def test_what_cannot_be_averaged_is_refused(tmp_path: Path, folds: list[Path]) -> None:
    """With what it has, what the first has, and its name."""
    first = checkpoint.load(folds[0])
    config, constants = first.network.config, first.normalisation
    names = [replace(entry, name=f"{entry.name}!") for entry in first.classes.entries]
    changes: dict[str, Model] = {
        "classes 0 class 0!, 1 class 1!, 2 class 2!; expected 0 class 0, 1 class 1, 2 class 2": replace(
            first, classes=ClassTable(tuple(names))
        ),
        "ignore index 250; expected 255": replace(first, classes=replace(first.classes, ignore=250)),
        "bands 1; expected 3": model_of(replace(config, bands=1), 0),
        "bands of its files 4,3,2; expected all": replace(first, learnt=(4, 3, 2)),
        "values of uint16; expected uint8": replace(first, normalisation=replace(constants, dtype="uint16")),
        "images between 1%,99%; expected no percentiles": replace(
            first, normalisation=replace(constants, percentiles=Percentiles(1, 99))
        ),
        "depth 2; expected 3": model_of(replace(config, depth=2), 0),
        "padding valid; expected same": model_of(replace(config, padding="valid"), 0),
    }
    checkpoint.save(replace(first, learnt=(1, 2, 3)), tmp_path / "other.safetensors")  # which are all
    assert len(checkpoint.load_all([folds[0], tmp_path / "other.safetensors"])) == 2
    for said, other in changes.items():
        checkpoint.save(other, tmp_path / "other.safetensors")
        with pytest.raises(NothingDoneError) as caught:
            checkpoint.load_all([folds[0], tmp_path / "other.safetensors"])
        assert f"{tmp_path / 'other.safetensors'}: {said}, as {folds[0]} has" in str(caught.value)
    percentiled = [replace(first, normalisation=replace(constants, percentiles=Percentiles(low, 99))) for low in (1, 2)]
    for model, path in zip(percentiled, folds, strict=True):
        checkpoint.save(model, path)
    with pytest.raises(NothingDoneError, match=r"images between 2%,99%; expected 1%,99%"):
        checkpoint.load_all(folds)
    with pytest.raises(UsageError, match=r"--weights: .*best\.safetensors, twice"):
        checkpoint.load_all([folds[0], folds[1], folds[0].parent / ".." / "fold_1" / folds[0].name])
    with pytest.raises(NothingDoneError, match="matches no file"):
        checkpoint.find_all([str(tmp_path / "fold_[3-9]" / "*.safetensors")])


def test_a_name_with_a_star_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run*1.safetensors"
    checkpoint.save(random_model(), path)
    checkpoint.save(random_model(), tmp_path / "run_1.safetensors")
    assert checkpoint.find_all([str(path)]) == [path]
    assert checkpoint.find_all([str(tmp_path / "run?1.safetensors")]) == [path, tmp_path / "run_1.safetensors"]


def test_from_the_command_line(
    tmp_path: Path, folds: list[Path], segcli: Callable[..., Any], rng: np.random.Generator
) -> None:
    """Repeated, in the environment, in a file of options; the record knows one from two, and which is the first."""
    write_picture(tmp_path / "in" / "scan.png", rng.integers(0, 256, (40, 50, 3), np.uint8))
    one, two = map(str, folds)
    (tmp_path / "night.toml").write_text(f"[predict]\nweights = {json.dumps([one, two])}\n")
    base = ("predict", "in", "--out", "m", "--json")

    def status(*arguments: str, **environment: str) -> str:
        done = segcli(*base, *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["status"])

    assert status("--weights", one) == "done"
    assert status("--weights", one, "-w", two) == "done"
    assert segcli("predict", "in", "--out", "m", "-w", one, "-w", two, "--verify").returncode == 0
    assert segcli("predict", "in", "--out", "m", "-w", one, "--verify").returncode == 1
    assert status("--config", "night.toml") == "up to date"
    assert status(SEGCLI_PREDICT_WEIGHTS=f"{one}:{two}") == "up to date"
    assert status("--weights", "fold_*/best.safetensors") == "up to date"
    assert status("--weights", two, "--weights", one) == "done"
    for arguments, said in (
        ((one, "--weights", two), f"{one}: weights among the images; expected images; give --weights before each"),
        (("--config", "none.toml"), "none.toml: weights: an empty list"),
        (("--weights", one, "--weights", ""), "--weights: an empty text"),
    ):
        (tmp_path / "none.toml").write_text("[predict]\nweights = []\n")
        done = segcli(*base, *arguments)
        assert done.returncode == 2
        assert said in done.stderr
    done = segcli(*base, SEGCLI_PREDICT_WEIGHTS=":")
    assert done.returncode == 2
    assert "SEGCLI_PREDICT_WEIGHTS: --weights: no name between its colons" in done.stderr


def test_names_are_taken_as_they_are_written(tmp_path: Path, segcli: Callable[..., Any]) -> None:
    """A file beside is not the bundled weights of its name; a space is part of one."""
    write_picture(tmp_path / "in" / "scan.png", np.zeros((40, 50, 3), np.uint8))
    for name in ("nuclei", "my weights"):
        checkpoint.save(random_model(), tmp_path / name)
        assert segcli("predict", "in", "--out", name[:2], SEGCLI_PREDICT_WEIGHTS=f"./{name}").returncode == 0
        assert segcli("predict", "in", "--out", name[:2], "--weights", f"./{name}", "--verify").returncode == 0
    assert segcli("predict", "in", "--out", "nu", "--weights", "nuclei", "--verify").returncode == 1


@pytest.mark.parametrize("way", ["the first", "on the way"])
def test_a_full_device_leaves_views_and_weights_to_the_cpu(
    tmp_path: Path, folds: list[Path], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """All of them, whether the network has no room there or a strip."""
    models = checkpoint.load_all(folds)
    options = PredictOptions((), tmp_path, tta=True)

    def full(network: Any, device: torch.device, *more: Any) -> Scorer:
        if device.type != "cpu" and way == "the first":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return replace(make_scorer(network, CPU, *more), device=device)

    monkeypatch.setattr("segcli.network.scorer.make_scorer", full)
    asked = first_scorer(models, torch.device("meta"), torch.float32, options, print)
    scorer = list(asked.with_fallback(print))[-1]
    assert (scorer.device, scorer.views, scorer.networks) == (CPU, EIGHT, 16)
    inputs = torch.randn(1, 3, 32, 40)
    constants = [model.normalisation for model in models]
    both = Ensemble([model.network for model in models], constants)
    with torch.inference_mode():
        expected = MeanOverViews(both, EIGHT).scores(inputs)
        found = torch.cat([part for _, part in scorer.way.scores([Inputs(0, inputs)], 32)], 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_encoder_that_cannot_be_turned_is_enough() -> None:
    """However the first network is made."""
    plain = model_of(NetworkConfig(3, 2, 2, 5), 0)
    other = model_of(NetworkConfig(3, 2, 2, 5, encoder="resnet18"), 0)
    both = Ensemble([plain.network, other.network], [plain.normalisation] * 2)
    with pytest.raises(NotStreamableError, match="resnet18, whose strides"):
        MeanOverViews(both, EIGHT)


def test_memory_follows_the_number_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that panels are as wide as of one; never more than half of what is free."""
    monkeypatch.setattr("segcli.network.budget.free_memory", lambda _: 4 * 2**30)
    one, eight = (Memory.of(None, 0.0, CPU, networks).budget for networks in (1, 4))
    assert eight == pytest.approx(4 * one, rel=0.1)
    assert Memory.of(None, 0.0, CPU, 100).budget == Memory.of(2 * 2**30, 0.0, CPU).budget
    assert Memory.of(2**28, 0.0, CPU, 8).budget == Memory.of(2**28, 0.0, CPU).budget
