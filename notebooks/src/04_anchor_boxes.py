# %% [markdown] tags=["en"]
# # Anchor boxes
#
# How can a network, whose output has a fixed size, name any number of boxes? The idea: lay many fixed boxes over the
# image, the **anchor boxes**, and let the network answer two questions about each of them: which class is it (or
# background), and how must it be moved and stretched to fit the object?
#
# This notebook goes with section 14.4 of *Dive into Deep Learning* (13.4 in the Chinese edition). Its results are shown
# beside the book's.

# %% [markdown] tags=["zh"]
# # 锚框
#
# 网络输出的大小是固定的，怎样才能给出任意多个边界框？
# 办法是：在图像上铺上许多固定的框，即**锚框**，让网络对每个锚框回答两个问题：它是什么类别（或者是背景）？
# 要怎样移动和缩放，它才能贴合物体？
#
# 本笔记本对应《动手学深度学习》英文版 14.4 节，中文版 13.4 节。结果与书中的数字并列给出。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

np.set_printoptions(precision=4, suppress=True)

# %% [markdown] tags=["en"]
# ## Make anchors
#
# At each pixel of an image of height $h$ and width $w$, an anchor of size $s$ (a share of the height) and aspect ratio
# $r$ is $s\sqrt{r}\,h$ pixels wide and $s / \sqrt{r}\,h$ pixels high: its area does not depend on $r$. From sizes
# $s_1 \dots s_n$ and ratios $r_1 \dots r_m$ only the pairs with $s_1$ or $r_1$ are taken:
#
# $$(s_1, r_1), (s_2, r_1), \dots, (s_n, r_1), (s_1, r_2), \dots, (s_1, r_m)$$
#
# These are $n + m - 1$ instead of $nm$ anchors a pixel. The book's photograph is 561 × 728 pixels.

# %% [markdown] tags=["zh"]
# ## 生成锚框
#
# 图像高 $h$、宽 $w$。在每个像素上，大小为 $s$（相对于高的比例）、宽高比为 $r$ 的锚框宽 $s\sqrt{r}\,h$ 像素，
# 高 $s / \sqrt{r}\,h$ 像素：面积与 $r$ 无关。给定大小 $s_1 \dots s_n$ 和宽高比 $r_1 \dots r_m$，
# 只取含有 $s_1$ 或 $r_1$ 的组合：
#
# $$(s_1, r_1), (s_2, r_1), \dots, (s_n, r_1), (s_1, r_2), \dots, (s_1, r_m)$$
#
# 每个像素有 $n + m - 1$ 个锚框，而不是 $nm$ 个。书中的照片是 561 × 728 像素。

# %%
h, w = 561, 728
image = np.zeros((1, h, w, 3), np.float32)
anchors = d2l.multibox_prior(image, sizes=[0.75, 0.5, 0.25], ratios=[1, 2, 0.5])
print("number of anchors:", f"{anchors.shape[1]:,}", "(the book: 2,042,040)")
at_pixel = anchors.numpy().reshape(h, w, 5, 4)[250, 250]
print("the five anchors at pixel (250, 250):")
print(at_pixel)

# %% [markdown] tags=["en"]
# The book has for the first of these five `[0.06, 0.07, 0.63, 0.82]`. Some corners are negative: an anchor may reach
# over the border of the image.

# %% [markdown] tags=["zh"]
# 书中这五个锚框的第一个是 `[0.06, 0.07, 0.63, 0.82]`。有些坐标是负数：锚框可以超出图像边界。

# %% tags=["check"]
assert anchors.shape == (1, 2_042_040, 4)
book = [
    [0.0551, 0.0715, 0.6331, 0.8215],
    [0.1514, 0.1965, 0.5367, 0.6965],
    [0.2478, 0.3215, 0.4404, 0.5715],
    [-0.0646, 0.1814, 0.7528, 0.7117],
    [0.1398, -0.0838, 0.5484, 0.9769],
]
assert np.allclose(at_pixel, book, atol=5e-5)
assert np.allclose(at_pixel[0], [0.06, 0.07, 0.63, 0.82], atol=5.1e-3)

# %%
scene = d2l.generate_detection(num_train=1, num_val=1, image_size=(h, w), scenes="one", seed=1)
axes = plt.figure(figsize=(6, 4.6)).subplots()
axes.imshow(scene.train.images[0])
labels = ["s=0.75, r=1", "s=0.5, r=1", "s=0.25, r=1", "s=0.75, r=2", "s=0.75, r=0.5"]
d2l.show_bboxes(axes, at_pixel * [w, h, w, h], labels)
axes.set_xlabel("x in pixels")
axes.set_ylabel("y in pixels")
plt.show()

# %% [markdown] tags=["en"]
# ## Intersection over union
#
# How well do two boxes $A$ and $B$ agree? **IoU** is the area they share, divided by the area they cover together:
#
# $$J(A, B) = \frac{|A \cap B|}{|A \cup B|}$$
#
# It is 0 for boxes that do not overlap and 1 for equal ones. Here: two squares of side 1, one moved to the right.

# %% [markdown] tags=["zh"]
# ## 交并比（IoU）
#
# 两个框 $A$ 和 $B$ 有多一致？**交并比**是相交的面积除以合在一起覆盖的面积：
#
# $$J(A, B) = \frac{|A \cap B|}{|A \cup B|}$$
#
# 不相交时为 0，相等时为 1。下面是两个边长为 1 的正方形，其中一个逐渐向右移动。

# %%
moves = np.linspace(0, 1.2, 61, dtype=np.float32)
moved = np.stack([moves, 0 * moves, moves + 1, 0 * moves + 1], axis=1)
iou = d2l.box_iou(np.array([[0, 0, 1, 1]], np.float32), moved).numpy()[0]
plt.figure(figsize=(4.5, 3))
plt.plot(moves, iou)
plt.axhline(0.5, color="grey", linestyle="--", label="0.5, the usual threshold")
plt.xlabel("how far one square is moved, in sides")
plt.ylabel("IoU")
plt.legend()
plt.show()

# %% [markdown] tags=["en"]
# What to see: the square may move by only a third of its side before the IoU falls below 0.5, for
# $(1 - d) / (1 + d) = 0.5$ at $d = 1/3$.

# %% [markdown] tags=["zh"]
# 看什么：正方形只移动边长的三分之一，交并比就降到 0.5 以下，因为 $d = 1/3$ 时 $(1 - d) / (1 + d) = 0.5$。

# %% tags=["check"]
assert (iou[moves < 0.33] > 0.5).all() and (iou[moves > 0.34] < 0.5).all()

# %% [markdown] tags=["en"]
# ## Label anchors for training
#
# For training every anchor needs an answer. First each object takes one anchor, best IoU first, so that no object goes
# without. Then every other anchor takes the object it overlaps most, if that IoU is at least 0.5. The rest is
# background, class 0. The book's example: a dog, a cat, and five anchors.

# %% [markdown] tags=["zh"]
# ## 在训练数据中标注锚框
#
# 训练时每个锚框都需要一个答案。首先每个物体占用一个锚框，交并比大的优先，这样没有物体会落空。
# 然后其余的每个锚框取与它交并比最大的物体，只要不小于 0.5。剩下的是背景，类别为 0。
# 下面是书中的例子：一只狗、一只猫和五个锚框。

# %%
ground_truth = np.array([[0, 0.1, 0.08, 0.52, 0.92], [1, 0.55, 0.2, 0.9, 0.88]], np.float32)
anchors = np.array(
    [
        [0, 0.1, 0.2, 0.3],
        [0.15, 0.2, 0.4, 0.4],
        [0.63, 0.05, 0.88, 0.98],
        [0.66, 0.45, 0.8, 0.8],
        [0.57, 0.3, 0.92, 0.9],
    ],
    np.float32,
)
axes = plt.figure(figsize=(5, 4)).subplots()
axes.set_xlim(-0.05, 1)
axes.set_ylim(1.02, 0)
d2l.show_bboxes(axes, ground_truth[:, 1:], ["dog", "cat"], "k")
d2l.show_bboxes(axes, anchors, ["0", "1", "2", "3", "4"])
axes.set_xlabel("x, share of the width")
axes.set_ylabel("y, share of the height")
axes.set_title("objects black, anchors in colour")
plt.show()

# %%
offsets, mask, classes = d2l.multibox_target(anchors[None], ground_truth[None])
print("classes:", classes.numpy()[0], "(0 background, 1 dog, 2 cat; the book: [0 1 2 0 2])")
print("mask, a row an anchor:")
print(mask.numpy().reshape(5, 4))

# %% [markdown] tags=["en"]
# The mask keeps background out of the loss of the boxes: there is nothing to fit.
#
# ## Offsets
#
# What the network has to predict for an anchor $a$ with object $b$ is how far and how much:
#
# $$\left(\frac{(x_b - x_a) / w_a}{0.1},\ \frac{(y_b - y_a) / h_a}{0.1},\ \frac{\log(w_b / w_a)}{0.2},\ \frac{\log(h_b / h_a)}{0.2}\right)$$
#
# Differences are measured in anchor sizes, so that large and small objects count alike; 0.1 and 0.2 are typical
# values, and dividing by them brings all four numbers to about the same range.

# %% [markdown] tags=["zh"]
# 掩码使背景不参与边界框的损失：那里没有要拟合的东西。
#
# ## 偏移量
#
# 对锚框 $a$ 和物体 $b$，网络要预测的是移动多远、放大多少：
#
# $$\left(\frac{(x_b - x_a) / w_a}{0.1},\ \frac{(y_b - y_a) / h_a}{0.1},\ \frac{\log(w_b / w_a)}{0.2},\ \frac{\log(h_b / h_a)}{0.2}\right)$$
#
# 差值以锚框的大小为单位，所以大小物体同等对待；0.1 和 0.2 是典型的数值，除以它们之后四个数的范围大致相同。

# %%
print(offsets.numpy().reshape(5, 4))
print("the book, anchors 1, 2 and 4:")
print("[1.4 10 2.59 7.18] [-1.2 0.269 1.68 -1.57] [-0.571 -1 4.17e-6 0.626]")
back = d2l.offset_inverse(anchors, offsets.numpy().reshape(5, 4))
print("anchor 1, moved by its offsets, is the dog again:", back.numpy()[1])

# %% tags=["check"]
assert classes.numpy()[0].tolist() == [0, 1, 2, 0, 2]
found = offsets.numpy().reshape(5, 4)
expected = [[1.4, 10, 2.594, 7.175], [-1.2, 0.2688, 1.682, -1.566], [-0.5714, -1, 4.17e-6, 0.6258]]
assert np.allclose(found[[1, 2, 4]], expected, atol=1e-3) and not found[[0, 3]].any()
assert np.allclose(back.numpy()[1], ground_truth[0, 1:], atol=1e-5)

# %% [markdown] tags=["en"]
# ## Non-maximum suppression
#
# Many anchors find the same object. **NMS** keeps the box with the best score, drops all others whose IoU with it is
# greater than a threshold, and goes on with the best that is left. `multibox_detection` does all of a prediction:
# offsets to boxes, the best class of each anchor, NMS. The book's example: four anchors, three of them on the dog.

# %% [markdown] tags=["zh"]
# ## 非极大值抑制
#
# 许多锚框会找到同一个物体。**非极大值抑制**（NMS）保留分数最高的框，去掉与它交并比大于阈值的所有其他框，
# 然后在剩下的框中继续。`multibox_detection` 完成预测的全部步骤：由偏移量得到边界框，取每个锚框最可能的类别，
# 再做非极大值抑制。下面是书中的例子：四个锚框，其中三个都在狗上。

# %%
anchors = np.array(
    [
        [0.1, 0.08, 0.52, 0.92],
        [0.08, 0.2, 0.56, 0.95],
        [0.15, 0.3, 0.62, 0.91],
        [0.55, 0.2, 0.9, 0.88],
    ],
    np.float32,
)
cls_probs = np.array(
    [[0.0, 0.0, 0.0, 0.0], [0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.9]],  # background, dog, cat
    np.float32,
)
no_offsets = np.zeros((1, 16), np.float32)
output = d2l.multibox_detection(cls_probs[None], no_offsets, anchors[None], nms_threshold=0.5)
print("class, confidence, box:")
print(output.numpy()[0])
print("the book: dog 0.9, cat 0.9, and the other two rows have class -1")

# %%
names = ["dog", "cat"]
rows = output.numpy()[0]
kept = rows[rows[:, 0] >= 0]
pictures = {
    "before": (anchors, [f"dog {p}" for p in (0.9, 0.8, 0.7)] + ["cat 0.9"]),
    "after": (kept[:, 2:], [f"{names[int(row[0])]} {row[1]:.1f}" for row in kept]),
}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, (title, (shown, texts)) in zip(axes, pictures.items(), strict=True):
    axis.set_xlim(0, 1)
    axis.set_ylim(1, 0)
    axis.set_title(f"{title} NMS")
    axis.set_xlabel("x, share of the width")
    d2l.show_bboxes(axis, shown, texts)
axes[0].set_ylabel("y, share of the height")
plt.show()

# %% tags=["check"]
assert np.allclose(rows[:, :2], [[0, 0.9], [1, 0.9], [-1, 0.8], [-1, 0.7]])
assert np.allclose(kept[:, 2:], anchors[[0, 3]])

# %% [markdown] tags=["en"]
# What the book does differently:
#
# - its rows of padding (images have different numbers of objects) take anchors as if they were objects; here they take
#   part in nothing;
# - it assigns anchors with float32 arithmetic, which names wrong anchors when there are very many; here indices are
#   integers;
# - it works through the boxes in Python; here one compiled operation does a whole batch.

# %% [markdown] tags=["zh"]
# 与书的不同：
#
# - 各图像物体数目不同，需要填充行。书中的填充行会像物体一样占用锚框；这里填充行不参与任何计算；
# - 书中用 float32 计算锚框的下标，锚框很多时会指错；这里的下标是整数；
# - 书中用 Python 循环逐个处理边界框；这里用一个编译好的运算处理整个批量。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. What does `box_iou` give for two squares of side 1, one lying a quarter of a side to the right **and** below?
# 2. Raise the NMS threshold of the example to 0.8. Which boxes stay, and why?
# 3. Two people stand close together, and their boxes have an IoU of 0.6. What does NMS at 0.5 do?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 两个边长为 1 的正方形，一个向右**并且**向下移动四分之一边长，`box_iou` 是多少？
# 2. 把例子中非极大值抑制的阈值提高到 0.8。哪些框留下来，为什么？
# 3. 两个人站得很近，他们的边界框的交并比是 0.6。阈值为 0.5 的非极大值抑制会怎样？
#
# 答案：

# %%
squares = np.array([[0, 0, 1, 1], [0.25, 0.25, 1.25, 1.25]], np.float32)
overlap = d2l.box_iou(squares[:1], squares[1:]).numpy()[0, 0]
print(f"1. {overlap:.4f}, which is 0.75² / (2 - 0.75²) = {0.75**2 / (2 - 0.75**2):.4f}")

print("2. IoUs with the first box:", d2l.box_iou(anchors[:1], anchors[1:]).numpy()[0])
strict = d2l.multibox_detection(cls_probs[None], no_offsets, anchors[None], nms_threshold=0.8)
print("   classes:", strict.numpy()[0, :, 0], "- none overlaps by more than 0.8, so all stay")

people = np.array([[0, 0, 0.4, 1], [0.1, 0, 0.5, 1]], np.float32)
people_iou = d2l.box_iou(people[:1], people[1:]).numpy()[0, 0]
people_kept = d2l.nms(people, np.array([0.9, 0.8], np.float32), 0.5)
print(f"3. IoU {people_iou:.1f}: {len(people_kept)} box is left, one person is lost")

# %% tags=["check"]
assert abs(overlap - 0.75**2 / (2 - 0.75**2)) < 1e-6
assert (strict.numpy()[0, :, 0] >= 0).all() and len(people_kept) == 1
assert abs(people_iou - 0.6) < 1e-5
