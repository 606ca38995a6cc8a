"""A thermostat that is told by sentences over MQTT; needs 'sprat[constrain]' and paho-mqtt.

    python examples/home/mqtt_thermostat.py student-int4 localhost 1883 &
    mosquitto_sub -t 'home/thermostat/#' -v &
    mosquitto_pub -t home/say -m 'Set the thermostat to 21 degrees'

The schema binds every token of the answer: a command is always one that the thermostat knows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import paho.mqtt.client as mqtt

import sprat

SAY, SET, STATE = "home/say", "home/thermostat/set", "home/thermostat/state"
STEP_C, MIN_C, MAX_C = 1, 5, 30
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "device": {"const": "thermostat"},
        "room": {"enum": ["living room", "bedroom", "kitchen", None]},
        "action": {"enum": ["set", "increase", "decrease"]},
        "value": {"type": ["integer", "null"], "minimum": MIN_C, "maximum": MAX_C},
        "unit": {"enum": ["celsius", None]},
    },
    "additionalProperties": False,
}
SCHEMA["required"] = list(SCHEMA["properties"])
OPTIONS: Any = {"temperature": 0, "max_tokens": 400, "timeout": 10, "close_json": True}
OPTIONS["response_format"] = {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA}}


class Thermostat:
    """Hears sentences on SAY, publishes what they mean on SET and its target temperature on STATE."""

    def __init__(self, engine: sprat.Engine) -> None:
        self.engine, self.target_c = engine, 20

    def hear(self, client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        """Carry out what a sentence means. One that fails must not end the service."""
        try:
            command = self.understand(message.payload.decode(errors="replace"))
        except sprat.SpratError as error:
            client.publish(STATE, json.dumps({"error": str(error)}))
        else:
            client.publish(SET, json.dumps(command))
            self.carry_out(command)
            client.publish(STATE, json.dumps({"target": self.target_c}), retain=True)

    def understand(self, sentence: str) -> dict[str, Any]:
        """The command that a sentence means."""
        reply = self.engine.chat([{"role": "user", "content": sentence}], **OPTIONS)
        return dict(json.loads(reply["choices"][0]["message"]["content"]))

    def carry_out(self, command: dict[str, Any]) -> None:
        """Change the target temperature."""
        value, sign = command["value"], {"set": 0, "increase": 1, "decrease": -1}[command["action"]]
        target = self.target_c + sign * (value or STEP_C) if sign or value is None else value
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
