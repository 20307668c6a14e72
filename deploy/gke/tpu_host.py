"""TensorFlow's server on one host of a TPU slice on GKE; a coordinator connects to all of them.

python deploy/gke/tpu_host.py, in a pod with GKE's variables TPU_WORKER_ID and TPU_WORKER_HOSTNAMES. It never exits by
itself. On TPU VMs, tensorflow-tpu's start_grpc_tpu_worker is used instead; it reads these values from the VM's metadata server.
"""

import importlib.util
import os

PORT = 8470


def environment(given: dict[str, str], library: str) -> dict[str, str]:
    """Return the variables that libtpu and TensorFlow read on import. `library`: path of libtpu, empty if there is none."""
    worker = int(given["TPU_WORKER_ID"])
    found = {"TPU_HOSTNAME_OVERRIDE": given["TPU_WORKER_HOSTNAMES"].split(",")[worker], "CLOUD_TPU_TASK_ID": str(worker)}
    if library:
        found |= {"NEXT_PLUGGABLE_DEVICE_USE_C_API": "true", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": library}
    return found


def serve(port: int) -> None:
    """Run the server; the coordinator sends it the cluster layout."""
    import tensorflow as tf

    tf.distribute.Server({"tpu_worker": [f"localhost:{port}"]}, job_name="tpu_worker", task_index=0).join()


def main() -> None:
    spec = importlib.util.find_spec("libtpu")
    library = os.path.join(os.path.dirname(spec.origin), "libtpu.so") if spec and spec.origin else ""
    os.environ.update(environment(dict(os.environ), library))
    serve(int(os.environ.get("TPU_TASK_PORT") or PORT))


if __name__ == "__main__":
    main()
