"""Empty CUDA libraries, so that torch's CUDA wheel imports on a machine that has none (torch 2.4.1 of PyPI is one).

    make_cuda_stubs.py TORCH_LIB_FOLDER OUT_FOLDER        then LD_LIBRARY_PATH=OUT_FOLDER python -c "import torch"

The wheel's libraries name the NVIDIA libraries they were linked with, and almost every symbol carries its library's name as its
version. Each missing library is compiled with the symbols of its version; the first also gets those without one. Every
function says "no device", so torch runs on the CPU and `torch.cuda.is_available()` is False. Needs gcc and binutils.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NVIDIA = re.compile(r"lib(cu|nv|nccl)")
SYMBOL = re.compile(r"(__cuda|cu|nv|nccl)[A-Za-z]\w*")
NO_DEVICE = 100  # cudaErrorNoDevice
BODIES = {
    "cudaGetDeviceCount": f"int cudaGetDeviceCount(int *count) {{ *count = 0; return {NO_DEVICE}; }}",
    "cudaGetLastError": "int cudaGetLastError(void) { return 0; }",
    "cudaPeekAtLastError": "int cudaPeekAtLastError(void) { return 0; }",
    "cudaGetErrorString": 'const char *cudaGetErrorString(int code) { return "no CUDA here"; }',
    "cudaGetErrorName": 'const char *cudaGetErrorName(int code) { return "no CUDA here"; }',
}


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wanted(folder: Path) -> dict[str, set[str]]:
    """{library that is missing: symbols asked of it}; symbols without a version go to the first."""
    libraries = [path for path in folder.iterdir() if ".so" in path.name]
    own = {path.name for path in libraries}
    missing: set[str] = set()
    symbols: dict[str, set[str]] = defaultdict(set)
    for path in libraries:
        needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-dW", str(path)))
        missing |= {name for name in needed if NVIDIA.match(name) and name not in own}
        for line in output("nm", "-D", "--undefined-only", "--with-symbol-versions", str(path)).splitlines():
            symbol, _, version = line.split()[-1].partition("@")
            if SYMBOL.fullmatch(symbol):
                symbols[version.lstrip("@")].add(symbol)
    loose = set().union(*(found for version, found in symbols.items() if version not in missing))
    return {name: symbols[name] | (loose if name == min(missing) else set()) for name in missing}


def body(symbol: str) -> str:
    """C source of one function."""
    if symbol in BODIES:
        return BODIES[symbol]
    # What the wheel calls while it loads, to register its kernels: a handle that is not null.
    if symbol.startswith("__cuda"):
        return f"void *{symbol}(void) {{ static char handle[4096]; return handle; }}"
    return f"int {symbol}(void) {{ return {NO_DEVICE}; }}"


def build(name: str, symbols: set[str], out: Path) -> None:
    """Compile one library with every symbol under the version that is its name."""
    source, script = out / f"{name}.c", out / f"{name}.map"
    source.write_text("\n".join(map(body, sorted(symbols))) + "\n", encoding="utf-8")
    script.write_text(f"{name} {{ global: *; }};\n", encoding="utf-8")
    names = [f"-Wl,-soname,{name}", f"-Wl,--version-script={script}"]
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", *names, "-o", str(out / name), str(source)], check=True)


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    found = wanted(folder)
    for name, symbols in sorted(found.items()):
        build(name, symbols, out)
    sys.stdout.write(f"{len(found)} libraries with {sum(map(len, found.values()))} functions in {out}\n")


if __name__ == "__main__":
    main()
