// The next token: greedy, or temperature, top-k and top-p as generation_config.json recommends.

export function chooseToken(logits, { do_sample = false, temperature = 1, top_k = 0, top_p = 1 } = {}) {
  if (!do_sample || temperature <= 0) return logits.reduce((best, value, i) => (value > logits[best] ? i : best), 0);
  const candidates = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
  if (top_k > 0) candidates.length = Math.min(top_k, candidates.length);
  const weights = candidates.map((i) => Math.exp((logits[i] - logits[candidates[0]]) / temperature));
  const kept = nucleus(weights, top_p);
  let point = Math.random() * kept.reduce((sum, weight) => sum + weight, 0);
  const index = kept.findIndex((weight) => (point -= weight) < 0);
  return candidates[index < 0 ? kept.length - 1 : index];
}

/** The fewest of the largest weights whose share is at least `top_p`. */
function nucleus(weights, top_p) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  const n = weights.findIndex((weight) => (sum += weight) >= top_p * total);
  return n < 0 ? weights : weights.slice(0, n + 1);
}
