"""The intents of the smart-home task: actions on devices, and templates for them."""

from __future__ import annotations

from dataclasses import dataclass

from sprat.demo.tasks.wording import phrases

__all__ = ["INTENTS", "Intent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One action on some devices, and the templates for it. `{device}` includes the article."""

    name: str
    action: str
    devices: tuple[str, ...]
    templates: tuple[str, ...]
    unseen: tuple[str, ...]
    unit: str | None = None
    values: tuple[int, int, int] | None = None
    """Lowest, highest and step of the value; None for no value or a color."""
    weight: int = 2


_SWITCHED = phrases("""
    light | lamp | led strip | fan | heater | air conditioner | humidifier | air purifier | tv | speaker | radio
    oven | stove | kettle | coffee maker | toaster | sprinkler | alarm | camera | socket | projector | doorbell
    music | thermostat
""")
_LIT = ("light", "lamp", "led strip")
_OPENED = phrases("blinds | curtains | window | door | front door | garage door | gate")
_RUN = phrases("""
    dishwasher | washing machine | dryer | vacuum | mower | coffee maker | sprinkler | music
""")
_WARMED = phrases("thermostat | heater | air conditioner | oven | fridge | kettle")
_LEVELLED = phrases("""
    light | lamp | led strip | fan | blinds | curtains | humidifier | speaker | tv | radio | music | air purifier
""")
_LOUD = ("tv", "speaker", "radio", "music")

INTENTS: tuple[Intent, ...] = (
    Intent(
        name="on",
        action="on",
        weight=4,
        devices=_SWITCHED,
        templates=phrases("""
            turn on {device} | turn {device} on | switch on {device} | switch {device} on | put on {device}
            put {device} on | power on {device} | power up {device} | activate {device} | get {device} going
            i want {device} on | i need {device} on | {device} on | {device} should be on | let {device} be on
            make sure {device} is on | enable {device} | bring {device} on | have {device} on
            see that {device} is on | flip on {device} | set {device} to on
        """),
        unseen=phrases("""
            fire up {device} | i would love to have {device} on | {device} needs to be switched on
        """),
    ),
    Intent(
        name="off",
        action="off",
        weight=4,
        devices=_SWITCHED,
        templates=phrases("""
            turn off {device} | turn {device} off | switch off {device} | switch {device} off | shut off {device}
            shut {device} off | power off {device} | power down {device} | deactivate {device}
            i want {device} off | i don't need {device} anymore | {device} off | {device} should be off
            kill {device} | make sure {device} is off | disable {device} | cut {device} | have {device} off
            see that {device} is off | flip off {device} | set {device} to off | no one is using {device}
        """),
        unseen=phrases("""
            {device} can go off | i am done with {device} | {device} needs to be switched off
        """),
    ),
    Intent(
        name="too dark",
        action="on",
        weight=1,
        devices=("light",),
        templates=phrases("""
            it is so dark, turn on {device} | it is too dark, i need {device} | it's dark, {device} please
            we need {device}, it is dark
        """),
        unseen=("it is pitch black, so switch on {device}",),
    ),
    Intent(
        name="open",
        action="open",
        weight=3,
        devices=_OPENED,
        templates=phrases("""
            open {device} | open up {device} | {device} should be open | i want {device} open | get {device} open
            make sure {device} is open | have {device} opened | let {device} open | i need {device} open
            pull {device} open | set {device} to open | {device} open
        """),
        unseen=("{device} must be opened", "i would like to have {device} open"),
    ),
    Intent(
        name="close",
        action="close",
        weight=3,
        devices=_OPENED,
        templates=phrases("""
            close {device} | shut {device} | {device} should be closed | i want {device} closed
            get {device} closed | make sure {device} is closed | have {device} closed | let {device} close
            i need {device} shut | pull {device} shut | set {device} to closed | {device} closed
        """),
        unseen=("{device} must be closed", "i would like to have {device} shut"),
    ),
    Intent(
        name="lock",
        action="lock",
        devices=("door", "front door", "garage door", "gate", "window"),
        templates=phrases("""
            lock {device} | lock up {device} | make sure {device} is locked | i want {device} locked
            {device} should be locked | get {device} locked | bolt {device} | secure {device}
            have {device} locked | keep {device} locked
        """),
        unseen=("{device} must be locked", "see to it that {device} is locked"),
    ),
    Intent(
        name="unlock",
        action="unlock",
        devices=("door", "front door", "garage door", "gate", "window"),
        templates=phrases("""
            unlock {device} | make sure {device} is unlocked | i want {device} unlocked
            {device} should be unlocked | get {device} unlocked | unbolt {device} | release {device}
            have {device} unlocked | undo the lock of {device} | leave {device} unlocked
        """),
        unseen=("{device} must be unlocked", "see to it that {device} is unlocked"),
    ),
    Intent(
        name="start",
        action="start",
        devices=_RUN,
        templates=phrases("""
            start {device} | run {device} | launch {device} | begin with {device} | let {device} run
            set {device} going | get {device} started | make {device} start | i want {device} running
            kick off {device} | have {device} start
        """),
        unseen=("{device} should begin its work", "it is time to start {device}"),
    ),
    Intent(
        name="stop",
        action="stop",
        devices=_RUN,
        templates=phrases("""
            stop {device} | halt {device} | end {device} | make {device} stop | let {device} stop
            cancel {device} | quit {device} | have {device} stop | i want {device} stopped
            bring {device} to a stop | abort {device}
        """),
        unseen=("{device} should end its work", "it is time to stop {device}"),
    ),
    Intent(
        name="pause",
        action="pause",
        weight=1,
        devices=(*_RUN, "tv", "radio"),
        templates=phrases("""
            pause {device} | put {device} on pause | let {device} pause | make {device} pause
            hold {device} for now | interrupt {device} | have {device} pause | take a break with {device}
            suspend {device} | put {device} on hold
        """),
        unseen=("{device} should take a break", "give {device} a pause"),
    ),
    Intent(
        name="level",
        action="set",
        weight=5,
        devices=_LEVELLED,
        unit="percent",
        values=(0, 100, 5),
        templates=phrases("""
            set {device} to {value} | put {device} at {value} | change {device} to {value}
            adjust {device} to {value} | bring {device} to {value} | make {device} {value} | {device} to {value}
            {device} at {value} | i want {device} at {value} | turn {device} to {value} | move {device} to {value}
            let {device} be at {value} | have {device} at {value} | set the level of {device} to {value}
            get {device} to {value} | i'd like {device} at {value} | run {device} at {value}
            keep {device} at {value}
        """),
        unseen=("{value} is what i want for {device}", "{device} should go to {value}"),
    ),
    Intent(
        name="brightness",
        action="set",
        weight=2,
        devices=_LIT,
        unit="percent",
        values=(0, 100, 5),
        templates=phrases("""
            dim {device} to {value} | set the brightness of {device} to {value} | brighten {device} to {value}
            {device} brightness {value} | bring the brightness of {device} to {value}
            light up {device} to {value} | change the brightness of {device} to {value}
        """),
        unseen=("lower the brightness of {device} until {value}",),
    ),
    Intent(
        name="volume",
        action="set",
        weight=2,
        devices=_LOUD,
        unit="percent",
        values=(0, 100, 5),
        templates=phrases("""
            set the volume of {device} to {value} | {device} volume {value}
            change the volume of {device} to {value} | put the volume of {device} at {value}
            play {device} at {value} | bring the volume of {device} to {value}
        """),
        unseen=("let {device} play at a volume of {value}",),
    ),
    Intent(
        name="temperature",
        action="set",
        weight=5,
        devices=_WARMED,
        unit="celsius",
        values=(5, 30, 1),
        templates=phrases("""
            set {device} to {value} | put {device} at {value} | change {device} to {value}
            adjust {device} to {value} | bring {device} to {value} | make {device} {value} | {device} to {value}
            {device} at {value} | i want {device} at {value} | turn {device} to {value}
            set the temperature of {device} to {value} | have {device} at {value} | heat {device} to {value}
            keep {device} at {value} | get {device} to {value} | i'd like {device} at {value}
            run {device} at {value} | change the temperature of {device} to {value}
        """),
        unseen=("{value} is what i want for {device}", "{device} should go to {value}"),
    ),
    Intent(
        name="hot",
        action="set",
        weight=1,
        devices=("oven", "kettle"),
        unit="celsius",
        values=(40, 250, 5),
        templates=phrases("""
            preheat {device} to {value} | heat up {device} to {value} | warm {device} to {value}
            set {device} to {value} | get {device} to {value}
        """),
        unseen=("{device} must reach {value}",),
    ),
    Intent(
        name="color",
        action="set",
        weight=2,
        devices=_LIT,
        unit="color",
        templates=phrases("""
            make {device} {value} | set {device} to {value} | change {device} to {value} | turn {device} {value}
            color {device} {value} | set the color of {device} to {value} | i want {device} in {value}
            switch {device} to {value} | change the color of {device} to {value} | let {device} glow {value}
            give {device} a {value} color | {device} in {value}
        """),
        unseen=("paint the room {value} with {device}", "{device} should shine {value}"),
    ),
    Intent(
        name="increase level",
        action="increase",
        devices=_LEVELLED,
        unit="percent",
        values=(5, 50, 5),
        templates=phrases("""
            increase {device} by {value} | raise {device} by {value} | turn up {device} by {value}
            turn {device} up by {value} | push {device} up by {value} | boost {device} by {value}
            bump {device} up by {value} | {device} up by {value} | add {value} to {device}
            make {device} {value} stronger
        """),
        unseen=("give {device} {value} more",),
    ),
    Intent(
        name="decrease level",
        action="decrease",
        devices=_LEVELLED,
        unit="percent",
        values=(5, 50, 5),
        templates=phrases("""
            decrease {device} by {value} | lower {device} by {value} | turn down {device} by {value}
            turn {device} down by {value} | reduce {device} by {value} | cut {device} by {value}
            bring {device} down by {value} | {device} down by {value} | take {value} off {device}
            make {device} {value} weaker
        """),
        unseen=("give {device} {value} less",),
    ),
    Intent(
        name="warmer",
        action="increase",
        devices=phrases("thermostat | heater | air conditioner | oven | fridge"),
        unit="celsius",
        values=(1, 9, 1),
        templates=phrases("""
            increase {device} by {value} | raise {device} by {value} | turn {device} up by {value}
            make {device} {value} warmer | raise the temperature of {device} by {value} | {device} up by {value}
            bump {device} up by {value} | set {device} {value} higher
        """),
        unseen=("give {device} {value} more",),
    ),
    Intent(
        name="cooler",
        action="decrease",
        devices=phrases("thermostat | heater | air conditioner | oven | fridge"),
        unit="celsius",
        values=(1, 9, 1),
        templates=phrases("""
            decrease {device} by {value} | lower {device} by {value} | turn {device} down by {value}
            make {device} {value} cooler | lower the temperature of {device} by {value} | {device} down by {value}
            reduce {device} by {value} | set {device} {value} lower
        """),
        unseen=("give {device} {value} less",),
    ),
    Intent(
        name="more",
        action="increase",
        devices=(*_LEVELLED, "heater", "thermostat", "air conditioner"),
        templates=phrases("""
            turn up {device} | turn {device} up | turn {device} up a bit | increase {device}
            raise {device} a little | more power for {device} | {device} is too low | i want more from {device}
            boost {device} | push {device} up a bit | make {device} stronger
        """),
        unseen=("{device} could be a bit stronger", "give {device} some more power"),
    ),
    Intent(
        name="less",
        action="decrease",
        devices=(*_LEVELLED, "heater", "thermostat", "air conditioner"),
        templates=phrases("""
            turn down {device} | turn {device} down | turn {device} down a bit | decrease {device}
            lower {device} a little | less power for {device} | {device} is too high | i want less from {device}
            reduce {device} | bring {device} down a bit | make {device} weaker
        """),
        unseen=("{device} could be a bit weaker", "give {device} less power"),
    ),
    Intent(
        name="brighter",
        action="increase",
        weight=1,
        devices=_LIT,
        templates=phrases("""
            make {device} brighter | brighten {device} | brighten {device} a bit | i need more light from {device}
            {device} should be brighter
        """),
        unseen=("let {device} shine brighter",),
    ),
    Intent(
        name="dimmer",
        action="decrease",
        weight=1,
        devices=_LIT,
        templates=phrases("""
            make {device} darker | dim {device} | dim {device} a bit | {device} is too bright
            {device} should be darker
        """),
        unseen=("let {device} shine less bright",),
    ),
    Intent(
        name="louder",
        action="increase",
        weight=1,
        devices=_LOUD,
        templates=phrases("""
            make {device} louder | turn up the volume of {device} | i can't hear {device} | {device} is too quiet
            {device} should be louder
        """),
        unseen=("let {device} play louder",),
    ),
    Intent(
        name="quieter",
        action="decrease",
        weight=1,
        devices=_LOUD,
        templates=phrases("""
            make {device} quieter | turn down the volume of {device} | {device} is too loud
            {device} should be quieter
        """),
        unseen=("let {device} play more quietly",),
    ),
)
