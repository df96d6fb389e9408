"""V, M and a whole policy as ONNX files, each checked in ONNX Runtime before it gets its name."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import ConfigError, lacking
from . import checks, graphs, weights
from .checks import Reference, Written


def write(reference: Reference, folder: Path) -> list[Written]:
    """Write encoder, decoder, step, dream and policy; the same networks give the same bytes.

    Raise ConfigError if onnx or onnxruntime is not installed, or if C is of a kind that has no graph; WorkFailed if a
    file computes otherwise than the committed networks.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 - needed by the checks
    except ModuleNotFoundError as error:
        raise lacking("the export to ONNX", error.name) from error
    vision, memory = weights.vision(reference.vae), weights.memory(reference.memory)
    models = graphs.networks(vision, memory)
    try:
        models["policy.onnx"] = graphs.policy(vision, memory, reference.run.parameters(reference.which))
    except ValueError as error:
        raise ConfigError(f"a policy cannot be exported: {error}", next="wm show controller") from error
    for name, model in models.items():
        onnx.helper.set_model_props(model, origin(reference, policy=name == "policy.onnx"))
    return [_write(reference, folder / name, model) for name, model in models.items()]


def _write(reference: Reference, path: Path, model: Any) -> Written:
    def measure(unchecked: Path) -> float:
        if path.stem == "policy":
            return _policy(reference, unchecked)
        return _network(reference, unchecked, path.stem)

    data = model.SerializeToString(deterministic=True)
    return checks.write(path, lambda unchecked: unchecked.write_bytes(data), measure)


def origin(reference: Reference, *, policy: bool) -> dict[str, str]:
    """Return the names and digests of the parts that a file holds."""
    run, parts = reference.run, [reference.vae, reference.memory]
    parts += [run.artifact("controller")] if policy else []
    found = {"wm": __version__, "run": run.name, "iteration": str(run.iteration)}
    found |= {part.stage: part.digest for part in parts}
    return found | ({"parameters": str(reference.which)} if policy else {})


def session(path: Path) -> Any:
    """Open an ONNX file in ONNX Runtime, on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _network(reference: Reference, path: Path, name: str) -> float:
    opened = session(path)
    inputs = {each.name: reference.inputs[each.name] for each in opened.get_inputs()}
    return checks.deviation(opened.run(None, inputs), reference.outputs(name))


def _policy(reference: Reference, path: Path) -> float:
    opened = session(path)
    shape = (1, opened.get_inputs()[1].shape[1])
    state = [np.zeros(shape, np.float32), np.zeros(shape, np.float32)]

    def act(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        action, *state[:] = opened.run(None, {"frame": frame[None], "h": state[0], "c": state[1]})
        return np.asarray(action[0])

    return reference.drive(act)
