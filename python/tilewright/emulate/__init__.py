"""Runs compiled PTX on the CPU and says what is wrong with it: see docs/EMULATOR.md.

    module = emulate.Module(ptx_text)
    report = module.launch("kernel", grid, block, args, memory=[(array, "rw"), ...])

Knows nothing of the rest of tilewright.
"""
from .errors import Fault, Unsupported
from .module import Module
from .report import Accesses, Finding, Report

__all__ = ["Accesses", "Fault", "Finding", "Module", "Report", "Unsupported"]
