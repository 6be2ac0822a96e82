# %% [markdown] tags=["en"]
# # Transposed convolution
#
# Convolution and pooling make feature maps smaller. To give every pixel a class, a network must come back to the size
# of its image. The **transposed convolution** enlarges, and it has weights that can learn.
#
# This notebook goes with section 14.10 of *Dive into Deep Learning* (13.10 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 转置卷积
#
# 卷积和汇聚使特征图变小。要给每个像素一个类别，网络必须回到输入图像的大小。**转置卷积**可以放大特征图，
# 而且它的权重是可以学习的。
#
# 本笔记本对应《动手学深度学习》14.10 节（中文版 13.10 节）。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kerascv_d2l as d2l

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## The operation
#
# A convolution *gathers*: a window of the input becomes one number. The transposed convolution *scatters*: one number
# of the input, times the kernel $K$ of size $h \times w$, is added to a window of the output. For every $i, j$:
#
# $$Y[i : i + h,\; j : j + w] \mathrel{+}= X[i, j]\, K$$
#
# An input of $n_h \times n_w$ becomes $(n_h + h - 1) \times (n_w + w - 1)$.

# %% [markdown] tags=["zh"]
# ## 基本操作
#
# 卷积是*收集*：输入的一个窗口变成一个数。转置卷积是*散布*：输入的一个数乘以大小为 $h \times w$ 的卷积核 $K$，
# 加到输出的一个窗口上。对每个 $i, j$：
#
# $$Y[i : i + h,\; j : j + w] \mathrel{+}= X[i, j]\, K$$
#
# $n_h \times n_w$ 的输入变成 $(n_h + h - 1) \times (n_w + w - 1)$ 的输出。

# %%
X = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
K = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
Y = d2l.trans_conv(X, K)
print("here:", Y.numpy().tolist(), "\nbook: [[0, 0, 1], [0, 4, 6], [4, 12, 9]]")

# %% [markdown] tags=["en"]
# The four terms of the sum, and the result:

# %% [markdown] tags=["zh"]
# 求和的四项以及结果：

# %%
terms = []
for place in np.ndindex(2, 2):
    one = np.zeros_like(X)
    one[place] = X[place]
    terms.append(d2l.trans_conv(one, K).numpy())
figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
titles = [f"X[{i}, {j}] = {X[i, j]:g}" for i, j in np.ndindex(2, 2)] + ["the sum Y"]
for axis, term, title in zip(axes, [*terms, Y.numpy()], titles):
    axis.imshow(term, vmin=0, vmax=12, cmap="Blues")
    axis.set(title=title, xlabel="column", xticks=range(3), yticks=range(3))
    for i, j in np.ndindex(3, 3):
        color = "white" if term[i, j] > 6 else "black"
        axis.text(j, i, f"{term[i, j]:g}", ha="center", va="center", color=color)
axes[0].set_ylabel("row")
plt.show()

# %% tags=["check"]
assert Y.numpy().tolist() == [[0, 0, 1], [0, 4, 6], [4, 12, 9]]
assert np.array_equal(sum(terms), Y)

# %% [markdown] tags=["en"]
# Keras has it as `Conv2DTranspose`: images are `(batch, height, width, channels)`, the kernel
# `(h, w, output channels, input channels)`.

# %% [markdown] tags=["zh"]
# Keras 中它叫 `Conv2DTranspose`：图像是 `(batch, height, width, channels)`，卷积核是 `(h, w, output channels, input channels)`。

# %%
layer = keras.layers.Conv2DTranspose(1, 2, use_bias=False)
layer.build((None, 2, 2, 1))
layer.set_weights([K[:, :, None, None]])
print(layer(X[None, :, :, None])[0, :, :, 0].numpy())

# %% tags=["check"]
assert np.array_equal(layer(X[None, :, :, None])[0, :, :, 0], Y)

# %% [markdown] tags=["en"]
# ## Padding, stride, channels
#
# **Padding** works on the output here: padding 1 cuts one row and one column off each side. **Stride** works on the
# output, too: neighbours of the input write to windows that are `stride` apart. So a larger stride gives a larger
# result, where in a convolution it gives a smaller one.

# %% [markdown] tags=["zh"]
# ## 填充、步幅和多通道
#
# 这里的**填充**作用于输出：填充为 1 时，输出的每一边去掉一行或一列。**步幅**也作用于输出：
# 输入中相邻的两个数写入的窗口相距 `stride`。所以步幅越大结果越大，与卷积正好相反。

# %%
print("padding 1, here:", d2l.trans_conv(X, K, padding=1).numpy().tolist(), "  book: [[4]]")
print("stride 2, here:", d2l.trans_conv(X, K, stride=2).numpy().tolist())
print("stride 2, book: [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]")

# %% tags=["check"]
assert d2l.trans_conv(X, K, padding=1).numpy().tolist() == [[4]]
STRIDE_2 = [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]
assert d2l.trans_conv(X, K, stride=2).numpy().tolist() == STRIDE_2

# %% [markdown] tags=["en"]
# A convolution and a transposed convolution of the same kernel size, stride and padding undo each other's **shape**.
# PyTorch's layers take any padding; Keras has `"valid"` (none) and `"same"` (the output is `stride` times the input).

# %% [markdown] tags=["zh"]
# 卷积核大小、步幅和填充都相同的卷积与转置卷积，**形状**互逆。PyTorch 的层可以用任意填充；
# Keras 只有 `"valid"`（不填充）和 `"same"`（输出是输入的 `stride` 倍）。

# %%
image = np.random.default_rng(0).normal(size=(1, 16, 16, 10)).astype(np.float32)
down = keras.layers.Conv2D(20, 4, strides=2)
up = keras.layers.Conv2DTranspose(10, 4, strides=2)
print(image.shape, "->", tuple(down(image).shape), "->", tuple(up(down(image)).shape))

# %% tags=["check"]
assert up(down(image)).shape == image.shape and down(image).shape == (1, 7, 7, 20)

# %% [markdown] tags=["en"]
# ## Why it is called "transposed"
#
# A convolution is linear, so it is a matrix: with the input read row by row as a vector,
#
# $$\mathrm{vec}(Y) = W\, \mathrm{vec}(X).$$
#
# `kernel2matrix` writes $W$ down: a row for each number of the output, with the kernel's weights where its window lies.

# %% [markdown] tags=["zh"]
# ## 为什么叫“转置”
#
# 卷积是线性的，所以可以写成矩阵：把输入逐行读成向量，
#
# $$\mathrm{vec}(Y) = W\, \mathrm{vec}(X).$$
#
# `kernel2matrix` 写出 $W$：输出的每个数对应一行，卷积核的权重放在它的窗口所在的位置。

# %%
X3 = np.arange(9.0, dtype=np.float32).reshape(3, 3)
K2 = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
Y2 = d2l.corr2d(X3, K2)
W = d2l.kernel2matrix(K2).numpy()
print("convolution:", Y2.numpy().tolist(), "  as a matrix product:", (W @ X3.ravel()).tolist())

plt.figure(figsize=(5.2, 2.6))
plt.imshow(W, cmap="Blues")
plt.xlabel("number of the input, row by row")
plt.ylabel("of the output")
plt.xticks(range(9))
plt.yticks(range(4))
plt.colorbar(label="weight", shrink=0.6)
plt.title("the matrix W")
plt.show()

# %% [markdown] tags=["en"]
# The other way round, from four numbers to nine, goes with $W^\top$, the **transposed** matrix. That is the transposed
# convolution with the same kernel:

# %% [markdown] tags=["zh"]
# 反过来，从四个数到九个数，用 $W^\top$，即**转置**后的矩阵。这正是使用同一个卷积核的转置卷积：

# %%
Z = d2l.trans_conv(Y2, K2)
print("transposed convolution:\n", Z.numpy())
print("the same as a matrix product:", np.array_equal(W.T @ Y2.numpy().ravel(), Z.numpy().ravel()))

# %% tags=["check"]
assert Y2.numpy().tolist() == [[27, 37], [57, 67]]
assert np.array_equal(W @ X3.ravel(), np.ravel(Y2)) and W.shape == (4, 9)
assert np.array_equal(W.T @ np.ravel(Y2), np.ravel(Z))

# %% [markdown] tags=["en"]
# Since the gradient of $Wx$ with respect to $x$ multiplies by $W^\top$, the transposed convolution is also the backward
# pass of a convolution, and the other way round. Libraries compute it that way.
#
# ## Enlarging an image
#
# A network for segmentation starts from a kernel that enlarges well: **bilinear interpolation**. With kernel size
# $2s$ and stride $s$ the result is $s$ times as large. `bilinear_kernel` computes its weights, which fall off linearly
# from the middle.

# %% [markdown] tags=["zh"]
# 因为 $Wx$ 对 $x$ 求梯度就是乘以 $W^\top$，转置卷积也就是卷积的反向传播，反之亦然。各种库正是这样计算的。
#
# ## 放大图像
#
# 做语义分割的网络从一个放大效果好的卷积核开始：**双线性插值**。卷积核大小为 $2s$、步幅为 $s$ 时，结果放大 $s$ 倍。
# `bilinear_kernel` 计算它的权重，从中心向外线性减小。

# %%
scene = d2l.generate_classification(num_train=1, num_val=1, image_size=32, seed=3).train.images[0]
pixels = scene[None].astype(np.float32)
results = {}
for name, kernel in (
    ("bilinear", d2l.bilinear_kernel(3, 3, 8)),
    ("random (Xavier)", keras.initializers.GlorotUniform(1)((8, 8, 3, 3))),
):
    layer = keras.layers.Conv2DTranspose(3, 8, strides=4, padding="same", use_bias=False)
    layer.build(pixels.shape)
    layer.set_weights([kernel])
    results[name] = layer(pixels)[0].numpy()
random = results["random (Xavier)"]
results["random (Xavier)"] = (random - random.min()) / np.ptp(random)  # to be seen at all

figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.8), layout="constrained")
for axis, (name, shown) in zip(axes, [("input", scene), *results.items()]):
    axis.imshow(np.clip(shown, 0, 255).astype(np.uint8) if shown.max() > 1 else shown)
    axis.set(title=f"{name}, {shown.shape[0]} × {shown.shape[1]}", xlabel="x in pixels")
axes[0].set_ylabel("y in pixels")
plt.show()

# %% tags=["check"]
assert results["bilinear"].shape == (128, 128, 3)

# %% [markdown] tags=["en"]
# What to see: the bilinear kernel gives a smooth image, darker only at the border, where windows reach outside. The
# random kernel shows a grid, every four pixels: each input writes the same random window. A network can learn to avoid
# such *checkerboards*, but it has to.
#
# The book has the same kernel, but builds it as `(input, output, h, w)`; here the order is Keras'.
#
# ## Exercises
#
# 1. Is the transposed convolution the *inverse* of the convolution?
# 2. Show with `tf.GradientTape` that the gradient of a convolution is a transposed convolution.
# 3. Stride 2 with kernel size 3: how often is each place of the output written to?

# %% [markdown] tags=["zh"]
# 看什么：双线性核给出平滑的图像，只有边缘较暗，因为那里的窗口伸出了图像。随机核显出间隔四个像素的网格：
# 每个输入都写入同样的随机窗口。网络可以学会避免这种*棋盘效应*，但必须去学。
#
# 书中的卷积核相同，只是排成 `(input, output, h, w)`；这里用 Keras 的顺序。
#
# ## 练习
#
# 1. 转置卷积是卷积的*逆运算*吗？
# 2. 用 `tf.GradientTape` 验证：卷积的梯度是转置卷积。
# 3. 步幅为 2、卷积核大小为 3 时，输出的每个位置被写入几次？

# %% [markdown] tags=["en"]
# **Answers.** 1. No: only the shape comes back. $W^\top W$ is not the identity.

# %% [markdown] tags=["zh"]
# **答案。** 1. 不是：只有形状能恢复。$W^\top W$ 不是单位矩阵。

# %%
print("X:", X3.ravel(), "\nback:", (W.T @ W @ X3.ravel()))

# %% [markdown] tags=["en"]
# 2. If the gradient that comes from above is `Y2`, the one that goes on is `trans_conv(Y2, K2)`:

# %% [markdown] tags=["zh"]
# 2. 如果上面传来的梯度是 `Y2`，传下去的梯度就是 `trans_conv(Y2, K2)`：

# %%
x = tf.Variable(X3)
with tf.GradientTape() as tape:
    y = d2l.corr2d(x, K2)
gradient = tf.convert_to_tensor(tape.gradient(y, x, output_gradients=Y2))
print("equal:", np.array_equal(gradient, Z))

# %% tags=["check"]
assert np.array_equal(gradient, Z) and not np.array_equal(W.T @ W @ X3.ravel(), X3.ravel())

# %% [markdown] tags=["en"]
# 3. With ones everywhere the result counts. It is uneven, 1, 2 or 4: the cause of checkerboards. A kernel size that the
# stride divides, as $2s$ above, writes to every place equally often.

# %% [markdown] tags=["zh"]
# 3. 全用 1，结果就是次数：1、2、4 不均匀，这就是棋盘效应的原因。卷积核大小能被步幅整除时（如上面的 $2s$），
# 内部每个位置写入的次数相同。

# %%
print(d2l.trans_conv(np.ones((3, 3)), np.ones((3, 3)), stride=2).numpy().astype(int))
print(d2l.trans_conv(np.ones((3, 3)), np.ones((4, 4)), stride=2).numpy().astype(int))

# %% tags=["check"]
counts = d2l.trans_conv(np.ones((3, 3)), np.ones((3, 3)), stride=2).numpy()
assert set(counts.ravel()) == {1, 2, 4}
inside = d2l.trans_conv(np.ones((3, 3)), np.ones((4, 4)), stride=2).numpy()[2:-2, 2:-2]
assert set(inside.ravel()) == {4}
