// A student from a folder that `sprat export --format onnx` wrote: onnxruntime-web runs it, nothing else is needed.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
import { Tokenizer } from "./node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import { Template } from "./node_modules/@huggingface/jinja/dist/index.js";
import { makeCache } from "./cache.js";
import { chooseToken } from "./sampling.js";

const THINK = "<think>";
const THINK_END = "</think>";
const PREFILL = 64; // tokens per pass: memory for activations grows with it, and a stop is seen between passes

export class Student {
  /** Loads `folder`, a URL that ends in a slash; `context` tokens are reserved where the cache is of fixed size. */
  static async load(folder, { context = 1024 } = {}) {
    const json = async (name) => (await fetched(folder + name)).json();
    const [tokenizer, config, generation, template, graph, data] = await Promise.all([
      json("tokenizer.json"),
      json("tokenizer_config.json"),
      json("generation_config.json"),
      fetched(folder + "chat_template.jinja").then((response) => response.text()),
      fetched(folder + "model.onnx").then((response) => response.arrayBuffer()),
      fetched(folder + "model.onnx.data").then((response) => response.arrayBuffer()),
    ]);
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
    const session = await ort.InferenceSession.create(new Uint8Array(graph), {
      executionProviders: ["wasm"],
      externalData: [{ path: "model.onnx.data", data: new Uint8Array(data) }],
    });
    const hidden = tokenizer.added_tokens.filter((token) => token.special).map((token) => token.content);
    const options = { config, generation, context, hidden };
    return new Student(session, new Tokenizer(tokenizer, config), new Template(template), options);
  }

  constructor(session, tokenizer, template, { config, generation, context, hidden }) {
    Object.assign(this, { session, tokenizer, template, config, generation, context });
    this.hidden = hidden.filter((text) => text !== THINK && text !== THINK_END);
    this.ends = new Set([generation.eos_token_id ?? []].flat());
    this.cache = makeCache(session.inputMetadata, context);
    this.tokens = []; // whose keys and values are in the cache
  }

  /** Streams the answer to `messages`: objects { reasoning, content, cached, tokensPerSecond } with all text so far. */
  async *answer(messages, { maxTokens = 512, isCancelled = () => false } = {}) {
    const text = this.render(messages);
    const prompt = this.tokenizer.encode(text, { add_special_tokens: false }).ids;
    const thought = text.trimEnd().endsWith(THINK) ? THINK : ""; // the template has begun the thought already
    if (prompt.length >= this.context) throw new Error(`The conversation has ${prompt.length} tokens of ${this.context}.`);
    const cached = this.rewind(prompt);
    const start = performance.now();
    const answer = [];
    let logits;
    for (let at = cached; at < prompt.length && !isCancelled(); at += PREFILL) {
      logits = await this.forward(prompt.slice(at, at + PREFILL));
    }
    while (!isCancelled() && answer.length < maxTokens && this.tokens.length < this.context) {
      const token = chooseToken(logits, this.generation);
      if (this.ends.has(token)) break;
      answer.push(token);
      const decoded = this.decode(answer);
      const tokensPerSecond = (1000 * answer.length) / (performance.now() - start);
      const isWhole = !decoded.endsWith("\ufffd"); // half a character waits for its rest
      if (isWhole) yield { ...splitReasoning(thought + decoded), cached, tokensPerSecond };
      logits = await this.forward([token]);
    }
  }

  /** The text of `tokens` without special tokens, except for those around a thought. */
  decode(tokens) {
    const text = this.tokenizer.decode(tokens, { skip_special_tokens: false });
    return this.hidden.reduce((left, token) => left.replaceAll(token, ""), text);
  }

  render(messages) {
    const tokens = { bos_token: tokenText(this.config.bos_token), eos_token: tokenText(this.config.eos_token) };
    return this.template.render({ ...tokens, messages, add_generation_prompt: true });
  }

  /** Keeps the cached tokens that begin `prompt`, all but its last one, and returns their number. */
  rewind(prompt) {
    let n = 0;
    while (n < this.tokens.length && n < prompt.length - 1 && this.tokens[n] === prompt[n]) n++;
    if (n < this.tokens.length) this.cache.truncate(n);
    this.tokens.length = n;
    return n;
  }

  /** Appends `tokens` to the cache and returns the logits after the last one. */
  async forward(tokens) {
    const length = this.tokens.length;
    const ids = BigInt64Array.from(tokens, BigInt);
    const feeds = { input_ids: new ort.Tensor("int64", ids, [1, tokens.length]), ...this.cache.feeds(length) };
    if (this.session.inputNames.includes("n_logits")) feeds.n_logits = new ort.Tensor("int64", [1n], [1]);
    if (this.session.inputNames.includes("attention_mask")) {
      const mask = new BigInt64Array(length + tokens.length).fill(1n);
      feeds.attention_mask = new ort.Tensor("int64", mask, [1, mask.length]);
    }
    const outputs = await this.session.run(feeds);
    this.cache.store(outputs, length);
    this.tokens.push(...tokens);
    const { data, dims } = outputs.logits;
    return data.subarray(data.length - dims.at(-1));
  }
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}; serve the folder of sprat export`);
  return response;
}

const tokenText = (token) => token?.content ?? token ?? "";

/** The thought of a reasoning model and what follows it; a text that does not begin with <think> has none. */
function splitReasoning(text) {
  const trimmed = text.trimStart();
  if (!trimmed.startsWith(THINK)) return { reasoning: "", content: trimmed };
  const [reasoning, ...rest] = trimmed.slice(THINK.length).split(THINK_END);
  return { reasoning: reasoning.trim(), content: rest.join(THINK_END).trim() };
}
