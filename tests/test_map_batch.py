"""An error while a batch is mapped leaves TensorFlow usable."""

import pytest
import tensorflow as tf

from kerascv_d2l.devices import map_batch

pytestmark = pytest.mark.quick


def bad(image):
    raise ValueError("bad image")


def test_an_error_does_not_spoil_later_strategies():
    with pytest.raises(ValueError, match="bad image"):
        tf.function(lambda x: map_batch(bad, x), autograph=False)(tf.zeros((2, 3)))
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        tf.Variable(1.0)


def test_maps_as_tensorflow_does():
    x = tf.reshape(tf.range(6.0), (2, 3))
    for call in (map_batch, tf.function(map_batch, autograph=False)):
        assert call(tf.reduce_sum, x).numpy().tolist() == [3, 12]
