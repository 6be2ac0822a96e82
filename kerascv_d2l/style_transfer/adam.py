"""Adam on one image, in PyTorch's arithmetic."""

import tensorflow as tf

# torch.optim.Adam's constants. Keras' Adam adds its epsilon (1e-7) before the bias correction,
# which is felt here: gradients of mean losses over a picture are around 1e-6 a pixel.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam's state for one variable.

    Attributes:
        variable: float32 `tf.Variable`.
        learning_rate: float32 scalar `tf.Variable`, read at every step.
    """

    def __init__(self, variable, lr, epsilon=EPSILON):
        """Start at step 0.

        Args:
            variable: float32 `tf.Variable` to update.
            lr: float, how far a step goes.
            epsilon: float, gradients far below it move nothing.
        """
        self.variable = variable
        self.learning_rate = tf.Variable(lr, trainable=False, dtype=tf.float32)
        self._epsilon = epsilon
        self._steps = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._mean = tf.Variable(tf.zeros_like(variable), trainable=False)
        self._square = tf.Variable(tf.zeros_like(variable), trainable=False)

    def apply(self, gradient):
        """Update the variable.

        Args:
            gradient: float32 of the variable's shape.
        """
        # In float64 as PyTorch has it: in float32, 1 - 0.999 is off by 5e-5.
        steps = tf.cast(self._steps.assign_add(1), tf.float64)
        size = self.learning_rate / tf.cast(1 - BETA_1**steps, tf.float32)
        root_scale = tf.cast(tf.sqrt(1 - BETA_2**steps), tf.float32)
        mean = self._mean.assign(BETA_1 * self._mean + (1 - BETA_1) * gradient)
        square = self._square.assign(BETA_2 * self._square + (1 - BETA_2) * tf.square(gradient))
        root = tf.sqrt(square) / root_scale
        self.variable.assign_sub(size * mean / (root + self._epsilon))

    def state(self):
        """dict of arrays from which `restore` goes on exactly."""
        return {
            "adam_steps": self._steps.numpy(),
            "adam_mean": self._mean.numpy(),
            "adam_square": self._square.numpy(),
        }

    def restore(self, state):
        """Go on from what `state` gave.

        Args:
            state: dict of arrays.
        """
        self._steps.assign(state["adam_steps"])
        self._mean.assign(state["adam_mean"])
        self._square.assign(state["adam_square"])
