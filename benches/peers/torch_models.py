"""The networks of `atrous bench nets` in PyTorch, as Keras builds them (batch norm's epsilon, one-sided padding), with random weights."""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Conv(nn.Conv2d):
    """"same" padding; with stride 2, at the bottom and on the right, as Keras' applications have it."""

    def __init__(self, inputs, outputs, kernel, stride=1, groups=1, dilation=1, bias=False):
        self.one_sided = stride == 2 and kernel == 3
        padding = 0 if self.one_sided else dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups, bias)

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self.one_sided else x)


def norm(channels, epsilon=1e-3):
    return nn.BatchNorm2d(channels, eps=epsilon, momentum=0.01)


def relu():
    return nn.ReLU(inplace=True)


def relu6():
    return nn.ReLU6(inplace=True)


def frozen(module):
    """Its batch norms stay in inference mode, as in Keras."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module.frozen = True
    return module


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def alexnet():
    return nn.Sequential(
        nn.Conv2d(3, 64, 7), nn.ReLU(), norm(64), nn.MaxPool2d(3),
        nn.Conv2d(64, 128, 5), nn.ReLU(), norm(128), nn.MaxPool2d(3),
        nn.Conv2d(128, 145, 3), nn.ReLU(), nn.Conv2d(145, 145, 3), nn.ReLU(),
        nn.Conv2d(145, 128, 3), nn.ReLU(), norm(128), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(64, 20), nn.Sigmoid())


def vgg16():
    layers, inputs = [], 3
    for count, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), relu()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Preactivated(nn.Module):
    """A block of ResNetV2."""

    def __init__(self, inputs, filters, stride, projects):
        super().__init__()
        epsilon = 1.001e-5
        self.before = nn.Sequential(norm(inputs, epsilon), relu())
        self.projects = projects
        if projects:
            self.shortcut = nn.Conv2d(inputs, 4 * filters, 1, stride=stride)
        else:
            self.shortcut = nn.MaxPool2d(1, stride=stride) if stride > 1 else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, filters, 1, bias=False), norm(filters, epsilon), relu(),
            nn.Conv2d(filters, filters, 3, stride=stride, padding=1, bias=False), norm(filters, epsilon), relu(),
            nn.Conv2d(filters, 4 * filters, 1))

    def forward(self, x):
        activated = self.before(x)
        return self.body(activated) + self.shortcut(activated if self.projects else x)


def resnet50v2():
    layers, inputs = [nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.MaxPool2d(3, stride=2, padding=1)], 64
    for filters, count, stride in ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)):
        for i in range(count):
            layers.append(Preactivated(inputs, filters, stride if i == count - 1 else 1, i == 0))
            inputs = 4 * filters
    return nn.Sequential(*layers, norm(inputs, 1.001e-5), relu())


class Inverted(nn.Module):
    """An inverted residual block of MobileNetV2."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        inner = inputs * expansion
        expand = [Conv(inputs, inner, 1), norm(inner), relu6()] if expansion != 1 else []
        self.body = nn.Sequential(*expand, Conv(inner, inner, 3, stride, inner), norm(inner), relu6(),
                                  Conv(inner, outputs, 1), norm(outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


def mobilenetv2():
    layers, inputs = [Conv(3, 32, 3, 2), norm(32), relu6()], 32
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, channels, count, stride in stages:
        for i in range(count):
            layers.append(Inverted(inputs, channels, stride if i == 0 else 1, expansion))
            inputs = channels
    return nn.Sequential(*layers, Conv(inputs, 1280, 1), norm(1280), relu6())


def separable(inputs, outputs, stride, activated=True):
    """A block of MobileNet (the first one)."""
    layers = [Conv(inputs, inputs, 3, stride, inputs), norm(inputs), relu6(), Conv(inputs, outputs, 1), norm(outputs)]
    return layers + [relu6()] * activated


class DeepLab(nn.Module):
    """DeepLabV3+ on MobileNet; the low-level feature is taken before its activation."""

    def __init__(self):
        super().__init__()

        def block(inputs, outputs, kernel, dilation=1, bias=False):
            return nn.Sequential(Conv(inputs, outputs, kernel, dilation=dilation, bias=bias), norm(outputs), relu())

        self.low = nn.Sequential(Conv(3, 32, 3, 2), norm(32), relu6(), *separable(32, 64, 1), *separable(64, 128, 2),
                                 *separable(128, 128, 1, activated=False))
        same = [layer for i in range(5) for layer in separable(512, 512, 1, activated=i < 4)]
        self.high = nn.Sequential(nn.ReLU6(), *separable(128, 256, 2), *separable(256, 256, 1), *separable(256, 512, 2), *same)
        self.pool = block(512, 256, 1, bias=True)
        self.pyramid = nn.ModuleList([block(512, 256, 1)] + [block(512, 256, 3, d) for d in (6, 12, 18)])
        self.join = block(1280, 256, 1)
        self.narrow = block(128, 48, 1)
        self.decoder = nn.Sequential(block(304, 256, 3), block(256, 256, 3))
        self.classes = nn.Conv2d(256, 21, 1)

    def forward(self, x):
        low = self.low(x)
        high = self.high(low)
        pooled = self.pool(high.mean((2, 3), keepdim=True))
        pooled = F.interpolate(pooled, size=high.shape[2:], mode="bilinear")
        y = self.join(torch.cat([pooled] + [branch(high) for branch in self.pyramid], 1))
        y = F.interpolate(y, scale_factor=4, mode="bilinear")
        y = self.decoder(torch.cat([y, self.narrow(low)], 1))
        return self.classes(F.interpolate(y, scale_factor=4, mode="bilinear"))


def network(name):
    """(model, side of the pictures, targets of a batch, loss, maker of the optimizer or None); softmax is in the loss.
    The maker takes the parameters, and True for PyTorch's quick kind or None for the one it chooses."""
    entropy = nn.CrossEntropyLoss()
    flags = lambda n: (torch.rand(n, 20) < 0.1).float()
    classes = lambda n: torch.randint(0, 20, (n,))
    sgd = lambda p, fast: torch.optim.SGD(p, lr=1e-4, momentum=0.9, fused=fast)
    adam = lambda p, fast: torch.optim.Adam(p, lr=1e-4, fused=fast)
    rmsprop = lambda p, fast: torch.optim.RMSprop(p, lr=1e-3, alpha=0.9, eps=1e-7, foreach=fast)
    if name == "alexnet":
        return alexnet(), 150, flags, nn.BCELoss(), adam
    if name == "vgg16_frozen":
        head = [nn.Flatten(), nn.Linear(25088, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 20)]
        return nn.Sequential(frozen(vgg16()), *head), 224, classes, entropy, sgd
    if name == "resnet50v2_frozen":
        head = [nn.Flatten(), nn.Linear(100352, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 512), nn.ReLU(),
                nn.Dropout(0.3), nn.Linear(512, 20), nn.Sigmoid()]
        return nn.Sequential(frozen(resnet50v2()), *head), 224, flags, nn.BCELoss(), sgd
    if name == "mobilenetv2_frozen":
        return nn.Sequential(frozen(mobilenetv2()), Mean(), nn.Linear(1280, 20)), 256, classes, entropy, rmsprop
    if name == "mobilenetv2_full":
        return nn.Sequential(mobilenetv2(), Mean(), nn.Linear(1280, 20)), 256, classes, entropy, rmsprop
    if name == "deeplabv3plus":
        return DeepLab(), 224, lambda n: torch.randint(0, 21, (n, 224, 224)), entropy, adam
    if name == "fgsm_mobilenetv2":
        model = frozen(nn.Sequential(mobilenetv2(), Mean(), nn.Linear(1280, 1000)))
        return model, 224, lambda n: torch.randint(0, 1000, (n,)), entropy, None
    raise SystemExit(f"no network {name}")
