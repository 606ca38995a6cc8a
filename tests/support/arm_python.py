"""Python and the ONNX backend for 64-bit ARM under qemu: Debian packages and wheels, unpacked, not installed.

All files are in one folder; the system and its package lists do not change.
"""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

DEBIAN = ["python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"]
DEBIAN += ["zlib1g", "libexpat1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1"]
WHEELS = ["onnxruntime", "onnx", "numpy", "protobuf", "ml_dtypes", "typing_extensions", "msgspec", "tokenizers"]
WHEELS += ["jinja2", "markupsafe", "click", "rich", "safetensors", "gguf", "flatbuffers", "packaging"]
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"]
CORE = """\
processor\t: {number}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
RELEASE = "bookworm"
TOOLS = ("qemu-aarch64", "apt-get", "dpkg-deb")
SOURCES = Path(__file__).parents[2] / "src"


def missing_tools():
    """Tools that this machine lacks; the packages above are those of one Debian release."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME") if Path("/etc/os-release").exists() else None
    return [tool for tool in TOOLS if shutil.which(tool) is None] + [RELEASE] * (release != RELEASE)


class ArmPython:
    """An interpreter that is assembled in ``folder``."""

    def __init__(self, folder):
        self.root, self.site = folder / "root", folder / "site"
        for made in (self.root, self.site):
            made.mkdir()
        self._unpack_debian(folder / "debian")
        self._unpack_wheels(folder / "wheels")
        self._describe_processor()

    def run(self, program, timeout=280):
        environment = {
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": f"{SOURCES}:{self.site}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": os.environ["HOME"],
        }
        interpreter = self.root / "usr/bin/python3.11"
        command = ["qemu-aarch64", "-cpu", "cortex-a76", "-L", str(self.root), str(interpreter), "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _unpack_debian(self, folder):
        for made in ("lists/partial", "cache/archives/partial", "debs"):
            (folder / made).mkdir(parents=True)
        (folder / "status").touch()
        options = {"APT::Architecture": "arm64", "Dir::State::Lists": folder / "lists"}
        options |= {"Dir::State::status": folder / "status", "Dir::Cache": folder / "cache"}
        lines = [*(f'{key} "{value}";' for key, value in options.items()), 'APT::Architectures {"arm64";};']
        (folder / "apt.conf").write_text("\n".join(lines))
        environment = {**os.environ, "APT_CONFIG": str(folder / "apt.conf")}
        for command in (["update", "-qq"], ["download", "-qq", *DEBIAN]):
            subprocess.run(["apt-get", *command], env=environment, cwd=folder / "debs", check=True, capture_output=True)
        for package in (folder / "debs").glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(self.root)], check=True)

    def _unpack_wheels(self, folder):
        platforms = [option for name in PLATFORMS for option in ("--platform", name)]
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", *platforms]
        command += ["--python-version", "3.11", "-d", str(folder), *WHEELS]
        subprocess.run(command, check=True, capture_output=True)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(self.site)

    def _describe_processor(self):
        """Files that qemu shows instead of the host's: onnxruntime crashes on those of another architecture."""
        files = {"proc/cpuinfo": "".join(CORE.format(number=number) for number in range(2))}
        files |= {f"sys/devices/system/cpu/{name}": "0-1\n" for name in ("possible", "present", "online")}
        files["sys/devices/system/cpu/kernel_max"] = "1\n"
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
