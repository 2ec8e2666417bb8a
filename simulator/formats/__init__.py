"""Number formats: codes and their values, scales, quantization, and the bits that memory really holds.

A `Format` is a value that `get_format` makes from a name such as ``int4_g128`` or ``mxfp4``; `quantize` turns
an array (reduction axis last) into a `QuantizedTensor` of codes and scales, `dequantize` turns it back.
"""

from simulator.formats.element import Element, value_table
from simulator.formats.format import Format
from simulator.formats.names import format_names, get_format
from simulator.formats.packing import pack, unpack
from simulator.formats.quantizer import quantize
from simulator.formats.tensor import QuantizedTensor, dequantize, exact_integers

__all__ = [
    "Element",
    "Format",
    "QuantizedTensor",
    "dequantize",
    "exact_integers",
    "format_names",
    "get_format",
    "pack",
    "quantize",
    "unpack",
    "value_table",
]
