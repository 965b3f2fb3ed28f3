#!/usr/bin/env python3
"""Files with one thing changed, each read by this library and by the package that the format is from: safetensors, or
torch.load(weights_only=True). Prints what each accepts, and where both accept, whether they read the same tensors.

    c++ -std=c++20 -O2 -Iinclude tests/io/differential_main.cpp -o differential -lpthread
    python3 -m venv V && V/bin/pip install safetensors==0.8.0 torch==2.15.0 numpy
    V/bin/python tests/tools/differential.py ./differential safetensors FILES SEED

File number i follows from the seed and i. Neither package may execute anything, so what they are given is harmless;
each runs in a process of its own, with a limit on its memory and a watch on its time.
"""
import collections
import io
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1,
         "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8}


class Reader:
    """This library."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, data):
        self.process.stdin.write(struct.pack("<Q", len(data)) + data)
        self.process.stdin.flush()
        words = self.process.stdout.readline().decode().rstrip("\n").split("\t")
        if words[0] != "ok":
            assert words[0] == "error", words
            return words[1], {}, set()
        tensors, unreadable = {}, set()
        for word in words[1:]:
            parts = word.split(" ", 1)
            name = bytes.fromhex(parts[0]).decode()
            if len(parts) == 1:
                unreadable.add(name)
                continue
            dtype, shape, crc = re.fullmatch(r"(\S+) \[(.*)\] (\d+)", parts[1]).groups()
            tensors[name] = (dtype, tuple(int(n) for n in shape.split(", ") if n), int(crc))
        return None, tensors, unreadable


# --- .safetensors ------------------------------------------------------------------------------------------------------


def some_name(r):
    return r.choice(["w", "emb.weight", "blocks.0.att.key.weight", "a/b", "naïve", "x" * 300, "日本", "a b", "__meta__", "."])


def good_header(r):
    entries, at = {}, 0
    for _ in range(r.choice([0, 1, 1, 2, 3, 5])):
        name = some_name(r) + r.choice(["", str(r.randrange(9))])
        if name in entries:
            continue
        dtype = r.choice(list(SIZES))
        shape = [r.choice([0, 1, 1, 2, 3, 4]) for _ in range(r.choice([0, 1, 1, 2, 2, 3, 5, 8]))]
        size = SIZES[dtype]
        for n in shape:
            size *= n
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return entries, bytes(r.randrange(256) for _ in range(at))


# A number, as it is written.
NUMBERS = ["0", "1", "2", "3", "7", "8", "-1", "-0", "1.0", "1e0", "4.0", "0.5", "01", "+1", "2147483648", "4294967296",
           "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "1e999", "null",
           "true", '"1"', "[]", "{}", "NaN", "Infinity", "0x1"]
TEXTS = ["", "f32", "F32 ", "F128", "F4", "I4", "BF16", "F16", "F64", "U8", "float32", "C64", "F8_E4M3", "F8_E8M0"]


def change_safetensors(r):
    entries, data = good_header(r)
    text = None
    kind = r.choice(["nothing", "number", "number", "offset", "offset", "shape", "dtype", "dtype", "name", "twice",
                     "field", "metadata", "syntax", "syntax", "around", "length", "data", "byte", "byte", "bytes"])
    names = list(entries)
    if kind in ("number", "offset", "shape", "dtype", "field") and names:
        entry = entries[r.choice(names)]
        if kind == "number":
            where = entry[r.choice(["shape", "data_offsets"])]
            if where:
                where[r.randrange(len(where))] = "@" + r.choice(NUMBERS) + "@"
        elif kind == "offset":
            offsets = entry["data_offsets"]
            i = r.randrange(2)
            offsets[i] = max(0, offsets[i] + r.choice([-8, -4, -1, 1, 4, 8, 1 << 20, 1 << 40]))
            if r.random() < 0.1:
                offsets.reverse()
            if r.random() < 0.1:
                offsets.append(0)
        elif kind == "shape":
            shape = entry["shape"]
            what = r.randrange(4)
            if what == 0 and shape:
                shape[r.randrange(len(shape))] += r.choice([-1, 1, 1 << 33, 1 << 62])
            elif what == 1:
                shape.insert(0, r.choice([0, 1, 2]))
            elif what == 2 and shape:
                shape.pop()
            else:
                r.shuffle(shape)
        elif kind == "dtype":
            entry["dtype"] = r.choice(list(SIZES) + TEXTS) if r.random() < 0.9 else "@" + r.choice(NUMBERS) + "@"
        else:
            key = r.choice(["dtype", "shape", "data_offsets", "extra", "Shape"])
            if key in entry:
                del entry[key]
            else:
                entry[key] = r.choice([1, "x", [1, [2]], {"a": None}, None])
    if kind == "metadata":
        entries["__metadata__"] = r.choice([{}, {"a": "b"}, {"a": 1}, {"a": {"b": "c"}}, None, "x", [], {"a": None},
                                            {"": ""}, {"dtype": "F32"}])
    if kind == "name" and names:
        new = r.choice(["", "\0", "a\0b", "\n", "\x7f", "a" * 5000, "../x", "__metadata__", "\ud800", "\u202e", "'", "\\"])
        entries[new] = entries.pop(names[0])
    text = json.dumps(entries, separators=r.choice([(",", ":"), (", ", ": ")]), ensure_ascii=r.random() < 0.5)
    text = re.sub(r'"@(.*?)@"', lambda m: m.group(1).replace('\\"', '"'), text)
    if kind == "twice" and names:
        name = r.choice(names)
        part = json.dumps({name: entries[name]})[1:-1]
        text = text[:-1] + "," + r.choice([part, part.replace("F32", "I32"), part.replace('"dtype"', '"dtype":"U8","dtype"')]) + "}"
    header = text.encode("utf-8", "surrogatepass")
    if kind == "syntax":
        at = r.randrange(len(header) + 1)
        header = header[:at] + r.choice([b",", b"}", b"{", b"]", b'"', b" ", b"\t", b"\0", b"//x\n", b"\\", b"\xff", b":",
                                         b"\xef\xbb\xbf", b"\\u0000", b"\\ud800", b"1"]) + header[at:]
    if kind == "around":
        header = r.choice([b" ", b"\n", b"\xef\xbb\xbf", b"\0", b""]) + header + \
            r.choice([b"", b" " * r.randrange(20), b"\n", b"\0", b"{}", b",", b"x", b"\t"])
    if r.random() < 0.5:
        header += b" " * (-len(header) % 8)
    if kind == "byte" and header:
        at = r.randrange(len(header))
        header = header[:at] + bytes([r.randrange(256)]) + header[at + 1:]
    length = len(header)
    if kind == "length":
        length = max(0, r.choice([length - 1, length + 1, 0, 1, length + len(data), 100_000_001, 1 << 32, (1 << 63) - 1,
                                  (1 << 64) - 1, len(data)]))
    if kind == "data":
        data = r.choice([data[:-1], data + b"\0", b"", data + data, data[1:]])
    out = struct.pack("<Q", length) + header + data
    if kind == "bytes":
        for _ in range(r.randrange(1, 4)):
            at = r.randrange(len(out))
            out = r.choice([out[:at] + bytes([r.randrange(256)]) + out[at + 1:], out[:at] + out[at + 1:], out[:at]])
            if not out:
                break
    return kind, out


def read_safetensors(data):
    from safetensors import deserialize
    return {name: (t["dtype"], tuple(t["shape"]), zlib.crc32(bytes(t["data"]))) for name, t in deserialize(data)}


# --- .pth --------------------------------------------------------------------------------------------------------------


def good_archive(r):
    import torch
    types = [torch.float64, torch.float32, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
             torch.int16, torch.int8, torch.uint8, torch.bool]
    tensors = collections.OrderedDict() if r.random() < 0.5 else {}
    for i in range(r.choice([1, 1, 2, 3, 4])):
        dtype = r.choice(types)
        shape = [r.choice([0, 1, 2, 3]) for _ in range(r.choice([0, 1, 2, 2, 3]))]
        tensor = (torch.arange(1000) % 7)[:max(1, 3 ** len(shape))].to(dtype)
        count = 1
        for n in shape:
            count *= n
        tensor = tensor[:count].reshape(shape) if count <= len(tensor) else tensor
        turn = r.random()
        if turn < 0.15 and tensor.dim() == 2:
            tensor = tensor.t()
        elif turn < 0.25 and tensor.dim() >= 1 and tensor.shape[0] > 1:
            tensor = tensor[1:]
        elif turn < 0.35 and dtype.is_floating_point:
            tensor = torch.nn.Parameter(tensor)
        elif turn < 0.45 and tensors:
            tensor = next(iter(tensors.values())).detach()
        tensors[some_name(r)[:20] + str(i)] = tensor
    whole = tensors
    if r.random() < 0.1:
        whole = {"model": tensors, "step": 3}
    file = io.BytesIO()
    torch.save(whole, file)
    with zipfile.ZipFile(file) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()], file.getvalue()


def zipped(r, entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if r.random() < 0.03 else zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


STORAGES = [b"FloatStorage", b"HalfStorage", b"BFloat16Storage", b"DoubleStorage", b"LongStorage", b"IntStorage",
            b"ByteStorage", b"BoolStorage", b"CharStorage", b"ShortStorage", b"ComplexFloatStorage", b"UntypedStorage"]


def change_pth(r):
    entries, whole = good_archive(r)
    kind = r.choice(["nothing", "number", "number", "storage", "opcode", "pickle byte", "pickle byte", "pickle byte",
                     "pickle cut", "text", "entry data", "entry name", "entry twice", "entry missing", "entry order",
                     "byteorder", "archive byte", "archive byte", "archive cut", "record", "around"])
    at = next(i for i, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    name, pickle = entries[at]

    def with_pickle(changed):
        return zipped(r, entries[:at] + [(name, changed)] + entries[at + 1:])

    def replaced(pattern, new):
        places = list(re.finditer(pattern, pickle, re.S))
        if not places:
            return pickle
        place = r.choice(places)
        return pickle[:place.start()] + new + pickle[place.end():]

    if kind == "nothing":
        return kind, whole
    if kind == "number":
        return kind, with_pickle(replaced(rb"K.", r.choice(
            [b"K" + bytes([r.choice([0, 1, 2, 3, 4, 6, 9, 27, 255])]), b"M" + struct.pack("<H", 40000),
             b"J" + struct.pack("<i", r.choice([-1, 1, 1 << 30])), b"\x8a\x08" + struct.pack("<q", r.choice([-1, 3, 1 << 62])),
             b"\x88", b"N", b"G" + struct.pack(">d", 1.0), b")", b"]"])))
    if kind == "storage":
        return kind, with_pickle(replaced(rb"[A-Z][A-Za-z0-9]*Storage", r.choice(STORAGES)))
    if kind == "opcode":
        return kind, with_pickle(replaced(r.choice([rb"t", rb"\(", rb"u", rb"Q", rb"R", rb"\x86", rb"\x85", rb"\x87", rb"q."]),
                                          r.choice([b"", b"0", b"t", b"(", b"R", b"b", b"s", b"u", b"}", b")", b"2", b"a"])))
    if kind == "pickle byte":
        place = r.randrange(len(pickle))
        return kind, with_pickle(pickle[:place] + bytes([r.randrange(256)]) + pickle[place + 1:])
    if kind == "pickle cut":
        place = r.randrange(len(pickle))
        return kind, with_pickle(r.choice([pickle[:place], pickle[:place] + pickle[place + 1:], pickle + b"x", pickle * 2]))
    if kind == "text":
        return kind, with_pickle(replaced(rb"X\x01\x00\x00\x00[0-9]", b"X\x01\0\0\0" + bytes([r.choice(b"0123456789ax")])))
    if kind == "byteorder":
        return kind, zipped(r, [(n, r.choice([b"big", b"", b"middle"]) if n.endswith("byteorder") else d) for n, d in entries])
    if kind.startswith("entry"):
        i = r.randrange(len(entries))
        n, d = entries[i]
        if kind == "entry data":
            entries[i] = (n, r.choice([d[:-1], d + b"\0", b"", d + d, d[:len(d) // 2]]))
        elif kind == "entry name":
            entries[i] = (r.choice([n + "x", n.upper(), "x/" + n, n.split("/", 1)[-1], n.replace("/", "//"), "../" + n]), d)
        elif kind == "entry twice":
            entries.append((n, r.choice([d, bytes(len(d)), d[::-1]])))
        elif kind == "entry missing":
            del entries[i]
        else:
            r.shuffle(entries)
        return kind, zipped(r, entries)
    if kind == "record":  # a field of a local or central record, or of the end
        places = [m.start() for m in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06|\x06\x06|\x06\x07)", whole)]
        place = r.choice(places) + 4 + r.randrange(40)
        if place >= len(whole):
            place = len(whole) - 1
        return kind, whole[:place] + bytes([(whole[place] + r.choice([1, 2, 8, 255])) % 256]) + whole[place + 1:]
    if kind == "archive byte":
        place = r.randrange(len(whole))
        return kind, whole[:place] + bytes([r.randrange(256)]) + whole[place + 1:]
    if kind == "archive cut":
        return kind, whole[:r.randrange(len(whole))]
    return kind, r.choice([b"x" + whole, whole + b"x", whole + b"\0" * 4, whole + whole, b"PK" + whole])


def read_pth(data):
    import torch
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
             torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
    tensors = {}

    def walk(value, prefix):
        if isinstance(value, torch.Tensor):
            flat = value.detach()
            if value.dtype == torch.bool:  # a copy of it as it is would make every byte above 1 a 1
                flat = flat.view(torch.uint8)
            flat = flat.clone(memory_format=torch.contiguous_format).reshape(-1)
            raw = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
            tensors[prefix] = (names.get(value.dtype, str(value.dtype)), tuple(value.shape), zlib.crc32(raw))
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, f"{prefix}.{key}" if prefix else str(key))
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                walk(item, f"{prefix}.{i}")

    walk(torch.load(io.BytesIO(data), weights_only=True, map_location="cpu"), "")
    return tensors


# --- The comparison ----------------------------------------------------------------------------------------------------


def compare(ours, unreadable, theirs):
    """What differs where both accept: nothing, or a sentence."""
    for name, tensor in ours.items():
        there = theirs.get(name)
        if there is None:  # a dictionary of a training script: the tensors of one of its parts are the model
            parts = [value for key, value in theirs.items() if key.endswith("." + name)]
            there = parts[0] if len(parts) == 1 else None
        if there is None:
            return "a tensor that they do not have"
        if there[0] != tensor[0]:
            return "another number type"
        if there[1] != tensor[1]:
            return "another shape"
        if there[2] != tensor[2]:
            return "other numbers"
    for name in theirs:
        last = name.split(".", 1)[-1]
        if name not in ours and name not in unreadable and last not in ours and last not in unreadable:
            return "a tensor that we do not have"
    return None


def worker(program, kind, seed, first, last, queue):
    limit = (24 if kind == "pth" else 4) << 30
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    ours = Reader(program)
    change, read = (change_safetensors, read_safetensors) if kind == "safetensors" else (change_pth, read_pth)
    if kind == "pth":
        import torch
        torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for i in range(first, last):
        changed, data = change(random.Random(f"{seed}-{i}"))
        queue.put(("begin", i, changed))
        sentence, tensors, unreadable = ours(data)
        theirs, why = None, None
        try:
            theirs = read(data)
        except Exception as error:  # they have many kinds
            why = re.sub(r"[0-9]+|'[^']*'|\"[^\"]*\"|`[^`]*`", "…", f"{type(error).__name__}: {error}")[:70].split("\n")[0]
        if sentence is not None:
            short = re.sub(r"'[^']*'|[0-9]+|m/\S+", "…", re.sub(r"^file: ", "", sentence))[:110]
            queue.put(("both refuse" if theirs is None else "we refuse", i, changed, short))
        elif theirs is None:
            queue.put(("they refuse, we read the rest" if unreadable else "they refuse", i, changed, why))
        else:
            different = compare(tensors, unreadable, theirs)
            which = "same" if different is None else "different"
            queue.put((which if not (different is None and unreadable) else "same, some unreadable", i, changed, different))
    queue.put(("end",))


def main():
    program, kind, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    begun = time.time()
    verdicts, by_change = collections.Counter(), collections.defaultdict(collections.Counter)
    reasons = collections.defaultdict(collections.Counter)
    next_file, ended = 0, False
    while not ended:
        queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=worker, args=(program, kind, seed, next_file, count, queue))
        process.start()
        current = None
        while True:
            try:
                message = queue.get(timeout=120)
            except Exception:
                message = None
            if message is None or message[0] == "end":
                ended = message is not None
                break
            if message[0] == "begin":
                current = message
                continue
            verdict, i, changed, why = message
            next_file = i + 1
            current = None
            verdicts[verdict] += 1
            by_change[changed][verdict] += 1
            if why:
                reasons[verdict][why] += 1
            if verdict == "different":
                print(f"different: file {i}, {changed}: {why}", flush=True)
        if not ended:  # theirs ended, or took two minutes
            process.kill()
            if current is not None:
                next_file = current[1] + 1
                verdicts["their reader ended"] += 1
        process.join()
    versions = {"safetensors": __import__("safetensors").__version__}
    if kind == "pth":
        versions = {"torch": __import__("torch").__version__}
    print(f"\n{sum(verdicts.values())} files of .{kind}, seed {seed}, {time.time() - begun:.0f} s, {versions}, "
          f"Python {platform.python_version()}\n")
    columns = [v for v, _ in verdicts.most_common()]
    print("| changed | " + " | ".join(columns) + " |\n| --- |" + " ---: |" * len(columns))
    for changed in sorted(by_change):
        print(f"| {changed} | " + " | ".join(str(by_change[changed][v]) for v in columns) + " |")
    print("| all | " + " | ".join(str(verdicts[v]) for v in columns) + " |")
    for verdict in ("we refuse", "they refuse", "they refuse, we read the rest"):
        print(f"\n{verdict}:\n")
        for why, times in reasons[verdict].most_common(45):
            print(f"| {times} | {why} |")


if __name__ == "__main__":
    main()
