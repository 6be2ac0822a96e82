# %% [markdown] tags=["en"]
# # Single-shot multibox detection
#
# The parts are there: anchors at several scales, labels for them, offsets, non-maximum suppression. **SSD** puts them
# together. A network makes a series of smaller and smaller feature maps; on each map one small convolution predicts a
# class for every anchor, another one four offsets. One pass finds objects of all sizes, hence "single shot".
#
# This notebook goes with section 14.7 of *Dive into Deep Learning* (13.7 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 单发多框检测（SSD）
#
# 需要的部件都有了：多个尺度的锚框、锚框的标注、偏移量、非极大值抑制。**SSD** 把它们组合起来。
# 网络产生一系列越来越小的特征图；在每个特征图上，一个小卷积预测每个锚框的类别，另一个预测四个偏移量。
# 一次前向计算就能找到各种大小的物体，所以叫“单发”。
#
# 本笔记本对应《动手学深度学习》英文版 14.7 节，中文版 13.7 节。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## Predictions
#
# With $a$ anchors at each pixel and $q$ classes, the class predictor has $a(q + 1)$ output channels, background
# included; the box predictor has $4a$. Both keep the map's height and width, so that the channels of a pixel speak
# about the anchors of that pixel. Maps of different sizes are flattened and joined. The book's examples (channels come
# last in TensorFlow):

# %% [markdown] tags=["zh"]
# ## 预测层
#
# 每个像素有 $a$ 个锚框、共 $q$ 个类别时，类别预测层有 $a(q + 1)$ 个输出通道（包括背景），边界框预测层有 $4a$ 个。
# 两者都保持特征图的高和宽，所以一个像素的各通道对应这个像素的锚框。不同大小的特征图展平后连接起来。
# 下面是书中的例子（TensorFlow 中通道在最后）：

# %%
Y1 = d2l.cls_predictor(5, 10)(np.zeros((2, 20, 20, 8), np.float32))
Y2 = d2l.cls_predictor(3, 10)(np.zeros((2, 10, 10, 16), np.float32))
print(Y1.shape, "the book: 2, 55, 20, 20")
print(Y2.shape, "the book: 2, 33, 10, 10")
print(d2l.concat_preds([Y1, Y2]).shape, "the book: 2, 25300")
halved = d2l.down_sample_blk(10)(np.zeros((2, 20, 20, 3), np.float32))
base = d2l.base_net()(np.zeros((2, 256, 256, 3), np.float32))
print(halved.shape, "the book: 2, 10, 10, 10")
print(base.shape, "the book: 2, 64, 32, 32")

# %% [markdown] tags=["en"]
# ## The model
#
# `TinySSD` has five blocks: the base network, three that halve the map, and global max-pooling.

# %% [markdown] tags=["zh"]
# ## 模型
#
# `TinySSD` 有五个块：基本网络，三个把特征图减半的块，以及全局最大汇聚。

# %%
anchors, cls_preds, bbox_preds = d2l.TinySSD(num_classes=1)(np.zeros((2, 256, 256, 3), np.uint8))
print("anchors:", anchors.shape, "the book: 1, 5444, 4")
print("classes:", cls_preds.shape, "the book, for 32 images: 32, 5444, 2")
print("offsets:", bbox_preds.shape, "the book, for 32 images: 32, 21776")

# %% tags=["check"]
assert Y1.shape == (2, 20, 20, 55) and Y2.shape == (2, 10, 10, 33)
assert d2l.concat_preds([Y1, Y2]).shape == (2, 25300)
assert halved.shape == (2, 10, 10, 10) and base.shape == (2, 32, 32, 64)
assert anchors.shape == (1, 5444, 4) and bbox_preds.shape == (2, 21776)

# %% [markdown] tags=["en"]
# ## Losses
#
# The loss of an anchor is the cross-entropy of its class, and for anchors with an object the L1 distance of its four
# offsets. Two more losses are often used. *Smooth* L1 is a parabola near 0:
#
# $$f(x) = \begin{cases}(\sigma x)^2 / 2 & |x| < 1/\sigma^2\\ |x| - 0.5/\sigma^2 & \text{otherwise}\end{cases}$$
#
# *Focal* loss, $-\alpha (1 - p)^\gamma \log p$ with $p$ the probability of the true class, makes light of anchors that
# are right already.

# %% [markdown] tags=["zh"]
# ## 损失函数
#
# 锚框的损失是类别的交叉熵，对有物体的锚框再加上四个偏移量的 L1 距离。另外两种损失也常用。
# *平滑* L1 在 0 附近是抛物线：
#
# $$f(x) = \begin{cases}(\sigma x)^2 / 2 & |x| < 1/\sigma^2\\ |x| - 0.5/\sigma^2 & \text{otherwise}\end{cases}$$
#
# *焦点*损失 $-\alpha (1 - p)^\gamma \log p$ 中 $p$ 是真实类别的概率，它减轻已经预测正确的锚框的影响。

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
x = np.linspace(-2, 2, 201, dtype=np.float32)
for sigma, line in ((10, "-"), (1, "--"), (0.5, "-.")):
    axes[0].plot(x, d2l.smooth_l1(x, sigma), line, label=f"sigma = {sigma}")
axes[0].set(xlabel="error of an offset", ylabel="loss", title="smooth L1")
p = np.linspace(0.01, 1, 100)
for gamma, line in ((0, "-"), (1, "--"), (5, "-.")):
    axes[1].plot(p, -((1 - p) ** gamma) * np.log(p), line, label=f"gamma = {gamma}")
axes[1].set(xlabel="probability of the true class", ylabel="loss", title="focal loss, alpha = 1")
for axis in axes:
    axis.legend()
plt.show()

# %% [markdown] tags=["en"]
# What to see: $\sigma = 10$ is nearly L1. With $\gamma = 0$ the focal loss is cross-entropy; with $\gamma = 5$ an anchor
# that is right with a probability of 0.5 hardly counts any more.
#
# ## Training
#
# One kind of shape, one or two on an image of 64 × 64 pixels. `fit` takes images and boxes; the model
# labels its anchors itself. The loss `"ssd"` counts, for each anchor with an object, only the three background anchors
# with the largest loss. The book counts all of them, thousands for each object, and needs many more steps until it
# predicts anything but background.

# %% [markdown] tags=["zh"]
# 看什么：$\sigma = 10$ 时几乎就是 L1。$\gamma = 0$ 时焦点损失就是交叉熵；$\gamma = 5$ 时，
# 以 0.5 的概率预测正确的锚框几乎不再起作用。
#
# ## 训练
#
# 只有一种形状，每张 64 × 64 像素的图像上有一两个。`fit` 接受图像和边界框，锚框的标注由模型自己完成。
# 损失 `"ssd"` 对每个有物体的锚框只计入损失最大的三个背景锚框。书中计入所有背景锚框，每个物体对应上千个，
# 需要多得多的步数才能预测出背景以外的东西。

# %%
SIDE = 64
data = d2l.load("generated", "detection", num_train=600, image_size=SIDE, scenes="large")
train = d2l.batches(data.train, SIDE, 16, training=True)
val = d2l.batches(data.val, SIDE, 50)

epochs = 18  # quick: 1
steps = 37  # quick: 2
model = d2l.TinySSD(class_names=data.class_names, image_size=(SIDE, SIDE))
falling = keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps)
model.compile(keras.optimizers.Adam(falling), d2l.TinySSD.make_loss("ssd"))
history = model.fit(
    train, steps_per_epoch=steps, epochs=epochs, callbacks=[d2l.LiveCurves()], verbose=0
).history

# %% [markdown] tags=["en"]
# Class error and box error of the training are nearly blind: most anchors are background, and who calls all of them
# background has a class error of about one per cent. The measure of detectors is **mean average precision** (mAP): a
# detection counts if its class is right and its IoU with an object is at least 0.5; average precision is the area under
# the curve of precision over recall.

# %% [markdown] tags=["zh"]
# 训练中的类别误差和边界框误差几乎看不出好坏：大多数锚框是背景，把它们全部当作背景，类别误差也只有大约百分之一。
# 检测器的度量是**平均精度均值**（mAP）：类别正确、与物体的交并比不小于 0.5 的检测算对；
# 平均精度是精度对召回率曲线下的面积。

# %%
measured = d2l.evaluate_detections(model, val)
print(f"class error {history['class_error'][-1]:.4f}, the book, on bananas: 0.0032 to 0.0033")
print(f"bbox mae    {history['bbox_mae'][-1]:.4f}, the book, on bananas: 0.0031 to 0.0032")
print(f"mAP at IoU 0.5: {measured['map_50']:.2f}")

# %% tags=["check-full"]
assert measured["map_50"] > 0.8

# %% [markdown] tags=["en"]
# ## Detection
#
# `detect` takes images of any size, moves the anchors by the predicted offsets, and suppresses doubles.

# %% [markdown] tags=["zh"]
# ## 检测
#
# `detect` 接受任意大小的图像，按预测的偏移量移动锚框，并去掉重复的检测。

# %%
images, labels = next(iter(val))
found = model.detect(images)
axes = d2l.show_images(images[:8].numpy(), 2, 4, scale=2.2)
for k, axis in enumerate(axes):
    real, good = labels["classes"][k] >= 0, found["scores"][k] > 0.5
    d2l.show_bboxes(axis, labels["boxes"][k][real] * SIDE, colors="w")
    scores = [f"{score:.2f}" for score in found["scores"][k][good]]
    d2l.show_bboxes(axis, found["boxes"][k][good] * SIDE, scores, "r")
axes[0].figure.suptitle("white: objects; red: detections with their scores")
plt.tight_layout()
plt.show()

# %% [markdown] tags=["en"]
# What to see: most objects are found, with boxes close to the white ones. Hard are two objects that overlap, and those
# that something hides.
#
# ## On the book's data
#
# Replace the second line of the training by `data = d2l.load("banana_detection", "detection")` and 64 by 256. The book's
# own training is `python scripts/train_detector.py --data banana_detection --recipe book`: SGD at 0.2, all anchors, 20
# epochs.

# %% [markdown] tags=["zh"]
# 看什么：大多数物体都能找到，边界框与白框接近。互相重叠的物体和被遮挡的物体比较难。
#
# ## 在书中的数据集上
#
# 把训练的第二行换成 `data = d2l.load("banana_detection", "detection")`，64 换成 256。书中的训练方法是
# `python scripts/train_detector.py --data banana_detection --recipe book`：SGD，学习率 0.2，所有锚框，20 个迭代周期。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. How large is the class error of a detector that says "background" for every anchor?
# 2. How many of a batch's anchors have an object? What does that mean for the cross-entropy over all anchors?
# 3. Lower the score threshold of the picture from 0.5 to 0.1. What happens to recall and precision?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 如果检测器把所有锚框都预测为“background”（背景），类别误差有多大？
# 2. 一个批量中有多少锚框含有物体？这对所有锚框的交叉熵意味着什么？
# 3. 把上图的分数阈值从 0.5 降到 0.1，召回率和精度会怎样？
#
# 答案：

# %%
anchors = model(images[:1])[0]
rows = np.concatenate([labels["classes"].numpy()[..., None], labels["boxes"].numpy()], axis=-1)
classes = d2l.multibox_target(anchors, rows.astype(np.float32))[2].numpy()
print(f"1. {(classes > 0).mean():.4f}")
print(f"2. {(classes > 0).sum(axis=1).mean():.1f} of {classes.shape[1]} on an image: the sum is")
print("   nearly all background, and saying so is a quick way to a small loss")
objects = (labels["classes"].numpy() >= 0).sum()
for threshold in (0.5, 0.1):
    count = (found["scores"].numpy() > threshold).sum()
    print(f"3. scores above {threshold}: {count} detections for {objects} objects")
print("   recall can only rise, precision falls as wrong detections come in")
