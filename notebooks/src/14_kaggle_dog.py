# %% [markdown] tags=["en"]
# # Dog breed identification (ImageNet Dogs) on Kaggle
#
# 120 breeds, about 10,000 training images: too few to learn from nothing what a dog looks like. But the images are part
# of ImageNet, and networks that were trained on ImageNet have features that tell dogs apart. So those features are
# **frozen**, and only a small output network learns. Two more things differ from notebook 13: the images are large and
# of any size, and the file holds a *probability for every breed*.
#
# This notebook goes with section 14.14 of *Dive into Deep Learning* (13.14 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 实战 Kaggle 比赛：狗的品种识别（ImageNet Dogs）
#
# 120 个品种，大约 10,000 张训练图像：要从头学会狗的样子，这太少了。但这些图像是 ImageNet 的一部分，
# 在 ImageNet 上预训练过的网络已经有能区分狗的特征。所以把这些特征**冻结**，只训练一个小的输出网络。
# 与笔记本 13 相比还有两点不同：图像较大而且大小不一；提交的文件里是*每个品种的概率*。
#
# 本笔记本对应《动手学深度学习》14.14 节（中文版 13.14 节）。

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
# `train/ID.jpg`, `test/ID.jpg` and `labels.csv`; an id has 32 hexadecimal digits. The next cell writes generated images
# in this layout, four kinds of shapes for breeds. For the real ones, unpack Kaggle's files into a folder and put
# `data_dir = Path("kaggle")` in place of the cell.

# %% [markdown] tags=["zh"]
# ## 文件
#
# `train/ID.jpg`、`test/ID.jpg` 和 `labels.csv`；编号是 32 位十六进制数。下一个单元按这个布局写出程序生成的图像，
# 用四种形状代替品种。要用真实数据，就把 Kaggle 的文件解压到一个文件夹，并把这个单元换成 `data_dir = Path("kaggle")`。

# %%
data_dir = Path(tempfile.mkdtemp()) / "dogs"
num_train, num_test = 160, 20  # quick: 40, 6
options = {"image_size": 40, "scenes": "one-light"}
d2l.generate_kaggle(data_dir, "dog", num_train, num_test, num_classes=4, **options)
d2l.reorg_dog_data(data_dir, valid_ratio=0.25)  # the book: 0.1 of many more
data = d2l.load(data_dir / "train_valid_test", "classification")
print(*data.describe().splitlines()[1:], sep="\n")
print("the first test image:", data.test.names[0])

# %% [markdown] tags=["en"]
# ## A pretrained network
#
# With ImageNet's weights it is one line:
# `model = d2l.Classifier("resnet34", data.class_names, weights="imagenet")`, image size 224. This notebook downloads
# nothing, so it first trains the small ResNet-18 on a *source* task of its own: six **other** kinds of shapes. None of
# the "breeds" is among them.

# %% [markdown] tags=["zh"]
# ## 预训练的网络
#
# 使用 ImageNet 权重时只需一行：`model = d2l.Classifier("resnet34", data.class_names, weights="imagenet")`，图像大小 224。
# 本笔记本不下载任何东西，所以先在自己的*源任务*上训练小型 ResNet-18：六种**别的**形状，其中没有一种是这里的“品种”。

# %%
size, batch_size = (16, 16), 32
num_source, source_epochs = 1800, 4  # quick: 150, 1
source = d2l.load(
    "generated",
    "classification",
    num_train=num_source,
    num_val=1,
    seed=1,
    num_classes=10,
    **options,
)
others = source.train.subset(np.flatnonzero(source.train.targets["label"] >= 4))
others.targets["label"] -= 4
print(
    "source classes:", ", ".join(source.class_names[4:]), "  breeds:", ", ".join(data.class_names)
)


def fit(model, split, epochs, rate, validation=None):
    """Compile and train with the crops of `small_augmentation`; return the history."""
    steps = d2l.steps_per_epoch(split, batch_size)
    model.compile(
        d2l.make_optimizer("adam", rate, schedule="cosine", steps=steps * epochs, model=model),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=d2l.resolve_jit_compile("auto"),
    )
    return model.fit(
        d2l.batches(
            split, size, batch_size, training=True, transform=d2l.small_augmentation("flip")
        ),
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=validation,
        shuffle=False,  # the batches are shuffled already
        verbose=0,
    ).history


pretrained = d2l.Classifier("resnet18_small", source.class_names[4:], image_size=size, crop_pct=1.0)
history = fit(pretrained, others, source_epochs, rate=1e-3)
print(f"source task: train acc {history['accuracy'][-1]:.3f}")

# %% [markdown] tags=["en"]
# ## Freeze the features, train the output
#
# With features $f(x)$ that stay as they are, the output layer is all that learns:
#
# $$p(x) = \mathrm{softmax}(W f(x) + b)$$
#
# `freeze` takes patterns of layer names; `(?!head).*` is every layer but the output layer. Frozen layers need no
# gradient, which saves most of the time and memory. To see what the source task was good for, the same is done on
# top of a network that has learned nothing.

# %% [markdown] tags=["zh"]
# ## 冻结特征，训练输出层
#
# 特征 $f(x)$ 保持不变，学习的只有输出层：
#
# $$p(x) = \mathrm{softmax}(W f(x) + b)$$
#
# `freeze` 按层名的模式冻结；`(?!head).*` 表示输出层以外的所有层。冻结的层不需要梯度，省下大部分时间和内存。
# 为了看出源任务的作用，再在一个什么也没学过的网络上做同样的事。

# %%
epochs = 12  # quick: 2
valid = d2l.batches(data.val, size, batch_size, crop_pct=1)
untrained = d2l.Classifier("resnet18_small", 6, image_size=size, crop_pct=1.0)
histories = {}
for title, features in (("untrained", untrained.backbone), ("pretrained", pretrained.backbone)):
    model = d2l.Classifier(features, data.class_names, image_size=size, crop_pct=1.0)
    d2l.freeze(model, ["(?!head).*"])
    histories[title] = fit(model, data.train, epochs, rate=1e-2, validation=valid)
learning = sum(variable.shape.num_elements() for variable in model.trainable_variables)
print(f"{learning:,} of {model.count_params():,} parameters learn")

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), layout="constrained")
for title, history in histories.items():
    for axis, name in zip(axes, ("val_loss", "val_accuracy")):
        axis.plot(range(1, epochs + 1), history[name], label=f"{title} features")
        axis.set(xlabel="epoch", ylabel=name.replace("val_", "validation "))
axes[0].legend()
plt.show()
for title, history in histories.items():
    print(
        f"{title:11} valid loss {history['val_loss'][-1]:.3f}, acc {history['val_accuracy'][-1]:.3f}"
    )

# %% tags=["check"]
assert learning == 512 * 4 + 4

# %% tags=["check-full"]
assert histories["pretrained"]["val_accuracy"][-1] > histories["untrained"]["val_accuracy"][-1]

# %% [markdown] tags=["en"]
# What to see: features of other shapes tell these shapes apart; random ones hardly do. 2,052 parameters learn.
#
# What the book does differently: its output network has a hidden layer of 256 units on top of ImageNet's 1000 outputs;
# SGD with momentum, 10 epochs at rate 1e-4 (for the sum of the losses), times 0.9 every 2 epochs.
#
# ## The file to hand in
#
# A column for every breed, in alphabetical order, and a row for every test image with its probabilities. Kaggle measures
# the **log loss**: the mean of $-\log p$ of the true breed. Being sure and wrong is expensive. (As in notebook 13 one would
# first train on all labelled images, `data.train.joined(data.val)`.)

# %% [markdown] tags=["zh"]
# 看什么：从别的形状学来的特征能区分这里的形状，随机的特征几乎不能。学习的参数有 2,052 个。
#
# 书中的不同之处：输出网络在 ImageNet 的 1000 个输出之上，还有一个 256 个单元的隐藏层；用带动量的 SGD 训练
# 10 个迭代周期，学习率 1e-4（针对损失之和），每 2 个周期乘以 0.9。
#
# ## 提交文件
#
# 每个品种一列，按字母顺序；每张测试图像一行，写各品种的概率。Kaggle 计算**对数损失**：真实品种的 $-\log p$ 的平均。
# 既肯定又答错，代价很大。（与笔记本 13 一样，应当先用全部有标签的图像 `data.train.joined(data.val)` 再训练一次。）

# %%
test = d2l.batches(data.test, size, batch_size, crop_pct=1)
probabilities = keras.ops.softmax(np.concatenate([model(images) for images in test])).numpy()
d2l.write_submission(data_dir / "submission.csv", data.test.names, probabilities, data.class_names)
for line in (data_dir / "submission.csv").read_text().splitlines()[:3]:
    print(line)

# %%
images = [data.test.image(k) for k in range(6)]
best = probabilities.argmax(axis=1)
titles = [f"{data.class_names[best[k]]}: {probabilities[k, best[k]]:.2f}" for k in range(6)]
d2l.show_images(images, 1, 6, titles=titles, scale=1.7)
plt.show()

# %% tags=["check"]
lines = (data_dir / "submission.csv").read_text().splitlines()
assert lines[0] == "id,cross,moon,ring,star" and len(lines) == num_test + 1
ids = [line.split(",")[0] for line in lines[1:]]
assert ids == sorted(ids) and all(len(name) == 32 for name in ids)
assert np.allclose([sum(map(float, line.split(",")[1:])) for line in lines[1:]], 1, atol=1e-4)

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. What log loss has an answer that gives every one of the 120 breeds the same probability?
# 2. A probability of 0 for the true breed would cost infinitely much. Mix the answers with equal ones, 95 to 5: what is
#    the most that an image can cost then?
# 3. Does that mixture help or harm here?

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 如果给 120 个品种同样的概率，对数损失是多少？
# 2. 真实品种的概率为 0 时，代价是无穷大。把答案与均匀的概率按 95 比 5 混合，一张图像的代价最大是多少？
# 3. 这样混合，在这里是有利还是有害？

# %% [markdown] tags=["en"]
# **Answers.** 1 and 2.

# %% [markdown] tags=["zh"]
# **答案。** 1 和 2。

# %%
print(f"equal: {np.log(120):.2f}   at most: {-np.log(0.05 / 120):.2f}")

# %% [markdown] tags=["en"]
# 3. On the validation images. The mean rises where the network is right anyway, and falls where it is sure and wrong:

# %% [markdown] tags=["zh"]
# 3. 在验证集上：网络本来就答对时损失略增，既肯定又答错时损失下降：

# %%
metrics, sure = d2l.evaluate_classification(model, valid, data.class_names)
mixed = d2l.classification_metrics(
    0.95 * sure + 0.05 / 4, data.val.targets["label"], data.class_names
)
print(f"log loss {metrics['loss']:.3f}, mixed with equal ones {mixed['loss']:.3f}")
