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
from segcli.network.checkpoint import Model
from segcli.network.ensemble import Ensemble
from segcli.network.normalise import Inputs, Normalisation
from segcli.network.stream import Stream
from segcli.network.unet import NetworkConfig, UNet
from segcli.network.views import AS_IT_IS, EIGHT, MeanOverViews
from segcli.options import Percentiles, PredictOptions

CPU, QUIET = torch.device("cpu"), Console(quiet=True)


def model_of(config: NetworkConfig, seed: int, mean: float = 120.0, deviation: float = 50.0) -> Model:
    torch.manual_seed(seed)
    constants = Normalisation("uint8", (mean,) * config.bands, (deviation,) * config.bands)
    return Model(UNet(config).eval(), constants, ClassTable.from_indices(range(config.classes)))


def alone(models: list[Model], values: torch.Tensor) -> torch.Tensor:
    """The slow way: the mean of the scores of each network, of the values as it wants them."""
    scores = []
    for model in models:
        mean, deviation = (
            torch.tensor(constants).view(1, -1, 1, 1)
            for constants in (model.normalisation.mean, model.normalisation.deviation)
        )
        scores.append(model.network((values - mean) / deviation))
    return torch.stack(scores).mean(0)


members = st.tuples(
    st.integers(1, 6), st.sampled_from(["transpose", "nearest", "bilinear"]),
    st.sampled_from(["concat", "add", "none"]), st.sampled_from(["batch", "none"]),
    st.floats(60, 180), st.floats(20, 90),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
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
        models = [replace(model, network=MeanOverViews(model.network, views)) for model in models]  # type: ignore[arg-type]
    stream = Stream(network, bands, 4, CPU, method="scores", context=network.config.context)
    strips = [Inputs(first, inputs[:, :, first : first + 8]) for first in range(0, height, 8)]
    with torch.inference_mode():
        expected = alone(models, values)
        whole = network.eval()(inputs)
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
        "bands 1; expected 3": model_of(replace(config, bands=1), 0),
        "bands of its files 4,3,2; expected all": replace(first, learnt=(4, 3, 2)),
        "values of uint16; expected uint8": replace(first, normalisation=replace(constants, dtype="uint16")),
        "values of any type; expected uint8": replace(
            first, normalisation=replace(constants, percentiles=Percentiles(1, 99))
        ),
        "depth 2; expected 3": model_of(replace(config, depth=2), 0),
        "padding valid; expected same": model_of(replace(config, padding="valid"), 0),
    }
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
        checkpoint.load_all([folds[0], folds[1], folds[0]])
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
    """Repeated, in the environment, in a file of options; the record knows one from two, and not their order."""
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
    assert status("--weights", two, "--weights", one) == "up to date"
    assert status("--config", "night.toml") == "up to date"
    assert status(SEGCLI_PREDICT_WEIGHTS=f"{one}:{two}") == "up to date"
    assert status("--weights", "fold_*/best.safetensors") == "up to date"
    done = segcli(*base, one, "--weights", two)
    assert done.returncode == 1
    assert f"{one} is among the images: give --weights before each" in done.stderr
