import keras
import numpy as np
import pytest

from kerascv_d2l import style_transfer as st
from kerascv_d2l.errors import InputError
from kerascv_d2l.style_transfer import images, transfer as transfer_module

SHAPE = (24, 36)
BOTH = pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name="b")(x)
    return st.from_model(keras.Model(inputs, x), ["b"], ["a", "b"], "torch")


@pytest.fixture(scope="module")
def content():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    channels = [128 + 100 * np.sin(y / 5), 128 + 90 * np.cos(x / 7), 4 * x]
    return np.stack(channels, -1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def style():
    y, x = np.mgrid[:30, :20]
    stripes = np.where((x + y) % 6 < 3, 230, 40)
    return np.stack([stripes, stripes // 2, 0 * stripes + 30], -1).astype(np.uint8)


def run(content, style, net, **arguments):
    if arguments.get("optimizer") == "lbfgs":
        pytest.importorskip("scipy")
    return st.StyleTransfer(content, style, net, **arguments)


@pytest.mark.quick
@BOTH
def test_the_loss_falls_and_the_image_takes_the_contents_shape(content, style, net, optimizer):
    transfer = run(content, style, net, steps=40, optimizer=optimizer)
    image = transfer.run()
    assert image.size == SHAPE[::-1]
    losses = np.array(transfer.history)
    assert losses[-5:, 3].mean() < 0.5 * losses[0, 3]
    np.testing.assert_allclose(losses[:, :3].sum(1), losses[:, 3], rtol=1e-4)
    assert len(losses) >= 40
    if optimizer == "lbfgs":  # but for a try of its line search now and then
        assert np.mean(np.diff(losses[:, 3]) > 0) < 0.15


@BOTH
def test_killed_and_restored_it_goes_on_exactly(content, style, net, optimizer, monkeypatch):
    monkeypatch.setattr(transfer_module, "LBFGS_ROUND", 6)
    arguments = {"steps": 20, "levels": 2, "optimizer": optimizer, "start": "noise", "seed": 3}
    straight = run(content, style, net, **arguments)
    expected = straight.run()

    first = run(content, style, net, **arguments)
    first.run(callback=lambda t: len(t.history) >= 14)  # on the second level, within a round
    assert not first.done
    second = run(content, style, net, **arguments)
    second.set_state(first.state())
    assert second.level == 1
    np.testing.assert_array_equal(np.asarray(second.run()), np.asarray(expected))
    np.testing.assert_allclose(second.history, straight.history, rtol=1e-5)
    # Gone on with in the same process.
    np.testing.assert_array_equal(np.asarray(first.run()), np.asarray(expected))
    np.testing.assert_allclose(first.history, straight.history, rtol=1e-5)
    assert first.done and second.done


def test_a_run_of_other_settings_is_not_restored(content, style, net):
    state = run(content, style, net, steps=3).state()
    for other in ({"optimizer": "lbfgs"}, {"image_shape": (12, 18)}, {"levels": 2}):
        with pytest.raises(InputError, match="other settings"):
            run(content, style, net, steps=3, **other).set_state(state)


@BOTH
def test_without_style_and_variation_the_content_comes_back(content, style, net, optimizer):
    weights = st.LossWeights(1, 0, 0)
    transfer = run(content, style, net, steps=10, weights=weights, optimizer=optimizer)
    np.testing.assert_array_equal(np.asarray(transfer.run()), content)


def test_total_variation_alone_removes_noise(content, style, net):
    noise = np.random.RandomState(0).randint(-40, 41, content.shape)
    noisy = (content.astype(int) + noise).clip(0, 255).astype(np.uint8)
    weights = st.LossWeights(0, 0, 1)
    image = run(noisy, style, net, steps=10, weights=weights, lr=0.05).run()

    def roughness(image):
        return np.abs(np.diff(np.asarray(image, int), axis=1)).mean()

    assert roughness(image) < 0.7 * roughness(noisy)


def test_without_content_the_style_takes_over(content, style, net):
    weights = st.LossWeights(0, 1, 0)
    transfer = run(content, style, net, steps=80, weights=weights)
    transfer.run()
    assert transfer.history[0][1] == pytest.approx(1, rel=1e-3)
    assert transfer.history[-1][1] < 0.1


@pytest.mark.quick
def test_levels_double_and_share_the_steps(content, style, net):
    shapes = []
    transfer = run(content, style, net, image_shape=(33, 50), steps=9, levels=3)
    assert transfer.level_shapes == [(8, 12), (16, 25), (33, 50)]
    image = transfer.run(lambda t: shapes.append(t.image().size[::-1]))
    assert shapes == [(8, 12)] * 3 + [(16, 25)] * 3 + [(33, 50)] * 3
    assert image.size == (50, 33)


def test_losses_are_of_the_image_so_far(content, style, net):
    before = run(content, style, net, steps=4)
    np.testing.assert_allclose(before.losses(), [0, 10, before.losses()[2], before.losses()[3]])
    before.run(lambda t: len(t.history) == 1)
    np.testing.assert_allclose(before.history[0][:2], [0, 10], atol=1e-4)
    assert before.losses()[3] < before.history[0][3]
    assert before.normalised.shape == (1, *SHAPE, 3)


def test_finer_levels_take_smaller_steps(content, style, net):
    rates = []
    transfer = run(content, style, net, steps=2, levels=2, lr=0.2)
    transfer.run(lambda t: rates.append(float(t._adam.learning_rate)))
    assert rates == pytest.approx([0.2, 0.1])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("cosine", [0.2, 0.2 * (1 + 2**-0.5) / 2, 0.1, 0.2 * (1 - 2**-0.5) / 2]),
        ("steps", [0.2, 0.2 * 0.8**2, 0.2 * 0.8**5, 0.2 * 0.8**7]),
    ],
)
def test_schedules(content, style, net, schedule, wanted):
    rates = []
    transfer = run(content, style, net, steps=4, lr=0.2, schedule=schedule)
    transfer.run(lambda t: rates.append(float(t._adam.learning_rate)))
    assert rates == pytest.approx(wanted)


def test_tiles_make_the_same_image(content, style, net):
    whole = run(content, style, net, steps=5, tile=None).run()
    tiled = run(content, style, net, steps=5, tile=8).run()
    # A gradient near 0 may turn its sign with the order of additions, which Adam makes much of.
    difference = np.abs(np.asarray(whole, int) - np.asarray(tiled, int))
    assert np.mean(difference > 1) < 0.05 and difference.max() < 20


def test_kept_colours_are_the_contents(content, style, net):
    image = np.asarray(run(content, style, net, steps=20, preserve_color=True).run(), float)
    luminance = np.array([0.299, 0.587, 0.114])
    color = image - (image @ luminance)[..., None]
    wanted = content - (content.astype(float) @ luminance)[..., None]
    # Paler where the luminance leaves no room, but never of another hue.
    norm = np.linalg.norm(color, axis=-1) * np.linalg.norm(wanted, axis=-1)
    clear = np.linalg.norm(color, axis=-1) > 20
    assert clear.mean() > 0.5
    assert ((color * wanted).sum(-1) / np.maximum(norm, 1))[clear].min() > 0.99
    assert np.abs(image - content).mean() > 5


@pytest.mark.quick
def test_luminance_keeps_its_value_when_colours_are_put_back():
    random = np.random.RandomState(0)
    pair = random.randint(0, 256, (2, 20, 30, 3)).astype(np.uint8)
    result = images.with_colors_of(*pair)
    luminance = np.array([0.299, 0.587, 0.114])
    assert np.abs(result @ luminance - pair[0] @ luminance).max() < 1.0
    np.testing.assert_array_equal(images.with_colors_of(pair[0], pair[0]), pair[0])


def test_matched_luminance_has_the_mean_and_spread_of_the_reference():
    random = np.random.RandomState(0)
    dark = images.grey(random.randint(0, 90, (20, 30, 3)).astype(np.uint8))
    middle = images.grey(random.randint(80, 190, (10, 12, 3)).astype(np.uint8))
    matched = images.match_luminance(dark, middle)
    assert matched.mean() == pytest.approx(middle.mean(), abs=1)
    assert matched.std() == pytest.approx(middle.std(), rel=0.05)


def test_noise_depends_on_the_seed_only(content, style, net):
    one, same, other = (
        np.asarray(run(content, style, net, start="noise", seed=s).image()) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert run(content, style, net, start="style").image().size == SHAPE[::-1]


def test_a_style_of_one_pixel_is_a_colour(content, net):
    dot = np.full((1, 1, 3), (200, 60, 20), np.uint8)
    transfer = run(content, [dot, st.Style(content, 0.5)], net, steps=3)
    transfer.run()
    assert np.isfinite(transfer.history).all()


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer"),
        ({"schedule": "linear"}, "schedule"),
        ({"start": "middle"}, "start"),
        ({"steps": 0}, "steps"),
        ({"levels": 0}, "levels"),
        ({"levels": 6, "steps": 3}, "levels"),
        ({"levels": 6}, r"levels = 6: the coarsest has \(1, 1\) pixels.* fewer levels"),
        ({"lr": 0}, "lr"),
        ({"style_scale": -1}, "style_scale"),
        ({"tile": 0}, "tile"),
        ({"image_shape": (1, 1)}, "too small"),
    ],
)
def test_wrong_arguments_are_named(content, style, net, arguments, message):
    with pytest.raises(InputError, match=message):
        st.StyleTransfer(content, style, net, **arguments)


@pytest.mark.quick
def test_images_that_are_none_are_named(content, style, net):
    with pytest.raises(InputError, match=r"styles\[1\]"):
        st.StyleTransfer(content, [style, style / 255], net)
    with pytest.raises(InputError, match="content"):
        st.StyleTransfer(content[..., 0], style, net)
    with pytest.raises(InputError, match="styles is empty"):
        st.StyleTransfer(content, [], net)


def test_a_loss_that_is_no_number_stops_the_run(content, style, net):
    transfer = st.StyleTransfer(content, style, net, weights=st.LossWeights(1, float("nan"), 0))
    with pytest.raises(InputError, match="no longer a number at step 1"):
        transfer.run()
