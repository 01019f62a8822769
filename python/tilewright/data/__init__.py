"""Loaders, cleaning and mini-batches. Everything is NumPy in, NumPy out; errors name the file and the place in it."""
from .batches import Batches
from .cleaning import Imputer, LabelEncoder, Normalizer, drop_missing, one_hot, split
from .datasets import load_digits, load_mnist
from .npy import open_npy
from .safetensors import read_safetensors, write_safetensors
from .tables import Table, read_csv

__all__ = ["Batches", "Imputer", "LabelEncoder", "Normalizer", "Table", "drop_missing", "load_digits", "load_mnist",
           "one_hot", "open_npy", "read_csv", "read_safetensors", "split", "write_safetensors"]
