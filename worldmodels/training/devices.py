"""TensorFlow's threads, devices and precision."""

import logging
import os
from pathlib import Path

import keras
import tensorflow as tf

from ..errors import WorkFailed

LOG = logging.getLogger("wm")


def policy(precision: str) -> str:
    """Return Keras' policy for layers that compute with that precision and keep float32 weights."""
    return precision if precision == "float32" else f"mixed_{precision}"


def scaled(optimizer: keras.optimizers.Optimizer, precision: str) -> keras.optimizers.Optimizer:
    """Return the optimizer; for float16 with loss scaling (`scale_loss`), since small gradients would vanish."""
    return keras.optimizers.LossScaleOptimizer(optimizer) if precision == "float16" else optimizer


def prepare(threads: int, log: logging.Logger = LOG) -> None:
    """Fix TensorFlow's threads, because their number changes the order of sums; log a GPU, used or unused.

    Raise WorkFailed if TensorFlow already runs with another number of threads.
    """
    config = tf.config
    if (config.threading.get_intra_op_parallelism_threads(), config.threading.get_inter_op_parallelism_threads()) != (
        threads,
        threads,
    ):
        try:
            config.threading.set_intra_op_parallelism_threads(threads)
            config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError:
            raise WorkFailed(f"TensorFlow runs already, with other than {threads} threads, in this process") from None
    if gpus := config.list_physical_devices("GPU"):
        config.experimental.enable_op_determinism()
        names = [config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
        log.info("computes on %s", ", ".join(names))
    elif why := why_no_gpu(tf.test.is_built_with_cuda()):
        log.warning("this machine has a GPU, and TensorFlow computes on the CPU: %s", why)


def why_no_gpu(built_with_cuda: bool, device: Path = Path("/dev/nvidia0")) -> str:
    """Return why TensorFlow does not find this machine's GPU; empty if the machine has none."""
    if not device.exists():
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it"
    if not built_with_cuda:
        return "it is built for CPUs; pip install 'tensorflow[and-cuda]'"
    return "it does not find CUDA's libraries or a driver that is new enough; nvidia-smi"
