# %% [markdown] tags=["en"]
# # YOLO: a grid of cells
#
# SSD (notebook 07) compares thousands of anchors with the objects. The first **YOLO** (2016, "You Only Look Once") has no
# anchors. It divides the image into a coarse grid; the cell that holds an object's *centre* answers for the object: one
# regression from pixels to boxes. It was the first detector for video, and what it cannot do is why anchors, pyramids
# and anchor-free detectors came after it.
#
# The book has no such section; the course notes that this package follows have.

# %% [markdown] tags=["zh"]
# # YOLO：网格检测
#
# SSD（笔记本 07）把成千上万个锚框与物体比较。最初的 **YOLO**（2016，“You Only Look Once”）没有锚框。
# 它把图像分成粗网格，物体的*中心*落在哪个单元格，就由哪个单元格负责：从像素直接回归边界框。
# 它是第一个能处理视频的检测器；而它做不到的事，正是后来有锚框、特征金字塔和无锚框检测器的原因。
#
# 书中没有这一节；本包所依据的课程笔记中有。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l
from kerascv_d2l.models.yolo1 import assign_cells

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## Cells
#
# The grid has $S \times S$ cells. Each predicts $B$ boxes, with five numbers, and $C$ probabilities of classes that its
# boxes share: $S \times S \times (5B + C)$ numbers. The paper has $S = 7$, $B = 2$, and with the 20 classes of VOC
# $7 \times 7 \times 30$. The numbers of a box are
#
# - $x, y$: the centre, in the cell, from 0 to 1;
# - $\sqrt w, \sqrt h$: roots of width and height, as shares of the image;
# - the *confidence*: how good the box is, that is its IoU with the object, and 0 where there is none.
#
# `assign_cells` tells for each cell which object it answers for. Images of 128 pixels and a network of stride 32 make
# $S = 4$:

# %% [markdown] tags=["zh"]
# ## 单元格
#
# 网格有 $S \times S$ 个单元格。每个单元格预测 $B$ 个边界框（各五个数），以及这些框共用的 $C$ 个类别概率：
# 一共 $S \times S \times (5B + C)$ 个数。论文中 $S = 7$，$B = 2$，VOC 有 20 个类别，所以是 $7 \times 7 \times 30$。一个框的数是
#
# - $x, y$：中心在单元格内的位置，从 0 到 1；
# - $\sqrt w, \sqrt h$：宽和高（占图像的比例）的平方根；
# - *置信度*：框有多好，也就是它与物体的交并比；没有物体时为 0。
#
# `assign_cells` 给出每个单元格负责哪个物体。128 像素的图像和步幅 32 的网络得到 $S = 4$：

# %%
SIDE, S = 128, 4
num_train, num_val = 960, 100  # quick: 32, 8
data = d2l.load(
    "generated",
    "detection",
    num_train=num_train,
    num_val=num_val,
    num_classes=2,
    image_size=SIDE,
    scenes="one-light",
)
pairs = d2l.generate_detection(1, 20, num_classes=2, image_size=SIDE, scenes="large").val
index = next(k for k, boxes in enumerate(pairs.targets["boxes"]) if len(boxes) == 2)

_, labels = next(iter(d2l.batches(pairs.subset([index]), SIDE, 1)))
truth, classes, holds, _ = (np.array(part)[0] for part in assign_cells(labels, S, S))
(axis,) = d2l.show_images([pairs.images[index]], 1, 1, scale=3.2)
for k in range(1, S):
    axis.axhline(k * SIDE / S, color="w", linewidth=0.7)
    axis.axvline(k * SIDE / S, color="w", linewidth=0.7)
boxes = pairs.targets["boxes"][index] * SIDE
d2l.show_bboxes(axis, boxes, colors=["c", "r"])
for (row, column), color in zip(np.argwhere(holds), "yy"):
    corner = np.array([column, row, column + 1, row + 1]) * SIDE / S
    d2l.show_bboxes(axis, corner[None], colors=color)
axis.plot(*(boxes[:, :2] + boxes[:, 2:]).T / 2, "w+", markersize=12)
axis.set(xlim=(0, SIDE), ylim=(SIDE, 0))
plt.show()
for row, column in np.argwhere(holds):
    x, y, w, h = truth[row, column]
    print(f"row {row}, column {column}: {data.class_names[classes[row, column]]}", end=", ")
    print(f"x {x * S - column:.2f}, y {y * S - row:.2f}, root of w {w**0.5:.2f}, of h {h**0.5:.2f}")

# %% [markdown] tags=["en"]
# What to see: the white crosses are centres, the yellow cells answer. All other cells should say "nothing", also those
# that the object covers.
#
# ## The loss
#
# Of a cell's $B$ boxes that one learns from the object which has the better IoU with it: it is **responsible**. So boxes
# specialise, one in wide shapes, say, and one in tall ones. Every error is squared:
#
# $$5 \sum_{\text{responsible}} \left[(x - \hat x)^2 + (y - \hat y)^2 + (\sqrt w - \sqrt{\hat w})^2 + (\sqrt h -
# \sqrt{\hat h})^2\right] + \sum_{\text{responsible}} (c - \mathrm{IoU})^2 + 0.5 \sum_{\text{others}} c^2 +
# \sum_{\text{cells}} \sum_k (p_k - \hat p_k)^2$$
#
# The 5 makes places count more than classes; the 0.5 keeps the many empty cells from pushing all confidences to 0.
#
# ## Training

# %% [markdown] tags=["zh"]
# 看什么：白色十字是中心，黄色单元格负责。其余单元格都应该回答“没有”，即使物体盖住了它们。
#
# ## 损失函数
#
# 在一个单元格的 $B$ 个框中，只有与物体交并比较大的那个从物体学习：它是**负责**的框。这样各个框会有分工，
# 例如一个专管宽的形状，一个专管高的。所有误差都取平方：
#
# $$5 \sum_{\text{responsible}} \left[(x - \hat x)^2 + (y - \hat y)^2 + (\sqrt w - \sqrt{\hat w})^2 + (\sqrt h -
# \sqrt{\hat h})^2\right] + \sum_{\text{responsible}} (c - \mathrm{IoU})^2 + 0.5 \sum_{\text{others}} c^2 +
# \sum_{\text{cells}} \sum_k (p_k - \hat p_k)^2$$
#
# 系数 5 让位置比类别更重要；系数 0.5 避免大量空单元格把所有置信度都压到 0。
#
# ## 训练

# %%
train = d2l.batches(data.train, SIDE, 16, training=True)
val = d2l.batches(data.val, SIDE, 50)

epochs = 16  # quick: 1
steps = 60  # quick: 1
eagerly = False  # quick: True
model = d2l.YOLO1(data.class_names, backbone="mobilenet_0.25", image_size=(SIDE, SIDE))
falling = keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps)
model.compile(keras.optimizers.Adam(falling), run_eagerly=eagerly)
history = model.fit(
    train,
    steps_per_epoch=steps,
    epochs=epochs,
    callbacks=[d2l.LiveCurves()],
    shuffle=False,  # the batches are shuffled already
    verbose=0,
).history
measured = d2l.evaluate_detections(model, val)
print(f"mAP at IoU 0.5: {measured['map_50']:.2f}, at 0.75: {measured['map_75']:.2f}")

# %%
images, labels = next(iter(val))
found = model.detect(images)
axes = d2l.show_images(images[:8].numpy(), 2, 4, scale=2.2)
for k, axis in enumerate(axes):
    real, good = labels["classes"][k] >= 0, found["scores"][k] > 0.3
    d2l.show_bboxes(axis, labels["boxes"][k][real] * SIDE, colors="w")
    names = [
        f"{data.class_names[c]} {score:.2f}"
        for c, score in zip(found["classes"][k][good], found["scores"][k][good])
    ]
    d2l.show_bboxes(axis, found["boxes"][k][good] * SIDE, names, "r")
axes[0].figure.suptitle("white: objects; red: detections, confidence times class")
plt.tight_layout()
plt.show()

# %% tags=["check-full"]
assert measured["map_50"] > 0.7 and measured["map_75"] < measured["map_50"]

# %% [markdown] tags=["en"]
# One object on an image, from random weights. The place comes out well, the sides less exactly: the number at IoU 0.75 is
# lower. The picture shows scores above 0.3, and some are hardly more: confidence is a guess of the IoU, and a cautious one.
#
# What are the two boxes of a cell? Here is what the cell with the object's centre says, with the confidences of both:

# %% [markdown] tags=["zh"]
# 每张图像一个物体，从随机权重开始。物体的位置不错，边的位置不那么准：交并比 0.75 时的数值较低。
# 图中只画分数高于 0.3 的框，有些只略高一点：置信度是对交并比的猜测，而且偏谨慎。
#
# 一个单元格的两个框是什么样的？下面是物体中心所在的单元格给出的两个框，以及它们的置信度：

# %%
outputs = {name: value.numpy() for name, value in model(images[:4]).items()}
holds = assign_cells(labels, S, S)[2].numpy()
axes = d2l.show_images(images[:4].numpy(), 1, 4, scale=2.2)
for k, axis in enumerate(axes):
    row, column = np.argwhere(holds[k])[0]
    x, y, w, h = outputs["boxes"][k, row, column].T
    x, y, w, h = (column + x) / S, (row + y) / S, w**2, h**2
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    d2l.show_bboxes(axis, corners * SIDE, colors=["c", "r"])
    first, second = outputs["confidence"][k, row, column]
    axis.set_title(f"cyan {first:.2f}, red {second:.2f}", fontsize=9)
plt.show()

# %% [markdown] tags=["en"]
# What to see: both boxes lie on the object, and they have specialised: red is the larger, cyan the smaller. The confidences
# say which of them is to be believed.
#
# ## What it cannot do
#
# A cell has one set of class probabilities, so it answers for one object. Of two centres in a cell one is lost, before
# anything is learned. Here two objects share a centre, a wide one and a tall one:

# %% [markdown] tags=["zh"]
# 看什么：两个框都在物体上，并且有了分工：红色的较大，青色的较小。置信度表示该相信哪一个。
#
# ## 它做不到什么
#
# 一个单元格只有一组类别概率，所以只能负责一个物体。两个中心落在同一个单元格时，一个在学习之前就已经丢失。
# 下面两个物体的中心相同，一个宽，一个高：

# %%
crossing = {
    "boxes": np.array([[[0.1, 0.45, 0.9, 0.65], [0.4, 0.2, 0.6, 0.9]]], np.float32),
    "classes": np.array([[0, 1]]),
    "ignore": np.array([[False, False]]),
}
left = int(assign_cells(crossing, S, S)[2].numpy().sum())
print(f"2 objects, {left} cell that answers")

many = d2l.generate_detection(1, 200, num_classes=2, image_size=SIDE).val  # up to four on each
_, all_labels = next(iter(d2l.batches(many, SIDE, 200)))
total = sum(len(boxes) for boxes in many.targets["boxes"])
sides = (1, 2, 4, 7, 14, 28)
kept = [assign_cells(all_labels, n, n)[2].numpy().sum() for n in sides]
lost = [1 - count / total for count in kept]
plt.figure(figsize=(5, 3.2))
plt.bar([str(n) for n in sides], lost)
plt.xlabel("cells in a row of the grid, S")
plt.ylabel("share of objects lost")
plt.show()

# %% tags=["check"]
assert left == 1 and lost == sorted(lost, reverse=True) and lost[0] > 0.3 and lost[3] < 0.1

# %% [markdown] tags=["en"]
# What to see: the finer the grid, the less is lost. These images hold four objects at most; the paper names flocks of
# birds as what it fails on.
#
# ## What came after
#
# **Anchors and pyramids.** SSD, and YOLO itself from the second version on, have several anchors in each cell, each with
# classes of its own, on maps of several scales. *RetinaNet* (2017) puts them on a feature pyramid; its focal loss
# (notebook 07) copes with the thousands of empty places:

# %% [markdown] tags=["zh"]
# 看什么：网格越细，丢失越少。这里每张图像最多四个物体；论文提到，成群的鸟就是它做不好的例子。
#
# ## 之后的发展
#
# **锚框与金字塔。** SSD 以及第二版之后的 YOLO，在每个单元格有多个锚框，各有自己的类别，并使用多个尺度的特征图。
# *RetinaNet*（2017）把它们放在特征金字塔上；焦点损失（笔记本 07）用来对付成千上万的空位置：

# %%
retina = d2l.RetinaNet(data.class_names, backbone="mobilenet_0.25", channels=32)
for logits, anchors in zip(*(retina(images[:1])[name] for name in ("logits", "anchors"))):
    smallest, largest = np.sqrt(np.prod(anchors[:, 2:] - anchors[:, :2], axis=1))[[0, -1]]
    print(f"{logits.shape[1]:5} anchors of {smallest:.0f} to {largest:.0f} pixels")

# %% [markdown] tags=["en"]
# **No anchors again.** *FCOS* (2019) keeps the pyramid and drops the anchors: each place says how far the four sides of
# its object are. That is YOLO with fine grids, and many places an object in place of one cell:

# %% [markdown] tags=["zh"]
# **又没有了锚框。** *FCOS*（2019）保留金字塔，去掉锚框：每个位置给出物体的四条边离它多远。
# 这就像网格很细的 YOLO，而且每个物体对应许多位置，而不是一个单元格：

# %%
fcos = d2l.FCOS(data.class_names, backbone="mobilenet_0.25", channels=32)
predicted = fcos(images[:1])
shapes = [tuple(part.shape[1:]) for part in predicted["distances"]]
print("left, top, right, bottom for", " + ".join(str(places) for places, _ in shapes), "places")

# %% tags=["check"]
assert shapes == [(256, 4), (64, 4), (16, 4), (4, 4), (1, 4)]

# %% [markdown] tags=["en"]
# Both are trained like all others here: `python scripts/train_detector.py --model fcos`, `--model retinanet`.
#
# ## On the book's data, and what differs from the paper
#
# `python scripts/train_detector.py --model yolo1 --data banana_detection` trains it with a ResNet-18 on the book's data.
#
# The paper has a network of its own with 24 convolutions, pretrained on ImageNet, then two dense layers, so that a cell
# sees the whole image and images must have 448 × 448 pixels. Here the backbone is any of the table, and a 3 × 3 and a 1 ×
# 1 convolution stand in place of the dense layers: fewer weights, any size. The outputs go through a sigmoid (classes: a
# softmax), so that they start and stay in their range. Between the two convolutions stands a batch normalization, as in the second YOLO (2017): without it
# the large features of a pretrained backbone bring the sigmoids, in a few steps, to where they are flat, and a squared error
# has no gradient there. The loss is the paper's.

# %% [markdown] tags=["zh"]
# 两者的训练方法与这里的其他模型一样：`python scripts/train_detector.py --model fcos`、`--model retinanet`。
#
# ## 在书中的数据集上，以及与论文的不同
#
# `python scripts/train_detector.py --model yolo1 --data banana_detection` 用 ResNet-18 在书中的数据集上训练。
#
# 论文有自己的网络：24 个卷积层，在 ImageNet 上预训练，之后是两个全连接层，所以一个单元格能看到整张图像，图像必须是 448 × 448
# 像素。这里可以选用表中任何一个骨干网络，用一个 3 × 3 和一个 1 × 1 的卷积代替全连接层：权重更少，大小不限。
# 输出经过 sigmoid（类别经过 softmax），从一开始就始终在取值范围之内。两个卷积层之间有批量归一化（与2017年的第二版YOLO一样）：没有它，预训练骨干网络的特征很大，
# 几步之后 sigmoid 就到了平坦的地方，而平方误差在那里没有梯度。损失函数与论文相同。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. How many boxes does the paper's network predict for an image, and how many anchors has TinySSD at 256 × 256?
# 2. Why roots of width and height? Compare an error of 5 pixels for objects of 20 and of 200 pixels, images of 448.
# 3. How many weights would the paper's first dense layer have, from 7 × 7 × 1024 numbers to 4096? And our head?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 论文中的网络对一张图像预测多少个边界框？TinySSD 在 256 × 256 时有多少个锚框？
# 2. 为什么用宽和高的平方根？在 448 像素的图像上，比较 20 像素和 200 像素的物体有 5 像素误差的情况。
# 3. 论文的第一个全连接层从 7 × 7 × 1024 个数到 4096 个，有多少权重？我们的头部呢？
#
# 答案：

# %%
anchors = d2l.TinySSD(num_classes=1)(np.zeros((1, 256, 256, 3), np.uint8))[0]
print(f"1. {7 * 7 * 2} boxes; {anchors.shape[1]} anchors")
for side in (20, 200):
    plain = 5 / 448
    roots = ((side + 5) / 448) ** 0.5 - (side / 448) ** 0.5
    print(f"2. {side:3} pixels: squared error {plain**2:.6f}, of the roots {roots**2:.6f}")
print("   5 pixels spoil the IoU of the small object; with roots they cost more there")
print(f"3. {7 * 7 * 1024 * 4096:,} weights; our head: {model.head.count_params():,}")

# %% tags=["check"]
assert anchors.shape[1] == 5444 and 7 * 7 * 1024 * 4096 == 205_520_896
