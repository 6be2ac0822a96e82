"""Train a model that makes images: an autoencoder, a VAE or a GAN; judge, draw and export it.

    python scripts/train_generator.py --model gan

learns generated images of 32 x 32 pixels, which need no network. `--data cifar10` or `--data
FOLDER` takes others, of any size and kind: the middle is cut out and resized to --image-size.
Samples are scored by the Fréchet distance of a classifier's features from those of validation
images (lower is better), and by its inception score. docs/generation.md says what to expect.
"""

import kerascv_d2l as d2l
from kerascv_d2l import cli

TASK = "train_generator"
GENERATED, CIFAR10 = "generated", "cifar10"
NAMES = (GENERATED, CIFAR10)
MODELS = ("ae", "vae", "gan")
LOSSES = {
    "ae": ("bce", "gaussian"),
    "vae": ("bce", "gaussian"),
    "gan": ("non_saturating", "minimax", "least_squares", "hinge", "wasserstein"),
}
# Measured, see docs/generation.md.
DEFAULTS = {
    "ae": {"learning_rate": 1e-3, "epochs": 13},
    "vae": {"learning_rate": 1e-3, "epochs": 13},
    "gan": {"learning_rate": 1e-3, "epochs": 26},
}
BETA = 1.0
BETA_1 = 0.5  # of a GAN's Adam: DCGAN's
NUM_SHEETS, NUM_DRAWN, NUM_PAIRS = 10, 64, 16
WALK_ROWS, WALK_STEPS = 6, 9
MOST_SCORED = 1000


def parse(argv=None):
    parser = cli.parser(__doc__)
    group = cli.add_data_arguments(
        parser,
        NAMES,
        GENERATED,
        help_text=f"a folder of images, also in folders in it; or {CIFAR10}, which is downloaded "
        "if needed (default: generated images)",
    )
    group.add_argument(
        "--image-size",
        type=cli.image_size,
        default=(32, 32),
        metavar="PIXELS",
        help="size of the images to make: 32, or HEIGHTxWIDTH, multiples of 16 (default: 32)",
    )
    group.add_argument("--grey", action="store_true", help="make grey images, of grey ones")
    add = parser.add_argument_group("model").add_argument
    add(
        "--model",
        choices=MODELS,
        default="gan",
        help="ae: autoencoder; vae: variational autoencoder (default: %(default)s)",
    )
    add(
        "--loss",
        choices=[*LOSSES["vae"], *LOSSES["gan"]],
        help=f"ae and vae: {' or '.join(LOSSES['vae'])}; gan: {', '.join(LOSSES['gan'])} "
        "(default: the first of each)",
    )
    add(
        "--latent-size",
        type=cli.positive_int,
        default=64,
        metavar="N",
        help="numbers that an image is made of (default: %(default)s)",
    )
    add(
        "--width",
        type=cli.positive_int,
        default=32,
        metavar="N",
        help="channels of the largest feature map (default: %(default)s)",
    )
    add(
        "--beta",
        type=cli.non_negative_float,
        metavar="WEIGHT",
        help=f"vae: weight of the KL divergence (default: {BETA:g})",
    )
    add = parser.add_argument_group("features that judge the images").add_argument
    add(
        "--backbone",
        metavar="NAME",
        help="a network of keras.applications with --weights, instead of a small classifier that "
        "is trained on the same images in some seconds",
    )
    add(
        "--weights",
        type=cli.existing_path(("imagenet", "none")),
        metavar="FILE",
        help="weights of --backbone: a file, or imagenet (default: imagenet)",
    )
    group = cli.add_training_arguments(parser, TASK, batch_size=32, defaults="by --model")
    group.add_argument(
        "--learning-rate",
        type=cli.positive_float,
        metavar="RATE",
        help="learning rate of Adam at the start, along a cosine (default: by --model)",
    )
    args = parser.parse_args(argv)
    if args.weights is not None and args.backbone is None:
        parser.error(f"--weights {args.weights}: give the network, too: --backbone NAME")
    if args.beta is not None and args.model != "vae":
        parser.error(f"--beta {args.beta:g}: only for --model vae, not {args.model}")
    cli.fill_in(args, DEFAULTS[args.model] | {"schedule": "cosine", "loss": LOSSES[args.model][0]})
    cli.fill_in(args, {"weights": "imagenet", "beta": BETA})
    if args.loss not in LOSSES[args.model]:
        parser.error(
            f"--loss {args.loss}: --model {args.model} has {', '.join(LOSSES[args.model])}"
        )
    return args


def load_data(args):
    """Load a `DataSet` of images of any sizes; with classes where the source is known."""
    from kerascv_d2l.data.generated import FOR_GENERATORS

    options = {} if args.data in NAMES else {"validate": True}
    if args.data == GENERATED:
        options = {**FOR_GENERATORS, "image_size": args.image_size}
    return d2l.load(
        args.data,
        "classification" if args.data in NAMES else "unlabelled",
        seed=args.split_seed,
        val_fraction=args.val_fraction,
        skip_bad=args.skip_bad,
        archive=args.archive,
        data_dir=args.data_dir,
        **options,
    )


def feature_classifier(args, run, train):
    """Make what judges the images; a resumed run has it already."""
    path = run.path(d2l.FEATURES_FILE)
    if run.resumed and path.exists():
        return d2l.load_features(path)
    if args.backbone is not None:
        weights = None if args.weights == "none" else args.weights
        classifier = d2l.network_features(args.backbone, weights)
    else:
        classifier = d2l.train_features(train, args.seed)
    with run.writing(path.name) as temporary:
        classifier.save(temporary)
    return classifier


def build_model(args, steps):
    """Build and compile a model; `steps` is the length of the whole training."""
    import keras

    shape = {"image_size": args.image_size, "channels": 1 if args.grey else 3}
    shape |= {"latent_size": args.latent_size, "width": args.width, "loss": args.loss}
    jit_compile = d2l.resolve_jit_compile("auto")
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)
    if args.model == "gan":
        model = d2l.GAN(**shape)
        optimizers = [keras.optimizers.Adam(rate, beta_1=BETA_1) for _ in range(2)]
        model.compile(*optimizers, jit_compile=jit_compile)
    else:
        model = (
            d2l.VAE(**shape, beta=args.beta) if args.model == "vae" else d2l.Autoencoder(**shape)
        )
        model.compile(keras.optimizers.Adam(rate), jit_compile=jit_compile)
    return model


def train_batches(args, train, initial_epoch):
    """Endless batches; generated shapes are lit from one side, others are flipped at random."""
    return d2l.batches(
        train,
        args.image_size,
        args.batch_size,
        training=True,
        transform=d2l.small_augmentation("none" if args.data == GENERATED else "flip"),
        seed=args.seed,
        initial_epoch=initial_epoch,
    )


def draw(run, model, val):
    """Draw samples, how they changed, reconstructions, and walks between two images."""
    import numpy as np

    sampled = model.sample(NUM_DRAWN, 1)
    with run.drawing("samples.png") as path:
        d2l.draw_tiles(path, sampled["images"].numpy())
    with run.drawing("samples.gif") as path:
        d2l.draw_animation(path, sorted(run.path("samples").glob("*.png")))
    if hasattr(model, "encode"):
        shown = val.spread(NUM_PAIRS).images
        if model.channels == 1:
            shown = shown[..., :1]
        pairs = np.stack([shown, model.reconstruct(shown)["images"].numpy()], 1)
        with run.drawing("reconstructions.png") as path:
            d2l.draw_tiles(path, pairs.reshape(-1, *pairs.shape[2:]))
        ends = model.encode(val.spread(2 * WALK_ROWS).images)["codes"].numpy()
    else:
        ends = sampled["codes"].numpy()[: 2 * WALK_ROWS]
    walks = [
        d2l.walk(start, end, WALK_STEPS, spherical=not hasattr(model, "encode"))
        for start, end in zip(ends[::2], ends[1::2], strict=False)
    ]
    with run.drawing("walk.png") as path:
        images = model.decode(np.concatenate(walks))["images"].numpy()
        d2l.draw_tiles(path, images, columns=WALK_STEPS)


def main(argv=None):
    """Train, judge, draw, export.

    Args:
        argv: list of str, or None for the command line.

    Returns:
        dict, as in `metrics.json`.
    """
    args = parse(argv)
    strategy = cli.set_up(args)
    data = load_data(args)
    print(data.describe(), flush=True)
    if len(data.val) < 2:
        raise d2l.InputError(
            f"{args.data} has {len(data.val)} image to measure with; wanted at least 2, as the "
            "measures compare sets: add images, or give a larger --val-fraction"
        )
    cli.fit_batch_size(args, data.train, strategy)
    steps = d2l.steps_per_epoch(data.train, args.batch_size)
    run = cli.start_run(args, strategy, TASK, data)
    train = data.train.fitted(args.image_size, args.grey)
    val = data.val.spread(MOST_SCORED).fitted(args.image_size, args.grey)
    real, drawn = val.images, val.spread(NUM_DRAWN).images
    scores = d2l.feature_scores(feature_classifier(args, run, train), real)
    import keras

    keras.utils.set_random_seed(args.seed)  # a resumed run did not train the classifier
    with strategy.scope():
        model = build_model(args, steps * args.epochs)
        run.watch(model)

    every = -(-args.epochs // NUM_SHEETS)
    codes = model.sample(NUM_DRAWN, 1)["codes"]
    sheets = d2l.SampleSheets(
        run.path("samples"),
        lambda: (model.reconstruct(drawn) if args.model == "ae" else
                 model.decode(codes))["images"].numpy(),
        every,
    )  # fmt: skip
    count = max(2, len(real))
    scoring = [] if args.model == "ae" else [d2l.GenerationCallback(scores, count, every)]
    model.fit(
        train_batches(args, train, run.initial_epoch),
        epochs=args.epochs,
        initial_epoch=run.initial_epoch,
        steps_per_epoch=steps,
        shuffle=False,  # the data does it
        verbose=run.verbose,
        callbacks=[*scoring, sheets, run],
    )
    if args.model == "ae":
        model.fit_prior(d2l.batches(train, args.image_size, args.batch_size))
    run.save_model(model)
    d2l.export.save(model, run.path("saved_model"))

    parts = [n for n in run.history if n.endswith(("loss", "_score", "_penalty"))]
    metrics = {name: run.history[name][-1] for name in parts}
    metrics |= scores(model.sample(count)["images"].numpy())
    # What is possible: training images, scored as if they had been made.
    metrics |= {f"{k}_of_training_images": v for k, v in scores(train.spread(count).images).items()}
    draw(run, model, val)
    command = ["python", cli.script("predict.py"), str(run.path("saved_model"))]
    return run.finish(metrics, next_command=command)


if __name__ == "__main__":
    cli.run_main(main)
