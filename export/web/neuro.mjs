// An exported brain in JavaScript: the same two graphs, with the state carried here. Used by run.mjs and index.html.
//
//     const brain = await Brain.open(ort, read);      // read(path) -> Promise<Uint8Array> of a file of this folder
//     const logits = await brain.step(12);            // for the next token; commits by itself at the end of a span

const SCHEMA = "neuro.export/2";
const KINDS = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array };

const text = (bytes) => new TextDecoder().decode(bytes);

/** One stream through an exported brain. */
export class Brain {
  /** Load the graphs. Throws an Error for a manifest of another version. */
  static async open(ort, read) {
    const manifest = JSON.parse(text(await read("manifest.json")));
    if (manifest.schema !== SCHEMA) {
      throw new Error(`manifest.json: got schema '${manifest.schema}', expected '${SCHEMA}'.`);
    }
    const graphs = {};
    for (const name of ["step", "commit"]) {
      const bytes = await read(manifest.graphs[name].file);
      graphs[name] = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
    }
    return new Brain(ort, manifest, graphs);
  }

  constructor(ort, manifest, graphs) {
    Object.assign(this, { ort, manifest, graphs });
    this.reset();
  }

  /** Forget everything, or begin a new document with what was learned. */
  reset(keepMemories = false) {
    const kept = keepMemories ? new Set(this.manifest.memory) : new Set();
    if (!keepMemories) Object.assign(this, { state: {}, spikes: [], raster: null, written: 0, hormones: null });
    for (const port of this.manifest.state.filter(({ name }) => !kept.has(name))) {
      const dims = port.shape.map((size) => (size === "batch" ? 1 : size));
      this.state[port.name] = this.#tensor(port.dtype, dims, port.initial);
    }
  }

  /** A token id -> Float32Array of logits for the next one. */
  async step(id) {
    const { vocab_size: ids, prosody_channels: channels, plasticity_span: span } = this.manifest;
    if (!Number.isInteger(id) || id < 0 || id >= ids) throw new Error(`step: got ${id}, expected an id below ${ids}.`);
    const token = this.#tensor("int64", [1], id);
    const results = await this.#run("step", { token, prosody: this.#tensor("float32", [1, channels], 0) });
    this.spikes = Array.from(results.spikes.data, Number);
    this.raster = results.raster ?? null; // [1, S, N] where the graph was exported with it
    if (Number(this.state["state.clock"].data[0]) >= span) await this.commit();
    return results.logits.data;
  }

  /** End the span now -> slots written. */
  async commit() {
    const results = await this.#run("commit", {});
    const writes = Number(results.writes.data[0]);
    this.written += writes;
    this.hormones = Array.from(results.modulators.data);
    return writes;
  }

  /** What noradrenaline multiplies the sampling temperature by; 1 unless the model was set to it. */
  warmth() {
    const levels = this.state["state.regions.endocrine.modulators"];
    return levels ? 2 ** ((this.manifest.temperature_octaves ?? 0) * (2 * levels.data[1] - 1)) : 1;
  }

  /** The id to write after these logits: the likeliest, or drawn from the nucleus when `random` (() -> [0, 1)) is given. */
  choose(logits, random = null, temperature = 1, share = 0.95) {
    const allowed = new Float64Array(logits);
    for (const id of this.manifest.never_written) allowed[id] = -Infinity;
    let best = 0;
    for (let id = 1; id < allowed.length; id++) if (allowed[id] > allowed[best]) best = id;
    if (!random) return best;
    const warm = temperature * this.warmth();
    const weight = allowed.map((logit) => Math.exp((logit - allowed[best]) / warm));
    const total = weight.reduce((sum, w) => sum + w, 0);
    const order = Array.from(weight.keys()).sort((a, b) => weight[b] - weight[a]);
    let kept = 0;
    let count = 0;
    while (count < order.length && kept < share * total) kept += weight[order[count++]];
    let point = random() * kept;
    for (const id of order.slice(0, count)) if ((point -= weight[id]) <= 0) return id;
    return best;
  }

  async #run(name, given) {
    const values = { ...this.state, ...given };
    const graph = this.graphs[name];
    const feeds = Object.fromEntries(graph.inputNames.map((port) => [port, values[port]]));
    const results = await graph.run(feeds);
    for (const [into, out] of Object.entries(this.manifest.graphs[name].state)) this.state[into] = results[out];
    return results;
  }

  #tensor(dtype, dims, initial) {
    const data = new KINDS[dtype](dims.reduce((product, size) => product * size, 1));
    const flat = [initial].flat(Infinity);
    for (let i = 0; i < data.length; i++) data[i] = dtype === "int64" ? BigInt(flat[i % flat.length]) : flat[i % flat.length];
    return new this.ort.Tensor(dtype, data, dims);
  }
}

/** Text to ids and back, by the folder's tokenizer.json. */
export class Words {
  static async open(Tokenizer, read) {
    return new Words(new Tokenizer(JSON.parse(text(await read("tokenizer.json"))), {}));
  }

  constructor(inner) {
    this.inner = inner;
  }

  /** A literal "<bos>" is cut in two: text can never forge the start of a document. */
  encode(said) {
    return said.split(/(?<=<bo)(?=s>)/).flatMap((part) => (part ? this.inner.encode(part, { add_special_tokens: false }).ids : []));
  }

  decode(ids) {
    return ids.length ? this.inner.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false }) : "";
  }
}
