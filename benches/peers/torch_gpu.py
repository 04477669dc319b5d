#!/usr/bin/env python3
"""Times PyTorch on a GPU on the networks of `atrous bench nets --device cuda`, under the same names.

    python torch_gpu.py --precisions f32 > torch.jsonl
    atrous bench nets --device cuda --against torch.jsonl

A line of JSON a network, precision, layout and mode: the medians infer_ms (a batch), infer1_ms (one picture) and train_ms (a training
step; for fgsm the sign of the gradient by the picture). As there, pictures and labels come from the CPU's (pinned) memory in each
step, and a step ends with its loss on the CPU.

Modes: `eager`; `graph`: forward, loss, backward and optimizer captured once as a CUDA graph, and replayed.
Precisions: `f32`; `tf32`: convolutions and matrix products round their factors; `bf16`: autocast. `--minutes` stops before the next cell.
"""
import argparse
import itertools
import json
import sys
import time

import torch

from timing import BATCHES, listed, median_ms
from torch_models import network


class Cell:
    def __init__(self, net, precision, layout, mode):
        self.net, self.mode, self.precision = net, mode, precision
        self.form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.model, self.side, self.targets, self.loss, self.make_optimizer = network(net)
        self.model = self.model.cuda().to(memory_format=self.form).eval()

    def autocast(self):
        return torch.autocast("cuda", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)

    def pictures(self, n):
        return torch.randn(n, 3, self.side, self.side).contiguous(memory_format=self.form).pin_memory()

    def captured(self, run):
        """What `run` does, as a graph; some runs beside it come first, as PyTorch asks for."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()
        return graph, result

    def inference(self, n):
        source = self.pictures(n)
        x = source.cuda()

        def run():
            with self.autocast():
                return self.model(x)

        with torch.no_grad():
            replay = self.captured(run)[0].replay if self.mode == "graph" else run

            def once():
                x.copy_(source, non_blocking=True)
                replay()
                torch.cuda.synchronize()

            return median_ms(once, 1.5)

    def step(self):
        n = BATCHES[self.net]
        sources = [self.pictures(n), self.targets(n).pin_memory()]
        x, y = (source.cuda() for source in sources)
        if self.make_optimizer is None:
            x.requires_grad_(True)

            def run():
                with self.autocast():
                    scores = self.model(x)
                return torch.autograd.grad(self.loss(scores.float(), y), x)[0].sign()
        else:
            self.model.train()
            for module in self.model.modules():
                if getattr(module, "frozen", False):
                    module.eval()
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            optimizer = self.make_optimizer(parameters, True)
            if self.mode == "graph":
                for group in optimizer.param_groups:
                    if "capturable" in group:
                        group["capturable"] = True

            def run():
                optimizer.zero_grad(set_to_none=True)
                with self.autocast():
                    scores = self.model(x)
                loss = self.loss(scores.float(), y)
                loss.backward()
                optimizer.step()
                return loss.detach()

        graph, result = self.captured(run) if self.mode == "graph" else (None, None)

        def once():
            with torch.no_grad():
                x.copy_(sources[0], non_blocking=True)
                y.copy_(sources[1], non_blocking=True)
            if graph is None:
                done = run()
            else:
                graph.replay()
                done = result
            if self.make_optimizer is not None:
                done.item()
            torch.cuda.synchronize()

        return median_ms(once, 1.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed, default=list(BATCHES), help="networks")
    parser.add_argument("--precisions", type=listed, default=["f32", "tf32", "bf16"])
    parser.add_argument("--layouts", type=listed, default=["channels_last", "nchw"])
    parser.add_argument("--modes", type=listed, default=["eager", "graph"])
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    begin = time.monotonic()
    for precision, layout, net, mode in itertools.product(options.precisions, options.layouts, options.only, options.modes):
        if time.monotonic() - begin > 60 * options.minutes:
            print(f"out of time before {net} {precision} {layout} {mode}", file=sys.stderr)
            break
        line = {"framework": f"torch {torch.__version__}", "net": net, "device": "cuda", "precision": precision,
                "layout": layout, "mode": mode, "batch": BATCHES[net]}
        try:
            cell = Cell(net, precision, layout, mode)
            line.update(infer_ms=cell.inference(BATCHES[net]), infer1_ms=cell.inference(1), train_ms=cell.step())
        except Exception as error:
            line["failed"] = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
