# %% [markdown] tags=["en"]
# # Looking inside
#
# A network gives an answer and no reason. But it can be asked: which pixels, if they changed, would change the answer?
# Which part of the image, if it were covered? What does a layer respond to? This notebook goes through the usual methods
# on one small classifier, and tests whether their maps show what was learned or only the image.
#
# The book has no such section; the course notes that this package follows have.

# %% [markdown] tags=["zh"]
# # 看看网络内部
#
# 网络给出答案，却不给理由。但可以向它提问：哪些像素变化时，答案会变？遮住图像的哪一部分，答案会变？某一层对什么有反应？
# 本笔记本在一个小的分类网络上试用常见的方法，并检验得到的图显示的是学到的东西，还是仅仅是图像本身。
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
# ## A classifier to look into
#
# The base network of TinySSD (notebook 07), a global mean, one dense layer, on four kinds of shapes. For a network and a
# photograph of your own: `model = d2l.load_model("model.keras")` and `image = d2l.read_image("photo.jpg")`, or on the
# command line `python scripts/explain.py model.keras photo.jpg`.

# %% [markdown] tags=["zh"]
# ## 要观察的分类网络
#
# TinySSD 的基本网络（笔记本 07）、全局平均汇聚和一个全连接层，用来区分四种形状。换成自己的网络和照片：
# `model = d2l.load_model("model.keras")` 和 `image = d2l.read_image("photo.jpg")`；命令行则是
# `python scripts/explain.py model.keras photo.jpg`。

# %%
num_train, epochs = 1000, 12  # quick: 64, 1
size, batch_size = (64, 64), 32
data = d2l.load(
    "generated",
    "classification",
    num_train=num_train,
    num_val=60,
    image_size=size,
    scenes="one-light",
)
backbone = keras.Sequential(
    [keras.Input((*size, 3)), keras.layers.Rescaling(1 / 127.5, -1), d2l.base_net()], name="base"
)
model = d2l.Classifier(backbone, data.class_names, image_size=size, crop_pct=1.0)
steps = d2l.steps_per_epoch(data.train, batch_size)
model.compile(
    d2l.make_optimizer("adam", 2e-3, schedule="cosine", steps=steps * epochs),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
    jit_compile=d2l.resolve_jit_compile("auto"),
)
history = model.fit(
    d2l.batches(
        data.train, size, batch_size, training=True, transform=d2l.small_augmentation("flip")
    ),
    epochs=epochs,
    steps_per_epoch=steps,
    validation_data=d2l.batches(data.val, size, batch_size, crop_pct=1),
    callbacks=[d2l.LiveCurves()],
    shuffle=False,  # the batches are shuffled already
    verbose=0,
).history
print(f"validation accuracy {history['val_accuracy'][-1]:.2f}")

# %% tags=["check-full"]
assert history["val_accuracy"][-1] > 0.5

# %% [markdown] tags=["en"]
# ## Which pixels?
#
# Let $s(x)$ be the logit of a class for the image $x$.
#
# - **Saliency**: the largest of the three $|\partial s / \partial x|$ of each pixel. One backward pass, but noisy.
# - **SmoothGrad**: its mean over noisy copies of the image.
# - **Integrated gradients**: derivatives on the way from black to the image, times the difference. Their sum is
#   $s(x) - s(0)$ exactly, so the score is *shared out* among the pixels.
# - **Occlusion**: what the score loses when a grey patch covers the place. No derivative at all.
# - **Grad-CAM**: the last feature map, its channels $A_k$ weighted by the mean derivative:
#   $\mathrm{ReLU}(\sum_k \overline{\partial s / \partial A_k}\, A_k)$. Coarse, but clear.

# %% [markdown] tags=["zh"]
# ## 哪些像素？
#
# 设 $s(x)$ 是图像 $x$ 的某个类别的 logit。
#
# - **显著图**：每个像素三个 $|\partial s / \partial x|$ 中最大的。只需一次反向传播，但噪声大。
# - **SmoothGrad**：对图像加噪声的许多副本求显著图的平均。
# - **积分梯度**：从黑色到图像的路径上的导数，乘以差。它们的和恰好等于 $s(x) - s(0)$，也就是把得分*分摊*给各个像素。
# - **遮挡**：用灰色方块遮住某处时得分下降多少。完全不用导数。
# - **Grad-CAM**：最后的特征图，通道 $A_k$ 用平均导数加权：
#   $\mathrm{ReLU}(\sum_k \overline{\partial s / \partial A_k}\, A_k)$。粗糙，但清楚。

# %%
answers = model.classify(data.val.images)
sure = np.max(answers["probabilities"], axis=1)
chosen = [int(np.argmax(sure * (data.val.targets["label"] == k))) for k in range(3)]
methods = {
    "saliency": d2l.saliency,
    "SmoothGrad": d2l.smooth_grad,
    "integrated": d2l.integrated_gradients,
    "occlusion": d2l.occlusion,
    "Grad-CAM": d2l.grad_cam,
}
shown, titles = [], []
for k in chosen:
    image = data.val.images[k]
    shown.append(image)
    titles.append(answers["names"].numpy()[k].decode())
    for name, method in methods.items():
        heat = d2l.onto_image(model, image, method(model, image))
        shown.append(d2l.heat_overlay(image, heat))
        titles.append(name if k == chosen[0] else "")
d2l.show_images(shown, 3, 6, titles=titles, scale=1.4)
plt.tight_layout()
plt.show()

# %% [markdown] tags=["en"]
# What to see: red and yellow speak for the class (where a map has two signs: red for, blue against). Integrated gradients
# and occlusion lie on the shape, saliency on its edges and points, Grad-CAM covers them in cells of 8 × 8 pixels.
# SmoothGrad is the least help here: its noise is as strong as the ground.
#
# ## Two exact tests
#
# Integrated gradients add up to the difference of the scores. And for a network that ends in a global mean and one dense
# layer, Grad-CAM is what is positive of **CAM**, the feature map weighted by the output layer's own weights, divided by the
# number of cells.

# %% [markdown] tags=["zh"]
# 看什么：红色和黄色支持该类别（有正负的图中：红色支持，蓝色反对）。积分梯度和遮挡落在形状上，
# 显著图落在边缘和尖角上，Grad-CAM 以 8 × 8 像素为单位覆盖这些地方。SmoothGrad 在这里帮助最小：噪声和背景一样强。
#
# ## 两个精确的检验
#
# 积分梯度之和等于得分之差。如果网络以全局平均汇聚和一个全连接层结尾，Grad-CAM 就等于 **CAM**
# （用输出层自己的权重加权的特征图）的正部除以格子数。

# %%
image = data.val.images[chosen[0]]
target = int(answers["classes"][chosen[0]])
black = np.zeros_like(image)
logits = model(np.stack([image, black])).numpy()[:, target]
total = d2l.integrated_gradients(model, image).sum()
print(f"sum of the map {total:.3f}, difference of the scores {logits[0] - logits[1]:.3f}")

by_weights = np.maximum(d2l.cam(model, image), 0)
difference = np.abs(d2l.grad_cam(model, image) * by_weights.size - by_weights).max()
print(
    f"CAM and Grad-CAM differ by at most {difference / by_weights.max():.1e} of the largest value"
)

# %% tags=["check"]
assert abs(total - (logits[0] - logits[1])) <= 0.02 * abs(logits[0] - logits[1])
assert difference <= 1e-4 * by_weights.max()

# %% [markdown] tags=["en"]
# ## Does the map show what was learned?
#
# Shuffle the weights: the network knows nothing any more, and the map must change (Adebayo et al. 2018). A map that
# stays the same shows edges of the image, which any network would. The number is the rank correlation with the first
# map.

# %% [markdown] tags=["zh"]
# ## 图中显示的是学到的东西吗？
#
# 打乱权重：网络不再知道任何事情，图也必须改变（Adebayo et al. 2018）。如果图不变，它显示的只是图像的边缘，
# 任何网络都会如此。数字是与第一张图的秩相关系数。

# %%
shown, titles = [], []
for name in ("saliency", "Grad-CAM"):
    for row in d2l.sanity_check(methods[name], model, image):
        shown.append(d2l.heat_overlay(image, d2l.onto_image(model, image, row["map"])))
        titles.append(f"{row['stage']}\n{row['correlation']:.2f}")
axes = d2l.show_images(shown, 2, 4, titles=titles, scale=1.5)
for row, name in enumerate(("saliency", "Grad-CAM")):
    axes[4 * row].yaxis.set_visible(True)
    axes[4 * row].set(yticks=[], ylabel=name)
plt.tight_layout()
plt.show()

# %% [markdown] tags=["en"]
# ## What the layers hold
#
# The filters of the first layer; what they make of the image; and an image that the network takes most for a class, found
# by gradient *ascent* on the pixels.

# %% [markdown] tags=["zh"]
# ## 各层里有什么
#
# 第一层的滤波器；它们对图像的响应；以及网络最认同某个类别的图像，由对像素做梯度*上升*得到。

# %%
filters = d2l.first_layer_filters(model)
filters = (filters - filters.min()) / np.ptp(filters)
axes = d2l.show_images(filters, 2, 8, scale=1)
axes[0].set_title("first filters, 3 × 3 × 3", loc="left", fontsize=9)
maps = d2l.feature_maps(model, image)
most = np.argsort(-maps.mean(axis=(0, 1)))[:8]
axes = d2l.show_images([maps[..., k] / (maps.max() + 1e-9) for k in most], 1, 8, scale=1)
axes[0].set_title("last feature map, strongest channels", loc="left", fontsize=9)
steps = 60  # quick: 2
dreams = [d2l.class_visualization(model, name, steps=steps) for name in data.class_names]
d2l.show_images(dreams, 1, 4, titles=[f"most {name}" for name in data.class_names], scale=1.6)
plt.show()

# %% [markdown] tags=["en"]
# What to see: some filters are edges, some are colours. The ideal images are no drawings of the shapes, but repeat what
# the network looks for: points for a star, arcs for a ring. It is content with parts.
#
# ## Exercises
#
# 1. How much of each map lies inside the object?
# 2. Which images does the network find alike? Project the features onto two dimensions.
# 3. `keras.Model(model.inputs, layer.output)` is the usual way to a feature map. Why does it fail here?

# %% [markdown] tags=["zh"]
# 看什么：有的滤波器对应边缘，有的对应颜色。理想图像并不是形状的画，而是重复网络寻找的东西：星形的尖角、圆环的弧。
# 它满足于局部。
#
# ## 练习
#
# 1. 每张图有多大比例在物体之内？
# 2. 网络认为哪些图像相似？把特征投影到二维。
# 3. 取特征图的通常做法是 `keras.Model(model.inputs, layer.output)`。为什么在这里会失败？

# %% [markdown] tags=["en"]
# **Answers.** 1. The same scenes as detection data have boxes. `share_inside` against the box's share of the image, which a
# map without any idea would have:

# %% [markdown] tags=["zh"]
# **答案。** 1. 同样的场景作为检测数据带有边界框。把 `share_inside` 与边界框占图像的比例（毫无依据的图也会有的值）比较：

# %%
scenes = d2l.generate_detection(
    1,
    8,
    num_classes=4,
    image_size=size,
    scenes=d2l.SceneSettings(
        max_objects=1,
        object_size=(0.4, 0.6),
        empty=0.0,
        clutter=0,
        occlusion=0.0,
        texture=0.5,
        lighter=True,
    ),
).val
for name in ("saliency", "occlusion", "Grad-CAM"):
    inside, shares = [], []
    for image_k, boxes in zip(scenes.images, scenes.targets["boxes"]):
        heat = d2l.onto_image(model, image_k, methods[name](model, image_k))
        inside.append(d2l.share_inside(heat, boxes[0] * 64))
        shares.append(np.prod(boxes[0, 2:] - boxes[0, :2]))
    print(f"{name:10} {np.nanmean(inside):.2f}   the box itself {np.mean(shares):.2f}")

# %% [markdown] tags=["en"]
# 2. Colours are the true classes:

# %% [markdown] tags=["zh"]
# 2. 颜色表示真实类别：

# %%
points, variance = d2l.pca(d2l.image_features(model, data.val.images))
plt.figure(figsize=(4.5, 3.6))
for k, name in enumerate(data.class_names):
    plt.scatter(*points[data.val.targets["label"] == k].T, s=14, label=name)
plt.xlabel(f"first direction, {variance[0]:.0%} of the variance")
plt.ylabel(f"second, {variance[1]:.0%}")
plt.legend()
plt.show()

# %% [markdown] tags=["en"]
# 3. The convolutions are in a model inside the model. Their outputs belong to the inner model's graph, which does not
# start at `model.inputs`. The functions here record outputs while the model runs, so it does not matter how it is built.

# %% [markdown] tags=["zh"]
# 3. 卷积层在模型里面的另一个模型中。它们的输出属于内层模型的计算图，不从 `model.inputs` 开始。
# 这里的函数在模型运行时记录输出，所以与模型的构造方式无关。
