"""What a network sees: every method against a slow or exact one, on models of any construction."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_networks import small_backbone

import kerascv_d2l as d2l
from kerascv_d2l.explain.layers import find_layer, inner_layers
from kerascv_d2l.explain.sanity import shuffled
from kerascv_d2l.explain.subject import NothingFound
from kerascv_d2l.models.detector import matching_score

pytestmark = pytest.mark.quick
SIZE = (12, 16)  # height, width
layers = keras.layers


def image_of(size=SIZE, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (*size, 3)).astype(np.float32)


def parts(activation="relu"):
    """Layers of a classifier of 3 classes, Sequential and flat in this order."""
    return [
        layers.Rescaling(1 / 255, name="scale"),
        layers.Conv2D(4, 3, padding="same", activation=activation, name="first"),
        layers.MaxPooling2D(2, name="half"),
        layers.Conv2D(5, 3, padding="same", activation=activation, name="last"),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(3, activation="softmax", name="out"),
    ]


def chained(made, size=SIZE):
    inputs = keras.Input((*size, 3))
    x = inputs
    for layer in made:
        x = layer(x)
    return keras.Model(inputs, x)


@keras.saving.register_keras_serializable("tests")
class Subclass(keras.Model):
    def __init__(self, made):
        super().__init__()
        self.made = made

    def call(self, x):
        for layer in self.made:
            x = layer(x)
        return x


def constructions():
    """The same network in every way that Keras has to write it down."""
    made = parts()
    flat = chained(made)
    body = chained(made[:4])
    middle = chained([keras.Sequential(made[:2], name="stem"), *made[2:4]])
    subclass = Subclass([*made[:5], _linear(made[5])])  # how it ends cannot be told
    subclass(image_of()[None])
    return {
        "functional": flat,
        "sequential": keras.Sequential([keras.Input((*SIZE, 3)), *made]),
        "sequential without input": keras.Sequential(made),
        "functional in sequential": keras.Sequential([body, *made[4:]]),
        "functional in functional": chained([body, *made[4:]]),
        "three deep": chained([chained([middle]), keras.Sequential(made[4:])]),
        "subclass": subclass,
        "softmax as a layer": chained([*made[:5], _linear(made[5]), layers.Softmax()]),
    }


def _linear(dense):
    twin = layers.Dense(3, name="linear")
    twin.build((None, 5))
    twin.set_weights(dense.get_weights())
    return twin


@pytest.fixture(scope="module")
def models():
    keras.utils.set_random_seed(0)
    return constructions()


def test_saliency_is_the_derivative():
    model, image = chained(parts("tanh")), image_of()
    heat = d2l.saliency(model, image, 1)
    hidden = keras.Model(model.inputs, model.get_layer("mean").output)
    kernel, bias = model.get_layer("out").get_weights()
    step, rng = 0.5, np.random.default_rng(0)
    for row, column in rng.integers(0, SIZE, (6, 2)):
        slopes = []
        for channel in range(3):
            change = np.zeros_like(image)
            change[row, column, channel] = step
            up, down = (
                np.asarray(hidden((image + sign * change)[None]), np.float64) @ kernel + bias
                for sign in (1, -1)
            )
            slopes.append(abs(up - down)[0, 1] / (2 * step))
        np.testing.assert_allclose(heat[row, column], max(slopes), rtol=0.02, atol=2e-7)


def test_all_constructions_of_a_network_give_the_same_maps(models):
    image = image_of()
    flat = models["functional"]
    wanted = {f.__name__: f(flat, image, 2) for f in (d2l.saliency, d2l.grad_cam)}
    assert wanted["grad_cam"].shape == (6, 8) and wanted["saliency"].shape == SIZE
    assert all(np.ptp(heat) > 0 for heat in wanted.values())
    for name, model in models.items():
        before = np.asarray(model(image[None]))
        for method, heat in wanted.items():
            found = getattr(d2l, method)(model, image, 2)
            np.testing.assert_allclose(found, heat, rtol=1e-4, atol=1e-9, err_msg=name)
        named = d2l.grad_cam(model, image, 2, layer="first")
        assert named.shape == SIZE, name
        np.testing.assert_array_equal(np.asarray(model(image[None])), before)  # softmax is back


def test_layers_are_found_by_name(models):
    paths = inner_layers(models["three deep"])
    assert find_layer(models["three deep"], "first").endswith("/stem/first")
    assert all("sequential" not in path.split("/")[0] for path in inner_layers(models["subclass"]))
    assert sum(path.endswith("last") for path in paths) == 1
    with pytest.raises(d2l.InputError, match=r"layer 'nonsense': .* It has"):
        d2l.grad_cam(models["sequential"], image_of(), layer="nonsense")
    with pytest.raises(d2l.InputError, match="expected feature maps"):
        d2l.grad_cam(models["sequential"], image_of(), layer="mean")


def test_integrated_gradients_add_up(models):
    subject, image = d2l.Subject(models["three deep"]), image_of()
    target = subject.target(image[None], 1)
    for baseline in (0.0, (120, 130, 90)):
        heat = d2l.integrated_gradients(subject, image, target, baseline)
        start = np.broadcast_to(np.float32(baseline), image.shape)
        difference = target.score - subject.scores(start[None], target)[0]
        assert heat.shape == SIZE
        assert abs(heat.sum() - difference) <= 0.01 * abs(difference)
    # Without the logits of the network it would be a difference of probabilities.
    assert abs(difference) > 0.01


def test_smooth_grad_is_the_mean_over_copies(models):
    subject, image = d2l.Subject(models["sequential"]), image_of()
    heat = d2l.smooth_grad(subject, image, 0, samples=11, noise=0.1, seed=3)
    rng, deviation = np.random.default_rng(3), 0.1 * np.ptp(image)
    copies = [
        image + deviation * rng.standard_normal((1, *image.shape), np.float32)[0] for _ in range(11)
    ]
    wanted = np.mean([d2l.saliency(subject, copy, 0) for copy in copies], axis=0)
    np.testing.assert_allclose(heat, wanted, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(
        d2l.smooth_grad(subject, image, 0, samples=2, noise=0), d2l.saliency(subject, image, 0),
        rtol=1e-4, atol=1e-9,
    )  # fmt: skip


def test_occlusion_is_a_loop_over_places(models):
    subject, image = d2l.Subject(models["functional"]), image_of()
    target = subject.target(image[None], 1)
    heat = d2l.occlusion(subject, image, target, patch=5, stride=3, fill=(9, 90, 30))
    total, times = np.zeros(SIZE), np.zeros(SIZE)
    for top in (0, 3, 6, 7):
        for left in (0, 3, 6, 9, 11):
            covered = image.copy()
            covered[top : top + 5, left : left + 5] = (9, 90, 30)
            fall = target.score - subject.scores(covered[None], target)[0]
            total[top : top + 5, left : left + 5] += fall
            times[top : top + 5, left : left + 5] += 1
    np.testing.assert_allclose(heat, total / times, atol=1e-6)
    with pytest.raises(d2l.InputError, match="patch=13, stride=6"):
        d2l.occlusion(subject, image, patch=13)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet"])
def test_grad_cam_is_cam(name):
    """With a global mean and one dense layer (or 1 x 1 convolution), but for the factor."""
    subject = d2l.Subject(d2l.imagenet_classifier(name, image_size=(96, 64)))
    image = image_of((96, 64))
    wanted = d2l.cam(subject, image, 7)
    found = d2l.grad_cam(subject, image, 7) * wanted.size
    assert wanted.shape == (3, 2) and wanted.max() > 0
    assert np.abs(found - np.maximum(wanted, 0)).max() <= 1e-5 * np.abs(wanted).max()


def test_grad_cam_plus_plus_counts_every_instance(models):
    """The formula, written out: weights of second and third derivatives of exp(score)."""
    subject, image = d2l.Subject(models["functional"]), image_of()
    pixels = subject.prepare(image)
    target = subject.target(pixels, 1)
    maps, gradients = (m[0].astype(np.float64) for m in subject.maps(pixels, target, "last"))
    wanted = np.zeros(maps.shape[:2])
    for k in range(maps.shape[-1]):
        below = 2 * gradients[..., k] ** 2 + maps[..., k].sum() * gradients[..., k] ** 3
        alphas = np.divide(gradients[..., k] ** 2, below, where=abs(below) > 1e-12, out=0 * below)
        wanted += (alphas * np.maximum(gradients[..., k], 0)).sum() * maps[..., k]
    found = d2l.grad_cam_plus_plus(subject, image, target)
    np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-4, atol=1e-9)
    assert found.max() > 0


def test_cam_refuses_other_endings():
    model = chained([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    with pytest.raises(d2l.InputError, match="does not end in a global mean"):
        d2l.cam(model, image_of())


def test_shuffled_weights_change_the_map(models):
    model, image = models["functional in functional"], image_of()
    before = model.get_weights()
    rows = d2l.sanity_check(d2l.grad_cam, model, image, 1)
    assert [row["stage"] for row in rows] == ["trained", "output layer", "upper half", "all layers"]
    assert rows[0]["correlation"] == 1 and abs(rows[-1]["correlation"]) < 0.9
    np.testing.assert_array_equal(rows[0]["map"], d2l.grad_cam(model, image, 1))
    for value, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, was)
    with shuffled(model, 0.0):
        changed = [not np.array_equal(*pair) for pair in zip(model.get_weights(), before)]  # noqa: B905
    assert changed == [False] * 4 + [True, False]  # the bias is 0
    # A map that looks at nothing learned is found out.
    (*_, last) = d2l.sanity_check(lambda model, image, target: image[..., 0], model, image)
    assert last["correlation"] == 1


def test_a_detection():
    keras.utils.set_random_seed(1)
    model = d2l.TinySSD(class_names=("a", "b"), image_size=(64, 64))
    image = image_of((80, 100))
    found = {name: value.numpy()[0] for name, value in model.detect(image[None]).items()}
    subject = d2l.Subject(model)
    pixels = subject.prepare(image)
    target = subject.target(pixels, 1)
    np.testing.assert_allclose(target.score, found["scores"][1], rtol=1e-4)
    np.testing.assert_allclose(target.box, found["boxes"][1], atol=1e-5)
    heat = d2l.saliency(subject, image, target)
    assert heat.shape == (64, 64) and heat.max() > 0
    assert d2l.grad_cam(subject, image, target).shape >= (4, 4)
    with pytest.raises(d2l.InputError, match="expected the number of a detection, 0 to"):
        subject.target(pixels, 10**6)
    model.decoder.score_threshold = 1.0
    with pytest.raises(NothingFound, match="nothing is found on the image"):
        d2l.Subject(model).target(pixels)


def test_the_detection_that_stands_for_an_object():
    found = {
        "boxes": tf.constant([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.4], [0.5, 0.5, 1, 1]]] * 2),
        "scores": tf.constant([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3]]),
        "classes": tf.constant([[1, 0, 0], [0, 0, -1]]),
    }
    box = tf.constant([0, 0, 0.5, 0.45])
    np.testing.assert_allclose(matching_score(found, box, 0), [0.8, 0.2])
    np.testing.assert_allclose(matching_score(found, box, 2), [0, 0])


def test_the_pixels_of_a_class():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="scores")(inputs))
    model.size_multiple = 4
    kernel = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    model.get_layer("scores").set_weights([kernel[None, None], np.zeros(3, np.float32)])
    image = np.zeros((*SIZE, 3), np.float32)
    image[:, :10, 1], image[:, 10:, 2] = 50, 60
    subject = d2l.Subject(model)
    target = subject.target(subject.prepare(image))
    assert target.name == "1" and target.score == 50 * 120
    heat = d2l.saliency(subject, image, 1)
    np.testing.assert_array_equal(heat, np.float32(image[..., 1] > 0))  # each pixel its own score
    image[:, 10:, 1] = 20  # alike, and not taken for it: only a mean of derivatives lights it
    by_mean, by_cell = (f(subject, image, 1, "scores") for f in (d2l.grad_cam, d2l.layer_cam))
    assert by_mean[:, 10:].min() > 0 and by_cell[:, 10:].max() == 0
    np.testing.assert_allclose(by_cell[:, :10], 50)
    with pytest.raises(d2l.InputError, match="no pixel is taken for 0"):
        d2l.saliency(subject, image, 0)


def test_an_export_needs_no_layers(tmp_path):
    backbone = small_backbone(8)
    model = d2l.Classifier(backbone, ("a", "b", "c"), image_size=(24, 24))
    d2l.export.save(model, tmp_path / "model")
    loaded, image = d2l.export.load(tmp_path / "model"), image_of((30, 40))
    heat = d2l.saliency(loaded, image, "b")
    with tf.GradientTape() as tape:
        pixels = tf.convert_to_tensor(image[None])
        tape.watch(pixels)
        score = tf.math.log(model.classify(pixels)["probabilities"][0, 1])
    wanted = np.abs(tape.gradient(score, pixels)[0]).max(axis=-1)
    assert heat.shape == (30, 40) and heat.max() > 0
    np.testing.assert_allclose(heat, wanted, rtol=1e-3, atol=1e-8)
    assert d2l.occlusion(loaded, image, "b").shape == (30, 40)
    with pytest.raises(d2l.InputError, match="grad_cam needs the layers"):
        d2l.grad_cam(loaded, image)


def test_maps_come_onto_the_image():
    model = d2l.Classifier(small_backbone(8), 2, image_size=(24, 24), crop_pct=0.5)
    image = image_of((40, 80))
    placed = d2l.onto_image(model, image, np.ones((3, 3)))
    wanted = np.zeros((40, 80))
    wanted[10:30, 20:60] = 1
    np.testing.assert_array_equal(placed, wanted)
    assert d2l.share_inside(placed, (20, 10, 40, 30)) == 0.5
    assert np.isnan(d2l.share_inside(-placed, (0, 0, 9, 9)))


def test_targets(models):
    subject = d2l.Subject(models["functional"])
    pixels = subject.prepare(image_of())
    best = subject.target(pixels)
    assert best.name == str(np.argmax(models["functional"](pixels)))
    assert subject.target(pixels, "2").name == "2" and subject.target(pixels, best) is best
    with pytest.raises(d2l.InputError, match="target 3: no such class; expected 0 to 2"):
        subject.target(pixels, 3)
    with pytest.raises(d2l.InputError, match=r"image has shape \(12, 16\)"):
        subject.prepare(image_of()[..., 0])
    with pytest.raises(d2l.InputError, match="for style has no score"):
        d2l.Subject(d2l.TransformerNet())


def test_pixels_are_scaled_for_a_model_that_takes_0_to_1():
    made = parts()
    whole, bare = chained(made), chained(made[1:])
    image = image_of()
    np.testing.assert_allclose(
        d2l.saliency(d2l.Subject(bare, (0, 1)), image, 1), d2l.saliency(whole, image, 1), rtol=1e-4
    )


def test_inside(models):
    subject = d2l.Subject(models["three deep"])
    image = image_of()
    kernels = d2l.first_layer_filters(subject)
    first = inner_layers(subject.model)[find_layer(subject.model, "first")]
    np.testing.assert_array_equal(kernels[2], first.get_weights()[0][..., 2])
    maps = d2l.feature_maps(subject, image, "first")
    np.testing.assert_allclose(maps, first(image[None] / 255)[0], atol=1e-5)
    ideal = d2l.class_visualization(subject, "1", steps=20, jitter=1)
    assert ideal.shape == (*SIZE, 3) and ideal.dtype == np.uint8
    target = subject.target(ideal[None], "1")
    assert target.score > subject.scores(np.full((1, *SIZE, 3), 117), target)[0] + 0.05
    again = d2l.class_visualization(subject, "1", steps=20, jitter=1)
    np.testing.assert_array_equal(again, ideal)


def test_neighbours(models):
    subject, images = d2l.Subject(models["subclass"]), [image_of(seed=k) for k in range(5)]
    vectors = d2l.image_features(subject, images)
    np.testing.assert_allclose(
        vectors[3], d2l.feature_maps(subject, images[3]).mean(axis=(0, 1)), rtol=1e-5
    )
    order, cosines = d2l.nearest_neighbours(vectors, vectors[[3, 1]] * 2, 3)
    assert order[:, 0].tolist() == [3, 1] and order.shape == (2, 3)
    np.testing.assert_allclose(cosines[:, 0], 1)
    assert (np.diff(cosines) <= 0).all()


def test_pca():
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((40, 2)) * (5, 2)
    turned = plane @ np.linalg.qr(rng.standard_normal((6, 6)))[0][:2] + 9
    points, shares = d2l.pca(turned)
    values = np.linalg.eigvalsh(np.cov(turned.T))[::-1]
    np.testing.assert_allclose(points.var(axis=0, ddof=1), values[:2])
    np.testing.assert_allclose(shares, values[:2] / values.sum())
    np.testing.assert_allclose(  # distances are kept, for the points lie on a plane
        np.linalg.norm(points[0] - points[1:], axis=1), np.linalg.norm(plane[0] - plane[1:], axis=1)
    )


@pytest.mark.long  # scikit-learn takes seconds to import
def test_tsne_keeps_groups_apart():
    pytest.importorskip("sklearn")
    vectors = np.repeat([[0.0, 0, 9], [0, 9, 0]], 10, axis=0)
    vectors += np.random.default_rng(0).normal(0, 0.1, vectors.shape)
    points = d2l.tsne(vectors)
    inside = np.linalg.norm(points[:10] - points[:10].mean(axis=0), axis=1).max()
    assert np.linalg.norm(points[:10].mean(axis=0) - points[10:].mean(axis=0)) > inside
    with pytest.raises(d2l.InputError, match="at least 3"):
        d2l.tsne(vectors[:2])


@pytest.mark.long
def test_faster_rcnn_says_the_score_of_a_box():
    model = d2l.FasterRCNN(("a", "b"), "resnet18", image_size=(64, 96))
    image = image_of((64, 96))
    model.decoder = type(model.decoder)(score_threshold=0.0)
    subject = d2l.Subject(model)
    pixels = subject.prepare(image)
    target = subject.target(pixels)
    outputs = model(pixels)
    box = target.box * [96, 64, 96, 64]
    logits, _ = model.predict_regions(outputs["maps"], tf.constant(box[None, None], tf.float32))
    k = model.class_names.index(target.name) + 1
    np.testing.assert_allclose(target.score, tf.nn.softmax(logits)[0, 0, k], rtol=1e-5)
    assert d2l.saliency(subject, image, target).max() > 0
    assert d2l.grad_cam(subject, image, target).size > 1
