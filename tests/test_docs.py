"""Every example in a docstring runs, and every public call has one docstring that says something."""
from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import tilewright
from tilewright import ops


def modules() -> list[Any]:
    """All modules of the package; one that cannot be imported for want of an extra is skipped with the reason."""
    params = []
    for info in pkgutil.walk_packages(tilewright.__path__, "tilewright.", onerror=lambda name: None):
        if info.name.endswith(("__main__", "._c", ".libtilewright")):
            continue
        try:
            importlib.import_module(info.name)
        except ImportError as error:
            params.append(pytest.param(info.name, marks=pytest.mark.skip(reason=f"{info.name}: {error}")))
        else:
            params.append(pytest.param(info.name))
    return [pytest.param("tilewright"), *params]


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_examples_are_found() -> None:
    """More than one public call in two shows how it is called."""
    finder = doctest.DocTestFinder()
    shown = [name for name in ops.__all__ if any(test.examples for test in finder.find(getattr(ops, name), name))]
    assert len(shown) > len(ops.__all__) // 2


@pytest.mark.parametrize("name", [n for n in dir(tilewright) if callable(getattr(tilewright, n))])
def test_public_names_are_documented(name: str) -> None:
    thing = getattr(tilewright, name)
    assert (inspect.getdoc(thing) or "").strip()
    assert inspect.getmodule(thing).__name__.startswith("tilewright")


@pytest.mark.parametrize("name", ops.__all__)
def test_public_calls_agree_on_their_keywords(name: str) -> None:
    parameters = inspect.signature(getattr(ops, name)).parameters
    assert "backend" in parameters
    for keyword in {"backend", "out"} & set(parameters):
        assert parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[keyword].default is None


def test_the_page_on_quantization_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python as it stands, and the files that it writes."""
    for package in ("sklearn", "onnx"):
        pytest.importorskip(package, reason=f"{package}, which the page uses, is not installed")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).resolve().parents[1] / "docs" / "QUANTIZATION.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), found)
    x = found["x"]
    assert (found["quant"].load("model.safetensors")(x).data == found["smaller"](x).data).all()
    assert (tmp_path / "model.onnx").stat().st_size < 4 * sum(p.data.size for p in found["model"].parameters())
