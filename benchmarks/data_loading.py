"""Time the chapter's data sets against the book's DataLoaders, and measure their memory.

    python benchmarks/data_loading.py --book-python PYTHON

Prints a Markdown table. The data is made first, in the layout and size of the real data sets: VOC
2012's 1464 training images of 500 x 375, about 110 kB each, with class masks, and 1000 bananas
of 256 x 256. (64 different images of each kind under as many names as it takes.)

- VOC: an epoch of 320 x 480 windows with class masks, batch 32, new windows in every epoch.
  Ours reads JPEG and PNG from TFDS' records. The book's has decoded and normalised everything
  before its clock starts, holds it in memory, and cuts with two workers.
- `voc_label_indices` on a mask of 375 x 500.
- Bananas: an epoch of 1000, batch 32, after a first epoch.
- Memory: the largest resident set of a process that goes through VOC, six epochs of half of the
  images and three of all: as many batches, because a process grows over its first few
  thousand images whatever the data set. The book's is without its two workers' own memory.

The book's side is d2l's own code (`VOCSegDataset`, `BananasDataset`, `voc_label_indices`, PyTorch's
DataLoader with its settings), but images are read by Pillow where torchvision's compiled reader
is missing; that happens before the clock starts. `--book-python` names a Python with PyTorch,
torchvision and d2l, where it is not this one.

Takes about 5 minutes on two free cores, and 1 GB of disk in a temporary folder.
"""

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing
from PIL import Image, ImageDraw

BATCH = 32
CROP = (320, 480)
VOC_COUNT = 1464
VOC_SIZE = (375, 500)  # height, width
BANANA_COUNT = 1000
BANANA_SIDE = 256
DISTINCT = 64  # images that are really made
JPEG_QUALITY = 92
WORKERS = 2
MEMORY_EPOCHS = 3  # of all images, and twice as many of half of them
GOALS = {"voc": ">= 2x", "label_indices": ">= 3x", "bananas": ">= 3x"}
TITLES = {
    "voc": f"VOC, an epoch of {VOC_COUNT}, {CROP[0]} x {CROP[1]}, batch {BATCH}",
    "label_indices": "`voc_label_indices`, 375 x 500",
    "bananas": f"bananas, an epoch of {BANANA_COUNT}, batch {BATCH}",
}


# ---------------------------------------------------------------- the data, for every side


def photograph(rng, height, width):
    """A image of blobs of every size and a little noise, about as large a JPEG as a photo."""
    image = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        coarse = rng.normal(0, 100 / octave**1.3, (2**octave, 2**octave, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel]).resize((width, height), Image.BICUBIC)
            image[..., channel] += np.asarray(layer)
    return np.clip(image + 128 + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def class_mask(rng, palette):
    """A palette PNG with a few objects and their ignored borders."""
    height, width = VOC_SIZE
    mask = Image.new("P", (width, height))
    mask.putpalette(palette)
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.integers(1, 4)):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
        radii = rng.uniform(0.6, 1.0, 40) * rng.uniform(30, 130)
        centre = rng.uniform(0.2, 0.8, 2) * (width, height)
        points = centre + np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]
        points = [tuple(point) for point in points]
        draw.polygon(points, fill=int(rng.integers(1, 21)), outline=255, width=5)
    return encoded(mask, "PNG")


def make_voc(folder, count):
    """Write `count` training and a few validation images in VOC's layout."""
    from kerascv_d2l.data.voc_classes import VOC_COLORMAP, VOC_IGNORE_COLOR

    palette = np.zeros((256, 3), np.uint8)
    palette[: len(VOC_COLORMAP)] = VOC_COLORMAP
    palette[255] = VOC_IGNORE_COLOR
    rng = np.random.default_rng(0)
    pairs = [
        (
            encoded(Image.fromarray(photograph(rng, *VOC_SIZE)), "JPEG", quality=JPEG_QUALITY),
            class_mask(rng, palette.ravel().tolist()),
        )
        for _ in range(DISTINCT)
    ]
    names = [f"2007_{i:06d}" for i in range(count)]
    root = folder / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        image, mask = pairs[i % DISTINCT]
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(image)
        (root / "SegmentationClass" / f"{name}.png").write_bytes(mask)
        (root / "Annotations" / f"{name}.xml").write_text("<annotation></annotation>")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names))
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names[:BATCH]))
    return sum(len(image) for image, _ in pairs) / DISTINCT


def make_bananas(folder):
    rng = np.random.default_rng(1)
    contents = [
        encoded(Image.fromarray(photograph(rng, BANANA_SIDE, BANANA_SIDE)), "PNG")
        for _ in range(DISTINCT)
    ]
    for split, count in (("bananas_train", BANANA_COUNT), ("bananas_val", BATCH)):
        images = folder / "banana-detection" / split / "images"
        images.mkdir(parents=True)
        lines = ["img_name,label,xmin,ymin,xmax,ymax"]
        for i in range(count):
            (images / f"{i}.png").write_bytes(contents[i % DISTINCT])
            lines.append(f"{i}.png,0,{i % 100},20,{100 + i % 100},120")
        (images.parent / "label.csv").write_text("\n".join(lines) + "\n")


def prepare(folder, halves):
    import tensorflow_datasets as tfds

    from kerascv_d2l.data.prepared import prepare as prepare_set

    tfds.disable_progress_bar()
    prepare_set("banana_detection", data_dir=folder / "tfds", archive=folder)
    prepare_set("voc2012_segmentation", data_dir=folder / "tfds", archive=folder)
    prepare_set("voc2012_segmentation", data_dir=halves / "tfds", archive=halves)


# ---------------------------------------------------------------- the sides


def exhaust(batches):
    for _ in batches:
        pass


def mask_in_colours(folder):
    path = next((folder / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))
    return np.asarray(Image.open(path).convert("RGB"))


def serve_ours(folder):
    import tensorflow as tf

    from kerascv_d2l import (
        load_data_bananas,
        load_data_voc,
        voc_colormap2label,
        voc_label_indices,
    )

    voc, _ = load_data_voc(BATCH, CROP, data_dir=folder / "tfds")
    bananas, _ = load_data_bananas(BATCH, data_dir=folder / "tfds")
    exhaust(bananas)
    mask = mask_in_colours(folder)
    table = voc_colormap2label()
    cases = {
        "voc": lambda: exhaust(voc),
        "bananas": lambda: exhaust(bananas),
        "label_indices": lambda: voc_label_indices(mask, table).numpy(),
    }
    return cases, {"TensorFlow": tf.__version__}


def book():
    """PyTorch and d2l, whose images are read by Pillow."""
    import torch
    from book_ssd import import_d2l

    d2l = import_d2l()
    import torchvision

    def read_image(path, mode=None):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    torchvision.io.read_image = read_image
    return torch, d2l


def book_voc(folder):
    torch, d2l = book()
    examples = d2l.VOCSegDataset(True, CROP, str(folder / "VOCdevkit/VOC2012"))
    return torch.utils.data.DataLoader(
        examples, BATCH, shuffle=True, drop_last=True, num_workers=WORKERS
    )


def book_bananas(folder):
    torch, d2l = book()

    class Bananas(d2l.BananasDataset):
        """The book's, but for the reading of the table, which needs pandas."""

        def __init__(self):
            folder_ = folder / "banana-detection" / "bananas_train"
            rows = (folder_ / "label.csv").read_text().split()[1:]
            names, *columns = zip(*(row.split(",") for row in rows), strict=True)
            self.features = [
                torch.from_numpy(
                    np.asarray(Image.open(folder_ / "images" / name)).transpose(2, 0, 1).copy()
                )
                for name in names
            ]
            labels = np.array(columns, np.float32).T
            self.labels = torch.from_numpy(labels).unsqueeze(1) / 256

    return torch.utils.data.DataLoader(Bananas(), BATCH, shuffle=True)


def serve_book(folder):
    torch, d2l = book()
    voc, bananas = book_voc(folder), book_bananas(folder)
    mask = torch.from_numpy(mask_in_colours(folder).transpose(2, 0, 1).copy())
    table = d2l.voc_colormap2label()
    cases = {
        "voc": lambda: exhaust(voc),
        "bananas": lambda: exhaust(bananas),
        "label_indices": lambda: d2l.voc_label_indices(mask, table),
    }
    return cases, {"PyTorch": torch.__version__, "DataLoader workers for VOC": WORKERS}


def memory(side, folder, epochs):
    """Print the largest resident set, MiB, of some epochs of VOC."""
    if side == "ours":
        from kerascv_d2l import load_data_voc

        batches, _ = load_data_voc(BATCH, CROP, data_dir=folder / "tfds")
    else:
        batches = book_voc(folder)
    for _ in range(epochs):
        exhaust(batches)
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main(argv=None):
    """Run the benchmark; return the median ratio of each work and the memory in MiB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--book-python", default=sys.executable, help="a Python with d2l")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--serve", choices=("ours", "book"), help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=("ours", "book"), help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the answers
            cases, about = {"ours": serve_ours, "book": serve_book}[args.serve](args.folder)
        timing.serve(cases, about)
        return None
    if args.memory:
        memory(args.memory, args.folder, args.epochs)
        return None

    with tempfile.TemporaryDirectory() as scratch:
        folder, halves = Path(scratch) / "all", Path(scratch) / "half"
        size = make_voc(folder, VOC_COUNT)
        make_voc(halves, VOC_COUNT // 2)
        make_bananas(folder)
        print(f"Images made: {size / 1000:.0f} kB a JPEG on average.", flush=True)
        prepare(folder, halves)
        python = {"ours": sys.executable, "book": args.book_python}

        def command(side, kind, where):
            return [python[side], __file__, f"--{kind}", side, "--folder", str(where)]

        ratios = {}
        with (
            timing.Worker(command("ours", "serve", folder)) as ours,
            timing.Worker(command("book", "serve", folder)) as theirs,
        ):
            print(timing.machine({"ours": ours, "book": theirs}))
            print(timing.HEADER)
            for case, title in TITLES.items():
                sides = {"ours": (ours, case), "book": (theirs, case)}
                times = timing.interleave(sides, args.rounds, warm_up=1)
                row = timing.row(title, "book", times["book"], times["ours"], GOALS[case])
                print(row, flush=True)
                ratios[case] = timing.ratio(times["book"], times["ours"])[1]
        columns = f"half the images, {2 * MEMORY_EPOCHS} epochs | all, {MEMORY_EPOCHS} epochs"
        print(f"\n| memory, MiB | {columns} | more |")
        print("|---|---|---|---|")
        for side in ("ours", "book"):
            found = []
            for where, epochs in ((halves, 2 * MEMORY_EPOCHS), (folder, MEMORY_EPOCHS)):
                done = subprocess.run(
                    [*command(side, "memory", where), f"--epochs={epochs}"],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                found.append(int(done.stdout.split("memory ")[1]))
            print(f"| {side} | {found[0]} | {found[1]} | {found[1] - found[0]} |", flush=True)
            ratios[f"memory_{side}"] = found
    return ratios


if __name__ == "__main__":
    main()
