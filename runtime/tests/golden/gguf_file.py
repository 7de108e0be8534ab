"""Writes t5-tiny.gguf with the writer of the `gguf` Python package (0.17 or later): an independent writer's bytes.

    python runtime/tests/golden/gguf_file.py runtime/tests/golden/t5-tiny.gguf

A gated, untied model of 1 + 2 blocks as llama.cpp's converter lays it out, with 20 pieces, F32 norms, F16 bias tables
and Q8_0 matrices where 32 divides the rows. Value i of the n-th tensor is ((i * 7 + n * 13) % 64 - 32) / 64.
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quants

D, KV, HEADS, FF, ROWS, BUCKETS, ENCODER, DECODER = 32, 8, 2, 64, 32, 8, 1, 2
INNER = HEADS * KV


def shapes():
    yield "token_embd.weight", (ROWS, D)
    for stack, blocks in [("enc", ENCODER), ("dec", DECODER)]:
        for n in range(blocks):
            p = f"{stack}.blk.{n}"
            yield f"{p}.attn_norm.weight", (D,)
            for part in "qkv":
                yield f"{p}.attn_{part}.weight", (INNER, D)
            yield f"{p}.attn_o.weight", (D, INNER)
            if n == 0:
                yield f"{p}.attn_rel_b.weight", (BUCKETS, HEADS)
            if stack == "dec":
                yield f"{p}.cross_attn_norm.weight", (D,)
                for part in "qkv":
                    yield f"{p}.cross_attn_{part}.weight", (INNER, D)
                yield f"{p}.cross_attn_o.weight", (D, INNER)
            yield f"{p}.ffn_norm.weight", (D,)
            yield f"{p}.ffn_gate.weight", (FF, D)
            yield f"{p}.ffn_up.weight", (FF, D)
            yield f"{p}.ffn_down.weight", (D, FF)
        yield f"{stack}.output_norm.weight", (D,)
    yield "output.weight", (ROWS, D)


def main(path):
    writer = GGUFWriter(path, "t5")
    writer.add_type("model")
    writer.add_name("Tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(D)
    writer.add_feed_forward_length(FF)
    writer.add_block_count(ENCODER)
    writer.add_decoder_block_count(DECODER)
    writer.add_head_count(HEADS)
    writer.add_key_length(KV)
    writer.add_value_length(KV)
    writer.add_layer_norm_eps(1e-6)
    writer.add_relative_attn_buckets_count(BUCKETS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_decoder_start_token_id(0)
    writer.add_file_type(7)
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    pieces = ["<pad>", "</s>", "<unk>", "▁"] + [chr(ord("a") + i) for i in range(16)]
    fill = range(len(pieces), ROWS)
    writer.add_token_list(pieces + [f"[PAD{i}]" for i in fill])
    writer.add_token_scores([0.0, 0.0, 0.0] + [-1.0 - i / 8 for i in range(17)] + [-10000.0 for _ in fill])
    writer.add_token_types([3, 3, 2] + [1] * 17 + [5 for _ in fill])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(bytes([0, 4, 0, 0]) + bytes(1024) + b"a\0")
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)
    writer.add_quantization_version(2)
    for n, (name, shape) in enumerate(shapes()):
        values = ((np.arange(np.prod(shape)) * 7 + n * 13) % 64 - 32).reshape(shape).astype(np.float32) / 64
        if len(shape) == 1:
            kind = Type.F32
        elif shape[-1] % 32 != 0:
            kind = Type.F16
        else:
            kind = Type.Q8_0
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(sys.argv[1])
