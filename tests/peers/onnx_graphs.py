"""A checkpoint as two ONNX graphs: the encoder with the cross-attention keys and values, and one decoder step.

Nothing is computed again from step to step: the step takes the cross keys and values of the source and the keys and
values of the tokens so far. Norms are written as the runtime's optimiser recognises and fuses them.
"""

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

from checkpoint import buckets, load

LONGEST = 1024  # distances that the bias tables reach


class Graph:
    """A graph under construction; every call adds a node and gives its output's name."""

    def __init__(self, config, tensors):
        self.config, self.tensors = config, tensors
        self.nodes, self.constants, self.count = [], {}, 0

    def __call__(self, op, *inputs, name=None, **attributes):
        self.count += 1
        name = name or f"{op}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, name, value):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(numpy.array(value, order="C"), name)
        return name

    def integers(self, *values):
        return self.constant("i" + "_".join(map(str, values)).replace("-", "m"), numpy.array(values, numpy.int64))

    def scalar(self, value):
        return self.constant(f"i{value}_scalar".replace("-", "m"), numpy.array(value, numpy.int64))

    def weight(self, name):
        return self.constant(name, self.tensors[name + ".weight"])

    def linear(self, x, name):
        return self("MatMul", x, self.constant(name + ".T", self.tensors[name + ".weight"].T))

    def norm(self, x, name):
        two = self.constant("two", numpy.array(2, numpy.float32))
        epsilon = self.constant("epsilon", numpy.array(self.config["layer_norm_epsilon"], numpy.float32))
        mean = self("ReduceMean", self("Pow", x, two), self.integers(-1), keepdims=1)
        return self("Mul", self("Div", x, self("Sqrt", self("Add", mean, epsilon))), self.weight(name))

    def by_head(self, x, **name):
        """[batch, length, heads * d_kv] -> [batch, heads, length, d_kv]"""
        shape = self.integers(0, 0, self.config["num_heads"], self.config["d_kv"])
        return self("Transpose", self("Reshape", x, shape), perm=[0, 2, 1, 3], **name)

    def attend(self, q, k, v, bias, name):
        scores = self("MatMul", q, self("Transpose", k, perm=[0, 1, 3, 2]))
        scores = scores if bias is None else self("Add", scores, bias)
        mixed = self("MatMul", self("Softmax", scores, axis=-1), v)
        inner = self.config["num_heads"] * self.config["d_kv"]
        rows = self("Reshape", self("Transpose", mixed, perm=[0, 2, 1, 3]), self.integers(0, 0, inner))
        return self.linear(rows, name + ".o")

    def bias(self, stack, queries, keys):
        """[1, heads, queries, keys], from a table over the distances."""
        distances = numpy.arange(1 - LONGEST, LONGEST)
        table = self.tensors[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        table = self.constant("bias", table[buckets(stack == "encoder", distances, self.config)].T)
        distance = self("Sub", self("Unsqueeze", keys, self.integers(0)), self("Unsqueeze", queries, self.integers(1)))
        place = self("Add", distance, self.scalar(LONGEST - 1))
        return self("Unsqueeze", self("Gather", table, place, axis=1), self.integers(0))

    def feed_forward(self, x, layer):
        y = self.norm(x, layer + ".layer_norm")
        name = layer + ".DenseReluDense"
        if self.config["feed_forward_proj"].startswith("gated"):
            inner = self("Mul", self.gelu(self.linear(y, name + ".wi_0")), self.linear(y, name + ".wi_1"))
        else:
            inner = self("Relu", self.linear(y, name + ".wi"))
        return self("Add", x, self.linear(inner, name + ".wo"))

    def gelu(self, x):
        return self("Gelu", x, approximate="tanh")

    def length(self, x, axis):
        return self("Gather", self("Shape", x), self.scalar(axis))

    def range(self, end):
        return self("Range", self.scalar(0), end, self.scalar(1))

    def save(self, path, inputs, outputs):
        graph = helper.make_graph(self.nodes, "t5", inputs, outputs, list(self.constants.values()))
        # 20 is the first set with Gelu.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def tensor(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, shape)


def caches(prefix, config, length):
    names = [f"{prefix}{i}" for i in range(2 * config["num_decoder_layers"])]
    heads, width = config["num_heads"], config["d_kv"]
    return names, [tensor(name, TensorProto.FLOAT, "batch", heads, length, width) for name in names]


def encoder(config, tensors, path):
    g = Graph(config, tensors)
    x = g("Gather", g.weight("shared"), "ids")
    places = g.range(g.length("ids", 1))
    bias = g.bias("encoder", places, places)
    for block in range(config["num_layers"]):
        layer = f"encoder.block.{block}.layer"
        y, own = g.norm(x, f"{layer}.0.layer_norm"), f"{layer}.0.SelfAttention"
        q, k, v = (g.by_head(g.linear(y, f"{own}.{part}")) for part in "qkv")
        x = g("Add", x, g.attend(q, k, v, bias, own))
        x = g.feed_forward(x, f"{layer}.1")
    x = g.norm(x, "encoder.final_layer_norm")
    names, outputs = caches("cross", config, "source")
    for i, name in enumerate(names):
        g.by_head(g.linear(x, f"decoder.block.{i // 2}.layer.1.EncDecAttention.{'kv'[i % 2]}"), name=name)
    g.save(path, [tensor("ids", TensorProto.INT64, "batch", "source")], outputs)


def decoder_step(config, tensors, path):
    g = Graph(config, tensors)
    (cross, cross_inputs), (past, past_inputs) = caches("cross", config, "source"), caches("past", config, "past")
    grown, outputs = caches("grown", config, "grown")
    x = g("Gather", g.weight("shared"), "token")
    here = g.length("past0", 2)
    bias = g.bias("decoder", g("Unsqueeze", here, g.integers(0)), g.range(g("Add", here, g.scalar(1))))
    for block in range(config["num_decoder_layers"]):
        layer = f"decoder.block.{block}.layer"
        y, own = g.norm(x, f"{layer}.0.layer_norm"), f"{layer}.0.SelfAttention"
        k, v = (
            g("Concat", past[2 * block + i], g.by_head(g.linear(y, f"{own}.{part}")), name=grown[2 * block + i], axis=2)
            for i, part in enumerate("kv")
        )
        x = g("Add", x, g.attend(g.by_head(g.linear(y, f"{own}.q")), k, v, bias, own))
        y, own = g.norm(x, f"{layer}.1.layer_norm"), f"{layer}.1.EncDecAttention"
        q = g.by_head(g.linear(y, f"{own}.q"))
        x = g("Add", x, g.attend(q, cross[2 * block], cross[2 * block + 1], None, own))
        x = g.feed_forward(x, f"{layer}.2")
    x = g.norm(x, "decoder.final_layer_norm")
    if config["scale_outputs"]:
        x = g("Mul", x, g.constant("scale", numpy.array(config["d_model"] ** -0.5, numpy.float32)))
    logits = g("Squeeze", g.linear(x, "lm_head"), g.integers(1), name="logits")
    g("ArgMax", logits, name="next", axis=-1, keepdims=1)
    token = tensor("token", TensorProto.INT64, "batch", 1)
    results = [
        tensor("logits", TensorProto.FLOAT, "batch", config["vocab_size"]),
        tensor("next", TensorProto.INT64, "batch", 1),
    ]
    g.save(path, [token, *cross_inputs, *past_inputs], results + outputs)


def export(model, folder, int8):
    """Writes the graphs, in float32 or with dynamically quantised int8 products."""
    config, tensors = load(model)
    encoder(config, tensors, f"{folder}/encoder.onnx")
    decoder_step(config, tensors, f"{folder}/step.onnx")
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        for part in ("encoder", "step"):
            path = f"{folder}/{part}.onnx"
            quantize_dynamic(path, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
