# %% [markdown] tags=["en"]
# # DETR: detection as a set
#
# All detectors so far say the same object many times and then suppress the doubles. **DETR** (2020) predicts a *set*: a
# transformer with a fixed number of **queries**, each of which finds one object or nothing. There are no anchors, no cells
# and no non-maximum suppression. What makes it work is the loss: it pairs predictions with objects one to one.
#
# The book ends before it; the course notes that this package follows have it. Attention itself is in chapter 11 of *Dive
# into Deep Learning* (10 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # DETR：把检测看作集合
#
# 到目前为止的检测器都把同一个物体说很多遍，再去掉重复的。**DETR**（2020）预测一个*集合*：
# 一个 transformer 有固定数量的**查询**，每个查询找到一个物体或者什么也没有。没有锚框，没有单元格，也没有非极大值抑制。
# 关键在于损失函数：它把预测与物体一对一地配对。
#
# 书到此之前就结束了；本包所依据的课程笔记中有。注意力机制本身见《动手学深度学习》英文版第 11 章（中文版第 10 章）。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l
from kerascv_d2l.layers.attention import sine_positions
from kerascv_d2l.ops.hungarian import match_one_to_one

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## From image to queries
#
# 1. A backbone makes a map of stride 32. Its pixels, $h \times w$ of them, become a sequence.
# 2. The **encoder**: every place attends to all others. So it sees the whole image at once.
# 3. The **decoder**: each query attends to the other queries ("who has this one already?") and to the places.
# 4. From each query two small networks read a class and a box.
#
# Attention knows no order: without more, a place is not told from its neighbour. So sines and cosines of its row and
# column are added, half of the channels for each, at falling frequencies:
#
# $$p_{2i} = \sin\left(2\pi y / 10000^{2i/d}\right), \quad p_{2i+1} = \cos\left(2\pi y / 10000^{2i/d}\right)$$

# %% [markdown] tags=["zh"]
# ## 从图像到查询
#
# 1. 骨干网络产生步幅为 32 的特征图，它的 $h \times w$ 个像素排成一个序列。
# 2. **编码器**：每个位置关注所有其他位置，所以一次就看到整张图像。
# 3. **解码器**：每个查询关注其他查询（“这个物体已经有谁了？”），也关注各个位置。
# 4. 两个小网络从每个查询读出类别和边界框。
#
# 注意力不知道顺序：不加别的信息，就分不清一个位置和它的邻居。所以要加上行和列的正弦与余弦，各占一半通道，频率递减：
#
# $$p_{2i} = \sin\left(2\pi y / 10000^{2i/d}\right), \quad p_{2i+1} = \cos\left(2\pi y / 10000^{2i/d}\right)$$

# %%
positions = sine_positions(16, 16, 64).numpy().reshape(16, 16, 64)
alike = positions @ positions[5, 10]
figure, axes = plt.subplots(1, 5, figsize=(11, 2.6))
for axis, channel in zip(axes, (0, 6, 32, 38)):
    axis.imshow(positions[:, :, channel], cmap="coolwarm", vmin=-1, vmax=1)
    axis.set_title(f"channel {channel}", fontsize=9)
axes[4].imshow(alike)
axes[4].set_title("product with row 5, column 10", fontsize=9)
for axis in axes:
    axis.set(xticks=[0, 5, 10, 15], yticks=[0, 5, 10, 15])
plt.tight_layout()
plt.show()

# %% tags=["check"]
assert np.unravel_index(alike.argmax(), alike.shape) == (5, 10)

# %% [markdown] tags=["en"]
# What to see: channels 0 and 6 tell rows, 32 and 38 columns. The product with the position of one place is largest there
# and falls off around it: attention *can* look near a place, if it learns to.
#
# ## One-to-one matching
#
# Which prediction learns from which object? The costs of all pairs form a matrix; wanted is the pairing with the least
# sum. Taking the cheapest pair first, then the cheapest that is left, is not that:

# %% [markdown] tags=["zh"]
# 看什么：通道 0 和 6 区分行，32 和 38 区分列。与某个位置的编码的内积在该处最大，向四周减小：
# 只要学会，注意力就*能够*只看某个位置附近。
#
# ## 一对一匹配
#
# 哪个预测从哪个物体学习？所有配对的代价构成一个矩阵，要找的是总和最小的配对。先取最便宜的一对，
# 再取剩下的最便宜的一对，得到的并不是它：

# %%
costs = np.array([[1, 2], [3, 9], [8, 7]], np.float32)  # 3 predictions, 2 objects


def greedy(costs):
    """Cheapest pair first: the prediction of each object."""
    costs, chosen = costs.copy(), np.full(costs.shape[1], -1)
    for _ in chosen:
        prediction, thing = np.unravel_index(costs.argmin(), costs.shape)
        chosen[thing] = prediction
        costs[prediction], costs[:, thing] = np.inf, np.inf
    return chosen


best = match_one_to_one(costs, np.array([True, True])).numpy()
for name, chosen in (("cheapest first", greedy(costs)), ("one to one", best)):
    paid = costs[chosen, [0, 1]]
    print(
        f"{name}: predictions {chosen.tolist()}, {paid[0]:.0f} + {paid[1]:.0f} = {paid.sum():.0f}"
    )

# %% tags=["check"]
assert greedy(costs).tolist() == [0, 2] and best.tolist() == [1, 0]

# %% [markdown] tags=["en"]
# ## The set loss
#
# Equation 1 of the paper: prediction $q$ costs object $i$, of class $c_i$ with box $b_i$,
#
# $$-p_q(c_i) + 5\, \lVert b_q - b_i \rVert_1 - 2\, \mathrm{GIoU}(b_q, b_i)$$
#
# The matched ones learn class and box, by L1 and $1 - \mathrm{GIoU}$ with the same weights; all others learn "no object".
# A second prediction of the same object is thus an error, so none is left to suppress. GIoU (notebook 03 has IoU) falls
# below 0 for boxes that are apart, so that those have a slope too. The loss stands at *every* layer of the decoder.
#
# The original needs 300 epochs of 118,000 photographs to learn where each query looks: one query learns from an object, so
# the backbone hears little about classes. Here many places of a finer map (stride 8) learn each object's class and box, as in
# FCOS. The best places, neighbours last, begin the queries: a query is a **reference box** with scores, and every layer adds to
# both (DAB-DETR, 2022). A score learns to be the IoU of its box (Stable-DINO, 2023), for many boxes lie on one object. The cost
# of a class and its loss have a focal factor, times 2 (Deformable DETR, 2021). One object on an image is then learned from a
# thousand images.

# %% [markdown] tags=["zh"]
# ## 集合损失
#
# 论文的公式 1：预测 $q$ 对物体 $i$（类别 $c_i$，边界框 $b_i$）的代价是
#
# $$-p_q(c_i) + 5\, \lVert b_q - b_i \rVert_1 - 2\, \mathrm{GIoU}(b_q, b_i)$$
#
# 配上对的预测学习类别和边界框（L1 和 $1 - \mathrm{GIoU}$，权重相同）；其余的都学习“没有物体”。
# 所以对同一物体的第二个预测就是错误，不会留下需要抑制的重复。两个框分开时，GIoU（交并比见笔记本 03）小于 0，
# 这时也有斜率。解码器的*每一层*都有这个损失。
#
# 原来的方法要在 118,000 张照片上训练 300 个迭代周期，才能学会每个查询看哪里：每个物体只教一个查询，骨干网络学到的类别信息很少。
# 这里用更细的特征图（步幅 8），像 FCOS 一样，每个物体由许多位置学习它的类别和边界框。最好的位置（相邻的排在后面）成为查询的起点：
# 查询是带有分数的**参考框**，每一层都修正二者（DAB-DETR，2022）。一个物体上有许多框，所以分数学习的是自己的框与物体的 IoU（Stable-DINO，2023）；
# 类别的代价和损失都带焦点因子，乘以 2（Deformable DETR，2021）。
# 每张图像一个物体时，这样一千张图像就能学会。

# %%
SIDE = 128
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
train = d2l.batches(data.train, SIDE, 16, training=True)
val = d2l.batches(data.val, SIDE, 50)

model = d2l.DETR(
    data.class_names,
    backbone="mobilenet_0.25",
    image_size=(SIDE, SIDE),
    num_queries=10,
    width=64,
    heads=4,
    encoder_layers=1,
    decoder_layers=2,
    feedforward=128,
    reference_boxes=True,
)
epochs = 16  # quick: 1
steps = 60  # quick: 1
eagerly = False  # quick: True
falling = keras.optimizers.schedules.CosineDecay(1e-3, epochs * steps)
optimizer = keras.optimizers.AdamW(falling, weight_decay=1e-4, clipnorm=1.0)
model.compile(optimizer, run_eagerly=eagerly)
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
found = {name: value.numpy() for name, value in model.detect(images).items()}
axes = d2l.show_images(images[:8].numpy(), 2, 4, scale=2.2)
for k, axis in enumerate(axes):
    real, good = labels["classes"][k] >= 0, found["scores"][k] > 0.3
    d2l.show_bboxes(axis, labels["boxes"][k][real] * SIDE, colors="w")
    names = [
        f"{data.class_names[c]} {score:.2f}"
        for c, score in zip(found["classes"][k][good], found["scores"][k][good])
    ]
    d2l.show_bboxes(axis, found["boxes"][k][good] * SIDE, names, "r")
axes[0].figure.suptitle("white: objects; red: detections, none suppressed")
plt.tight_layout()
plt.show()

# %% tags=["check-full"]
assert measured["map_50"] > 0.6

# %% [markdown] tags=["en"]
# One large object on an image: the easiest case there is, on which a thousand steps find all, with boxes a few pixels off.
# All ten queries are asked, and none of their answers is suppressed.
#
# ## Where a detection looks
#
# The attention of the last layer tells for each query how much it takes from each place, here the mean of the heads, with
# a map of 16 × 16 places. Below, the way of a query: the box of the place where it began (yellow), what the first layer
# makes of it (cyan), and the second (red).

# %% [markdown] tags=["zh"]
# 每张图像一个大物体：这是最容易的情形，一千步就全都能找到，边界框只差几个像素。
# 十个查询都被询问，它们的回答没有任何抑制。
#
# ## 一个检测看哪里
#
# 最后一层的注意力给出每个查询从每个位置取多少信息，这里取各个头的平均，特征图有 16 × 16 个位置。
# 第二行是查询走过的路：它开始的位置给出的框（黄色），第一层把它移到哪里（青色），第二层移到哪里（红色）。

# %%
outputs = {name: value.numpy() for name, value in model(images[:5]).items()}
sigmoid = 1 / (1 + np.exp(-outputs["logits"][-1]))  # (images, queries, classes)
queries = sigmoid.max(axis=-1).argmax(axis=-1)
axes = d2l.show_images([*images.numpy()[:5]] * 2, 2, 5, scale=2)
for k, query in enumerate(queries):
    place = outputs["chosen"][k, query]
    heat = outputs["attention"][k, :, query].mean(axis=0).reshape(outputs["map_size"])
    image = images[k].numpy()
    axes[k].imshow(d2l.heat_overlay(image, d2l.onto_image(model, image, heat)))
    axes[k].set_title(f"query {query} from place {place}", fontsize=9)
    way = [outputs["place_boxes"][k, place], *outputs["boxes"][:, k, query]]
    d2l.show_bboxes(
        axes[5 + k], d2l.box_center_to_corner(np.stack(way)) * SIDE, colors=["y", "c", "r"]
    )
    axes[5 + k].set(xlim=(0, SIDE), ylim=(SIDE, 0))
plt.tight_layout()
plt.show()

# %% tags=["check"]
assert np.allclose(outputs["attention"].sum(axis=-1), 1, atol=1e-4)

# %% [markdown] tags=["en"]
# What to see: on such easy images the box of the place is right nearly at once, so that red hides cyan and yellow. Queries come
# by the score of their place, and the best is the first one. The attention is no outline of the object: it is at its middle, and
# sometimes elsewhere, as each place has seen much of the image. The paper's pictures show the ends of animals.
#
# ## What a prediction costs
#
# For the first image, the costs of all queries for its object. Each layer has a matching of its own: the cheapest query
# of that layer learns the object.

# %% [markdown] tags=["zh"]
# 看什么：在这样容易的图像上，位置给出的框几乎一开始就是对的，所以红色盖住了青色和黄色。查询按其位置的分数排列，最好的是第一个。
# 注意力并不是物体的轮廓：它在物体的中间，有时也在别处，因为每个位置都看过图像的很大一部分。论文中的图显示出动物的头尾。
#
# ## 一个预测的代价
#
# 第一张图像中，所有查询对物体的代价。每一层有自己的匹配：该层中代价最小的查询学习这个物体。

# %%
outputs = model(images)
of_queries = model.costs(labels, outputs["logits"], outputs["boxes"])[:, 0, :, 0].numpy()
plt.figure(figsize=(5, 3.2))
for layer, row in enumerate(of_queries, start=1):
    plt.plot(row, "o" if layer == 1 else "x", label=f"layer {layer}")
plt.xlabel("query")
plt.ylabel("cost for the object")
plt.legend()
plt.show()
print("the cheapest query of each layer:", of_queries.argmin(axis=1).tolist())

# %% [markdown] tags=["en"]
# ## On the book's data, and what differs from the paper
#
# `python scripts/train_detector.py --model detr --data banana_detection` trains it with a ResNet-18 and 40 queries on the
# book's data. With `--weights imagenet` it starts better. Use a GPU.
#
# `d2l.DETR(..., reference_boxes=False)` is the paper's model: learned queries without a place, a map of stride 32,
# cross-entropy with a weight of 0.1 on "no object". With 100 queries, 6 + 6 layers and a ResNet-50 it takes the published weights
# (`kerascv_d2l.models.detr_weights.load_published`). Here, for a minute or two of training: ten queries, one layer of encoder and two
# of decoder, a MobileNet from random weights, and one rate of learning for all, where the paper has a tenth for the
# backbone.

# %% [markdown] tags=["zh"]
# ## 在书中的数据集上，以及与论文的不同
#
# `python scripts/train_detector.py --model detr --data banana_detection` 用 ResNet-18 和 40 个查询在书中的数据集上训练。
# 加上 `--weights imagenet` 起点更好。请使用 GPU。
#
# `d2l.DETR(..., reference_boxes=False)` 是论文的模型：学到的查询没有位置，特征图的步幅是 32，交叉熵中“没有物体”的权重是 0.1。
# 有 100 个查询、6 + 6 层和 ResNet-50 时，它可以使用公布的权重（`kerascv_d2l.models.detr_weights.load_published`）。
# 这里只训练一两分钟，所以用十个查询、一层编码器、两层解码器、从随机权重开始的 MobileNet；
# 所有部分用同一个学习率，而论文中骨干网络的学习率是十分之一。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. What does the matching do with more objects than predictions?
# 2. Does the loss depend on the order in which the objects are listed?
# 3. How many of its detections with a score above 0.3 would non-maximum suppression remove?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 物体比预测多时，匹配会怎样？
# 2. 损失与物体列出的顺序有关吗？
# 3. 在分数大于 0.3 的检测中，非极大值抑制会去掉多少？
#
# 答案：

# %%
without = match_one_to_one(costs.T, np.array([True] * 3)).numpy()  # 2 predictions, 3 objects
print("1.", without.tolist(), "the dearest object gets none (-1), and teaches nothing")

turned = match_one_to_one(costs[:, ::-1].copy(), np.array([True, True])).numpy()
print(f"2. {best.tolist()} and {turned[::-1].tolist()}: no, the pairs are the same, it is a set")

before = after = 0
for scores, boxes in zip(found["scores"], found["boxes"]):
    good = scores > 0.3
    before += good.sum()
    after += len(d2l.nms(boxes[good], scores[good], 0.5))
print(f"3. {before - after} of {before}, on {len(found['scores'])} images")

# %% tags=["check"]
assert sorted(without.tolist()) == [-1, 0, 1] and best.tolist() == turned[::-1].tolist()
