"""The examples for homes, each against its real peer: Wyoming's own client, mosquitto, systemd."""

import asyncio
import configparser
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import sprat

HOME = Path(__file__).parents[2] / "examples" / "home"
SOURCES = str(Path(sprat.__file__).parents[1])
LIMIT_S = 120


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return sprat.export("demo", tmp_path_factory.mktemp("home") / "student", quant="int8").path


@contextlib.contextmanager
def example(name, *arguments):
    """A running example, once it has said that it is ready."""
    paths = os.pathsep.join([SOURCES, *filter(None, sys.path)])
    command = [sys.executable, HOME / name, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("path", sorted(HOME.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")  # wyoming imports it
def test_home_assistants_protocol_finds_the_service_and_gets_answers(student, tmp_path):
    pytest.importorskip("wyoming", reason="needs wyoming: pip install wyoming")
    from wyoming.asr import Transcript
    from wyoming.client import AsyncClient
    from wyoming.handle import Handled, HandledChunk, HandledStart, HandledStop, NotHandled
    from wyoming.info import Describe, Info

    address = f"unix://{tmp_path}/wyoming"

    async def talk():
        async with asyncio.timeout(LIMIT_S), AsyncClient.from_uri(address) as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())
            assert info.handle[0].models[0].languages == ["en"]
            assert info.handle[0].supports_handled_streaming
            await client.write_event(Transcript("What is 17 plus 25?").event())
            assert HandledStart.is_type((await client.read_event()).type)
            chunks = []
            while not Handled.is_type((event := await client.read_event()).type):
                chunks.append(HandledChunk.from_event(event).text)
            assert Handled.from_event(event).text == "".join(chunks) == "42"
            assert HandledStop.is_type((await client.read_event()).type)
            await client.write_event(Transcript("word " * 9000).event())
            while not NotHandled.is_type((event := await client.read_event()).type):
                assert HandledStart.is_type(event.type)
            assert "tokens" in NotHandled.from_event(event).text

    with example("wyoming_handle.py", student, address):
        asyncio.run(talk())


@pytest.fixture
def broker(tmp_path):
    """A mosquitto of the test's own; its port."""
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        pytest.skip("needs mosquitto: apt install mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield port
        finally:
            process.kill()


def wait_for(port):
    for _ in range(1000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        threading.Event().wait(0.02)
    raise AssertionError("mosquitto does not listen")


def test_a_thermostat_is_told_by_sentences_over_mqtt(student, broker):
    pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install paho-mqtt")
    pytest.importorskip("llguidance")
    import paho.mqtt.client as mqtt

    told, subscribed, states = [], threading.Event(), threading.Semaphore(0)

    def heard(_client, _userdata, message):
        told.append((message.topic, json.loads(message.payload)))
        if message.topic.endswith("state"):
            states.release()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_message = heard
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", broker)
    client.subscribe("home/thermostat/#")
    client.loop_start()
    try:
        assert subscribed.wait(LIMIT_S)
        with example("mqtt_thermostat.py", student, "127.0.0.1", broker):
            for sentence in ("Set the thermostat to 22 degrees", b"\xff\xfe no text at all", "word " * 9000):
                client.publish("home/say", sentence)
                assert states.acquire(timeout=LIMIT_S)
    finally:
        client.loop_stop()
        client.disconnect()
    commands = [payload for topic, payload in told if topic.endswith("set")]
    assert commands[0] == {"device": "thermostat", "room": None, "action": "set", "value": 22, "unit": "celsius"}
    assert told[1] == ("home/thermostat/state", {"target": 22})
    assert {command["device"] for command in commands} == {"thermostat"}
    assert "tokens" in told[-1][1]["error"]


def test_the_unit_of_systemd_is_right(tmp_path):
    unit = HOME / "sprat.service"
    parsed = configparser.ConfigParser(strict=False)
    parsed.optionxform = str
    parsed.read(unit, encoding="utf-8")
    assert (parsed["Service"]["Type"], parsed["Service"]["WatchdogSec"]) == ("notify", "30")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze to verify the unit")
    copy = tmp_path / "sprat.service"
    text = unit.read_text(encoding="utf-8").replace("/opt/sprat/bin/sprat", shutil.which("true"))
    copy.write_text(text, encoding="utf-8")
    checked = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert "sprat.service" not in checked.stderr
