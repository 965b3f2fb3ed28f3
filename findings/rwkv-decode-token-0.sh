#!/usr/bin/env bash
# Package:  rwkv 0.8.30 with torch 2.9.1 and numpy 2.2.6
# Happens:  TRIE_TOKENIZER.decode gives one U+FFFD for a whole text with token 0, the end of a text, somewhere in it.
#           PIPELINE.generate, which waits until its text decodes without U+FFFD, writes nothing more after a token 0,
#           neither to the callback nor to the result, however many tokens follow.
# Expected: The text of the other tokens, or an error that names the token. World models have logits for 65536 tokens
#           and learn to write token 0; the vocabulary knows 1 to 65529.
# Source:   rwkv/rwkv_tokenizer.py: decode has a bare "except: return '\ufffd' # bad utf-8", which also catches the
#           KeyError of an unknown token; rwkv/utils.py, generate: "if '\ufffd' not in tmp: # is valid utf-8 string?".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    { "$work/venv/bin/pip" install -q --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.9.1 ||
      "$work/venv/bin/pip" install -q torch==2.9.1; } &&
    "$work/venv/bin/pip" install -q rwkv==0.8.30 numpy==2.2.6
} >&2 || exit 2
cd "$work"
venv/bin/python - <<'EOF'
import torch
from rwkv.utils import PIPELINE, PIPELINE_ARGS


class Dictated:  # a model that is certain of a given sequence of tokens
    def __init__(self, tokens):
        self.tokens = list(tokens)

    def forward(self, tokens, state):
        logits = torch.full((65536,), -100.0)
        logits[self.tokens.pop(0)] = 100.0
        return logits, state


pipeline = PIPELINE(None, "rwkv_vocab_v20230424")
first, second = pipeline.encode("The first story."), pipeline.encode("The second story.")
for end in ([], [0]):
    tokens = first + end + second
    pipeline.model = Dictated(tokens)
    decoded = pipeline.decode(tokens)
    text = pipeline.generate("User:", len(tokens), PIPELINE_ARGS(alpha_frequency=0, alpha_presence=0))
    print(f"{tokens}: decode {decoded!r}, generate {text!r}")
    if not end:
        assert decoded == text == "The first story.The second story."
assert decoded == "\ufffd" and text == "The first story.", "the behaviour has changed"
EOF
