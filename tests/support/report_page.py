"""A report on plausible results, and a parser for its HTML."""

import html.parser
import math

import bench_records
import msgspec
from bench_records import MACHINE, MODEL, measurement

from sprat.devices.bench.results import BenchTest, Label, MeasuredModel, Moment, Percentiles, Sustained, write_results
from sprat.devices.report.build import make_report

LIMITS = msgspec.structs.replace(bench_records.LIMITS, cgroup_version=2, memory_bytes=4 << 30, cpu_share=0.5)
LARGE = MeasuredModel(name="deepseek-v2-lite", quant="Q4_0", size_bytes=8_800_000_000, n_params=15_700_000_000)
MAP = {"resident weights": 900 << 20, "experts": 7 << 30, "cache": 120 << 20, "buffers": 340 << 20, "reserve": 1 << 30}


def records():
    """Every label, two models, several prompts and depths, temperatures, a sustained run, one device too small."""
    return [
        *_device(Label.MEASURED, "rpi5-8gb", MODEL, 100.0, sensors=heat(), sustained=sustained()),
        *_device(Label.PREDICTED, "rpi5-8gb", MODEL, 90.0, machine=None, error_share=0.3),
        *_device(Label.EMULATED, "rpi4-4gb", MODEL, 30.0, emulation=LIMITS),
        *_device(Label.PREDICTED, "rpi4-4gb", MODEL, 40.0, machine=None, error_share=0.3),
        *_device(Label.MEASURED, None, LARGE, 8.0, memory_map=MAP),
        *_device(Label.EMULATED, "rpi4-4gb", LARGE, 1.0, emulation=LIMITS, memory_map=MAP),
    ]


def heat():
    return tuple(Moment(seconds=5.0 * step, temperature_c=70 - 25 * math.exp(-step / 8)) for step in range(40))


def sustained():
    series = tuple((float(second), 100 - second / 10) for second in range(0, 300, 10))
    return Sustained(seconds=300, first_tps=99.0, sustained_tps=75.0, series=series)


def _device(label, device, model, speed, *, sensors=(), sustained=None, **fields):
    common = {"label": label, "device": device, "model": model, "machine": MACHINE} | fields
    for depth in (0, 2048, 4096):
        tps = speed / (1 + depth / 8192)
        samples = (tps,) if label is Label.PREDICTED else (0.95 * tps, tps, 1.05 * tps)
        extra = {"sensors": sensors, "sustained": sustained} if not depth else {}
        yield measurement(work=BenchTest.decode(128, depth), samples_tps=samples, **common | extra)
    for length in (128, 512, 2048):
        wait = 1000 * length / (10 * speed)
        times = Percentiles(n=3, p50=wait, p99=1.1 * wait, worst=1.2 * wait)
        yield measurement(work=BenchTest.prefill(length), samples_tps=(10 * speed,), ttft_ms=times, **common)


def write_report(folder, found=None):
    """The page on ``found`` (by default all of :func:`records`), and the report."""
    results = folder / "results.jsonl"
    write_results(results, records() if found is None else found)
    report = make_report([results], folder / "report.html")
    return report.page.read_text(encoding="utf-8"), report


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.words = []
        self._inside = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"style", "title", "desc"} & set(self._inside[-1:]):
            self.words.append(data)

    def named(self, tag):
        """Attributes of every element ``tag``."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())
