"""The detector's arithmetic as a part of the served graph: one call of the runtime answers everything.

In NumPy, beside the graph, it would be a dozen calls a batch, each of which takes and returns the interpreter's lock.
"""

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper, parser

from model.appearance import COUNT, DARK, regions
from model.detector import TINY, Detector

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
    least_level = Squeeze (least_of_class, last)
    own_level = ReduceSumSquare <keepdims = 0> (levels, last)
    level_sum = Add (least_level, own_level)
    level_square = Max (level_sum, nothing)
    appearance = Sqrt (level_square)
    weighted_appearance = Mul (appearance, appearance_weight)

    largest = ReduceMax <keepdims = 1> (seen, last)
    bounded = Max (largest, tiny)
    step = Div (bounded, most_steps)
    exact = Div (seen, step)
    steps = Round (exact)
    products = MatMul (steps, centres)
    squares = ReduceSumSquare <keepdims = 0> (steps, last)

    scaled = Mul (products, weighted_inverse_lengths)
    highest = ReduceMax <keepdims = 0> (scaled, last)
    some = Max (squares, tiny)
    length = Sqrt (some)
    weighted_cosine = Div (highest, length)

    doubled = Mul (step, twice)
    twice_products = Mul (products, doubled)
    differences = Sub (centre_squares, twice_products)
    least = ReduceMin <keepdims = 0> (differences, last)
    row_step = Squeeze (step, last)
    step_square = Mul (row_step, row_step)
    own = Mul (squares, step_square)
    sum = Add (least, own)
    square = Max (sum, nothing)
    place = Sqrt (square)
    weighted_place = Mul (place, place_weight)

    less_energy = ReduceLogSumExp <keepdims = 0> (said, last)
    weighted_less_energy = Mul (less_energy, energy_weight)

    far = Sub (weighted_place, weighted_cosine)
    strange = Sub (far, weighted_less_energy)
    strange_to_see = Add (strange, weighted_appearance)
    ood_scores = Sub (strange_to_see, zero)
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
        "appearance_weight": appearance,
        "last": np.array([1], np.int64),
        "tiny": TINY,
        "nothing": np.float32(0),
        "most_steps": detector.levels,
        "centres": np.ascontiguousarray(detector.steps.T),
        "weighted_inverse_lengths": detector.inverse_lengths * direction,
        "centre_squares": detector.squares,
        "twice": 2 * detector.step,
        "place_weight": place,
        "energy_weight": energy,
        "zero": detector.zero - direction,
    }
