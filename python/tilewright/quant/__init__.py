"""Quantize a model: observers, calibration, quantized layers, files, and a report on what it costs and gains."""
from .convert import METHODS, quantize
from .files import load, save
from .layers import Grid, QuantizedLinear, StaticLinear
from .observers import MSE, OBSERVERS, Entropy, MinMax, Observer, Percentile
from .report import LayerReport, Report, report

__all__ = ["Entropy", "Grid", "LayerReport", "METHODS", "MSE", "MinMax", "OBSERVERS", "Observer", "Percentile",
           "QuantizedLinear", "Report", "StaticLinear", "load", "quantize", "report", "save"]
