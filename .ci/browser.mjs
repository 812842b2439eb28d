// Clicks through the page of an exported folder in headless Chromium: node .ci/browser.mjs FOLDER MODULES [PICTURE]
//
// FOLDER was written by `neuro export --profile web`, MODULES is a node_modules with onnxruntime-web, @huggingface/tokenizers and
// playwright-core. Exits with 0 when a reply came, spikes and memories were drawn, forgetting forgot, and 95 % of the steps
// of golden.json have the same likeliest token as where it was exported.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { extname, join, normalize, resolve } from "node:path";

const [folder, modules, picture] = process.argv.slice(2);
const { chromium } = createRequire(join(resolve(modules), "x.js"))("playwright-core");
const KINDS = { ".html": "text/html", ".mjs": "text/javascript", ".json": "application/json", ".wasm": "application/wasm" };

const server = createServer(async (request, answer) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://x").pathname)).replace(/^\/+/, "") || "index.html";
  const place = path.startsWith("node_modules/") ? join(modules, path.slice("node_modules/".length)) : join(folder, path);
  try {
    const bytes = await readFile(place);
    answer.writeHead(200, { "content-type": KINDS[extname(path)] ?? "application/octet-stream" });
    answer.end(bytes);
  } catch {
    answer.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

function need(ok, what) {
  if (!ok) throw new Error(what);
}

const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: quiet });
let code = 0;
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 900 } });
  page.setDefaultTimeout(300_000);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(`http://127.0.0.1:${server.address().port}/index.html`);
  await page.waitForFunction(() => !document.querySelector("#send").disabled || document.querySelector("#error").textContent);
  need((await page.textContent("#error")) === "", await page.textContent("#error"));
  const number = async (name) => Number(await page.textContent(`#fact-${name}`));
  const say = async (words) => {
    await page.fill("#said", words);
    await page.click("#send");
    await page.waitForFunction(() => document.querySelector("#send").disabled);
    await page.waitForFunction(() => !document.querySelector("#send").disabled);
    return (await page.textContent("#log")).split("\n").filter(Boolean).at(-1).slice(words.length);
  };
  const first = await say("The password of the vault is crimson.");
  need(first.trim().length > 0, "the page wrote no reply");
  const told = await number("memories-written");
  need(told > 0, "the page wrote no memory");
  await page.click("#topic");
  const second = await say("The password of the vault is");
  need(second.trim().startsWith("crim"), `asked for the password, the page said '${second}'`);
  const inked = () => page.evaluate(() => {
    const canvas = document.querySelector("#raster");
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
  });
  need(await inked(), "no spike was drawn");
  if (picture) await page.screenshot({ path: picture });
  await page.click("#forget");
  need((await page.textContent("#log")) === "" && (await number("memories-written")) === 0 && !(await inked()), "forgetting left something");
  const third = await say("The password of the vault is");
  need(!third.trim().startsWith("crim"), "it knew what it had forgotten");
  const [same, steps] = await page.evaluate(() => window.check());
  process.stdout.write(`Chromium ${browser.version()}: replies, ${told} memories, spikes drawn; the same likeliest token in ${same} of ${steps} steps\n`);
  need(same >= 0.95 * steps, "the browser computes something else");
  need(complaints.length === 0, complaints.join("; "));
} catch (error) {
  process.stderr.write(`browser: ${error.message}\n`);
  code = 4;
}
await browser.close();
server.close();
process.exit(code);
