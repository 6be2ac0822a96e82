"""Record DETR's numbers from the package transformers, with drawn weights: detr_recorded.npz.

    python tests/models/record_detr.py    # needs torch and transformers 4; seconds

A small transformer on a drawn map, in place of the backbone's: predictions of each decoder layer,
the attention of the last, and all losses. The weights are drawn by name, so that the tests can
draw them again without torch; `shapes` has all names.
"""

import json
import sys
from pathlib import Path

import numpy as np
from record_resnet import draw

RECORDED = Path(__file__).with_name("detr_recorded.npz")
SETTINGS = {
    "num_queries": 9, "width": 32, "heads": 4, "encoder_layers": 2, "decoder_layers": 3,
    "feedforward": 48,
}  # fmt: skip
NUM_CLASSES = 4
MAP = (2, 5, 7, 256)  # images, height, width, channels: as of a small MobileNet
COUNTS = (3, 1)  # objects of each image


def draw_weights(shapes):
    """Weights by name, at a scale that keeps predictions apart."""
    tensors = {}
    for name, shape in shapes.items():
        noise = draw(name, shape)
        if len(shape) > 1:
            noise *= np.sqrt(1.5 / np.prod(shape[1:]))
        elif "norm" in name and name.endswith("weight"):
            noise = 1 + 0.2 * np.tanh(noise)
        else:
            noise *= 0.2
        tensors[name] = noise.astype(np.float32)
    return tensors


def draw_map():
    """What the backbone says: float32 `MAP`."""
    return draw("map", MAP).astype(np.float32)


def draw_objects():
    """Boxes `(images, 3, 4)`, normalised, centre first, and classes `(images, 3)`, -1 for none."""
    random = np.random.RandomState(5)
    boxes = random.uniform(0.2, 0.5, (len(COUNTS), 3, 4)).astype(np.float32)
    classes = random.randint(0, NUM_CLASSES, (len(COUNTS), 3))
    for i, count in enumerate(COUNTS):
        classes[i, count:], boxes[i, count:] = -1, 0
    return boxes, classes


def main():
    sys.modules["torchvision"] = None  # not needed, and often of another version than torch
    import torch
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, MAP[-1]], depths=[1] * 4, layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, num_labels=NUM_CLASSES, dropout=0.0,
        num_queries=SETTINGS["num_queries"], d_model=SETTINGS["width"],
        encoder_layers=SETTINGS["encoder_layers"], decoder_layers=SETTINGS["decoder_layers"],
        encoder_attention_heads=SETTINGS["heads"], decoder_attention_heads=SETTINGS["heads"],
        encoder_ffn_dim=SETTINGS["feedforward"], decoder_ffn_dim=SETTINGS["feedforward"],
    )  # fmt: skip
    model = DetrForObjectDetection(config)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if "backbone" not in name
    }
    weights = {name: torch.from_numpy(a) for name, a in draw_weights(shapes).items()}
    print(model.load_state_dict(weights, strict=False).unexpected_keys)
    positions = model.model.backbone.position_embedding

    class Given(torch.nn.Module):
        def forward(self, pixels, mask):
            given = torch.from_numpy(draw_map()).permute(0, 3, 1, 2).contiguous()
            mask = torch.ones(given.shape[0], *given.shape[2:], dtype=torch.bool)
            return [(given, mask)], [positions(given, mask)]

    model.model.backbone = Given()
    boxes, classes = draw_objects()
    labels = [
        {"class_labels": torch.from_numpy(c[:n]), "boxes": torch.from_numpy(b[:n])}
        for b, c, n in zip(boxes, classes, COUNTS, strict=True)
    ]
    model.eval()
    with torch.no_grad():
        out = model(
            torch.zeros(MAP[0], 3, 64, 64), output_attentions=True, output_hidden_states=True
        )
        # Its own auxiliary outputs feed the normalised queries into the next layer, unlike the
        # original.
        norm = model.model.decoder.layernorm
        seen = [norm(h) for h in out.decoder_hidden_states[1:-1]] + [out.last_hidden_state]
        layers = [
            {
                "logits": model.class_labels_classifier(h),
                "pred_boxes": model.bbox_predictor(h).sigmoid(),
            }
            for h in seen
        ]
        matcher = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
        loss = ImageLoss(matcher, NUM_CLASSES, 0.1, ["labels", "boxes"])
        losses = loss({**layers[-1], "auxiliary_outputs": layers[:-1]}, labels)
    found = {
        "shapes": np.array(json.dumps(shapes)),
        "logits": np.stack([layer["logits"].numpy() for layer in layers]),
        "boxes": np.stack([layer["pred_boxes"].numpy() for layer in layers]),
        "attention": out.cross_attentions[-1].numpy(),
        "losses": np.array(
            [
                sum(v.item() for k, v in losses.items() if k.startswith(name))
                for name in ("loss_ce", "loss_bbox", "loss_giou")
            ]
        ),
    }
    np.savez_compressed(RECORDED, **found)
    print(found["losses"], RECORDED.stat().st_size)


if __name__ == "__main__":
    main()
