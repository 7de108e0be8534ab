"""The engines measured, each behind the same few calls.

    prepare(model, folder)        converts the checkpoint `model` into `folder`, once
    Engine(folder, threads)       loads it; this is what load_ms times
    encode(ids)                   the encoder over [batch][length] ids
    start(ids, beams)             what a decoding needs of the sources; not part of a step
    decode(started, count)        exactly `count` tokens
    answer(ids, count)            `count` ids greedily, the end token suppressed
"""

import json
import types

import numpy

import checkpoint


class OnnxRuntime:
    """Two graphs of our own (onnx_graphs.py). It has no beam search at this level: sequences run in lock step."""

    beam_search = False
    version = "onnxruntime"

    def __init__(self, folder, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.value = onnxruntime.OrtValue.ortvalue_from_numpy
        self.encoder, self.step = (
            onnxruntime.InferenceSession(f"{folder}/{part}.onnx", options, providers=["CPUExecutionProvider"])
            for part in ("encoder", "step")
        )
        inputs = self.step.get_inputs()
        self.cross = [value.name for value in self.encoder.get_outputs()]
        self.past = [value for value in inputs if value.name.startswith("past")]
        self.outputs = [value.name for value in self.step.get_outputs()]
        with open(f"{folder}/ids.json") as file:
            self.first, self.end = json.load(file)

    @staticmethod
    def prepare(model, folder, int8):
        from onnx_graphs import export

        config, _ = checkpoint.load(model)
        export(model, folder, int8)
        with open(f"{folder}/ids.json", "w") as file:
            json.dump([config["decoder_start_token_id"], config["eos_token_id"]], file)

    def encode(self, ids):
        binding = self.encoder.io_binding()
        binding.bind_cpu_input("ids", numpy.array(ids, numpy.int64))
        for name in self.cross:
            binding.bind_output(name, "cpu")
        self.encoder.run_with_iobinding(binding)
        return binding.get_outputs()

    def start(self, ids, beams):
        return self.encode([source for source in ids for _ in range(beams)])

    def tokens(self, cross, count, suppress):
        batch = cross[0].shape()[0]
        empty = (batch, self.past[0].shape[1], 0, self.past[0].shape[3])
        past = [self.value(numpy.zeros(empty, numpy.float32)) for _ in self.past]
        token = self.value(numpy.full((batch, 1), self.first, numpy.int64))
        for _ in range(count):
            binding = self.step.io_binding()
            binding.bind_ortvalue_input("token", token)
            for name, value in zip(self.cross, cross):
                binding.bind_ortvalue_input(name, value)
            for value, given in zip(self.past, past):
                binding.bind_ortvalue_input(value.name, given)
            for name in self.outputs:
                binding.bind_output(name, "cpu")
            self.step.run_with_iobinding(binding)
            logits, token, *past = binding.get_outputs()
            if suppress:
                row = logits.numpy()[0].copy()
                row[self.end] = -numpy.inf
                token = self.value(numpy.array([[row.argmax()]], numpy.int64))
                yield int(row.argmax())
            else:
                yield None

    def decode(self, cross, count):
        for _ in self.tokens(cross, count, False):
            pass

    def answer(self, ids, count):
        return list(self.tokens(self.encode([ids]), count, True))


class CTranslate2:
    """Its own converter and its own search. It encodes and decodes in one call only: the encoder's time is that of
    one token less one step, and includes the cross-attention keys and values."""

    beam_search = True
    version = "ctranslate2"

    def __init__(self, folder, threads):
        import ctranslate2

        self.translator = ctranslate2.Translator(folder, device="cpu", intra_threads=threads, inter_threads=1)

    @staticmethod
    def prepare(model, folder):
        from ctranslate2.converters.transformers import T5Loader

        class Loader(T5Loader):
            # The converter's own asks the transformers library, which is not needed for arrays.
            def set_linear(self, spec, module, quant_type=None):
                spec.weight = module.weight

        config, tensors = checkpoint.load(model)
        tree = module_tree(config, tensors)
        loader = Loader()
        spec = loader.get_model_spec(tree)
        loader.set_vocabulary(spec, [f"t{i}" for i in range(config["vocab_size"])])
        spec.config.bos_token = spec.config.decoder_start_token = f"t{config['decoder_start_token_id']}"
        spec.config.eos_token, spec.config.unk_token = f"t{config['eos_token_id']}", "t2"
        spec.validate()
        spec.optimize(quantization="int8")
        spec.save(folder)

    def run(self, ids, count, beams):
        batch = [[f"t{i}" for i in source] for source in ids]
        results = self.translator.translate_batch(
            batch, beam_size=beams, min_decoding_length=count, max_decoding_length=count, max_input_length=0,
            max_batch_size=0,
        )
        tokens = [result.hypotheses[0] for result in results]
        if any(len(row) != count for row in tokens):
            raise RuntimeError(f"ctranslate2: expected {count} tokens, found {[len(row) for row in tokens]}")
        return tokens

    encode = None

    def start(self, ids, beams):
        return ids, beams

    def decode(self, started, count):
        ids, beams = started
        self.run(ids, count, beams)

    def answer(self, ids, count):
        return [int(token[1:]) for token in self.run([ids], count, 1)[0]]


def module_tree(config, tensors):
    """Tensors by attribute, as converters written for the transformers library reach for them."""
    root = types.SimpleNamespace()
    for name, value in tensors.items():
        *path, last = name.split(".")
        node = root
        for part in path:
            node.__dict__.setdefault(part, types.SimpleNamespace())
            node = node.__dict__[part]
        setattr(node, last, value)

    def lists(node):
        for key, child in list(node.__dict__.items()):
            if isinstance(child, types.SimpleNamespace):
                lists(child)
                if "0" in child.__dict__:
                    setattr(node, key, [child.__dict__[str(i)] for i in range(len(child.__dict__))])

    lists(root)
    for stack in (root.encoder, root.decoder):
        stack.embed_tokens = root.shared
        for block in stack.block:
            for layer in block.layer:
                for attention in (getattr(layer, "SelfAttention", None), getattr(layer, "EncDecAttention", None)):
                    if attention is not None:
                        attention.has_relative_attention_bias = hasattr(attention, "relative_attention_bias")
                        attention.relative_attention_max_distance = config["relative_attention_max_distance"]
    gated = config["feed_forward_proj"].startswith("gated")
    root.config = types.SimpleNamespace(
        num_layers=config["num_layers"], num_decoder_layers=config["num_decoder_layers"],
        num_heads=config["num_heads"], d_model=config["d_model"], is_gated_act=gated,
        dense_act_fn="gelu_new" if gated else "relu",
        # What its loader takes this for.
        tie_word_embeddings=config["scale_outputs"],
    )
    return root


def candle_prepare(model, folder):
    """The file that candle's quantized T5 reads: Hugging Face names, matrices in Q8_0."""
    import gguf as writer

    config, tensors = checkpoint.load(model)
    file = writer.GGUFWriter(f"{folder}/model.gguf", "t5")
    tied = tensors["lm_head.weight"] is tensors["shared.weight"]
    q8_0 = writer.GGMLQuantizationType.Q8_0
    for name, value in tensors.items():
        if name.endswith("embed_tokens.weight") or (tied and name == "lm_head.weight"):
            continue
        if value.ndim == 2 and "relative_attention_bias" not in name:
            file.add_tensor(name, writer.quants.quantize(value, q8_0), raw_dtype=q8_0)
        else:
            file.add_tensor(name, value)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    config["tie_word_embeddings"] = tied
    for key, value in {"dropout_rate": 0.1, "initializer_factor": 1.0}.items():
        config.setdefault(key, value)
    with open(f"{folder}/config.json", "w") as out:
        json.dump(config, out)


# name -> (what converts the checkpoint, what runs it in worker.py; None has a program of its own)
ENGINES = {
    "onnxruntime-int8": (lambda *where: OnnxRuntime.prepare(*where, True), OnnxRuntime),
    "onnxruntime-f32": (lambda *where: OnnxRuntime.prepare(*where, False), OnnxRuntime),
    "ctranslate2-int8": (CTranslate2.prepare, CTranslate2),
    "candle-q8_0": (candle_prepare, None),
}
