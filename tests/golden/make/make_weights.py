"""Files of weights as Keras, torchvision and timm write them, and what their networks compute.

    make_weights.py tiny  tests/golden/weights   the small files kept here    (needs tf_keras, keras)
    make_weights.py archives tests/golden/weights   .keras files kept here    (needs keras and a backend)
    make_weights.py older tests/golden/weights      one of Keras 3.0          (needs keras 3.0 and a backend)
    make_weights.py keras FOLDER                 whole bases, some 200 MB     (needs tf_keras, keras)
    make_weights.py torch FOLDER                 the same from PyTorch        (needs torch, torchvision, timm)

Weights are float32 numbers made from a hash of their names. Outputs are computed in float64.
The ignored tests of `tests/weights` read FOLDER from ATROUS_WEIGHTS.

Made with tensorflow 2.21, tf_keras 2.21, keras 3.15, torch 2.15, torchvision 0.29, timm 1.0.31;
archives with keras 3.15 and jax 0.10, the older one with keras 3.0.5 and jax 0.4.38.
"""

import os
import sys
from pathlib import Path

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def unit(name, n):
    """n numbers in [0, 1): splitmix64 on a counter that starts at FNV-1a of the name."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)) / 2.0**24


def hashed(tag, name, shape):
    """Numbers in [0, 1) of a name under a tag, which keeps makers of other files apart."""
    return unit(f"{tag}:{name}", int(np.prod(shape))).reshape(shape)


def hashed_weight(tag, name, shape, gain, dense_gain):
    """float32 values of the parameter LAYER/KIND, scaled by gains so that signals neither fade nor grow."""
    u = hashed(tag, name, shape)
    r = 2 * u - 1
    made = {
        "kernel": lambda: (dense_gain if len(shape) == 2 else gain) * np.sqrt(6 / np.prod(shape[:-1])) * r,
        "depthwise_kernel": lambda: gain * np.sqrt(6 / np.prod(shape[:2])) * r,
        "bias": lambda: 0.05 * r,
        "gamma": lambda: 1 + 0.1 * r,
        "beta": lambda: 0.1 * r,
        "moving_mean": lambda: 0.1 * r,
        "moving_variance": lambda: 0.5 + u,
    }[name.split("/")[1]]()
    return made.astype(np.float32)


def value(name, kind, shape, fan_in):
    """Weights under which activations stay of order one. `kind` is Keras'."""
    u = unit(name, int(np.prod(shape))).reshape(shape)
    r = 2 * u - 1
    made = {
        "kernel": lambda: np.sqrt(6 / fan_in) * r,
        "bias": lambda: 0.05 * r,
        "gamma": lambda: 1 + 0.1 * r,
        "beta": lambda: 0.1 * r,
        "moving_mean": lambda: 0.1 * r,
        "moving_variance": lambda: 0.5 + u,
    }[kind]()
    return made.astype(np.float32)


def picture(size):
    return (2 * unit(f"input{size}", size * size * 3).reshape(1, size, size, 3) - 1).astype(np.float32)


def fill_keras(model):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            fill_keras(layer)
            continue
        values = []
        for weight in layer.weights:
            kind = weight.name.split("/")[-1].split(":")[0]
            shape = tuple(weight.shape)
            depthwise = "depthwise" in type(layer).__name__.lower()
            if kind.endswith("kernel"):
                kind, fan_in = "kernel", np.prod(shape[:2] if depthwise else shape[:-1])
            else:
                fan_in = 1
            values.append(value(f"{layer.name}/{kind}", kind, shape, fan_in))
        layer.set_weights(values)
    return model


def keras_in(floatx, K, build, size):
    K.backend.clear_session()
    K.backend.set_floatx(floatx)
    return fill_keras(build(K, size))


def tiny_net(K, size):
    """A network in a network: strided, depthwise, batch norm twice, dense."""
    L = K.layers
    x = inputs = K.Input((size, size, 3), name="input_1")
    x = L.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="conv1")(x)
    x = L.BatchNormalization(name="conv1_bn")(x)
    x = L.ReLU(6.0, name="conv1_relu")(x)
    x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="conv_dw_1")(x)
    x = L.BatchNormalization(name="conv_dw_1_bn")(x)
    x = L.ReLU(6.0, name="conv_dw_1_relu")(x)
    x = L.Conv2D(5, 1, name="conv2d")(x)
    base = K.Model(inputs, x, name="base")
    top = [L.GlobalAveragePooling2D(name="pool"), L.Dense(4, activation="softmax", name="dense")]
    return K.Sequential([base, *top], name="net")


def tiny(folder):
    import keras
    import tf_keras

    x = picture(10)
    expected = keras_in("float64", tf_keras, tiny_net, 10)(x.astype(np.float64)).numpy()
    np.savez(folder / "tiny_expected.npz", input=x, output=expected)
    two = keras_in("float32", tf_keras, tiny_net, 10)
    two.compile("sgd", "mse")
    two.save_weights(folder / "tiny_keras2.h5", save_format="h5")
    two.save(folder / "tiny_keras2_model.h5")
    three = keras_in("float32", keras, tiny_net, 10)
    three.compile("sgd", "mse")
    three.save(folder / "tiny_keras3_model.h5")
    three.save_weights(folder / "tiny_keras3.weights.h5")
    arrays = {f"{w.name.split(':')[0]}": w.numpy() for w in two.weights}
    np.savez_compressed(folder / "tiny_numpy.npz", **arrays)


def archives(folder):
    """As Keras 3 saves models: `tiny`'s numbers, and these as bfloat16."""
    import keras

    keras_in("float32", keras, tiny_net, 10).save(folder / "tiny_keras3.keras")
    keras_in("bfloat16", keras, tiny_net, 10).save(folder / "tiny_keras3_bfloat16.keras")


def older(folder):
    """Keras 3.0 numbers variables and writes no names beside them."""
    import keras

    assert keras.__version__.startswith("3.0."), keras.__version__
    net = tiny_net(keras, 10)
    # There a Sequential has no weights before its first call.
    net(picture(10))
    fill_keras(net).save(folder / "tiny_keras3_0.keras")


def keras_bases(folder):
    import keras
    import tf_keras

    for name in ["VGG16", "ResNet50V2", "MobileNet", "MobileNetV2"]:
        def build(K, size):
            make = getattr(K.applications, name)
            return make(include_top=False, weights=None, input_shape=(size, size, 3))

        x = picture(64)
        expected = keras_in("float64", tf_keras, build, 64)(x.astype(np.float64)).numpy()
        np.savez(folder / f"{name.lower()}_keras.npz", input_64=x, output_64=expected)
        two = keras_in("float32", tf_keras, build, 64)
        deviation = np.abs(two(x).numpy() - expected).max() / np.abs(expected).max()
        two.save_weights(folder / f"{name.lower()}_keras.h5", save_format="h5")
        print(f"{name}: output {expected.shape}, largest {np.abs(expected).max():.3g}, "
              f"Keras in float32 is off by {deviation:.1e}")
        if name == "MobileNet":
            three = keras_in("float32", keras, build, 64)
            three.save(folder / "mobilenet_keras3.h5")
            three.save_weights(folder / "mobilenet_keras3.weights.h5")


def fill_torch(model):
    import torch

    for name, module in model.named_modules():
        state = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        norm = "running_mean" in state
        kinds = {"weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias",
                 "running_mean": "moving_mean", "running_var": "moving_variance"}
        for key, tensor in state.items():
            if key in kinds:
                shape = tuple(tensor.shape)
                fan_in = np.prod(shape[1:])
                values = value(f"{name}.{key}", kinds[key], shape, fan_in)
                with torch.no_grad():
                    tensor.copy_(torch.from_numpy(values))
    return model.eval()


def torch_nets(folder):
    import timm
    import torch
    import torchvision
    from safetensors.torch import save_file

    def nhwc(y):
        return y.permute(0, 2, 3, 1).contiguous().numpy()

    nets = {
        "vgg16_torchvision": (torchvision.models.vgg16(), lambda m, x: nhwc(m.features(x))),
        "mobilenetv2_torchvision": (torchvision.models.mobilenet_v2(), lambda m, x: nhwc(m.features(x))),
        "mobilenetv2_timm": (timm.create_model("mobilenetv2_100"), lambda m, x: nhwc(m.forward_features(x))),
        "mobilenet_timm": (timm.create_model("mobilenetv1_100"), lambda m, x: nhwc(m.forward_features(x))),
    }
    for name, (model, features) in nets.items():
        model = fill_torch(model)
        state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
        if name.startswith("vgg16"):
            # The dense layers are 495 of its 528 MB.
            state = {key: t for key, t in state.items() if not key.startswith(("classifier.0", "classifier.3"))}
        save_file(state, folder / f"{name}.safetensors")
        arrays = {}
        # An odd size too: there Keras' padding and PyTorch's lead to the same windows elsewhere.
        for size in [64, 65]:
            x = picture(size)
            nchw = torch.from_numpy(x).permute(0, 3, 1, 2)
            with torch.no_grad():
                single = features(model.float(), nchw)
                double = model.double()
                arrays |= {f"input_{size}": x, f"output_{size}": features(double, nchw.double())}
                if name == "mobilenet_timm":
                    arrays[f"logits_{size}"] = double(nchw.double()).numpy()
            expected = arrays[f"output_{size}"]
            deviation = np.abs(single - expected).max() / np.abs(expected).max()
            print(f"{name} at {size}: output {expected.shape}, largest {np.abs(expected).max():.3g}, "
                  f"PyTorch in float32 is off by {deviation:.1e}")
        np.savez(folder / f"{name}.npz", **arrays)


PARTS = {"tiny": tiny, "archives": archives, "older": older, "keras": keras_bases, "torch": torch_nets}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in PARTS:
        sys.exit(__doc__)
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    PARTS[sys.argv[1]](out)
