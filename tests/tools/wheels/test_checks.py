import re
import shutil
import subprocess
import zipfile

import pytest
from wheels.checks import WheelError, check_pure_wheel, check_wheel
from wheels.targets import ABIS, Target

CP311, ABI3 = ABIS
X86, ARM = Target("x86_64"), Target("aarch64")
COMPILERS = {"x86_64": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}


@pytest.fixture
def library(tmp_path):
    """Compile an empty shared library; without the compiler, skip."""

    def compile_empty(processor, *options):
        compiler = COMPILERS[processor]
        if shutil.which(compiler) is None:
            pytest.skip(f"not installed: {compiler}")
        if (
            processor == "x86_64"
            and "x86_64"
            not in subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
        ):
            pytest.skip("gcc is for another processor")
        path = tmp_path / "library.so"
        source = ["-x", "c", "/dev/null", "-x", "none"]
        subprocess.run([compiler, "-shared", "-fPIC", "-o", path, *source, *options], check=True, capture_output=True)
        return path.read_bytes()

    return compile_empty


@pytest.fixture
def wheel(tmp_path):
    def write(tag, module=None, content=b"", tags=None):
        path = tmp_path / f"sprat-0.2.0-{tag}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            lines = "".join(f"Tag: {line}\n" for line in (tags or [tag]))
            archive.writestr("sprat-0.2.0.dist-info/WHEEL", f"Wheel-Version: 1.0\n{lines}")
            if module:
                archive.writestr(f"sprat/{module}", content)
        return path

    return write


def test_the_wheel_of_a_release_passes(wheel, library):
    check_wheel(wheel("cp312-abi3-manylinux_2_17_x86_64", "_core.abi3.so", library("x86_64")), X86, ABI3)
    module = "_core.cpython-311-x86_64-linux-gnu.so"
    platforms = ("manylinux2014_x86_64", "manylinux_2_17_x86_64")
    tags = [f"cp311-cp311-{platform}" for platform in platforms]
    check_wheel(wheel(f"cp311-cp311-{'.'.join(platforms)}", module, library("x86_64"), tags), X86, CP311)


def test_an_arm_library_in_an_x86_wheel_is_refused(wheel, library):
    path = wheel("cp312-abi3-manylinux_2_17_x86_64", "_core.abi3.so", library("aarch64"))
    with pytest.raises(WheelError, match="machine is EM_AARCH64, expected EM_X86_64"):
        check_wheel(path, X86, ABI3)


def test_pages_smaller_than_those_of_a_pi_5_are_refused(wheel, library):
    module = library("aarch64", "-Wl,-z,max-page-size=4096")
    with pytest.raises(WheelError, match="segments are aligned to 4096 bytes, expected 16384"):
        check_wheel(wheel("cp312-abi3-manylinux_2_17_aarch64", "_core.abi3.so", module), ARM, ABI3)


def test_a_library_beside_glibc_is_refused(wheel, library):
    module = library("x86_64", "-Wl,--no-as-needed", "-lgomp")
    with pytest.raises(WheelError, match=re.escape("needs libgomp.so.1")):
        check_wheel(wheel("cp312-abi3-manylinux_2_17_x86_64", "_core.abi3.so", module), X86, ABI3)


def test_a_suffix_of_another_processor_is_refused(wheel):
    path = wheel("cp311-cp311-manylinux_2_17_aarch64", "_core.cpython-311-x86_64-linux-gnu.so")
    with pytest.raises(WheelError, match=r"expected sprat/_core\.cpython-311-aarch64-linux-gnu\.so"):
        check_wheel(path, ARM, CP311)


def test_a_tag_of_the_building_machine_is_refused(wheel):
    for platform in ("linux_aarch64", "manylinux_2_17_x86_64", "manylinux_2_28_aarch64", "musllinux_1_2_aarch64"):
        with pytest.raises(WheelError, match=f"platform {platform}, but compiled for"):
            check_wheel(wheel(f"cp311-cp311-{platform}"), ARM, CP311)
    with pytest.raises(WheelError, match="tag in the file name is cp311-cp311, expected cp312-abi3"):
        check_wheel(wheel("cp311-cp311-manylinux_2_17_aarch64"), ARM, ABI3)
    path = wheel("cp312-abi3-manylinux_2_17_aarch64", tags=["cp312-abi3-linux_aarch64"])
    with pytest.raises(WheelError, match="tags in the metadata is cp312-abi3-linux_aarch64"):
        check_wheel(path, ARM, ABI3)


def test_a_wheel_for_all_systems_holds_no_library(wheel):
    check_pure_wheel(wheel("py3-none-any"))
    with pytest.raises(WheelError, match=r"has sprat/_core\.abi3\.so"):
        check_pure_wheel(wheel("py3-none-any", "_core.abi3.so"))
