import pytest

from sprat.quant.kld_scale import SCALE, kld_in_words


@pytest.mark.parametrize(
    ("kld", "words"),
    [
        (0.0, "indistinguishable in use: below Q8_0 (0.0014) of Llama 3 8B in llama.cpp"),
        (0.002, "very good: between Q8_0 (0.0014) and Q6_K (0.0055) of Llama 3 8B in llama.cpp"),
        (0.05, "weak for 4 bits: between Q4_K_M (0.0313) and Q4_0 (0.0719) of Llama 3 8B in llama.cpp"),
        (0.9, "damaged: above Q2_K (0.4451) of Llama 3 8B in llama.cpp"),
        (float("nan"), "broken: the model computes NaN or Inf"),
    ],
)
def test_a_divergence_is_placed_between_published_ones(kld, words):
    assert kld_in_words(kld) == words


def test_a_published_divergence_gets_its_own_word():
    assert [kld_in_words(mark.kld).split(":")[0] for mark in SCALE] == [mark.word for mark in SCALE]
