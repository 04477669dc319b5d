#!/usr/bin/env python3
"""Times Keras on TensorFlow on the CPU on the networks of `atrous bench nets`, under the same names.

    python keras_nets.py --threads 2 --jit off,on > keras.jsonl
    atrous bench nets --threads 2 --against keras.jsonl

Lines as torch_nets.py prints them; jit says whether XLA compiles (`off` is what Keras' "auto" comes to on a CPU). The networks
of keras.applications are built without weights, so nothing is downloaded. A training step is the function that `fit` calls for
each batch, inference a tf.function of the model.
"""
import argparse
import itertools
import json
import os

from timing import ALLOCATORS, BATCHES, Timer, listed, measure_cell, peak_rss_mib


def network(name):
    """(model, kind of targets, loss, optimizer or None)"""
    import keras
    from keras import applications, layers as L, optimizers

    def on(base, *head, trainable=False):
        base.trainable = trainable
        return keras.Sequential([base, *head])

    def dense(units):
        return L.Dense(units, activation="relu")

    if name == "alexnet":
        model = keras.Sequential([
            keras.Input((150, 150, 3)),
            L.Conv2D(64, 7), L.ReLU(), L.BatchNormalization(), L.MaxPooling2D(3),
            L.Conv2D(128, 5), L.ReLU(), L.BatchNormalization(), L.MaxPooling2D(3),
            L.Conv2D(145, 3, activation="relu"), L.Conv2D(145, 3, activation="relu"),
            L.Conv2D(128, 3, activation="relu"), L.BatchNormalization(), L.MaxPooling2D(4),
            L.Flatten(), dense(64), dense(64), L.Dropout(0.5), L.Dense(20, activation="sigmoid")])
        return model, "flags", "binary_crossentropy", optimizers.Adam(1e-4)
    if name == "vgg16_frozen":
        base = applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
        model = on(base, L.Flatten(), dense(512), L.Dropout(0.5), L.Dense(20, activation="softmax"))
        return model, "one of 20", "categorical_crossentropy", optimizers.SGD(1e-4, momentum=0.9)
    if name == "resnet50v2_frozen":
        base = applications.ResNet50V2(include_top=False, weights=None, input_shape=(224, 224, 3))
        head = [L.Flatten(), dense(512), L.Dropout(0.3), dense(512), L.Dropout(0.3), L.Dense(20, activation="sigmoid")]
        return on(base, *head), "flags", "binary_crossentropy", optimizers.SGD(1e-4, momentum=0.9)
    if name in ("mobilenetv2_frozen", "mobilenetv2_full"):
        base = applications.MobileNetV2(include_top=False, weights=None, input_shape=(256, 256, 3))
        model = on(base, L.GlobalAveragePooling2D(), L.Dense(20, activation="softmax"), trainable=name.endswith("full"))
        return model, "one of 20", "categorical_crossentropy", optimizers.RMSprop()
    if name == "deeplabv3plus":
        base = applications.MobileNet(include_top=False, weights=None, input_shape=(224, 224, 3))
        low, high = base.get_layer("conv_pw_3_bn").output, base.get_layer("conv_pw_11_bn").output

        def block(x, filters, kernel, dilation=1, bias=False):
            x = L.Conv2D(filters, kernel, dilation_rate=dilation, padding="same", use_bias=bias)(x)
            return L.ReLU()(L.BatchNormalization()(x))

        def larger(x, factor):
            return L.UpSampling2D((factor, factor), interpolation="bilinear")(x)

        pooled = larger(block(L.AveragePooling2D((14, 14))(high), 256, 1, bias=True), 14)
        pyramid = [block(high, 256, 1)] + [block(high, 256, 3, d) for d in (6, 12, 18)]
        x = larger(block(L.Concatenate()([pooled, *pyramid]), 256, 1), 4)
        x = L.Concatenate()([x, block(low, 48, 1)])
        x = larger(block(block(x, 256, 3), 256, 3), 4)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return keras.Model(base.input, L.Conv2D(21, 1)(x)), "pixels", loss, optimizers.Adam(1e-4)
    if name == "fgsm_mobilenetv2":
        model = applications.MobileNetV2(weights=None, input_shape=(224, 224, 3))
        model.trainable = False
        return model, "one of 1000", keras.losses.CategoricalCrossentropy(), None
    raise SystemExit(f"no network {name}")


def targets_of(kind, n, random):
    import numpy as np

    if kind == "flags":
        return (random.random((n, 20)) < 0.1).astype("float32")
    if kind == "pixels":
        return random.integers(0, 21, (n, 224, 224)).astype("int32")
    classes = int(kind.removeprefix("one of "))
    return np.eye(classes, dtype="float32")[random.integers(0, classes, n)]


def measure(net, jit, alloc, threads, part):
    """The line of a cell; `part` "train" takes a few steps and nothing else."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(0)
    xla = jit == "on"
    model, kind, loss, optimizer = network(net)
    line = {"framework": f"keras {keras.__version__} tensorflow {tf.__version__}", "net": net, "layout": "channels_last",
            "jit": jit, "alloc": alloc, "threads": threads, "batch": BATCHES[net], "parameters": model.count_params()}
    random = np.random.default_rng(0)
    timer = Timer()

    def pictures(n):
        return tf.constant(random.standard_normal((n, *model.input_shape[1:]), dtype=np.float32))

    if part == "times":
        for key, n in (("infer_ms", BATCHES[net]), ("infer1_ms", 1)):
            x = pictures(n)
            run = tf.function(lambda x: model(x, training=False), jit_compile=xla)
            line[key] = timer.median_ms(lambda: run(x).numpy(), 4.0)
    x, y = pictures(BATCHES[net]), tf.constant(targets_of(kind, BATCHES[net], random))
    if optimizer is None:

        @tf.function(jit_compile=xla)
        def gradient(x, y):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(y, model(x, training=False))
            return tf.sign(tape.gradient(value, x))

        def step():
            gradient(x, y).numpy()
    else:
        model.compile(optimizer=optimizer, loss=loss, jit_compile=xla)
        model.make_train_function()

        def step():
            float(model.train_function(iter([(x, y)]))["loss"])

    line["train_ms"] = timer.median_ms(step, 6.0 if part == "times" else 0.0)
    line.update(peak_rss_mib=peak_rss_mib(), first_s=round(timer.first, 1))
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", type=listed, default=list(BATCHES), help="networks")
    parser.add_argument("--jit", type=listed, default=["off", "on"])
    parser.add_argument("--alloc", type=listed, default=["default"], help=", ".join(ALLOCATORS))
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(measure(**json.loads(options.cell))))
        return
    for net, jit, alloc in itertools.product(options.only, options.jit, options.alloc):
        cell = {"net": net, "jit": jit, "alloc": alloc, "threads": options.threads}
        print(json.dumps(measure_cell(__file__, cell)), flush=True)


if __name__ == "__main__":
    main()
