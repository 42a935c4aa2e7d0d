"""Who may import whom, read from the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segcli

PACKAGE = Path(segcli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
VERBS = {"predict", "train", "tile", "colorize", "evaluate"}
LEAVES = {
    "ahead",
    "band_names",
    "classes",
    "colors",
    "components",
    "errors",
    "files",
    "keys",
    "known_palettes",
    "machine",
    "made",
    "options",
    "palettes",
    "shard",
    "validity",
}
NO_TORCH = {
    "raster",
    "measures",
    "drawing",
    "evaluation",
    "manifest",
    "matching",
    "coloring",
    "colorize",
    "pictures",
    "tiling",
    "tile",
    "batch",
    "console",
    "counts",
    "cli",
    "__main__",
} | LEAVES
ONLY_USER = {"typer": "cli", "rich": "console"}


def name_of(path: Path) -> str:
    """The folder or module directly below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def inside(path: Path, top_level_only: bool = False) -> set[str]:
    """Names directly below the package that a module imports."""
    parts = [name.split(".") for name in imports(path, top_level_only)]
    known = {name_of(module) for module in MODULES}
    return {part[1] for part in parts if part[0] == "segcli" and len(part) > 1 and part[1] in known}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    name, used = name_of(path), inside(path)
    outside = {found.split(".")[0] for found in imports(path)}
    if name in NO_TORCH:
        assert not outside & {"torch", "torchvision"}
        assert not used & {"network", "training"}
    for library, user in ONLY_USER.items():
        assert library not in outside or name == user
    assert "click" not in outside
    if name != "raster":
        assert not outside & {"rasterio", "tifffile"}
    if name in LEAVES:
        assert used <= LEAVES
    if name not in ("cli", "__main__"):
        assert not used & {*VERBS, "cli"}, "verbs are imported by the command line alone"
    if name == "cli":
        assert inside(path, top_level_only=True) <= LEAVES | {"cli"}
    if name == "raster":
        assert used <= {"raster"} | LEAVES
    if name == "network":
        assert used <= {"network"} | LEAVES | {"raster"}
        assert not [
            i for i in imports(path) if i.startswith("segcli.raster") and not i.startswith("segcli.raster.rows")
        ]
    if name in ("measures", "drawing"):
        assert used <= {name} | LEAVES
    if name == "tiling":
        assert used <= {"tiling", "raster", "matching", "inputs", "console"} | LEAVES
    if name == "evaluation":
        assert used <= {"evaluation", "measures", "raster", "drawing", "matching", "manifest"} | LEAVES


@pytest.mark.parametrize("verb", ["colorize", "evaluate", "tile"])
def test_verbs_without_a_network_load_no_torch(verb: str) -> None:
    """Nor does anything that they import: it would take a second and half a gigabyte."""
    code = f"import sys, segcli.{verb}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_functions_and_files_stay_small() -> None:
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                # The options of a command are its parameters; what is long there is no code.
                begin = node.body[0].lineno if name_of(path) == "cli" else node.lineno
                assert node.end_lineno is not None
                assert node.end_lineno - begin <= 70, f"{path}: {node.name}"
