#!/usr/bin/env bash
# Package:  safetensors 0.6.2 with torch 2.9.1 and numpy 2.2.6
# Happens:  save_model of a model with a tied embedding writes one tensor, under the name that is first in the alphabet:
#           "emb" rather than "head", but "lm_head" rather than "wte". The other is kept as an entry of __metadata__,
#           {dropped: kept}, among the user's own entries; load_file gives a dictionary without it, which
#           load_state_dict refuses. save_file refuses the state_dict; it writes two halves of one storage, yet not a
#           tensor beside its own view.
# Expected: A rule from the model, such as the first name, and one that load_file undoes, since the file says what is
#           missing.
# Source:   safetensors/torch.py: _remove_duplicate_names keeps sorted(complete_names)[0]; save_model adds the entries.
#           The page https://huggingface.co/docs/safetensors/torch_shared_tensors tells that shared tensors are dropped,
#           and why.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    { "$work/venv/bin/pip" install -q --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.9.1 ||
      "$work/venv/bin/pip" install -q torch==2.9.1; } &&
    "$work/venv/bin/pip" install -q safetensors==0.6.2 numpy==2.2.6 packaging==25.0
} >&2 || exit 2
cd "$work"
venv/bin/python - <<'EOF'
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_model


def accepts(call):
    try:
        call()
        return True
    except RuntimeError:
        return False


for names, kept in ((("emb", "head"), "emb.weight"), (("wte", "lm_head"), "lm_head.weight")):
    model = torch.nn.Module()
    model.add_module(names[0], torch.nn.Embedding(4, 3))
    model.add_module(names[1], torch.nn.Linear(3, 4, bias=False))
    model.get_submodule(names[1]).weight = model.get_submodule(names[0]).weight
    save_model(model, "tied.safetensors", metadata={"user": "entry"})
    with safe_open("tied.safetensors", "pt") as file:
        entries = file.metadata()
    tensors = load_file("tied.safetensors")
    loads = accepts(lambda: model.load_state_dict(tensors))
    print(f"{names}: file has {list(tensors)}, __metadata__ {entries},", end=" ")
    print("load_state_dict", "accepts" if loads else "refuses")
    assert list(tensors) == [kept] and kept in entries.values() and "user" in entries and not loads
w = torch.arange(12.0).reshape(4, 3)
cases = {"state_dict": model.state_dict(), "two halves": {"a": w[:2], "b": w[2:]}, "a view": {"a": w, "b": w.view(-1)}}
seen = {name: accepts(lambda: save(tensors)) for name, tensors in cases.items()}
print("save accepts:", seen)
assert list(seen.values()) == [False, True, False], "the behaviour has changed"
EOF
