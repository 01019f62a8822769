"""Measure and compare: what every kernel of the table gives on this machine, checked before it is timed.

    from tilewright import bench
    comparison = bench.compare(["matmul"], size="medium")
    print(bench.markdown(comparison))
"""
from .accuracy import Accuracy, Expectation
from .comparison import Comparison, Result, Skipped, compare, contestants
from .host import machine
from .peaks import Roof, copy_peak, dot_peak, fma_peak, roof
from .report import conditions, from_json, markdown, to_json
from .timing import interleaved

__all__ = ["Accuracy", "Comparison", "Expectation", "Result", "Roof", "Skipped", "compare", "conditions", "contestants",
           "copy_peak", "dot_peak", "fma_peak", "from_json", "interleaved", "machine", "markdown", "roof", "to_json"]
