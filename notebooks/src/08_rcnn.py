# %% [markdown] tags=["en"]
# # Region-based CNNs (R-CNNs)
#
# SSD looks at all places once. Detectors of the **R-CNN family** look twice: first they propose regions that may hold
# an object, then they look at each region closely. Four steps of the family, each faster or richer than the one before:
#
# | detector | regions from | features of a region | result |
# |---|---|---|---|
# | R-CNN (2014) | selective search | network run on every crop | class, box |
# | Fast R-CNN (2015) | selective search | cut from **one** feature map: RoI pooling | class, box |
# | Faster R-CNN (2015) | the network itself: region proposal network | RoI pooling | class, box |
# | Mask R-CNN (2017) | region proposal network | RoI align | class, box, mask |
#
# This notebook goes with section 14.8 of *Dive into Deep Learning* (13.8 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 区域卷积神经网络（R-CNN）系列
#
# SSD 把所有位置看一遍。**R-CNN 系列**的检测器看两遍：先提议可能有物体的区域，再仔细看每个区域。
# 这个系列有四步，每一步都比前一步更快或者结果更丰富：
#
# | 检测器 | 区域来自 | 区域的特征 | 结果 |
# |---|---|---|---|
# | R-CNN（2014） | 选择性搜索 | 在每个裁剪块上运行网络 | 类别、边界框 |
# | Fast R-CNN（2015） | 选择性搜索 | 从**一个**特征图中取出：兴趣区域汇聚 | 类别、边界框 |
# | Faster R-CNN（2015） | 网络自己：区域提议网络 | 兴趣区域汇聚 | 类别、边界框 |
# | Mask R-CNN（2017） | 区域提议网络 | 兴趣区域对齐 | 类别、边界框、掩码 |
#
# 本笔记本对应《动手学深度学习》英文版 14.8 节，中文版 13.8 节。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l
from kerascv_d2l.rcnn.model import warp

keras.utils.set_random_seed(0)
SIDE = 64  # pixels of the images below
data = d2l.generate_detection(
    num_train=400, num_val=40, num_classes=2, image_size=SIDE, scenes="large"
)

# %% [markdown] tags=["en"]
# ## R-CNN: crop and warp
#
# R-CNN cuts each region out of the image, warps it to a square and runs a network on it. Selective search proposes about
# 2000 regions an image, which overlap: the network sees the same pixels hundreds of times. Here are the objects of an
# image and what the network gets of them. (`d2l.RCNN` is the whole detector, for
# `pip install 'kerascv-d2l[rcnn]'`.)

# %% [markdown] tags=["zh"]
# ## R-CNN：裁剪与变形
#
# R-CNN 把每个区域从图像中裁出来，变形成正方形，再送入网络。选择性搜索对每张图像提议大约 2000 个区域，
# 它们互相重叠，同样的像素被网络看了几百遍。下面是一张图像中的物体，以及网络看到的样子。
# （`d2l.RCNN` 是完整的检测器，需要 `pip install 'kerascv-d2l[rcnn]'`。）

# %%
index = next(k for k, boxes in enumerate(data.train.targets["boxes"]) if len(boxes) == 2)
img, boxes = data.train.images[index], data.train.targets["boxes"][index]
crops = warp(img, boxes * SIDE, size=48, context=16 / 227)
axes = d2l.show_images([img, *crops.numpy()], 1, 3, ["image", "region 0", "region 1"], scale=2.2)
d2l.show_bboxes(axes[0], boxes * SIDE, ["0", "1"])
plt.show()

# %% [markdown] tags=["en"]
# ## Fast R-CNN: RoI pooling
#
# Fast R-CNN runs the network once on the whole image, and takes each region of interest (RoI) out of the feature map.
# Regions have all sizes, the layers behind need one: **RoI pooling** divides the region into a grid of bins and takes
# the maximum of each. The book's example: a map of 4 × 4, regions in pixels of a 40 × 40 image, thus a scale of 0.1.

# %% [markdown] tags=["zh"]
# ## Fast R-CNN：兴趣区域汇聚层
#
# Fast R-CNN 在整张图像上只运行一次网络，再从特征图中取出每个兴趣区域（RoI）。区域有大有小，而后面的层需要固定大小：
# **兴趣区域汇聚层**把区域分成网格，每格取最大值。
# 下面是书中的例子：4 × 4 的特征图，区域以 40 × 40 图像的像素为单位，所以比例是 0.1。

# %%
X = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
rois = np.array([[0, 0, 20, 20], [0, 10, 30, 30]], np.float32)
images_of = np.array([0, 0])  # both are of image 0
pooled = d2l.roi_pool(X, rois, images_of, output_size=2, spatial_scale=0.1)
print(X[0, :, :, 0])
print("region 0:", pooled.numpy()[0, :, :, 0].tolist(), "the book: [[5, 6], [9, 10]]")
print("region 1:", pooled.numpy()[1, :, :, 0].tolist(), "the book: [[9, 11], [13, 15]]")

# %% tags=["check"]
assert pooled.numpy()[..., 0].tolist() == [[[5, 6], [9, 10]], [[9, 11], [13, 15]]]

# %% [markdown] tags=["en"]
# ## RoI align
#
# RoI pooling rounds a region to whole pixels of the map. One pixel of the map may be 16 or 32 of the image: for a class
# that does not matter, for a mask it does. **RoI align** rounds nothing. It samples the map by bilinear interpolation
# at points inside each bin, and takes their mean. What comes out when a region of 10 × 10 pixels moves to the right?

# %% [markdown] tags=["zh"]
# ## 兴趣区域对齐
#
# 兴趣区域汇聚把区域取整到特征图的像素。特征图的一个像素可能对应图像的 16 或 32 个像素：对类别无所谓，对掩码就不行了。
# **兴趣区域对齐**不取整：在每格内的若干点上对特征图做双线性插值，再取平均。
# 当 10 × 10 像素的区域向右移动时，会得到什么？

# %%
moves = np.linspace(5, 20, 61, dtype=np.float32)
moving = np.stack([moves, 0 * moves + 10, moves + 10, 0 * moves + 20], axis=1)
which = np.zeros(len(moves), np.int32)
by_pooling = d2l.roi_pool(X, moving, which, 1, 0.1).numpy()[:, 0, 0, 0]
by_align = d2l.roi_align(X, moving, which, 1, 0.1, aligned=True).numpy()[:, 0, 0, 0]
plt.figure(figsize=(5, 3.2))
plt.plot(moves, by_pooling, label="RoI pooling (maximum)")
plt.plot(moves, by_align, "--", label="RoI align (mean)")
plt.xlabel("left border of the region, pixels")
plt.ylabel("pooled value")
plt.legend()
plt.show()

# %% tags=["check"]
assert len(set(by_pooling.tolist())) == 2
slopes = np.diff(by_align) / np.diff(moves)
assert np.allclose(slopes, 0.1, atol=1e-3)

# %% [markdown] tags=["en"]
# What to see: pooling jumps once while the region moves by 15 pixels, and has no slope elsewhere: it cannot tell the
# positions between two jumps apart. Align follows every move.
#
# ## Faster R-CNN: the network proposes
#
# A **region proposal network** replaces selective search: a 3 × 3 convolution on the feature map, and for each anchor
# one number, is there an object, and four offsets. It is class-free SSD. Its best boxes, after non-maximum suppression,
# go to the second stage. Both stages are trained together, with four losses: object or not and box for the anchors,
# class and box for the proposals.
#
# This one is small, so that it learns in a minute or two: MobileNet at a quarter of its width from random weights, a
# feature pyramid of 32 channels, 50 proposals. The paper's has 2000.

# %% [markdown] tags=["zh"]
# 看什么：区域移动了 15 个像素，汇聚的值只跳了一次，其他地方斜率都是零：两次跳跃之间的位置它分辨不出来。
# 对齐则随着每一点移动而变化。
#
# ## Faster R-CNN：由网络来提议
#
# **区域提议网络**代替了选择性搜索：在特征图上做 3 × 3 卷积，对每个锚框给出一个数（有没有物体）和四个偏移量。
# 它就是不分类别的 SSD。经过非极大值抑制，最好的框进入第二阶段。两个阶段一起训练，共有四个损失：
# 锚框的有无物体和边界框，以及提议区域的类别和边界框。
#
# 这里的模型很小，一两分钟就能学会：宽度为四分之一的 MobileNet，从随机权重开始，32 通道的特征金字塔，50 个提议区域。
# 论文中有 2000 个。

# %%
model = d2l.FasterRCNN(
    data.class_names,
    backbone="mobilenet_0.25",
    image_size=(SIDE, SIDE),
    anchor_sizes=((8,), (16,), (32,), (42,), (54,)),  # pixels, for the five levels of the pyramid
    channels=32,
    head_width=64,
    canonical_size=SIDE,
    rpn={
        "train_before_nms": 100,
        "test_before_nms": 60,
        "train_proposals": 50,
        "test_proposals": 50,
        "samples": 64,
    },
    head={"samples": 32},
)
train = d2l.batches(data.train, SIDE, 8, training=True)
val = d2l.batches(data.val, SIDE, 40)

epochs = 26  # quick: 1
steps = 50  # quick: 1
falling = keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps)
model.compile(keras.optimizers.Adam(falling))
history = model.fit(
    train, steps_per_epoch=steps, epochs=epochs, callbacks=[d2l.LiveCurves()], verbose=0
).history

# %% [markdown] tags=["en"]
# The four parts of the loss, and the mean average precision on new images:

# %% [markdown] tags=["zh"]
# 损失的四个部分，以及新图像上的平均精度均值：

# %%
plt.figure(figsize=(5, 3.2))
for name in ("objectness", "rpn_boxes", "classes", "boxes"):
    plt.plot(range(1, epochs + 1), history[f"loss_{name}"], label=name)
plt.xlabel("epoch")
plt.ylabel("loss")
plt.legend()
plt.show()
measured = d2l.evaluate_detections(model, val)
print(f"mAP at IoU 0.5: {measured['map_50']:.2f}")

# %%
images, labels = next(iter(val))
found = model.detect(images)
axes = d2l.show_images(images[:8].numpy(), 2, 4, scale=2.2)
for k, axis in enumerate(axes):
    real, good = labels["classes"][k] >= 0, found["scores"][k] > 0.4
    d2l.show_bboxes(axis, labels["boxes"][k][real] * SIDE, colors="w")
    names = [data.class_names[c] for c in found["classes"][k][good]]
    d2l.show_bboxes(axis, found["boxes"][k][good] * SIDE, names, "r")
axes[0].figure.suptitle("white: objects; red: detections")
plt.tight_layout()
plt.show()

# %% tags=["check-full"]
assert history["loss_objectness"][1] < 0.1 and measured["map_50"] > 0.4

# %% [markdown] tags=["en"]
# What to see: the first stage knows after an epoch or two where objects are. The second takes longer to learn which they
# are and to place the boxes; where two objects overlap, it names both in one place. 1300 steps on 400 small images are
# few for a network from random weights; pretrained weights are the usual start.
#
# ## On real data
#
# `python scripts/train_detector.py --model faster_rcnn --data banana_detection --weights imagenet` trains a full one on
# the book's data, with a ResNet-18. Use a GPU.
#
# Mask R-CNN adds one more branch to the second stage: four convolutions and a transposed convolution give a map of 28 ×
# 28 pixels, for each class, that says which pixels of the region are the object. `d2l.MaskRCNN` takes the same
# arguments, and `masks` besides boxes in its labels.
#
# What the book does differently: it describes the four detectors and computes RoI pooling; here they can be trained.

# %% [markdown] tags=["zh"]
# 看什么：一两个迭代周期之后，第一阶段就知道哪里有物体。第二阶段要更久才能学会类别、把边界框放准；
# 两个物体重叠时，它会在同一处说出两个名字。对于从随机权重开始的网络，400 张小图像上的 1300 步是很少的；
# 通常从预训练的权重开始。
#
# ## 在真实数据上
#
# `python scripts/train_detector.py --model faster_rcnn --data banana_detection --weights imagenet` 用 ResNet-18
# 在书中的数据集上训练完整的模型。请使用 GPU。
#
# Mask R-CNN 在第二阶段再加一个分支：四个卷积和一个转置卷积，对每个类别给出 28 × 28 像素的图，表示区域中哪些像素属于物体。
# `d2l.MaskRCNN` 的参数相同，标签中除了边界框还有 `masks`。
#
# 与书的不同：书中介绍了四种检测器，并计算了兴趣区域汇聚；这里还可以训练它们。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. Compute the first value of the book's region 1, 9, by hand.
# 2. Which level of the feature pyramid reads a region of 112, of 224, of 448 pixels?
# 3. What does RoI align give for region 0 of the book's example, and why is it less than RoI pooling?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 手工计算书中区域 1 的第一个值 9。
# 2. 边长为 112、224、448 像素的区域由特征金字塔的哪一层读取？
# 3. 对书中例子的区域 0，兴趣区域对齐得到什么？为什么比兴趣区域汇聚小？
#
# 答案：

# %%
# Corners times 0.1: columns 0 to 3, rows 1 to 3, ends included: 4 wide, 3 high. The upper left
# bin is columns 0 and 1, rows 1 and 2 (bins overlap where the height is odd).
print("1.", X[0, 1:3, 0:2, 0].max())

squares = np.array([[0, 0, side, side] for side in (112, 224, 448)], np.float32)
print("2. levels:", d2l.pyramid_levels(squares).numpy())

mean = d2l.roi_align(X, rois[:1], images_of[:1], 2, 0.1, aligned=True).numpy()[0, :, :, 0]
print("3.", mean.tolist())
print("   means inside 2 x 2 pixels of the map; pooling took maxima over 3 x 3, ends included")

# %% tags=["check"]
assert X[0, 1:3, 0:2, 0].max() == 9
