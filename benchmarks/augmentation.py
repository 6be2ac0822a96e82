"""Time augmentation against Keras' own layers and against torchvision on Pillow images.

    python benchmarks/augmentation.py --torch-python PYTHON [--data FOLDER]

Prints a Markdown table. The photographs are those of `--data`, any JPEG files, or 64 that are made
first: 500 x 375, blobs of every size and noise, about 110 kB each.

- Jitter: all four at 0.5, of decoded 500 x 375 images, `Dataset.map` with two parallel calls,
  batches of 32; against `keras.layers.RandomColorJitter` in the same pipeline, and against
  torchvision's `ColorJitter` on Pillow images in a DataLoader with two workers.
- Files: JPEG file to RandomResizedCrop 224, flip, normalise, batches of 32; ours decodes only the
  window, and antialiases only what shrinks to less than half, Pillow everything; against
  torchvision on Pillow images in a DataLoader with two workers.
- Model: RandomResizedCrop 224, flip and normalise as a Keras model, a batch of 64 images in
  memory; against Keras' RandomZoom, RandomFlip, Resizing and Normalization.
- Boxes: SSD's crop, flip and jitter on images with 20 boxes, and without boxes.

All data sets of TensorFlow, Keras' as ours, go without its tuner, for which an iterator that ends
waits, up to as long as it has run. Images go through the DataLoader as uint8 tensors: turning
them into floats in a worker process would take time of its own. `--torch-python` names a Python
with PyTorch, torchvision and Pillow.

`--rounds 1 --count 64` is a quick check that everything runs. Takes about 80 seconds on two
free cores with 5 rounds.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing
from PIL import Image

BATCH, MODEL_BATCH = 32, 64
HEIGHT, WIDTH = 375, 500
SIZE = 224
STRENGTH = 0.5
WORKERS = 2
BOXES = 20
COUNT = 256  # images an epoch; the files are repeated as often as it takes
# Times as many where files are read: at the end of a turn our pipeline, which has no end, has read
# some batches in vain, which must not count for much.
FILES = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of [0, 1]


def files_of(folder, count):
    """As many paths as wanted, the folder's JPEG files again and again."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"{folder}: no .jpg or .jpeg file in it")
    return [str(found[k % len(found)]) for k in range(count)]


def exhaust(batches):
    for _ in batches:
        pass


# ---------------------------------------------------------------- the sides


def serve_ours(folder, count):
    """Our layers and Keras' own, in one process: neither works while the other does."""
    import keras
    import tensorflow as tf

    import kerascv_d2l
    from kerascv_d2l.data.batches import batches, prefetched
    from kerascv_d2l.data.splits import Split

    paths = files_of(folder, FILES * count)
    pixels = np.stack([np.asarray(_opened(path)) for path in paths[:MODEL_BATCH]])
    images = tf.data.Dataset.from_tensor_slices(pixels).repeat(-(-count // len(pixels)))
    images = images.take(count)
    everything = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), STRENGTH)

    def mapped(layer, data=images):
        return prefetched(data.map(layer, num_parallel_calls=WORKERS).batch(BATCH))

    keras_jitter = keras.layers.RandomColorJitter(
        value_range=(0, 255),
        brightness_factor=STRENGTH,
        contrast_factor=STRENGTH,
        saturation_factor=STRENGTH,
        hue_factor=STRENGTH,
    )
    jitters = {
        "jitter": mapped(kerascv_d2l.ColorJitter(**everything)),
        "jitter_keras": mapped(keras_jitter),
    }

    split = Split(
        images=paths,
        targets={"label": np.zeros(len(paths), np.int32)},
        names=paths,
        plain=np.array([_is_plain(path) for path in paths]),
        sizes=np.array([_size(path) for path in paths]),
    )
    mean, std = ([255 * value for value in values] for values in (MEAN, STD))

    def normalise(images, labels):
        return kerascv_d2l.normalize(images, mean, std), labels

    cut = batches(split, SIZE, BATCH, training=True)
    cut = cut.map(normalise).take(len(paths) // BATCH)

    batch = tf.constant(pixels[:MODEL_BATCH])
    models = {
        "model": _model([kerascv_d2l.RandomResizedCrop(SIZE), kerascv_d2l.RandomHorizontalFlip()]),
        "model_keras": _model(
            [
                keras.layers.RandomZoom((-0.5, 0.0), (-0.5, 0.0)),
                keras.layers.RandomFlip("horizontal"),
                keras.layers.Resizing(SIZE, SIZE),
            ]
        ),
    }
    calls = {
        name: tf.function(lambda images, model=model: model(images, training=True))
        for name, model in models.items()
    }

    ssd = keras.layers.Pipeline(
        [
            kerascv_d2l.RandomIoUCrop(),
            kerascv_d2l.RandomHorizontalFlip(),
            kerascv_d2l.ColorJitter(**everything),
        ]
    )
    corners = np.random.default_rng(0).uniform(0, 0.7, (BOXES, 2))
    boxes = np.concatenate([corners, corners + 0.25], -1).astype(np.float32)
    labels = np.zeros(BOXES, np.int32)
    with_boxes = images.map(
        lambda image: {"images": image, "bounding_boxes": {"boxes": boxes, "labels": labels}}
    )
    detection = {
        "ssd_20_boxes": mapped(ssd, with_boxes),
        "ssd_no_boxes": mapped(ssd, images.map(lambda image: {"images": image})),
    }
    cases = {
        name: lambda data=data: exhaust(data)
        for name, data in (jitters | detection | {"files": cut}).items()
    }
    cases |= {name: lambda call=call: call(batch).numpy() for name, call in calls.items()}
    return cases, {"TensorFlow": tf.__version__, "Keras": keras.__version__}


def _model(layers):
    import keras

    inputs = images = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    for layer in layers:
        images = layer(images)
    normalise = keras.layers.Normalization(
        mean=[255 * m for m in MEAN], variance=[(255 * s) ** 2 for s in STD]
    )
    return keras.Model(inputs, normalise(images))


def _opened(path):
    image = Image.open(path).convert("RGB")
    return image if image.size == (WIDTH, HEIGHT) else image.resize((WIDTH, HEIGHT))


def _size(path):
    with Image.open(path) as image:
        return image.size[::-1]


def _is_plain(path):
    from kerascv_d2l import check_image

    return check_image(path).plain


def serve_torch(folder, count):
    """The book's way: torchvision on Pillow images, in a DataLoader with two workers."""
    import torch
    from book_ssd import import_torchvision

    torchvision = import_torchvision()
    transforms = torchvision.transforms
    paths = files_of(folder, FILES * count)
    images = [_opened(path) for path in paths[:MODEL_BATCH]]

    class Images(torch.utils.data.Dataset):
        def __init__(self, load, transform, length):
            self.load, self.transform, self.length = load, transform, length

        def __len__(self):
            return self.length

        def __getitem__(self, index):
            return self.transform(self.load(index))

    def batches(load, transform, length=count):
        data = Images(load, transform, length)
        return torch.utils.data.DataLoader(
            data, BATCH, num_workers=WORKERS, persistent_workers=True
        )

    jitter = transforms.Compose([transforms.ColorJitter(*[STRENGTH] * 4), transforms.PILToTensor()])
    files = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loaders = {
        "jitter": batches(lambda index: images[index % len(images)], jitter),
        "files": batches(lambda index: Image.open(paths[index]).convert("RGB"), files, len(paths)),
    }
    cases = {name: lambda loader=loader: exhaust(loader) for name, loader in loaders.items()}
    about = {"PyTorch": torch.__version__, "torchvision": torchvision.__version__}
    return cases, about | {"DataLoader workers": WORKERS}


ROWS = (  # what is done, (side, case) of theirs, case of ours, goal
    ("jitter, 500 x 375", "RandomColorJitter", ("ours", "jitter_keras"), "jitter", ">= 5x"),
    ("jitter, 500 x 375", "torchvision", ("torch", "jitter"), "jitter", ">= 2x"),
    ("JPEG to 224, normalised", "torchvision", ("torch", "files"), "files", ">= 1.5x"),
    ("224 in a model, 64", "RandomZoom + Flip", ("ours", "model_keras"), "model", ">= 4x"),
    ("SSD crop + flip + jitter", "no boxes", ("ours", "ssd_no_boxes"), "ssd_20_boxes", ">= 0.77x"),
)


def main(argv=None):
    """Run the benchmark; return the median ratio of each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with torchvision")
    parser.add_argument("--data", type=Path, help="folder of JPEG files (default: made)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--count", type=int, default=COUNT, help=f"images an epoch ({COUNT})")
    parser.add_argument("--serve", choices=("ours", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers
            serve = {"ours": serve_ours, "torch": serve_torch}[args.serve]
            cases, about = serve(args.data, args.count)
        timing.serve(cases, about)
        return None

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data
        if folder is None:
            folder = Path(scratch)
            write_photographs(folder, min(args.count, MODEL_BATCH))

        def worker(side, python):
            command = [python, __file__, "--serve", side, "--data", str(folder)]
            return timing.Worker([*command, "--count", str(args.count)])

        ratios = {}
        with worker("ours", sys.executable) as ours, worker("torch", args.torch_python) as torch:
            workers = {"ours": ours, "torch": torch}
            print(timing.machine(workers))
            print(timing.HEADER, flush=True)
            for title, against, (side, theirs), case, goal in ROWS:
                sides = {"theirs": (workers[side], theirs), "ours": (ours, case)}
                times = timing.interleave(sides, args.rounds, warm_up=1)
                print(timing.row(title, against, times["theirs"], times["ours"], goal), flush=True)
                middle = timing.ratio(times["theirs"], times["ours"])[1]
                ratios[f"{title}, {against}"] = middle
    return ratios


def write_photographs(folder, count):
    from data_loading import JPEG_QUALITY, photograph

    rng = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(photograph(rng, HEIGHT, WIDTH))
        image.save(folder / f"{number:03d}.jpg", quality=JPEG_QUALITY)


if __name__ == "__main__":
    main()
