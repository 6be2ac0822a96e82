"""The algorithms of ops/ once more: one box at a time, in plain Python loops.

Written from the definitions, to be obviously right rather than quick. All arithmetic is
float32 in the order of the formulas, so that equal overlaps are equal here and there.
"""

import numpy as np

F = np.float32


def iou(a, b):
    width = max(F(min(a[2], b[2]) - max(a[0], b[0])), F(0))
    height = max(F(min(a[3], b[3]) - max(a[1], b[1])), F(0))
    inside = F(width * height)
    union = F(F(area(a) + area(b)) - inside)
    return F(inside / union) if union else F(0)


def area(a):
    return F(max(F(a[2] - a[0]), F(0)) * max(F(a[3] - a[1]), F(0)))


def assign(boxes, anchors, threshold=0.5):
    table = np.array([[iou(a, b) for b in boxes] for a in anchors], F).reshape(
        len(anchors), len(boxes)
    )
    assigned = [-1] * len(anchors)
    for i in range(len(anchors)):
        for j in range(len(boxes)):
            if table[i, j] >= F(threshold) and (
                assigned[i] == -1 or table[i, j] > table[i, assigned[i]]
            ):
                assigned[i] = j
    free, unserved = set(range(len(anchors))), set(range(len(boxes)))
    while free and unserved:
        pairs = [(-table[i, j], i, j) for i in free for j in unserved]
        _, i, j = min(pairs)
        assigned[i] = j
        free.remove(i)
        unserved.remove(j)
    return np.array(assigned, np.int32)


def offsets(anchor, box):
    ax, ay, aw, ah = center(anchor)
    bx, by, bw, bh = center(box)
    return np.array(
        [
            (bx - ax) / aw / 0.1,
            (by - ay) / ah / 0.1,
            np.log(1e-6 + bw / aw) / 0.2,
            np.log(1e-6 + bh / ah) / 0.2,
        ]
    )


def center(box):
    x1, y1, x2, y2 = (float(c) for c in box)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def target(anchors, labels, ignore=None):
    """One image: offsets (A, 4), mask (A, 4), classes (A,), -1 on an ignored object."""
    ignore = np.zeros(len(labels), bool) if ignore is None else ignore
    objects = [(row, ignored) for row, ignored in zip(labels, ignore, strict=True) if row[0] != -1]
    rows = [row for row, ignored in objects if not ignored]
    crowds = [row[1:] for row, ignored in objects if ignored]
    assigned = assign([row[1:] for row in rows], anchors)
    offset, mask = np.zeros((len(anchors), 4)), np.zeros((len(anchors), 4))
    classes = np.zeros(len(anchors), np.int32)
    for i, j in enumerate(assigned):
        if j >= 0:
            offset[i] = offsets(anchors[i], rows[j][1:])
            mask[i] = 1
            classes[i] = rows[j][0] + 1
        elif any(shared(anchors[i], crowd) >= area(anchors[i]) / 2 for crowd in crowds):
            classes[i] = -1
    return offset, mask, classes


def shared(a, b):
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    return max(width, 0) * max(height, 0)


def nms(boxes, scores, threshold):
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [i for i in left if iou(boxes[best], boxes[i]) <= F(threshold)]
    return kept


def detection(cls_probs, boxes, nms_threshold=0.5, pos_threshold=0.009999999):
    """One image, boxes already decoded: rows (A, 6)."""
    confidence, classes = cls_probs[1:].max(0), cls_probs[1:].argmax(0)
    kept = nms(boxes, confidence, nms_threshold)
    rows = []
    for i in kept + [i for i in range(len(boxes)) if i not in kept]:
        kind = classes[i] if i in kept else -1
        score = confidence[i]
        if score < F(pos_threshold):
            kind, score = -1, 1 - score
        rows.append([kind, score, *boxes[i]])
    return np.array(rows, F)


def random_case(rng):
    """A few labelled images and anchors, with all that makes matching hard.

    Coordinates are multiples of 1/16, so that ties, touching and equal boxes are common
    and float32 holds them exactly.
    """
    batch, m = rng.integers(1, 4), rng.integers(0, 7)
    anchors = _boxes(rng, rng.integers(1, 13))
    labels = np.full((batch, m, 5), -1, F)
    for image in range(batch):
        for row in range(m):
            if rng.random() < 0.75:  # the others are padding, also between objects
                labels[image, row, 0] = rng.integers(0, 3)
                box = _boxes(rng, 1, flat=0.15)[0]
                if rng.random() < 0.2:
                    box = anchors[rng.integers(len(anchors))]
                labels[image, row, 1:] = box
    if rng.random() < 0.1:
        labels[:, :, 0] = -1
    return anchors.astype(F), labels


def _boxes(rng, count, flat=0.0):
    corner = rng.integers(-4, 16, (count, 2))
    size = rng.integers(1, 12, (count, 2)) * (rng.random((count, 2)) >= flat)
    return np.concatenate([corner, corner + size], axis=1).astype(F) / F(16)
