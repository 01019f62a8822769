"""Quantize a model: observers, calibration, quantized layers, training, files, a report on what it costs and gains."""
from .convert import METHODS, quantize
from .files import load, save
from .layers import Grid, QuantizedLinear, StaticLinear
from .observers import MSE, OBSERVERS, Entropy, MinMax, Observer, Percentile
from .qat import QATLinear, convert, prepare_qat
from .report import LayerReport, Report, report

__all__ = ["Entropy", "Grid", "LayerReport", "METHODS", "MSE", "MinMax", "OBSERVERS", "Observer", "Percentile",
           "QATLinear", "QuantizedLinear", "Report", "StaticLinear", "convert", "load", "prepare_qat", "quantize",
           "report", "save"]
