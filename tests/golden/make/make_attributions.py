"""What Captum says of a small network: the reference that our attributions are compared with.

    make_attributions.py tests/golden/attributions   attributions.npz and attributions.json   (needs torch, captum)

The network is computed in float64, by float32 weights made from a hash of their names (tag "attributions") and at
float32 images, NHWC, -1 to 1:

    conv2d: 3x3, 8, same, bias, relu
    max_pooling2d: 2x2
    conv2d_1: 3x3, 12, same, no bias
    batch_normalization: inference, epsilon 1e-3
    activation: relu
    depthwise_conv2d: 3x3, strides 2, same (pads 0 before, 1 after), no bias
    conv2d_2: 1x1, 16, bias, relu
    global_average_pooling2d, dense: 6 with bias

Each image is explained for its own class, the one of the largest logit. Arrays, float64 (f8) or float32 (f4):

    input                    f4 [2,16,16,3]
    baseline                 f4 [1,16,16,3]   one value a channel
    logits                   f8 [2,6]
    ig_gausslegendre         f4 [2,16,16,3]   IntegratedGradients, n_steps 50
    ig_riemann_RULE          f4 [2,16,16,3]   the same by left, middle, right, n_steps 20
    ig_delta                 f8 [4,2]         convergence deltas of the four, in this order
    grad_cam_LAYER           f4 [2,h,w]       LayerGradCam, without its ReLU
    saliency                 f4 [2,16,16,3]   the gradient, with its sign
    occlusion                f4 [2,16,16]     Occlusion, windows 5x4 (all channels), strides 3x4, covered by the baseline

Made with torch 2.15, captum 0.9, numpy 2.4.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion, Saliency
from torch import nn

from make_weights import hashed, hashed_weight

TAG = "attributions"
SIZE, CLASSES = 16, 6
GAIN, DENSE_GAIN = 1.0, 2.0
BASELINE = [-0.5, 0.25, 0.0]
WINDOW, STRIDE = [5, 4], [3, 4]
RULES = ["gausslegendre", "riemann_left", "riemann_middle", "riemann_right"]


def weight(name, shape):
    made = hashed_weight(TAG, name, shape, GAIN, DENSE_GAIN)
    return torch.from_numpy(made.astype(np.float64))


def convolution(name, inputs, outputs, kernel, bias=True, **options):
    """A Conv2d of Keras' kernel, [kh, kw, in, out]."""
    layer = nn.Conv2d(inputs, outputs, kernel, bias=bias, **options).double()
    layer.weight.data = weight(f"{name}/kernel", (kernel, kernel, inputs, outputs)).permute(3, 2, 0, 1)
    if bias:
        layer.bias.data = weight(f"{name}/bias", (outputs,))
    return layer


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2d = nn.Sequential(convolution("conv2d", 3, 8, 3, padding=1), nn.ReLU())
        self.conv2d_1 = convolution("conv2d_1", 8, 12, 3, bias=False, padding=1)
        norm = self.batch_normalization = nn.BatchNorm2d(12, eps=1e-3).double()
        names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        for theirs, ours in names.items():
            getattr(norm, theirs).data = weight(f"batch_normalization/{ours}", (12,))
        self.activation = nn.ReLU()
        self.depthwise_conv2d = nn.Conv2d(12, 12, 3, stride=2, groups=12, bias=False).double()
        kernel = weight("depthwise_conv2d/depthwise_kernel", (3, 3, 12, 1))
        self.depthwise_conv2d.weight.data = kernel.permute(2, 3, 0, 1)
        self.conv2d_2 = nn.Sequential(convolution("conv2d_2", 12, 16, 1), nn.ReLU())
        self.dense = nn.Linear(16, CLASSES).double()
        self.dense.weight.data = weight("dense/kernel", (16, CLASSES)).T
        self.dense.bias.data = weight("dense/bias", (CLASSES,))

    def forward(self, x):
        x = F.max_pool2d(self.conv2d(x), 2)
        x = self.activation(self.batch_normalization(self.conv2d_1(x)))
        x = self.depthwise_conv2d(F.pad(x, (0, 1, 0, 1)))
        return self.dense(self.conv2d_2(x).mean((2, 3)))


def nhwc(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


def main(folder):
    network = Network().eval()
    images = (2 * hashed(TAG, "input", (2, SIZE, SIZE, 3)) - 1).astype(np.float32)
    # The second one of another colour, so that it is of another class.
    images[1, ..., 0] = images[1, ..., 0] * np.float32(0.5) - np.float32(0.5)
    baseline = np.broadcast_to(np.float32(BASELINE), (1, SIZE, SIZE, 3))
    x, x0 = [torch.from_numpy(v.astype(np.float64)).permute(0, 3, 1, 2) for v in (images, baseline)]
    logits = network(x).detach()
    classes = logits.argmax(1)
    arrays = {"input": images, "baseline": baseline, "logits": logits.numpy()}

    deltas = []
    for rule in RULES:
        steps = 50 if rule == "gausslegendre" else 20
        options = dict(target=classes, method=rule, n_steps=steps, return_convergence_delta=True)
        shares, delta = IntegratedGradients(network).attribute(x, x0, **options)
        arrays[f"ig_{rule}"] = nhwc(shares).astype(np.float32)
        deltas.append(delta.detach().numpy())
    arrays["ig_delta"] = np.stack(deltas)
    for name in ["conv2d", "activation", "conv2d_2"]:
        layer = network.get_submodule(name)
        arrays[f"grad_cam_{name}"] = nhwc(LayerGradCam(network, layer).attribute(x, classes))[..., 0].astype(np.float32)
    arrays["saliency"] = nhwc(Saliency(network).attribute(x, classes, abs=False)).astype(np.float32)
    covered = Occlusion(network).attribute(
        x, (3, *WINDOW), strides=(3, *STRIDE), target=classes, baselines=x0
    )
    assert (covered == covered[:, :1]).all()
    arrays["occlusion"] = nhwc(covered)[..., 0].astype(np.float32)

    np.savez_compressed(folder / "attributions.npz", **arrays)
    notes = {
        "config": {"gain": GAIN, "dense_gain": DENSE_GAIN},
        "classes": classes.tolist(),
        "occlusion": {"window": WINDOW, "stride": STRIDE, "fill": BASELINE},
    }
    (folder / "attributions.json").write_text(json.dumps(notes, indent=1) + "\n")
    change = (network(x) - network(x0)).detach().gather(1, classes[:, None])[:, 0].numpy()
    print("classes", classes.tolist(), "completeness gaps", np.abs(arrays["ig_delta"] / change).round(5).tolist())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    main(out)
