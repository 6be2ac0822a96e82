"""Functions of tensors: boxes, anchors, matching, non-maximum suppression."""
