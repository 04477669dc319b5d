#!/usr/bin/env python3
"""Errors of PyTorch's f32 kernels on the CPU against its own f64 ones, on the inputs of `atrous bench accuracy`.

    python torch_accuracy.py > torch.jsonl
    atrous bench accuracy --against torch.jsonl

A line of JSON a case and layout: op, shape, layout, and the errors error_forward, error_dx, error_dw, …: the root of the
mean square of what f32 is off, as a fraction of the root of the mean square of the f64 result. Inputs come of a formula
(src/bench/accuracy.rs says it, too), so that both sides have the same bits; of the pictures of `torch_ops.py` there are at
most 4, their sides at most 56.
"""
import argparse
import json

import numpy as np
import torch
import torch.nn.functional as F

from torch_ops import CONVOLUTIONS

BATCH, SIDE = 4, 56


def hashes(shape, number):
    """Wellons' lowbias32 of i + number * 0x9e3779b9, modulo 2^32."""
    start = np.uint32(number * 0x9E3779B9 & 0xFFFFFFFF)
    h = np.arange(int(np.prod(shape)), dtype=np.uint32) + start
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x7FEB352D)
    h = (h ^ h >> np.uint32(15)) * np.uint32(0x846CA68B)
    return (h ^ h >> np.uint32(16)).reshape(shape)


assert hashes((3,), 1).tolist() == [33350994, 2672842292, 127880910], "not the formula that atrous has"


def uniform(shape, number):
    """f32 in [-1, 1), exactly."""
    return torch.from_numpy((hashes(shape, number) >> np.uint32(8)).astype(np.float32) / np.float32(1 << 23) - np.float32(1))


def pictures(shape, number):
    """Values in the order of NHWC, as a tensor of NCHW."""
    return uniform(shape, number).permute(0, 3, 1, 2)


def relative_rms(got, expected):
    off = (got.double() - expected).square().sum() / expected.square().sum()
    return float(f"{off.sqrt().item():.3e}")


def results(run, inputs, form, dtype):
    """The result and the gradients of those inputs that are wanted: (name, tensor, wanted)."""
    leaves = []
    for _, tensor, wanted in inputs:
        tensor = tensor.to(dtype).contiguous(memory_format=form if tensor.dim() == 4 else torch.contiguous_format)
        leaves.append(tensor.detach().requires_grad_(wanted))
    y = run(*leaves)
    if y.dim() == 0:
        upstream = torch.ones_like(y)
    elif y.dim() == 4:
        n, c, h, w = y.shape
        upstream = pictures((n, h, w, c), 0).to(dtype).contiguous(memory_format=form)
    else:
        upstream = uniform(tuple(y.shape), 0).to(dtype)
    y.backward(upstream)
    named = {"error_forward": y.detach()}
    named.update({f"error_d{name}": leaf.grad for (name, _, wanted), leaf in zip(inputs, leaves) if wanted})
    return named


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def compare(op, shape, run, inputs, layouts=("nchw", "channels_last")):
        expected = results(run, inputs, torch.contiguous_format, torch.float64)
        for layout in layouts:
            form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            got = results(run, inputs, form, torch.float32)
            line = {"framework": f"torch {torch.__version__}", "op": op, "shape": shape, "layout": layout}
            line.update({key: relative_rms(got[key], expected[key]) if expected[key].any() else 0.0 for key in got})
            print(json.dumps(line), flush=True)

    for op, n, c, side, f, k, stride, padding, dilation, groups in CONVOLUTIONS:
        n, side = min(n, BATCH), min(side, SIDE)
        depthwise = groups > 1
        w = uniform((k, k, c, 1 if depthwise else f), 2).permute(*((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)))
        inputs = [("x", pictures((n, side, side, c), 1), not op.endswith("no_input_grad")), ("w", w, True),
                  ("b", uniform((f,), 3), True)]

        def run(x, w, b):
            # TensorFlow's "same": of an odd number of cells the last is after the picture.
            cells = max((-(-side // stride) - 1) * stride + (k - 1) * dilation + 1 - side, 0) if padding else 0
            if cells % 2:
                x = F.pad(x, (cells // 2, cells - cells // 2) * 2)
                return F.conv2d(x, w, b, stride, 0, dilation, groups)
            return F.conv2d(x, w, b, stride, cells // 2, dilation, groups)

        compare(op, f"[{n}] {c}->{f} {side}x{side}", run, inputs)

    for op, n, c, side, run in [
        ("sigmoid", 16, 64, 112, torch.sigmoid),
        ("tanh", 16, 64, 112, torch.tanh),
        ("maxpool3x3_s3", 16, 64, 144, lambda x: F.max_pool2d(x, 3)),
        ("maxpool2x2_s2", 10, 64, 224, lambda x: F.max_pool2d(x, 2)),
        ("bilinear_x4", 4, 256, 14, lambda x: F.interpolate(x, scale_factor=4, mode="bilinear")),
        ("bilinear_x4", 4, 256, 56, lambda x: F.interpolate(x, scale_factor=4, mode="bilinear")),
        ("bilinear_x4", 4, 21, 56, lambda x: F.interpolate(x, scale_factor=4, mode="bilinear")),
    ]:
        n, side = min(n, BATCH), min(side, SIDE)
        compare(op, f"[{n}] {c} {side}x{side}", run, [("x", pictures((n, side, side, c), 1), True)])

    n, c, side = BATCH, 64, SIDE
    inputs = [("x", pictures((n, side, side, c), 1), True), ("gamma", uniform((c,), 2), True), ("beta", uniform((c,), 3), True)]
    compare("batch_norm_train", f"[{n}] {c} {side}x{side}",
            lambda x, gamma, beta: F.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-3), inputs)

    n, c, side = BATCH, 21, SIDE
    labels = torch.from_numpy((hashes((n, side, side), 2) % np.uint32(c)).astype(np.int64))
    compare("softmax_cross_entropy", f"[{n}] {c} classes {side}x{side}",
            lambda x: F.cross_entropy(x, labels, ignore_index=3), [("x", pictures((n, side, side, c), 1), True)])

    for op, n, rows, columns in [("dense", 10, 25088, 512), ("dense", 16, 100352, 512), ("matmul", 1024, 1024, 1024)]:
        shape = f"{n}x{rows}x{columns}" if op == "matmul" else f"[{n}] {rows}->{columns}"
        inputs = [("x", uniform((n, rows), 1), True), ("w", uniform((rows, columns), 2), True), ("b", uniform((columns,), 3), True)]
        compare(op, shape, lambda x, w, b: torch.addmm(b, x, w), inputs, ("-",))


if __name__ == "__main__":
    main()
