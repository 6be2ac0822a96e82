"""Time ResNet-18's training step and inference against PyTorch, and what per-layer rates cost.

    python benchmarks/resnet.py

ResNet-18 as torchvision defines it, two classes, batch 32 at 224 x 224, random weights. A step is
forward, mean cross-entropy, backward, SGD with momentum 0.9 and weight decay, and the running
accuracy, as the book's fine-tuning does and as `train_on_batch` does. PyTorch runs with its
ordinary memory layout and with channels last; the faster of the two is what counts.

Prints also the time to load the weights of a safetensors file into a network that is built, and
our step with the output layer at ten times the rate of the rest (`layer_rates`) beside the same
step with Keras' plain SGD.

Takes about 6 minutes on two free cores. Needs benchmarks/README.md's set-up.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing

BATCH = 32
IMAGE_SIZE = 224
NUM_CLASSES = 2
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

    def step(make_optimizer):
        keras.utils.set_random_seed(0)
        model = kerascv_d2l.classifier(
            "resnet18", NUM_CLASSES, input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3)
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(make_optimizer(model), loss, metrics=["accuracy"], jit_compile=False)
        return model, lambda: model.train_on_batch(images, labels)

    def one_rate(_):
        return keras.optimizers.SGD(RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def by_layer(model):
        return kerascv_d2l.layer_rates(
            model, RATE, {"head": 10.0}, weight_decay=WEIGHT_DECAY, momentum=MOMENTUM
        )

    model, one = step(one_rate)
    forward = tf.function(lambda x: model(x, training=False))
    full = kerascv_d2l.ResNet18(weights=None)
    file = Path(options.folder) / WEIGHTS
    cases = {
        "step": one,
        "step_by_layer": step(by_layer)[1],
        "inference": lambda: forward(images).numpy(),
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

        def step(net=net, x=x, trainer=trainer):
            net.train()
            trainer.zero_grad()
            scores = net((x / 255 - mean) / std)
            loss = torch.nn.functional.cross_entropy(scores, labels)
            loss.backward()
            trainer.step()
            return loss.item(), (scores.argmax(1) == labels).float().mean().item()

        def inference(net=net, x=x):
            net.eval()
            with torch.inference_mode():
                return net((x / 255 - mean) / std).numpy()

        cases[f"step_{layout}"] = step
        cases[f"inference_{layout}"] = inference
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
        compare(workers["ours"], workers["pytorch"], args.rounds)


def compare(ours_, pytorch_, rounds):
    """Print the tables."""
    print(timing.HEADER)
    for case, work in (("step", "training step"), ("inference", "inference")):
        times = timing.interleave(
            {
                "ours": (ours_, case),
                "PyTorch": (pytorch_, f"{case}_contiguous_format"),
                "PyTorch, channels last": (pytorch_, f"{case}_channels_last"),
            },
            rounds,
        )
        for name in list(times)[1:]:
            print(timing.row(work, name, times[name], times["ours"], "≥ 1.3x"), flush=True)
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
