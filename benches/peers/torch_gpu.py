#!/usr/bin/env python3
"""Times PyTorch on a GPU on the layers of `atrous bench ops`: forward, and forward + backward.

Prints a line a case: median milliseconds of 20 runs after 5, with events around each; f32 (TF32 off),
NCHW and channels_last, whichever is quicker. Needs torch with CUDA.
"""
import statistics

import torch
import torch.nn.functional as F

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True
DEVICE = torch.device("cuda")


def median(run):
    times = []
    for i in range(25):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        if i >= 5:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def case(name, shape, make):
    best = None
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(shape, device=DEVICE)
        if len(shape) == 4:
            x = x.contiguous(memory_format=layout)
        x.requires_grad_()
        module, arguments = make(layout)
        with torch.no_grad():
            forward = median(lambda: module(x, *arguments))
        upstream = torch.randn_like(module(x, *arguments))

        def both():
            x.grad = None
            module(x, *arguments).backward(upstream)

        result = (forward, median(both))
        best = result if best is None else tuple(map(min, best, result))
    print(f"{name:<40} {best[0]:9.3f} {best[1]:9.3f}", flush=True)


def convolution(out, c, k, groups=1, **options):
    def make(layout):
        w = torch.randn(out, c // groups, k, k, device=DEVICE).contiguous(memory_format=layout)
        w.requires_grad_()
        return lambda x: F.conv2d(x, w, groups=groups, **options), ()

    return make


def function(f):
    return lambda layout: (f, ())


def batch_norm(c):
    def make(layout):
        gamma, beta = (torch.ones(c, device=DEVICE, requires_grad=True) for _ in range(2))
        return lambda x: F.batch_norm(x, None, None, gamma, beta, training=True), ()

    return make


print(f"{'case':<40} {'fwd ms':>9} {'fwd+bwd':>9}   {torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
case("conv 3x3 256>256 56x56 b4", (4, 256, 56, 56), convolution(256, 256, 3, padding=1))
case("conv 5x5 valid 64>128 48x48 b16", (16, 64, 48, 48), convolution(128, 64, 5))
case("conv 7x7 valid 3>64 150x150 b16", (16, 3, 150, 150), convolution(64, 3, 7))
case("conv 1x1 512>512 14x14 b4", (4, 512, 14, 14), convolution(512, 512, 1))
for d in (6, 12, 18):
    case(f"conv 3x3 dilation {d} 512>256 14x14 b4", (4, 512, 14, 14), convolution(256, 512, 3, padding=d, dilation=d))
case("depthwise 3x3 144 64x64 b16", (16, 144, 64, 64), convolution(144, 144, 3, groups=144, padding=1))
case("depthwise 3x3 512 14x14 b4", (4, 512, 14, 14), convolution(512, 512, 3, groups=512, padding=1))
case("batch_norm train 64 112x112 b16", (16, 64, 112, 112), batch_norm(64))
case("relu 64 112x112 b16", (16, 64, 112, 112), function(F.relu))
case("max pool 2s2 64 224x224 b16", (16, 64, 224, 224), function(lambda x: F.max_pool2d(x, 2)))
case("bilinear x4 256 14x14 b4", (4, 256, 14, 14), function(lambda x: F.interpolate(x, scale_factor=4, mode="bilinear")))
case("bilinear x4 21 56x56 b4", (4, 21, 56, 56), function(lambda x: F.interpolate(x, scale_factor=4, mode="bilinear")))
