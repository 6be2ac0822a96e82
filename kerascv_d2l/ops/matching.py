"""Which object each anchor has to find, and what the network is asked to say of it.

Everything here is computed for the whole batch at once, from `(batch, objects,
anchors)` tables of overlaps.
"""

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.anchors import offset_boxes
from kerascv_d2l.ops.boxes import ioa_of_corners, iou_of_corners
from kerascv_d2l.ops.checks import as_boxes, as_targets, check_fraction

# Anchors are looked through in blocks of this many for the best of them.
_BLOCK = 64
# How many of its best anchors a box is first given to choose from.
_FEW_WISHES = 8


def assign_anchor_to_bbox(ground_truth, anchors, iou_threshold=0.5):
    """Choose at most one ground-truth box for every anchor.

    First the boxes claim anchors: of all pairs of a free anchor and an unserved
    box the one with the largest IoU is made, again and again, so that every box
    owns an anchor even below the threshold. Then every other anchor takes the
    box it overlaps most, if that IoU reaches the threshold. Equal IoUs go to
    the lowest anchor, then to the lowest box.

    A box that overlaps no anchor claims all the same: it gets the first anchor
    that the others leave. With more boxes than anchors, the boxes that overlap
    best are served and the rest go without.

    Args:
        ground_truth: float32 `(num_boxes, 4)` corners, without padding rows.
        anchors: float32 `(num_anchors, 4)` corners in the same frame.
        iou_threshold: float in (0, 1].

    Returns:
        int32 `(num_anchors,)`: row of `ground_truth`, or -1 for background.

    Raises:
        InputError: if a shape is not `(…, 4)` of rank 2, or the threshold is out
            of range.

    Source:
        D2L 1.0.3, section 14.4.3.1; its example gives `[-1, 0, 1, -1, 1]`.
    """
    ground_truth = as_boxes(ground_truth, "ground_truth", rank=2)
    anchors = as_boxes(anchors, "anchors", rank=2)
    check_fraction(iou_threshold, "iou_threshold")
    if not tf.is_tensor(iou_threshold) and iou_threshold == 0:
        raise InputError("iou_threshold must be above 0: every anchor has an IoU of at least 0.")
    is_object = tf.ones([1, tf.shape(ground_truth)[0]], tf.bool)
    return match(ground_truth[tf.newaxis], is_object, anchors, iou_threshold)[0]


def match(boxes, is_object, anchors, iou_threshold):
    """`assign_anchor_to_bbox` for a batch in which some rows are no objects.

    Args:
        boxes: float32 `(batch, m, 4)` corners.
        is_object: bool `(batch, m)`; False rows take part in nothing.
        anchors: float32 `(num_anchors, 4)` corners in the same frame.
        iou_threshold: float in (0, 1].

    Returns:
        int32 `(batch, num_anchors)`: row of `boxes`, or -1 for background.
    """
    num_anchors = tf.shape(anchors)[0]
    # Padding, of boxes and up to whole blocks of anchors, has no area and so overlaps nothing.
    boxes = tf.where(is_object[..., tf.newaxis], boxes, 0.0)
    anchors = tf.pad(anchors, [[0, -num_anchors % _BLOCK], [0, 0]])
    iou = iou_of_corners(
        tf.unstack(anchors[tf.newaxis, tf.newaxis], axis=-1),  # (1, 1, anchors) each
        tf.unstack(boxes[:, :, tf.newaxis], axis=-1),  # (batch, m, 1) each
    )  # (batch, m, anchors)
    best, best_box = _max_and_first(iou)  # (batch, anchors)
    assigned = tf.where(best >= iou_threshold, best_box, -1)
    return _with_claims(assigned[:, :num_anchors], iou, is_object)


def _max_and_first(iou):
    """Maximum over the boxes and the first box that has it, each `(batch, anchors)`.

    Two plain reductions: over a middle axis they are faster than an argmax.
    """
    largest = tf.reduce_max(iou, axis=1)
    num_boxes = tf.shape(iou)[1]
    rows = tf.range(num_boxes)[:, tf.newaxis]  # (m, 1)
    first = tf.reduce_min(tf.where(tf.equal(iou, largest[:, tf.newaxis]), rows, num_boxes), axis=1)
    return largest, first


def _with_claims(assigned, iou, is_object):
    """Overwrite `assigned` where a box claims an anchor.

    The greedy order, best overlap first, is the one outcome in which no box and
    anchor overlap each other more than they do what they got: a stable matching.
    So each box may ask for its anchors in the order of their overlap, all boxes
    at once, each moving on when a better box wants the same anchor (Gale and
    Shapley 1962). A few rounds on tables without an anchor axis serve a hundred
    boxes. `assigned` is `(batch, anchors)`, `iou` `(batch, m, anchors)`, `is_object` `(batch, m)`.
    """
    num_boxes, num_anchors = tf.shape(iou)[1], tf.shape(assigned)[1]
    # The others can take m - 1 anchors, so a box never needs more than m wishes; it
    # hardly ever needs more than a few, and sorting those is much quicker.
    most = tf.minimum(num_boxes, num_anchors)
    few = tf.minimum(most, _FEW_WISHES)
    claims, ran_out = _claims(*_best_of_blocks(iou, few), is_object, num_anchors)
    claims = tf.cond(
        ran_out & (few < most),
        lambda: _claims(*tf.math.top_k(iou, most), is_object, num_anchors)[0],
        lambda: claims,
    )  # (batch, m)
    claims = tf.ensure_shape(claims, is_object.shape)  # a condition forgets it
    image = tf.broadcast_to(tf.range(tf.shape(iou)[0])[:, tf.newaxis], tf.shape(claims))
    row = tf.broadcast_to(tf.range(num_boxes), tf.shape(claims))
    # Boxes without an anchor write into a last column, which is cut off.
    assigned = tf.pad(assigned, [[0, 0], [0, 1]])
    assigned = tf.tensor_scatter_nd_update(assigned, tf.stack([image, claims], axis=-1), row)
    return assigned[:, :-1]


def _best_of_blocks(iou, count):
    """`tf.math.top_k` for a small count, several times as fast, ties included.

    What is among the best of `iou` `(batch, m, anchors)` lies in one of the `count` blocks with the
    best maxima, so only these are sorted: overlaps, falling, and anchors `(batch, m, count)`.
    """
    batch, num_boxes, num_anchors = tf.unstack(tf.shape(iou))
    blocks = tf.reshape(iou, [batch, num_boxes, num_anchors // _BLOCK, _BLOCK])
    _, chosen = tf.math.top_k(
        tf.reduce_max(blocks, axis=-1), tf.minimum(count, num_anchors // _BLOCK)
    )
    chosen = tf.sort(chosen, axis=-1)  # equal overlaps go to the lowest anchor
    candidates = tf.gather(blocks, chosen, batch_dims=2)  # (batch, m, chosen, block)
    width = tf.shape(chosen)[-1] * _BLOCK
    overlaps, place = tf.math.top_k(tf.reshape(candidates, [batch, num_boxes, width]), count)
    block = tf.gather(chosen, place // _BLOCK, batch_dims=2)
    return overlaps, block * _BLOCK + place % _BLOCK


def _claims(overlaps, wishes, is_object, num_anchors):
    """Which anchor each box gets, asking for its wishes `(batch, m, wishes)` one by one.

    Returns:
        Tuple of int32 `(batch, m)`: the anchor, or num_anchors for none; and
        bool scalar: whether some box found all its wishes taken.
    """
    num_boxes, num_wishes = tf.shape(wishes)[1], tf.shape(wishes)[2]
    none = tf.ones_like(overlaps[..., :1])
    overlaps = tf.concat([overlaps, -none], axis=-1)  # the last wish: to go without
    wishes = tf.concat([wishes, tf.cast(none, tf.int32) * num_anchors], axis=-1)
    rows = tf.range(num_boxes)
    earlier = rows[:, tf.newaxis] < rows  # (m, m): [j, k] row j comes before row k

    def wish(turn):
        return (
            tf.gather(wishes, turn, batch_dims=2),
            tf.gather(overlaps, turn, batch_dims=2),
        )  # (batch, m) each

    def refused(turn):
        anchor, overlap = wish(turn)
        same = anchor[:, :, tf.newaxis] == anchor[:, tf.newaxis]  # (batch, m, m)
        mine, other = overlap[:, tf.newaxis], overlap[:, :, tf.newaxis]
        better = (other > mine) | ((other == mine) & earlier)  # (batch, m, m)
        return tf.reduce_any(same & better, axis=1) & (turn < num_wishes)  # (batch, m)

    def move_on(turn, moving):
        turn += tf.cast(moving, tf.int32)
        return turn, refused(turn)

    start = tf.where(is_object, 0, num_wishes)
    turn, _ = tf.while_loop(
        lambda _, moving: tf.reduce_any(moving), move_on, [start, refused(start)]
    )
    return wish(turn)[0], tf.reduce_any((turn == num_wishes) & is_object)


def overlaps_ignored(boxes, is_ignored, anchors, threshold):
    """Find the anchors that lie on an ignored object.

    The overlap is the share of the anchor that lies inside: an ignored box often frames many
    objects (COCO's crowds), and an anchor on one of them is not background.

    Args:
        boxes: float32 `(batch, m, 4)` corners.
        is_ignored: bool `(batch, m)`; only these rows count.
        anchors: float32 `(num_anchors, 4)` corners in the same frame.
        threshold: float in (0, 1].

    Returns:
        bool `(batch, num_anchors)`.

    Source:
        COCO's evaluation, which measures the overlap with crowds in this way.
    """
    boxes = tf.where(is_ignored[..., tf.newaxis], boxes, 0.0)
    anchors = tf.unstack(anchors, axis=-1)  # (anchors,) each
    share = ioa_of_corners(anchors, tf.unstack(boxes[:, :, tf.newaxis], axis=-1))
    return tf.reduce_any(share >= threshold, axis=1)


def multibox_target(anchors, labels):
    """Make what a detector has to predict for every anchor, for a batch of labelled images.

    Args:
        anchors: float32 `(1, num_anchors, 4)` corners, normalised.
        labels: `(batch, m, 5)` rows `[class, x_min, y_min, x_max, y_max]`, normalised, class
            -1 in padding rows; or a dict of `boxes`, `classes` and `ignore`, see `as_targets`.

    Returns:
        Tuple of
        bbox_offset: float32 `(batch, 4·num_anchors)`, offsets to the assigned
            box, 0 for background.
        bbox_mask: float32 `(batch, 4·num_anchors)`, 1 where an offset counts.
        class_labels: int32 `(batch, num_anchors)`, class + 1, or 0 for background, or -1
            for an anchor without an object that lies on an ignored one: nothing is to be
            learnt from it.

    Raises:
        InputError: if a shape is another, or an object's class or box is wrong, see
            `as_targets` (in a graph: `tf.errors.InvalidArgumentError`).

    Source:
        D2L 1.0.3, section 14.4.3.3.
    """
    anchors = as_boxes(anchors, "anchors", rank=3)
    if anchors.shape[0] not in (1, None):
        raise InputError(
            f"anchors must be one set for the whole batch, (1, n, 4); got {tuple(anchors.shape)}."
        )
    targets = as_targets(labels)
    return encode_targets(anchors[0], targets["boxes"], targets["classes"], targets["ignore"])


def encode_targets(anchors, boxes, classes, ignore, iou_threshold=0.5):
    """Make the targets of `multibox_target` from what `as_targets` returned.

    Args:
        anchors: float32 `(num_anchors, 4)`.
        boxes: float32 `(batch, m, 4)`.
        classes: int32 `(batch, m)`, -1 in padding rows.
        ignore: bool `(batch, m)`; these objects claim no anchor.
        iou_threshold: float in (0, 1]; for ignored objects see `overlaps_ignored`.

    Returns:
        As `multibox_target`.
    """
    assigned = match(boxes, (classes >= 0) & ~ignore, anchors, iou_threshold)  # (batch, anchors)
    positive = assigned >= 0
    # Most batches have no ignored object.
    on_ignored = tf.cond(
        tf.reduce_any(ignore),
        lambda: overlaps_ignored(boxes, ignore, anchors, iou_threshold),
        lambda: tf.zeros_like(positive),
    )
    on_ignored = tf.ensure_shape(on_ignored, positive.shape)  # (batch, anchors)
    # One more row, so that an image without objects has something to point at.
    rows = tf.concat([boxes, tf.cast(classes[..., tf.newaxis], tf.float32)], axis=-1)
    rows = tf.pad(rows, [[0, 0], [0, 1], [0, 0]])  # (batch, m + 1, 5)
    found = tf.gather(rows, tf.maximum(assigned, 0), batch_dims=1)  # (batch, anchors, 5)
    background = -tf.cast(on_ignored, tf.int32)
    labels = tf.where(positive, tf.cast(found[..., 4], tf.int32) + 1, background)
    mask = tf.repeat(positive[..., tf.newaxis], 4, axis=-1)  # (batch, anchors, 4)
    offsets = tf.where(mask, offset_boxes(anchors, found[..., :4]), 0.0)
    flat = [tf.shape(boxes)[0], -1]
    return tf.reshape(offsets, flat), tf.reshape(tf.cast(mask, tf.float32), flat), labels
