"""Files on remote storage through TensorFlow, which the engine on TensorFlow uses: gs:// without another package."""

import tensorflow as tf

from clozemill.model.conversion.tf_errors import as_os_errors
from clozemill.trainers.common.filesystems import RemoteFile


class TensorFlowFiles:
    """Files of the filesystems that TensorFlow supports: a RemoteFilesystem."""

    @as_os_errors()
    def open(self, path: str) -> RemoteFile:
        return RemoteFile(tf.io.gfile.GFile(path, "rb"), as_os_errors)

    def create(self, path: str) -> RemoteFile:
        file = RemoteFile(tf.io.gfile.GFile(path, "wb"), as_os_errors)
        file.write(b"")  # GFile creates the file only on the first write
        return file

    @as_os_errors()
    def read_range(self, path: str, begin: int, end: int) -> bytes:
        with tf.io.gfile.GFile(path, "rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    @as_os_errors()
    def size(self, path: str) -> int:
        return tf.io.gfile.stat(path).length

    @as_os_errors()
    def exists(self, path: str) -> bool:
        return tf.io.gfile.exists(path)

    @as_os_errors()
    def is_folder(self, path: str) -> bool:
        try:  # not `isdir`, which returns False if storage doesn't answer
            return tf.io.gfile.stat(path).is_directory
        except tf.errors.NotFoundError:
            return False

    @as_os_errors()
    def names(self, folder: str) -> list[str]:
        return [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]

    @as_os_errors()
    def make_folder(self, folder: str) -> None:
        tf.io.gfile.makedirs(folder)

    @as_os_errors()
    def rename(self, path: str, name: str, overwrite: bool) -> None:
        tf.io.gfile.rename(path, name, overwrite=overwrite)

    @as_os_errors()
    def remove(self, path: str) -> None:
        tf.io.gfile.remove(path)

    @as_os_errors()
    def remove_tree(self, folder: str) -> None:
        tf.io.gfile.rmtree(folder)

    @as_os_errors()
    def upload(self, local: str, path: str) -> None:
        tf.io.gfile.copy(local, path, overwrite=True)
