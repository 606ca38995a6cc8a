"""sprat's ARM kernels beside llama.cpp's, without a board: instructions and predicted cycles of the same work.

Both are cross-compiled for the same processor and run under qemu-user, whose plugin (``arm_counts/blocks.c``) counts
how often each basic block runs: the same numbers at every run, on any machine. llvm-mca predicts the cycles of each
block on LLVM's model of the processor, with all data in the first-level cache; a board adds its memory. Ratios are
llama.cpp's over sprat's, so that more than 1 means that sprat needs less; llama.cpp takes its better path, weights
repacked or not.

    pip download --no-binary :all: --no-deps llama-cpp-python        # and unpack it
    python benchmarks/arm.py --llamacpp llama_cpp_python-*/vendor/llama.cpp --json
    python benchmarks/arm.py --llamacpp ... --published     # llama.cpp's counts against speeds published for boards
    python benchmarks/arm.py --llamacpp ... --validate-x86  # the method on this machine: predicted and measured ratios
    python benchmarks/arm.py --caches                       # misses of small caches, simulated by cachegrind
    python benchmarks/arm.py --check                        # the gate of CI: instructions per product, sprat only
    python benchmarks/arm.py --save                         # its table, and devices/plan/counted.toml

Debian: apt install g++-aarch64-linux-gnu qemu-user llvm-19 valgrind (--check needs neither of the last two).
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import statistics
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arm_counts.caches import CACHES, Product, misses_ratio
from arm_counts.clock import Clock, summary
from arm_counts.cycles import predicted_cycles
from arm_counts.emulator import Block, NotSupportedError, build_plugin, instructions, per_repeat
from arm_counts.gate import TABLE, compiler, complaints, save
from arm_counts.published import PUBLISHED, predicted
from arm_counts.works import FORMATS, Work, works

from sprat.export.quality.budget import allocated_formats

_ROOT = Path(__file__).parents[1]
_BUILD = _ROOT / "build"
_COUNTED = _ROOT / "devices" / "plan" / "counted.toml"
# The works of the gate: few enough for CI.
_GATED = ("1 token", "48 tokens")
_GATED_PROCESSORS = ("cortex-a72", "cortex-a76", "armv9-a+i8mm")


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor to compile for, to emulate, and to predict.

    Attributes:
        flags: of the compiler, for llama.cpp; sprat has every instruction set in one build.
        emulated: what qemu calls it, or the nearest that has its instructions.
        model: what LLVM calls it, or the nearest that it has a scheduling model of.
        products_per_cycle: peak of its widest int8 product.
    """

    flags: str
    emulated: str
    model: str
    products_per_cycle: int


PROCESSORS = {
    "cortex-a53": Processor("-mcpu=cortex-a53", "cortex-a53", "cortex-a53", 8),
    "cortex-a72": Processor("-mcpu=cortex-a72", "cortex-a72", "cortex-a72", 8),
    "cortex-a76": Processor("-mcpu=cortex-a76", "cortex-a76", "neoverse-n1", 32),
    "armv9-a+i8mm": Processor("-march=armv9-a+i8mm", "max", "neoverse-v2", 128),
}


def build_sprat() -> Path:
    """``count_sprat`` with every ARM set: the preset ``arm``."""
    _run("cmake", "--preset", "arm")
    _run("cmake", "--build", "--preset", "arm", "--target", "count_sprat")
    return _BUILD / "arm" / "count_sprat"


def build_for_x86() -> Path:
    """``count_sprat`` for x86: the preset ``counted``."""
    _run("cmake", "--preset", "counted")
    _run("cmake", "--build", "--preset", "counted")
    return _BUILD / "counted" / "count_sprat"


def build_llamacpp(tree: Path, name: str, processor: Processor | None) -> Path:
    """``count_llamacpp`` for one processor, or for x86 with AVX2, from a tree of llama.cpp."""
    build = _BUILD / f"arm-llamacpp-{name}"
    toolchain = _cross_compiler(processor) if processor else ["-DCMAKE_EXE_LINKER_FLAGS=-static"]
    # As llama.cpp's own build has it, but for one thread.
    options = ["-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF", "-DGGML_LLAMAFILE=ON", "-DBUILD_SHARED_LIBS=OFF"]
    source = Path(__file__).parent / "arm_counts"
    _run("cmake", "-S", str(source), "-B", str(build), f"-DGGML={tree.resolve() / 'ggml'}", *options, *toolchain)
    _run("cmake", "--build", str(build), "--target", "count_llamacpp")
    return build / "count_llamacpp"


def _cross_compiler(processor: Processor) -> list[str]:
    toolchain = [f"-DCMAKE_{language}_FLAGS={processor.flags}" for language in ("C", "CXX")]
    toolchain += ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_EXE_LINKER_FLAGS=-static"]
    toolchain += ["-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"]
    return toolchain


def _run(*command: str) -> None:
    subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True, slots=True)
class Bench:
    """Counts work on one processor."""

    processor: Processor
    plugin: Path
    sprat: Path
    llamacpp: Path | None

    def compare(self, work: Work) -> dict[str, Any]:
        """Results of one piece of work, under the keys of ``--json``."""
        ours = self._cost(self.sprat, "", work)
        cycles = ours["cycles"]
        result = {
            "instructions_per_product": ours["instructions"] / work.products,
            "cycles_per_product": cycles / work.products,
            "share_of_dot_peak": work.products / (cycles * self.processor.products_per_cycle),
            "bytes_per_product": work.n_bytes / work.products,
        }
        if self.llamacpp:
            best = min(self._rivals(work), key=lambda cost: cost["cycles"])
            result["llamacpp_path"] = best["path"]
            result["instructions_ratio"] = best["instructions"] / ours["instructions"]
            result["cycles_ratio"] = best["cycles"] / cycles
        return result

    def _rivals(self, work: Work) -> list[dict[str, Any]]:
        assert self.llamacpp
        found = []
        for path in ("plain", "repacked") if work.arguments[0] in {"product", "experts"} else ("plain",):
            try:
                found.append(self._cost(self.llamacpp, path, work) | {"path": path})
            except NotSupportedError:
                continue
        return found

    def _cost(self, program: Path, variant: str, work: Work) -> dict[str, Any]:
        blocks: Counter[Block] = per_repeat(self.plugin, self.processor.emulated, program, variant, work.arguments)
        return {
            "instructions": instructions(blocks),
            "cycles": predicted_cycles(blocks, program, self.processor.model),
        }


def instruction_counts(plugin: Path, sprat: Path) -> dict[str, dict[str, float]]:
    """Instructions per product of sprat's kernels, by processor and work: what the gate compares."""
    found: dict[str, dict[str, float]] = {}
    for name in _GATED_PROCESSORS:
        for work in works(FORMATS):
            if not any(part in work.name for part in _GATED):
                continue
            blocks = per_repeat(plugin, PROCESSORS[name].emulated, sprat, "", work.arguments)
            found.setdefault(name, {})[work.name] = instructions(blocks) / work.products
    return found


def check(plugin: Path, sprat: Path) -> None:
    """Exit with 1 and a line for each work that takes more instructions than the committed table says."""
    counts = instruction_counts(plugin, sprat)
    slower = complaints(counts, compiler(), json.loads(TABLE.read_text(encoding="utf-8")))
    print("\n".join(slower) or f"{sum(map(len, counts.values()))} counts of instructions: none rose")
    raise SystemExit(bool(slower))


def cycles_by_format(bench: Bench) -> dict[str, float]:
    """Cycles per product with one token, of every format that a calibrated export chooses from."""
    names = sorted(format.name for format in allocated_formats())
    found = {work.name: work for work in works(tuple(names))}
    return {name: bench.compare(found[f"{name}, 1 token"])["cycles_per_product"] for name in names}


def save_counts(plugin: Path, sprat: Path) -> None:
    """Write the gate's table and the cycles in ``counted.toml``."""
    save(instruction_counts(plugin, sprat), compiler())
    (many,) = (work for work in works(("Q4_0",)) if work.name == "Q4_0, 512 tokens")
    text = _COUNTED.read_text(encoding="utf-8")
    for name, kind in (("cortex-a53", "Cortex-A53"), ("cortex-a72", "Cortex-A72"), ("cortex-a76", "Cortex-A76")):
        bench = Bench(PROCESSORS[name], plugin, sprat, None)
        value = f"many_tokens = {bench.compare(many)['cycles_per_product']:.4f}\n"
        text = re.sub(rf'(\[cores."{kind}"\]\n)many_tokens = .*\n', rf"\g<1>{value}", text)
        rows = "".join(f"{format} = {cycles:.4f}\n" for format, cycles in cycles_by_format(bench).items())
        text = re.sub(rf'(\[cores."{kind}".one_token_of\]\n)(\w+ = .*\n)*', rf"\g<1>{rows}", text)
    _COUNTED.write_text(text, encoding="utf-8")


def print_published(plugin: Path, llamacpp: Path) -> None:
    """llama.cpp's counted kernels against its published speeds."""
    processor = PROCESSORS["cortex-a76"]
    by_name = {work.name: work for work in works(tuple({row.format for row in PUBLISHED}))}

    @functools.cache
    def cycles(format_name: str, path: str, n_tokens: int) -> float:
        work = by_name[f"{format_name}, {'1 token' if n_tokens == 1 else '48 tokens'}"]
        blocks = per_repeat(plugin, processor.emulated, llamacpp, path, work.arguments)
        return predicted_cycles(blocks, llamacpp, processor.model) / work.products

    errors = []
    for row in PUBLISHED:
        found = predicted(row, cycles)
        errors.append(abs(found / row.tokens_per_second - 1))
        test = "decode" if row.n_tokens == 1 else f"prompt of {row.n_tokens}"
        print(f"{row.board:8}{row.model:21}{row.mix:11}{row.path:10}{test:15}", end="")
        print(f"{row.tokens_per_second:8.2f}{found:8.2f}{errors[-1]:7.0%}", flush=True)
    print(f"median error {statistics.median(errors):.0%}, worst {max(errors):.0%}")


def validate(plugin: Path, tree: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Predicted and measured ratios to llama.cpp on this machine, under the keys of ``--json``."""
    clock = Clock(plugin, build_for_x86(), build_llamacpp(tree, "x86", None), arguments.validate_x86)
    ratios: dict[str, dict[str, float]] = {}
    for work in works(tuple(arguments.formats.split(","))):
        if arguments.only not in work.name or "512" in work.name:
            continue
        for name, row in clock.ratios(work):
            ratios[name] = row
            if not arguments.json:
                print(f"{name:48}{row['predicted']:7.2f}{row['measured']:7.2f}{row['error']:7.0%}", flush=True)
    return {"x86_method_error": summary(ratios), "works": ratios}


def print_caches() -> None:
    """Misses over compulsory ones, of weights of 4.7 MB with one token, a short and a long prompt."""
    sprat = build_for_x86()
    for n in (1, 48, 512):
        for name, cache in CACHES.items():
            ratio = misses_ratio(sprat, cache, Product("Q4_0", 4096, 2048, n))
            print(f"{n:4} tokens, {name:7}{ratio:7.2f}", flush=True)


def _line(processor: str, name: str, result: dict[str, Any]) -> str:
    row = [f"{processor:13}{name:42}{result['instructions_per_product']:7.3f}{result['cycles_per_product']:8.4f}"]
    row.append(f"{result['share_of_dot_peak']:7.0%}")
    if "cycles_ratio" in result:
        row.append(f"{result['instructions_ratio']:7.2f}{result['cycles_ratio']:7.2f}  {result['llamacpp_path']}")
    return "".join(row)


def compare_all(plugin: Path, sprat: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Results by processor and work, printed as they come unless JSON is wanted."""
    results: dict[str, dict[str, Any]] = {}
    if not arguments.json:
        print(f"{'processor':13}{'work':42}{'instr.':>7}{'cycles':>8}{'peak':>7}{'ratios':>12}")
    for name in arguments.processors.split(","):
        processor = PROCESSORS[name]
        rival = build_llamacpp(arguments.llamacpp, name, processor) if arguments.llamacpp else None
        bench = Bench(processor, plugin, sprat, rival)
        results[name] = {}
        for work in works(tuple(arguments.formats.split(","))):
            if arguments.only not in work.name:
                continue
            results[name][work.name] = bench.compare(work)
            if not arguments.json:
                print(_line(name, work.name, results[name][work.name]), flush=True)
    return results


def main() -> None:
    """Print a table, or JSON; check or save the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamacpp", type=Path, help="a tree of llama.cpp to compare with")
    parser.add_argument("--processors", default="cortex-a72,cortex-a76,armv9-a+i8mm")
    parser.add_argument("--formats", default=",".join(FORMATS[:3]))
    parser.add_argument("--only", default="", help="work with this in its name")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="fail where instructions per product rose")
    parser.add_argument("--save", action="store_true", help="write the table of --check and counted.toml")
    parser.add_argument(
        "--validate-x86", nargs="?", const="znver4", metavar="PROCESSOR", help="what LLVM calls this machine's"
    )
    parser.add_argument("--caches", action="store_true", help="misses of small caches, under valgrind")
    parser.add_argument("--published", action="store_true", help="llama.cpp's counts against published speeds")
    arguments = parser.parse_args()
    if arguments.caches:
        return print_caches()
    plugin = build_plugin(_BUILD)
    if (arguments.published or arguments.validate_x86) and not arguments.llamacpp:
        parser.error("--published and --validate-x86 need --llamacpp")
    if arguments.validate_x86:
        result = validate(plugin, arguments.llamacpp, arguments)
        return print(json.dumps(result if arguments.json else result["x86_method_error"], indent=2))
    if arguments.published:
        name = "cortex-a76"
        return print_published(plugin, build_llamacpp(arguments.llamacpp, name, PROCESSORS[name]))
    sprat = build_sprat()
    if arguments.check:
        check(plugin, sprat)
    if arguments.save:
        return save_counts(plugin, sprat)
    results = compare_all(plugin, sprat, arguments)
    if arguments.json:
        print(json.dumps(results, indent=2))
    return None


if __name__ == "__main__":
    main()
