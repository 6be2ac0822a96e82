# %% [markdown] tags=["en"]
# # Autoencoder, VAE and GAN
#
# So far a network said something *about* an image. Here it makes one. Three steps lead there:
#
# - an **autoencoder** squeezes an image into a short code and makes the image from it again;
# - a **variational autoencoder** (VAE) does the same, with codes that are spread like a normal distribution, so that
#   a code drawn from it gives a new image;
# - a **generative adversarial network** (GAN) has no encoder: a second network judges whether an image is real, and the
#   first learns to pass.
#
# The book has no such section in this chapter; the course notes that this package follows have.

# %% [markdown] tags=["zh"]
# # 自编码器、VAE 和 GAN
#
# 到目前为止，网络只是*描述*图像。这里要让它生成图像，分三步：
#
# - **自编码器**把图像压缩成很短的编码，再由编码还原图像；
# - **变分自编码器**（VAE）做同样的事，但编码服从正态分布，所以从中随机取一个编码就得到一张新图像；
# - **生成对抗网络**（GAN）没有编码器：另一个网络判断图像是真是假，前一个网络学习骗过它。
#
# 书中这一章没有这一节；本包所依据的课程笔记中有。

# %%
# If the package is missing, as in Colab: remove the "#" of the next line and give the repository's address.
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import keras
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

keras.utils.set_random_seed(0)

# %% [markdown] tags=["en"]
# ## The images
#
# Four kinds of shapes, 32 × 32 pixels. Other images: `data = d2l.load("cifar10", "classification")`. The command that
# trains longer, scores and exports is `python scripts/train_generator.py --model gan`.

# %% [markdown] tags=["zh"]
# ## 图像
#
# 四种形状，32 × 32 像素。换成别的图像：`data = d2l.load("cifar10", "classification")`。训练更久、并且评分和导出的命令是
# `python scripts/train_generator.py --model gan`。

# %%
num_train, num_val, width = 1000, 64, 32  # quick: 64, 16, 4
batch_size, latent_size = 32, 32
data = d2l.load(
    "generated",
    "classification",
    num_train=num_train,
    num_val=num_val,
    image_size=32,
    scenes="plain",
)
train = d2l.Split(data.train.images, {}, data.train.names)  # images alone
batches = d2l.batches(train, 32, batch_size, training=True, transform=d2l.Compose([]))
steps = d2l.steps_per_epoch(train, batch_size)
real = data.val.images[:8]
jit = d2l.resolve_jit_compile("auto")
shape = {"image_size": (32, 32), "latent_size": latent_size, "width": width}
d2l.show_images(real, 1, 8, scale=1.2)
plt.show()

# %% [markdown] tags=["en"]
# ## Autoencoder
#
# 3072 numbers become 32, and 3072 again. The loss compares the result with the image itself; no label is needed.

# %% [markdown] tags=["zh"]
# ## 自编码器
#
# 3072 个数压缩成 32 个，再还原成 3072 个。损失函数把结果与图像本身比较，不需要标签。

# %%
epochs = 12  # quick: 1
ae = d2l.Autoencoder(**shape)
ae.compile(keras.optimizers.Adam(1e-3), jit_compile=jit)
options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
curves = d2l.LiveCurves(names=("reconstruction_loss",))
ae.fit(batches, epochs=epochs, callbacks=[curves], **options)
rebuilt = ae.reconstruct(real)["images"].numpy()

# %% [markdown] tags=["en"]
# ## Variational autoencoder
#
# What does a code mean that no image has? In an autoencoder nobody knows. The VAE's encoder gives a mean $\mu$ and a
# variance $\sigma^2$ for each number of the code, and training draws $z = \mu + \sigma \varepsilon$ with normal noise
# $\varepsilon$. The loss adds the divergence of that distribution from the standard normal one:
#
# $$L = L_\mathrm{reconstruction} + \beta\,\mathrm{KL}, \qquad
# \mathrm{KL} = -\tfrac12 \sum (1 + \log\sigma^2 - \mu^2 - \sigma^2)$$
#
# The reconstruction must be the *sum* over the pixels. With a mean, as is often written, it weighs 3072 times less, the
# second term wins, and all images get the same code.

# %% [markdown] tags=["zh"]
# ## 变分自编码器
#
# 一个不属于任何图像的编码代表什么？在自编码器里没有人知道。VAE 的编码器为编码的每个数给出均值 $\mu$ 和方差 $\sigma^2$，
# 训练时取 $z = \mu + \sigma \varepsilon$，其中 $\varepsilon$ 是正态噪声。损失函数再加上这个分布与标准正态分布的散度：
#
# $$L = L_\mathrm{reconstruction} + \beta\,\mathrm{KL}, \qquad
# \mathrm{KL} = -\tfrac12 \sum (1 + \log\sigma^2 - \mu^2 - \sigma^2)$$
#
# 重构损失必须对像素求*和*。如果像许多代码那样求平均，它就小了 3072 倍，第二项占上风，所有图像得到同样的编码。

# %%
vae = d2l.VAE(**shape)
vae.compile(keras.optimizers.Adam(1e-3), jit_compile=jit)
curves = d2l.LiveCurves(names=("reconstruction_loss", "kl_loss"))
history = vae.fit(batches, epochs=epochs, callbacks=[curves], **options).history
print({name: round(values[-1], 1) for name, values in history.items() if name != "loss"})

# %%
mean, log_variance = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 0.0]], np.float32)
print("KL of mean (1, 0), variance (1, 1):", float(d2l.gaussian_kl(mean, log_variance)[0]))
rows = [
    *real,
    *rebuilt,
    *vae.reconstruct(real)["images"].numpy(),
    *vae.sample(8, 1)["images"].numpy(),
]
axes = d2l.show_images(rows, 4, 8, scale=1.2)
for row, title in enumerate(("images", "autoencoder", "VAE", "VAE, random codes")):
    axes[8 * row].set_title(title, loc="left", fontsize=9)
plt.tight_layout()
plt.show()

# %% tags=["check"]
assert float(d2l.gaussian_kl(mean, log_variance)[0]) == 0.5

# %% tags=["check-full"]
assert (
    history["kl_loss"][-1] > 5
    and history["reconstruction_loss"][-1] < history["reconstruction_loss"][0]
)

# %% [markdown] tags=["en"]
# What to see: the autoencoder keeps some of the colours, the VAE, whose codes are noisy, only what is light and dark. The
# last row shows images that never were. All outlines are blurred: a mean of the possible outlines costs less than a
# sharp one at the wrong place.
#
# Between two codes lie others. From the first image to the last:

# %% [markdown] tags=["zh"]
# 看什么：自编码器保留了一部分颜色；VAE 的编码带有噪声，只保留了明暗。最后一行是从未存在过的图像。
# 所有轮廓都是模糊的：对可能的轮廓取平均，比在错误的位置画出清晰的轮廓损失更小。
#
# 两个编码之间还有别的编码。从第一张图像走到最后一张：

# %%
codes = vae.encode(real)["codes"].numpy()
path = d2l.walk(codes[0], codes[7], 8, spherical=False)
d2l.show_images(vae.decode(path)["images"].numpy(), 1, 8, scale=1.2)
plt.show()

# %% [markdown] tags=["en"]
# ## GAN
#
# The discriminator $D$ scores images, the generator $G$ turns noise $z$ into images:
#
# $$\min_G \max_D\; \mathrm{E}_x \log D(x) + \mathrm{E}_z \log(1 - D(G(z)))$$
#
# Taken literally, $G$ hardly learns where it is bad: there $D$ is sure, and the second term is flat. So $G$ maximises
# $\log D(G(z))$ instead, which is steep there: the *non-saturating* loss.

# %% [markdown] tags=["zh"]
# ## 生成对抗网络
#
# 判别器 $D$ 给图像打分，生成器 $G$ 把噪声 $z$ 变成图像：
#
# $$\min_G \max_D\; \mathrm{E}_x \log D(x) + \mathrm{E}_z \log(1 - D(G(z)))$$
#
# 照字面去做，$G$ 在做得不好时几乎学不到东西：那时 $D$ 很有把握，第二项是平的。所以改为让 $G$ 最大化
# $\log D(G(z))$，它在那里很陡：这就是*非饱和*损失。

# %%
scores = np.linspace(-8, 4, 100, dtype=np.float32)[:, None]
plt.figure(figsize=(5, 3))
for name in ("minimax", "non_saturating"):
    plt.plot(scores, np.ravel(d2l.generator_loss(name, scores)), label=name)
plt.xlabel("score of a generated image (low: seen through)")
plt.ylabel("loss of the generator")
plt.legend()
plt.show()

# %%
gan_epochs = 25  # quick: 1
gan = d2l.GAN(**shape)
gan.compile(keras.optimizers.Adam(1e-3, 0.5), keras.optimizers.Adam(1e-3, 0.5), jit_compile=jit)
curves = d2l.LiveCurves(names=("discriminator_loss", "generator_loss"))
history = gan.fit(batches, epochs=gan_epochs, callbacks=[curves], **options).history
d2l.show_images(gan.sample(16, 1)["images"].numpy(), 2, 8, scale=1.2)
plt.show()

# %% [markdown] tags=["en"]
# What to see: more contrast and colour than the VAE has, arcs and corners, but few whole shapes: a GAN needs more steps
# than these (the script trains on three times as many images). Neither loss falls: each network works against the
# other, so the curves do not say whether the images are good. That takes a *score*: the **Fréchet distance** between the features of real and of generated images,
#
# $$\|\mu_1 - \mu_2\|^2 + \mathrm{Tr}(\Sigma_1 + \Sigma_2 - 2(\Sigma_1 \Sigma_2)^{1/2}).$$
#
# Below, the pixels are averaged over 4 × 4 and serve as features. That is a poor choice (the script trains a classifier
# for it), but it compares the three.
#
# ## Exercises
#
# 1. How far are both kinds of generated images, and real ones, from the training images?
# 2. What is the Jensen-Shannon divergence of two distributions that share nothing?
# 3. Train a VAE with `beta=20`. What happens to its codes?

# %% [markdown] tags=["zh"]
# 看什么：比 VAE 的对比度和颜色更强，有弧线和尖角，但完整的形状很少：GAN 需要比这更多的训练步
# （脚本使用三倍的图像）。两个损失都不下降：两个网络互相对抗，所以曲线不能说明图像好不好。
# 这需要*评分*：真实图像和生成图像的特征之间的**弗雷歇距离**，
#
# $$\|\mu_1 - \mu_2\|^2 + \mathrm{Tr}(\Sigma_1 + \Sigma_2 - 2(\Sigma_1 \Sigma_2)^{1/2}).$$
#
# 下面把像素按 4 × 4 取平均当作特征。这不是好的选择（脚本会为此训练一个分类器），但可以比较三者。
#
# ## 练习
#
# 1. 两种生成图像以及真实图像，离训练图像各有多远？
# 2. 两个完全不重叠的分布，詹森-香农散度是多少？
# 3. 用 `beta=20` 训练一个 VAE，编码会怎样？

# %% [markdown] tags=["en"]
# **Answers.** 1.

# %% [markdown] tags=["zh"]
# **答案。** 1.

# %%
count = 64  # quick: 16
kinds = {
    "real, not trained on": data.val.images,
    "VAE": vae.sample(count, 2)["images"].numpy(),
    "GAN": gan.sample(count, 2)["images"].numpy(),
}
features = {
    name: images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(images), -1) / 255
    for name, images in {"train": data.train.images[:500], **kinds}.items()
}
for name in kinds:
    print(f"{name:21} {d2l.frechet_distance(features['train'], features[name]):6.2f}")

# %% [markdown] tags=["en"]
# 2. $\log 2$, however near or far they are. So a discriminator that tells everything apart gives no direction.

# %% [markdown] tags=["zh"]
# 2. $\log 2$，不论两者相距远近。所以完全能分辨真假的判别器给不出改进的方向。

# %%
print(float(d2l.js_divergence([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5])), np.log(2))

# %% tags=["check"]
assert np.isclose(d2l.js_divergence([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]), np.log(2))

# %% [markdown] tags=["en"]
# 3. The divergence becomes small: most numbers of the code carry nothing, and the images are blurred more.

# %% [markdown] tags=["zh"]
# 3. 散度变小：编码的大多数数不再携带信息，图像更加模糊。

# %%
few = 4  # quick: 1
heavy = d2l.VAE(**shape, beta=20.0)
heavy.compile(keras.optimizers.Adam(1e-3), jit_compile=jit)
last = heavy.fit(batches, epochs=few, **options).history
print(f"KL {last['kl_loss'][-1]:.1f}, reconstruction {last['reconstruction_loss'][-1]:.1f}")
