#!/usr/bin/env python3
"""Convert a TensorFlow Lite network to ONNX, with its weights as float16.

    scripts/tools/tflite_to_onnx.py IN.tflite OUT.onnx [SIDE SHAPES]

With SIDE, a network for square images is made to take images of that side. SHAPES is a JSON list of
the shapes that its Reshape operators then produce, in their order, because only the designers of
the network know which of the dimensions grow with the image.

Needs ``pip install tflite onnx``. It knows the operators of the networks in faceswap/weights.
Inside the result, images are (N, C, H, W); operators that depend on the order of elements see
(N, H, W, C), as in TensorFlow Lite. Weights are stored as float16 and cast to float32 when loaded.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tflite
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

OPSET, IR_VERSION = 14, 8
TYPES = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64}  # of TensorFlow Lite's tensors
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
MIN_HALF = 256  # numbers; smaller constants stay float32
OPERATORS = {number: name for name, number in vars(tflite.BuiltinOperator).items()
             if isinstance(number, int)}  # fmt: skip


class Converter:
    """Converts one graph, operator by operator."""

    def __init__(self, model: tflite.Model) -> None:
        self._model, self._graph = model, model.Subgraphs(0)
        tensors = [self._graph.Tensors(i) for i in range(self._graph.TensorsLength())]
        self._shapes = [t.ShapeAsNumpy().tolist() if t.ShapeLength() else [] for t in tensors]
        self._names = [t.Name().decode().split(":")[0] for t in tensors]
        self._constants: dict[int, Array] = {}
        for index, tensor in enumerate(tensors):
            buffer = model.Buffers(tensor.Buffer())
            if buffer.DataLength():
                data = np.frombuffer(buffer.DataAsNumpy().tobytes(), TYPES[tensor.Type()])
                self._constants[index] = data.reshape(self._shapes[index])
        self._values: dict[int, str] = {}  # name of each tensor that has been computed
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def convert(self) -> onnx.ModelProto:
        """Convert the graph and check the result."""
        inputs = []
        for index in self._graph.InputsAsNumpy().tolist():
            shape = self._shapes[index]
            shape = [shape[axis] for axis in TO_NCHW] if len(shape) == 4 else shape
            self._values[index] = self._names[index]
            inputs.append(
                helper.make_tensor_value_info(self._names[index], TensorProto.FLOAT, shape)
            )
        for number in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(number)
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            kind = OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            if kind not in RULES:
                raise SystemExit(f"the operator {kind} is not supported")
            RULES[kind](self, operator)
        outputs = []
        for index in self._graph.OutputsAsNumpy().tolist():
            name = f"out_{self._names[index]}"
            self._nodes.append(helper.make_node("Identity", [self._values[index]], [name]))
            shape = [None] * len(self._shapes[index])
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        graph = helper.make_graph(
            self._nodes, "network", inputs, outputs, initializer=self._initializers
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model

    # Building blocks

    def _add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        output = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, values: Array) -> str:
        """Store a constant, large float ones as float16; return its name."""
        name = f"constant_{len(self._initializers)}"
        half = values.dtype == np.float32 and values.size > MIN_HALF
        values = np.ascontiguousarray(values.astype(np.float16) if half else values)
        self._initializers.append(numpy_helper.from_array(values, name))
        return self._add("Cast", [name], to=TensorProto.FLOAT) if half else name

    def _value(self, index: int) -> str:
        """Return the name of a tensor, images as (N, C, H, W)."""
        if index in self._constants and index not in self._values:
            values = self._weights(index)
            values = values.transpose(TO_NCHW) if values.ndim == 4 else values
            self._values[index] = self._constant(values)
        return self._values[index]

    def _as_nhwc(self, index: int) -> str:
        """Return a tensor in TensorFlow Lite's own order of axes."""
        value = self._value(index)
        if len(self._shapes[index]) != 4:
            return value
        return self._add("Transpose", [value], perm=TO_NHWC)

    def _set_nhwc(self, index: int, value: str) -> None:
        """Set a result that is in TensorFlow Lite's order of axes."""
        if len(self._shapes[index]) == 4:
            value = self._add("Transpose", [value], perm=TO_NCHW)
        self._values[index] = value

    def _operand(self, index: int, rank: int) -> str:
        """Return an operand of an elementwise operator, broadcast like the other one."""
        if index not in self._constants:
            return self._value(index)
        values = self._constants[index].astype(np.float32)
        if rank == 4:
            values = values.reshape((1,) * (4 - values.ndim) + values.shape).transpose(TO_NCHW)
        return self._constant(values)

    def _activated(self, value: str, activation: int) -> str:
        """Apply the activation that is fused into an operator."""
        if activation == tflite.ActivationFunctionType.RELU:
            return self._add("Relu", [value])
        if activation == tflite.ActivationFunctionType.RELU6:
            limits = [self._constant(np.array(limit, np.float32)) for limit in (0, 6)]
            return self._add("Clip", [value, *limits])
        if activation != tflite.ActivationFunctionType.NONE:
            raise SystemExit(f"the activation {activation} is not supported")
        return value

    # Operators

    def convolution(self, operator: tflite.Operator, depthwise: bool = False) -> None:
        options = _options(
            operator, tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions
        )
        source, kernel, bias = operator.InputsAsNumpy().tolist()
        target = operator.Outputs(0)
        weights = self._weights(kernel).transpose([3, 0, 1, 2] if depthwise else [0, 3, 1, 2])
        strides = [options.StrideH(), options.StrideW()]
        dilations = [options.DilationHFactor(), options.DilationWFactor()]
        same = options.Padding() == tflite.Padding.SAME
        value = self._add(
            "Conv",
            [self._value(source), self._constant(weights), self._constant(self._weights(bias))],
            kernel_shape=list(weights.shape[2:]),
            strides=strides,
            dilations=dilations,
            group=self._shapes[source][3] // weights.shape[1],
            pads=_pads(self._shapes[source][1:3], weights.shape[2:], strides, dilations, same),
        )
        self._values[target] = self._activated(value, options.FusedActivationFunction())

    def transposed_convolution(self, operator: tflite.Operator) -> None:
        options = _options(operator, tflite.TransposeConvOptions)
        _, kernel, source, bias = operator.InputsAsNumpy().tolist()
        target = operator.Outputs(0)
        weights = self._weights(kernel).transpose(3, 0, 1, 2)
        strides = [options.StrideH(), options.StrideW()]
        extra = [
            (self._shapes[source][1 + axis] - 1) * strides[axis] + weights.shape[2 + axis]
            - self._shapes[target][1 + axis]
            for axis in (0, 1)
        ]  # fmt: skip
        value = self._add(
            "ConvTranspose",
            [self._value(source), self._constant(weights), self._constant(self._weights(bias))],
            kernel_shape=list(weights.shape[2:]),
            strides=strides,
            pads=[max(e, 0) // 2 for e in extra] + [max(e, 0) - max(e, 0) // 2 for e in extra],
            output_padding=[max(-e, 0) for e in extra],
        )
        self._values[target] = self._activated(value, options.FusedActivationFunction())

    def _weights(self, index: int) -> Array:
        return self._constants[index].astype(np.float32)

    def dequantize(self, operator: tflite.Operator) -> None:
        """Take over weights that are stored as float16."""
        self._constants[operator.Outputs(0)] = self._weights(operator.Inputs(0))

    def pointwise(self, operator: tflite.Operator, kind: str) -> None:
        self._values[operator.Outputs(0)] = self._add(kind, [self._value(operator.Inputs(0))])

    def reciprocal_root(self, operator: tflite.Operator) -> None:
        root = self._add("Sqrt", [self._value(operator.Inputs(0))])
        self._values[operator.Outputs(0)] = self._add("Reciprocal", [root])

    def parametric_relu(self, operator: tflite.Operator) -> None:
        source, slopes = operator.InputsAsNumpy().tolist()
        constant = self._constant(self._weights(slopes).reshape(-1, 1, 1))
        self._values[operator.Outputs(0)] = self._add("PRelu", [self._value(source), constant])

    def pool(self, operator: tflite.Operator, kind: str) -> None:
        options = _options(operator, tflite.Pool2DOptions)
        kernel = (options.FilterHeight(), options.FilterWidth())
        strides = [options.StrideH(), options.StrideW()]
        same = options.Padding() == tflite.Padding.SAME
        sides = self._shapes[operator.Inputs(0)][1:3]
        value = self._add(
            kind,
            [self._value(operator.Inputs(0))],
            kernel_shape=list(kernel),
            strides=strides,
            pads=_pads(sides, kernel, strides, [1, 1], same),
        )
        activation = options.FusedActivationFunction()
        self._values[operator.Outputs(0)] = self._activated(value, activation)

    def pad(self, operator: tflite.Operator) -> None:
        source, amounts = operator.InputsAsNumpy().tolist()
        pads = self._constants[amounts]
        pads = (pads[TO_NCHW] if len(pads) == 4 else pads).T.ravel()
        constant = self._constant(pads.astype(np.int64))
        self._values[operator.Outputs(0)] = self._add("Pad", [self._value(source), constant])

    def concatenation(self, operator: tflite.Operator) -> None:
        target = operator.Outputs(0)
        rank = len(self._shapes[target])
        axis = _options(operator, tflite.ConcatenationOptions).Axis() % rank
        axis = TO_NCHW.index(axis) if rank == 4 else axis
        values = [self._value(index) for index in operator.InputsAsNumpy().tolist()]
        self._values[target] = self._add("Concat", values, axis=axis)

    def strided_slice(self, operator: tflite.Operator) -> None:
        source, *limits = operator.InputsAsNumpy().tolist()
        shape = self._shapes[source]
        options = _options(operator, tflite.StridedSliceOptions)
        starts, ends, steps = (self._constants[index].ravel().tolist() for index in limits)
        dropped = []
        for axis, side in enumerate(shape):
            starts[axis] = 0 if options.BeginMask() >> axis & 1 else starts[axis]
            ends[axis] = side if options.EndMask() >> axis & 1 else ends[axis]
            if options.ShrinkAxisMask() >> axis & 1:
                ends[axis] = starts[axis] + 1
                dropped.append(axis)
        numbers = [starts, ends, list(range(len(shape))), steps]
        constants = [self._constant(np.array(each, np.int64)) for each in numbers]
        value = self._add("Slice", [self._as_nhwc(source), *constants])
        if dropped:
            value = self._add("Squeeze", [value, self._constant(np.array(dropped, np.int64))])
        self._set_nhwc(operator.Outputs(0), value)

    def squared_difference(self, operator: tflite.Operator) -> None:
        difference = self._combined(operator, "Sub")
        self._values[operator.Outputs(0)] = self._add("Mul", [difference, difference])

    def _combined(self, operator: tflite.Operator, kind: str) -> str:
        one, two = operator.InputsAsNumpy().tolist()
        rank = max(len(self._shapes[one]), len(self._shapes[two]))
        return self._add(kind, [self._operand(one, rank), self._operand(two, rank)])

    def elementwise(self, operator: tflite.Operator, kind: str, options_type: type) -> None:
        value = self._combined(operator, kind)
        activation = _options(operator, options_type).FusedActivationFunction()
        self._values[operator.Outputs(0)] = self._activated(value, activation)

    def reshape(self, operator: tflite.Operator) -> None:
        target = operator.Outputs(0)
        shape = self._constant(np.array(self._shapes[target], np.int64))
        self._set_nhwc(target, self._add("Reshape", [self._as_nhwc(operator.Inputs(0)), shape]))

    def transpose(self, operator: tflite.Operator) -> None:
        order = self._constants[operator.Inputs(1)].tolist()
        value = self._add("Transpose", [self._as_nhwc(operator.Inputs(0))], perm=order)
        self._set_nhwc(operator.Outputs(0), value)

    def softmax(self, operator: tflite.Operator) -> None:
        value = self._add("Softmax", [self._as_nhwc(operator.Inputs(0))], axis=-1)
        self._set_nhwc(operator.Outputs(0), value)

    def reduction(self, operator: tflite.Operator, kind: str) -> None:
        source, axes = operator.InputsAsNumpy().tolist()
        rank = len(self._shapes[source])
        positive = [int(axis) % rank for axis in self._constants[axes].ravel()]
        keep = int(_options(operator, tflite.ReducerOptions).KeepDims())
        if kind == "ReduceSum":
            constant = self._constant(np.array(positive, np.int64))
            value = self._add(kind, [self._as_nhwc(source), constant], keepdims=keep)
        else:  # in this opset an attribute holds the axes
            value = self._add(kind, [self._as_nhwc(source)], axes=positive, keepdims=keep)
        self._set_nhwc(operator.Outputs(0), value)

    def resize(self, operator: tflite.Operator, linear: bool) -> None:
        options = _options(
            operator,
            tflite.ResizeBilinearOptions if linear else tflite.ResizeNearestNeighborOptions,
        )
        target = operator.Outputs(0)
        centers = "half_pixel" if options.HalfPixelCenters() else "asymmetric"
        shape = [self._shapes[target][axis] for axis in TO_NCHW]
        self._values[target] = self._add(
            "Resize",
            [self._value(operator.Inputs(0)), "", "", self._constant(np.array(shape, np.int64))],
            mode="linear" if linear else "nearest",
            coordinate_transformation_mode="align_corners" if options.AlignCorners() else centers,
            nearest_mode="round_prefer_ceil" if options.HalfPixelCenters() else "floor",
        )


def _options(operator: tflite.Operator, kind: type) -> Any:
    """Return an operator's options as an object of their own type."""
    options, table = kind(), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _pads(
    sides: list[int], kernel: tuple[int, ...], strides: list[int], dilations: list[int], same: bool
) -> list[int]:
    """Return the padding before and after both axes, as ONNX orders it."""
    before, after = [], []
    for side, width, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        total = max((-(-side // stride) - 1) * stride + reach - side, 0) if same else 0
        before.append(total // 2)
        after.append(total - total // 2)
    return before + after


RULES: dict[str, Callable[[Converter, tflite.Operator], None]] = {
    "CONV_2D": Converter.convolution,
    "DEPTHWISE_CONV_2D": lambda self, operator: self.convolution(operator, depthwise=True),
    "TRANSPOSE_CONV": Converter.transposed_convolution,
    "ADD": lambda self, operator: self.elementwise(operator, "Add", tflite.AddOptions),
    "SUB": lambda self, operator: self.elementwise(operator, "Sub", tflite.SubOptions),
    "MUL": lambda self, operator: self.elementwise(operator, "Mul", tflite.MulOptions),
    "DIV": lambda self, operator: self.elementwise(operator, "Div", tflite.DivOptions),
    "SQUARED_DIFFERENCE": Converter.squared_difference,
    "RELU": lambda self, operator: self.pointwise(operator, "Relu"),
    "LOGISTIC": lambda self, operator: self.pointwise(operator, "Sigmoid"),
    "SQRT": lambda self, operator: self.pointwise(operator, "Sqrt"),
    "NEG": lambda self, operator: self.pointwise(operator, "Neg"),
    "RSQRT": Converter.reciprocal_root,
    "PRELU": Converter.parametric_relu,
    "MAX_POOL_2D": lambda self, operator: self.pool(operator, "MaxPool"),
    "PAD": Converter.pad,
    "CONCATENATION": Converter.concatenation,
    "STRIDED_SLICE": Converter.strided_slice,
    "DEQUANTIZE": Converter.dequantize,
    "RESHAPE": Converter.reshape,
    "TRANSPOSE": Converter.transpose,
    "SOFTMAX": Converter.softmax,
    "SUM": lambda self, operator: self.reduction(operator, "ReduceSum"),
    "MEAN": lambda self, operator: self.reduction(operator, "ReduceMean"),
    "RESIZE_BILINEAR": lambda self, operator: self.resize(operator, linear=True),
    "RESIZE_NEAREST_NEIGHBOR": lambda self, operator: self.resize(operator, linear=False),
}


def resize_input(model: onnx.ModelProto, side: int, shapes: list[list[int]]) -> None:
    """Change the side of a network's input; see the module."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    before = dimensions[2].dim_value
    for dimension in dimensions[2:]:
        dimension.dim_value = side
    constants = {each.name: each for each in model.graph.initializer}
    remaining = iter(shapes)
    for node in model.graph.node:
        if node.op_type == "Reshape":
            shape = next(remaining)
        elif node.op_type == "Resize":
            old = numpy_helper.to_array(constants[node.input[3]]).tolist()
            shape = [*old[:2], *(length * side // before for length in old[2:])]
        else:
            continue
        name = node.input[1 if node.op_type == "Reshape" else 3]
        constants[name].CopyFrom(numpy_helper.from_array(np.array(shape, np.int64), name))
    if next(remaining, None) is not None:
        raise SystemExit("there are more shapes than Reshape operators")
    onnx.checker.check_model(model)


def convert(data: bytes, side: int | None = None, shapes: str = "[]") -> bytes:
    """Convert a TensorFlow Lite file to an ONNX file."""
    model = Converter(tflite.Model.GetRootAsModel(data, 0)).convert()
    if side:
        resize_input(model, side, json.loads(shapes))
    return bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    source, target, *size = sys.argv[1:]
    sizes = (int(size[0]), size[1]) if size else ()
    Path(target).write_bytes(convert(Path(source).read_bytes(), *sizes))
