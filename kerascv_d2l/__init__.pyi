"""The public names of the package and where each is: `__init__.py` looks them up here."""

from kerascv_d2l.book import (
    load_cifar10 as load_cifar10,
    load_data_bananas as load_data_bananas,
    load_data_hotdog as load_data_hotdog,
    load_data_voc as load_data_voc,
    read_data_bananas as read_data_bananas,
    read_voc_images as read_voc_images,
    resnet18 as resnet18,
    train_batch_ch13 as train_batch_ch13,
    train_ch13 as train_ch13,
    train_with_data_aug as train_with_data_aug,
    voc_colormap2label as voc_colormap2label,
    voc_label_indices as voc_label_indices,
    voc_rand_crop as voc_rand_crop,
)
from kerascv_d2l.data.batches import (
    batches as batches,
    check_crop_size as check_crop_size,
    sizes_around as sizes_around,
    steps_per_epoch as steps_per_epoch,
    whole_images as whole_images,
)
from kerascv_d2l.data.generated import (
    SceneSettings as SceneSettings,
    generate_classification as generate_classification,
    generate_detection as generate_detection,
    generate_segmentation as generate_segmentation,
)
from kerascv_d2l.data.images import (
    check_image as check_image,
    check_images as check_images,
    decode_image as decode_image,
    read_image as read_image,
)
from kerascv_d2l.data.kaggle import (
    generate_kaggle as generate_kaggle,
    read_csv_labels as read_csv_labels,
    reorg_cifar10_data as reorg_cifar10_data,
    reorg_dog_data as reorg_dog_data,
    reorg_test as reorg_test,
    reorg_train_valid as reorg_train_valid,
    write_submission as write_submission,
)
from kerascv_d2l.data.load import (
    load as load,
)
from kerascv_d2l.data.prepared import (
    read_prepared as read_prepared,
)
from kerascv_d2l.data.splits import (
    DataSet as DataSet,
    Split as Split,
    keep_largest_object as keep_largest_object,
)
from kerascv_d2l.data.voc_classes import (
    VOC_CLASSES as VOC_CLASSES,
    VOC_COLORMAP as VOC_COLORMAP,
)
from kerascv_d2l.devices import (
    resolve_jit_compile as resolve_jit_compile,
)
from kerascv_d2l.errors import (
    InputError as InputError,
)
from kerascv_d2l.explain.attention import (
    attention_map as attention_map,
)
from kerascv_d2l.explain.cam import (
    cam as cam,
    grad_cam as grad_cam,
    grad_cam_plus_plus as grad_cam_plus_plus,
    layer_cam as layer_cam,
)
from kerascv_d2l.explain.gradients import (
    integrated_gradients as integrated_gradients,
    saliency as saliency,
    smooth_grad as smooth_grad,
)
from kerascv_d2l.explain.inside import (
    class_visualization as class_visualization,
    feature_maps as feature_maps,
    first_layer_filters as first_layer_filters,
)
from kerascv_d2l.explain.neighbours import (
    image_features as image_features,
    nearest_neighbours as nearest_neighbours,
    pca as pca,
    tsne as tsne,
)
from kerascv_d2l.explain.occlusion import (
    occlusion as occlusion,
)
from kerascv_d2l.explain.sanity import (
    sanity_check as sanity_check,
)
from kerascv_d2l.explain.subject import (
    Subject as Subject,
    onto_image as onto_image,
    share_inside as share_inside,
)
from kerascv_d2l.explain.windows import (
    slide as slide,
)
from kerascv_d2l.export import (
    load_model as load_model,
)
from kerascv_d2l.files import (
    whole as whole,
)
from kerascv_d2l.initializers import (
    Bilinear as Bilinear,
)
from kerascv_d2l.layers import (
    BatchNorm as BatchNorm,
    DetectionDecoder as DetectionDecoder,
)
from kerascv_d2l.layers.augmentation import (
    ColorJitter as ColorJitter,
    Compose as Compose,
    Mosaic as Mosaic,
    RandomHorizontalFlip as RandomHorizontalFlip,
    RandomIoUCrop as RandomIoUCrop,
    RandomResizedCrop as RandomResizedCrop,
    RandomScaleCrop as RandomScaleCrop,
    RandomShift as RandomShift,
    RandomVerticalFlip as RandomVerticalFlip,
    RandomZoomOut as RandomZoomOut,
    classification_augmentation as classification_augmentation,
    flip_augmentation as flip_augmentation,
    flip_color_augmentation as flip_color_augmentation,
    mosaic_augmentation as mosaic_augmentation,
    segmentation_augmentation as segmentation_augmentation,
    small_augmentation as small_augmentation,
    ssd_augmentation as ssd_augmentation,
)
from kerascv_d2l.layers.spectral_norm import (
    SpectralNormalization as SpectralNormalization,
)
from kerascv_d2l.layers.upsampling import (
    BilinearUpsampling as BilinearUpsampling,
    TransposedUpsampling as TransposedUpsampling,
)
from kerascv_d2l.losses.detection import (
    SSDLoss as SSDLoss,
    smooth_l1 as smooth_l1,
)
from kerascv_d2l.losses.generation import (
    ADVERSARIAL_LOSSES as ADVERSARIAL_LOSSES,
    RECONSTRUCTION_LOSSES as RECONSTRUCTION_LOSSES,
    discriminator_loss as discriminator_loss,
    gaussian_kl as gaussian_kl,
    generator_loss as generator_loss,
    gradient_penalty as gradient_penalty,
    reconstruction_loss as reconstruction_loss,
)
from kerascv_d2l.losses.regions import (
    ciou_loss as ciou_loss,
    distribution_focal_loss as distribution_focal_loss,
    giou_loss as giou_loss,
    quality_focal_loss as quality_focal_loss,
    sigmoid_focal_loss as sigmoid_focal_loss,
)
from kerascv_d2l.losses.segmentation import (
    SegmentationCrossEntropy as SegmentationCrossEntropy,
)
from kerascv_d2l.metrics.callbacks import (
    GenerationCallback as GenerationCallback,
    MeanAveragePrecisionCallback as MeanAveragePrecisionCallback,
    SegmentationCallback as SegmentationCallback,
)
from kerascv_d2l.metrics.classification import (
    classification_metrics as classification_metrics,
    evaluate_classification as evaluate_classification,
    worst_images as worst_images,
)
from kerascv_d2l.metrics.detection import (
    DetectionEvaluator as DetectionEvaluator,
    bbox_eval as bbox_eval,
    cls_eval as cls_eval,
    evaluate_detections as evaluate_detections,
)
from kerascv_d2l.metrics.divergences import (
    f_divergence as f_divergence,
    js_divergence as js_divergence,
    kl_divergence as kl_divergence,
    kl_of_gaussians as kl_of_gaussians,
)
from kerascv_d2l.metrics.generation import (
    FeatureScores as FeatureScores,
    frechet_distance as frechet_distance,
    frechet_distance_of_gaussians as frechet_distance_of_gaussians,
    inception_score as inception_score,
    kernel_distance as kernel_distance,
)
from kerascv_d2l.metrics.localization import (
    evaluate_localization as evaluate_localization,
)
from kerascv_d2l.metrics.segmentation import (
    SegmentationMetrics as SegmentationMetrics,
    evaluate_segmentation as evaluate_segmentation,
    pixel_accuracy as pixel_accuracy,
)
from kerascv_d2l.models.autoencoder import (
    VAE as VAE,
    Autoencoder as Autoencoder,
)
from kerascv_d2l.models.backbones import (
    backbone as backbone,
    check_weights as check_weights,
    imagenet_classifier as imagenet_classifier,
)
from kerascv_d2l.models.classifier import (
    Classifier as Classifier,
)
from kerascv_d2l.models.common import (
    in_float32 as in_float32,
)
from kerascv_d2l.models.detector import (
    Detector as Detector,
)
from kerascv_d2l.models.detr import (
    DETR as DETR,
)
from kerascv_d2l.models.fast_rcnn import (
    FastRCNN as FastRCNN,
)
from kerascv_d2l.models.faster_rcnn import (
    FasterRCNN as FasterRCNN,
)
from kerascv_d2l.models.fcn import (
    FCN as FCN,
)
from kerascv_d2l.models.fcos import (
    FCOS as FCOS,
)
from kerascv_d2l.models.fpn import (
    FPN as FPN,
    feature_pyramid as feature_pyramid,
)
from kerascv_d2l.models.gan import (
    GAN as GAN,
)
from kerascv_d2l.models.generator import (
    ImageGenerator as ImageGenerator,
    walk as walk,
)
from kerascv_d2l.models.localizer import (
    Localizer as Localizer,
)
from kerascv_d2l.models.mask_rcnn import (
    MaskRCNN as MaskRCNN,
)
from kerascv_d2l.models.registry import (
    DETECTORS as DETECTORS,
    ON_FOLDERS as ON_FOLDERS,
    Recipe as Recipe,
    backbone_of as backbone_of,
    check_network as check_network,
    create_detector as create_detector,
    detector_class as detector_class,
    detector_recipe as detector_recipe,
    epochs_for as epochs_for,
)
from kerascv_d2l.models.resnet import (
    ResNet18 as ResNet18,
    ResNet34 as ResNet34,
    resnet18_small as resnet18_small,
)
from kerascv_d2l.models.retinanet import (
    RetinaNet as RetinaNet,
)
from kerascv_d2l.models.segmenter import (
    Segmenter as Segmenter,
    window_starts as window_starts,
)
from kerascv_d2l.models.sliding import (
    SlidingClassifier as SlidingClassifier,
)
from kerascv_d2l.models.ssd import (
    SSD as SSD,
    TinySSD as TinySSD,
    base_net as base_net,
    bbox_predictor as bbox_predictor,
    cls_predictor as cls_predictor,
    concat_preds as concat_preds,
    down_sample_blk as down_sample_blk,
)
from kerascv_d2l.models.transformer_net import (
    TransformerNet as TransformerNet,
)
from kerascv_d2l.models.unet import (
    UNet as UNet,
)
from kerascv_d2l.models.vgg import (
    vgg19_features as vgg19_features,
)
from kerascv_d2l.models.yolo1 import (
    YOLO1 as YOLO1,
)
from kerascv_d2l.ops.anchor_choice import (
    choose_image_size as choose_image_size,
)
from kerascv_d2l.ops.anchors import (
    multibox_prior as multibox_prior,
    offset_boxes as offset_boxes,
    offset_inverse as offset_inverse,
)
from kerascv_d2l.ops.box_coding import (
    decode_boxes as decode_boxes,
    encode_boxes as encode_boxes,
)
from kerascv_d2l.ops.box_merging import (
    merge_boxes as merge_boxes,
    vote_boxes as vote_boxes,
)
from kerascv_d2l.ops.boxes import (
    box_center_to_corner as box_center_to_corner,
    box_corner_to_center as box_corner_to_center,
    box_iou as box_iou,
)
from kerascv_d2l.ops.color import (
    adjust_brightness as adjust_brightness,
    adjust_contrast as adjust_contrast,
    adjust_hue as adjust_hue,
    adjust_saturation as adjust_saturation,
    normalize as normalize,
)
from kerascv_d2l.ops.convolution import (
    bilinear_kernel as bilinear_kernel,
    corr2d as corr2d,
    kernel2matrix as kernel2matrix,
    trans_conv as trans_conv,
)
from kerascv_d2l.ops.geometry import (
    crop_and_resize as crop_and_resize,
    crop_boxes as crop_boxes,
    crop_mask as crop_mask,
    flip_left_right as flip_left_right,
    flip_up_down as flip_up_down,
    random_window as random_window,
    resize_and_center_crop as resize_and_center_crop,
    resized_size as resized_size,
)
from kerascv_d2l.ops.iou import (
    complete_iou as complete_iou,
    generalized_iou as generalized_iou,
)
from kerascv_d2l.ops.mask_pasting import (
    paste_masks as paste_masks,
)
from kerascv_d2l.ops.matching import (
    assign_anchor_to_bbox as assign_anchor_to_bbox,
    multibox_target as multibox_target,
)
from kerascv_d2l.ops.nms import (
    multibox_detection as multibox_detection,
    nms as nms,
)
from kerascv_d2l.ops.position_sensitive import (
    ps_roi_align as ps_roi_align,
    ps_roi_pool as ps_roi_pool,
)
from kerascv_d2l.ops.pyramid_anchors import (
    pyramid_anchors as pyramid_anchors,
)
from kerascv_d2l.ops.region_matching import (
    match_by_iou as match_by_iou,
    sample_balanced as sample_balanced,
)
from kerascv_d2l.ops.resize import (
    resize as resize,
)
from kerascv_d2l.ops.rle import (
    decode_masks as decode_masks,
    encode_masks as encode_masks,
)
from kerascv_d2l.ops.roi import (
    multilevel_roi_align as multilevel_roi_align,
    pyramid_levels as pyramid_levels,
    roi_align as roi_align,
    roi_pool as roi_pool,
    spatial_pyramid_pooling as spatial_pyramid_pooling,
)
from kerascv_d2l.ops.segmentation import (
    class_map as class_map,
    confusion_matrix as confusion_matrix,
)
from kerascv_d2l.ops.upsampling import (
    bilinear_upsampling as bilinear_upsampling,
    transposed_upsampling as transposed_upsampling,
)
from kerascv_d2l.plotting.book import (
    apply as apply,
    bbox_to_rect as bbox_to_rect,
    show_bboxes as show_bboxes,
    show_images as show_images,
)
from kerascv_d2l.plotting.classification import (
    draw_confusion as draw_confusion,
    draw_mistakes as draw_mistakes,
)
from kerascv_d2l.plotting.curves import (
    draw_curves as draw_curves,
    draw_history as draw_history,
)
from kerascv_d2l.plotting.detections import (
    draw_boxes as draw_boxes,
    draw_detections as draw_detections,
)
from kerascv_d2l.plotting.explanations import (
    draw_feature_maps as draw_feature_maps,
    draw_filters as draw_filters,
    draw_images as draw_images,
    draw_maps as draw_maps,
    draw_points as draw_points,
    heat_overlay as heat_overlay,
)
from kerascv_d2l.plotting.generation import (
    draw_animation as draw_animation,
    draw_tiles as draw_tiles,
)
from kerascv_d2l.plotting.instances import (
    overlay_instances as overlay_instances,
)
from kerascv_d2l.plotting.segmentation import (
    draw_segmentation as draw_segmentation,
)
from kerascv_d2l.rcnn.model import (
    RCNN as RCNN,
    RCNNSettings as RCNNSettings,
)
from kerascv_d2l.rcnn.selective_search import (
    selective_search as selective_search,
)
from kerascv_d2l.style_transfer import (
    LossWeights as LossWeights,
    Style as Style,
    StyleTransfer as StyleTransfer,
)
from kerascv_d2l.training.callbacks import (
    SampleSheets as SampleSheets,
)
from kerascv_d2l.training.cluster import (
    MultiWorkerStrategy as MultiWorkerStrategy,
    make_multi_worker_strategy as make_multi_worker_strategy,
)
from kerascv_d2l.training.curves import (
    LiveCurves as LiveCurves,
)
from kerascv_d2l.training.devices import (
    evaluation_batch_size as evaluation_batch_size,
    evaluation_batches as evaluation_batches,
    make_strategy as make_strategy,
    synchronize_batch_norm as synchronize_batch_norm,
)
from kerascv_d2l.training.divergence import (
    explain_by_batches as explain_by_batches,
)
from kerascv_d2l.training.features import (
    FEATURES_FILE as FEATURES_FILE,
    feature_scores as feature_scores,
    load_features as load_features,
    network_features as network_features,
    train_features as train_features,
)
from kerascv_d2l.training.fingerprints import (
    fingerprint as fingerprint,
)
from kerascv_d2l.training.keeping import (
    AverageWeights as AverageWeights,
    KeepBest as KeepBest,
)
from kerascv_d2l.training.optimizers import (
    LogRates as LogRates,
    freeze as freeze,
    group_rates as group_rates,
    layer_rates as layer_rates,
    make_optimizer as make_optimizer,
    mean_loss_rates as mean_loss_rates,
    unfreeze as unfreeze,
)
from kerascv_d2l.training.run import (
    Run as Run,
)
