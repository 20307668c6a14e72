"""Layers as a configuration asks for them: dense ones, LayerNorms, activations, and the transform before a head."""

import keras
from keras import ops

from clozemill.model.config import EncoderConfig

_ACTIVATIONS = {
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "gelu_erf": lambda x: ops.gelu(x, approximate=False),
    "relu": ops.relu,
}


def activation(name: str):
    """Return the activation function named by `hidden_act`."""
    return _ACTIVATIONS[name]


def initializer(config: EncoderConfig) -> keras.initializers.Initializer:
    """Return the reference's initializer: a normal distribution truncated at two deviations."""
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def dense(config: EncoderConfig, units: int, name: str, dtype, **options) -> keras.layers.Dense:
    """Return a dense layer of the encoder, with a bias if its design has biases."""
    biases = config.design.biases
    return keras.layers.Dense(units, use_bias=biases, kernel_initializer=initializer(config), name=name, dtype=dtype, **options)


def norm(config: EncoderConfig, name: str, dtype) -> keras.layers.LayerNormalization:
    """Return a LayerNorm of the encoder, with a bias if its design has biases."""
    return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, center=config.design.biases, name=name, dtype=dtype)


_BACK = ("/attention/output_dense/kernel", "/output/kernel", "/transform/kernel")  # to the residual stream, or to a head


def deviation(config: EncoderConfig, path: str, base: float) -> float:
    """Return the standard deviation of a matrix's initial values. base: that of most of them."""
    smaller = config.design.out_scale and path.endswith(_BACK)
    return base / (2 * config.num_hidden_layers) ** 0.5 if smaller else base


class Transform(keras.layers.Layer):
    """Dense, activation and LayerNorm: what BERT's masked-LM head does first, and ModernBERT before every head.

    Arguments: config, an EncoderConfig; width, that of the inputs if it isn't the encoder's.

    Call arguments: hidden, float [..., width]. Returns float [..., H].
    """

    def __init__(self, config: EncoderConfig, name: str, width: int = 0, **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.config, self.width = config, width or config.hidden_size
        self.transform = dense(config, config.hidden_size, "transform", self.dtype_policy)
        self.norm = norm(config, "layer_norm", self.dtype_policy)

    def build(self, input_shape=None) -> None:
        self.transform.build((None, None, self.width))
        self.norm.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, hidden):
        return self.norm(activation(self.config.hidden_act)(self.transform(hidden)))
