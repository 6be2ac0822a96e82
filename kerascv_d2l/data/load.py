"""One door to every data set: generated, prepared by name, or in a user's folder."""

import re
from pathlib import Path

from kerascv_d2l.data.layouts import read_folder
from kerascv_d2l.data.splits import DETECTION, TASKS, UNLABELLED, first_of
from kerascv_d2l.errors import InputError

GENERATED, GENERATED_SCENES = "generated", "generated_scenes"
# The chapter's own; other names of tensorflow-datasets are taken too.
PREPARED = ("banana_detection", "cifar10", "hotdog", "voc2012_segmentation")
NAMES = (GENERATED, GENERATED_SCENES, *PREPARED)  # taken before a folder of that name
_TFDS_NAME = re.compile(r"([a-z][a-z0-9_]*)(/[\w.-]+)?(:[\w.*]+)?")


def load(
    source,
    task,
    *,
    seed=0,
    val_fraction=0.2,
    skip_bad=False,
    archive=None,
    data_dir=None,
    masks=None,
    **options,
):
    """Read or generate a data set.

    Args:
        source: `"generated"`; `"generated_scenes"`, with many small things of four classes among
            others; the name of a prepared data set (`banana_detection`, `cifar10`,
            `hotdog`, `voc2012_segmentation`, or one of tensorflow-datasets); or a folder in a
            layout of `data.layouts`. A name is taken before a folder of that name, which is
            meant by `./NAME`.
        task: `"detection"`, `"classification"`, `"segmentation"` or `"unlabelled"`.
        seed: int, 0 or more: which images are validated on, where the source does not say it
            (the choice goes by name), and which images are generated.
        val_fraction: float in (0, 1): their share.
        skip_bad: bool: go on without bad images and objects; `DataSet.skipped` has them.
        archive: archive or unpacked folder at hand, for a prepared data set.
        data_dir: folder in which data sets are prepared; None for the default of
            tensorflow-datasets.
        masks: bool, for detection: whether to read the mask of each object, too (generated: its
            visible pixels), which each must have then; None: where each has one.
        options: what else the source takes (None is the same as not given): folders for
            detection `classes`, `boxes_on`, for segmentation `classes`, `ignore`,
            for unlabelled images `validate` (whether to set a share apart, else none is; other
            sources have a part to validate on anyway);
            generated `num_classes`, `image_size`, `num_train`, `num_val`, `scenes`.

    Returns:
        `DataSet`.

    Raises:
        InputError: for a source, task or option that is not known, and whatever is wrong with
            the data.
    """
    if task not in TASKS:
        raise InputError(f"task is {task!r}; wanted one of {', '.join(TASKS)}")
    name = str(source)
    options = {key: value for key, value in options.items() if value is not None}
    if masks is not None and task != DETECTION:
        raise InputError(f"masks is for detection, not {task}")
    if task == UNLABELLED and (name in NAMES or is_prepared(name)):
        options.pop("validate", None)  # there is a part to validate on anyway
    if is_prepared(name):
        if masks:
            raise InputError(
                f"{name} has boxes without masks, and the model predicts masks: use a folder with "
                f"masks (docs/data.md), {GENERATED}, or a model that predicts none"
            )
        if options:
            raise InputError(
                f"unknown option {first_of(sorted(options))} for {name}, a prepared data set "
                "whose classes and labels are given; known: archive, data_dir, skip_bad"
            )
        from kerascv_d2l.data.prepared import read_prepared  # here, for it imports TFDS

        return read_prepared(name, task, data_dir=data_dir, archive=archive, skip_bad=skip_bad)
    if archive is not None:
        raise InputError(f"archive is for prepared data sets ({', '.join(PREPARED)}), not {name}")
    if name in (GENERATED, GENERATED_SCENES):
        from kerascv_d2l.data.generated import CROWDED_OPTIONS, generate

        if name == GENERATED_SCENES:
            options = CROWDED_OPTIONS | options
        masks = {"masks": masks is not False} if task == DETECTION else {}
        return generate(task, seed=seed, **masks, **options)
    check_source(source)
    return read_folder(
        source,
        task,
        val_fraction=val_fraction,
        seed=seed,
        skip_bad=skip_bad,
        masks=masks,
        **options,
    )


def check_source(source):
    """Refuse what `load` cannot know, before anything else is done.

    Args:
        source: as for `load`.

    Raises:
        InputError: if it is neither a folder nor the name of a data set.
    """
    name = str(source)
    if name in (GENERATED, GENERATED_SCENES) or is_prepared(name):
        return
    if not Path(source).exists():
        raise InputError(
            f"{name}: no such folder, and no data set of that name: known are {GENERATED}, "
            f"{GENERATED_SCENES}, {', '.join(PREPARED)}, and those of tensorflow-datasets"
        )
    if not Path(source).is_dir():
        raise InputError(f"{name}: a file, where the folder of a data set is expected")


def is_prepared(name):
    """Whether `name`, a str, is a data set that is prepared: the chapter's or one of TFDS."""
    if name in PREPARED:
        return True
    match = _TFDS_NAME.fullmatch(name)
    if name in (GENERATED, GENERATED_SCENES) or not match or (match[2] and Path(name).exists()):
        return False
    import tensorflow_datasets as tfds  # here: it takes a second, and paths do not need it

    return match[1] in tfds.list_builders(with_community_datasets=False)
