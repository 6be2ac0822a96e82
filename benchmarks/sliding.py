"""Time a classifier in one pass over an image, against running it on window after window.

    python benchmarks/sliding.py

Prints a Markdown table. Work: all windows of 224 x 224, 32 pixels apart, of an image of 448 x 448:
64 of them. Window by window they go through the network 16 at a time. Random weights. Before
anything is timed, one pass over a single window is compared with the network itself.

Takes a minute on two free cores (`--rounds 3` for a quick look).
"""

import argparse
import functools
import sys

import numpy as np
import timing

NETWORKS = ("mobilenet_0.75", "resnet18", "vgg16")
WINDOW, STRIDE, SIDE, BATCH = 224, 32, 448, 16


def cases():
    """Both ways for each network."""
    import tensorflow as tf

    from kerascv_d2l import SlidingClassifier, imagenet_classifier

    image = np.random.default_rng(0).uniform(0, 255, (1, SIDE, SIDE, 3)).astype(np.float32)
    starts = range(0, SIDE - WINDOW + 1, STRIDE)
    corners = [(top, left) for top in starts for left in starts]
    found = {}
    for name in NETWORKS:
        model = imagenet_classifier(name)
        sliding = SlidingClassifier(model)
        one = tf.function(functools.partial(model, training=False))
        whole = tf.function(sliding)
        window = tf.constant(image[:, :WINDOW, :WINDOW])
        np.testing.assert_allclose(whole(window)[:, 0, 0], one(window), rtol=1e-3, atol=1e-4)

        def windows(one=one):
            crops = np.stack([image[0, t : t + WINDOW, k : k + WINDOW] for t, k in corners])
            for k in range(0, len(crops), BATCH):
                one(tf.constant(crops[k : k + BATCH])).numpy()

        found[f"{name}, window by window"] = windows
        found[f"{name}, one pass"] = lambda whole=whole: whole(tf.constant(image)).numpy()
    return found


def main(argv=None):
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        timing.serve(cases())
        return
    with timing.Worker([sys.executable, __file__, "--serve"]) as worker:
        print(timing.machine({"ours": worker}) + "\n")
        print(timing.HEADER)
        for name in NETWORKS:
            sides = {way: (worker, f"{name}, {way}") for way in ("window by window", "one pass")}
            times = timing.interleave(sides, args.rounds, warm_up=1)
            work = f"{name}, windows of {WINDOW} in {SIDE} x {SIDE}"
            print(timing.row(work, "window by window", *times.values()), flush=True)


if __name__ == "__main__":
    main()
