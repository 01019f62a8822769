"""Predictions for named devices: arithmetic on the peaks in bench/devices, held against sums done by hand here."""
from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tilewright.bench import predict
from tilewright.cli import app
from tilewright.core.errors import ArgumentError


@pytest.mark.parametrize("name", predict.devices())
def test_devices_are_whole(name: str) -> None:
    found = predict.device_named(name)
    assert found.sources and found.compute_capability >= (7, 5)
    assert all("https://" in source for source in found.sources)
    assert found.lanes == (64 if found.compute_capability == (8, 0) else 128)  # as the programming guide says
    assert found.peak["float32"] == pytest.approx(2 * found.clock * found.multiprocessors * found.lanes, rel=0.02)
    assert found.tensor["int8"] == pytest.approx(2 * found.tensor["bfloat16"], rel=0.01) or name == "rtx4090"
    assert found.tensor["tf32"] == pytest.approx(found.tensor["bfloat16"] / 2, rel=0.01)


def test_names_are_those_asked_for() -> None:
    assert {"h100", "a100", "l4", "rtx4090"} <= set(predict.devices())


def test_a_product_is_bound_by_arithmetic() -> None:
    found = predict.predict("matmul", ["256x512", "512x1024"], "a100")
    assert found.compute == pytest.approx(2 * 256 * 512 * 1024 / 19.5e12)
    assert found.memory == pytest.approx(4 * (256 * 512 + 512 * 1024 + 256 * 1024) / 2.039e12)
    assert found.roofline == max(found.compute, found.memory) and found.units == "float32"
    assert found.cpu is not None and found.cpu > 0


def test_integers_are_held_against_tensor_cores() -> None:
    found = predict.predict("matmul_integer", ["64x64:int8", "64x64:int8"], "l4", dtype="int8")
    assert found.compute == pytest.approx(2 * 64 ** 3 / 242.5e12) and found.units == "int8 tensor"
    assert predict.predict("dequantize_linear", ["small"], "l4", dtype="int8").units == "float32"


def test_a_map_is_bound_by_memory() -> None:
    found = predict.predict("relu", ["128x1024"], "h100")
    assert found.bound == "memory" and found.memory == pytest.approx(8 * 128 * 1024 / 3.35e12)
    assert found.transfer == pytest.approx(8 * 128 * 1024 / 64e9)
    if found.launches:
        one, = found.launches
        assert one.warps == 1024 and one.registers and found.issue  # four elements a thread
    else:
        assert found.unknown and found.issue is None


def test_instructions_of_a_large_product() -> None:
    """On tensor cores at least one for 16 x 8 x 16 multiply-adds, and by the bar of those kernels at most four."""
    found = predict.predict("matmul", ["640x640", "640x640"], "h100", "bfloat16")
    if not found.launches:
        pytest.skip(found.unknown)
    least = 640 ** 3 / (16 * 8 * 16) / found.device.issue
    assert found.issue is not None and found.issued == "of hot loops" and least < found.issue <= 4 * least
    small = predict.predict("matmul", ["64x64", "64x64"], "h100", "bfloat16")
    assert small.issue is not None and small.issued == "counted"


def test_a_file_describes_another_device(tmp_path: Path) -> None:
    text = (Path(predict.__file__).parent / "devices/a100.toml").read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("2.039e12", "1e12"))
    assert predict.device_named(str(file)).memory == 1e12
    for wrong in (text.replace("[tensor]", "[tensors]"), text.replace("1.41e9", "-1.0"), text.replace('"8.0"', "8")):
        file.write_text(wrong)
        with pytest.raises(ArgumentError, match="does not describe a device"):
            predict.device_named(str(file))


@pytest.mark.parametrize(("arguments", "words"), [
    (["relu", "4y4"], "no shape"), (["relu", "4", "--device", "v100"], "there are: a100"),
    (["relu", "4", "--device", "gone.toml"], "gone.toml"), (["relu", "4", "--dtype", "int4"], "no dtype")])
def test_what_makes_no_sense_raises(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["predict", *arguments])
    assert isinstance(result.exception, ArgumentError) and words in str(result.exception)


def test_command_says_predicted_and_measured() -> None:
    result = CliRunner().invoke(app, ["predict", "gelu", "small", "--device", "rtx4090"])
    assert result.exit_code == 0, result.output
    assert result.output.count("predicted") == 5 and result.output.count("measured") == 1
    assert "GeForce RTX 4090" in result.output and "peaks from: NVIDIA Ada" in result.output
