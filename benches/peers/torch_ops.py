#!/usr/bin/env python3
"""Times PyTorch on the operators of `atrous bench ops`, under the same names and shapes.

    python torch_ops.py --threads 2 --alloc tuned > torch.jsonl
    atrous bench ops --threads 2 --against torch.jsonl

A line of JSON a case and layout: op, shape, layout, alloc, threads, and the medians fwd_ms and fwdbwd_ms. `tuned` makes the C
library keep large blocks, and asks for huge pages: without it PyTorch takes page faults in every layer of 32 MiB
and more; optimizers are fused then. Only ratios within one run mean anything: ../cpu_compare.py runs the two in turn.

`--device cuda` times a GPU by its own clock, ten runs asked for one after the other at a time, as `atrous bench ops` does there;
`--precision tf32` lets convolutions and matrix products round their factors.
"""
import argparse
import json
import os
import sys

from timing import ALLOCATORS, environment, listed

# name, batch, channels, side, filters, kernel, stride, padding, dilation, groups; no gradient by the input where the name says so
CONVOLUTIONS = [
    ("conv7x7_valid_first_layer_no_input_grad", 16, 3, 150, 64, 7, 1, 0, 1, 1),
    ("conv7x7_valid_first_layer", 16, 3, 150, 64, 7, 1, 0, 1, 1),
    ("conv5x5_valid", 16, 64, 48, 128, 5, 1, 0, 1, 1),
    ("conv3x3_valid", 16, 145, 12, 145, 3, 1, 0, 1, 1),
    ("conv3x3_same", 4, 64, 224, 64, 3, 1, 1, 1, 1),
    ("conv3x3_same", 4, 256, 56, 256, 3, 1, 1, 1, 1),
    ("conv3x3_same", 4, 512, 14, 512, 3, 1, 1, 1, 1),
    ("conv3x3_same_s2_first_layer_no_input_grad", 16, 3, 256, 32, 3, 2, 1, 1, 1),
    ("conv3x3_same_s2_first_layer", 16, 3, 256, 32, 3, 2, 1, 1, 1),
    ("conv1x1", 4, 512, 14, 512, 1, 1, 0, 1, 1),
    ("conv1x1", 4, 64, 56, 128, 1, 1, 0, 1, 1),
    ("conv1x1", 16, 24, 64, 144, 1, 1, 0, 1, 1),
    ("conv1x1", 16, 144, 64, 24, 1, 1, 0, 1, 1),
    ("conv1x1", 4, 256, 224, 21, 1, 1, 0, 1, 1),
    ("depthwise3x3", 4, 32, 112, 32, 3, 1, 1, 1, 32),
    ("depthwise3x3", 16, 144, 64, 144, 3, 1, 1, 1, 144),
    ("depthwise3x3", 4, 512, 14, 512, 3, 1, 1, 1, 512),
    ("depthwise3x3_s2", 16, 96, 128, 96, 3, 2, 1, 1, 96),
    ("atrous3x3_d6", 4, 512, 14, 256, 3, 1, 6, 6, 1),
    ("atrous3x3_d12", 4, 512, 14, 256, 3, 1, 12, 12, 1),
    ("atrous3x3_d18", 4, 512, 14, 256, 3, 1, 18, 18, 1),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--alloc", choices=list(ALLOCATORS), default="default")
    parser.add_argument("--seconds", type=float, default=1.0, help="for one measurement")
    parser.add_argument("--only", type=listed, default=[""], help="cases whose name and shape have one of these in them")
    parser.add_argument("--layouts", type=listed, default=["nchw", "channels_last"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["f32", "tf32"], default="f32")
    options = parser.parse_args()
    wanted = environment(options.alloc)
    if wanted != os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)

    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    randn = lambda *size: torch.randn(*size, device=device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    if options.device == "cuda":
        from gpu_timing import median_ms

        options.alloc = "tuned"  # PyTorch keeps a GPU's memory; its fused optimizers are asked for below
    else:
        from timing import median_ms
    forms = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last, "-": torch.contiguous_format}

    def asked(op, shape):
        return any(part in f"{op} {shape}" for part in options.only)

    def show(op, shape, layout, forward, both):
        line = {"framework": f"torch {torch.__version__}", "op": op, "shape": shape, "layout": layout,
                "alloc": options.alloc, "threads": options.threads, "device": options.device,
                "precision": options.precision, "fwd_ms": forward, "fwdbwd_ms": both}
        print(json.dumps(line), flush=True)

    def measure(op, shape, layout, module, size, of_input=True):
        if not asked(op, shape):
            return
        form = forms[layout]
        module, x = module().to(device, memory_format=form), randn(size).contiguous(memory_format=form)
        with torch.no_grad():
            upstream = torch.randn_like(module(x))
            forward = median_ms(lambda: module(x), options.seconds)
        leaf = x.detach().requires_grad_(of_input)

        def step():
            leaf.grad = None
            module.zero_grad(set_to_none=True)
            module(leaf).backward(upstream)

        show(op, shape, layout, forward, median_ms(step, options.seconds))

    up = lambda: nn.Upsample(scale_factor=4, mode="bilinear")
    others = [
        ("batch_norm_train", 16, 64, 112, lambda: nn.BatchNorm2d(64)),
        ("relu", 16, 64, 112, nn.ReLU),
        ("relu6", 16, 64, 112, nn.ReLU6),
        ("maxpool3x3_s3", 16, 64, 144, lambda: nn.MaxPool2d(3)),
        ("maxpool2x2_s2", 10, 64, 224, lambda: nn.MaxPool2d(2)),
        ("bilinear_x4", 4, 256, 14, up),
        ("bilinear_x4", 4, 256, 56, up),
        ("bilinear_x4", 4, 21, 56, up),
    ]
    for layout in options.layouts:
        for name, n, c, side, f, k, s, p, d, groups in CONVOLUTIONS:
            module = lambda: nn.Conv2d(c, f, k, stride=s, padding=p, dilation=d, groups=groups)
            of_input = not name.endswith("no_input_grad")
            measure(name, f"[{n}] {c}->{f} {side}x{side}", layout, module, (n, c, side, side), of_input)
        for name, n, c, side, module in others:
            measure(name, f"[{n}] {c} {side}x{side}", layout, module, (n, c, side, side))
        name, shape = "softmax_cross_entropy", "[4] 21 classes 224x224"
        if asked(name, shape):
            x = randn(4, 21, 224, 224).contiguous(memory_format=forms[layout])
            target = torch.randint(0, 21, (4, 224, 224), device=device)
            leaf = x.detach().requires_grad_(True)

            def cross_entropy():
                leaf.grad = None
                F.cross_entropy(leaf, target).backward()

            with torch.no_grad():
                forward = median_ms(lambda: F.cross_entropy(x, target), options.seconds)
            show(name, shape, layout, forward, median_ms(cross_entropy, options.seconds))
    for n, inputs, outputs in ((10, 25088, 512), (16, 100352, 512)):
        measure("dense", f"[{n}] {inputs}->{outputs}", "-", lambda: nn.Linear(inputs, outputs), (n, inputs))
    if asked("matmul", "1024x1024x1024"):
        a, b = randn(1024, 1024), randn(1024, 1024)
        show("matmul", "1024x1024x1024", "-", median_ms(lambda: a @ b, options.seconds), None)
    parts, total = 44, 11_000_000
    quick = options.alloc == "tuned" or None
    optimizers = {
        "optimizer_adam": lambda p: torch.optim.Adam(p, lr=1e-4, fused=quick),
        "optimizer_sgd_momentum": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9, fused=quick),
        "optimizer_rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-4, foreach=quick),
    }
    for name, make in optimizers.items():
        shape = f"{total} parameters in {parts} tensors"
        if not asked(name, shape):
            continue
        parameters = [nn.Parameter(randn(total // parts)) for _ in range(parts)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer = make(parameters)
        show(name, shape, "-", median_ms(optimizer.step, options.seconds), None)


if __name__ == "__main__":
    main()
