"""The detector's arithmetic as a part of the served graph: one call of the runtime answers everything.

In NumPy, beside the graph, it would be a dozen calls a batch, each of which takes and returns the interpreter's lock.
"""

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper, parser

from model.ood.detector import TINY, Detector
from model.ood.image_statistics import COUNT, DARK, regions

OUTPUT = "ood_scores"

_GRAPH = """
<ir_version: %d, opset_import: ["" : %d]>
detector (uint8[N, 28, 28] pictures, float[N, F] seen, float[N, C] said) => (float[N] ood_scores)
{
    pixels = Cast <to = 1> (pictures)
    flat = Flatten (pixels)
    brightness = MatMul (flat, regions)
    not_black = Min (flat, dark)
    lit = ReduceSum <keepdims = 1> (not_black, last)
    channel = Unsqueeze (pixels, last)
    slopes = Conv <kernel_shape = [2, 2]> (channel, slope_kernels)
    steep = Abs (slopes)
    roughness = ReduceSum <keepdims = 0> (steep, area)
    pixel_sums = Concat <axis = 1> (roughness, brightness, lit)
    level_squares = Mul (pixel_sums, level_factors)
    exact_levels = Sqrt (level_squares)
    levels = Round (exact_levels)
    level_products = MatMul (levels, twice_level_centres)
    products_of_classes = Reshape (level_products, by_class)
    level_differences = Sub (level_centre_squares, products_of_classes)
    least_of_classes = ReduceMin <keepdims = 0> (level_differences, last_of_three)
    said_class = ArgMax <axis = 1> (said)
    least_of_class = GatherElements <axis = 1> (least_of_classes, said_class)
    own_level = ReduceSumSquare <keepdims = 1> (levels, last)
    level_square = Add (least_of_class, own_level)
    appearance = Sqrt (level_square)

    bytes = QuantizeLinear (seen, step, zero_byte)
    steps = Cast <to = 1> (bytes)
    sums_of_bytes = MatMulInteger (bytes, centres)
    products = Cast <to = 1> (sums_of_bytes)
    squares = ReduceSumSquare <keepdims = 1> (steps, last)

    scaled = Mul (products, inverse_lengths)
    highest = ReduceMax <keepdims = 1> (scaled, last)
    some = Max (squares, tiny)
    length = Sqrt (some)
    cosine = Div (highest, length)

    differences = Sub (half_centre_squares, products)
    least = ReduceMin <keepdims = 1> (differences, last)
    twice_least = Add (least, least)
    square = Add (twice_least, squares)
    place = Sqrt (square)

    less_energy = ReduceLogSumExp <keepdims = 1> (said, last)

    distances = Concat <axis = 1> (cosine, place, less_energy, appearance)
    weighted = Mul (distances, weights)
    sum = ReduceSum <keepdims = 0> (weighted, last)
    ood_scores = Sub (sum, zero)
}
"""


def with_detector(graph: bytes, detector: Detector) -> bytes:
    """A graph of ``images`` with the outputs ``logits`` and ``features`` -> the same and ``ood_scores``."""
    model = onnx.load_from_string(graph)
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    addition = parser.parse_model(_GRAPH % (model.ir_version, opset))
    addition.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in _constants(detector).items()
    )
    outputs = [output.name for output in model.graph.output]
    # Only outputs of the one graph become inputs of the other, so the images are an output for a moment.
    model.graph.node.append(helper.make_node("Identity", ["images"], ["shown"]))
    model.graph.output.append(helper.make_tensor_value_info("shown", onnx.TensorProto.UINT8, ["N", 28, 28]))
    joined = [("shown", "pictures"), ("features", "seen"), ("logits", "said")]
    addition = compose.add_prefix(addition, "detector_", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_graphs(model.graph, addition.graph, joined, outputs=[*outputs, OUTPUT])
    model.graph.CopyFrom(merged)
    return bytes(model.SerializeToString())


def _constants(detector: Detector) -> dict[str, np.ndarray | np.generic]:
    direction, place, energy, appearance = detector.weights
    looks = detector.appearance
    return {
        "regions": regions(),
        "dark": DARK,
        "slope_kernels": np.array([[[[-1, 1], [0, 0]]], [[[-1, 0], [1, 0]]]], np.float32),
        "area": np.array([2, 3], np.int64),
        "level_factors": looks.factors,
        "twice_level_centres": np.ascontiguousarray(2 * looks.centres.reshape(-1, COUNT).T),
        "by_class": np.array([-1, *looks.squares.shape], np.int64),
        "last_of_three": np.array([2], np.int64),
        "level_centre_squares": looks.squares,
        "last": np.array([1], np.int64),
        "step": detector.step,
        "zero_byte": np.uint8(0),
        "centres": np.ascontiguousarray(detector.steps.T.astype(np.int8)),
        "inverse_lengths": detector.inverse_lengths,
        "tiny": TINY,
        "half_centre_squares": detector.squares / 2,
        "weights": np.array([-direction, place * detector.step, -energy, appearance], np.float32),
        "zero": detector.zero - direction,
    }
