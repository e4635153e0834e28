"""Write a language model of a hundred thousand random weights, so that a real inference server has something to serve.

    python tiny_model.py FILE.gguf

It speaks words without sense. Some of its tokens are wired: where tools are offered its chat template ends with `<|act|>`, which makes it
begin a call, a closing bracket makes it end one, and the end of a call makes it stop. What a schema or a tool demands comes from the
server's grammar, as with any model.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np

WIDTH, LAYERS, INNER, HEADS, CONTEXT = 64, 2, 128, 4, 32768
WORDS = (
    "hello world the a of in to is it on for with as at by from or an be this that one two red blue green day night river",
    "stone bird tree wind cloud light water",
)
SPOKEN = " ".join(WORDS).split()
SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|act|>")
END, ACT, CALL, CALLED = 4, 5, 6, 7
CLOSING = [8 + ord("}"), 8 + 256 + ord("}") - 32]
"""A closing bracket as a byte and as a sign."""
UNKNOWN_TYPE, CONTROL, USER_DEFINED, NORMAL, BYTE = 2, 3, 4, 1, 6
WIRED = 0.3
TEMPLATE = """{%- if tools %}<|im_start|>system
# Tools
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
For each call write <tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call><|im_end|>
{% endif %}{% for m in messages %}{% if m.role == "tool" %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content if m.content else "" }}{% if m.tool_calls %}{% for c in m.tool_calls %}{% set f = c.function %}
<tool_call>{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}</tool_call>{% endfor %}{% endif %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if tools and messages[-1].role != "tool" %}<|act|>{% endif %}{% endif %}"""


def vocabulary() -> tuple[list[str], list[int], list[float]]:
    """Tokens, their types and scores: what is special, every byte, every sign of ASCII, some words."""
    tokens = [(name, CONTROL if number else UNKNOWN_TYPE, 0.0) for number, name in enumerate(SPECIAL)]
    tokens += [("<tool_call>", USER_DEFINED, 0.0), ("</tool_call>", USER_DEFINED, 0.0)]
    tokens += [(f"<0x{byte:02X}>", BYTE, 0.0) for byte in range(256)]
    tokens += [(sign, NORMAL, -50.0) for sign in ("\u2581", *map(chr, range(33, 127)))]
    tokens += [(f"\u2581{word}", NORMAL, -1.0 - number) for number, word in enumerate(SPOKEN)]
    return [name for name, _, _ in tokens], [kind for _, kind, _ in tokens], [score for _, _, score in tokens]


def write(path: str) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    tokens, kinds, scores = vocabulary()
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_scores(scores)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_chat_template(TEMPLATE)
    for name, values in weights(len(tokens)).items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def weights(vocabulary_size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    read = random.standard_normal((vocabulary_size, WIDTH))
    written = random.standard_normal((vocabulary_size, WIDTH)) * 0.05
    written[-len(SPOKEN) :] = random.standard_normal((len(SPOKEN), WIDTH)) * 0.6
    for seen, said in (([ACT], CALL), (CLOSING, CALLED), ([CALLED], END)):
        direction = np.sign(random.standard_normal(WIDTH))
        read -= np.outer(read @ direction, direction) / WIDTH  # nothing else leads there
        read[seen], written[said] = direction * 20, direction * WIRED
    found = {"token_embd.weight": read, "output.weight": written, "output_norm.weight": np.ones(WIDTH)}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for name in ("attn_norm", "ffn_norm"):
            found[f"{block}.{name}.weight"] = np.ones(WIDTH)
        for name, shape in _SHAPES.items():
            found[f"{block}.{name}.weight"] = random.standard_normal(shape) * 0.2
    return found


_SHAPES = {
    **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH)),
    **dict.fromkeys(("ffn_gate", "ffn_up"), (INNER, WIDTH)),
    "ffn_down": (WIDTH, INNER),
}

if __name__ == "__main__":
    write(sys.argv[1])
