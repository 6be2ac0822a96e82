# %% [markdown] tags=["en"]
# # Multiscale object detection
#
# Anchors at every pixel of an image are far too many. But small objects can lie at many places and large ones only at
# few: many small anchors and few large ones are enough. The feature maps of a convolutional network suit this. A map
# near the input has many pixels, and each sees a small part of the image; a late map has few, and each sees nearly all.
#
# This notebook goes with section 14.5 of *Dive into Deep Learning* (13.5 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 多尺度目标检测
#
# 以图像的每个像素为中心生成锚框，数量实在太多。但是小物体可能出现的位置多，大物体可能出现的位置少：
# 小锚框要多，大锚框只要几个就够了。卷积网络的特征图正好合适：靠近输入的特征图像素多，每个像素只看到图像的一小部分；
# 靠后的特征图像素少，每个像素几乎看到整张图像。
#
# 本笔记本对应《动手学深度学习》英文版 14.5 节，中文版 13.5 节。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

data = d2l.generate_detection(num_train=4, num_val=1, image_size=(561, 728), seed=5)
img = data.train.images[0]
h, w = img.shape[:2]

# %% [markdown] tags=["en"]
# ## Anchors on a feature map
#
# `multibox_prior` only looks at the height and width of the map, and spreads the centres evenly over the image. A map
# of 4 × 4 pixels with anchors of size 0.15:

# %% [markdown] tags=["zh"]
# ## 特征图上的锚框
#
# `multibox_prior` 只看特征图的高和宽，把锚框中心均匀分布在图像上。4 × 4 的特征图，锚框大小为 0.15：


# %%
def display_anchors(fmap_w, fmap_h, s):  # the book's function
    fmap = np.zeros((1, fmap_h, fmap_w, 10), np.float32)
    anchors = d2l.multibox_prior(fmap, sizes=s, ratios=[1, 2, 0.5])
    axes = plt.figure(figsize=(5, 3.9)).subplots()
    axes.imshow(img)
    d2l.show_bboxes(axes, anchors[0].numpy() * [w, h, w, h])
    axes.set_title(f"{fmap_h} x {fmap_w} map, size {s[0]}: {anchors.shape[1]} anchors")
    axes.set_xlabel("x in pixels")
    axes.set_ylabel("y in pixels")
    plt.show()
    return anchors.shape[1]


small = display_anchors(fmap_w=4, fmap_h=4, s=[0.15])

# %% [markdown] tags=["en"]
# Half the map, larger anchors for larger objects; then one pixel for the whole image.

# %% [markdown] tags=["zh"]
# 特征图的高和宽减半，锚框变大，用来检测更大的物体；最后只有一个像素，对应整张图像。

# %%
medium = display_anchors(fmap_w=2, fmap_h=2, s=[0.4])

# %%
large = display_anchors(fmap_w=1, fmap_h=1, s=[0.8])

# %% tags=["check"]
assert (small, medium, large) == (48, 12, 3)

# %% [markdown] tags=["en"]
# What to see: 48, 12 and 3 anchors, where one anchor at each pixel of the image would make 408,408. Anchors of the
# 4 × 4 map do not overlap their neighbours, those of the other two nearly fill the image.
#
# ## Five scales of one detector
#
# The detector of a later notebook, `TinySSD`, has five maps. For images of 256 × 256 pixels they are 32, 16, 8, 4 and 1
# pixels high. Each has anchors of two sizes and three ratios, four at a pixel.

# %% [markdown] tags=["zh"]
# 看什么：只有 48、12 和 3 个锚框，而图像的每个像素一个锚框就有 408,408 个。
# 4 × 4 特征图上相邻的锚框互不重叠，另外两种几乎铺满图像。
#
# ## 一个检测器的五个尺度
#
# 后面的检测器 `TinySSD` 有五个特征图。图像为 256 × 256 像素时，它们的高分别是 32、16、8、4 和 1 像素。
# 每个特征图有两种大小、三种宽高比，每个像素四个锚框。

# %%
sizes = [[0.2, 0.272], [0.37, 0.447], [0.54, 0.619], [0.71, 0.79], [0.88, 0.961]]
sides = [32, 16, 8, 4, 1]
by_map = [
    d2l.multibox_prior(np.zeros((1, side, side, 1), np.float32), s, [1, 2, 0.5])[0].numpy()
    for side, s in zip(sides, sizes, strict=True)
]
total = sum(len(anchors) for anchors in by_map)
print("anchors:", [len(anchors) for anchors in by_map], "together:", total, "(the book: 5444)")

# %% tags=["check"]
assert total == 5444 == sum(4 * side**2 for side in sides)
assert h * w == 408_408

# %% [markdown] tags=["en"]
# Which map is responsible for which objects? Take square objects of all sizes at random places, and look up on which
# map the anchor lies that overlaps each most.

# %% [markdown] tags=["zh"]
# 哪个特征图负责哪些物体？随机放置各种大小的正方形物体，看与它交并比最大的锚框在哪个特征图上。

# %%
rng = np.random.default_rng(0)
size = rng.uniform(0.1, 1, 2000)
corner = rng.uniform(0, 1, (2000, 2)) * (1 - size[:, None])
objects = np.concatenate([corner, corner + size[:, None]], axis=1).astype(np.float32)
best = np.stack([d2l.box_iou(objects, a).numpy().max(axis=1) for a in by_map], axis=1)
chosen = best.argmax(axis=1)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
axes[0].hist(
    [size[chosen == k] for k in range(5)],
    bins=18,
    stacked=True,
    label=[f"{side} x {side}" for side in sides],
)
axes[0].set_ylabel("objects")
axes[0].set_title("the map that fits best")
axes[0].set_ylim(0, 180)
axes[0].legend(title="map", fontsize=8, ncols=3)
axes[1].plot(size, best.max(axis=1), ".", markersize=2)
axes[1].axhline(0.5, color="grey", linestyle="--", label="0.5: an anchor that fits")
axes[1].set_ylabel("IoU with the best anchor")
axes[1].set_title("how well it fits")
axes[1].legend(fontsize=8)
for axis in axes:
    axis.set_xlabel("side of the object, share of the image")
plt.show()

# %% [markdown] tags=["en"]
# What to see: each map has its range of sizes, and every object above 0.2 has an anchor with an IoU of 0.5 or more.
# Below, the smallest anchor is too large: this detector learns nothing of such objects but from the one anchor
# that each is given in any case.
#
# What the book does differently: nothing here but the numbers. It passes anchor sizes on from map to map and leaves the
# choice to its reader; the two pictures above are a way to check a choice against the objects of a data set.

# %% [markdown] tags=["zh"]
# 看什么：每个特征图负责一段大小；大于 0.2 的物体都有交并比不小于 0.5 的锚框。
# 更小的物体，最小的锚框也太大：检测器只能从必定分给它的那一个锚框学习。
#
# 与书的不同：这里只有数字不同。书中给出各特征图的锚框大小，由读者自己选择；
# 上面两张图可以用来检查所选的大小是否适合某个数据集的物体。

# %% tags=["check"]
top = best.max(axis=1)
assert (top[size > 0.2] >= 0.5).all()
assert (np.diff([np.median(size[chosen == k]) for k in range(5)]) > 0).all()
assert (top[size < 0.12] < 0.5).all()

# %% [markdown] tags=["en"]
# ## Receptive fields
#
# An anchor can only be judged by what its pixel of the map *sees*. Each 3 × 3 convolution widens what a pixel sees by
# two pixels of its map, and each 2 × 2 pooling doubles the distance between pixels.

# %% [markdown] tags=["zh"]
# ## 感受野
#
# 锚框只能根据特征图上对应像素*看到*的内容来判断。每个 3 × 3 卷积使感受野增加该特征图的两个像素，
# 每个 2 × 2 汇聚使相邻像素的距离加倍。

# %%
field, step, fields = 1, 1, []
for _ in range(6):  # each: two convolutions, one pooling
    field += 2 * 2 * step + step
    step *= 2
    fields.append(field)
for side, seen, s in zip(sides, fields[2:], sizes, strict=False):
    print(
        f"map {side:2}: a pixel sees {seen} pixels; its anchors: {s[0] * 256:.0f}, {s[1] * 256:.0f}"
    )

# %% tags=["check"]
assert fields == [6, 16, 36, 76, 156, 316]

# %% [markdown] tags=["en"]
# The pixels of the first map see 36 pixels while their anchors have 51 and 70: they see the middle of the object, and
# must guess its borders. (The 3 × 3 convolution that predicts widens it by 16 pixels more.)

# %% [markdown] tags=["zh"]
# 第一个特征图的像素只看到 36 个像素，而锚框边长是 51 和 70：它们看到物体的中部，边界只能猜测。
# （用于预测的 3 × 3 卷积还会再增加 16 个像素。）

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. How many anchors does `TinySSD` have on images of 512 × 512 pixels?
# 2. Add a map of 64 × 64 pixels with anchors of size 0.1. How small may objects be now?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 图像为 512 × 512 像素时，`TinySSD` 有多少个锚框？
# 2. 增加一个 64 × 64 的特征图，锚框大小为 0.1。现在物体可以小到多少？
#
# 答案：

# %%
print("1.", 4 * sum(side**2 for side in (64, 32, 16, 8, 1)))

extra = d2l.multibox_prior(np.zeros((1, 64, 64, 1), np.float32), [0.1, 0.14], [1, 2, 0.5])[0]
for side in (0.06, 0.08, 0.1, 0.12):
    corner = rng.uniform(0, 1 - side, (500, 2))
    squares = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    with_extra = (d2l.box_iou(squares, extra).numpy().max(axis=1) >= 0.5).mean()
    without = (d2l.box_iou(squares, by_map[0]).numpy().max(axis=1) >= 0.5).mean()
    print(
        f"2. side {side}: share with an anchor at IoU 0.5: {without:.2f} before, {with_extra:.2f} now"
    )
