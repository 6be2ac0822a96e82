# %% [markdown] tags=["en"]
# # The object detection data set
#
# A detector learns from images with boxes. The book made a small set for this: 1000 images of 256 × 256 pixels, each
# with one banana at a random place, and 100 to validate on. This notebook reads such data: generated, the book's, your
# own.
#
# It goes with section 14.6 of *Dive into Deep Learning* (13.6 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 目标检测数据集
#
# 检测器从带有边界框的图像中学习。书中为此制作了一个小数据集：1000 张 256 × 256 像素的图像，
# 每张在随机位置有一个香蕉，另有 100 张用于验证。本笔记本读取这样的数据：程序生成的、书中的、你自己的。
#
# 本笔记本对应《动手学深度学习》英文版 14.6 节，中文版 13.6 节。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

# %% [markdown] tags=["en"]
# ## One door to all data
#
# `load` returns a `DataSet` with class names and two splits, `train` and `val`, whatever the source is. A split holds
# the images, and for each image the boxes, their classes, and whether an object is to be ignored.
#
# - `d2l.load("generated", "detection")`: drawn by the computer, no download;
# - `d2l.load("banana_detection", "detection")`: the book's data, downloaded once. This line runs the notebook on it;
# - `d2l.load("my_folder", "detection")`: your own. Pascal VOC, COCO, YOLO and other layouts are recognised.

# %% [markdown] tags=["zh"]
# ## 读取数据的统一入口
#
# 不论数据来自哪里，`load` 都返回一个 `DataSet`，其中有类别名称和 `train`、`val` 两部分。
# 每一部分有图像，以及每张图像的边界框、类别和是否忽略该物体。
#
# - `d2l.load("generated", "detection")`：由程序生成，不需要下载；
# - `d2l.load("banana_detection", "detection")`：书中的数据集，下载一次。用这一行就可以在它上面运行本笔记本；
# - `d2l.load("my_folder", "detection")`：你自己的数据。Pascal VOC、COCO、YOLO 等格式会自动识别。

# %%
data = d2l.load("generated", "detection", num_train=64, num_val=16, num_classes=3, image_size=256)
print("classes:", data.class_names)
print("training images:", data.train.images.shape, data.train.images.dtype)
for name in ("boxes", "classes", "ignore"):
    print(f"{name} of image 0:", data.train.targets[name][0].tolist())

# %% [markdown] tags=["en"]
# ## Batches
#
# Images have different numbers of objects, but a tensor needs rows of one length. `batches` fills up with rows of -1;
# class -1 takes part in nothing, not in matching, not in losses, not in metrics.

# %% [markdown] tags=["zh"]
# ## 批量
#
# 各图像的物体数目不同，而张量的每一行必须一样长。`batches` 用 -1 填充；类别为 -1 的行不参与任何计算：
# 不参与匹配，不计入损失，也不计入度量。

# %%
train = d2l.batches(data.train, 256, 32, training=True, seed=0)
images, labels = next(iter(train))
print("images:", images.shape, images.dtype.name)
for name, values in labels.items():
    print(f"{name}:", values.shape, values.dtype.name)
print("classes of the first images, padded:")
print(labels["classes"].numpy()[:3])

# %% tags=["check"]
assert images.shape == (32, 256, 256, 3) and labels["boxes"].shape == (32, 4, 4)
assert (labels["classes"].numpy() == -1).any()
assert ((labels["boxes"].numpy() == -1).all(-1) == (labels["classes"].numpy() == -1)).all()

# %% [markdown] tags=["en"]
# The book's batch of 32 has images `(32, 3, 256, 256)` and labels `(32, 1, 5)`, rows of class and box.
# `d2l.load_data_bananas(32)` gives the same, but channels last, as TensorFlow has images: `(32, 256, 256, 3)`. Detectors
# of this package take either kind of labels.

# %% [markdown] tags=["zh"]
# 书中批量大小为 32，图像形状是 `(32, 3, 256, 256)`，标签是 `(32, 1, 5)`，每行为类别和边界框。
# `d2l.load_data_bananas(32)` 给出同样的数据，但通道在最后，这是 TensorFlow 的习惯：`(32, 256, 256, 3)`。
# 本软件包的检测器两种标签都接受。

# %% [markdown] tags=["en"]
# ## Look at the data
#
# Always look at a batch before training: wrong boxes do not raise an error, they only make a bad detector.

# %% [markdown] tags=["zh"]
# ## 查看数据
#
# 训练之前一定要看一个批量：边界框错了不会报错，只会得到很差的检测器。

# %%
axes = d2l.show_images(images[:8].numpy(), 2, 4, scale=2.2)
for axis, boxes, classes in zip(
    axes, labels["boxes"].numpy(), labels["classes"].numpy(), strict=False
):
    real = classes >= 0
    d2l.show_bboxes(axis, boxes[real] * 256, [data.class_names[k] for k in classes[real]])
plt.tight_layout()
plt.show()

# %% [markdown] tags=["en"]
# What to see: one to four objects, some partly hidden or at the border, and some images with none. The box goes around
# the whole object, hidden parts included. Bars, ellipses and wedges are clutter: no objects.
#
# Where are the objects and how large are they? Anchors have to fit that.

# %% [markdown] tags=["zh"]
# 看什么：图像上有一到四个物体，有些被部分遮挡或在边缘，也有没有物体的图像。
# 边界框包住整个物体，包括被遮住的部分。长条、椭圆和楔形是干扰物，不是目标。
#
# 物体在哪里、有多大？锚框要与此相符。

# %%
boxes = np.concatenate(data.train.targets["boxes"])
centers = d2l.box_corner_to_center(boxes).numpy()
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
axes[0].scatter(centers[:, 0], centers[:, 1], s=12)
axes[0].set(xlim=(0, 1), ylim=(1, 0), xlabel="x", ylabel="y", title="centres, shares of the image")
axes[1].scatter(centers[:, 2], centers[:, 3], s=12)
axes[1].plot([0, 0.8], [0, 0.8], color="grey", linestyle="--", label="squares")
axes[1].set(xlabel="width", ylabel="height", title="sizes, shares of the image")
axes[1].legend()
plt.show()

# %% [markdown] tags=["en"]
# ## Augmentation moves the boxes too
#
# A layer of this package takes images and boxes together. Here SSD's random crop: objects whose centre is cut away get
# class -1.

# %% [markdown] tags=["zh"]
# ## 增广时边界框也要移动
#
# 本软件包的增广层同时处理图像和边界框。下面是 SSD 的随机裁剪：中心被裁掉的物体，类别变为 -1。

# %%
example = {
    "images": data.train.images[0],
    "bounding_boxes": {
        "boxes": data.train.targets["boxes"][0],
        "labels": data.train.targets["classes"][0],
    },
}
crop = d2l.RandomIoUCrop(256, seed=1)
results = [example] + [crop(example) for _ in range(3)]
axes = d2l.show_images([np.asarray(r["images"]) for r in results], 1, 4, scale=2.4)
for axis, result in zip(axes, results, strict=True):
    shown = np.asarray(result["bounding_boxes"]["labels"]) >= 0
    d2l.show_bboxes(axis, np.asarray(result["bounding_boxes"]["boxes"])[shown] * 256)
    axis.set_title("the image" if result is example else "a crop")
plt.show()

# %% [markdown] tags=["en"]
# What the book does differently: it reads all images and labels into two lists, and knows one object an image. Here
# files are read as they are needed, objects may be many or none, and a broken file or a box outside its image is an
# error that names the file.

# %% [markdown] tags=["zh"]
# 与书的不同：书中把所有图像和标签读入两个列表，每张图像只有一个物体。
# 这里需要时才读取文件，物体可以有很多，也可以没有；文件损坏或边界框超出图像时会报错并指出文件。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. How many objects of each class are there, and how many images without any?
# 2. Flip a batch left to right with its boxes, and check the boxes by hand.
# 3. What does `Split` say about a box whose corners are in the wrong order?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 每个类别各有多少个物体？有多少张图像没有物体？
# 2. 把一个批量连同边界框左右翻转，并手工检查边界框。
# 3. 如果边界框两个角的顺序颠倒，`Split` 会怎么说？
#
# 答案：

# %%
counts = data.train.counts(len(data.class_names))
empty = sum(len(rows) == 0 for rows in data.train.targets["boxes"])
print("1.", dict(zip(data.class_names, counts.tolist(), strict=True)), "without any:", empty)

both = {"images": images, "bounding_boxes": {"boxes": labels["boxes"], "labels": labels["classes"]}}
moved = d2l.RandomHorizontalFlip(p=1)(both)["bounding_boxes"]["boxes"].numpy()
x_min, y_min, x_max, y_max = np.moveaxis(labels["boxes"].numpy(), -1, 0)
by_hand = np.stack([1 - x_max, y_min, 1 - x_min, y_max], axis=-1)
real = labels["classes"].numpy() >= 0
print("2. equal:", np.allclose(moved[real], by_hand[real], atol=1e-6))

try:
    wrong = {"boxes": [[[0.5, 0.1, 0.2, 0.9]]], "classes": [[0]]}
    d2l.Split(images[:1].numpy().astype(np.uint8), wrong, ["image.png"])
except d2l.InputError as error:
    print("3.", error)

# %% tags=["check"]
assert np.allclose(moved[real], by_hand[real], atol=1e-6)
