"""Where a transformer looks for the object that it found."""

import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.explain.subject import look
from kerascv_d2l.ops.boxes import box_center_to_corner


def attention_map(model, image, target=None):
    """Give the attention of a detection's query in the last layer of the decoder.

    Args:
        model: `DETR`, no export.
        image: as for `saliency`.
        target: int, number of a detection, as for `saliency`.

    Returns:
        float32 `(h, w)` of the backbone's map, mean over the heads; it adds up to 1.

    Raises:
        InputError: as for `saliency`, or if the model has no such attention.

    Source:
        Carion et al. 2020, "DETR", figure 6.
    """
    subject, pixels, target = look(model, image, target)
    subject.check_layers("attention_map")
    outputs = subject.outputs(pixels)
    if not isinstance(outputs, dict) or "attention" not in outputs:
        raise InputError("attention_map: the model is no DETR, whose queries look for objects.")
    boxes = box_center_to_corner(outputs["boxes"][-1, 0])  # (queries, 4)
    # The decoder clips boxes, so the detection's is that of its query, or nearly.
    query = np.abs(boxes - target.box).sum(axis=-1).argmin()
    weights = np.asarray(outputs["attention"][0, :, query], np.float32)  # (heads, places)
    return weights.mean(axis=0).reshape(np.asarray(outputs["map_size"]))
