"""What attacks on a small network do, step by step: the reference that ours are compared with.

    make_attacks.py make  tests/golden/attacks   attacks.npz and attacks.json   (needs torch)
    make_attacks.py check tests/golden/attacks   gradients against differences, iterates rebuilt from their signs

The victims (`classify`, `segment`) and all their gradients are computed in float64, by float32 weights made from a
hash of their names (tag "attacks") and at float32 pictures, NHWC, 0 to 1; x*2-1 is the victim's own first step.
Losses are each picture's own, so that a picture's gradient does not depend on its batch:

    ce      softmax cross-entropy with the picture's class, the clean argmax; it is to rise
    target  the same with its target, the class of the third largest clean logit; it is to fall
    bce     binary cross-entropy, mean of the 20 classes, of its labels: the largest three of the logits above 0; to rise
    seg     SegPGD's: ((1-l) * sum of CE of right pixels + l * sum of CE of wrong ones) / 1024, l = s / (2 * steps)

Bits: numpy's packbits (upper bit first) of 4*32*32*3 flat numbers. `sign`: 1 where g < 0; no g is 0. `reliable`: 1 where
|g| > 1e-3 max|g| of the picture. A step s = 0.. goes from iterate s to s+1; direction is 1, for `target` -1; in float32:

    x <- clip(clip(x + direction*step*sign(g), x0 - eps, x0 + eps), 0, 1)    eps = float32(8/255), step = float32(2/255)

so signs give every iterate to the last bit. LOSS below is ce, target or bce. Arrays, float64 (f8), float32 (f4) or
uint8 (u1):

    input                     f4 [4,32,32,3]     float32(lo + (hi-lo)*u("input")), bounds per picture and channel
    clean_logits              f8 [4,20]
    clean_LOSS                f8 [4]
    grad_ce, grad_bce         f4 [4,32,32,3]
    labels                    u1 [4,20]          of bce; class and target of the others are in the json
    fgsm_LOSS_sign, _reliable u1 [1536]
    fgsm_LOSS_logits          f8 [4,20]          of clip(x0 + direction*eps*sign(g), 0, 1)
    pgd_LOSS_sign, _reliable  u1 [10,1536]       iterate 0 is clip(x0 + float32(8/255 * (2*u("start")-1)), 0, 1)
    pgd_LOSS_loss             f8 [11,4]          at iterates 0..10
    pgd_LOSS_logits           f8 [4,20]          of iterate 10
    mim_ce_...                                   as pgd, but iterate 0 is x0, and sign and reliable are of the sum
                                                 g <- 1.0*g + grad/mean|grad| (mean of the picture's numbers)
    pgd_l2_ce_samples         f4 [10,4,256]      of iterates 1..10, flat positions floor((2j+1)*3072/512) of each picture
    pgd_l2_ce_norm            f8 [10,4]          ||x - x0||, iterates 1..10
    pgd_l2_ce_sum             f8 [10,4,3]        sum of x - x0 by channel, iterates 1..10
    pgd_l2_ce_full            f4 [3,4,32,32,3]   iterates 2, 5, 10 (after steps 1, 4, 9)
    pgd_l2_ce_loss, _logits                      as pgd. x <- x + 0.125*g/||g||, onto the ball of 0.5 around x0, clip to
                                                 [0,1]: in float64 from a float32 x, rounded to float32 once a step
    deepfool_MODE_samples     f8 [4,256]         of r (without the overshoot); numbers are in the json
    deepfool_MODE_logits      f8 [4,20]          of x0 + 1.02 r
    labelfool_samples, _logits                   the same for the multi-label relative
    seg_labels                u1 [4,32,32]       clean argmax
    seg_clean_samples         f8 [4,256]         of the clean logits [32,32,21] of each picture
    segpgd_grad               f4 [2,32,32,3]     of picture 0, steps 0 and 5
    segpgd_sign, _reliable    u1 [10,1536]       from x0
    segpgd_loss               f8 [11,4]          at iterates 0..10 with the weights of steps 0..10 (of 10)

DeepFool: r <- r + |f|/||w||^2 w for the class with the least |f|/||w||, f = z_class - z_first, w its gradient, without
clipping. MODE says where it is checked whether the class has changed, and where the plane is taken: `paper` x0 + r for
both, `mixed` x0 + 1.02 r and x0 + r, `released` x0 + 1.02 r for both, as in the authors' program but without the 1e-4
it adds to |f|. Where the network is linear, `paper` lands on the boundary, and rounding decides whether it has crossed
it: its r holds, its number of iterations does not. Labelfool: while at x0 + 1.02 r a true label has a logit above 0,
r <- r - z/||g||^2 g for the one with the largest there, z and g at x0 + r. Both: 50 iterations at most.

Made with torch 2.15, numpy 2.4.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from make_weights import hashed, hashed_weight, unit

TAG = "attacks"
GAIN, DENSE_GAIN = 1.0, 4.0
BATCH, SIZE, CLASSES, MASK_CLASSES = 4, 32, 20, 21
# One picture over the whole range; others of other colours, so that classes and confidences differ. The last one keeps
# off 0 and 1: within epsilon nothing of it is clipped.
LOW = [[0.0, 0.0, 0.0], [0.4, 0.2, 0.5], [0.3, 0.5, 0.5], [0.1, 0.5, 0.5]]
HIGH = [[1.0, 1.0, 1.0], [1.0, 0.9, 1.0], [0.8, 1.0, 1.0], [0.5, 0.9, 0.9]]
STEPS = 10
EPSILON, STEP = np.float32(8 / 255), np.float32(2 / 255)
MOMENTUM = 1.0
L2_EPSILON, L2_STEP = 0.5, 0.125
OVERSHOOT, MOST_STEPS = 0.02, 50
RELIABLE = 1e-3
DIRECTION = {"ce": 1, "target": -1, "bce": 1, "seg": 1}

WEIGHTS = {
    "conv2d/kernel": (3, 3, 3, 16),
    "conv2d/bias": (16,),
    "conv2d_1/kernel": (3, 3, 16, 32),
    "batch_normalization/gamma": (32,),
    "batch_normalization/beta": (32,),
    "batch_normalization/moving_mean": (32,),
    "batch_normalization/moving_variance": (32,),
    "depthwise_conv2d/depthwise_kernel": (3, 3, 32, 1),
    "conv2d_2/kernel": (1, 1, 32, 48),
    "conv2d_2/bias": (48,),
    "dense/kernel": (48, CLASSES),
    "dense/bias": (CLASSES,),
    "segment/kernel": (1, 1, 48, MASK_CLASSES),
    "segment/bias": (MASK_CLASSES,),
}
LAYERS = [
    "x*2-1",
    "conv2d: 3x3, 16, same, bias, relu",
    "max_pooling2d: 2x2",
    "conv2d_1: 3x3, 32, same, no bias",
    "batch_normalization: inference, epsilon 1e-3",
    "re_lu",
    "depthwise_conv2d: 3x3, strides 2, same (pads 0 before, 1 after), no bias",
    "conv2d_2: 1x1, 48, bias, relu",
    "classify: global_average_pooling2d, dense 20 with bias",
    "segment: conv 1x1, 21, bias, then up_sampling2d 4x bilinear, half-pixel centres",
]


def weight(name, shape):
    return hashed_weight(TAG, name, shape, GAIN, DENSE_GAIN)


def pictures():
    low, high = np.array(LOW)[:, None, None, :], np.array(HIGH)[:, None, None, :]
    return (low + (high - low) * hashed(TAG, "input", (BATCH, SIZE, SIZE, 3))).astype(np.float32)


def starts(x0):
    """Where PGD begins."""
    offset = (8 / 255 * (2 * hashed(TAG, "start", x0.shape) - 1)).astype(np.float32)
    return np.clip(x0 + offset, np.float32(0), np.float32(1))


class Victim:
    """Both networks, in float64 or float32."""

    def __init__(self, dtype=torch.float64):
        self.dtype = dtype
        self.w = {name: torch.from_numpy(weight(name, shape)).to(dtype) for name, shape in WEIGHTS.items()}

    def conv(self, x, layer, **options):
        kernel = self.w[f"{layer}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.w.get(f"{layer}/bias"), **options)

    def features(self, x):
        h = 2 * x.permute(0, 3, 1, 2) - 1
        h = F.max_pool2d(F.relu(self.conv(h, "conv2d", padding=1)), 2)
        norm = [self.w[f"batch_normalization/{kind}"] for kind in ["moving_mean", "moving_variance", "gamma", "beta"]]
        h = F.relu(F.batch_norm(self.conv(h, "conv2d_1", padding=1), *norm, eps=1e-3))
        kernel = self.w["depthwise_conv2d/depthwise_kernel"].permute(2, 3, 0, 1)
        h = F.conv2d(F.pad(h, (0, 1, 0, 1)), kernel, stride=2, groups=32)
        return F.relu(self.conv(h, "conv2d_2"))

    def classify(self, x):
        """Logits [N, 20]."""
        return self.features(x).mean((2, 3)) @ self.w["dense/kernel"] + self.w["dense/bias"]

    def segment(self, x):
        """Logits [N, 32, 32, 21]."""
        small = self.conv(self.features(x), "segment")
        large = F.interpolate(small, scale_factor=4, mode="bilinear", align_corners=False)
        return large.permute(0, 2, 3, 1)

    def tensor(self, x):
        return torch.from_numpy(x).to(self.dtype)

    def logits(self, x):
        with torch.no_grad():
            return self.classify(self.tensor(x)).numpy()

    def mask_logits(self, x):
        with torch.no_grad():
            return self.segment(self.tensor(x)).numpy()

    def gradient(self, x, loss):
        """Each picture's loss, and its gradient."""
        leaf = self.tensor(x).requires_grad_()
        losses = loss(self, leaf)
        return losses.detach().numpy(), torch.autograd.grad(losses.sum(), leaf)[0].numpy()


class Truth:
    """What the pictures are of, and the losses that follow."""

    def __init__(self, logits, masks):
        order = logits.argsort(1)
        self.classes, self.targets = order[:, -1], order[:, -3]
        self.labels = np.zeros(logits.shape, np.uint8)
        np.put_along_axis(self.labels, order[:, -3:], 1, 1)
        self.labels[logits <= 0] = 0
        self.masks = masks

    def loss(self, name, step=0):
        """loss(victim, x): each picture's. `step` counts for SegPGD."""

        def cross_entropy(classes):
            return lambda victim, x: F.cross_entropy(victim.classify(x), torch.from_numpy(classes), reduction="none")

        def binary(victim, x):
            z = victim.classify(x)
            return F.binary_cross_entropy_with_logits(z, victim.tensor(self.labels), reduction="none").mean(1)

        def segmented(victim, x):
            z, truth = victim.segment(x), torch.from_numpy(self.masks).long()
            each = F.cross_entropy(z.permute(0, 3, 1, 2), truth, reduction="none")
            share = step / (2 * STEPS)
            return torch.where(z.argmax(3) == truth, 1 - share, share).mul(each).mean((1, 2))

        return {
            "ce": cross_entropy(self.classes),
            "target": cross_entropy(self.targets),
            "bce": binary,
            "seg": segmented,
        }[name]


def truth_of(victim, x0):
    return Truth(victim.logits(x0), victim.mask_logits(x0).argmax(3).astype(np.uint8))


def negative(g):
    assert (g != 0).all(), "a gradient of 0 has no sign bit"
    return g < 0


def largest(g):
    return np.abs(g).max((1, 2, 3), keepdims=True)


def moved(x, x0, minus, step, direction):
    """A step along signs, in float32 throughout. `minus`: where the gradient is below 0."""
    change = np.where(minus, -step, step) * np.float32(direction)
    y = np.clip(x + change, x0 - EPSILON, x0 + EPSILON)
    y = np.clip(y, np.float32(0), np.float32(1))
    assert y.dtype == np.float32
    return y


def positions(n, k):
    return np.arange(n) if n <= k else (2 * np.arange(k) + 1) * n // (2 * k)


def samples(x, k=256):
    """Of each picture."""
    flat = x.reshape(len(x), -1)
    return flat[:, positions(flat.shape[1], k)]


def deviation(expected, got):
    """How far float32 is off, per picture, of the largest number."""
    return (np.abs(expected - got).max((1, 2, 3)) / np.abs(expected).max((1, 2, 3))).tolist()


def lines(value, depth=0):
    """JSON with a line for each key."""
    if not isinstance(value, dict):
        return json.dumps(value)
    pad = " " * (depth + 1)
    inner = ",\n".join(f"{pad}{json.dumps(key)}: {lines(v, depth + 1)}" for key, v in value.items())
    return f"{{\n{inner}\n{pad[1:]}}}"


class Record:
    def __init__(self):
        self.arrays, self.notes = {}, {}

    def signs(self, name, gradients, singles):
        """Bits of one gradient or of one a step, and how many of them float32 takes otherwise."""
        minus = [negative(g) for g in gradients]
        sure = [np.abs(g) > RELIABLE * largest(g) for g in gradients]
        wrong = [(g < 0) != m for g, m in zip(singles, minus)]
        bits = [np.stack([np.packbits(b) for b in list_]) for list_ in [minus, sure]]
        if len(gradients) == 1:
            bits = [b[0] for b in bits]
        self.arrays[f"{name}_sign"], self.arrays[f"{name}_reliable"] = bits
        self.notes.setdefault(name, {}).update(
            reliable_fraction=[float(s.mean()) for s in sure],
            f32_signs_wrong=[int(w.sum()) for w in wrong],
            f32_reliable_signs_wrong=[int((w & s).sum()) for w, s in zip(wrong, sure)],
        )

    def write(self, folder):
        np.savez_compressed(folder / "attacks.npz", **self.arrays)
        (folder / "attacks.json").write_text(lines(self.notes) + "\n")


def climb(record, name, double, single, truth, x0, x, loss, momentum=None):
    """PGD, MIM and SegPGD: the signs of every step."""
    kept, kept_single, losses = [], [], []
    total = total_single = 0
    direction = DIRECTION[loss]
    for s in range(STEPS):
        each, g = double.gradient(x, truth.loss(loss, s))
        _, g_single = single.gradient(x, truth.loss(loss, s))
        losses.append(each)
        if momentum is not None:
            mean = lambda g: np.abs(g).mean((1, 2, 3), keepdims=True)
            total = g = momentum * total + g / mean(g)
            total_single = g_single = momentum * total_single + g_single / mean(g_single)
        kept.append(g)
        kept_single.append(g_single)
        if loss == "seg":
            count(record, name, double, truth, x)
        x = moved(x, x0, negative(g), STEP, direction)
    losses.append(double.gradient(x, truth.loss(loss, STEPS))[0])
    record.arrays[f"{name}_loss"] = np.stack(losses)
    if loss == "seg":
        count(record, name, double, truth, x)
        record.arrays[f"{name}_grad"] = np.stack([kept[s][0] for s in [0, 5]]).astype(np.float32)
    else:
        record.arrays[f"{name}_logits"] = double.logits(x)
    record.signs(name, kept, kept_single)
    final = x.astype(np.float64)
    record.notes[name] |= {
        "loss": loss,
        "direction": direction,
        "final_sum": float(final.sum()),
        "final_sums": final.sum((1, 2, 3)).tolist(),
        "f32_gradient_dev": [deviation(g, single_g) for g, single_g in zip(kept, kept_single)],
    }


def count(record, name, victim, truth, x):
    """Wrong pixels of each picture, and pixels so near the edge that float32 may count them otherwise."""
    z = victim.mask_logits(x)
    own = np.take_along_axis(z, truth.masks[..., None].astype(int), 3)[..., 0]
    others = z.copy()
    np.put_along_axis(others, truth.masks[..., None].astype(int), -np.inf, 3)
    lead = own - others.max(3)
    notes = record.notes.setdefault(name, {})
    notes.setdefault("wrong_pixels", []).append((lead < 0).sum((1, 2)).tolist())
    notes.setdefault("right_pixels", []).append((lead >= 0).sum((1, 2)).tolist())
    notes.setdefault("pixels_within_1e-4", []).append((np.abs(lead) < 1e-4).sum((1, 2)).tolist())


def fgsm(record, double, single, truth, x0):
    for loss in ["ce", "bce", "target"]:
        each, g = double.gradient(x0, truth.loss(loss))
        _, g_single = single.gradient(x0, truth.loss(loss))
        record.arrays[f"clean_{loss}"] = each
        if loss != "target":
            record.arrays[f"grad_{loss}"] = g.astype(np.float32)
        name = f"fgsm_{loss}"
        record.signs(name, [g], [g_single])
        x = moved(x0, x0, negative(g), EPSILON, DIRECTION[loss])
        record.arrays[f"{name}_logits"] = double.logits(x)
        record.notes[name] |= {
            "loss": loss,
            "direction": DIRECTION[loss],
            "final_sum": float(x.astype(np.float64).sum()),
            "f32_gradient_dev": [deviation(g, g_single)],
            "gradient_l2": np.sqrt((g**2).sum((1, 2, 3))).tolist(),
            "gradient_absmax": largest(g).ravel().tolist(),
        }


def norm(x):
    return np.sqrt((x.astype(np.float64) ** 2).sum((1, 2, 3), keepdims=True))


def l2_step(x, x0, g):
    """In float64; rounded to float32 at its end."""
    x, x0 = x.astype(np.float64), x0.astype(np.float64)
    change = x + L2_STEP * g / norm(g) - x0
    change *= np.minimum(1, L2_EPSILON / norm(change))
    return np.clip(x0 + change, 0, 1).astype(np.float32)


def pgd_l2(record, double, truth, x0):
    x, iterates, losses = x0, [], []
    for _ in range(STEPS):
        each, g = double.gradient(x, truth.loss("ce"))
        losses.append(each)
        x = l2_step(x, x0, g)
        iterates.append(x)
    losses.append(double.gradient(x, truth.loss("ce"))[0])
    change = np.stack(iterates).astype(np.float64) - x0
    name = "pgd_l2_ce"
    record.arrays |= {
        f"{name}_samples": np.stack([samples(x) for x in iterates]),
        f"{name}_norm": np.sqrt((change**2).sum((2, 3, 4))),
        f"{name}_sum": change.sum((2, 3)),
        f"{name}_full": np.stack([iterates[s] for s in [1, 4, 9]]),
        f"{name}_loss": np.stack(losses),
        f"{name}_logits": double.logits(x),
    }
    record.notes[name] = {"loss": "ce", "direction": 1, "full_after_steps": [1, 4, 9],
                          "final_sum": float(x.astype(np.float64).sum())}


def jacobian(victim, x, classes):
    """Logits of one picture, and the gradients of those of `classes`."""
    leaf = torch.from_numpy(np.repeat(x[None], len(classes), 0)).requires_grad_()
    z = victim.classify(leaf)
    picked = z[torch.arange(len(classes)), torch.tensor(classes)]
    return z[0].detach().numpy(), torch.autograd.grad(picked.sum(), leaf)[0].numpy()


def nearest_class(victim, first):
    """DeepFool's step for one picture: to the nearest of the planes beyond which its class is another."""

    def step(z, here):
        if z.argmax() != first:
            return None
        there, g = jacobian(victim, here, range(CLASSES))
        f, w = there - there[first], g - g[first]
        length = np.sqrt((w**2).sum((1, 2, 3)))
        length[first] = 1
        distance = np.abs(f) / length
        distance[first] = np.inf
        k = int(distance.argmin())
        return k, distance[k], distance[k] / length[k] * w[k]

    return step


def largest_label(victim, true):
    """The same for labels of their own: the true one with the largest logit, to 0."""

    def step(z, here):
        k = int(true[z[true].argmax()])
        if z[k] <= 0:
            return None
        there, g = jacobian(victim, here, [k])
        square = (g[0] ** 2).sum()
        return k, there[k] / np.sqrt(square), -there[k] / square * g[0]

    return step


def shortest(record, name, victim, x0, steps, check, plane):
    """Steps until there is none. It is asked for at x0 + r or, if `check`, beyond it, and taken there if `plane`."""
    notes, changes = {}, []
    for x, step in zip(x0.astype(np.float64), steps):
        r, taken, distances, norms, done = np.zeros_like(x), [], [], [], False
        at = lambda beyond: x + (1 + beyond * OVERSHOOT) * r
        while True:
            made = step(victim.logits(at(check)[None])[0], at(plane))
            done = made is None
            if done or len(taken) == MOST_STEPS:
                break
            taken.append(made[0])
            distances.append(float(made[1]))
            r = r + made[2]
            norms.append(float(np.sqrt((r**2).sum())))
        changes.append(r)
        picture = {
            "iterations": len(taken),
            "done": done,
            "norm": norms[-1],
            "norm_overshoot": (1 + OVERSHOOT) * norms[-1],
            "class": int(victim.logits(at(True)[None]).argmax()),
            "outside": int(((at(True) < 0) | (at(True) > 1)).sum()),
            "taken": taken,
            "distances": distances,
            "norms": norms,
        }
        for key, value in picture.items():
            notes.setdefault(key, []).append(value)
    changes = np.stack(changes)
    record.arrays[f"{name}_samples"] = samples(changes)
    record.arrays[f"{name}_logits"] = victim.logits(x0 + (1 + OVERSHOOT) * changes)
    record.notes[name] = notes


def make(folder):
    double, single, record = Victim(), Victim(torch.float32), Record()
    x0 = pictures()
    truth = truth_of(double, x0)
    z = double.logits(x0)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    record.notes |= {
        "seed_tag": TAG,
        "input_name": "input",
        "start_name": "start",
        "made_with": {"torch": torch.__version__.split("+")[0], "numpy": np.__version__},
        "config": {
            "size": SIZE, "batch": BATCH, "lo": LOW, "hi": HIGH, "gain": GAIN, "dense_gain": DENSE_GAIN,
            "classes": CLASSES, "mask_classes": MASK_CLASSES, "steps": STEPS, "epsilon": float(EPSILON),
            "step": float(STEP), "momentum": MOMENTUM, "l2_epsilon": L2_EPSILON, "l2_step": L2_STEP,
            "overshoot": OVERSHOOT, "most_steps": MOST_STEPS, "reliable_above": RELIABLE,
        },
        "layers": LAYERS,
        "weights": {name: list(shape) for name, shape in WEIGHTS.items()},
        "weights_check": {name: weight(name, shape).ravel()[:3].tolist() for name, shape in WEIGHTS.items()},
        "input_first8": x0.ravel()[:8].tolist(),
        "input_sum": float(x0.astype(np.float64).sum()),
        "start_first8": starts(x0).ravel()[:8].tolist(),
        "start_sum": float(starts(x0).astype(np.float64).sum()),
        "class": truth.classes.tolist(),
        "target": truth.targets.tolist(),
        "labels": [np.flatnonzero(row).tolist() for row in truth.labels],
        "confidence": p.max(1).tolist(),
        "f32_logits_dev": float(np.abs(single.logits(x0) - z).max() / np.abs(z).max()),
    }
    record.arrays |= {"input": x0, "clean_logits": z, "labels": truth.labels}
    fgsm(record, double, single, truth, x0)
    for loss in ["ce", "target", "bce"]:
        climb(record, f"pgd_{loss}", double, single, truth, x0, starts(x0), loss)
    climb(record, "mim_ce", double, single, truth, x0, x0, "ce", MOMENTUM)
    pgd_l2(record, double, truth, x0)
    classes = [nearest_class(double, k) for k in truth.classes]
    for mode, places in {"paper": (False, False), "mixed": (True, False), "released": (True, True)}.items():
        shortest(record, f"deepfool_{mode}", double, x0, classes, *places)
    labels = [largest_label(double, np.flatnonzero(row)) for row in truth.labels]
    shortest(record, "labelfool", double, x0, labels, True, False)
    record.arrays |= {
        "seg_labels": truth.masks,
        "seg_clean_samples": samples(double.mask_logits(x0)),
    }
    climb(record, "segpgd", double, single, truth, x0, x0, "seg")
    record.write(folder)


def by_hand(x):
    """The logits without PyTorch, tap by tap, padded as TensorFlow does."""
    w = {name: weight(name, shape).astype(np.float64) for name, shape in WEIGHTS.items()}

    def conv(x, kernel, stride=1, depthwise=False):
        k, out = len(kernel), -(-x.shape[1] // stride)
        pad = max((out - 1) * stride + k - x.shape[1], 0)
        x = np.pad(x, ((0, 0), *[(pad // 2, pad - pad // 2)] * 2, (0, 0)))
        y = 0
        for i in range(k):
            for j in range(k):
                part = x[:, i : i + stride * (out - 1) + 1 : stride, j : j + stride * (out - 1) + 1 : stride]
                y = y + (part * kernel[i, j, :, 0] if depthwise else part @ kernel[i, j])
        return y

    def doubled(x, axis):
        """4x along an axis, by the definition of half-pixel centres."""
        n = x.shape[axis]
        at = (np.arange(4 * n) + 0.5) / 4 - 0.5
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        take = lambda i: np.take(x, np.clip(i, 0, n - 1), axis)
        return (1 - share) * take(low) + share * take(low + 1)

    h = np.maximum(conv(2 * x.astype(np.float64) - 1, w["conv2d/kernel"]) + w["conv2d/bias"], 0)
    h = h.reshape(len(h), 16, 2, 16, 2, 16).max((2, 4))
    h = conv(h, w["conv2d_1/kernel"])
    norm = {name.split("/")[1]: v for name, v in w.items() if name.startswith("batch_normalization")}
    h = (h - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3) * norm["gamma"] + norm["beta"]
    h = np.maximum(h, 0)
    h = conv(h, w["depthwise_conv2d/depthwise_kernel"], 2, True)
    h = np.maximum(conv(h, w["conv2d_2/kernel"]) + w["conv2d_2/bias"], 0)
    small = conv(h, w["segment/kernel"]) + w["segment/bias"]
    return h.mean((1, 2)) @ w["dense/kernel"] + w["dense/bias"], doubled(doubled(small, 1), 2)


def check(folder):
    first = [0.12270760536193848, 0.8387694954872131, 0.5450427532196045, 0.23895740509033203]
    assert unit("open:input", 4).tolist() == first
    victim, x0 = Victim(), pictures()
    truth = truth_of(victim, x0)
    files = np.load(folder / "attacks.npz")
    notes = json.loads((folder / "attacks.json").read_text())
    z, masks = by_hand(x0)
    off = max(np.abs(z - victim.logits(x0)).max(), np.abs(masks - victim.mask_logits(x0)).max())
    print(f"logits by hand: off by {off:.1e}")
    assert off < 1e-12 and (x0 == files["input"]).all()
    assert np.abs(z - files["clean_logits"]).max() < 1e-12

    def bits(name, s=None):
        packed = files[name] if s is None else files[name][s]
        return np.unpackbits(packed).reshape(x0.shape).astype(bool)

    # Every iterate from the signs alone; gradients at first, middle and last ones against central differences.
    h, drawn = 1e-6, np.random.default_rng(0)
    for name in ["pgd_ce", "pgd_target", "pgd_bce", "mim_ce", "segpgd"]:
        loss = notes[name]["loss"]
        x = starts(x0) if name.startswith("pgd") else x0
        for s in range(STEPS):
            f = truth.loss(loss, s)
            each, g = victim.gradient(x, f)
            assert np.abs(each / files[f"{name}_loss"][s] - 1).max() < 1e-12
            if name != "mim_ce":
                differ = (bits(f"{name}_sign", s) != (g < 0)) & bits(f"{name}_reliable", s)
                assert not differ.any()
            if s in [0, 5, 9]:
                worst = 0
                for b in range(BATCH):
                    flat = np.abs(g[b]).ravel()
                    at = np.concatenate([flat.argsort()[-2:], drawn.integers(0, flat.size, 3)])
                    for i in at:
                        moved_by = lambda d: np.where(np.arange(x.size).reshape(x.shape) == b * flat.size + i, d, 0) + x
                        with torch.no_grad():
                            high, low = [f(victim, torch.from_numpy(moved_by(d)))[b].item() for d in [h, -h]]
                        worst = max(worst, abs((high - low) / (2 * h) - g[b].ravel()[i]) / flat.max())
                print(f"{name}, step {s}: differences off by {worst:.1e} of the largest gradient")
                assert worst < 1e-6
            x = moved(x, x0, bits(f"{name}_sign", s), STEP, notes[name]["direction"])
        assert x.astype(np.float64).sum() == notes[name]["final_sum"]
        assert np.abs(x - x0).max() <= EPSILON * (1 + 1e-5) and x.min() >= 0 and x.max() <= 1
        if name != "segpgd":
            assert np.abs(victim.logits(x) - files[f"{name}_logits"]).max() < 1e-12
    for loss in ["ce", "bce", "target"]:
        x = moved(x0, x0, bits(f"fgsm_{loss}_sign"), EPSILON, DIRECTION[loss])
        assert np.abs(victim.logits(x) - files[f"fgsm_{loss}_logits"]).max() < 1e-12
    full = files["pgd_l2_ce_full"]
    for i, s in enumerate([1, 4]):
        x = l2_step(full[i], x0, victim.gradient(full[i], truth.loss("ce"))[1])
        assert np.abs(samples(x) - files["pgd_l2_ce_samples"][s + 1]).max() < 1e-7
    # A picture's gradient is its own: alone it has the same.
    alone = Truth(files["clean_logits"][1:2], truth.masks[1:2]).loss("bce")
    g = victim.gradient(x0[1:2], alone)[1]
    assert np.abs(g - files["grad_bce"][1:2]).max() < 1e-6 * np.abs(g).max()
    print("signs, iterates, logits: as in the files")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("make", "check"):
        sys.exit(__doc__)
    torch.set_num_threads(1)
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    {"make": make, "check": check}[sys.argv[1]](out)
