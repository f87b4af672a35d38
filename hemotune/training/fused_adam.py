"""Adam with one fused update for each variable. The only module that calls TensorFlow operations.

Keras's Adam adds ten small operations for each of ResNet50's 161 variables: 11 to 30 s of tracing
before the first step on a CPU. TensorFlow's ResourceApplyAdam does the same arithmetic in one
(Kingma & Ba 2015, with the bias correction folded into the rate as in both implementations).
"""

from collections.abc import Sequence

import keras


def adam(learning_rate: float | keras.optimizers.schedules.LearningRateSchedule) -> keras.Optimizer:
    """Return Adam with Keras's defaults: fused under TensorFlow, Keras's own elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return keras.optimizers.Adam(learning_rate)
    return FusedAdam(learning_rate)


def warming_up(rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a learning rate that rises linearly to `rate` in so many steps and stays there."""
    return keras.optimizers.schedules.PolynomialDecay(rate / steps, max(1, steps - 1), rate)


@keras.saving.register_keras_serializable("hemotune")
class FusedAdam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras has no types
    """keras.optimizers.Adam (no amsgrad, clipping, decay or averaging) with fused updates."""

    # Keras's public update_step is called for each variable: the powers of beta, which all of them
    # share, would be traced 161 times. The momentums have no public name.
    def _backend_update_step(
        self,
        grads: Sequence[keras.KerasTensor],
        trainable_variables: Sequence[keras.Variable],
        learning_rate: keras.KerasTensor,
    ) -> None:
        import tensorflow as tf

        step = tf.cast(self.iterations.value, tf.float32) + 1.0
        beta_1, beta_2 = tf.constant(self.beta_1, tf.float32), tf.constant(self.beta_2, tf.float32)
        rate, epsilon = tf.cast(learning_rate, tf.float32), tf.constant(self.epsilon, tf.float32)
        beta_1_power, beta_2_power = beta_1**step, beta_2**step
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.value.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=beta_1_power,
                beta2_power=beta_2_power,
                lr=rate,
                beta1=beta_1,
                beta2=beta_2,
                epsilon=epsilon,
                grad=gradient,
            )
