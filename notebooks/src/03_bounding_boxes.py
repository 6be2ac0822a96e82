# %% [markdown] tags=["en"]
# # Bounding boxes
#
# Classification says *what* is on an image. **Object detection** also says *where*, for every object. The answer for
# one object is a class and a **bounding box**: the smallest upright rectangle around the object.
#
# This notebook goes with section 14.3 of *Dive into Deep Learning* (13.3 in the Chinese edition).

# %% [markdown] tags=["zh"]
# # 目标检测和边界框
#
# 图像分类回答图像上*是什么*。**目标检测**还要回答每个物体*在哪里*。
# 一个物体的答案是一个类别和一个**边界框**：包住物体的最小正矩形。
#
# 本笔记本对应《动手学深度学习》英文版 14.3 节，中文版 13.3 节。

# %%
# Where the package is missing, as in Colab, remove "# " here and give the repository's address:
# %pip install -q git+https://ADDRESS-OF-THIS-REPOSITORY
import matplotlib.pyplot as plt
import numpy as np

import kerascv_d2l as d2l

# %% [markdown] tags=["en"]
# ## An image with two objects
#
# Its height is 200 and its width 300 pixels. The origin is the upper left corner: x grows to the right, y **downwards**.

# %% [markdown] tags=["zh"]
# ## 有两个物体的图像
#
# 图像高 200 像素，宽 300 像素。原点在左上角：x 向右增大，y **向下**增大。

# %%
data = d2l.generate_detection(
    num_train=8, num_val=1, num_classes=4, image_size=(200, 300), scenes="large", seed=3
)
index = next(i for i, boxes in enumerate(data.train.targets["boxes"]) if len(boxes) == 2)
img, boxes = data.train.images[index], data.train.targets["boxes"][index]
names = [data.class_names[k] for k in data.train.targets["classes"][index]]
plt.imshow(img)
plt.xlabel("x in pixels")
plt.ylabel("y in pixels")
plt.show()

# %% [markdown] tags=["en"]
# ## Two ways to write a box
#
# - two corners: $(x_\text{min}, y_\text{min}, x_\text{max}, y_\text{max})$;
# - centre, width and height: $(x, y, w, h)$.
#
# $$x = \frac{x_\text{min} + x_\text{max}}{2},\quad y = \frac{y_\text{min} + y_\text{max}}{2},\quad
# w = x_\text{max} - x_\text{min},\quad h = y_\text{max} - y_\text{min}$$
#
# `box_corner_to_center` and `box_center_to_corner` go there and back. These are the book's dog and cat, in pixels of
# its photograph.

# %% [markdown] tags=["zh"]
# ## 边界框的两种写法
#
# - 两个角：$(x_\text{min}, y_\text{min}, x_\text{max}, y_\text{max})$；
# - 中心、宽和高：$(x, y, w, h)$。
#
# $$x = \frac{x_\text{min} + x_\text{max}}{2},\quad y = \frac{y_\text{min} + y_\text{max}}{2},\quad
# w = x_\text{max} - x_\text{min},\quad h = y_\text{max} - y_\text{min}$$
#
# `box_corner_to_center` 和 `box_center_to_corner` 在两种写法之间转换。下面是书中照片里的狗和猫，单位是像素。

# %%
dog, cat = [60.0, 45.0, 378.0, 516.0], [400.0, 112.0, 655.0, 493.0]
corners = np.array([dog, cat], np.float32)
centers = d2l.box_corner_to_center(corners).numpy()
print("centres, widths, heights:")
print(centers)
print("and back, equal:", bool((d2l.box_center_to_corner(centers).numpy() == corners).all()))

# %% tags=["check"]
assert (d2l.box_center_to_corner(centers).numpy() == corners).all()
assert centers.tolist() == [[219, 280.5, 318, 471], [527.5, 302.5, 255, 381]]
assert img.shape == (200, 300, 3)

# %% [markdown] tags=["en"]
# ## Draw boxes
#
# Data sets and networks of this package hold **normalised** boxes: x divided by the image's width, y by its height, so
# that all numbers are between 0 and 1. They stay right when the image is resized. To draw, multiply them by the size.
# `show_bboxes` is the book's; `bbox_to_rect`, which it calls, makes a rectangle for Matplotlib.

# %% [markdown] tags=["zh"]
# ## 画边界框
#
# 本软件包的数据集和网络使用**归一化**的边界框：x 除以图像宽度，y 除以图像高度，所有数都在 0 到 1 之间。
# 这样图像缩放之后边界框仍然正确。画图时要乘以图像尺寸。
# `show_bboxes` 是书中的函数；它调用 `bbox_to_rect` 生成 Matplotlib 的矩形。

# %%
print("normalised:")
print(boxes)
height, width = img.shape[:2]
scale = np.array([width, height, width, height])
axes = plt.imshow(img).axes
d2l.show_bboxes(axes, boxes * scale, names)
plt.xlabel("x in pixels")
plt.ylabel("y in pixels")
plt.show()

# %% [markdown] tags=["en"]
# What to see: each box goes around its whole object; the parts that the bars hide count as well. (The bars are no
# objects.) The corners of a box may hold a lot of background.
# A box that is a little too large costs little area, but the measure of the next notebook, the intersection over
# union, notices it.
#
# What the book does differently: it draws boxes in pixels and normalises them later. Here they are normalised from the
# start, in one order, and every function says which it wants.

# %% [markdown] tags=["zh"]
# 看什么：每个边界框包住整个物体，被长条遮住的部分也算在内（长条不是目标）。框的角落里可能有很多背景。
# 框稍大一点，面积只多一点，但下一个笔记本的度量（交并比）能反映出来。
#
# 与书的不同：书中先用像素画框，以后再归一化。这里从一开始就归一化，顺序只有一种，每个函数都说明需要哪一种。

# %% [markdown] tags=["en"]
# ## Exercises
#
# 1. A disc touches all four sides of its box. Which share of the box does it cover?
# 2. An image is flipped left to right. What happens to a normalised box?
# 3. What does the conversion give for a box with $x_\text{max} < x_\text{min}$?
#
# Answers:

# %% [markdown] tags=["zh"]
# ## 练习
#
# 1. 圆盘与边界框的四条边都相切。它占边界框面积的多少？
# 2. 图像左右翻转后，归一化的边界框怎样变化？
# 3. 如果 $x_\text{max} < x_\text{min}$，转换结果是什么？
#
# 答案：

# %%
print(f"1. a disc covers pi / 4 = {np.pi / 4:.3f} of its box")

x_min, y_min, x_max, y_max = boxes[0]
flipped = d2l.RandomHorizontalFlip(p=1)(
    {"images": img, "bounding_boxes": {"boxes": boxes[:1], "labels": np.array([0])}}
)
print("2. by hand:     ", np.array([1 - x_max, y_min, 1 - x_min, y_max]))
print("   by the layer:", flipped["bounding_boxes"]["boxes"].numpy()[0])

print("3.", d2l.box_corner_to_center(np.array([[5.0, 0, 1, 2]], np.float32)).numpy()[0])
print("   the width is negative: such a box is an error in the data, and `load` reports it")

# %% tags=["check"]
assert np.allclose(
    flipped["bounding_boxes"]["boxes"].numpy()[0], [1 - x_max, y_min, 1 - x_min, y_max]
)
