"""TensorFlow's errors of files as OSErrors, so that callers needn't know TensorFlow."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

_CODES = {
    tf.errors.NotFoundError: errno.ENOENT,
    tf.errors.AlreadyExistsError: errno.EEXIST,
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
}


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn errors of TensorFlow within the block into OSErrors, with the message as `strerror`, and EIO for most."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(_CODES.get(type(error), errno.EIO), error.message) from None
