"""Generated images: the same on any machine, with boxes that fit what is drawn."""

import hashlib

import numpy as np
import pytest

from kerascv_d2l.data import generated
from kerascv_d2l.data.generated import (
    CLASS_NAMES,
    CLUTTER_NAMES,
    SceneSettings,
    generate_classification,
    generate_detection,
    generate_scene,
    generate_segmentation,
)
from kerascv_d2l.data.load import load
from kerascv_d2l.errors import InputError

pytestmark = pytest.mark.quick
SIZE = (60, 90)  # height and width differ


@pytest.fixture(scope="module")
def scenes():
    settings = SceneSettings()
    return [generate_scene((5, 0, k), SIZE, len(CLASS_NAMES), settings) for k in range(150)]


def fingerprint(split):
    digest = hashlib.sha256(split.images.tobytes())
    for classes, boxes in zip(split.targets["classes"], split.targets["boxes"], strict=True):
        digest.update(np.column_stack([classes, boxes]).astype(np.float32).tobytes())
    return digest.hexdigest()[:16]


def test_bytes_are_those_recorded():
    # Recorded with NumPy 2.4 on x86-64 under Linux; any other machine must agree.
    data = generate_detection(20, 5, seed=1, num_classes=8, image_size=(64, 80))
    assert fingerprint(data.train) == "48021a37f9b293a4"
    assert fingerprint(data.val) == "5112791f3ef41025"


def test_first_images_do_not_depend_on_how_many_follow():
    few = generate_detection(4, 3, seed=2, num_classes=3, image_size=48)
    many = generate_detection(9, 5, seed=2, num_classes=3, image_size=48)
    for small, large in ((few.train, many.train), (few.val, many.val)):
        np.testing.assert_array_equal(small.images, large.images[: len(small)])
        for name, values in small.targets.items():
            for a, b in zip(values, large.targets[name], strict=False):
                np.testing.assert_array_equal(a, b)
    other = generate_detection(4, 4, seed=3, num_classes=3, image_size=48)
    everything = np.concatenate([many.train.images, many.val.images, other.train.images])
    assert len({image.tobytes() for image in everything}) == len(everything)


def test_data_set_is_well_formed():
    data = generate_detection(30, 10, seed=0, num_classes=2, image_size=SIZE)
    assert data.class_names == CLASS_NAMES[:2]
    assert data.train.images.shape == (30, *SIZE, 3)
    assert data.train.images.dtype == np.uint8
    targets = data.train.targets
    assert set(targets) == {"boxes", "classes", "ignore"}
    assert set(np.concatenate(targets["classes"])) == {0, 1}
    assert data.train.sizes.tolist() == [list(SIZE)] * 30
    counts = [len(rows) for rows in targets["boxes"]]
    assert min(counts) == 0 and max(counts) >= 3
    text = data.describe()
    assert f"train: 30 images (60 x 90 pixels), {sum(counts)} objects" in text
    assert f"{counts.count(0)} images without objects" in text
    assert "2 class(es): star, ring" in text and "seed 0" in text


def test_instance_masks_are_what_one_sees():
    mask_api = pytest.importorskip("pycocotools.mask")
    data = generate_detection(8, 2, seed=5, num_classes=3, image_size=SIZE, masks=True)
    plain = generate_detection(8, 2, seed=5, num_classes=3, image_size=SIZE)
    np.testing.assert_array_equal(data.train.images, plain.train.images)
    total = 0
    for k, codes in enumerate(data.train.targets["masks"]):
        scene = generate_scene((5, 0, k), SIZE, 3, SceneSettings())
        assert len(codes) == len(scene.classes) == len(data.train.targets["boxes"][k])
        for i, code in enumerate(codes):
            np.testing.assert_array_equal(mask_api.decode(code), scene.instances == i + 1)
        total += len(codes)
    assert total > 5


def test_boxes_are_tight_around_what_one_sees(scenes):
    # With nothing over them and inside the image, boxes are the extents of the
    # instance mask; hidden parts may only make the mask's extent smaller.
    exact = total = 0
    for scene in scenes:
        for k, (x_min, y_min, x_max, y_max) in enumerate(scene.boxes_px):
            rows, columns = np.nonzero(scene.instances == k + 1)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert x_min <= seen[0] and y_min <= seen[1] and x_max >= seen[2] and y_max >= seen[3]
            exact += seen == [x_min, y_min, x_max, y_max]
            total += 1
            assert 0 <= x_min < x_max <= SIZE[1] and 0 <= y_min < y_max <= SIZE[0]
    assert total > 200
    assert exact > 0.6 * total


def test_class_mask_holds_the_classes(scenes):
    scene = max(scenes, key=lambda s: len(s.classes))
    for k, kind in enumerate(scene.classes):
        assert set(scene.class_mask[scene.instances == k + 1]) == {kind + 1}
    assert set(scene.class_mask[scene.instances == 0]) == {0}


def test_no_object_is_mostly_hidden():
    # Crowded on purpose. An object alone, with the same draws, shows its whole area.
    settings = SceneSettings(max_objects=6, clutter=6, occlusion=1.0, min_visible=0.6, empty=0)
    canvas_areas = []
    original = generated._Canvas.scene

    def remember(canvas):
        canvas_areas.append(canvas.areas)
        return original(canvas)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated._Canvas, "scene", remember)
        crowded = [generate_scene((1, 0, k), SIZE, 8, settings) for k in range(60)]
    shares = [
        np.count_nonzero(scene.instances == k + 1) / area
        for scene, areas in zip(crowded, canvas_areas, strict=True)
        for k, area in enumerate(areas)
    ]
    assert min(shares) >= 0.6
    assert np.mean(np.array(shares) < 0.95) > 0.3, "nothing hides anything"


def test_sizes_follow_the_settings():
    settings = SceneSettings(object_size=(0.3, 0.4), empty=0, clutter=0, occlusion=0)
    sides = np.concatenate(
        [
            scene.boxes_px[:, 2:] - scene.boxes_px[:, :2]
            for scene in (generate_scene((2, 0, k), (100, 140), 1, settings) for k in range(40))
        ]
    )
    # A rotated box around a shape is up to sqrt(2) times its longer side.
    assert 30 * 0.7 < np.median(sides.max(axis=1)) < 40 * 1.3
    assert sides.max() <= 40 * 1.42 + 2


def scenes_of_one(**more):
    settings = SceneSettings(max_objects=1, empty=0, clutter=0, occlusion=0, turn=0.0, **more)
    return [generate_scene((6, 0, k), SIZE, len(CLASS_NAMES), settings) for k in range(60)]


def test_light_things_on_dark_ground():
    lighter = 0
    for scene in scenes_of_one(lighter=True):
        thing, ground = scene.image[scene.instances == 1], scene.image[scene.instances == 0]
        lighter += thing.mean() > ground.mean() + 40
        assert ground.mean() < 120
    assert lighter > 55


def test_a_margin_keeps_things_from_the_border():
    at_border = []
    for margin in (0.5, 0.1):
        boxes = np.concatenate([scene.boxes_px for scene in scenes_of_one(margin=margin)])
        there = (boxes[:, :2] == 0).any(1) | (boxes[:, 2:] == SIZE[::-1]).any(1)
        at_border.append(there.mean())
    assert at_border[0] < 0.1 and at_border[1] > 0.3


def test_colour_does_not_give_the_class_away():
    settings = SceneSettings(max_objects=1, empty=0, clutter=0)
    means = {0: [], 1: []}
    for k in range(150):
        scene = generate_scene((3, 0, k), (40, 50), 2, settings)
        for kind in scene.classes:
            means[int(kind)].append(scene.image[scene.instances == 1].mean(axis=0))
    means = [np.array(means[kind]) for kind in (0, 1)]
    between = np.abs(means[0].mean(axis=0) - means[1].mean(axis=0)).max()
    assert between < 0.5 * means[0].std(axis=0).min()


@pytest.mark.parametrize("name", CLASS_NAMES + CLUTTER_NAMES)
def test_every_shape_fills_its_box(name):
    shape = generated._Shape(name, 30.0, 20.0, 1.0, 0.0, 0.5)
    opacity, _, _, left, top = generated._rasterise(shape, 50.25, 40.5)
    assert opacity.dtype == np.float32
    x_min, y_min, x_max, y_max = generated._extent(opacity >= 0.5, left, top)
    assert x_min >= 20.25 - 1 and x_max <= 80.25 + 1
    assert y_min >= 20.5 - 1 and y_max <= 60.5 + 1
    assert x_max - x_min >= 26 and y_max - y_min >= 20, "far smaller than it should be"
    # Nothing of it is cut off by its patch.
    border = np.concatenate([opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]])
    assert border.max() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_val": 0}, "0 images asked for"),
        ({"seed": -1}, "seed is -1"),
        ({"num_classes": 11}, "num_classes is 11; wanted 1 to 10"),
        ({"image_size": (64, 16)}, r"image_size is \(64, 16\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        generate_detection(**({"num_train": 1, "num_val": 1} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"object_size": (0.5, 0.2)}, r"object_size is \(0.5, 0.2\)"),
        ({"empty": 1.5}, "empty is 1.5"),
        ({"max_objects": 0}, "max_objects is 0"),
        ({"margin": 0.6}, "margin is 0.6; wanted 0 to 0.5"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        SceneSettings(**arguments)


def test_one_object_for_each_class():
    data = generate_classification(30, 10, 1, num_classes=3, image_size=(40, 48))
    assert data.train.images.shape == (30, 40, 48, 3)
    assert set(data.train.targets["label"]) == {0, 1, 2}
    again = generate_classification(5, 5, 1, num_classes=3, image_size=(40, 48))
    np.testing.assert_array_equal(again.train.images, data.train.images[:5])
    np.testing.assert_array_equal(again.train.targets["label"], data.train.targets["label"][:5])
    assert not np.array_equal(again.val.images, again.train.images)
    with pytest.raises(InputError, match="num_classes is 1"):
        generate_classification(num_classes=1)


def test_masks_of_scenes():
    data = generate_segmentation(6, 3, seed=4, num_classes=3, image_size=(40, 56))
    assert data.class_names == ("background", "star", "ring", "cross")
    scene = generate_scene((4, 1, 2), (40, 56), 3, SceneSettings())
    np.testing.assert_array_equal(data.val.images[2], scene.image)
    np.testing.assert_array_equal(data.val.mask(2), scene.class_mask)
    assert data.train.targets["mask"].shape == (6, 40, 56)
    assert data.train.counts(4).min() > 0
    assert not np.array_equal(data.train.images[0], data.val.images[0])


def test_ten_light_shapes_take_learning():
    """Ten classes about equally often, which a linear classifier tells apart badly."""
    data = generate_classification(
        700, 300, 4, num_classes=10, image_size=32, scenes=generated.ONE_LIGHT_OBJECT
    )
    labels = data.train.targets["label"]
    assert len(data.class_names) == 10 and data.train.counts(10).min() > 40
    # Least squares on a coarser view of the images, with a bias and some decay.
    views = []
    for split in (data.train, data.val):
        coarse = split.images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)) / 255  # (n, 8, 8, 3)
        ones = np.ones((len(split), 1))
        views.append(np.hstack([coarse.reshape(len(split), -1), ones]))
    a, wanted = views[0], np.eye(10)[labels]
    weights = np.linalg.solve(a.T @ a + 5 * np.eye(a.shape[1]), a.T @ wanted)
    accuracy = np.mean((views[1] @ weights).argmax(1) == data.val.targets["label"])
    assert accuracy < 0.45  # a network ends at twice that


@pytest.mark.parametrize(
    ("source", "options"), [("generated_scenes", {}), ("generated", {"scenes": "usual"})]
)
def test_scenes_of_several_objects_are_not_to_classify(source, options):
    with pytest.raises(InputError, match=r"generated_scenes.* wanted one of one, one-light, plain"):
        load(source, "classification", num_train=1, num_val=1, **options)


def test_generated_images_have_a_part_to_validate_on():
    data = load("generated_scenes", "unlabelled", num_train=2, num_val=1, validate=True)
    assert len(data.val) == 1


def test_generated_scenes_have_small_things_of_four_classes():
    data = load("generated_scenes", "detection", num_train=12, num_val=1, seed=5)
    same = generated.generate("detection", 12, 1, 5, **generated.CROWDED_OPTIONS, masks=True)
    np.testing.assert_array_equal(data.train.images, same.train.images)
    assert data.train.images.shape[1:] == (192, 192, 3) and len(data.class_names) == 4
    boxes = np.concatenate(data.train.targets["boxes"])
    assert np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).min() < 0.1
    assert load("generated_scenes", "detection", num_train=1, num_val=1, num_classes=2).class_names
