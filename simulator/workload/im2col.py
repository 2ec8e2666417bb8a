"""The matrix that a convolution's GEMM multiplies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.workload.operations import Conv

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def im2col(feature_map: NDArray[np.generic], conv: Conv) -> NDArray[Any]:
    """(images, height, width, channels) -> (groups, images * oh * ow, kh * kw * cin / groups), padded with
    zeros.

    K is ordered (kh, kw, cin), cin fastest; with weights (groups, cout / groups, K) the product of each
    group is its output map. ``feature_map`` may hold values or codes whose zero is 0.
    """
    import numpy as np

    images, _, _, channels = feature_map.shape
    top, bottom, left, right = conv.padding
    padded = np.pad(feature_map, ((0, 0), (top, bottom), (left, right), (0, 0)))
    (kh, kw), (sh, sw), (dh, dw) = conv.kernel, conv.stride, conv.dilation
    oh, ow, cin = conv.out_height, conv.out_width, channels // conv.groups
    matrix = np.empty((conv.groups, images, oh, ow, kh, kw, cin), dtype=feature_map.dtype)
    for y in range(kh):
        for x in range(kw):
            rows = slice(y * dh, y * dh + (oh - 1) * sh + 1, sh)
            cols = slice(x * dw, x * dw + (ow - 1) * sw + 1, sw)
            taps = padded[:, rows, cols].reshape(images, oh, ow, conv.groups, cin)
            matrix[..., y, x, :] = np.moveaxis(taps, 3, 0)
    return matrix.reshape(conv.groups, images * oh * ow, kh * kw * cin)
