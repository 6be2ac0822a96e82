# %% [markdown] tags=["en"]
# # Image augmentation
#
# A network that saw each object only once, at one place and in one light, learns the place and the light too.
# **Augmentation** shows it other versions of each training image: flipped, cropped, in other colours. The class stays
# the same, so the network learns that these things do not matter. Test images are not changed.
#
# This notebook goes with section 14.1 of *Dive into Deep Learning* (13.1 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 图像增广
#
# 如果网络只在一个位置、一种光照下见过某个物体，它会把位置和光照也一起学进去。
# **图像增广**把每张训练图像变成许多不同的样子：翻转、裁剪、改变颜色。类别不变，于是网络学到这些变化并不重要。
# 测试图像不做随机变化。
#
# 本笔记本对应《动手学深度学习》英文版 14.1 节，中文版 13.1 节。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt

import kerascv_d2l as d2l

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## One image
#
# Generated images need no download: shapes on a textured ground. `d2l.read_image("cat.jpg")` reads a photograph of
# your own instead.

# %% [markdown] tags=["zh"]
# ## 一张图像
#
# 这里用程序生成的图像，不需要下载：带纹理的背景上有几种形状。
# 想用自己的照片，就写 `d2l.read_image("cat.jpg")`。

# %%
data = d2l.generate_classification(num_train=40, num_val=1, num_classes=4, image_size=200, seed=2)
img = data.train.images[0]
plt.figure(figsize=(3, 3))
plt.imshow(img)
plt.title(data.class_names[data.train.targets["label"][0]])
plt.xlabel("x in pixels")
plt.ylabel("y in pixels")
plt.show()

# %% [markdown] tags=["en"]
# ## Flips
#
# `apply` calls the augmentation eight times and shows the results. `RandomHorizontalFlip` flips with probability 0.5,
# so about half of the images are flipped. Flipping up and down is for images that have no up and down, such as
# pictures taken from above; a digit or a face would become something else.

# %% [markdown] tags=["zh"]
# ## 翻转
#
# `apply` 调用八次增广并显示结果。`RandomHorizontalFlip` 以 0.5 的概率左右翻转，所以大约一半图像被翻转。
# 上下翻转只适合本来就不分上下的图像，例如航拍图；数字或人脸上下翻转后就变成别的东西了。

# %%
d2l.apply(img, d2l.RandomHorizontalFlip(seed=1))
plt.show()

# %%
d2l.apply(img, d2l.RandomVerticalFlip(seed=1))
plt.show()

# %% [markdown] tags=["en"]
# ## Random crops
#
# A window of the image is cut out and resized to one size. Its area is a random share of the image's area, here
# between 0.1 and 1; its width divided by its height lies between 0.5 and 2 (the logarithm of the ratio is drawn
# uniformly, so that 0.5 is as likely as 2). The object then appears large and small, whole and in part.

# %% [markdown] tags=["zh"]
# ## 随机裁剪
#
# 从图像中裁出一个窗口，再缩放到固定大小。窗口面积占原图的比例是随机的，这里在 0.1 到 1 之间；
# 宽高比在 0.5 到 2 之间（对比值的对数均匀取样，这样 0.5 和 2 的机会相同）。
# 于是物体有时大、有时小，有时完整、有时只有一部分。

# %%
crop = d2l.RandomResizedCrop(200, scale=(0.1, 1), ratio=(0.5, 2), seed=1)
d2l.apply(img, crop)
plt.show()

# %% [markdown] tags=["en"]
# ## Colours
#
# `ColorJitter` has four parts. With strength $v$ each draws a factor $f$ uniformly from $[1 - v, 1 + v]$:
#
# | part | new value of a pixel $x$ |
# |---|---|
# | brightness | $f x$ |
# | contrast | $f x + (1 - f)\,m$, where $m$ is the mean grey of the image |
# | saturation | $f x + (1 - f)\,g$, where $g$ is the pixel's own grey |
# | hue | the colour turned around the colour circle by a share from $[-v, v]$ |
#
# Values below 0 or above 255 are cut off. First the brightness alone, then the hue alone, then all four.

# %% [markdown] tags=["zh"]
# ## 颜色
#
# `ColorJitter` 有四个部分。强度为 $v$ 时，每个部分从 $[1 - v, 1 + v]$ 中均匀取一个系数 $f$：
#
# | 部分 | 像素 $x$ 的新值 |
# |---|---|
# | 亮度 | $f x$ |
# | 对比度 | $f x + (1 - f)\,m$，$m$ 是整张图像的平均灰度 |
# | 饱和度 | $f x + (1 - f)\,g$，$g$ 是该像素自己的灰度 |
# | 色调 | 颜色沿色环转动，转动量（以整圈为单位）取自 $[-v, v]$ |
#
# 小于 0 或大于 255 的值被截断。下面先只改亮度，再只改色调，最后四项一起改。

# %%
d2l.apply(img, d2l.ColorJitter(brightness=0.5, seed=1))
plt.show()

# %%
d2l.apply(img, d2l.ColorJitter(hue=0.5, seed=1))
plt.show()

# %%
jitter = d2l.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5, seed=1)
d2l.apply(img, jitter)
plt.show()

# %% [markdown] tags=["en"]
# What to see: each image has its own draw, and also its own order of the four parts. A hue strength of 0.5 turns any
# colour into any other. That is too much where the colour tells the class, as with ripe and unripe fruit.

# %% [markdown] tags=["zh"]
# 看什么：每张图像各自取样，四个部分的先后顺序也各不相同。色调强度 0.5 可以把任何颜色变成任何别的颜色；
# 如果类别靠颜色来分，例如成熟和未成熟的水果，这就太强了。

# %% [markdown] tags=["en"]
# ## Several at once
#
# `Compose` applies layers one after the other.

# %% [markdown] tags=["zh"]
# ## 组合
#
# `Compose` 依次应用多个层。

# %%
augs = d2l.Compose([d2l.RandomHorizontalFlip(), jitter, crop], seed=3)
d2l.apply(img, augs)
plt.show()

# %% [markdown] tags=["en"]
# ## Training with augmentation
#
# A small network learns ten shapes from 200 images of 32 × 32 pixels, the size of CIFAR-10's. `batches` makes a
# `tf.data.Dataset` that applies the augmentation to the training images; training is Keras' `compile` and `fit`.
# `LiveCurves` draws the curves of the book while the network trains.
#
# The line for the book's data, network and training is
# `d2l.train_with_data_aug(d2l.RandomHorizontalFlip(), None, d2l.resnet18(10), data="cifar10")`. After its ten epochs
# the book has a training accuracy of 0.925 to 0.945 and a test accuracy of 0.81 to 0.85. A GPU is advised.

# %% [markdown] tags=["zh"]
# ## 使用图像增广进行训练
#
# 让一个小网络用 200 张图像学习十种形状；图像大小为 32 × 32 像素，与 CIFAR-10 相同。
# `batches` 生成一个 `tf.data.Dataset`，并对训练图像做增广；训练就是 Keras 的 `compile` 和 `fit`。
# `LiveCurves` 在训练时画出书中的曲线。
#
# 要用书中的数据、网络和训练方法，只需这一行：
# `d2l.train_with_data_aug(d2l.RandomHorizontalFlip(), None, d2l.resnet18(10), data="cifar10")`。
# 书中训练 10 个迭代周期，训练精度为 0.925 到 0.945，测试精度为 0.81 到 0.85。建议使用 GPU。

# %%
shapes = d2l.generate_classification(
    num_train=200, num_val=500, num_classes=10, image_size=32, scenes="one-light"
)
val = d2l.batches(shapes.val, 32, 100)


def train(augs, epochs):
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            d2l.base_net(),  # six convolutions, from the detector of a later notebook
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    batches = d2l.batches(shapes.train, 32, 20, training=True, transform=augs)
    return net.fit(
        batches,
        steps_per_epoch=d2l.steps_per_epoch(shapes.train, 20),
        epochs=epochs,
        validation_data=val,
        callbacks=[d2l.LiveCurves()],
        verbose=0,
    ).history


epochs = 50  # quick: 1
plain = train(d2l.Compose([]), epochs)

# %%
augmented = train(d2l.small_augmentation("crop-flip"), epochs)

# %%
for name, history in {"no augmentation": plain, "shift and flip": augmented}.items():
    train_acc, test_acc = history["accuracy"][-1], history["val_accuracy"][-1]
    print(f"{name}: train accuracy {train_acc:.2f}, test accuracy {test_acc:.2f}")

# %% tags=["check-full"]
assert plain["accuracy"][-1] > 0.98 and augmented["accuracy"][-1] > 0.96
assert augmented["val_accuracy"][-1] > plain["val_accuracy"][-1] > 0.8
assert augmented["loss"][9] > plain["loss"][9]

# %% [markdown] tags=["en"]
# What to see: without augmentation the training images are learnt by heart within some fifteen epochs, and the test
# accuracy stays below. With augmentation learning takes longer, because no image comes twice in the same form, and the
# test accuracy ends higher. The gain is small here and differs with the seed: these shapes are simple. On photographs
# it is large.
#
# What the book does differently: it flips only. These shapes look alike when flipped, while they do lie at different
# places, so the images are shifted by up to four pixels as well.

# %% [markdown] tags=["zh"]
# 看什么：不做增广时，大约十五个迭代周期后网络就把训练图像背下来了，而测试精度停在较低的水平。
# 做增广时，没有一张图像以同样的样子出现两次，所以学得慢一些，但最后测试精度更高。
# 这里的形状很简单，提高不多，并且随种子变化；在照片上提高很大。
#
# 与书的不同：书中只做翻转。这些形状翻转后差别不大，而位置却各不相同，所以这里还把图像随机平移最多四个像素。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. Flip an image twice with `d2l.flip_left_right`, which always flips. What comes out?
# 2. Which brightness factors did the layer draw? Measure them on a grey image.
# 3. Call an augmentation layer with `training=False`. Why does a model that contains such layers need this?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 用 `d2l.flip_left_right`（必定翻转）把图像翻转两次，得到什么？
# 2. 亮度层取到了哪些系数？用一张灰色图像来测量。
# 3. 用 `training=False` 调用增广层。为什么含有这种层的模型需要它？
#
# 答案：

# %%
twice = d2l.flip_left_right(d2l.flip_left_right(img))
print("flipped twice, equal to the image:", bool((twice == img).numpy().all()))

grey = keras.ops.full((1000, 8, 8, 3), 100.0)
factors = d2l.ColorJitter(brightness=0.5, seed=1)(grey)[:, 0, 0, 0] / 100
print(f"factors from {keras.ops.min(factors):.2f} to {keras.ops.max(factors):.2f}")

same = jitter(img, training=False)  # a model that predicts must see the image itself
print("training=False, equal to the image:", bool((same == img).numpy().all()))

# %% tags=["check"]
assert (twice == img).numpy().all() and (same == img).numpy().all()
assert 0.5 <= keras.ops.min(factors) < 0.51 and 1.49 < keras.ops.max(factors) <= 1.5
