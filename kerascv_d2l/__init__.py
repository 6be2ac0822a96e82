"""The computer-vision chapter of *Dive into Deep Learning* for TensorFlow and Keras 3.

The book's names are importable from here. Each is looked up when it is first
used, so that `import kerascv_d2l` itself imports neither TensorFlow nor Keras.
"""

import importlib

__version__ = "0.1.0"

# module -> the names of it that are public here
_MODULES = {
    "book": [
        "load_cifar10",
        "load_data_bananas",
        "load_data_hotdog",
        "load_data_voc",
        "read_data_bananas",
        "read_voc_images",
        "resnet18",
        "train_batch_ch13",
        "train_ch13",
        "train_with_data_aug",
        "voc_colormap2label",
        "voc_label_indices",
        "voc_rand_crop",
    ],
    "data.batches": [
        "batches",
        "check_crop_size",
        "steps_per_epoch",
        "whole_images",
    ],
    "data.load": ["load"],
    "data.generated": [
        "SceneSettings",
        "generate_classification",
        "generate_detection",
        "generate_segmentation",
    ],
    "data.prepared": ["read_prepared"],
    "data.splits": ["DataSet", "Split"],
    "data.voc_classes": ["VOC_CLASSES", "VOC_COLORMAP"],
    "devices": ["resolve_jit_compile"],
    "errors": ["InputError"],
    "export": ["load_model"],
    "files": ["whole"],
    "initializers": ["Bilinear"],
    "layers": ["BatchNorm", "DetectionDecoder"],
    "layers.augmentation": [
        "ColorJitter",
        "Compose",
        "Mosaic",
        "RandomHorizontalFlip",
        "RandomIoUCrop",
        "RandomResizedCrop",
        "RandomScaleCrop",
        "RandomShift",
        "RandomVerticalFlip",
        "RandomZoomOut",
        "classification_augmentation",
        "mosaic_augmentation",
        "segmentation_augmentation",
        "small_augmentation",
        "ssd_augmentation",
    ],
    "layers.upsampling": ["BilinearUpsampling", "TransposedUpsampling"],
    "losses.detection": ["SSDLoss", "smooth_l1"],
    "losses.regions": ["ciou_loss", "giou_loss", "sigmoid_focal_loss"],
    "losses.segmentation": ["SegmentationCrossEntropy"],
    "metrics.callbacks": ["MeanAveragePrecisionCallback"],
    "metrics.classification": ["classification_metrics", "evaluate_classification", "worst_images"],
    "metrics.detection": ["DetectionEvaluator", "bbox_eval", "cls_eval", "evaluate_detections"],
    "metrics.segmentation": [
        "SegmentationCallback",
        "SegmentationMetrics",
        "evaluate_segmentation",
        "pixel_accuracy",
    ],
    "models.backbones": ["backbone", "check_weights"],
    "models.classifier": ["Classifier"],
    "models.detector": ["Detector"],
    "models.fcn": ["FCN"],
    "models.fpn": ["FPN", "feature_pyramid"],
    "models.registry": ["DETECTORS", "Recipe", "create_detector", "detector_recipe"],
    "models.resnet": ["ResNet18", "ResNet34", "resnet18_small"],
    "models.ssd": [
        "SSD",
        "TinySSD",
        "base_net",
        "bbox_predictor",
        "cls_predictor",
        "concat_preds",
        "down_sample_blk",
    ],
    "models.transformer_net": ["TransformerNet"],
    "models.unet": ["UNet"],
    "models.vgg": ["vgg19_features"],
    "ops.anchors": ["multibox_prior", "offset_boxes", "offset_inverse"],
    "ops.box_coding": ["decode_boxes", "encode_boxes"],
    "ops.boxes": ["box_center_to_corner", "box_corner_to_center", "box_iou"],
    "ops.color": [
        "adjust_brightness",
        "adjust_contrast",
        "adjust_hue",
        "adjust_saturation",
        "normalize",
    ],
    "ops.convolution": ["bilinear_kernel", "corr2d", "kernel2matrix", "trans_conv"],
    "ops.geometry": [
        "crop_and_resize",
        "crop_boxes",
        "crop_mask",
        "flip_left_right",
        "flip_up_down",
        "random_window",
        "resize_and_center_crop",
        "resized_size",
    ],
    "ops.matching": ["assign_anchor_to_bbox", "multibox_target"],
    "ops.iou": ["complete_iou", "generalized_iou"],
    "ops.mask_pasting": ["paste_masks"],
    "ops.region_matching": ["match_by_iou", "sample_balanced"],
    "ops.nms": ["multibox_detection", "nms"],
    "ops.position_sensitive": ["ps_roi_align", "ps_roi_pool"],
    "ops.pyramid_anchors": ["pyramid_anchors"],
    "ops.resize": ["resize"],
    "ops.roi": [
        "multilevel_roi_align",
        "pyramid_levels",
        "roi_align",
        "roi_pool",
        "spatial_pyramid_pooling",
    ],
    "ops.segmentation": ["class_map", "confusion_matrix"],
    "ops.upsampling": ["bilinear_upsampling", "transposed_upsampling"],
    "training.optimizers": [
        "LogRates",
        "freeze",
        "group_rates",
        "layer_rates",
        "make_optimizer",
        "mean_loss_rates",
        "unfreeze",
    ],
    "data.images": ["check_image", "check_images", "decode_image", "read_image"],
    "plotting.book": ["apply", "bbox_to_rect", "show_bboxes", "show_images"],
    "plotting.classification": ["draw_confusion", "draw_mistakes"],
    "plotting.curves": ["draw_curves", "draw_history"],
    "plotting.detections": ["draw_boxes", "draw_detections"],
    "plotting.segmentation": ["draw_segmentation"],
    "style_transfer": ["LossWeights", "Style", "StyleTransfer"],
    "models.segmenter": ["Segmenter", "window_starts"],
    "training.cluster": ["MultiWorkerStrategy", "make_multi_worker_strategy"],
    "training.curves": ["LiveCurves"],
    "training.devices": ["evaluation_batch_size", "make_strategy", "synchronize_batch_norm"],
    "training.run": ["Run", "fingerprint"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = ("export", "style_transfer")

__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_HOME))
