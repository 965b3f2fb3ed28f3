#!/usr/bin/env bash
# Package:  torch 2.9.1 with numpy 2.2.6
# Happens:  Module.state_dict() carries an attribute, _metadata, that belongs to no key. torch.save writes it, as the
#           one BUILD instruction of the pickle; dict(), copy() and a filter of the keys lose it. A file saved after any
#           of these differs in bytes, and load_state_dict then accepts a BatchNorm1d without num_batches_tracked, in
#           strict mode.
# Expected: A mapping of names to tensors is its items: an equal copy of it saves to an equal pickle and loads alike. A
#           reader of such files that knows dictionaries, tensors and numbers meets an object with a state.
# Source:   The documentation of Module._version in torch/nn/modules/module.py: the version number "will be saved as in
#           the attribute `_metadata` of the returned state dict, and thus pickled". state_dict sets
#           destination._metadata, load_state_dict reads it with getattr(..., None); torch/nn/modules/batchnorm.py,
#           _load_from_state_dict, takes a missing version for an old file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    { "$work/venv/bin/pip" install -q --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.9.1 ||
      "$work/venv/bin/pip" install -q torch==2.9.1; } &&
    "$work/venv/bin/pip" install -q numpy==2.2.6
} >&2 || exit 2
cd "$work"
venv/bin/python - <<'EOF'
import collections, io, pickletools, torch, zipfile

layer = torch.nn.BatchNorm1d(2)
state = layer.state_dict()
del state["num_batches_tracked"]
forms = {
    "state_dict()": state,
    "its copy()": state.copy(),
    "OrderedDict(it)": collections.OrderedDict(state),
    "a filter": {name: tensor for name, tensor in state.items()},
}
seen = {}
for name, form in forms.items():
    file = io.BytesIO()
    torch.save(form, file)
    pickle = zipfile.ZipFile(file).read("archive/data.pkl")
    builds = [instruction.name for instruction, *_ in pickletools.genops(pickle)].count("BUILD")
    try:
        layer.load_state_dict(form)
        answer = "loads"
    except RuntimeError as error:
        answer = "refused: " + str(error).split("\n\t")[1].strip()
    print(f"{name:16} pickle of {len(pickle)} bytes, BUILD {builds} times; load_state_dict {answer}")
    seen[name] = (builds, answer.split(":")[0])
assert list(seen.values()) == [(1, "refused")] + [(0, "loads")] * 3, "the behaviour has changed"
EOF
