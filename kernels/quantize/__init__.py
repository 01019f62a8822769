"""Conversions between floats and small integers, by a scale and a zero point."""
