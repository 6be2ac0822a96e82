"""Time ResNet-18's training step and inference against PyTorch, and what per-layer rates cost.

    python benchmarks/resnet.py

ResNet-18 as torchvision defines it, two classes, batch 32 at 224 x 224, random weights. A step is
forward, mean cross-entropy, backward, SGD with momentum 0.9 and weight decay, and the running
accuracy, as the book's fine-tuning does and as `train_on_batch` does. PyTorch runs with its
ordinary memory layout and with channels last, both sides in float32 and bfloat16 (PyTorch's
autocast, Keras' mixed_bfloat16). The rate of a float32 matrix product says what is left to gain.

Prints also the time to load the weights of a safetensors file into a network that is built, and
our step with the output layer at ten times the rate of the rest (`layer_rates`) beside the same
step with Keras' plain SGD.

Takes about 6 minutes on two free cores. Needs benchmarks/README.md's set-up.
"""

import argparse
import contextlib
import functools
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing

BATCH = 32
IMAGE_SIZE = 224
NUM_CLASSES = 2
MATRIX = 2048  # side of the product that stands for what the machine can do
FORWARD = 1.814e9 * 2  # floating-point operations an image, of convolutions and the dense layer
WEIGHTS = "resnet18.safetensors"  # what PyTorch's side writes and ours loads
RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4


def make_batch(batch):
    """Return images float32 `(batch, h, w, 3)` 0-255 and labels int64 `(batch,)`."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)
    return images, rng.integers(0, NUM_CLASSES, batch)


def ours(options):
    """Serve this package's ResNet-18."""
    import keras
    import tensorflow as tf

    import kerascv_d2l
    from kerascv_d2l.models.weights import load_weights

    images, labels = map(tf.constant, make_batch(options.batch))

    def step(make_optimizer, policy="float32"):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(policy)
        model = kerascv_d2l.Classifier("resnet18", NUM_CLASSES, image_size=(IMAGE_SIZE, IMAGE_SIZE))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(make_optimizer(model), loss, metrics=["accuracy"], jit_compile=False)
        return model, lambda: model.train_on_batch(images, labels)

    def one_rate(_):
        return keras.optimizers.SGD(RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def by_layer(model):
        return kerascv_d2l.layer_rates(
            model, RATE, {"head": 10.0}, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM
        )

    def inference(model):
        forward = tf.function(lambda x: model(x, training=False))
        return lambda: forward(images).numpy()

    model, one = step(one_rate)
    model16, one16 = step(one_rate, "mixed_bfloat16")
    keras.config.set_dtype_policy("float32")
    a, b = (tf.random.normal((MATRIX, MATRIX)) for _ in range(2))
    full = kerascv_d2l.ResNet18(weights=None)
    file = Path(options.folder) / WEIGHTS
    cases = {
        "step": one,
        "step_by_layer": step(by_layer)[1],
        "inference": inference(model),
        "step_bfloat16": one16,
        "inference_bfloat16": inference(model16),
        "matrix": lambda: tf.matmul(a, b).numpy(),
        "load": lambda: load_weights(full, file),
    }
    return cases, {"tensorflow": tf.__version__, "keras": keras.__version__}


def pytorch(options):
    """Serve torchvision's ResNet-18."""
    import book_ssd
    import torch
    from safetensors.numpy import save_file

    book_ssd.import_d2l()  # declares what torchvision's import asks for
    import torchvision

    torch.set_num_threads(timing.THREADS)
    images, labels = map(torch.from_numpy, make_batch(options.batch))
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    full = torchvision.models.resnet18().state_dict()
    save_file(
        {name: tensor.numpy() for name, tensor in full.items()}, f"{options.folder}/{WEIGHTS}"
    )
    cases = {}
    for layout in ("contiguous_format", "channels_last"):
        memory = getattr(torch, layout)
        torch.manual_seed(0)
        net = torchvision.models.resnet18(num_classes=NUM_CLASSES).to(memory_format=memory)
        x = images.permute(0, 3, 1, 2).contiguous(memory_format=memory)
        trainer = torch.optim.SGD(
            net.parameters(), RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )

        def step(half, net=net, x=x, trainer=trainer):
            net.train()
            trainer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                scores = net((x / 255 - mean) / std)
                loss = torch.nn.functional.cross_entropy(scores, labels)
            loss.backward()
            trainer.step()
            return loss.item(), (scores.argmax(1) == labels).float().mean().item()

        def inference(half, net=net, x=x):
            net.eval()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return net((x / 255 - mean) / std).float().numpy()

        for half, ending in ((False, ""), (True, "_bfloat16")):
            cases[f"step_{layout}{ending}"] = functools.partial(step, half)
            cases[f"inference_{layout}{ending}"] = functools.partial(inference, half)
    return cases, {"torch": torch.__version__, "torchvision": torchvision.__version__}


SIDES = {"ours": ours, "pytorch": pytorch}


def main(argv=None):
    """Run the comparison, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="turns of each side")
    parser.add_argument("--batch", type=int, default=BATCH, help="the goals are for 32")
    parser.add_argument("--book-python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(*SIDES[args.serve](args))
        return
    pythons = {"pytorch": args.book_python, "ours": sys.executable}  # in this order: the weights
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        options = ["--batch", str(args.batch), "--folder", folder]
        workers = {
            side: stack.enter_context(timing.Worker([python, __file__, "--serve", side, *options]))
            for side, python in pythons.items()
        }
        print(timing.machine(workers) + "\n")
        compare(workers["ours"], workers["pytorch"], args.rounds, args.batch)


def compare(ours_, pytorch_, rounds, batch):
    """Print the tables."""
    print(timing.HEADER)
    for case, work, passes in (("step", "training step", 3), ("inference", "inference", 1)):
        sides = {}
        for ending in ("", "_bfloat16"):
            sides[f"ours{ending}"] = (ours_, f"{case}{ending}")
            for layout in ("contiguous_format", "channels_last"):
                sides[f"{layout}{ending}"] = (pytorch_, f"{case}_{layout}{ending}")
        times = timing.interleave({**sides, "matrix": (ours_, "matrix")}, rounds)
        for ending, kind in (("", "float32"), ("_bfloat16", "bfloat16")):
            for layout in ("contiguous_format", "channels_last"):
                theirs, own = times[f"{layout}{ending}"], times[f"ours{ending}"]
                name = f"PyTorch, {layout.replace('_', ' ')}"
                print(timing.row(f"{work}, {kind}", name, theirs, own, "≥ 1.3x"), flush=True)
        rate = passes * batch * FORWARD / statistics.median(times["ours"]) / 1e9
        best = 2 * MATRIX**3 / statistics.median(times["matrix"]) / 1e9
        print(f"{work}, float32: {rate:.0f} GFLOP/s; a matrix product reaches {best:.0f}\n")
    sides = {case: (ours_, case) for case in ("step", "step_by_layer")}
    times = timing.interleave(sides, 3 * rounds)
    low, middle, high = timing.ratio(times["step_by_layer"], times["step"])
    print(
        f"\nper-layer rates: {middle:.4f} times the step with one rate ({low:.4f}-{high:.4f}); "
        "goal < 1.02"
    )
    (seconds,) = timing.interleave({"load": (ours_, "load")}, rounds).values()
    print(f"loading the weights: {timing.show_seconds(statistics.median(seconds))}; goal < 1 s")


if __name__ == "__main__":
    main()
