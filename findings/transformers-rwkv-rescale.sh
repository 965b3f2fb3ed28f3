#!/usr/bin/env bash
# Package:  transformers 4.57.1 with torch 2.9.1 and numpy 2.2.6
# Happens:  One forward pass in eval mode changes the weights of an RWKV model: those of attention.output and
#           feed_forward.value are halved every rescale_every layers (6 by default), in place. save_pretrained then
#           writes the halved ones; a model loaded from that file halves them once more and gives other logits.
# Expected: Evaluating leaves a model as it was, and saving and loading gives the same model. Loading, a look at the
#           loss, saving (after a conversion, a merge or a quantisation) loses the model; each round halves again.
# Source:   transformers/models/rwkv/modeling_rwkv.py: RwkvModel._rescale_layers, "Layers should be rescaled for
#           inference only", divides with div_; layers_are_rescaled, which remembers it, is an attribute and is not
#           saved. model.train() and one more forward pass before saving restore the weights.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  python3 -m venv "$work/venv" &&
    { "$work/venv/bin/pip" install -q --retries 0 --index-url https://download.pytorch.org/whl/cpu torch==2.9.1 ||
      "$work/venv/bin/pip" install -q torch==2.9.1; } &&
    "$work/venv/bin/pip" install -q transformers==4.57.1 numpy==2.2.6
} >&2 || exit 2
cd "$work"
venv/bin/python - <<'EOF'
import torch
from transformers import RwkvConfig, RwkvForCausalLM

torch.manual_seed(0)
tokens = torch.tensor([[1, 2, 3, 4]])
config = RwkvConfig(vocab_size=50, context_length=64, hidden_size=32, num_hidden_layers=4, rescale_every=2)
model = RwkvForCausalLM(config).eval()
original = {name: w.clone() for name, w in model.state_dict().items()}


def factor(model):  # of a matrix of the third layer
    name = "rwkv.blocks.2.attention.output.weight"
    return (model.state_dict()[name] / original[name]).median().item()


with torch.no_grad():
    factors = [factor(model)]
    logits = model(tokens).logits
    factors += [factor(model)]
    model.save_pretrained("saved")
    again = RwkvForCausalLM.from_pretrained("saved").eval()
    change = (again(tokens).logits - logits).abs().max().item()
    factors += [factor(again)]
    model.train()(tokens)
    factors += [factor(model)]
print("weights, as multiples of the original: new, evaluated, saved + loaded + evaluated, back in training:", *factors)
print(f"logits before and after saving differ by {change:.2g}, the largest being {logits.abs().max().item():.2g}")
assert factors == [1, 0.5, 0.25, 1] and change > 0.1, "the behaviour has changed"
EOF
