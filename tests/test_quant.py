"""Quantizing models: every method against a float64 model of the same integers, what stays as it is, files, errors."""
from __future__ import annotations

import copy
import json
from itertools import product

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, quant
from tilewright.core.errors import ArgumentError, BackendUnavailable, DataError, DTypeError, ShapeError
from tilewright.quant import OBSERVERS, QuantizedLinear, StaticLinear
from tilewright.quant.smooth import balanced, factors
from tilewright.quant.walk import linears

WAYS = [dict(method=m, bits=b, per_channel=c) for m, b, c in product(quant.METHODS, (8, 4), (True, False))]
WAYS += [dict(method="weight-only", bits=b, group_size=5) for b in (8, 4)]


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


X = rows(0, 40, 13)


def mlp(**options) -> nn.MLP:
    return nn.MLP([13, 24, 16, 5], seed=0, **options)


def states(model: nn.Module) -> dict[str, bytes]:
    return {name: a.tobytes() for name, a in model.state_dict().items()}


def grid(x: np.ndarray, g: quant.Grid) -> np.ndarray:
    """x as the integers of a grid, in float32 as tw.quantize_linear."""
    return np.clip(np.rint(x.astype(np.float32) / g.scale) + np.float32(g.zero), 0, g.top).astype(np.float64)


def by_hand(model: nn.Sequential, x: np.ndarray) -> np.ndarray:
    """What a quantized MLP with relu computes, in float64."""
    y = x.astype(np.float64)
    for layer in model.layers:
        if isinstance(layer, nn.ReLU):
            y = np.maximum(y, 0)
        elif isinstance(layer, QuantizedLinear):
            if layer.balance is not None and not layer.folded:
                y = y / layer.balance
            if isinstance(layer, StaticLinear):
                y = (grid(y, layer.input) - float(layer.input.zero)) * float(layer.input.scale)
            elif layer.weight.method == "dynamic":
                low, high = y.min(axis=1, initial=0, keepdims=True), y.max(axis=1, initial=0, keepdims=True)
                scale = (high - low) / 255
                zero = np.rint(-low / scale)
                y = (np.clip(np.rint(y / scale) + zero, 0, 255) - zero) * scale
            y = y @ layer.weight.dequantize(np.float64).T + layer.bias
        elif isinstance(layer, nn.Linear):
            y = y @ layer.weight.data.T.astype(np.float64) + layer.bias.data
    return y


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
@pytest.mark.parametrize("smooth", [None, 0.5])
def test_a_model_computes_what_its_integers_say(way, smooth):
    model = mlp()
    before = states(model)
    quantized = quant.quantize(model, calibration=X, smooth=smooth, **way)
    assert states(model) == before and all(type(layer) in (nn.Linear, nn.ReLU) for layer in model.layers)
    found, expected = quantized(X).data, by_hand(quantized, X)
    assert found.dtype == np.float32 and found.shape == (40, 5)
    # Rounding in float32 may tip a number over the edge of a grid's step, rarely: nearly all are equal to a few eps.
    error = np.abs(found - expected)
    step = 255 / 15 if way["method"] == "static" and way["bits"] == 4 else 1
    assert np.median(error) < 1e-5 and error.max() < 0.02 * step
    assert np.abs(found - model(X).data).max() < (0.06 if way["bits"] == 8 else 0.8)


@pytest.mark.parametrize("way", [dict(method="dynamic"), dict(method="static"), dict(method="static", bits=4),
                                 dict(method="weight-only"), dict(method="weight-only", bits=4, group_size=5)], ids=str)
def test_every_backend(way, backend):
    quantized = quant.quantize(mlp(), calibration=X, **way)
    with tw.use_backend("numpy"):
        expected = quantized(X).data
    try:
        with tw.use_backend(backend):
            found = quantized(X).data
    except BackendUnavailable as error:
        pytest.skip(str(error))
    if way["method"] == "static":  # no step of it is free to be rounded differently
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_every_observer_serves(observer):
    quantized = quant.quantize(mlp(), "static", calibration=X, observer=observer)
    assert np.abs(quantized(X).data - mlp()(X).data).max() < 0.15


def test_static_layers_hand_on_integers():
    quantized = quant.quantize(mlp(dropout=0.5), "static", calibration=X)
    first, second, last = (layer for layer in quantized.layers if isinstance(layer, StaticLinear))
    assert first(X, "relu").data.dtype == np.uint8 and last.output is None
    assert (first.output, second.output) == (second.input, last.input)
    assert (first.fed, second.fed, last.fed) == (False, True, True)
    np.testing.assert_array_equal(quantized.train()(X).data, quantized.eval()(X).data)  # no dropout any more
    between = quant.quantize(mlp(activation="gelu"), "static", calibration=X)
    assert all(layer.output is None and not layer.fed for layer in between.layers if isinstance(layer, StaticLinear))
    assert np.abs(between(X).data - mlp(activation="gelu")(X).data).max() < 0.05


def test_the_model_and_its_copy_share_nothing():
    model = mlp(dropout=0.1)
    quantized = [quant.quantize(model, m, calibration=X, skip=("2",)) for m in quant.METHODS]
    assert all(m.training for _, m in model.named_modules())
    expected = [q(X).data for q in quantized]
    for p in model.parameters():
        p.data += 1
    for q, y in zip(quantized, expected, strict=True):
        np.testing.assert_array_equal(q(X).data, y)


def test_raw_bytes_are_numbers_to_a_layer_that_nobody_feeds():
    model = nn.Sequential(nn.Linear(4, 3, seed=0))
    x = np.arange(8, dtype=np.uint8).reshape(2, 4)
    quantized = quant.quantize(model, "static", calibration=x.astype(np.float32))
    assert np.abs(quantized(x).data - model(x.astype(np.float32)).data).max() < 0.05


@pytest.mark.parametrize("method", quant.METHODS)
def test_skip_leaves_layers_as_they_are(method):
    model = nn.Sequential(nn.Linear(13, 8, seed=0), nn.ReLU(), nn.MLP([8, 6, 5], seed=1), nn.Linear(5, 5, seed=2))
    quantized = quant.quantize(model, method, calibration=X, skip=("0", "2.2"))
    kinds = {name.rstrip("."): type(m) for name, m in quantized.named_modules() if hasattr(m, "weight")}
    kind = StaticLinear if method == "static" else QuantizedLinear
    assert kinds == {"0": nn.Linear, "2.0": kind, "2.2": nn.Linear, "3": kind}
    np.testing.assert_array_equal(quantized.layers[0].weight.data, model.layers[0].weight.data)
    assert quantized.layers[0].weight is not model.layers[0].weight
    whole = quant.quantize(model, method, calibration=X, skip="2")
    assert {name.rstrip("."): type(m) for name, m in whole.named_modules() if hasattr(m, "weight")} == {
        "0": kind, "2.0": nn.Linear, "2.2": nn.Linear, "3": kind}
    assert np.isfinite(whole(X).data).all()


class Twin(nn.Module):
    """A layer used twice and with two names, others in a list: a model with a forward of its own."""

    def __init__(self):
        self.first = self.again = nn.Linear(13, 13, seed=0)
        self.many = [nn.Linear(13, 4, seed=1), nn.Sequential(nn.Linear(13, 4, seed=2), nn.Tanh())]

    def forward(self, x):
        x = self.again(self.first(x))
        return self.many[0](x) + self.many[1](x)


@pytest.mark.parametrize("way", [dict(method=m) for m in quant.METHODS] + [dict(method="static", smooth=0.5)],
                         ids=str)
def test_models_with_a_forward_of_their_own(way):
    model = Twin()
    quantized = quant.quantize(model, calibration=[X[:7], X[7:]], **way)
    assert isinstance(quantized, Twin) and quantized.first is quantized.again
    assert isinstance(quantized.many[1].layers[0], QuantizedLinear)
    assert np.abs(quantized(X).data - model(X).data).max() < 0.05
    assert [layer.name for layer in quant.report(model, quantized, X).layers] == ["first", "many.0", "many.1.0"]
    partly = quant.quantize(model, calibration=X, skip=("again", "many.1"), **way)
    assert type(partly.first) is nn.Linear and isinstance(partly.many[0], QuantizedLinear)
    with pytest.raises(ArgumentError, match="Twin"):
        quant.save(quantized, "nowhere.safetensors")


def test_a_single_layer():
    layer = nn.Linear(13, 5, bias=False, seed=0)
    for method in quant.METHODS:
        quantized = quant.quantize(layer, method, calibration=X)
        assert isinstance(quantized, QuantizedLinear) and np.abs(quantized(X).data - layer(X).data).max() < 0.1


# ---- balancing

@pytest.mark.parametrize("options", [{}, {"norm": "layer"}, {"norm": "rms", "dropout": 0.2}, {"activation": "gelu"},
                                     {"activation": "leaky_relu"}], ids=str)
def test_balancing_changes_nothing_in_float(options):
    model = mlp(**options).eval()
    found = factors(model, linears(model), [X], 0.5)
    even, folded = balanced(model, found)
    foldable = options.get("activation") != "gelu"
    assert len(folded) == (2 if foldable else 0) and "0" not in folded
    np.testing.assert_allclose(even(X).data, model(X).data, atol=2e-5)


def test_balancing_stops_at_what_is_not_homogeneous():
    def folded(activation: nn.Module) -> set[str]:
        model = nn.Sequential(nn.LayerNorm(13), activation, nn.Linear(13, 5, seed=0))
        return balanced(model, factors(model, linears(model), [X], 0.5))[1]

    assert folded(nn.ReLU()) == folded(nn.LeakyReLU(0.3)) == folded(nn.Dropout(0.2)) == {"2"}
    assert folded(nn.ELU(2.0)) == folded(nn.ELU()) == folded(nn.Sigmoid()) == set()


def test_weights_that_two_layers_share_are_not_balanced():
    model = nn.MLP([6, 6, 6, 6], seed=0)
    model.layers[4].weight = model.layers[0].weight
    even, folded = balanced(model, factors(model, linears(model), [X[:, :6]], 0.5))
    assert folded == set()
    model.layers[4].weight = nn.Parameter(model.layers[0].weight.data.copy())
    even, folded = balanced(model, factors(model, linears(model), [X[:, :6]], 0.5))
    assert folded == {"2", "4"}
    np.testing.assert_allclose(even(X[:, :6]).data, model(X[:, :6]).data, atol=1e-5)


def test_balancing_helps_where_a_column_reaches_far():
    model, x = mlp(), X.copy()
    x[:, 3] *= 300
    model.layers[0].weight.data[:, 3] /= 300
    errors = []
    for smooth in (None, 0.7):
        quantized = quant.quantize(model, "static", calibration=x, smooth=smooth)
        errors.append(np.abs(quantized(x).data - model(x).data).mean())
    assert errors[1] < errors[0] / 3
    x[:, 5] = 0
    assert np.isfinite(quant.quantize(model, "static", calibration=x, smooth=0.5)(x).data).all()


def test_columns_of_zeros_are_balanced_like_the_others():
    """Large weights, and units that calibration never wakes: what they weigh does not spoil the rest."""
    model = mlp()
    model.layers[2].weight.data *= 1000
    model.layers[0].bias.data[::3] = -100
    model.layers[2].weight.data[:, 1] = 0
    s = factors(model, linears(model), [X], 0.5)["2"]
    assert (model.layers[0](X).data[:, ::3] < 0).all() and s.max() < 0.2
    np.testing.assert_allclose(s[[1, *range(0, 24, 3)]], s[0], rtol=1e-6)
    errors = [np.abs(quant.quantize(model, calibration=X, smooth=smooth)(X).data - model(X).data).max()
              for smooth in (None, 0.5)]
    assert errors[1] < 2 * errors[0]


# ---- errors: typed, in words, and with nothing changed

@pytest.mark.parametrize("arguments, error, words", [
    (dict(method="binary"), ArgumentError, "no method 'binary'"),
    (dict(observer="guess"), ArgumentError, "no observer 'guess'"),
    (dict(bits=3), ArgumentError, "bits is 8 or 4"),
    (dict(method="static", group_size=4, calibration=X), ArgumentError, "weight-only"),
    (dict(method="weight-only", group_size=4, per_channel=False), ArgumentError, "per_channel"),
    (dict(method="weight-only", group_size=0), ArgumentError, "group_size"),
    (dict(method="static"), ArgumentError, "needs calibration"),
    (dict(smooth=0.5), ArgumentError, "needs calibration"),
    (dict(smooth=1.5, calibration=X), ArgumentError, "0, 1"),
    (dict(skip=("0", "encoder")), ArgumentError, "'encoder'.*'0', '2', '4'"),
    (dict(skip=("0", "2", "4")), ArgumentError, "all of them skipped"),
    (dict(method="static", calibration=np.where(X > 2, np.nan, X)), ArgumentError, "calibration.*NaN"),
    (dict(method="static", calibration=[X, X * np.float32(np.inf)]), ArgumentError, "batch 1.*NaN or infinite"),
    (dict(method="static", calibration=X[:0]), ArgumentError, "not one row"),
    (dict(method="static", calibration=[]), ArgumentError, "not one row"),
    (dict(method="static", calibration=X[:, :7]), ShapeError, r"rows of shape \(7,\)"),
    (dict(method="static", calibration=np.sign(X) * np.float32(3e38)), ArgumentError, "inputs of layer '[24]'"),
    (dict(method="static", calibration=5), DTypeError, "array of rows, or batches of such, not 5"),
    (dict(method="static", calibration="rows"), DTypeError, "rows are numbers"),
    (dict(method="static", calibration=np.array([[None] * 13])), DTypeError, "batch 0 is object"),
    (dict(method="static", calibration=[X, [[1.0], [2.0, 3.0]]]), DTypeError, "cannot be read as an array"),
    (dict(method="static", calibration=np.where(X > 2, np.nan, X).astype(ml_dtypes.bfloat16)), ArgumentError, "NaN"),
    (dict(bits=8.0), ArgumentError, "bits is 8 or 4, not 8.0"),
    (dict(smooth="half", calibration=X), ArgumentError, "0, 1.*'half'"),
    (dict(smooth=np.nan, calibration=X), ArgumentError, "0, 1.*nan"),
    (dict(skip=0), ArgumentError, "skip holds names of layers.*0"),
    (dict(skip=None), ArgumentError, "skip holds names of layers.*None"),
])
def test_errors(arguments, error, words):
    model = mlp()
    before = states(model)
    with np.errstate(all="ignore"), pytest.raises(error, match=words):
        quant.quantize(model, **arguments)
    assert states(model) == before


def test_weights_that_are_not_finite():
    model = mlp()
    model.layers[2].weight.data[3, 3] = np.nan
    with pytest.raises(ArgumentError, match="layer '2'.*NaN"):
        quant.quantize(model)
    with pytest.raises(ArgumentError, match="no linear layers"):
        quant.quantize(nn.ReLU())
    with pytest.raises(ArgumentError, match="no Module.*ndarray"):
        quant.quantize(X)


# ---- files

@pytest.mark.parametrize("way", [*WAYS, dict(method="static", smooth=0.5, skip=("2",)), dict(smooth=0.3)], ids=str)
def test_files_give_back_the_same_bits(way, tmp_path):
    path = tmp_path / "model.safetensors"
    quantized = quant.quantize(mlp(norm="layer", dropout=0.1, activation="elu"), calibration=X, **way)
    quant.save(quantized, path, {"made by": "a test"})
    loaded = quant.load(path)
    assert states(loaded) == states(quantized)
    assert loaded(X).data.tobytes() == quantized(X).data.tobytes()
    assert [getattr(m, "fed", None) for m in loaded.layers] == [getattr(m, "fed", None) for m in quantized.layers]
    arrays, metadata = tw.data.read_safetensors(path)
    assert metadata["made by"] == "a test"
    assert arrays["0.weight"].shape == ((24, 7) if way.get("bits") == 4 else (24, 13))
    assert copy.deepcopy(quantized)(X).data.tobytes() == loaded(X).data.tobytes()


def test_integers_pass_between_layers_that_were_loaded(tmp_path):
    quantized = quant.quantize(mlp(), "static", calibration=X)
    quant.save(quantized, tmp_path / "m")
    loaded = quant.load(tmp_path / "m")
    assert loaded.layers[0](X, "relu").data.dtype == np.uint8
    loaded.load_state_dict(quant.quantize(mlp(), "static", calibration=2 * X).state_dict())
    assert loaded.layers[0].input.scale == 2 * quantized.layers[0].input.scale and loaded.layers[2].fed


@pytest.mark.parametrize("name, value, words", [
    ("4.weight_scales", np.nan, "scale"), ("4.weight_scales", 0, "scale"), ("4.weight_scales", np.inf, "scale"),
    ("4.weight_scales", -1, "scale"), ("4.input_scale", 0, "scale"), ("4.input_scale", np.nan, "scale"),
    ("4.input_zero_point", 16, "zero point")])
def test_a_state_with_a_bad_number_changes_no_layer(name, value, words):
    quantized, other = (quant.quantize(nn.MLP([13, 24, 16, 5], seed=seed), "static", calibration=X, bits=4)
                        for seed in (0, 1))
    before, state = states(quantized), other.state_dict()
    state[name] = np.full_like(state[name], value)
    with pytest.raises(ArgumentError, match=words):
        quantized.load_state_dict(state)
    assert states(quantized) == before


def test_float_layers_of_all_kinds(tmp_path):
    model = nn.Sequential(nn.Embedding(9, 4, seed=0), nn.Linear(4, 4, bias=False, seed=0), nn.LeakyReLU(0.3),
                          nn.RMSNorm(4), nn.Sequential(nn.GELU("tanh"), nn.LayerNorm(4, 0.1)), nn.Dropout(0.4, seed=3))
    quant.save(model, tmp_path / "m")
    x = np.arange(9)
    assert quant.load(tmp_path / "m")(x).data.tobytes() == model.eval()(x).data.tobytes()


def test_files_that_are_damaged(tmp_path):
    path = tmp_path / "model.safetensors"
    quant.save(quant.quantize(mlp(), "static", calibration=X), path)
    arrays, metadata = tw.data.read_safetensors(path)

    def broken(new_arrays: dict, **changed: str) -> str:
        tw.data.write_safetensors(path, new_arrays, metadata | changed)
        with pytest.raises(DataError, match="model.safetensors") as caught:
            quant.load(path)
        return str(caught.value)

    assert "was not written" in broken(arrays, format="else")
    told = json.loads(metadata["model"])
    for text in ("{", "[]", "{}", json.dumps(told | {"kind": "Secret"}), json.dumps(told | {"layers": 3})):
        broken(arrays, model=text)
    for name in ("0.weight", "0.weight_scales", "0.input_scale"):
        assert "damaged" in broken({k: a for k, a in arrays.items() if k != name})
    assert "extra" in broken(arrays | {"extra": np.ones(3)})
    for name, array in (("0.weight", arrays["0.weight"][:, :4]), ("0.bias", np.ones(3, np.float32)),
                        ("0.weight_scales", 0 * arrays["0.weight_scales"]), ("0.input_scale", np.float32(np.nan)),
                        ("0.weight_scales", arrays["0.weight_scales"] * np.float32(np.nan)),
                        ("0.input_zero_point", np.int64(256)), ("0.weight", arrays["0.weight"].astype(np.float32))):
        assert "damaged" in broken(arrays | {name: np.asarray(array)}), name


# ---- the report

@pytest.mark.parametrize("way", [dict(method=m) for m in quant.METHODS]
                         + [dict(method="static", smooth=0.5, observer="percentile"), dict(method="static", bits=4)],
                         ids=str)
def test_the_report(way):
    model = mlp()
    labels = model(X).data.argmax(axis=1)
    quantized = quant.quantize(model, calibration=X, skip=("2",), **way)
    report = quant.report(model, quantized, X, labels)
    assert [layer.name for layer in report.layers] == ["0", "4"]
    for layer in report.layers:
        assert (30 if way.get("bits") != 4 else 10) < layer.snr < 80 and layer.weights_used == 1
        static = way["method"] == "static"
        assert (layer.inputs_used is None) == (way["method"] == "weight-only")
        assert not static or 0.5 < layer.inputs_used <= 1 and 0 <= layer.clipped < 0.02
    assert report.before.accuracy == 1 and report.after.accuracy > 0.7 and report.snr > 8
    assert report.before.one_row > 0 and report.after.batch > 0
    assert report.before.nbytes == sum(p.data.nbytes for p in model.parameters())
    assert report.after.nbytes < 0.8 * report.before.nbytes


def test_what_a_report_refuses():
    model = mlp()
    quantized = quant.quantize(model)
    with pytest.raises(ShapeError, match="labels"):
        quant.report(model, quantized, X, np.zeros(3, int))
    with pytest.raises(ArgumentError, match="among the linear layers"):
        quant.report(nn.MLP([13, 5], seed=0), quantized, X)
    with pytest.raises(ArgumentError, match=r"layer '0' has weights \(24, 13\).*\(8, 13\)"):
        quant.report(nn.MLP([13, 8, 8, 5], seed=0), quantized, X)
    with pytest.raises(ArgumentError, match=r"layer '4' has weights \(5, 16\).*\(6, 16\)"):
        quant.report(nn.MLP([13, 24, 16, 6], seed=0), quantized, X)
    with pytest.raises(ArgumentError, match="NaN"):
        quant.report(model, quantized, X * np.float32(np.nan))
