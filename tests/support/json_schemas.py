"""Random JSON schemas of the keywords that constrained answers support, as Hypothesis strategies."""

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "on", "room", "naïve key", 'quo"te', "", "back\\slash"])
TEXTS = st.sampled_from(["", "on", "off", 'say "hi"', "zwölf\n", "👍", "\\"])
PATTERNS = st.sampled_from(["^[a-z]+$", "^[0-9]{2,4}-[A-F]$", "^(on|off)$", "b+c", "^x?y*z$"])
FORMATS = st.sampled_from(["date", "time", "date-time", "ipv4", "uuid", "email"])


@st.composite
def bounds(draw, low, high, values):
    """Two optional bounds, in order."""
    first, second = sorted([draw(values), draw(values)])
    return {name: value for name, value in ((low, first), (high, second)) if draw(st.booleans())}


def scalars():
    numbers = st.integers(-1000, 1000)
    return st.one_of(
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        bounds("minimum", "maximum", numbers).map(lambda found: {"type": "integer", **found}),
        bounds("exclusiveMinimum", "maximum", numbers)
        .filter(lambda found: len(found) < 2 or found["exclusiveMinimum"] < found["maximum"])
        .map(lambda found: {"type": "number", **found}),
        st.integers(1, 30).map(lambda value: {"type": "integer", "multipleOf": value}),
        bounds("minLength", "maxLength", st.integers(0, 12)).map(lambda found: {"type": "string", **found}),
        PATTERNS.map(lambda pattern: {"type": "string", "pattern": pattern}),
        FORMATS.map(lambda name: {"type": "string", "format": name}),
        st.lists(TEXTS | numbers | st.booleans() | st.none(), min_size=1, max_size=4).map(lambda some: {"enum": some}),
        (TEXTS | numbers).map(lambda value: {"const": value}),
        st.just({"type": ["integer", "string", "null"]}),
    )


def objects(inner):
    @st.composite
    def drawn(draw):
        properties = draw(st.dictionaries(NAMES, inner, max_size=4))
        required = [name for name in properties if draw(st.booleans())]
        schema = {"type": "object", "properties": properties, "required": required}
        extra = draw(st.none() | st.just(False) | inner)
        return schema if extra is None else {**schema, "additionalProperties": extra}

    return drawn()


def lists(inner):
    sizes = bounds("minItems", "maxItems", st.integers(0, 4))
    plain = st.builds(lambda items, size: {"type": "array", "items": items, **size}, inner, sizes)
    tuples = st.lists(inner, min_size=1, max_size=3).map(
        lambda some: {"type": "array", "prefixItems": some, "items": False, "minItems": len(some)}
    )
    return plain | tuples


SCHEMAS = st.recursive(
    scalars(),
    lambda inner: objects(inner) | lists(inner) | st.lists(inner, min_size=1, max_size=3).map(lambda s: {"anyOf": s}),
    max_leaves=8,
)
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
"""A schema that refers to itself."""
