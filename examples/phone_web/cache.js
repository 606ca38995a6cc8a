// The KV cache of a conversation, for both kinds of sprat's ONNX graphs.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

/** MLA: one buffer of latents [capacity, width] per layer; the graph returns the rows of the new tokens alone. */
class LatentCache {
  constructor(inputs, capacity) {
    this.names = inputs.map((input) => input.name);
    this.width = inputs[0].shape[1];
    this.rows = inputs.map(() => new Float32Array(capacity * this.width));
  }

  feeds(length) {
    const tensor = (rows) => new ort.Tensor("float32", rows.subarray(0, length * this.width), [length, this.width]);
    return Object.fromEntries(this.names.map((name, i) => [name, tensor(this.rows[i])]));
  }

  store(outputs, length) {
    this.rows.forEach((rows, i) => rows.set(outputs[`new_latent.${i}`].data, length * this.width));
  }

  truncate() {} // rows after the length are overwritten
}

/** GQA: keys and values [1, heads, length, head_dim] per layer; the graph returns them with the new tokens appended. */
class GroupedCache {
  constructor(inputs) {
    const [, heads, , headDim] = inputs[0].shape;
    this.heads = heads;
    this.headDim = headDim;
    this.tensors = Object.fromEntries(inputs.map((input) => [input.name, this.empty(0)]));
  }

  empty(length) {
    const data = new Float32Array(this.heads * length * this.headDim);
    return new ort.Tensor("float32", data, [1, this.heads, length, this.headDim]);
  }

  feeds() {
    return this.tensors;
  }

  store(outputs) {
    for (const name in this.tensors) this.tensors[name] = outputs[name.replace("past_key_values", "present")];
  }

  truncate(length) {
    for (const name in this.tensors) {
      const { data, dims } = this.tensors[name];
      const kept = this.empty(length);
      const [n, size] = [length * this.headDim, dims[2] * this.headDim];
      for (let head = 0; head < this.heads; head++) {
        kept.data.set(data.subarray(head * size, head * size + n), head * n);
      }
      this.tensors[name] = kept;
    }
  }
}

/** The cache that the graph's inputs describe, for at most `capacity` tokens. */
export function makeCache(inputMetadata, capacity) {
  const latents = inputMetadata.filter((input) => input.name.startsWith("past_latent."));
  const grouped = inputMetadata.filter((input) => input.name.startsWith("past_key_values."));
  return latents.length ? new LatentCache(latents, capacity) : new GroupedCache(grouped);
}
