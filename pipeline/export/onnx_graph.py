"""A sealed classifier as an ONNX graph: operators of the standard alone, so that any ONNX runtime can run it.

Built from the weights with onnx.helper, not traced: torch.export refuses packed sequences (torch 2.14.1), and the older
tracer, which takes them, is deprecated. ONNX's own LSTM knows the length of each sequence, which is all that is needed.
Shapes: B documents, T tokens of the longest, D embedding size, C classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from pipeline.model.architecture import Architecture, HeadShape
from pipeline.model.stored_tensors import read_tensors

OPSET = 18
"""The first in which all reductions take their axes as an input; runtimes of 2023 have it."""
_IR_VERSION = 8
"""Of the same time as the opset: what onnx writes by default is refused by older runtimes."""
_NORM_EPSILON = 1e-5
_TIME, _DOCUMENT, _FEATURE = 0, 1, 2
"""Axes inside the graph, where tokens are [T, B, D]: what ONNX's LSTM reads."""


class _Graph:
    """Nodes and constants, added one by one; every value has the name it was given."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Add a node; the name of its first output that has one."""
        self.nodes.append(helper.make_node(operator, inputs, list(outputs), **attributes))
        return next(filter(None, outputs))


def classifier_graph(folder: Path, direction: str) -> ModelProto:
    """The classifier in `folder`: ids [B, T] and lengths [B], both int64, in; probabilities [B, C] float32 out.

    Documents are given from their beginning, whatever the direction: a backward classifier turns them round inside the
    graph. What stands behind the end of a document may be any token of the vocabulary.
    """
    architecture, shape = Architecture.load(folder / "architecture.json"), HeadShape.load(folder / "head.json")
    graph = _Graph()
    ids = "ids"
    if direction == "bwd":
        ids = graph.add("ReverseSequence", ["ids", "lengths"], "ids_reversed", batch_axis=0, time_axis=1)
    outputs, last = _encoder(graph, ids, architecture, _numbers(folder / "encoder.safetensors"))
    features = _pool(graph, outputs, last, shape)
    logits = _head(graph, features, shape, _numbers(folder / "head.safetensors"))
    graph.add("Softmax", [logits], "probabilities", axis=1)
    int64, float32 = TensorProto.INT64, TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "classifier",
            [helper.make_tensor_value_info("ids", int64, ["documents", "tokens"]),
             helper.make_tensor_value_info("lengths", int64, ["documents"])],
            [helper.make_tensor_value_info("probabilities", float32, ["documents", shape.n_classes])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="staged-ulmfit",
    )
    checker.check_model(model, full_check=True)
    return model


def _numbers(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file, as float32 whatever they are stored as."""
    return {name: tensor.numpy() for name, tensor in read_tensors(path).items()}


def _encoder(
    graph: _Graph, ids: str, architecture: Architecture, tensors: dict[str, NDArray[np.float32]]
) -> tuple[str, str]:
    """Outputs of the last layer [T, B, D], and its output at the last token of each document [B, D]."""
    embedding = graph.constant("embedding.weight", tensors["embedding.weight"])
    embedded = graph.add("Gather", [embedding, ids], "embedded")
    output = graph.add("Transpose", [embedded], "embedded_by_time", perm=[_DOCUMENT, _TIME, _FEATURE])
    lengths = graph.add("Cast", ["lengths"], "sequence_lens", to=TensorProto.INT32)
    directions = graph.constant("axis_of_directions", [1])
    last = ""
    for number, (_, size) in enumerate(architecture.layer_sizes):
        name = f"lstm.{number}"
        weights = [
            graph.constant(f"{name}.{onnx_name}", np.concatenate([_iofc(tensors[f"{name}.{part}"]) for part in parts])[
                None
            ])
            for onnx_name, parts in {"W": ["weight_ih"], "R": ["weight_hh"], "B": ["bias_ih", "bias_hh"]}.items()
        ]
        all_directions, last = f"{name}.outputs", f"{name}.last"
        graph.add("LSTM", [output, *weights, lengths], all_directions, last, hidden_size=size)
        output = graph.add("Squeeze", [all_directions, directions], f"{name}.output")
    return output, graph.add("Squeeze", [last, graph.constant("axis_of_last", [0])], "last")


def _iofc(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of torch's gates (input, forget, cell, output) in ONNX's order (input, output, forget, cell)."""
    i, f, c, o = np.split(rows, 4)
    return np.concatenate([i, o, f, c])


def _pool(graph: _Graph, outputs: str, last: str, shape: HeadShape) -> str:
    """[last, max, mean] of the outputs [B, 3 D], where `pipeline.inference.classifier.pooled_from` has them begin."""
    seq_len = graph.constant("seq_len", shape.seq_len)
    rounded = graph.add("Add", ["lengths", graph.constant("seq_len_minus_1", shape.seq_len - 1)], "rounded_up")
    chunks = graph.add("Div", [rounded, seq_len], "chunks")
    over = graph.add("Sub", [chunks, graph.constant("chunks_kept", max(shape.max_len // shape.seq_len, 1))], "over")
    start = graph.add(
        "Mul", [graph.add("Max", [over, graph.constant("none_over", 0)], "chunks_skipped"), seq_len], "pooled_from"
    )
    axis = graph.constant("axis_of_tokens", [_TIME])
    n_tokens = graph.add("Squeeze", [graph.add("Shape", [outputs], "shape", start=0, end=1), axis], "n_tokens")
    places = graph.add("Range", [graph.constant("first", 0), n_tokens, graph.constant("step", 1)], "places")
    places = graph.add("Unsqueeze", [places, graph.constant("axis_of_documents", [_DOCUMENT])], "places_by_time")
    within = [
        graph.add("GreaterOrEqual", [places, start], "begun"), graph.add("Less", [places, "lengths"], "not_ended")
    ]
    inside = graph.add(
        "Unsqueeze", [graph.add("And", within, "pooled"), graph.constant("axis_of_features", [_FEATURE])], "inside"
    )
    nothing = graph.constant("less_than_all", np.float32(-np.inf))
    largest = graph.add("Where", [inside, outputs, nothing], "for_max")
    summed = graph.add("Where", [inside, outputs, graph.constant("zero", np.float32(0))], "for_sum")
    largest = graph.add("ReduceMax", [largest, axis], "max", keepdims=0)
    summed = graph.add("ReduceSum", [summed, axis], "sum", keepdims=0)
    count = graph.add("Cast", [graph.add("Sub", ["lengths", start], "n_pooled")], "count", to=TensorProto.FLOAT)
    count = graph.add("Unsqueeze", [count, graph.constant("axis_of_mean", [1])], "count_by_document")
    return graph.add("Concat", [last, largest, graph.add("Div", [summed, count], "mean")], "features", axis=1)


def _head(graph: _Graph, features: str, shape: HeadShape, tensors: dict[str, NDArray[np.float32]]) -> str:
    """Logits [B, C]: batch norm and a linear layer, once or more, ReLU in between."""
    for number in range(len(shape.lin_ftrs) + 1):
        if number:
            features = graph.add("Relu", [features], f"{number}.activation")
        norm = [
            graph.constant(f"{number}.norm.{part}", tensors[f"{number}.norm.{part}"])
            for part in ("weight", "bias", "running_mean", "running_var")
        ]
        features = graph.add("BatchNormalization", [features, *norm], f"{number}.normed", epsilon=_NORM_EPSILON)
        weight = graph.constant(f"{number}.linear.weight", tensors[f"{number}.linear.weight"].T)
        features = graph.add("MatMul", [features, weight], f"{number}.output")
    return features
