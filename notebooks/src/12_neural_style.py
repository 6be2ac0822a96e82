# %% [markdown] tags=["en"]
# # Neural style transfer
#
# Two images are given. The third is to show what the *content* image shows, painted as the *style* image is. No network
# learns anything here: the **image is the only variable**. A fixed network looks at it, and gradient descent changes
# the pixels until
#
# - its features are like those of the content image (**content loss**),
# - the statistics of its features are like those of the style image (**style loss**),
# - neighbouring pixels are alike (**total variation loss**):
#
# $$L = \alpha L_\mathrm{content} + \beta L_\mathrm{style} + \gamma L_\mathrm{tv}$$
#
# This notebook goes with section 14.12 of *Dive into Deep Learning* (13.12 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 样式迁移
#
# 给定两张图像，要得到第三张：它的内容来自*内容图像*，画法来自*样式图像*。这里没有网络在学习：
# **合成图像是唯一的变量**。一个固定不变的网络观察它，梯度下降不断修改它的像素，使
#
# - 它的特征接近内容图像的特征（**内容损失**），
# - 它的特征的统计量接近样式图像的统计量（**样式损失**），
# - 相邻的像素彼此接近（**全变分损失**）：
#
# $$L = \alpha L_\mathrm{content} + \beta L_\mathrm{style} + \gamma L_\mathrm{tv}$$
#
# 本笔记本对应《动手学深度学习》14.12 节（中文版 13.12 节）。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l
from kerascv_d2l import style_transfer as st

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## The two images
#
# Here both are generated. `d2l.read_image("rainier.jpg")` reads your own.

# %% [markdown] tags=["zh"]
# ## 两张图像
#
# 这里两张都由程序生成。用 `d2l.read_image("rainier.jpg")` 可以读取自己的图像。

# %%
image_shape = (96, 144)  # quick: (32, 48)
content = d2l.generate_classification(1, 1, image_size=image_shape, seed=3).train.images[0]
settings = d2l.SceneSettings(
    max_objects=40, object_size=(0.08, 0.2), clutter=30, empty=0.0, occlusion=0.0, texture=2.0
)
style = d2l.generate_detection(
    1, 1, num_classes=10, image_size=image_shape, seed=8, scenes=settings
).train.images[0]
d2l.show_images([content, style], 1, 2, titles=["content", "style"], scale=3)
plt.show()

# %% [markdown] tags=["en"]
# ## Features
#
# The book's network is VGG-19. Style is read from the first convolution of each of its five blocks, content from the
# last one of block 4: by torchvision's numbers, layers 0, 5, 10, 19, 28 and 25. Fine layers see strokes, coarse ones see
# patterns.
#
# With weights from ImageNet that is `net = st.torchvision_vgg19("imagenet")` (500 MB, downloaded at first use). This
# notebook downloads nothing, so the weights are **random**. Even they see colours, edges and textures, and carry a style
# over; only what they know of objects is nothing.

# %% [markdown] tags=["zh"]
# ## 特征
#
# 书中的网络是 VGG-19。样式从五个块各自的第一个卷积层读取，内容从第四块的最后一个卷积层读取；
# 按 torchvision 的编号，是第 0、5、10、19、28 层和第 25 层。浅的层看到笔触，深的层看到图案。
#
# 使用 ImageNet 权重时写 `net = st.torchvision_vgg19("imagenet")`（第一次使用时下载 500 MB）。
# 本笔记本不下载任何东西，所以权重是**随机**的。随机的卷积也能看到颜色、边缘和纹理，足以迁移样式；
# 只是它对物体一无所知。

# %%
net = st.named_network("vgg19", weights=None, seed=0, pooling="average")
print("style layers", net.style_layers, "  content layers", net.content_layers)
content_X, contents_Y = st.get_contents(image_shape, content, net)
style_X, styles_Y = st.get_styles(image_shape, style, net)
for layer, features in zip(net.style_layers, styles_Y):
    print("layer", layer, "features", features.shape)

# %% tags=["check"]
assert net.style_layers == (0, 5, 10, 19, 28) and net.content_layers == (25,)

# %% [markdown] tags=["en"]
# `preprocess` normalises an image with ImageNet's mean and standard deviation; `postprocess` turns it back.
# `pooling="average"` replaces the maxima of VGG by means: the gradient of a maximum changes one pixel of four, which
# shows as dots.
#
# ## The losses
#
# **Content**: the mean squared difference of features. It is 0 for the content image itself.
#
# **Style**: a feature map of $c$ channels and $n$ places is a matrix $X$ of $n \times c$. Its **Gram matrix**
#
# $$G = \frac{X^\top X}{c\,n}$$
#
# says how strongly every two channels respond together. Where they do is summed away, so the style forgets the layout.
# The style loss is the mean squared difference of Gram matrices.
#
# **Total variation**: half of the mean difference downwards plus half of that to the right.

# %% [markdown] tags=["zh"]
# `preprocess` 用 ImageNet 的均值和标准差对图像做标准化；`postprocess` 还原。`pooling="average"` 把 VGG 的最大汇聚换成
# 平均汇聚：最大值的梯度只改变四个像素中的一个，看上去就是许多斑点。
#
# ## 损失函数
#
# **内容损失**：特征之差的平方的平均。对内容图像本身，它是 0。
#
# **样式损失**：有 $c$ 个通道、$n$ 个位置的特征图是一个 $n \times c$ 的矩阵 $X$。它的**格拉姆矩阵**
#
# $$G = \frac{X^\top X}{c\,n}$$
#
# 表示每两个通道一起响应的强度。在哪里响应已被求和抹去，所以样式与布局无关。样式损失是格拉姆矩阵之差的平方的平均。
#
# **全变分损失**：上下相邻像素之差的平均与左右相邻像素之差的平均，各取一半相加。

# %%
X = np.array([[[[1.0, 2.0], [3.0, 0.0]]]], np.float32)  # one image of 1 x 2 places, 2 channels
print("Gram matrix", st.gram(X).numpy().tolist())
stripes = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)[None, :, :, None]
print("total variation of stripes", st.tv_loss(stripes).numpy())

shuffled = np.random.default_rng(0).permutation(styles_Y[1].numpy().reshape(-1, 128))
shuffled = shuffled.reshape(styles_Y[1].shape)
print(
    f"the style's features in another order: content {st.content_loss(shuffled, styles_Y[1]):.2g}, "
    f"style {st.style_loss(shuffled, st.gram(styles_Y[1])):.2g}"
)

# %% tags=["check"]
assert st.gram(X).numpy().tolist() == [[2.5, 0.5], [0.5, 1]] and st.tv_loss(stripes) == 0.5
assert st.style_loss(shuffled, st.gram(styles_Y[1])) < 1e-8 < st.content_loss(shuffled, styles_Y[1])

# %% [markdown] tags=["en"]
# By hand: $X^\top X$ of the rows (1, 2) and (3, 0) is ((10, 2), (2, 4)), divided by $2 \cdot 2$. Features in another
# order differ as content, but are the same style.
#
# ## Training the image
#
# The book weights its losses 1 : 10,000 : 10 and takes 500 steps of Adam at rate 0.3, times 0.8 every 50 steps, for an
# image of 300 × 450. Its way, with the book's names, is one line:
# `st.train(content_X, contents_Y, styles_Y, 0.3, 500, 50, net)`. Those weights fit VGG-19 with torchvision's weights and
# nothing else. `StyleTransfer` measures the losses in units of what they are at the start for these two images, so that
# one set of weights (1 : 10 : 3) serves every network. For two photographs:
# `python scripts/style_transfer.py rainier.jpg autumn-oak.jpg`, with `--recipe book` for the book's losses.
#
# The curves count tens of steps.

# %% [markdown] tags=["zh"]
# 手算：行 (1, 2) 和 (3, 0) 的 $X^\top X$ 是 ((10, 2), (2, 4))，再除以 $2 \cdot 2$。
# 打乱顺序的特征作为内容是不同的，作为样式却完全相同。
#
# ## 训练合成图像
#
# 书中三个损失的权重是 1 : 10,000 : 10，用 Adam 训练 500 步，学习率 0.3，每 50 步乘以 0.8，图像大小 300 × 450。
# 按书中的方式和名称只需这一行：`st.train(content_X, contents_Y, styles_Y, 0.3, 500, 50, net)`。
# 这组权重只适合 torchvision 权重的 VGG-19。`StyleTransfer` 以这两张图像在开始时的损失为单位来衡量损失，
# 所以同一组权重（1 : 10 : 3）适合任何网络。对两张照片运行只需这一行：
# `python scripts/style_transfer.py rainier.jpg autumn-oak.jpg`；加上 `--recipe book` 就用书中的损失。
#
# 曲线的横轴以十步为单位。

# %%
steps = 120  # quick: 10
transfer = st.StyleTransfer(content, style, net, image_shape, steps=steps, optimizer="adam")
curves = d2l.LiveCurves(names=("content", "style", "tv"))
snapshots = {}


def watch(transfer):
    done = len(transfer.history)
    if done % 10 == 0:
        curves.on_epoch_end(done // 10 - 1, dict(zip(st.LOSS_NAMES, transfer.history[-1])))
    if done in (10, 40, steps):
        snapshots[done] = transfer.image()


result = transfer.run(watch)
first, last = transfer.history[0], transfer.history[-1]
for name, start, end in zip(st.LOSS_NAMES, first, last):
    print(f"{name:8} {start:7.3f} -> {end:7.3f}")

# %%
titles = ["content", *(f"{done} steps" for done in snapshots), "style"]
d2l.show_images([content, *snapshots.values(), style], 1, len(titles), titles=titles, scale=2.4)
plt.show()

# %% tags=["check-full"]
assert last[1] < 0.5 * first[1] and last[3] < first[3]

# %% [markdown] tags=["en"]
# What to see: it starts as the content image. First its colours become those of the style, then spots and edges of the
# style's size appear, and the large shape stays where it was. The content loss rises from 0, the style loss falls.
#
# What the book does differently: it uses trained weights, with which patterns of the style come as whole pieces; max
# pooling; and it does not keep pixels among the colours that exist.
#
# ## Exercises
#
# 1. Paint with a hundredth of the style weight. What changes?
# 2. Keep the colours of the content: `preserve_color=True`.
# 3. Why does the image start from the content, not from noise? Compare the losses of the two at the start.

# %% [markdown] tags=["zh"]
# 看什么：开始时就是内容图像。先是颜色变成样式图像的颜色，然后出现与样式中大小相同的斑点和边缘，而大的形状留在原处。
# 内容损失从 0 上升，样式损失下降。
#
# 书中的不同之处：使用训练好的权重，样式的图案会成块地出现；使用最大汇聚；不限制像素在实际存在的颜色之内。
#
# ## 练习
#
# 1. 把样式损失的权重减为百分之一，有什么变化？
# 2. 保留内容图像的颜色：`preserve_color=True`。
# 3. 为什么从内容图像开始，而不从噪声开始？比较两者开始时的损失。

# %% [markdown] tags=["en"]
# **Answers.** 1 and 2, with fewer steps:

# %% [markdown] tags=["zh"]
# **答案。** 1 和 2（步数少一些）：

# %%
few = 40  # quick: 2
painted = {}
for title, options in (
    ("style weight 10", {}),
    ("style weight 0.1", {"weights": st.LossWeights(style=0.1)}),
    ("colours kept", {"preserve_color": True}),
):
    one = st.StyleTransfer(content, style, net, image_shape, steps=few, optimizer="adam", **options)
    painted[title] = one.run()
d2l.show_images(list(painted.values()), 1, 3, titles=list(painted), scale=2.6)
plt.show()

# %% [markdown] tags=["en"]
# With little style the image hardly leaves the content. With its colours kept only light and dark are painted.
#
# 3. From noise the content has to be found first, against the total variation, which is large:

# %% [markdown] tags=["zh"]
# 样式权重很小时，图像几乎不离开内容图像。保留颜色时，只改变明暗。
#
# 3. 从噪声开始，首先要找回内容，而且全变分损失很大：

# %%
for start in ("content", "noise"):
    one = st.StyleTransfer(content, style, net, image_shape, steps=1, optimizer="adam", start=start)
    one.run()
    losses = ", ".join(f"{name} {value:.2f}" for name, value in zip(st.LOSS_NAMES, one.history[0]))
    print(f"start from {start}: {losses}")
