"""A thermostat that is told by sentences: MQTT messages in, checked JSON commands and states out.

::

    pip install 'sprat[json]' paho-mqtt
    python examples/home/mqtt_thermostat.py student-int4 localhost 1883
    mosquitto_sub -t 'home/thermostat/#' -v &
    mosquitto_pub -t home/say -m 'Set the thermostat to 21 degrees'

The schema binds every token of the answer, so that a command is always one that the thermostat knows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import paho.mqtt.client as mqtt

import sprat

SAY, SET, STATE = "home/say", "home/thermostat/set", "home/thermostat/state"
STEP_C, MIN_C, MAX_C = 1, 5, 30
SCHEMA = {
    "type": "object",
    "properties": {
        "device": {"const": "thermostat"},
        "room": {"enum": ["living room", "bedroom", "kitchen", None]},
        "action": {"enum": ["set", "increase", "decrease"]},
        "value": {"type": ["integer", "null"], "minimum": MIN_C, "maximum": MAX_C},
        "unit": {"enum": ["celsius", None]},
    },
    "required": ["device", "room", "action", "value", "unit"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA}}


class Thermostat:
    """Hears sentences on SAY, publishes what they mean on SET and its target temperature on STATE."""

    def __init__(self, engine: sprat.Engine) -> None:
        self.engine, self.target_c = engine, 20

    def hear(self, client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        """Turn a sentence into a command, and carry it out. A sentence that fails must not end the service."""
        try:
            command = self.understand(message.payload.decode(errors="replace"))
        except sprat.SpratError as error:
            client.publish(STATE, json.dumps({"error": str(error)}))
            return
        client.publish(SET, json.dumps(command))
        self.carry_out(command)
        client.publish(STATE, json.dumps({"target": self.target_c}), retain=True)

    def understand(self, sentence: str) -> dict[str, Any]:
        """The command that a sentence means."""
        messages = [{"role": "user", "content": sentence}]
        options: Any = {"response_format": RESPONSE_FORMAT, "max_tokens": 100, "timeout": 10, "close_json": True}
        reply = self.engine.chat(messages, temperature=0, **options)
        return dict(json.loads(reply["choices"][0]["message"]["content"]))

    def carry_out(self, command: dict[str, Any]) -> None:
        """Change the target temperature."""
        value = command["value"]
        change = {"set": 0, "increase": 1, "decrease": -1}[command["action"]] * (value or STEP_C)
        target = self.target_c + change if change or value is None else value
        self.target_c = min(MAX_C, max(MIN_C, target))


def main(model: str, host: str, port: str) -> None:
    """Run until the process is ended; paho connects again when the broker was gone."""
    with sprat.load(model, memory="1GB") as engine:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.on_connect = lambda *_: client.subscribe(SAY)
        client.on_subscribe = lambda *_: print("listens", flush=True)
        client.on_message = Thermostat(engine).hear
        client.connect(host, int(port))
        client.loop_forever()


if __name__ == "__main__":
    main(*sys.argv[1:4])
