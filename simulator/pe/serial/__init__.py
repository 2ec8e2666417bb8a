"""Time of bit-serial and term-serial machines, as functions of the integers that they work on.

`terms` says what a value costs, `sync` who waits for whom, and `kernels` has the rules of `sync` for whole tensors, by
the same names. A PE family takes its cycles from `sync` where an array is stepped, and from `kernels` where folds are
counted: one rule for each operand that time depends on (the operand's profile), then one function that makes streams
of the profiles.

Where both operands are serial, a step costs a product, and its maximum over rows, columns and groups of both is the
product of the maxima: each operand is scanned once, whatever the folds of the other (`product_streams`).
"""

from simulator.pe.serial.terms import Recoding, booth_digits, term_counts, term_masks, widths

__all__ = ["Recoding", "booth_digits", "term_counts", "term_masks", "widths"]
