"""A convolution lowered to a GEMM is the convolution, for every geometry."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.workload import Conv, im2col


@st.composite
def convolutions(draw):
    """Small geometries in which the window fits."""
    small = st.integers(1, 3)
    kernel, stride, dilation = ((draw(small), draw(small)) for _ in range(3))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    groups = draw(small)
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    height = draw(st.integers(max(1, spans[0] - padding[0] - padding[1]), 9))
    width = draw(st.integers(max(1, spans[1] - padding[2] - padding[3]), 9))
    channels, out = groups * draw(small), groups * draw(small)
    return Conv(height, width, channels, out, kernel, stride, padding, dilation, groups)


def direct(x, weights, conv):
    """The definition, tap by tap; weights (out, kh, kw, cin / groups). Also counts the taps."""
    images, height, width, _ = x.shape
    cin, cout = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    top, bottom, left, right = conv.padding
    rows = starts(-top, height + bottom, conv.kernel[0], conv.stride[0], conv.dilation[0])
    cols = starts(-left, width + right, conv.kernel[1], conv.stride[1], conv.dilation[1])
    out = np.zeros((images, len(rows), len(cols), conv.out_channels), dtype=np.int64)
    taps = 0
    for image in range(images):
        for i, y in enumerate(rows):
            for j, z in enumerate(cols):
                for o in range(conv.out_channels):
                    for u in range(conv.kernel[0]):
                        for v in range(conv.kernel[1]):
                            for c in range(cin):
                                taps += 1
                                a, b = y + u * conv.dilation[0], z + v * conv.dilation[1]
                                if 0 <= a < height and 0 <= b < width:
                                    channel = o // cout * cin + c
                                    out[image, i, j, o] += x[image, a, b, channel] * weights[o, u, v, c]
    return out, taps


def starts(first, end, kernel, stride, dilation):
    """First taps of the windows that lie before ``end``, the end of the padding."""
    return [start for start in range(first, end) if start + dilation * (kernel - 1) < end][::stride]


@settings(max_examples=120, deadline=None)
@given(convolutions(), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_im2col_times_weights_is_the_convolution(conv, images, seed):
    random = np.random.default_rng(seed)
    cin = conv.in_channels // conv.groups
    x = random.integers(-9, 10, (images, conv.in_height, conv.in_width, conv.in_channels))
    weights = random.integers(-9, 10, (conv.out_channels, *conv.kernel, cin))
    expected, taps = direct(x, weights, conv)
    assert expected.shape == (images, conv.out_height, conv.out_width, conv.out_channels)
    matrix = im2col(x, conv)
    k = conv.kernel[0] * conv.kernel[1] * cin
    m = images * conv.out_height * conv.out_width
    assert matrix.shape == (conv.groups, m, k)
    assert taps == conv.groups * m * k * (conv.out_channels // conv.groups)
    product = matrix @ weights.reshape(conv.groups, -1, k).transpose(0, 2, 1)
    assert (product.transpose(1, 0, 2).reshape(expected.shape) == expected).all()
