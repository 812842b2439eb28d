// Run the brain in this folder with Node: npm install, then
//
//     node run.mjs "Once upon a time"     text in, text out
//     node run.mjs 12 7 431               token ids in, token ids out
//     node run.mjs --check                does this machine compute what the exporting one did?

import { readFile } from "node:fs/promises";
import { Brain, Words } from "./neuro.mjs";

const here = new URL(".", import.meta.url);
const read = (path) => readFile(new URL(path, here));
const TOKENS = 40;
const LEAST = 0.95; // an exp that differs in its last bit may move a spike, and a token with it

async function load(name) {
  try {
    return await import(name);
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    fail(3, `run.mjs: the package ${name} is missing.`, "Run npm install in this folder.");
  }
}

function fail(code, what, whatToDo) {
  process.stderr.write(`${what}\n${whatToDo}\n`);
  process.exit(code);
}

async function check(brain) {
  const golden = JSON.parse(new TextDecoder().decode(await read("golden.json")));
  let same = 0;
  let reached = performance.now();
  for (const [place, id] of golden.tokens.entries()) same += brain.choose(await brain.step(id)) === golden.likeliest[place];
  const milliseconds = (performance.now() - reached) / golden.tokens.length;
  process.stdout.write(`the same likeliest token in ${same} of ${golden.tokens.length} steps, ${milliseconds.toFixed(2)} ms each\n`);
  return same >= LEAST * golden.tokens.length;
}

async function continued(brain, ids) {
  let logits;
  for (const id of [brain.manifest.bos, ...ids]) logits = await brain.step(id);
  const written = [];
  while (written.length < TOKENS) {
    written.push(brain.choose(logits));
    logits = await brain.step(written.at(-1));
  }
  return written;
}

const given = process.argv.slice(2);
const ort = await load("onnxruntime-web");
ort.env.wasm.numThreads = 1;
let brain;
try {
  brain = await Brain.open(ort, read);
} catch (error) {
  fail(4, `run.mjs: ${error.message.split("\n")[0]}`, "The folder is not whole: export it again.");
}
if (given.includes("--check")) process.exit((await check(brain)) ? 0 : 4);
const ids = given.map(Number);
if (given.length && ids.every((id) => Number.isInteger(id) && id >= 0)) {
  const most = brain.manifest.vocab_size;
  if (Math.max(...ids) >= most) fail(2, `run.mjs: got the token id ${Math.max(...ids)}, expected ids below ${most}.`, "Give other ids, or a text.");
  process.stdout.write(`${(await continued(brain, ids)).join(" ")}\n`);
} else {
  const words = await Words.open((await load("@huggingface/tokenizers")).Tokenizer, read);
  const prompt = given.join(" ");
  process.stdout.write(`${prompt}${words.decode(await continued(brain, words.encode(prompt)))}\n`);
}
