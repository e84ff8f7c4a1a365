"""Torch files that are made to take memory, time or code; run as a script, it reads them all.

    python -m corpus.hostile_files FOLDER [NAME ...]

Prints for each what came of reading it, in how many seconds and with how many bytes of memory.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

STATE = b"}X\x01\x00\x00\x00w"  # a dict, and the key of its first tensor
STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
)
FLOATS = struct.pack("<4f", 1, 2, 3, 4)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def called(name: str, *args: bytes) -> bytes:
    module, _, own = name.rpartition(".")
    return f"c{module}\n{own}\n".encode() + b"(" + b"".join(args) + b"tR"


def tensor(
    size: bytes = b"(K\x04t",
    stride: bytes = b"(K\x01t",
    offset: bytes = b"K\x00",
    storage: bytes = STORAGE,
) -> bytes:
    extra = (b"\x89", called("collections.OrderedDict"))
    return called("torch._utils._rebuild_tensor_v2", storage, offset, size, stride, *extra)


def archive(body: bytes, **parts: bytes) -> bytes:
    """A zip archive with that pickle, after a good tensor `w` where it begins with `STATE`."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + body + b".")
        file.writestr("a/data/0", parts.pop("values", FLOATS))
        file.writestr("a/version", "3")
        for name, data in parts.items():
            file.writestr(f"a/{name}", data)
    return made.getvalue()


def beside(value: bytes) -> bytes:
    """A good state_dict with `value` under another key."""
    return archive(STATE + tensor() + b"s" + text("x") + value + b"s")


def deep(opening: bytes, count: int, closing: bytes = b"") -> bytes:
    return opening * count + closing * count


def shared_tuples(depth: int) -> bytes:
    """A tuple of one tuple twice, and so on: hashing it takes 2 ** depth steps."""
    return b")" + b"2\x86" * depth


def cases() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and `read` where the good tensor is to be read or `refused`."""
    yield "good", archive(STATE + tensor() + b"s"), "read"
    yield "8 GB of bytes", beside(called("builtins.bytearray", number(8 << 30))), "read"
    yield (
        "a list of them",
        beside(b"]" + (called("builtins.bytearray", number(1 << 30)) + b"a") * 50),
        "read",
    )
    yield (
        "a set of them",
        beside(b"\x8f(" + called("builtins.bytearray", number(1 << 32)) * 9 + b"\x90"),
        "read",
    )
    yield "an endless product", beside(called("operator.mul", text("x"), number(1 << 40))), "read"
    yield "a large tensor", beside(called("torch.Tensor", number(40000), number(40000))), "read"
    yield "uninitialised", archive(STATE + called("torch.Tensor", b"K@", b"K@") + b"s"), "refused"
    yield (
        "a typed storage",
        archive(STATE + tensor(storage=called("torch.storage.TypedStorage", b"K@")) + b"s"),
        "refused",
    )
    yield (
        "an exponential key",
        beside(b"}" + shared_tuples(60) + b"Ks".replace(b"Ks", b"K\x01s")),
        "read",
    )
    yield "an exponential set", beside(b"\x8f(" + shared_tuples(60) + b"\x90"), "read"
    yield "an exponential frozenset", beside(b"(" + shared_tuples(60) + b"\x91"), "read"
    yield (
        "punycode",
        beside(called("_codecs.encode", text("\u00fc" * 200_000), text("punycode"))),
        "read",
    )
    yield (
        "a module in punycode",
        beside(called("encodings.punycode.punycode_decode", text("a-" * 100_000))),
        "read",
    )
    yield "os.system", beside(called("os.system", text("touch hostile"))), "refused"
    yield "eval", beside(called("builtins.eval", text("open('hostile', 'w')"))), "refused"
    yield (
        "getattr of a tensor",
        beside(called("builtins.getattr", tensor(), text("storage"))),
        "read",
    )
    yield (
        "a state that shadows",
        archive(
            STATE + tensor() + b"}" + text("detach") + b"K\x01s" + text("storage") + b"K\x01sbs"
        ),
        "refused",
    )
    yield (
        "a nested tensor",
        archive(STATE + called("torch._utils._rebuild_nested_tensor", *[tensor()] * 4) + b"s"),
        "refused",
    )
    yield "deep lists", beside(deep(b"]", 20_000) + b"a" * 19_999), "read"
    yield "deep tuples", beside(b")" + b"\x85" * 200_000), "read"
    yield "deep dicts", beside(deep(b"}" + text("k"), 50_000) + b"N" + b"s" * 50_000), "read"
    yield "many marks", archive(b"(" * 500_000), "refused"
    yield "a million twins", archive(b"]" + b"2" * 1_000_000), "refused"
    yield "a dict in itself", beside(b"}q\x01" + text("me") + b"h\x01s"), "read"
    yield "long text", beside(text("x" * 1_000_000)), "read"
    yield "a long name", beside(b"c" + b"m" * 70_000 + b"\nn\n"), "refused"
    yield "a long number", beside(b"I" + b"9" * 60_000 + b"\n"), "read"
    yield "a huge integer", beside(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1"), "refused"
    yield "a negative length", beside(b"\x8b" + struct.pack("<i", -5)), "refused"
    yield "bytes that are not there", beside(b"\x8e" + struct.pack("<Q", 2**62)), "refused"
    yield "text that is not there", beside(b"\x8d" + struct.pack("<Q", 2**63 + 5)), "refused"
    yield "the registry of extensions", beside(b"\x82\x01"), "read"
    yield "a buffer from outside", beside(b"\x97"), "refused"
    yield "an unknown protocol", archive(b"\x80\x09" + STATE + tensor() + b"s"), "refused"
    yield "a far memo", beside(b"j\xff\xff\xff\xff"), "refused"
    yield "a wrong memo", beside(b"h\x63"), "refused"
    yield "an empty stack", archive(b"R"), "refused"
    yield "items of a number", archive(b"K\x01K\x02K\x03s"), "refused"
    yield "a persistent number", archive(STATE + b"K\x05Qs"), "refused"
    yield "a persistent line", archive(STATE + b"P0\ns"), "refused"
    yield (
        "a storage of another kind",
        archive(STATE + tensor(storage=STORAGE.replace(b"torch\nFloat", b"other\nFloat")) + b"s"),
        "refused",
    )
    yield (
        "a storage too long",
        archive(STATE + tensor(storage=STORAGE.replace(b"K\x04tQ", b"K\x40tQ")) + b"s"),
        "refused",
    )
    yield (
        "a storage of no end",
        archive(STATE + tensor(storage=STORAGE.replace(b"K\x04tQ", number(2**62) + b"tQ")) + b"s"),
        "refused",
    )
    yield (
        "a storage below 0",
        archive(STATE + tensor(storage=STORAGE.replace(b"K\x04tQ", number(-4) + b"tQ")) + b"s"),
        "refused",
    )
    yield (
        "a storage that is not there",
        archive(STATE + tensor(storage=STORAGE.replace(b"\x000X", b"\x007X")) + b"s"),
        "refused",
    )
    yield "a size beyond", archive(STATE + tensor(b"(K\x40t") + b"s"), "refused"
    yield "a size below 0", archive(STATE + tensor(b"(" + number(-4) + b"t") + b"s"), "refused"
    yield (
        "a size of no end",
        archive(STATE + tensor(b"(" + number(2**62) * 2 + b"t", b"(K\x00K\x00t") + b"s"),
        "refused",
    )
    yield (
        "a stride of 0",
        archive(STATE + tensor(b"(" + number(10**9) + b"t", b"(K\x00t") + b"s"),
        "refused",
    )
    yield (
        "a stride below 0",
        archive(STATE + tensor(stride=b"(" + number(-1) + b"t") + b"s"),
        "refused",
    )
    yield "an offset beyond", archive(STATE + tensor(offset=b"K\x02") + b"s"), "refused"
    yield "an offset below 0", archive(STATE + tensor(offset=number(-1)) + b"s"), "refused"
    yield "sizes and strides apart", archive(STATE + tensor(b"(K\x02K\x02t") + b"s"), "refused"
    yield (
        "many dimensions",
        archive(STATE + tensor(b"(" + b"K\x01" * 99 + b"t", b"(" + b"K\x01" * 99 + b"t") + b"s"),
        "refused",
    )
    yield "a size that is true", archive(STATE + tensor(b"(\x88t") + b"s"), "refused"
    yield "a size that is text", archive(STATE + tensor(b"(" + text("4") + b"t") + b"s"), "refused"
    yield "the other byte order", archive(STATE + tensor() + b"s", byteorder=b"big"), "read"
    yield (
        "a million keys",
        archive(
            STATE
            + tensor()
            + b"s"
            + text("x")
            + b"}("
            + b"".join(b"M" + struct.pack("<H", n % 65536) + b"N" for n in range(200_000))
            + b"us"
        ),
        "read",
    )
    yield (
        "keys of one hash",
        beside(b"}(" + b"".join(number(n * (2**61 - 1)) + b"N" for n in range(50_000)) + b"u"),
        "read",
    )
    yield (
        "a module in itself",
        archive(
            b"cmy\nNet\n)\x81q\x01}"
            + text("_parameters")
            + b"}s"
            + text("_modules")
            + b"}"
            + text("me")
            + b"h\x01ssb"
        ),
        "refused",
    )
    yield (
        "old, with code",
        pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        + pickle.dumps(1001, 2)
        + (b"\x80\x02}.\x80\x02" + called("os.system", text("touch hostile")) + b".\x80\x02]."),
        "refused",
    )
    yield "old, a storage of no end", old_of_elements(2**61), "refused"
    yield "old, a storage below 0", old_of_elements(-8), "refused"


def old_of_elements(count: int) -> bytes:
    """A file of the old form that claims a storage of that many elements, with none of them."""
    storage = STORAGE.replace(b"K\x04tQ", b"K\x04NtQ")
    return b"".join(
        (
            pickle.dumps(0x1950A86A20F9469CFC6C, 2),
            pickle.dumps(1001, 2),
            b"\x80\x02}.\x80\x02",
            STATE,
            tensor(storage=storage),
            b"s.\x80\x02]",
            text("0"),
            b"a.",
            struct.pack("<q", count),
        )
    )


def everything() -> Iterator[tuple[str, bytes, str]]:
    """These, and those of `hostile_pickles`."""
    from corpus.hostile_pickles import more_cases

    yield from cases()
    yield from more_cases()


def most() -> int:
    """The most memory that this process had since it was last told to forget that, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _main(folder: Path, names: Collection[str]) -> None:
    from snnprune.checkpoint.containers import read_checkpoint
    from snnprune.errors import InputError

    read: Callable[[Path], object] = read_checkpoint
    for name, data, _ in everything():
        if names and name not in names:
            continue
        path = folder / "hostile.pth"
        path.write_bytes(data)
        Path("/proc/self/clear_refs").write_text("5")
        before, begun = most(), time.process_time()
        try:
            found = read(path)
            came = f"read {sorted(found.tensors)}"  # type: ignore[attr-defined]  # a Checkpoint
        except InputError as error:
            came = f"refused {error}"
        except BaseException as error:
            came = f"{type(error).__name__}: {error}"
        took = time.process_time() - begun
        print(json.dumps([name, came, took, most() - before - len(data)]), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
