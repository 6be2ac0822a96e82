# %% [markdown] tags=["en"]
# # Semantic segmentation and its data set
#
# A detector says where an object is with a box. A box holds ground, too, and other objects. **Semantic segmentation**
# gives a class to every pixel: the answer is an image of class numbers, as high and as wide as the input. Class 0 is
# the background.
#
# It says *what* each pixel is, not *whose*: two cats side by side are one area of "cat". Keeping them apart is
# *instance segmentation*.
#
# This notebook goes with section 14.9 of *Dive into Deep Learning* (13.9 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 语义分割和数据集
#
# 目标检测用一个边界框说明物体在哪里，但框里还有背景和别的物体。**语义分割**给每个像素一个类别：
# 结果是一张由类别编号组成的图，高和宽与输入相同。类别 0 是背景。
#
# 它只说明每个像素*是什么*，不说明*属于哪一个*：两只挨着的猫会成为一整块“猫”。把它们分开的任务叫*实例分割*。
#
# 本笔记本对应《动手学深度学习》14.9 节（中文版 13.9 节）。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

import kerascv_d2l as d2l
from kerascv_d2l.plotting.segmentation import color_classes, overlay

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## Images and masks
#
# Generated scenes need no download: one or two large shapes of four kinds. The line for the book's data, Pascal VOC
# 2012 (2 GB, downloaded at first use), is `data = d2l.load("voc2012_segmentation", "segmentation")`; all that follows
# then runs on photographs.

# %% [markdown] tags=["zh"]
# ## 图像和掩码
#
# 程序生成的图像不需要下载：每张有一两个大的形状，共四种。在书中的数据集 Pascal VOC 2012 上运行只需把这一行换成
# `data = d2l.load("voc2012_segmentation", "segmentation")`（第一次使用时下载，约 2 GB），后面的代码不变。

# %%
num_train, num_val = 200, 20  # quick: 40, 8
data = d2l.load(
    "generated",
    "segmentation",
    num_train=num_train,
    num_val=num_val,
    num_classes=4,
    image_size=(120, 160),
    scenes="large",
)
print(data.describe())

# %% [markdown] tags=["en"]
# `data.train.image(k)` is an image, `data.train.mask(k)` its mask: a number for each pixel. For our eyes each number
# gets a colour.

# %% [markdown] tags=["zh"]
# `data.train.image(k)` 是图像，`data.train.mask(k)` 是它的掩码：每个像素一个编号。为了便于观看，给每个编号一种颜色。

# %%
chosen = range(5)
images = [data.train.image(k) for k in chosen]
masks = [data.train.mask(k) for k in chosen]
colored = [color_classes(mask, data.colors) for mask in masks]
overlays = [overlay(image, mask, data.colors) for image, mask in zip(images, masks)]
axes = d2l.show_images(images + colored + overlays, 3, 5, scale=1.8)
for k, title in enumerate(("image", "mask", "both")):
    axes[5 * k].set_title(title, loc="left")
patches = [
    Patch(color=color / 255, label=name) for color, name in zip(data.colors, data.class_names)
]
plt.gcf().legend(handles=patches, ncols=len(patches), loc="lower center")
plt.show()
print("rows 54 to 59, columns 112 to 125 of the first mask:")
print(masks[0][54:60, 112:126])

# %% [markdown] tags=["en"]
# What to see: the mask follows the outline of the shape to the pixel, and what hides a part of it is background.
#
# ## From colours to numbers
#
# VOC keeps its masks as colour images: `VOC_COLORMAP[k]` is the colour of `VOC_CLASSES[k]`. `voc_colormap2label` makes
# a table with an entry for each of the $256^3$ colours, at the place
#
# $$(\mathrm{red} \cdot 256 + \mathrm{green}) \cdot 256 + \mathrm{blue},$$
#
# and `voc_label_indices` looks all pixels of a mask up in it.

# %% [markdown] tags=["zh"]
# 看什么：掩码精确到像素地沿着形状的轮廓；被遮挡的部分属于背景。
#
# ## 从颜色到编号
#
# VOC 的掩码保存为彩色图像：`VOC_COLORMAP[k]` 是 `VOC_CLASSES[k]` 的颜色。`voc_colormap2label` 构造一张表，
# 为 $256^3$ 种颜色各留一项，位置是
#
# $$(\mathrm{red} \cdot 256 + \mathrm{green}) \cdot 256 + \mathrm{blue},$$
#
# `voc_label_indices` 用这张表查出掩码中所有像素的类别。

# %%
for k in (0, 1, 15, 20):
    print(k, d2l.VOC_CLASSES[k], d2l.VOC_COLORMAP[k])
table = d2l.voc_colormap2label()
in_colors = np.array(d2l.VOC_COLORMAP, np.uint8)[masks[0]]  # a mask as VOC has it
indices = d2l.voc_label_indices(in_colors, table)
print(
    "a table of",
    len(table),
    "entries; the same numbers as before:",
    np.array_equal(indices, masks[0]),
)

# %% tags=["check"]
assert len(d2l.VOC_CLASSES) == len(d2l.VOC_COLORMAP) == 21
assert d2l.VOC_CLASSES[1] == "aeroplane" and np.array_equal(indices, masks[0])
assert (np.asarray(d2l.voc_label_indices(np.array([[[224, 224, 192]]]), table)) == 255).all()

# %% [markdown] tags=["en"]
# The book prints `aeroplane` for class 1, too. In one thing its table differs: VOC draws a light border, colour
# (224, 224, 192), around its objects, where the people who drew the masks were not sure. The book's table has 0 there,
# background, because it never assigns that colour. Here it is 255: **ignored**, by the loss and by mean IoU. A network
# should not be punished for either answer where nobody knows.

# %% [markdown] tags=["zh"]
# 书中类别 1 也是 `aeroplane`。有一点不同：VOC 在物体周围画了一圈浅色边界，颜色是 (224, 224, 192)，
# 表示标注的人自己也不能确定。书中的表没有给这种颜色赋值，所以得到 0，即背景。这里是 255，即**忽略**：
# 损失和平均交并比都不计入这些像素。没有人知道答案的地方，网络怎么回答都不该受罚。

# %%
border = np.array([[[224, 224, 192]]], np.uint8)
print("book: 0   here:", int(d2l.voc_label_indices(border, table)[0, 0]))

# %% [markdown] tags=["en"]
# ## Crop, do not resize
#
# Batches need images of one size. A classifier's images are resized. A mask must not be: between class 0 and class 4
# interpolation invents 1, 2 and 3. So image and mask are **cropped**, both at the same random place.

# %% [markdown] tags=["zh"]
# ## 裁剪，而不是缩放
#
# 一个批量里的图像大小必须相同。做图像分类时可以缩放，掩码却不行：在类别 0 和类别 4 之间插值会凭空产生 1、2、3。
# 所以改用**随机裁剪**，图像和掩码裁剪同一个区域。

# %%
mask = np.array([[0, 0, 4, 4]] * 2, np.float32)
resized = keras.ops.image.resize(mask[..., None], (2, 8))[0, :, 0]
print("a row of a mask:       ", mask[0])
print("resized to twice width:", np.array(resized))

# %%
pairs = [d2l.voc_rand_crop(images[0], masks[0], 80, 100, seed=(0, k)) for k in range(5)]
windows = [np.asarray(image) for image, _ in pairs]
window_masks = [color_classes(window_mask, data.colors) for _, window_mask in pairs]
axes = d2l.show_images(windows + window_masks, 2, 5, scale=1.8)
axes[0].set_title("window of the image", loc="left")
axes[5].set_title("the same window of the mask", loc="left")
plt.show()

# %% tags=["check"]
assert {float(v) for v in np.array(resized)} == {0, 1, 3, 4}
assert all(image.shape == (80, 100, 3) for image in windows)

# %% [markdown] tags=["en"]
# ## Batches
#
# The book crops VOC's images to 320 × 480 and leaves out those that are smaller: 1114 images remain to train on and
# 1078 to validate on. `load_data_voc(batch_size, crop_size)` does that. `batches` is the same for any data set; it
# pads a smaller image instead, with pixels that are ignored, and also flips at random, image and mask together.

# %% [markdown] tags=["zh"]
# ## 批量
#
# 书中把 VOC 的图像裁剪为 320 × 480，去掉更小的图像，剩下 1114 张训练图像和 1078 张验证图像；
# `load_data_voc(batch_size, crop_size)` 就是这样做的。`batches` 适用于任何数据集：较小的图像会被填充，
# 填充的像素被忽略；它还会随机翻转，图像和掩码一起翻。

# %%
crop_size, batch_size = (96, 128), 8
train = d2l.batches(
    data.train,
    crop_size,
    batch_size,
    training=True,
    transform=d2l.segmentation_augmentation(crop_size, "flip"),
)
X, Y = next(iter(train))
print("images", X.shape, X.dtype.name, "  masks", Y.shape, Y.dtype.name)

# %% [markdown] tags=["en"]
# ## How good is "background everywhere"?
#
# Two measures are in use. **Pixel accuracy** is the share of pixels with the right class. **Mean IoU** computes for
# each class $k$
#
# $$\mathrm{IoU}_k = \frac{|T_k \cap P_k|}{|T_k \cup P_k|},$$
#
# where $T_k$ are the pixels whose true class is $k$ and $P_k$ those predicted as $k$, and takes the mean over the
# classes.

# %% [markdown] tags=["zh"]
# ## “全是背景”有多好？
#
# 常用的指标有两个。**像素精度**是类别正确的像素所占的比例。**平均交并比**先对每个类别 $k$ 计算
#
# $$\mathrm{IoU}_k = \frac{|T_k \cap P_k|}{|T_k \cup P_k|},$$
#
# 其中 $T_k$ 是真实类别为 $k$ 的像素，$P_k$ 是预测为 $k$ 的像素；再对所有类别取平均。

# %%
nothing = d2l.evaluate_segmentation(
    lambda image: np.zeros(image.shape[:2], np.int32), d2l.whole_images(data.val), data.class_names
)
print(f"pixel accuracy {nothing['pixel_accuracy']:.3f}, mean IoU {nothing['mean_iou']:.3f}")
shares = data.train.label_pixels[:5] / data.train.label_pixels.sum()
plt.figure(figsize=(5, 2.6))
plt.bar(data.class_names, shares)
plt.xlabel("class")
plt.ylabel("share of the training pixels")
plt.show()

# %% tags=["check-full"]
assert nothing["pixel_accuracy"] > 0.6 and nothing["mean_iou"] < 0.2

# %% [markdown] tags=["en"]
# What to see: most pixels are background, so an answer that finds nothing gets more than half of the pixels right, but
# less than 0.2 mean IoU. The book reports pixel accuracy (0.85 on VOC's validation images after its training), which
# counts the ignored borders as background. Steer by mean IoU.
#
# ## Exercises
#
# 1. Compute the mean IoU of "background everywhere" by hand from its pixel accuracy.
# 2. Which augmentations of notebook 01 may be used here, and on what?
# 3. Some classes have few pixels. How could the loss make up for it?

# %% [markdown] tags=["zh"]
# 看什么：大多数像素是背景，所以什么也没找到的回答也能答对一半以上的像素，而平均交并比不到 0.2。
# 书中报告的是像素精度（在 VOC 上训练后，验证集上为 0.85），而且把被忽略的边界算作背景。调模型时请看平均交并比。
#
# ## 练习
#
# 1. 根据“全是背景”的像素精度，手算它的平均交并比。
# 2. 笔记本 01 中的哪些图像增广可以用在这里？分别用在什么上？
# 3. 有些类别的像素很少，损失函数怎样弥补？

# %% [markdown] tags=["en"]
# **Answers.** 1. The IoU of background is its share of the pixels, which is the accuracy; that of the four other classes
# is 0; so the mean is a fifth of the accuracy.

# %% [markdown] tags=["zh"]
# **答案。** 1. 背景的交并比等于背景像素的比例，也就是精度；其余四类都是 0；所以平均值是精度的五分之一。

# %%
print(f"{nothing['pixel_accuracy'] / 5:.3f}, measured {nothing['mean_iou']:.3f}")

# %% tags=["check"]
assert abs(nothing["pixel_accuracy"] / 5 - nothing["mean_iou"]) < 1e-6

# %% [markdown] tags=["en"]
# 2. Colours change the image alone. Flips and crops must be done to both, with the same draw; a mask that is resized
# takes the nearest pixel, never a mean. A layer of this package does both when it gets both.

# %% [markdown] tags=["zh"]
# 2. 颜色变化只作用于图像。翻转和裁剪必须对图像和掩码做同样的随机变换；缩放掩码时只能取最近的像素，不能取平均。
# 本包的增广层同时得到图像和掩码时，会一起处理。

# %%
both = d2l.RandomHorizontalFlip(p=1.0)(
    {"images": images[0], "segmentation_masks": masks[0]}, training=True
)
flipped = np.asarray(both["segmentation_masks"])
print("flipped alike:", np.array_equal(flipped, masks[0][:, ::-1]))

# %% tags=["check"]
assert np.array_equal(flipped, masks[0][:, ::-1])

# %% [markdown] tags=["en"]
# 3. By weights that grow as a class gets rarer. `SegmentationCrossEntropy(class_weight=data.balancing_weights())` uses
# these:

# %% [markdown] tags=["zh"]
# 3. 类别越少见，权重越大。`SegmentationCrossEntropy(class_weight=data.balancing_weights())` 使用的权重如下：

# %%
for name, weight in zip(data.class_names, data.balancing_weights()):
    print(f"{name:12} {weight:.2f}")
