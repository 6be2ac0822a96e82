# %% [markdown] tags=["en"]
# # Fully convolutional networks
#
# A classifier ends in a small map of features, from which it computes one answer for the image. A **fully convolutional
# network** (FCN) computes one for each pixel: a 1 × 1 convolution turns the features into class scores, at each place
# of the small map; a transposed convolution enlarges the scores to the size of the image. There is no dense layer, so
# images of any size will do.
#
# This notebook goes with section 14.11 of *Dive into Deep Learning* (13.11 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 全卷积网络
#
# 图像分类网络的最后是一张小的特征图，由它为整张图像算出一个答案。**全卷积网络**（FCN）为每个像素算一个答案：
# 1 × 1 卷积把特征变成小特征图上每个位置的类别得分，转置卷积再把得分放大到图像的大小。
# 网络里没有全连接层，所以任何大小的图像都可以输入。
#
# 本笔记本对应《动手学深度学习》14.11 节（中文版 13.11 节）。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

import kerascv_d2l as d2l
from kerascv_d2l.plotting.segmentation import color_classes

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## The network
#
# The book takes ResNet-18 without its last two layers. Its feature map is 32 times smaller than the image: the book's
# 320 × 480 become 10 × 15, with 512 channels. VOC has 21 classes. The transposed convolution has stride 32, kernel
# size 64, and starts as bilinear interpolation (notebook 10).

# %% [markdown] tags=["zh"]
# ## 网络
#
# 书中使用去掉最后两层的 ResNet-18。它的特征图是图像的 1/32：书中的 320 × 480 变成 10 × 15，有 512 个通道。
# VOC 有 21 个类别。转置卷积的步幅为 32、卷积核大小为 64，用双线性插值初始化（见笔记本 10）。

# %%
net = d2l.FCN(d2l.VOC_CLASSES, "resnet18", stride=32)  # the book's network
features = net.get_layer("score32").input
size = keras.Model(net.input, features).compute_output_shape((1, 320, 480, 3))
print("features", size[1:], "  book: (10, 15, 512)")
print("scores  ", net.compute_output_shape((1, 320, 480, 3))[1:], "  book: (320, 480, 21)")

# %% tags=["check"]
assert size[1:] == (10, 15, 512)
assert net.compute_output_shape((1, 320, 480, 3))[1:] == (320, 480, 21)

# %% [markdown] tags=["en"]
# ## The loss
#
# Cross-entropy, as for images, at each pixel, and the mean over all pixels that are not ignored. With $p_{ij}$ the
# softmax of the scores at pixel $(i, j)$ and $y_{ij}$ its class:
#
# $$L = -\frac{1}{\#\{(i, j)\}} \sum_{(i, j)} \log p_{ij}(y_{ij})$$
#
# The book takes the mean over the pixels of an image too, but the *sum* over the images of a batch, and its rates are
# for that sum. For the mean over a batch of 32:

# %% [markdown] tags=["zh"]
# ## 损失函数
#
# 和图像分类一样用交叉熵，只是在每个像素上计算，再对所有未被忽略的像素取平均。设 $p_{ij}$ 是像素 $(i, j)$
# 处得分的 softmax，$y_{ij}$ 是它的类别：
#
# $$L = -\frac{1}{\#\{(i, j)\}} \sum_{(i, j)} \log p_{ij}(y_{ij})$$
#
# 书中也对一张图像的像素取平均，但对批量中的图像求*和*，学习率和权重衰减是针对这个和的。换成对批量（32 张）取平均：

# %%
rate, decay = d2l.mean_loss_rates(1e-3, 1e-3, batch_size=32)
print(f"book: rate 0.001, decay 0.001 (sum)   here: rate {rate:.3g}, decay {decay:.3g} (mean)")

# %% tags=["check"]
assert f"{rate:.3g}" == "0.032" and f"{decay:.2g}" == "3.1e-05"

# %% [markdown] tags=["en"]
# ## Training
#
# The book fine-tunes ImageNet weights: `d2l.FCN(data.class_names, "resnet18", weights="imagenet")`. Here nothing is
# downloaded, so the network starts from random weights, and three things differ from the book:
#
# - scores are also read from finer maps (stride 16 and 8) and added: *FCN-8s*, from the paper that FCN comes from. It
#   draws finer outlines;
# - Adam along a cosine in place of SGD, which from random weights would need many more epochs;
# - generated scenes. The line for the book's data and its recipe is
#   `python scripts/train_segmenter.py --data voc2012_segmentation --model fcn32 --weights imagenet --recipe book --epochs 5`:
#   the book's runs end at pixel accuracy 0.86 (training) and 0.85 (validation).

# %% [markdown] tags=["zh"]
# ## 训练
#
# 书中微调 ImageNet 上预训练的权重：`d2l.FCN(data.class_names, "resnet18", weights="imagenet")`。
# 这里不下载任何东西，网络从随机权重开始，所以有三处与书中不同：
#
# - 还从更细的特征图（步幅 16 和 8）上读取得分并相加，即提出 FCN 的那篇论文里的 *FCN-8s*，轮廓更精细；
# - 用 Adam 和余弦学习率代替 SGD：从随机权重开始，SGD 需要多得多的迭代周期；
# - 使用程序生成的图像。在书中的数据集上按书中的设置运行只需这一行：
#   `python scripts/train_segmenter.py --data voc2012_segmentation --model fcn32 --weights imagenet --recipe book --epochs 5`；
#   书中的像素精度是 0.86（训练）和 0.85（验证）。

# %%
num_train, num_val, epochs = 800, 40, 6  # quick: 16, 6, 1
crop_size, batch_size = (64, 64), 8
data = d2l.load(
    "generated",
    "segmentation",
    num_train=num_train,
    num_val=num_val,
    num_classes=4,
    image_size=crop_size,
    scenes="one",
)
train = d2l.batches(
    data.train,
    crop_size,
    batch_size,
    training=True,
    transform=d2l.segmentation_augmentation(crop_size, "flip"),
)
steps = d2l.steps_per_epoch(data.train, batch_size)
model = d2l.FCN(data.class_names, "resnet18", stride=8, colors=data.colors)
model.compile(
    d2l.make_optimizer("adam", 1e-3, schedule="cosine", steps=steps * epochs, weight_decay=1e-4),
    d2l.SegmentationCrossEntropy(),
    metrics=[d2l.SegmentationMetrics(len(data.class_names), ignored_as=None)],
    jit_compile=d2l.resolve_jit_compile("auto"),
)
segment = d2l.Segmenter(model)
measure = d2l.SegmentationCallback(segment, d2l.whole_images(data.val), data.class_names)
history = model.fit(
    train,
    epochs=epochs,
    steps_per_epoch=steps,
    callbacks=[measure, d2l.LiveCurves()],
    shuffle=False,  # the batches are shuffled already
    verbose=0,
).history
result = d2l.evaluate_segmentation(segment, d2l.whole_images(data.val), data.class_names)
print(f"pixel accuracy {result['pixel_accuracy']:.3f}, mean IoU {result['mean_iou']:.3f}")

# %% tags=["check-full"]
assert result["mean_iou"] > 0.4 and result["pixel_accuracy"] > 0.75

# %% [markdown] tags=["en"]
# ## Prediction
#
# The class of a pixel is that with the highest score. `Segmenter` does it for images of any size: large ones go
# through the network in windows that overlap, and where they overlap the scores are averaged.

# %% [markdown] tags=["zh"]
# ## 预测
#
# 像素的类别就是得分最高的类别。`Segmenter` 可以处理任何大小的图像：大图像被分成有重叠的窗口依次输入网络，
# 重叠处的得分取平均。

# %%
images, truths = zip(*d2l.whole_images(data.val, range(6)).as_numpy_iterator())
predictions = [segment(image).numpy() for image in images]
shown = [
    *images,
    *(color_classes(classes, data.colors) for classes in predictions),
    *(color_classes(classes, data.colors) for classes in truths),
]
axes = d2l.show_images(shown, 3, 6, scale=1.6)
for row, title in enumerate(("image", "prediction", "truth")):
    axes[6 * row].set_title(title, loc="left")
patches = [
    Patch(color=color / 255, label=name) for color, name in zip(data.colors, data.class_names)
]
plt.gcf().legend(handles=patches, ncols=len(patches), loc="lower center")
plt.show()
for name, iou in result["iou_by_class"].items():
    print(f"IoU of {name:12} {iou:.2f}")

# %% [markdown] tags=["en"]
# What to see: large shapes are found where they are, but corners are rounded. A score is computed for squares of
# 8 × 8 pixels only and then interpolated, so nothing finer than that can appear. The background, which is easy, has the
# best IoU; that is why the pixel accuracy looks so much better than the mean IoU.
#
# ## Exercises
#
# 1. Which part of the network's weights are in the transposed convolution of the book's network? Is that much?
# 2. Feed an image whose sides 32 does not divide. What happens?
# 3. Start the transposed convolutions from random weights instead. What do the scores look like before training?

# %% [markdown] tags=["zh"]
# 看什么：大的形状位置正确，但尖角被磨圆了。得分只为 8 × 8 像素的方块计算，然后插值，所以不可能出现更细的结构。
# 背景最容易，交并比最高；像素精度看上去比平均交并比好得多，原因就在这里。
#
# ## 练习
#
# 1. 书中网络的转置卷积占了多少权重？多吗？
# 2. 输入一张边长不能被 32 整除的图像，会怎样？
# 3. 如果转置卷积用随机权重初始化，训练前的得分是什么样子？

# %% [markdown] tags=["en"]
# **Answers.** 1. Its kernel is 64 × 64 × 21 × 21, which is 14 % of all weights. That is a lot for what starts as an
# interpolation: `d2l.FCN(…, trainable_upsampling=False)` has none, and is faster.

# %% [markdown] tags=["zh"]
# **答案。** 1. 它的卷积核是 64 × 64 × 21 × 21，占全部权重的 14 %。对一个从插值开始的层来说这很多；
# `d2l.FCN(…, trainable_upsampling=False)` 不用这些权重，而且更快。

# %%
kernel = net.get_layer("enlarge_to1").count_params()
print(f"{kernel:,} of {net.count_params():,}: {kernel / net.count_params():.0%}")

# %% tags=["check"]
assert f"{kernel / net.count_params():.0%}" == "14%"

# %% [markdown] tags=["en"]
# 2. It is padded, and the scores are cropped: they have the image's size.

# %% [markdown] tags=["zh"]
# 2. 图像被填充，得分再裁剪回来：大小与图像相同。

# %%
print(model(np.zeros((1, 50, 77, 3), np.uint8)).shape)

# %% tags=["check"]
assert model(np.zeros((1, 50, 77, 3), np.uint8)).shape == (1, 50, 77, 5)

# %% [markdown] tags=["en"]
# 3. The scores of class 0 for one image, from two networks that have learned nothing yet:

# %% [markdown] tags=["zh"]
# 3. 两个尚未训练的网络对同一张图像给出的类别 0 的得分：

# %%
fresh = d2l.FCN(data.class_names, "resnet18", stride=32)
smooth = fresh(images[0][None])[0, :, :, 0]
kernel, bias = fresh.get_layer("enlarge_to1").get_weights()
random = keras.initializers.GlorotUniform(0)(kernel.shape)
fresh.get_layer("enlarge_to1").set_weights([random, bias])
figure, axes = plt.subplots(1, 2, figsize=(6, 3), layout="constrained")
for axis, scores, title in (
    (axes[0], smooth, "bilinear kernel"),
    (axes[1], fresh(images[0][None])[0, :, :, 0], "random kernel"),
):
    axis.imshow(scores, cmap="viridis")
    axis.set(title=title, xlabel="x in pixels")
axes[0].set_ylabel("y in pixels")
plt.show()
