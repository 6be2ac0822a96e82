# %% [markdown] tags=["en"]
# # Localisation and OverFeat
#
# Between "what is on the image" and "find all objects" lies a simpler question: there is **one** object; what is it,
# and where? That takes one network with two outputs. And a network that answers it for a small window answers it for
# all windows of a large image **in one pass**, if its dense layers are written as convolutions. That is OverFeat (2013),
# from which the step to SSD (notebook 07) is short.
#
# The book has no such section; the course notes that this package follows have.

# %% [markdown] tags=["zh"]
# # 目标定位与 OverFeat
#
# 在“图像上是什么”和“找出所有物体”之间有一个较简单的问题：只有**一个**物体，它是什么，在哪里？一个有两个输出的网络就够了。
# 如果网络能对一个小窗口回答这个问题，那么把全连接层写成卷积层，它就能**一次**回答大图像的所有窗口。
# 这就是 OverFeat（2013），离 SSD（笔记本 07）只有一步。
#
# 书中没有这一节；本包所依据的课程笔记中有。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## One object an image
#
# Detection data with a single object each. Of data with several, `keep_largest_object` leaves the largest:
# `data = d2l.keep_largest_object(d2l.load("FOLDER", "detection"))`; for the book's bananas
# `data = d2l.load("banana_detection", "detection")`.

# %% [markdown] tags=["zh"]
# ## 每张图像一个物体
#
# 目标检测数据，每张图像只有一个物体。对有多个物体的数据，`keep_largest_object` 只留下最大的：
# `data = d2l.keep_largest_object(d2l.load("FOLDER", "detection"))`；书中的香蕉数据集是
# `data = d2l.load("banana_detection", "detection")`。

# %%
num_train, epochs = 1000, 12  # quick: 64, 1
size, batch_size = (64, 64), 32
scenes = d2l.SceneSettings(
    max_objects=1,
    object_size=(0.4, 0.8),
    empty=0.0,
    clutter=0,
    occlusion=0.0,
    lighter=True,
    texture=0.5,
    turn=0.125,
)
data = d2l.load(
    "generated",
    "detection",
    num_train=num_train,
    num_val=60,
    num_classes=3,
    image_size=size,
    scenes=scenes,
)
print(data.describe())

# %% [markdown] tags=["en"]
# ## One network, two outputs
#
# The loss adds cross-entropy for the class and the squared error of the four coordinates $b$, normalised to 0 … 1:
#
# $$L = L_\mathrm{class} + \lambda \cdot \tfrac14 \|b - \hat b\|^2, \qquad \lambda = 20$$
#
# The weight $\lambda$ makes up for squares that are around 0.01. The class is read from the mean of the feature map; the
# box is not, because a mean does not know where things were.

# %% [markdown] tags=["zh"]
# ## 一个网络，两个输出
#
# 损失函数是类别的交叉熵，加上四个坐标 $b$（归一化到 0 … 1）的平方误差：
#
# $$L = L_\mathrm{class} + \lambda \cdot \tfrac14 \|b - \hat b\|^2, \qquad \lambda = 20$$
#
# 平方误差大约只有 0.01，所以需要权重 $\lambda$。类别由特征图的平均得到；边界框不能这样，因为平均之后就不知道东西在哪里了。

# %%
pixels = keras.Input((*size, 3))
x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
for filters in (16, 32, 64):  # as the base network of TinySSD, with one convolution a block
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(d2l.BatchNorm()(x)))
backbone = keras.Model(pixels, x)
model = d2l.Localizer(backbone, data.class_names, image_size=size)
steps = d2l.steps_per_epoch(data.train, batch_size)
model.compile(
    d2l.make_optimizer("adam", 2e-3, schedule="cosine", steps=steps * epochs),
    jit_compile=d2l.resolve_jit_compile("auto"),
)
history = model.fit(
    d2l.batches(data.train, size, batch_size, training=True, transform=d2l.RandomHorizontalFlip()),
    epochs=epochs,
    steps_per_epoch=steps,
    validation_data=d2l.batches(data.val, size, batch_size),
    callbacks=[d2l.LiveCurves(names=("loss", "val_loss", "val_accuracy", "val_localized"))],
    shuffle=False,  # the batches are shuffled already
    verbose=0,
).history
validation = d2l.batches(data.val, size, batch_size)
metrics, _ = d2l.evaluate_localization(model.localize, validation, data.class_names)
for name in ("accuracy", "mean_iou", "iou_50", "localized"):
    print(f"{name:10} {metrics[name]:.2f}")

# %% tags=["check-full"]
assert metrics["accuracy"] > 0.5 and metrics["mean_iou"] > 0.4

# %% [markdown] tags=["en"]
# `localized` is the measure: the share of images with the right class *and* a box whose IoU with the true one is at least
# 0.5.

# %% [markdown] tags=["zh"]
# 衡量标准是 `localized`：类别正确*并且*边界框与真实边界框的交并比至少为 0.5 的图像所占的比例。

# %%
found = model.localize(data.val.images[:8])
axes = d2l.show_images(data.val.images[:8], 2, 4, scale=1.9)
for k, axis in enumerate(axes):
    truth = data.val.targets["boxes"][k] * 64
    d2l.show_bboxes(axis, truth, colors="w")
    name = found["names"].numpy()[k].decode()
    d2l.show_bboxes(axis, found["boxes_px"][k : k + 1], [name], colors="r")
plt.gcf().suptitle("white: truth, red: found")
plt.show()

# %% [markdown] tags=["en"]
# ## All windows in one pass
#
# A dense layer behind a map of $h \times w$ cells is a convolution with a kernel of $h \times w$ that fits just once. On a
# larger map it fits more often, and gives the answer of every window. Windows that overlap share their features, so a
# pass costs far less than running the network on each.
#
# Without padding the two are equal, number for number:

# %% [markdown] tags=["zh"]
# ## 一次计算所有窗口
#
# 在 $h \times w$ 的特征图后面的全连接层，就是卷积核为 $h \times w$、恰好只能放一次的卷积层。特征图更大时它能放多次，
# 给出每个窗口的答案。重叠的窗口共用特征，所以一次计算远比对每个窗口运行一次网络便宜。
#
# 不使用填充时，两者的数值完全相同：

# %%
layers = keras.layers
small = keras.Sequential(
    [
        keras.Input((20, 20, 3)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(5),
    ]
)
sliding = d2l.SlidingClassifier(small)
image = np.random.default_rng(0).uniform(0, 1, (1, 36, 44, 3)).astype(np.float32)
in_one_pass = sliding(image).numpy()[0]
one_by_one = np.empty_like(in_one_pass)
for (i, j), (top, left) in zip(
    np.ndindex(in_one_pass.shape[:2]), sliding.corners(in_one_pass.shape[:2]).reshape(-1, 2)
):
    one_by_one[i, j] = small(image[:, top : top + 20, left : left + 20])[0]
print("windows", in_one_pass.shape[:2], "stride", sliding.stride)
print(f"largest difference {np.abs(in_one_pass - one_by_one).max():.1e}")

# %% tags=["check"]
assert in_one_pass.shape == (5, 7, 5) and sliding.stride == 4
assert np.abs(in_one_pass - one_by_one).max() < 1e-5

# %% [markdown] tags=["en"]
# ## OverFeat
#
# The localizer of above slides over a larger image, at several scales. Every window says a class, how sure it is, and a
# box. Windows on the same object give nearly the same box. OverFeat does not suppress all but the best (notebook 04); it
# **merges**: the two closest boxes become their mean, again and again, and their scores add up.

# %% [markdown] tags=["zh"]
# ## OverFeat
#
# 让上面的定位网络在更大的图像上滑动，并使用几种尺度。每个窗口给出一个类别、置信度和边界框。
# 同一物体上的窗口给出几乎相同的边界框。OverFeat 不是只留最好的（笔记本 04 的非极大值抑制），而是**合并**：
# 最接近的两个框变成它们的平均，反复进行，得分相加。

# %%
boxes = np.array([[0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.54], [0.6, 0.6, 0.9, 0.9]], np.float32)
merged, sums, counts = d2l.merge_boxes(boxes, np.array([0.9, 0.8, 0.7], np.float32))
for box, score, count in zip(merged.numpy(), sums.numpy(), counts.numpy()):
    print("box", [f"{value:.2f}" for value in box], f"score {score:.1f}, made of {count}")

# %% tags=["check"]
assert counts.numpy().tolist() == [2, 1] and np.allclose(merged[0], [0.11, 0.1, 0.5, 0.52])

# %%
# A validation image with more ground around it: 80 x 96 pixels, of which each window sees the object.
canvas = np.pad(data.val.images[6], ((8, 8), (16, 16), (0, 0)), mode="edge")
answer = d2l.slide(model, canvas, scales=(1.25,), score_threshold=0.4, merge_threshold=1.0)
best = answer["boxes"][:3] * [96, 80, 96, 80]
labels = [
    f"{data.class_names[k]} {score:.0f}" for k, score in zip(answer["classes"], answer["scores"])
]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
axes[0].imshow(canvas)
d2l.show_bboxes(axes[0], best, labels[:3])
axes[0].set(title="merged boxes, sums of scores", xlabel="x in pixels", ylabel="y in pixels")
shown = axes[1].imshow(answer["maps"][0].max(axis=-1), vmin=0, vmax=1)
axes[1].set(title="largest mean probability", xlabel="x in pixels")
figure.colorbar(shown, ax=axes[1])
plt.show()

# %% [markdown] tags=["en"]
# What to see: windows of 64 × 64 pixels that overlap agree on the object, and their boxes become one with a high sum of
# scores. All these windows see a part of it. On an image with much empty ground the method fails:

# %% [markdown] tags=["zh"]
# 看什么：相互重叠的 64 × 64 像素窗口对物体的看法一致，它们的边界框合并成一个，得分之和很高。这些窗口都看到了物体的一部分。
# 如果图像上有大片空地，这种方法就会失败：

# %%
empty = np.full((1, *size, 3), canvas[:8, :8].mean(axis=(0, 1)), np.uint8)
found = model.localize(empty)
print(
    "nothing at all:", found["names"].numpy()[0].decode(), f"{np.max(found['probabilities']):.2f}"
)

# %% [markdown] tags=["en"]
# The network never saw a window without an object and has no class for "nothing". SSD adds that class, background, and
# with it the whole method becomes a detector that trains in one go.
#
# ## Exercises
#
# 1. How many windows has an image of 128 × 160 here, and how much arithmetic do they share?
# 2. Which IoU has a localizer that always answers with the middle box?
# 3. Why are boxes merged here and suppressed in SSD?

# %% [markdown] tags=["zh"]
# 网络从未见过没有物体的窗口，也没有表示“什么也没有”的类别。SSD 加上了背景这个类别，整个方法就成为可以一次训练的检测器。
#
# ## 练习
#
# 1. 这里 128 × 160 的图像有多少个窗口？它们共用多少计算？
# 2. 总是回答中间那个框的定位网络，交并比是多少？
# 3. 为什么这里合并边界框，而 SSD 抑制边界框？

# %% [markdown] tags=["en"]
# **Answers.** 1. Pixels that windows cover, one by one, against pixels of the image:

# %% [markdown] tags=["zh"]
# **答案。** 1. 逐个窗口覆盖的像素总数，与图像的像素数相比：

# %%
windows = d2l.SlidingClassifier(model)
rows, columns = windows(np.zeros((1, 128, 160, 3), np.float32))["boxes"].shape[1:3]
times = rows * columns * 64 * 64 / (128 * 160)
print(f"{rows} x {columns} windows of stride {windows.stride}: {times:.0f} times the pixels")

# %% tags=["check"]
assert (rows, columns) == (9, 13) and windows.stride == 8

# %% [markdown] tags=["en"]
# 2. Measured against the validation boxes:

# %% [markdown] tags=["zh"]
# 2. 与验证集的边界框比较：

# %%
truth = np.concatenate(data.val.targets["boxes"])
middle = d2l.box_iou(np.array([[0.25, 0.25, 0.75, 0.75]], np.float32), truth)[0].numpy()
print(f"middle box {middle.mean():.2f}, the network {metrics['mean_iou']:.2f}")

# %% [markdown] tags=["en"]
# 3. A regressor's errors scatter around the true box, so their mean is better than any of them; and agreement counts as
# evidence. SSD has learned scores that say which box fits best, so it keeps that one.

# %% [markdown] tags=["zh"]
# 3. 回归的误差散布在真实边界框周围，所以平均值比其中任何一个都好；意见一致本身也是证据。
# SSD 学到的得分说明哪个框最合适，所以只留那一个。
