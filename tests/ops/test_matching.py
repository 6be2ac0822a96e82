import numpy as np
import pytest
import slow_boxes
import tensorflow as tf

from kerascv_d2l import InputError, assign_anchor_to_bbox, multibox_prior, multibox_target
from kerascv_d2l.ops import matching
from kerascv_d2l.ops.checks import as_targets

DOG, CAT = [0, 0.1, 0.08, 0.52, 0.92], [1, 0.55, 0.2, 0.9, 0.88]
ANCHORS = np.array(
    [
        [0, 0.1, 0.2, 0.3],
        [0.15, 0.2, 0.4, 0.4],
        [0.63, 0.05, 0.88, 0.98],
        [0.66, 0.45, 0.8, 0.8],
        [0.57, 0.3, 0.92, 0.9],
    ],
    np.float32,
)
BOOK = np.array([[DOG, CAT]], np.float32)


# Compiled once for each shape, for all tests.
in_graph = tf.function(multibox_target, reduce_retracing=True, autograph=False)
in_xla = tf.function(multibox_target, jit_compile=True, autograph=False)


@pytest.mark.quick
def test_example_of_the_book():
    assert assign_anchor_to_bbox(BOOK[0, :, 1:], ANCHORS).numpy().tolist() == [-1, 0, 1, -1, 1]
    offsets, mask, classes = multibox_target(ANCHORS[None], BOOK)
    assert classes.numpy().tolist() == [[0, 1, 2, 0, 2]]
    expected = np.zeros((5, 4))
    expected[1] = [1.4, 10, 2.594, 7.175]
    expected[2] = [-1.2, 0.2688, 1.682, -1.566]
    expected[4] = [-0.5714, -1, 4.17e-6, 0.6258]
    np.testing.assert_allclose(offsets.numpy().reshape(5, 4), expected, atol=1e-3)
    expected = np.repeat([[0, 1, 1, 0, 1]], 4, axis=1)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.quick
def test_example_in_every_mode():
    expected = multibox_target(ANCHORS[None], BOOK)
    batch = np.concatenate([BOOK, np.full_like(BOOK, -1), BOOK[:, ::-1]])
    signature = [tf.TensorSpec((1, None, 4)), tf.TensorSpec((None, None, 5))]
    graph = tf.function(multibox_target, input_signature=signature)
    mapped = tf.data.Dataset.from_tensors(batch).map(lambda x: multibox_target(ANCHORS[None], x))
    for result in (graph(ANCHORS[None], batch), in_xla(ANCHORS[None], batch), next(iter(mapped))):
        for part, whole in zip(result, expected, strict=True):
            np.testing.assert_allclose(part[0], whole[0], rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(part[1], np.zeros_like(whole[0]))  # nothing but padding
            np.testing.assert_allclose(part[2], part[0], rtol=1e-4)  # the order of rows is nothing


def compare(count, seed):
    rng = np.random.default_rng(seed)
    for case in range(count):
        anchors, labels = slow_boxes.random_case(rng)
        offsets, mask, classes = in_graph(anchors[None], labels)
        for image in range(len(labels)):
            expected = slow_boxes.target(anchors, labels[image])
            message = f"case {case}, image {image}"
            np.testing.assert_array_equal(classes[image], expected[2], message)
            np.testing.assert_array_equal(mask[image], expected[1].ravel(), message)
            np.testing.assert_allclose(
                offsets[image], expected[0].ravel(), rtol=2e-4, atol=2e-4, err_msg=message
            )


def test_random_cases_equal_reference():
    compare(200, seed=0)


@pytest.mark.long
def test_ten_thousand_random_cases():
    compare(10_000, seed=1)


@pytest.mark.quick
@pytest.mark.parametrize("boxes", [3, 30])
def test_boxes_that_want_the_same_anchors(boxes):
    """More equal boxes than first wishes: each still gets the best that is left."""
    anchors = multibox_prior(np.empty((1, 6, 7, 1)), [0.3, 0.4], [1, 2])[0].numpy()
    same = np.tile(np.float32([[0.31, 0.22, 0.62, 0.55]]), (boxes, 1))
    assigned = assign_anchor_to_bbox(same, anchors).numpy()
    np.testing.assert_array_equal(assigned, slow_boxes.assign(same, anchors))
    assert set(range(boxes)) <= set(assigned.tolist())


@pytest.mark.quick
def test_more_boxes_than_anchors_serves_the_best():
    anchors = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    boxes = np.array([[0, 0, 0.1, 0.1], [0, 0, 0.5, 0.4], [0.5, 0.5, 1, 0.9]], np.float32)
    assert assign_anchor_to_bbox(boxes, anchors).numpy().tolist() == [1, 2]


@pytest.mark.quick
def test_a_box_that_overlaps_nothing_claims_the_first_free_anchor():
    boxes = np.array([[0.15, 0.2, 0.4, 0.4], [3, 3, 4, 4]], np.float32)
    assert assign_anchor_to_bbox(boxes, ANCHORS).numpy().tolist() == [1, 0, -1, -1, -1]


@pytest.mark.quick
def test_no_boxes():
    assert assign_anchor_to_bbox(np.zeros((0, 4)), ANCHORS).numpy().tolist() == [-1] * 5
    offsets, mask, classes = multibox_target(ANCHORS[None], np.zeros((2, 0, 5)))
    assert not np.any(offsets) and not np.any(mask) and not np.any(classes)
    assert classes.shape == (2, 5)


@pytest.mark.quick
def test_threshold_is_inclusive():
    anchors = np.array([[0, 0, 0.5, 1], [0, 0, 1, 1]], np.float32)  # IoU with the box: 1/2 and 1
    box = np.array([[0, 0, 1, 1]], np.float32)
    assert assign_anchor_to_bbox(box, anchors, 0.5).numpy().tolist() == [0, 0]
    assert assign_anchor_to_bbox(box, anchors, 0.51).numpy().tolist() == [-1, 0]


def test_many_anchors_are_exact():
    """200,000 anchors × 100 boxes: float32 could not tell the flat indices apart."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.9, (200_000, 2))
    anchors = np.concatenate([corner, corner + 0.03], axis=1).astype(np.float32)
    owners = rng.permutation(len(anchors))[:100]
    assigned = assign_anchor_to_bbox(anchors[owners], anchors).numpy()
    np.testing.assert_array_equal(assigned[owners], np.arange(100))


@pytest.mark.quick
def test_padding_rows_change_nothing():
    padded = np.full((1, 6, 5), -1, np.float32)
    padded[0, 1], padded[0, 4] = DOG, CAT
    padded[0, 2, 1:] = np.nan  # nothing of a padding row is read but its class
    for part, expected in zip(
        multibox_target(ANCHORS[None], padded), multibox_target(ANCHORS[None], BOOK), strict=True
    ):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.quick
@pytest.mark.parametrize(
    "row",
    [
        [0, np.nan, 0.1, 0.5, 0.5],
        [0, 0.1, 0.1, np.inf, 0.5],
        [np.nan, 0.1, 0.1, 0.5, 0.5],
        [1, 0.5, 0.1, 0.4, 0.5],
        [1, 0.1, 0.5, 0.4, 0.4],
        [-2, 0.1, 0.1, 0.4, 0.4],
        [0.5, 0.1, 0.1, 0.4, 0.4],
        [0, 12, 20, 110, 90],
    ],
)
def test_bad_labels_are_refused(row):
    labels = np.array([[DOG, CAT], [DOG, row]], np.float32)
    with pytest.raises(InputError, match=r"labels: .*Row 1 of image 1 is"):
        multibox_target(ANCHORS[None], labels)
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels: every object"):
        in_graph(ANCHORS[None], labels)
    # XLA has no assertions: the row is taken for padding.
    compiled = in_xla(ANCHORS[None], labels)
    labels[1, 1, 0] = -1
    for part, expected in zip(compiled, multibox_target(ANCHORS[None], labels), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.quick
def test_targets_have_one_form():
    rows = as_targets(BOOK)
    assert rows["classes"].dtype == tf.int32 and rows["ignore"].numpy().tolist() == [[False] * 2]
    given = {"boxes": BOOK[..., 1:], "classes": np.int64([[0, 1]]), "masks": "as they are"}
    for name, value in as_targets(given).items():
        assert value is given["masks"] if name == "masks" else np.all(value == rows[name])
    again = as_targets(as_targets(given | {"ignore": [[False, True]]}))
    assert again["ignore"].numpy().tolist() == [[False, True]]
    with pytest.raises(InputError, match=r"class \(0 to 0; .*Row 1 of image 0 is class 1"):
        as_targets(BOOK, num_classes=1)
    with pytest.raises(InputError, match=r"\['classes'\] is missing"):
        as_targets({"boxes": BOOK[..., 1:]})
    with pytest.raises(InputError, match=r"classes must have one value a box, shape \(1, 2\)"):
        as_targets({"boxes": BOOK[..., 1:], "classes": [0, 1]})


@pytest.mark.quick
def test_ignored_objects_claim_nothing_and_make_no_background():
    rng, left_out = np.random.default_rng(5), []
    for case in range(60):
        anchors, labels = slow_boxes.random_case(rng)
        ignore = rng.random(labels.shape[:2]) < 0.4
        y = {"boxes": labels[..., 1:], "classes": labels[..., 0], "ignore": ignore}
        answer = offsets, mask, classes = in_graph(anchors[None], y)
        for image in range(len(labels)):
            expected = slow_boxes.target(anchors, labels[image], ignore[image])
            np.testing.assert_array_equal(classes[image], expected[2], f"case {case}")
            np.testing.assert_array_equal(mask[image], expected[1].ravel(), f"case {case}")
            np.testing.assert_allclose(offsets[image], expected[0].ravel(), 2e-4, 2e-4)
        if np.any(classes == -1):
            left_out.append((anchors, y, answer))
    assert len(left_out) > 5
    anchors, y, answer = left_out[0]
    compiled = in_xla(anchors[None], y)
    for part, expected in zip(compiled, answer, strict=True):
        np.testing.assert_allclose(part, expected, 2e-4, 2e-4)


@pytest.mark.quick
def test_wrong_shapes_are_named():
    with pytest.raises(InputError, match="labels must have shape 3 dimensions"):
        multibox_target(ANCHORS[None], BOOK[0])
    with pytest.raises(InputError, match="anchors must be one set for the whole batch"):
        multibox_target(np.stack([ANCHORS] * 2), BOOK)
    with pytest.raises(InputError, match="anchors must have shape"):
        assign_anchor_to_bbox(BOOK[0, :, 1:], ANCHORS[None])
    with pytest.raises(InputError, match="iou_threshold"):
        assign_anchor_to_bbox(BOOK[0, :, 1:], ANCHORS, iou_threshold=1.5)


@pytest.mark.quick
def test_few_wishes_fall_back_to_all():
    """With a single wish each, the second of two equal boxes runs out, and asks again."""
    iou = tf.constant([[[0.9, 0.8, 0.1], [0.9, 0.7, 0.2]]])
    everyone = tf.ones((1, 2), tf.bool)
    claims, ran_out = matching._claims(*tf.math.top_k(iou, 1), everyone, 3)
    assert claims.numpy().tolist() == [[0, 3]] and bool(ran_out)
    claims, ran_out = matching._claims(*tf.math.top_k(iou, 2), everyone, 3)
    assert claims.numpy().tolist() == [[0, 1]] and not bool(ran_out)


@pytest.mark.quick
@pytest.mark.parametrize("blocks", [1, 2, 30])
def test_best_of_blocks_is_top_k(blocks):
    rng = np.random.default_rng(blocks)
    iou = rng.integers(0, 40, (2, 3, blocks * matching._BLOCK)) / np.float32(40)  # with ties
    for found, expected in zip(
        matching._best_of_blocks(tf.constant(iou), 8), tf.math.top_k(iou, 8), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
