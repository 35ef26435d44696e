"""What the standards say, in float64 and one value at a time, to hold vidrestore against."""

import numpy as np

# kr, kb of ITU-R BT.601-7, BT.709-6, BT.2020-2.
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}

# Linear light to BT.709 in four digits: of BT.2020 as Rep. ITU-R BT.2407 prints it, and of P3-D65.
TO_BT709 = {
    "bt709": np.eye(3),
    "bt2020": np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083],
                        [-0.0182, -0.1006, 1.1187]]),
    "p3": np.array([[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]]),
}  # fmt: skip


def luma(rgb, matrix):
    """Y' of R'G'B' (3,)."""
    kr, kb = LUMA[matrix]
    return kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]


def ycc_codes(rgb, matrix, *, full, bits):
    """Code values of Y', Cb, Cr for R'G'B' (3,), not rounded; ISO/IEC 23091-2."""
    kr, kb = LUMA[matrix]
    y = luma(rgb, matrix)
    pb, pr = (rgb[2] - y) / 2 / (1 - kb), (rgb[0] - y) / 2 / (1 - kr)
    if full:
        top = 2**bits - 1
        return np.clip([top * y, top * pb + 2 ** (bits - 1), top * pr + 2 ** (bits - 1)], 0, top)
    return np.array([219 * y + 16, 224 * pb + 128, 224 * pr + 128]) * 2 ** (bits - 8)


def rgb_codes(rgb, *, full, bits):
    """Code values of R', G', B' of (3,), not rounded."""
    if full:
        return np.asarray(rgb) * (2**bits - 1)
    return (219 * np.asarray(rgb) + 16) * 2 ** (bits - 8)


def pq_nits(signal):
    """SMPTE ST 2084 equation 4.1: luminance of a signal in [0, 1]."""
    m1, m2 = 0.1593017578125, 78.84375
    c1, c2, c3 = 0.8359375, 18.8515625, 18.6875
    root = np.power(signal, 1 / m2)
    return 10000 * np.power(np.maximum(root - c1, 0) / (c2 - c3 * root), 1 / m1)


def pq_signal(nits):
    """SMPTE ST 2084 equation 5.2."""
    m1, m2 = 0.1593017578125, 78.84375
    c1, c2, c3 = 0.8359375, 18.8515625, 18.6875
    root = np.power(np.asarray(nits) / 10000, m1)
    return np.power((c1 + c2 * root) / (1 + c3 * root), m2)


def hlg_scene(signal):
    """ITU-R BT.2100 table 5, inverse OETF: scene light in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.asarray(signal)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def hlg_signal(scene):
    """ITU-R BT.2100 table 5, OETF."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.asarray(scene)
    upper = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


def shoulder(display, peak):
    """1 at `peak`, unchanged to 0.75: u / (1 + c u) with equal slopes where they meet."""
    u, top = (display - 0.75) / 0.25, (peak - 0.75) / 0.25
    bent = 0.75 + 0.25 * u / (1 + (1 - 1 / top) * u)
    return np.where(display <= 0.75, display, bent)


def display_of(rgb, transfer, primaries):
    """What a network is to see of a legal signal R'G'B' (3,) whose BT.709 light is positive."""
    rgb = np.asarray(rgb, dtype=float)
    if (transfer, primaries) == ("sdr", "bt709"):
        return rgb
    if transfer == "pq":
        light = TO_BT709[primaries] @ (pq_nits(rgb) / 203)
        return shoulder(light ** (1 / 2.4), (10000 / 203) ** (1 / 2.4))
    if transfer == "hlg":
        return shoulder(hlg_signal(TO_BT709[primaries] @ hlg_scene(rgb)) / 0.75, 1 / 0.75)
    return (TO_BT709[primaries] @ rgb**2.4) ** (1 / 2.4)
