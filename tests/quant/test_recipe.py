"""Formats by tensor name: built-in recipes, user rules, fallbacks, and invalid rules."""

import pytest

from sprat.errors import FormatError
from sprat.quant.formats import format_names, get_format
from sprat.quant.mixes import MIXES, ModelShape
from sprat.quant.recipe import KeptFormats, Recipe, Rule, recipe_names

DEEPSEEK_V2_LITE = {
    "token_embd.weight": (102400, 2048),
    "output.weight": (102400, 2048),
    "output_norm.weight": (2048,),
    "blk.0.attn_norm.weight": (2048,),
    "blk.0.attn_q.weight": (3072, 2048),
    "blk.0.attn_kv_a_mqa.weight": (576, 2048),
    "blk.0.attn_kv_a_norm.weight": (512,),
    "blk.0.attn_k_b.weight": (16, 512, 128),
    "blk.0.attn_v_b.weight": (16, 128, 512),
    "blk.0.attn_output.weight": (2048, 2048),
    "blk.0.ffn_down.weight": (2048, 10944),
    "blk.1.ffn_gate_inp.weight": (64, 2048),
    "blk.1.exp_probs_b.bias": (64,),
    "blk.1.ffn_gate_exps.weight": (64, 1408, 2048),
    "blk.1.ffn_down_exps.weight": (64, 2048, 1408),
    "blk.1.ffn_down_shexp.weight": (2048, 2816),
}
F32_ALWAYS = {name for name, shape in DEEPSEEK_V2_LITE.items() if len(shape) == 1} | {"blk.1.ffn_gate_inp.weight"}


def chosen(recipe: Recipe) -> dict[str, str]:
    return {name: recipe.choose(name, shape).format.name for name, shape in DEEPSEEK_V2_LITE.items()}


def test_int8_is_q8_0_for_all_matrices():
    assert chosen(Recipe.named("int8")) == {name: "F32" if name in F32_ALWAYS else "Q8_0" for name in DEEPSEEK_V2_LITE}


def test_int4_is_q4_0_except_latents_and_head():
    q8_0 = {"output.weight", "blk.0.attn_kv_a_mqa.weight", "blk.0.attn_k_b.weight", "blk.0.attn_v_b.weight"}
    expected = dict.fromkeys(DEEPSEEK_V2_LITE, "Q4_0") | dict.fromkeys(q8_0, "Q8_0") | dict.fromkeys(F32_ALWAYS, "F32")
    assert chosen(Recipe.named("int4")) == expected


@pytest.mark.parametrize(("name", "head"), [("int4", "Q8_0"), ("q4_0", "Q6_K"), ("f16", "F16"), ("q8_0", "Q8_0")])
def test_a_tied_embedding_gets_the_heads_format(name, head):
    shape = (151936, 1536)
    assert Recipe.named(name, tied_embeddings=True).choose("token_embd.weight", shape).format.name == head
    default = Recipe.named(name).default
    assert Recipe.named(name).choose("token_embd.weight", shape).format is default


def test_a_single_format_falls_back_where_rows_do_not_divide():
    formats = chosen(Recipe.named("Q4_K"))
    assert formats["blk.0.attn_q.weight"] == "Q4_K"
    assert formats["output.weight"] == "Q6_K"
    assert formats["blk.1.ffn_down_exps.weight"] == formats["blk.0.attn_k_b.weight"] == "Q5_0"
    choice = Recipe.named("q4_k").choose("blk.1.ffn_down_exps.weight", (64, 2048, 1408))
    assert (choice.wanted.name, choice.fell_back) == ("Q4_K", True)
    assert not Recipe.named("q4_0").choose("blk.1.ffn_down_exps.weight", (64, 2048, 1408)).fell_back


@pytest.mark.parametrize(
    ("name", "fallback"), [("q4_k", "Q5_0"), ("q5_k", "Q5_1"), ("q6_k", "Q8_0"), ("iq4_nl", "F16")]
)
def test_fallbacks_are_llama_quantizes(name, fallback):
    row = 100 if fallback == "F16" else 96
    assert Recipe.named(name).choose("blk.0.ffn_up.weight", (8, row)).format.name == fallback


def test_a_fallback_may_need_another():
    assert Recipe.named("q6_k").choose("blk.0.ffn_up.weight", (8, 100)).format.name == "F16"


@pytest.mark.parametrize("name", format_names())
def test_every_format_makes_a_recipe(name):
    assert Recipe.named(name).default.name == name
    assert name.lower() in recipe_names()


def test_the_last_matching_rule_wins_and_routers_stay_f32():
    recipe = Recipe.named("int4").with_rules(
        ["ffn_down=q5_0", r"blk\.[1-3]\.ffn_down_exps=q5_1", "ffn=q8_0", "exps=Q6_K"]
    )
    formats = chosen(recipe)
    assert formats["blk.0.ffn_down.weight"] == formats["blk.1.ffn_down_shexp.weight"] == "Q8_0"
    assert formats["blk.1.ffn_gate_exps.weight"] == "Q6_K"
    assert formats["blk.1.ffn_down_exps.weight"] == "Q8_0"  # Q6_K's fallback
    assert formats["blk.1.ffn_gate_inp.weight"] == "F32"


def test_a_rule_overrides_the_built_in_exceptions():
    recipe = Recipe.named("int4").with_rules(["attn_k_b=f16"])
    assert chosen(recipe)["blk.0.attn_k_b.weight"] == "F16"
    assert chosen(recipe)["blk.0.attn_v_b.weight"] == "Q8_0"


def test_rules_that_match_no_quantizable_tensor_are_reported():
    recipe = Recipe.named("int4").with_rules(["ffn_dwon=q8_0", "ffn_down=q8_0", "ffn_gate_inp=q8_0"])
    assert recipe.unused_rules(DEEPSEEK_V2_LITE) == ["ffn_dwon=q8_0", "ffn_gate_inp=q8_0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ffn_down", "expected PATTERN=FORMAT"),
        ("=q4_0", "expected PATTERN=FORMAT"),
        ("ffn_down=", "expected PATTERN=FORMAT"),
        ("ffn_(down=q4_0", r"'ffn_\(down' is not a regular expression"),
        ("ffn_down=q4_2", r"unknown block format 'Q4_2'; did you mean 'Q4_"),
    ],
)
def test_an_invalid_rule_is_an_error(text, message):
    with pytest.raises(FormatError, match=message):
        Recipe.named("int4").with_rules([text])


def test_a_rule_prints_as_it_is_read():
    assert str(Rule.parse("a=b=Q4_K")) == "a=b=q4_k"


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(FormatError, match="unknown quantization 'int5'; did you mean 'int4' or 'int8'"):
        Recipe.named("int5")


V2_LITE_SHAPE = ModelShape(n_layers=27, queries_per_kv=16, n_experts=64)


def test_a_mix_gives_some_layers_more_bits():
    recipe = Recipe.named("Q4_K_M", model=V2_LITE_SHAPE)
    assert (recipe.name, recipe.file_type(recipe.default), recipe.encoding(recipe.default)) == ("q4_k_m", 15, "Q4_K_M")
    shape = (64, 2048, 1536)
    down = [recipe.choose(f"blk.{layer}.ffn_down_exps.weight", shape).format.name for layer in range(27)]
    more = {0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26}
    assert down == ["Q6_K" if layer in more else "Q4_K" for layer in range(27)]
    assert recipe.choose("blk.0.attn_kv_a_mqa.weight", (576, 2048)).format.name == "Q4_K"
    assert recipe.choose("output.weight", (102400, 2048)).format.name == "Q6_K"
    assert recipe.choose("blk.1.ffn_gate_inp.weight", (64, 2048)).format.name == "F32"


def test_the_fallbacks_of_a_mix_are_those_of_its_formats():
    recipe = Recipe.named("q4_k_m", model=V2_LITE_SHAPE)
    formats = [recipe.choose(f"blk.{layer}.ffn_down_exps.weight", (64, 2048, 1408)).format.name for layer in (1, 3)]
    assert formats == ["Q8_0", "Q5_0"]


def test_rules_override_a_mix():
    recipe = Recipe.named("q3_k_l", model=V2_LITE_SHAPE).with_rules(["ffn_down=q2_k", "output=q8_0"])
    assert recipe.choose("blk.1.ffn_down_shexp.weight", (2048, 2816)).format.name == "Q2_K"
    assert recipe.choose("output.weight", (1024, 2048)).format.name == "Q8_0"
    assert recipe.name == "q3_k_l"


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_of_a_mix_is_the_output_or_the_tied_embedding(tied):
    recipe = Recipe.named("q2_k", tied_embeddings=tied, model=V2_LITE_SHAPE)
    assert recipe.choose("token_embd.weight", (1024, 2048)).format.name == ("Q6_K" if tied else "Q2_K")


@pytest.mark.parametrize("name", [name for name in MIXES if name.upper() not in format_names()])
def test_a_mix_needs_to_know_the_model(name):
    with pytest.raises(FormatError, match=f"{name}: a mix of llama-quantize depends on the model"):
        Recipe.named(name)


@pytest.mark.parametrize(("name", "encoding"), [("int4", "INT4"), ("best", "MIX_3_9BPW"), ("keep", "Q3_K")])
def test_a_file_of_mixed_formats_is_not_named_after_one_of_them(name, encoding):
    formats = {"a.weight": get_format("Q3_K"), "b.weight": get_format("Q8_0")}
    recipe = KeptFormats.of(formats, {"a.weight": 9 * 256, "b.weight": 256}, name)
    assert recipe.encoding(recipe.default) == encoding
