"""What holds for every augmentation layer, and for each what it is for."""

import functools
from inspect import signature
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import InputError, box_iou
from kerascv_d2l.layers import augmentation
from kerascv_d2l.layers.augmentation.base import Example, RandomTransform

RECORDED = Path(__file__).parents[2] / "recording" / "augmentation.npz"
HEIGHT, WIDTH = 40, 70
BOXES = np.array([[10, 5, 40, 30], [45, 12, 69, 38], [0, 0, 0, 0]], np.float32)  # pixels
LABELS = np.array([2, 0, -1], np.int32)
SMALL = (24, 32)
BATCH = 24  # the same nearly everywhere, and with instances: `made` then has the graph already
# What makes each of them change something nearly always.
LAYERS = {
    "ColorJitter": {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5},
    "RandomHorizontalFlip": {},
    "RandomVerticalFlip": {"p": 0.7},
    "RandomResizedCrop": {"size": SMALL},
    "RandomIoUCrop": {"size": SMALL, "bounds": (0.0, 0.3), "zoom_out": 0.3, "fill": 2.0},
    "RandomZoomOut": {"p": 1.0, "fill": (3.0, 4.0, 5.0)},
    "RandomScaleCrop": {"size": SMALL, "fill": 7.0, "log_uniform": True},
    "RandomShift": {"padding": 6, "fill": 1.0},
    "Mosaic": {"size": SMALL, "p": 0.8, "otherwise": augmentation.RandomIoUCrop(SMALL)},
    "Compose": {
        "layers": [
            augmentation.RandomResizedCrop(SMALL),
            augmentation.RandomHorizontalFlip(),
            augmentation.ColorJitter(0.4),
        ]
    },
}
SIZED = [name for name in LAYERS if name == "Compose" or "size" in LAYERS[name]]
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(name, seed=1, **more):
    options = {"bounding_box_format": "xyxy", "seed": seed, **LAYERS[name], **more}
    return getattr(augmentation, name)(**options)


_made = functools.cache(make)


def made(name, seed=1):
    """What `make` gives, but with the graphs that it has built for other tests."""
    layer = _made(name)
    layer.generator.state.assign([seed, 0])  # as in a new one
    return layer


def example(count=None, dtype=np.uint8, instances=False):
    """One image, or a batch, with boxes, their masks, and a mask of the first box."""
    rng = np.random.default_rng(0)
    lead = () if count is None else (count,)
    images = rng.integers(0, 256, (*lead, HEIGHT, WIDTH, 3)).astype(dtype)
    mask = np.zeros((*lead, HEIGHT, WIDTH), np.uint8)
    mask[..., 5:30, 10:40] = 1
    found = {
        "images": images,
        "bounding_boxes": {
            "boxes": np.broadcast_to(BOXES, (*lead, *BOXES.shape)).copy(),
            "labels": np.broadcast_to(LABELS, (*lead, *LABELS.shape)).copy(),
        },
        "segmentation_masks": mask,
    }
    if instances:
        masks = np.zeros((*lead, len(BOXES), HEIGHT, WIDTH), np.uint8)
        for k, (x1, y1, x2, y2) in enumerate(BOXES.astype(int)):
            masks[..., k, y1:y2, x1:x2] = 1
        ignore = np.broadcast_to(LABELS == 0, (*lead, *LABELS.shape)).copy()
        found["bounding_boxes"] |= {"ignore": ignore, "masks": masks}
    return found


def numpy(data):
    return tf.nest.map_structure(np.asarray, data)


def assert_same(one, two):
    """Equal, but for how graphs round coordinates."""

    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=0 if a.dtype == np.uint8 else 1e-4)

    tf.nest.map_structure(check, numpy(one), numpy(two))


# They cut windows as RandomIoUCrop and Mosaic do.
WINDOWS = ("RandomScaleCrop", "RandomResizedCrop", "RandomShift", "RandomZoomOut")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n in WINDOWS)) for n in LAYERS]
)
def test_the_same_wherever_it_runs(name):
    """Eagerly, in a tf.function, in Dataset.map: one image, and a batch."""
    layer, seed = made(name), [3, 4]
    for count in (None, BATCH):
        data = example(count, instances=True)
        eager = layer.transform(data, seed)
        if count and name in ("Compose", "RandomIoUCrop"):  # as graphs go, like the map below
            assert_same(eager, tf.function(layer.transform)(data, seed))
        mapped = tf.data.Dataset.from_tensors(data).map(lambda d: layer.transform(d, seed))
        assert_same(eager, next(iter(mapped)))
        size = SMALL if name in SIZED else (HEIGHT, WIDTH)
        lead = () if count is None else (count,)
        rows = 12 if name == "Mosaic" else 3
        shapes = {
            "images": (*lead, *size, 3),
            "bounding_boxes": {
                "boxes": (*lead, rows, 4),
                "labels": (*lead, rows),
                "ignore": (*lead, rows),
                "masks": (*lead, rows, *size),
            },
            "segmentation_masks": (*lead, *size),
        }
        found = tf.nest.map_structure(lambda spec: tuple(spec.shape), mapped.element_spec)
        assert found == shapes
        assert tf.nest.map_structure(lambda t: t.dtype, numpy(eager)) == tf.nest.map_structure(
            lambda t: t.dtype, data
        )


@every_layer
def test_the_callers_data_are_left_alone(name):
    data, before = example(BATCH, instances=True), example(BATCH, instances=True)
    bounding_boxes = data["bounding_boxes"]
    result = made(name)(data)
    assert result is not data and data["bounding_boxes"] is bounding_boxes
    assert_same(data, before)
    assert (
        numpy(result)["images"].shape != data["images"].shape
        or (numpy(result)["images"] != data["images"]).any()
    )


def copy(name, seed=1):
    """Another layer, by the configuration of what `made` gives."""
    config = keras.saving.serialize_keras_object(made(name, seed))
    return keras.saving.deserialize_keras_object(config)


@every_layer
def test_same_seed_same_stream(name):
    """Of a layer, and of one made by its configuration."""
    image = example()["images"]
    assert make(name, seed=2).generator.state.numpy().tolist() == [2, 0]  # as `made` has it
    streams = [
        [layer(image).numpy() for layer in [new(name, seed)] * 8]
        for new, seed in ((copy, 1), (made, 1), (made, 2))
    ]
    assert_same(streams[0], streams[1])
    assert len({image.tobytes() for image in streams[0]}) > (1 if "Flip" in name else 6)
    assert any((a != b).any() for a, b in zip(streams[0], streams[2], strict=True))


@every_layer
def test_nothing_happens_without_training(name):
    data = example(2)
    assert_same(made(name)(data, training=False), data)


@every_layer
def test_each_image_of_a_batch_has_its_own_draw(name):
    data = example(BATCH, instances=True)
    data["images"][:] = data["images"][0]
    results = made(name)(data)["images"].numpy()
    assert len({result.tobytes() for result in results}) > (1 if "Flip" in name else BATCH // 2)


@every_layer
def test_round_trip_of_the_configuration(name):
    layer, again = made(name), copy(name)
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    parameters = {
        name for kind in (type(layer), RandomTransform) for name in signature(kind).parameters
    }
    assert parameters - {"kwargs"} <= set(layer.get_config())


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "Compose"])
def test_floats_and_whole_numbers_agree(name):
    layer = made(name)
    whole = layer.transform(example()["images"], [8, 9])
    floats = layer.transform(example(None, np.float32)["images"], [8, 9])
    assert floats.dtype == tf.float32
    np.testing.assert_array_equal(whole, np.floor(floats.numpy() + 0.5))


@every_layer
def test_in_a_model(name, tmp_path):
    images = example(4)["images"]
    inputs = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    model = keras.Model(inputs, make(name)(inputs))
    assert model(images, training=True).shape[0] == 4
    np.testing.assert_array_equal(model(images, training=False), images)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[-1].get_config() == model.layers[-1].get_config()


def test_in_a_model_with_boxes_and_masks():
    data, layer = example(3), make("RandomIoUCrop")
    inputs = tf.nest.map_structure(lambda a: keras.Input(a.shape[1:], dtype=a.dtype), data)
    for name in ("images", "segmentation_masks"):
        inputs[name] = keras.Input(data[name].shape[1:], dtype=data[name].dtype, name=name)
    model = keras.Model(inputs, layer(inputs))
    assert_same(model(data, training=True), make("RandomIoUCrop")(data))
    assert_same(model.predict(data, verbose=0), data)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("ColorJitter", "xywh"),
        ("RandomHorizontalFlip", "rel_xyxy"),
        ("RandomResizedCrop", "center_xywh"),
        ("Mosaic", "rel_yxyx"),
    ],
)
def test_box_formats(name, form):
    def converted(boxes, source, target, size):
        return keras.utils.bounding_boxes.convert_format(
            boxes, source=source, target=target, height=size[0], width=size[1]
        )

    data = example(BATCH, instances=True)
    reference = made(name).transform(data, [1, 2])["bounding_boxes"]
    boxes = data["bounding_boxes"]["boxes"]
    data["bounding_boxes"]["boxes"] = converted(boxes, "xyxy", form, (HEIGHT, WIDTH))
    layer = make(name, bounding_box_format=form)
    result = layer.transform(data, [1, 2])
    found, size = result["bounding_boxes"], result["images"].shape[1:3]
    # Of few images: a centre on an edge may fall to either side.
    np.testing.assert_array_equal(found["labels"][:4], reference["labels"][:4])
    there = reference["labels"][:4].numpy() >= 0
    found = converted(found["boxes"], form, "xyxy", size)[:4]
    np.testing.assert_allclose(found[there], reference["boxes"][:4][there], atol=1e-3)


MOVING = [name for name in LAYERS if name != "ColorJitter"]


@pytest.mark.parametrize("name", MOVING)
def test_box_and_mask_of_an_object_stay_together(name):
    """The mask is the box: in each result it fills the box, to half a pixel."""
    layer, seen, gone = made(name, seed=5), 0, 0
    data = example(BATCH, instances=True)
    for name, rows in data["bounding_boxes"].items():
        rows[:, 1:] = 0 if name in ("masks", "ignore") else -1  # the object that the mask shows
    result = numpy(layer(data))
    boxes, labels, _, masks = result["bounding_boxes"].values()
    instance = np.where(labels[..., None, None] == 2, masks, 0).any(1)
    # The instance's mask goes where the image's goes (objects go, pixels do not).
    assert (result["segmentation_masks"] == 1)[instance].all()
    for mask, box, label in zip(result["segmentation_masks"], boxes, labels, strict=True):
        there = label >= 0
        assert (box[~there] == -1).all() and (label[there] == 2).all()
        drawn = np.zeros(mask.shape, np.int32)
        edge = np.zeros(mask.shape, bool)
        for x1, y1, x2, y2 in box[there]:
            rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
            inner = (
                (columns > x1 + 0.5) & (columns < x2 - 0.5) & (rows > y1 + 0.5) & (rows < y2 - 0.5)
            )
            outer = (
                (columns > x1 - 0.5) & (columns < x2 + 0.5) & (rows > y1 - 0.5) & (rows < y2 + 0.5)
            )
            drawn[inner] = 1
            edge |= outer & ~inner
        shown = mask == 1
        assert shown[drawn == 1].all()
        if there.all() or name in ("RandomHorizontalFlip", "RandomVerticalFlip", "RandomZoomOut"):
            assert not shown[(drawn == 0) & ~edge].any()
        seen += there.sum()
        gone += (~there).sum()
    assert seen > 20


@pytest.mark.parametrize("name", ["RandomIoUCrop", "Mosaic"])
def test_objects_go_with_their_centre(name):
    """Of an object whose centre is outside nothing is left, of others the part inside."""
    data = example(BATCH, instances=True)
    result = numpy(made(name, seed=3)(data))
    boxes, labels, ignore, _ = result["bounding_boxes"].values()
    np.testing.assert_array_equal(ignore[labels >= 0], labels[labels >= 0] == 0)
    assert (labels == -1).any() and (labels == 2).any()
    there = boxes[labels >= 0]
    height, width = result["images"].shape[1:3]
    assert (there >= 0).all() and (there <= [width, height, width, height]).all()
    assert (there[:, 2:] > there[:, :2]).all()
    assert set(np.unique(labels)) <= {-1, 0, 2}


@pytest.mark.parametrize("name", MOVING)
def test_what_is_ignored_stays_while_any_of_it_is_shown(name):
    """A crowd all over the image is all over what is shown of it, wherever its centre is."""
    data = example(BATCH, instances=True)
    rows = data["bounding_boxes"]
    rows["boxes"][:, 1], rows["masks"][:, 1] = (0, 0, WIDTH, HEIGHT), 1
    result = numpy(made(name, seed=6)(data))
    shown = (result["segmentation_masks"] != 255).sum((1, 2))
    boxes, labels, ignore, _ = result["bounding_boxes"].values()
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1) * (ignore & (labels == 0))
    np.testing.assert_allclose(areas.sum(1), shown, rtol=1e-4)


def test_what_is_ignored_meets_no_bound():
    """Of a crowd all over the image any window shows much; it is not what is looked for."""
    layer = augmentation.RandomIoUCrop(SMALL, bounds=(0.4,))
    boxes = np.float32([[0, 0, 1, 1], [0.3, 0.1, 0.8, 0.9]])
    crowd = Example(np.zeros((HEIGHT, WIDTH, 3)), boxes, np.array([0, 0]), np.array([True, False]))
    windows = np.array([layer.draw(crowd, [1, k]) for k in range(40)])
    corners = np.hstack([windows[:, :2], windows[:, :2] + windows[:, 2:]])[:, [1, 0, 3, 2]]
    overlaps = box_iou(corners / [WIDTH, HEIGHT, WIDTH, HEIGHT], boxes[1:]).numpy()
    assert overlaps.min() >= 0.4 and (windows[:, 2:] < (HEIGHT, WIDTH)).any()


def test_flips_are_drawn_apart():
    data = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3) + np.zeros((400, 1, 1, 1), np.uint8)
    across = augmentation.RandomHorizontalFlip(seed=1)
    down = augmentation.RandomVerticalFlip(seed=2)
    results = down(across(data)).numpy()
    counts = [
        (results == turned).all((1, 2, 3)).sum()
        for turned in (data, data[:, :, ::-1], data[:, ::-1], data[:, ::-1, ::-1])
    ]
    assert sum(counts) == 400 and min(counts) > 70
    assert (augmentation.RandomHorizontalFlip(p=0.0)(data).numpy() == data).all()
    assert (augmentation.RandomHorizontalFlip(p=1.0)(data).numpy() == data[:, :, ::-1]).all()


def test_jitter_draws_as_torchvision_s():
    """Of 10,000 draws: deciles of each factor, and how often each operation comes first."""
    layer = augmentation.ColorJitter(0.5, 0.4, 0.8, 0.3)
    sizes = tf.constant([4, 4])
    draws = tf.data.Dataset.range(10_000).map(lambda k: layer.draw_for(sizes, tf.stack([k, 6])))
    factors, orders = draws.batch(10_000).get_single_element()
    wanted = np.load(RECORDED)["draws_jitter"]
    found = np.quantile(factors, np.linspace(0.1, 0.9, 9), axis=0)
    assert (np.abs(found - wanted[:, :4]) <= 0.03 * np.array([1, 0.8, 1.6, 0.6])).all()
    first = np.bincount(orders[:, 0], minlength=4) / 10_000
    np.testing.assert_allclose(first, wanted[0, 4:], atol=0.03)


def test_jitter_leaves_boxes_and_masks_alone():
    data = example(2)
    result = make("ColorJitter")(data)
    assert_same(result["bounding_boxes"], data["bounding_boxes"])
    assert_same(result["segmentation_masks"], data["segmentation_masks"])
    assert_same(augmentation.ColorJitter()(data), data)


def test_zoom_out_fills():
    result = make("RandomZoomOut", side_range=(3, 3))(example(3))
    images, masks = numpy(result["images"]), numpy(result["segmentation_masks"])
    outside = masks == 255
    assert 0.85 < outside.mean() < 0.92  # eight ninths
    assert (images[outside] == [3, 4, 5]).all()


def test_masks_with_a_channel_and_ragged_boxes():
    data = example(2)
    flat = make("RandomResizedCrop").transform(data, [1, 1])
    data["segmentation_masks"] = data["segmentation_masks"][..., None]
    found = make("RandomResizedCrop").transform(data, [1, 1])
    np.testing.assert_array_equal(found["segmentation_masks"][..., 0], flat["segmentation_masks"])
    data["bounding_boxes"] = {
        "boxes": tf.ragged.constant([BOXES[:2].tolist(), BOXES[:1].tolist()], ragged_rank=1),
        "labels": tf.ragged.constant([[2, 0], [2]]),
    }
    found = make("RandomHorizontalFlip", p=1.0).transform(data, [1, 1])["bounding_boxes"]
    np.testing.assert_array_equal(found["labels"], [[2, 0], [2, -1]])
    np.testing.assert_allclose(found["boxes"][0], [[30, 5, 60, 30], [1, 12, 25, 38]], atol=1e-4)


def test_a_window_without_boxes():
    images = example(8)["images"]
    assert make("RandomIoUCrop")(images).shape == (8, *SMALL, 3)


@pytest.mark.parametrize("name", ["RandomHorizontalFlip", "RandomResizedCrop"])
def test_ragged_images_are_refused(name):
    """They were padded with -1 (uint8: 255), and cropped in the padding."""
    small, large = np.zeros((4, 6, 3), np.uint8), np.zeros((8, 5, 3), np.uint8)
    ragged = tf.ragged.stack([small, large])
    for data in (ragged, {"images": ragged}):
        with pytest.raises(InputError, match=r"images is a ragged tensor; .*single images"):
            make(name)(data)
    data = {"images": np.zeros((2, 4, 6, 3)), "segmentation_masks": ragged}
    with pytest.raises(InputError, match="segmentation_masks is a ragged tensor"):
        make(name)(data)


def test_masks_of_another_size_are_refused():
    data = example(2, instances=True)
    flip = make("RandomHorizontalFlip")
    wrong = data | {"segmentation_masks": data["segmentation_masks"][:, :30]}
    with pytest.raises(InputError, match=r"segmentation_masks have the shape \(2, 30, 70\)"):
        flip(wrong)
    rows = data["bounding_boxes"] | {"masks": data["bounding_boxes"]["masks"][..., :9]}
    with pytest.raises(InputError, match=r"masks have the shape \(2, 3, 40, 9\), the images"):
        flip(data | {"bounding_boxes": rows})
    # Where shapes are known only later, so is the error.
    unknown = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, None), tf.uint8)
    images, masks = example()["images"], wrong["segmentation_masks"][0]
    graph = tf.function(
        lambda image, mask: flip({"images": image, "segmentation_masks": mask}), unknown
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="different heights or widths"):
        graph(images, masks)


def test_whole_numbers_of_16_bits_keep_their_range():
    images = (example(2)["images"].astype(np.uint16) + 1) * 250
    for name in ("RandomHorizontalFlip", "RandomResizedCrop", "RandomShift", "Mosaic"):
        result = make(name)(images).numpy()
        assert result.dtype == np.uint16 and result.max() > 60_000
    with pytest.raises(InputError, match="image is uint16; wanted uint8 or floats"):
        make("ColorJitter")(images)


@pytest.mark.parametrize("name", ["RandomHorizontalFlip", "RandomResizedCrop"])
def test_models_that_do_not_train_do_not_augment(name, tmp_path):
    """Also exported ones, and whatever calls the model without saying `training`."""
    images = example(4)["images"]
    inputs = keras.Input((HEIGHT, WIDTH, 3), dtype="uint8")
    model = keras.Model(inputs, make(name)(inputs))
    sequential = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3), dtype="uint8"), make(name)])
    module = tf.Module()
    signature = [tf.TensorSpec((None, HEIGHT, WIDTH, 3), tf.uint8)]
    module.call = tf.function(lambda images: model(images), signature)
    module.model = model
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for call in (model, sequential, module.call, loaded.call):
        np.testing.assert_array_equal(call(images), images)
    np.testing.assert_array_equal(model.predict(images, verbose=0), images)
    changed = model(images, training=True).numpy()
    assert changed.shape != images.shape or (changed != images).any()


@pytest.mark.parametrize("name", ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomShift"])
def test_a_batch_at_once_is_as_one_by_one(name):
    layer, data = make(name), example(9)
    sizes = tf.tile([[HEIGHT, WIDTH]], [9, 1])
    draws = layer.draw_for(sizes, [5, 6])
    images = tf.constant(data["images"])
    wanted = RandomTransform.apply_batch(layer, Example(images), draws)
    np.testing.assert_array_equal(layer.apply_batch(Example(images), draws).image, wanted.image)
    assert len({image.numpy().tobytes() for image in wanted.image}) == 9


def test_shifts_are_equally_likely():
    """One pixel on, padded by one: where it comes out says which of the 9 windows it was."""
    dot = np.zeros((8100, 3, 3, 1), np.uint8)
    dot[:, 1, 1] = 1
    moved = augmentation.RandomShift(1, seed=3)(dot).numpy()
    counts = moved.sum(axis=0, dtype=int)[..., 0]
    assert counts.sum() == 8100 and abs(counts - 900).max() < 150
    still = augmentation.RandomShift(0)(dot).numpy()
    np.testing.assert_array_equal(still, dot)


def test_zoom_out_and_crop_in_one_step():
    """As on a canvas: half of the examples have one, and objects become smaller."""
    options = {"bounds": (1.0,), "zoom_out": 0.5, "fill": 9.0, "seed": 1}
    layer = augmentation.RandomIoUCrop(SMALL, bounding_box_format="xyxy", **options)
    data = example(200)
    data["images"][:] = 100
    result = numpy(layer(data))
    outside = result["segmentation_masks"] == 255
    share = outside.mean((1, 2))
    assert 0.4 < (share > 0).mean() < 0.6 and share.max() < 15 / 16 + 0.03
    assert (result["images"][outside] == 9).all() and (result["images"][~outside] == 100).all()
    boxes = result["bounding_boxes"]["boxes"][:, 0]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) / (30 * 25 * SMALL[0] * SMALL[1] / HEIGHT / WIDTH)
    np.testing.assert_allclose(areas, 1 - share, atol=0.05)


def test_compose_applies_its_layers_in_turn():
    flip, shift = augmentation.RandomHorizontalFlip(p=1.0), augmentation.RandomShift(3)
    both = augmentation.Compose([flip, shift])
    data = tf.constant(example(6)["images"])
    seeds = [tf.random.fold_in([1, 2], k, alg="philox") for k in range(2)]
    example_ = flip.transform_batch(Example(data), seeds[0])
    wanted = shift.transform_batch(example_, seeds[1]).image
    found = both.transform_batch(Example(data), tf.constant([1, 2])).image
    np.testing.assert_array_equal(found, wanted)
    same = augmentation.Compose([])
    assert same(data) is data
    for layers, message in (
        ([flip, augmentation.Mosaic()], "Mosaic at 1; wanted it first"),
        ([keras.layers.RandomFlip()], "wanted augmentation layers"),
    ):
        with pytest.raises(InputError, match=message):
            augmentation.Compose(layers)


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("form", ["xyxy", "xywh"])
def test_boxes_of_whole_pixels_stay_where_they_are(form, p):
    boxes = np.array([[[3, 7, 37, 41], [10, 11, 69, 49], [0, 0, 70, 50], [13, 29, 61, 33]]])
    if form == "xywh":
        boxes[..., 2:] -= boxes[..., :2]
    data = {"images": np.zeros((1, 50, 70, 3)), "bounding_boxes": {"boxes": boxes}}
    data["bounding_boxes"]["labels"] = np.zeros((1, 4), np.int64)
    found = augmentation.RandomHorizontalFlip(p, bounding_box_format=form)(data)
    found = found["bounding_boxes"]["boxes"].numpy()
    expected = boxes.copy()
    if p:
        right = boxes[..., 2] if form == "xyxy" else boxes[..., 0] + boxes[..., 2]
        expected[..., 0] = 70 - right
        if form == "xyxy":
            expected[..., 2] = 70 - boxes[..., 0]
    assert found.dtype == boxes.dtype
    np.testing.assert_array_equal(found, expected)


def test_labels_that_cannot_be_padding_are_refused():
    data = example(2)
    data["bounding_boxes"]["labels"] = np.ones((2, 3), np.uint8)
    with pytest.raises(InputError, match="labels are uint8; wanted a signed type"):
        make("RandomResizedCrop")(data)


def test_fills_are_rounded_and_fit_the_channels():
    images = np.full((4, 8, 8, 3), -3, np.int16)
    assert (augmentation.RandomResizedCrop(5)(images).numpy() == -3).all()
    black = np.zeros((4, 8, 8, 3), np.uint8)
    shift = augmentation.RandomShift(8, fill=127.5)
    for found in (shift(black), *(shift(image) for image in black)):
        assert set(np.unique(found)) <= {0, 128}
    with pytest.raises(InputError, match=r"fill is \(1, 2\), 2 numbers; .* 3 channels"):
        augmentation.RandomZoomOut(5, fill=(1, 2))(black)


@pytest.mark.parametrize("name", ["RandomResizedCrop", "Mosaic", "Compose"])
def test_keras_compiles_no_model_with_xla_that_cuts_windows(name):
    """Keras would choose XLA on a GPU, which cannot."""
    model = keras.Sequential([keras.Input((20, 30, 3)), make(name), keras.layers.Flatten()])
    model.compile("sgd", "mse", jit_compile=True)
    assert not model.jit_compile
    flips = keras.Sequential([keras.Input((20, 30, 3)), make("RandomHorizontalFlip")])
    flips.compile("sgd", "mse", jit_compile=True)
    assert flips.jit_compile


def test_names_of_recipes():
    assert not augmentation.small_augmentation("none").layers
    for recipe in (
        lambda: augmentation.small_augmentation("flop"),
        lambda: augmentation.segmentation_augmentation(8, "flop"),
    ):
        with pytest.raises(InputError, match="augment is 'flop'; wanted one of none, flip"):
            recipe()


@pytest.mark.parametrize(("name", "colours"), [("flip", False), ("flip_color", True)])
def test_flip_leaves_colours_as_they_are(name, colours):
    layer = getattr(augmentation, f"{name}_augmentation")(SMALL)
    data = example(6)["images"]
    found = layer.transform_batch(Example(tf.constant(data)), tf.constant([1, 2])).image.numpy()
    same, turned = ((found == images).all((1, 2, 3)) for images in (data, data[:, :, ::-1]))
    if colours:
        assert not (same | turned).any()
    else:
        assert (same ^ turned).all() and 0 < same.sum() < 6


def test_other_entries_pass_through():
    data = example(2) | {"names": np.array(["a", "b"])}
    result = make("RandomHorizontalFlip").transform(data, [1, 2])
    np.testing.assert_array_equal(result["names"], [b"a", b"b"])
    with pytest.raises(InputError, match=r"'names'.*can only be made of"):
        make("Mosaic").transform(data, [1, 2])


def test_mosaic_shows_four_images():
    images = np.stack([np.full((HEIGHT, WIDTH, 3), 10 * k, np.uint8) for k in range(6)])
    result = augmentation.Mosaic(seed=0)(images).numpy()
    corners = result[:, [0, 0, -1, -1], [0, -1, 0, -1], 0] // 10  # (6, 4)
    for k in range(6):
        assert set(np.unique(result[k]) // 10) == set(corners[k])
        assert k in corners[k]  # each image is part of its own mosaic
    assert len(np.unique(corners)) > 3 and len({tuple(c) for c in corners}) == 6


def test_pipeline_of_keras_takes_them():
    layers = [make("RandomResizedCrop"), make("RandomHorizontalFlip"), make("ColorJitter")]
    pipeline = keras.layers.Pipeline([*layers, keras.layers.Rescaling(1 / 255)])
    batches = tf.data.Dataset.from_tensor_slices(example(4)["images"]).map(pipeline).batch(4)
    result = next(iter(batches))
    assert result.shape == (4, *SMALL, 3) and float(tf.reduce_max(result)) <= 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RandomHorizontalFlip", {"p": 1.5}, "p is 1.5; wanted a probability"),
        ("RandomResizedCrop", {"size": 0}, r"size=\(0, 0\): expected"),
        ("RandomResizedCrop", {"size": 8, "scale": (0.5, 0.1)}, r"scale is \(0.5, 0.1\)"),
        ("RandomResizedCrop", {"size": 8, "scale": (0.5, 1.2)}, "within 0 to 1"),
        ("ColorJitter", {"brightness": -1}, "brightness is -1"),
        ("ColorJitter", {"hue": 0.6}, "hue"),
        ("RandomZoomOut", {"side_range": (0.5, 2)}, "side_range"),
        ("RandomResizedCrop", {"size": 8, "ratio": (0, 1)}, r"ratio is \(0, 1\); .* above 0"),
        ("RandomScaleCrop", {"size": 8, "scale": (0, 0)}, "scale is .* above 0"),
        ("RandomIoUCrop", {"tries": 0}, "tries=0"),
        ("RandomIoUCrop", {"bounds": ()}, "bounds is empty"),
        ("RandomShift", {"padding": 1.5}, "padding=1.5"),
        ("Mosaic", {"size": 1}, "size is 1; wanted 2 pixels or more"),
        ("ColorJitter", {"value_range": (0, 0)}, "value_range"),
    ],
)
def test_bad_arguments_are_named(name, options, message):
    with pytest.raises(InputError, match=message):
        getattr(augmentation, name)(**options)


def test_bad_data_are_named():
    layer = make("RandomHorizontalFlip")
    for change, message in (
        ({"images": np.zeros((4, 5), np.uint8)}, r"images have the shape \(4, 5\)"),
        ({"bounding_boxes": BOXES}, "must be a dictionary with 'boxes' and 'labels'"),
        ({"bounding_boxes": {"boxes": BOXES[None], "labels": LABELS}}, r"wanted \(n, 4\)"),
        ({"segmentation_masks": np.zeros((5,), np.uint8)}, "segmentation_masks have the shape"),
    ):
        with pytest.raises(InputError, match=message):
            layer.transform(example() | change, [1, 2])
    with pytest.raises(InputError, match="'images' is missing"):
        layer.transform({"image": BOXES}, [1, 2])
