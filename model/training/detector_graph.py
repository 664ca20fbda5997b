"""The detector's arithmetic as a part of the served graph: one call of the runtime answers everything.

In NumPy, beside the graph, it would be a dozen calls a batch, each of which takes and returns the interpreter's lock.
"""

import numpy as np
import onnx
from onnx import compose, numpy_helper, parser

from model.detector import LEVELS, TINY, Detector

OUTPUT = "ood_scores"

_GRAPH = """
<ir_version: %d, opset_import: ["" : %d]>
detector (float[N, F] seen, float[N, C] said) => (float[N] ood_scores)
{
    largest = ReduceMax <keepdims = 1> (seen, last)
    bounded = Max (largest, tiny)
    step = Div (bounded, levels)
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
    ood_scores = Sub (strange, zero)
}
"""


def with_detector(graph: bytes, detector: Detector) -> bytes:
    """A graph with the outputs ``logits`` and ``features`` -> the same graph with ``ood_scores`` beside them."""
    model = onnx.load_from_string(graph)
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    addition = parser.parse_model(_GRAPH % (model.ir_version, opset))
    addition.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in _constants(detector).items()
    )
    joined = [("features", "seen"), ("logits", "said")]
    outputs = [output.name for output in model.graph.output]
    addition = compose.add_prefix(addition, "detector_", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_graphs(model.graph, addition.graph, joined, outputs=[*outputs, OUTPUT])
    model.graph.CopyFrom(merged)
    return bytes(model.SerializeToString())


def _constants(detector: Detector) -> dict[str, np.ndarray | np.generic]:
    direction, place, energy = detector.weights
    return {
        "last": np.array([1], np.int64),
        "tiny": TINY,
        "nothing": np.float32(0),
        "levels": np.float32(LEVELS),
        "centres": np.ascontiguousarray(detector.steps.T),
        "weighted_inverse_lengths": detector.inverse_lengths * direction,
        "centre_squares": detector.squares,
        "twice": 2 * detector.step,
        "place_weight": place,
        "energy_weight": energy,
        "zero": detector.zero - direction,
    }
