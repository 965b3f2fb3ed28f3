#!/usr/bin/env bash
# Package:  torch 2.9.1 with numpy 2.2.6
# Happens:  After torch.serialization.set_crc32_options(False), torch.save writes a checksum of 0 for each record.
#           Python's zipfile calls every record bad and refuses to read it; torch.load reads the file as if nothing
#           were.
# Expected: A file that zip readers accept. The zip format has no mark for "no checksum": the field says 0, which is
#           what a damaged file looks like too. A reader of .pth files that checks records has to give 0 a meaning of
#           its own.
# Source:   The documentation of torch.serialization.set_crc32_options: "Setting this to False may make unzipping of the
#           torch.save output fail or warn due to corrupted CRC32. However torch.load will be able to load the file."
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
import zipfile, torch

seen = {}
for on in (True, False):
    torch.serialization.set_crc32_options(on)
    torch.save({"emb.weight": torch.arange(6.0)}, "model.pth")
    with zipfile.ZipFile("model.pth") as records:
        sums, refused = [record.CRC for record in records.infolist()], 0
        for name in records.namelist():
            try:
                records.read(name)
            except zipfile.BadZipFile as error:
                refused += 1
                print(f"  zipfile on {name}: {error}")
    weights = torch.load("model.pth")["emb.weight"].tolist()
    seen[on] = (sums.count(0), refused, weights)
    print(f"checksums {'on' if on else 'off'}: of {len(sums)} records {sums.count(0)} have checksum 0,", end=" ")
    print(f"zipfile refuses {refused}; torch.load gives {weights}")
assert seen[True] == (0, 0, [0, 1, 2, 3, 4, 5]), "the behaviour has changed"
assert seen[False] == (len(sums), len(sums), [0, 1, 2, 3, 4, 5]), "the behaviour has changed"
EOF
