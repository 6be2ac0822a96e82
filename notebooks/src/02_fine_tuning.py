# %% [markdown] tags=["en"]
# # Fine-tuning
#
# A network from random weights needs many images. Fine-tuning needs few: take a network that was trained on a large
# data set (the **source**), keep all layers but the last, put a new output layer for your own classes (the **target**)
# on top, and train. Edges, textures and parts of objects, which the lower layers know, are useful for nearly any task.
#
# This notebook goes with section 14.2 of *Dive into Deep Learning* (13.2 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 微调
#
# 从随机权重开始训练需要很多图像，微调只需要很少：取一个在大数据集（**源**数据集）上训练好的网络，
# 保留除最后一层以外的所有层，换上适合自己类别（**目标**数据集）的新输出层，再进行训练。
# 较低的层认识边缘、纹理和物体的局部，这些对几乎所有任务都有用。
#
# 本笔记本对应《动手学深度学习》英文版 14.2 节，中文版 13.2 节。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

keras.utils.set_random_seed(0)
SIZE = (32, 32)

# %% [markdown] tags=["en"]
# ## Source and target
#
# In the book the source is ImageNet, and the target is photographs of hot dogs and of other things. Here both are
# drawn, so that nothing is downloaded: six kinds of shapes with many images, and four **other** kinds with few.

# %% [markdown] tags=["zh"]
# ## 源数据集和目标数据集
#
# 书中的源数据集是 ImageNet，目标数据集是热狗和其他东西的照片。这里两者都由程序生成，不需要下载：
# 源数据集有六种形状、很多图像；目标数据集是**另外**四种形状，图像很少。


# %%
def choose(split, first, last, count):
    """The first `count` images of the classes from `first` on, which become 0, 1, ..."""
    labels = split.targets["label"]
    part = split.subset(np.flatnonzero((labels >= first) & (labels < last))[:count])
    return d2l.Split(part.images, {"label": part.targets["label"] - first}, part.names)


shapes = d2l.generate_classification(
    num_train=1600, num_val=500, num_classes=10, image_size=32, scenes="one-light"
)
names = shapes.class_names
source = d2l.DataSet(
    names[:6], *(choose(s, 0, 6, 900) for s in (shapes.train, shapes.val)), "source"
)
target = d2l.DataSet(
    names[6:], choose(shapes.train, 6, 10, 40), choose(shapes.val, 6, 10, 900), "target"
)
print(source.describe())
print(target.describe())

# %%
titles = [names[6 + k] for k in target.train.targets["label"][:8]]
d2l.show_images(target.train.images[:8], 2, 4, titles=titles, scale=1.6)
plt.tight_layout()
plt.show()

# %% [markdown] tags=["en"]
# ## Pretrain
#
# `Classifier` puts global average pooling and a dense layer named `head` on any network. Training is Keras' `fit`.

# %% [markdown] tags=["zh"]
# ## 预训练
#
# `Classifier` 在任意网络上加上全局平均汇聚层和一个名为 `head` 的全连接层。训练就是 Keras 的 `fit`。


# %%
def backbone():
    images = keras.Input((*SIZE, 3))
    return keras.Model(images, d2l.base_net()(keras.layers.Rescaling(1 / 255)(images)))


def fit(model, optimizer, data, epochs, batch_size):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model.fit(
        d2l.batches(data.train, SIZE, batch_size, training=True, transform=d2l.Compose([])),
        steps_per_epoch=d2l.steps_per_epoch(data.train, batch_size),
        epochs=epochs,
        validation_data=d2l.batches(data.val, SIZE, 100, crop_pct=1),
        callbacks=[d2l.LiveCurves()],
        verbose=0,
    ).history


source_epochs = 12  # quick: 1
pretrained = d2l.Classifier(backbone(), source.class_names, image_size=SIZE, crop_pct=1)
source_curves = fit(pretrained, keras.optimizers.Adam(3e-3), source, source_epochs, 30)

# %% [markdown] tags=["en"]
# ## Fine-tune
#
# The new model takes the pretrained layers as its backbone; its output layer starts anew. The pretrained layers are
# nearly right already and learn slowly, the new layer learns **ten times** as fast: `layer_rates` makes an optimizer
# whose rate is multiplied for layers whose name matches a pattern.

# %% [markdown] tags=["zh"]
# ## 微调
#
# 新模型以预训练好的层为主干，输出层重新开始。预训练的层已经差不多正确，要学得慢；
# 新的输出层学习率是其他层的**十倍**：`layer_rates` 生成一个优化器，名称与模式匹配的层的学习率会乘上给定的倍数。

# %%
epochs = 20  # quick: 1
tuned = d2l.Classifier(pretrained.backbone, target.class_names, image_size=SIZE, crop_pct=1)
optimizer = d2l.layer_rates(tuned, 3e-4, {"head": 10.0}, keras.optimizers.Adam)
print("learning rates:", d2l.group_rates(optimizer))
tuned_curves = fit(tuned, optimizer, target, epochs, 10)

# %% [markdown] tags=["en"]
# For comparison: the same network from random weights, all layers at the higher rate.

# %% [markdown] tags=["zh"]
# 作为比较：同样的网络从随机权重开始，所有层都用较大的学习率。

# %%
scratch = d2l.Classifier(backbone(), target.class_names, image_size=SIZE, crop_pct=1)
scratch_curves = fit(scratch, keras.optimizers.Adam(3e-3), target, epochs, 10)

# %%
results = {"fine-tuned": tuned_curves, "from scratch": scratch_curves}
plt.figure(figsize=(5, 3.4))
for name, curves in results.items():
    plt.plot(range(1, epochs + 1), curves["val_accuracy"], marker="o", markersize=3, label=name)
    print(f"{name}: test accuracy {curves['val_accuracy'][-1]:.2f}")
plt.xlabel("epoch")
plt.ylabel("test accuracy")
plt.ylim(0, 1.02)
plt.legend()
plt.show()

# %% tags=["check-full"]
assert source_curves["val_accuracy"][-1] > 0.8
assert tuned_curves["val_accuracy"][-1] > scratch_curves["val_accuracy"][-1] + 0.05

# %% [markdown] tags=["en"]
# What to see: both learn the 40 training images by heart, but on test images the fine-tuned network is clearly better,
# and it is so after a few epochs. The book sees the same on hot dogs: 0.93 to 0.94 fine-tuned, 0.81 to 0.85 from
# scratch.
#
# ## On the book's data
#
# `python scripts/train_classifier.py --data hotdog --recipe book` does the book's training: ResNet-18 with ImageNet
# weights, both downloaded. In a notebook only two lines change: the data is `d2l.load("hotdog", "classification")`, and
# the network `d2l.Classifier("resnet18", data.class_names, weights="imagenet")`. The book's rates are for the **sum** of
# the losses over a batch, Keras' losses are means:

# %% [markdown] tags=["zh"]
# 看什么：两个网络都把 40 张训练图像背了下来，但在测试图像上，微调的网络明显更好，而且只用了几个迭代周期。
# 书中在热狗上也是如此：微调 0.93 到 0.94，从头训练 0.81 到 0.85。
#
# ## 在书中的数据集上
#
# `python scripts/train_classifier.py --data hotdog --recipe book` 就是书中的训练：带有 ImageNet 权重的 ResNet-18，
# 数据和权重都会下载。在笔记本中只需改两行：数据是 `d2l.load("hotdog", "classification")`，
# 网络是 `d2l.Classifier("resnet18", data.class_names, weights="imagenet")`。
# 书中的学习率是对一个批量的损失**之和**而言的，而 Keras 的损失是平均值：

# %%
rate, decay = d2l.mean_loss_rates(learning_rate=5e-5, weight_decay=1e-3, batch_size=128)
print(f"learning rate {rate:.1e}, weight decay {decay:.1e}")

# %% tags=["check"]
assert abs(rate - 6.4e-3) < 1e-9 and abs(decay - 7.8e-6) < 1e-7

# %% [markdown] tags=["en"]
# What the book does differently: it normalises images with ImageNet's mean and deviation in the data pipeline; here
# networks do that inside and take pixels from 0 to 255, so that nobody can forget it.
#
# ## Exercises
#
# 1. Freeze the pretrained layers, so that only the output layer learns. How many parameters are left to learn?
# 2. Keras' batch norm has momentum 0.99 by default, PyTorch's corresponds to 0.9. After 20 steps, which share of the
#    running mean is still the start value?
# 3. ImageNet has a class hot dog, number 934. How would you use its weights?
#
# Answers:

# %% [markdown] tags=["zh"]
# 与书的不同：书中在数据管道里用 ImageNet 的均值和标准差做标准化；这里由网络内部完成，输入是 0 到 255 的像素，谁也不会忘记。
#
# ## 练习
#
# 1. 冻结预训练的层，只让输出层学习。还剩多少个参数要学习？
# 2. Keras 批量规范化的动量默认为 0.99，PyTorch 的相当于 0.9。经过 20 步之后，滑动平均中初始值还占多少？
# 3. ImageNet 中有热狗这个类别，编号是 934。怎样利用它的权重？
#
# 答案：

# %%
d2l.freeze(tuned, ["(?!head).*"])
left = sum(int(np.prod(v.shape)) for v in tuned.trainable_variables)
print(f"1. {left} of {tuned.count_params():,}: 64 inputs and a bias for each of 4 classes")
print(f"2. {0.99**20:.2f} and {0.9**20:.2f}: with 0.99 the statistics are still wrong")
print(
    '3. Classifier("resnet18", names, weights="imagenet", head_init={0: 934}) starts class 0 there'
)

# %% tags=["check"]
assert left == 64 * 4 + 4
