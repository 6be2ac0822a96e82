# %% [markdown] tags=["en"]
# # Image classification (CIFAR-10) on Kaggle
#
# A competition gives two folders of images and one table: classes of the training images. It keeps the classes of the
# test images, and wants a file with your answers. So this section has little new to learn about networks, and much
# about the way from files to a file:
#
# 1. arrange the images by class, and set some apart to validate on;
# 2. train, and choose what to train by the validation images;
# 3. train once more on all labelled images;
# 4. predict the test images and write `submission.csv`.
#
# This notebook goes with section 14.13 of *Dive into Deep Learning* (13.13 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 实战 Kaggle 比赛：图像分类（CIFAR-10）
#
# 比赛提供两个图像文件夹和一张表，表中是训练图像的类别。测试图像的类别不公开，你要提交一个写有答案的文件。
# 所以这一节关于网络的新内容不多，主要是从文件到文件的整个过程：
#
# 1. 按类别整理图像，留出一部分作验证集；
# 2. 训练，根据验证集选择超参数；
# 3. 用全部有标签的图像再训练一次；
# 4. 对测试图像分类，写出 `submission.csv`。
#
# 本笔记本对应《动手学深度学习》14.13 节（中文版 13.13 节）。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## The files
#
# Kaggle's archive holds `train/1.png`, `train/2.png` …, `test/1.png` … and `trainLabels.csv`: 50,000 images to train
# on and 300,000 to predict, of which 10,000 count. The next cell writes generated images in the same layout. For the
# real ones, unpack Kaggle's files into a folder and put `data_dir = Path("kaggle")` in place of the cell.

# %% [markdown] tags=["zh"]
# ## 文件
#
# Kaggle 的压缩包里有 `train/1.png`、`train/2.png`……，`test/1.png`…… 和 `trainLabels.csv`：50,000 张训练图像，
# 300,000 张测试图像，其中 10,000 张计分。下一个单元按同样的布局写出程序生成的图像。要用真实数据，
# 就把 Kaggle 的文件解压到一个文件夹，并把这个单元换成 `data_dir = Path("kaggle")`。

# %%
data_dir = Path(tempfile.mkdtemp()) / "cifar-10"
num_train, num_test = 1200, 100  # quick: 120, 12
d2l.generate_kaggle(data_dir, "cifar10", num_train, num_test)
print(sorted(path.name for path in data_dir.iterdir()))
labels = d2l.read_csv_labels(data_dir / "trainLabels.csv")
print(
    len(labels),
    "labels of",
    len(set(labels.values())),
    "classes; the first:",
    list(labels.items())[:3],
)

# %% tags=["check"]
assert len(labels) == num_train and len(set(labels.values())) == 10

# %% [markdown] tags=["en"]
# ## Folders of classes
#
# `reorg_cifar10_data` copies the images to `train_valid_test/`: `train/CLASS`, `valid/CLASS`, `train_valid/CLASS` (both
# together) and `test/unknown`. If the rarest class has $n$ images and the ratio is $r$, then
#
# $$\max(\lfloor n r \rfloor, 1)$$
#
# images of *each* class validate.

# %% [markdown] tags=["zh"]
# ## 按类别整理
#
# `reorg_cifar10_data` 把图像复制到 `train_valid_test/`：`train/CLASS`、`valid/CLASS`、`train_valid/CLASS`（前两者之和）
# 和 `test/unknown`。如果样本最少的类别有 $n$ 张图像，比例为 $r$，那么*每个*类别都有
#
# $$\max(\lfloor n r \rfloor, 1)$$
#
# 张图像用作验证。

# %%
batch_size, valid_ratio = 32, 0.1
size = (16, 16)  # so that this takes a minute; for CIFAR-10 itself: (32, 32)
d2l.reorg_cifar10_data(data_dir, valid_ratio)
data = d2l.load(data_dir / "train_valid_test", "classification")
print(data.describe())

# %% tags=["check"]
counts = np.bincount([data.class_names.index(name) for name in labels.values()])
per_class = max(int(counts.min() * valid_ratio), 1)
assert len(data.val) == 10 * per_class and len(data.train) == num_train - len(data.val)
assert len(data.test) == num_test and "label" not in data.test.targets

# %% [markdown] tags=["en"]
# The book takes the files in the order of the file system, which differs between machines. Here the first ones by number
# validate, and a second call with another ratio leaves nothing of the first one.
#
# ## Augmentation
#
# The book enlarges images to 40 × 40, then takes a random square of 0.64 to 1 of the area, resizes it to 32 × 32, and
# flips at random. A window of an enlarged image is an enlarged window: the first step only smooths, and is left out.

# %% [markdown] tags=["zh"]
# 书中按文件系统给出的顺序取文件，不同机器上顺序不同。这里按编号取最前面的作验证；换一个比例再次调用，不会留下上一次的文件。
#
# ## 图像增广
#
# 书中先把图像放大到 40 × 40，再随机取面积为 0.64 到 1 的正方形，缩放为 32 × 32，并随机左右翻转。
# 先放大再取窗口，等于取窗口再放大：第一步只起平滑作用，这里省略。

# %%
augment = d2l.Compose(
    [d2l.RandomResizedCrop(size, scale=(0.64, 1.0), ratio=(1.0, 1.0)), d2l.RandomHorizontalFlip()]
)
train = d2l.batches(data.train, size, batch_size, training=True, transform=augment)
X, y = next(iter(train))
d2l.show_images(X[:8], 1, 8, titles=[data.class_names[k] for k in y[:8]], scale=1.3)
plt.show()

# %% [markdown] tags=["en"]
# ## Training
#
# The network is the book's small ResNet-18, here on images of half the size. The book trains 20 epochs of SGD with momentum 0.9 at rate 2e-4, weight decay
# 5e-4, the rate times 0.9 every 4 epochs, again for the *sum* of a batch's losses. Adam along a cosine is used here,
# which in a few epochs gets further.

# %% [markdown] tags=["zh"]
# ## 训练
#
# 网络是书中的小型 ResNet-18，这里的图像缩小了一半。书中用动量 0.9 的 SGD 训练 20 个迭代周期，学习率 2e-4，权重衰减 5e-4，
# 每 4 个周期学习率乘以 0.9，同样是针对批量损失之*和*。这里用 Adam 和余弦学习率，几个周期就能走得更远。

# %%
epochs = 4  # quick: 1


def train_on(split, validation):
    """Train a new network on a split; the same settings for both trainings."""
    steps = d2l.steps_per_epoch(split, batch_size)
    net = d2l.Classifier("resnet18_small", data.class_names, image_size=size, crop_pct=1.0)
    net.compile(
        d2l.make_optimizer("adam", 1e-3, schedule="cosine", steps=steps * epochs),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=d2l.resolve_jit_compile("auto"),
    )
    history = net.fit(
        d2l.batches(split, size, batch_size, training=True, transform=augment),
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        callbacks=[d2l.LiveCurves()],
        shuffle=False,  # the batches are shuffled already
        verbose=0,
    ).history
    return net, {name: values[-1] for name, values in history.items()}


valid = d2l.batches(data.val, size, batch_size, crop_pct=1)
net, found = train_on(data.train, valid)
print(f"train acc {found['accuracy']:.3f}, valid acc {found['val_accuracy']:.3f}")

# %% tags=["check-full"]
assert found["val_accuracy"] > 0.5

# %% [markdown] tags=["en"]
# ## The file to hand in
#
# Once the settings are chosen, train on all labelled images, then predict. `data.test` has no labels, so its batches are
# images alone, in the order of the file names: 1, 10, 100, 11 … Kaggle's sample file counts 1, 2, 3 …: the ids must be
# put together with the predictions **before** they are sorted. `write_submission` does so.

# %% [markdown] tags=["zh"]
# ## 提交文件
#
# 选定超参数后，用全部有标签的图像训练，再对测试图像分类。`data.test` 没有标签，所以它的批量里只有图像，
# 顺序是文件名的顺序：1、10、100、11……。而 Kaggle 的样例文件按 1、2、3…… 排列：
# 必须**先**把编号和预测对应起来，再排序。`write_submission` 就是这样做的。

# %%
net, found = train_on(data.train.joined(data.val), None)
test = d2l.batches(data.test, size, batch_size, crop_pct=1)
predicted = np.concatenate([np.argmax(net(images), axis=1) for images in test])
d2l.write_submission(data_dir / "submission.csv", data.test.names, predicted, data.class_names)
print((data_dir / "submission.csv").read_text()[:60])

# %%
order = np.argsort([int(Path(name).stem) for name in data.test.names])[:8]
images = [data.test.image(k) for k in order]
titles = [f"{data.test.names[k]}\n{data.class_names[predicted[k]]}" for k in order]
d2l.show_images(images, 1, 8, titles=titles, scale=1.3)
plt.show()

# %% tags=["check"]
lines = (data_dir / "submission.csv").read_text().splitlines()
assert lines[0] == "id,label" and [line.split(",")[0] for line in lines[1:4]] == ["1", "2", "3"]
assert lines[10].split(",")[1] == data.class_names[predicted[data.test.names.index("10.png")]]
assert len(lines) == num_test + 1

# %% [markdown] tags=["en"]
# What to see: eight test images in Kaggle's order, with what the file says of them. On the competition's page the file
# goes to "Submit Predictions".
#
# ## Exercises
#
# 1. How many images does each class have, and how many of each validate?
# 2. Which classes does the network confuse?
# 3. What are the book's rate and decay for the mean of a batch of 32, if there were no momentum?

# %% [markdown] tags=["zh"]
# 看什么：按 Kaggle 的顺序排列的八张测试图像，以及文件中写的类别。文件在比赛页面的 “Submit Predictions” 处提交。
#
# ## 练习
#
# 1. 每个类别各有多少张图像？其中多少张用作验证？
# 2. 网络混淆了哪些类别？
# 3. 如果没有动量，对 32 张图像取平均时，书中的学习率和权重衰减应是多少？

# %% [markdown] tags=["en"]
# **Answers.** 1.

# %% [markdown] tags=["zh"]
# **答案。** 1.

# %%
print("train:", data.train.counts(10).tolist(), "\nvalid:", data.val.counts(10).tolist())

# %% [markdown] tags=["en"]
# 2. This network has seen the validation images too by now, so the table flatters it. Rows are true classes.

# %% [markdown] tags=["zh"]
# 2. 这个网络此时已经见过验证图像，所以这张表偏乐观。行是真实类别，列是预测类别。

# %%
metrics, _ = d2l.evaluate_classification(net, valid, data.class_names)
plt.figure(figsize=(4.6, 4))
plt.imshow(metrics["confusion"], cmap="Blues")
plt.xticks(range(10), data.class_names, rotation=60)
plt.yticks(range(10), data.class_names)
plt.xlabel("predicted class")
plt.ylabel("true class")
plt.colorbar(label="images", shrink=0.8)
plt.show()

# %% [markdown] tags=["en"]
# 3. The rate times 32, the decay divided by 32. (In PyTorch the decay passes through the momentum, too, and with 0.9
# counts ten times; Keras keeps the two apart.)

# %% [markdown] tags=["zh"]
# 3. 学习率乘以 32，权重衰减除以 32。（PyTorch 中权重衰减也经过动量，动量为 0.9 时相当于十倍；Keras 则把两者分开。）

# %%
rate, decay = d2l.mean_loss_rates(2e-4, 5e-4, batch_size=32)
print(f"rate {rate:.2g}, decay {decay:.2g}")

# %% tags=["check"]
assert f"{rate:.2g}, {decay:.2g}" == "0.0064, 1.6e-05"
