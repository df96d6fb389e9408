"""ONNX graphs of V, M and whole policies, written in ONNX' own notation (onnx.parser), and their weights.

N is the number of rows: every file takes any. The graphs compute in float32, as the networks for LiteRT do.

    encoder.onnx   frames uint8 [N, 64, 64, 3] -> mean, logvar [N, Z]
    decoder.onnx   z [N, Z] -> frames uint8 [N, 64, 64, 3]
    step.onnx      z [N, Z], a [N, 3], h, c [N, H] -> next_h, next_c [N, H]
    dream.onnx     the same inputs -> next_h, next_c, and logits, mu, log_sigma [N, Z, K] of z_{t+1}
    policy.onnx    frame uint8 [N, 96, 96, 3], h, c [N, H] -> action [N, 3], next_h, next_c [N, H]
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.preprocess import FIRST_ROW, LAST_ROW, SIZE
from .weights import ACTIONS, Network

OPSET, IR = 17, 8
"""Versions that ONNX Runtime 1.13 (2022) and every later one read."""
Arrays = dict[str, Any]

SHRINK = """
    wide = Cast<to = 6>(frame)
    first = Gather<axis = 1>(wide, first_row)
    last = Gather<axis = 1>(wide, last_row)
    rows = Add(first, last)
    threes = Reshape(rows, thirds)
    left, middle, right = Split<axis = 3>(threes, ones)
    four = Add(left, middle)
    four_up = Add(four, two)
    pair = Div(four_up, fours)
    one_up = Add(right, one)
    single = Div(one_up, two)
    pixels = Concat<axis = 3>(pair, single)
    square = Reshape(pixels, small)
    frames = Cast<to = 2>(square)
"""
"""`envs.preprocess.shrink`, bit for bit: of three columns, the first two make one pixel, the third makes the next."""
ENCODE = """
    floats = Cast<to = 1>(frames)
    unit = Div(floats, grey)
    x0 = Transpose<perm = [0, 3, 1, 2]>(unit)
    y1 = Conv<strides = [2, 2]>(x0, conv1_kernel, conv1_bias)
    x1 = Relu(y1)
    y2 = Conv<strides = [2, 2]>(x1, conv2_kernel, conv2_bias)
    x2 = Relu(y2)
    y3 = Conv<strides = [2, 2]>(x2, conv3_kernel, conv3_bias)
    x3 = Relu(y3)
    y4 = Conv<strides = [2, 2]>(x3, conv4_kernel, conv4_bias)
    x4 = Relu(y4)
    x5 = Transpose<perm = [0, 2, 3, 1]>(x4)
    flat = Reshape(x5, flat_shape)
    moments = Gemm(flat, moments_kernel, moments_bias)
    mean, logvar = Split<axis = 1>(moments, halves)
"""
DECODE = """
    d0 = Gemm(z, dense_kernel, dense_bias)
    d1 = MatMul(d0, deconv1_kernel)
    d2 = Reshape(d1, grid_shape)
    d3 = Add(d2, deconv1_bias)
    d4 = Relu(d3)
    d5 = Transpose<perm = [0, 3, 1, 2]>(d4)
    e2 = ConvTranspose<strides = [2, 2]>(d5, deconv2_kernel, deconv2_bias)
    f2 = Relu(e2)
    e3 = ConvTranspose<strides = [2, 2]>(f2, deconv3_kernel, deconv3_bias)
    f3 = Relu(e3)
    e4 = ConvTranspose<strides = [2, 2]>(f3, deconv4_kernel, deconv4_bias)
    f4 = Sigmoid(e4)
    f5 = Transpose<perm = [0, 2, 3, 1]>(f4)
    levels = Mul(f5, grey)
    whole = Round(levels)
    frames = Cast<to = 2>(whole)
"""
STEP = """
    zah = Concat<axis = 1>(z, a, h)
    gates = Gemm(zah, lstm_kernel, lstm_bias)
    i, f, g, o = Split<axis = 1>(gates, quarters)
    input_gate = Sigmoid(i)
    forget_gate = Sigmoid(f)
    candidate = Tanh(g)
    output_gate = Sigmoid(o)
    kept = Mul(forget_gate, c)
    new = Mul(input_gate, candidate)
    next_c = Add(kept, new)
    squashed = Tanh(next_c)
    next_h = Mul(output_gate, squashed)
"""
MIXTURE = """
    density = Gemm(next_h, density_kernel, density_bias)
    raw_logits, raw_mu, raw_log_sigma = Split<axis = 1>(density, thirds_of_density)
    logits = Reshape(raw_logits, mixture_shape)
    mu = Reshape(raw_mu, mixture_shape)
    log_sigma = Reshape(raw_log_sigma, mixture_shape)
"""
ACT = """
    z = Identity(mean)
    zh = Concat<axis = 1>(z, h)
    linear = Gemm(zh, controller_kernel, controller_bias)
    bounded = Tanh(linear)
    steering, raw_gas, raw_brake = Split<axis = 1>(bounded, ones)
    gas_up = Add(raw_gas, one_float)
    gas = Mul(gas_up, half)
    brake = Relu(raw_brake)
    a = Concat<axis = 1>(steering, gas, brake)
    action = Identity(a)
"""
FRAMES, STATE = "uint8[N, 64, 64, 3] frames", "float[N, {hidden}] h, float[N, {hidden}] c"
NEXT = "float[N, {hidden}] next_h, float[N, {hidden}] next_c"
MOTION = "float[N, {z}] z, float[N, 3] a, " + STATE


def networks(vision: Network, memory: Network) -> dict[str, Any]:
    """Return the ONNX models of V and M by file name."""
    v, m, sizes = _vision(vision), _memory(memory), {**vision.sizes, **memory.sizes}
    mixture = ", ".join(f"float[N, {{z}}, {{mixtures}}] {name}" for name in ("logits", "mu", "log_sigma"))
    return {
        "encoder.onnx": model(FRAMES, "float[N, {z}] mean, float[N, {z}] logvar", ENCODE, v, sizes),
        "decoder.onnx": model("float[N, {z}] z", FRAMES, DECODE, v, sizes),
        "step.onnx": model(MOTION, NEXT, STEP, m, sizes),
        "dream.onnx": model(MOTION, f"{NEXT}, {mixture}", STEP + MIXTURE, m, sizes),
    }


def policy(vision: Network, memory: Network, controller: NDArray[np.float32]) -> Any:
    """Return the ONNX model of V, M and C with parameters [P]: one step of the closed loop.

    Raise ValueError for a controller that is not the linear layer of [z, h].
    """
    z, hidden = vision.sizes["z"], memory.sizes["hidden"]
    length = ACTIONS * (z + hidden + 1)
    if controller.shape != (length,):
        raise ValueError(f"C has {controller.shape} parameters, a linear layer of [z, h] has {length}")
    kernel = controller[:-ACTIONS].reshape(ACTIONS, z + hidden).T
    arrays = {
        **_vision(vision), **_memory(memory),
        "controller_kernel": kernel, "controller_bias": controller[-ACTIONS:],
        **shrinking(), "one_float": np.float32(1), "half": np.float32(0.5),
    }  # fmt: skip
    return model(
        "uint8[N, 96, 96, 3] frame, " + STATE, "float[N, 3] action, " + NEXT, SHRINK + ENCODE + ACT + STEP, arrays,
        {**vision.sizes, **memory.sizes},
    )  # fmt: skip


def shrinking() -> Arrays:
    """Return the constants of SHRINK."""
    return {
        "first_row": FIRST_ROW, "last_row": LAST_ROW,
        "thirds": np.array([-1, SIZE, SIZE // 2, 3, 3], np.int64), "small": np.array([-1, SIZE, SIZE, 3], np.int64),
        "ones": np.ones(3, np.int64), "one": np.int32(1), "two": np.int32(2), "fours": np.int32(4),
    }  # fmt: skip


def _vision(network: Network) -> Arrays:
    weights, z = network.weights, network.sizes["z"]
    found: Arrays = {name.replace(".", "_"): array for name, array in weights.items()}
    for name, array in weights.items():
        if (
            array.ndim == 4
        ):  # Keras: height, width, in, out (transposed: out, in); ONNX: out, in (in, out), height, width
            found[name.replace(".", "_")] = array.transpose(3, 2, 0, 1)
    return found | {
        "grey": np.float32(255), "halves": np.array([z, z], np.int64),
        "flat_shape": np.array([-1, network.sizes["flat"]], np.int64),
        "grid_shape": np.array([-1, 5, 5, network.sizes["grid"]], np.int64),
    }  # fmt: skip


def _memory(network: Network) -> Arrays:
    weights, sizes = network.weights, network.sizes
    return {
        "lstm_kernel": np.concatenate([weights["lstm.kernel"], weights["lstm.recurrent"]]),
        "lstm_bias": weights["lstm.bias"],
        "density_kernel": weights["density.kernel"], "density_bias": weights["density.bias"],
        "quarters": np.full(4, sizes["hidden"], np.int64),
        "thirds_of_density": np.full(3, sizes["z"] * sizes["mixtures"], np.int64),
        "mixture_shape": np.array([-1, sizes["z"], sizes["mixtures"]], np.int64),
    }  # fmt: skip


def model(inputs: str, outputs: str, body: str, arrays: Arrays, sizes: Mapping[str, int]) -> Any:
    """Return the checked ONNX model of a graph in ONNX' notation, with those of the arrays that it uses as weights.

    `inputs` and `outputs` name their sizes in braces.
    """
    import onnx

    head = f"({inputs}) => ({outputs})".format_map(sizes)
    graph = onnx.parser.parse_graph(f"world_model {head} {{{body}}}")
    used = {name for node in graph.node for name in node.input}
    for name, array in arrays.items():
        if name in used:
            graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
    opset = onnx.helper.make_opsetid("", OPSET)
    made = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR, producer_name="wm")
    onnx.checker.check_model(made, full_check=True)
    return made
