#!/usr/bin/env python3
"""Times PyTorch on the CPU on the networks of `atrous bench nets`, under the same names.

    python torch_nets.py --threads 2 --modes eager,compile --alloc default,tuned > torch.jsonl
    atrous bench nets --threads 2 --against torch.jsonl

A line of JSON a network, layout, mode and allocator, each in a process of its own: net, batch, the medians infer_ms (a batch),
infer1_ms (one picture) and train_ms (a training step; for fgsm the sign of the gradient by the picture), peak_rss_mib (of
the process that did all that), train_rss_mib (of one that only trains), and first_s (seconds until everything had run
once, compilation included).

Modes: `eager`; `compile`: torch.compile; `freeze`: torch.compile that takes weights for constants and folds batch norms, for
inference, and in training for a base that is frozen (the other networks have no train_ms then). `tuned` makes the C library keep large blocks and asks for huge pages; optimizers are fused then.
"""
import argparse
import itertools
import json

from timing import ALLOCATORS, BATCHES, Timer, listed, measure_cell, peak_rss_mib


def measure(net, layout, mode, alloc, threads, part):
    """The line of a cell; `part` "train" takes a few steps and nothing else."""
    import torch
    from torch_models import network

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model, side, targets, loss, make_optimizer = network(net)
    model = model.to(memory_format=form).eval()
    # Batch norm's count of batches is no parameter in Keras.
    parameters = sum(t.numel() for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked"))
    line = {"framework": f"torch {torch.__version__}", "net": net, "layout": layout, "mode": mode, "alloc": alloc,
            "threads": threads, "batch": BATCHES[net], "parameters": parameters}
    if mode == "freeze":
        import torch._inductor.config as inductor
        inductor.freezing = True
    # Static shapes: one compiled function for each batch size.
    run = model if mode == "eager" else torch.compile(model, dynamic=False)
    no_gradients = torch.inference_mode if mode == "eager" else torch.no_grad
    timer = Timer()

    def pictures(n):
        return torch.randn(n, 3, side, side).contiguous(memory_format=form)

    if part == "times":
        for key, n in (("infer_ms", BATCHES[net]), ("infer1_ms", 1)):
            with no_gradients():
                x = pictures(n)
                line[key] = timer.median_ms(lambda: run(x), 4.0)
    frozen_base = make_optimizer is not None and getattr(next(model.children()), "frozen", False)
    if mode == "freeze" and frozen_base:
        base, head = (torch.compile(module, dynamic=False) for module in (model[0], model[1:]))

        def run(x):
            with torch.no_grad():
                features = base(x)
            return head(features)

    if mode != "freeze" or frozen_base:
        x, y = pictures(BATCHES[net]), targets(BATCHES[net])
        if make_optimizer is None:
            x.requires_grad_(True)

            def step():
                return torch.autograd.grad(loss(run(x), y), x)[0].sign()
        else:
            model.train()
            for module in model.modules():
                if getattr(module, "frozen", False):
                    module.eval()
            optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], alloc == "tuned" or None)

            def step():
                optimizer.zero_grad(set_to_none=True)
                loss(run(x), y).backward()
                optimizer.step()

        line["train_ms"] = timer.median_ms(step, 6.0 if part == "times" else 0.0)
    line.update(peak_rss_mib=peak_rss_mib(), first_s=round(timer.first, 1))
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=listed, default=list(BATCHES), help="networks")
    parser.add_argument("--layouts", type=listed, default=["nchw", "channels_last"])
    parser.add_argument("--modes", type=listed, default=["eager"], help="eager, compile, freeze")
    parser.add_argument("--alloc", type=listed, default=["default"], help=", ".join(ALLOCATORS))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(measure(**json.loads(options.cell))))
        return
    for net, mode, alloc, layout in itertools.product(options.only, options.modes, options.alloc, options.layouts):
        cell = {"net": net, "layout": layout, "mode": mode, "alloc": alloc, "threads": options.threads}
        print(json.dumps(measure_cell(__file__, cell)), flush=True)


if __name__ == "__main__":
    main()
