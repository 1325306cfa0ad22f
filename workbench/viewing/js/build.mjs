// Bundle each file of src/ that anywidget loads into ../static, with the licences of what is in it.
//
//   npm ci && npm run build          (all of it)
//   node build.mjs editor            (one entry while working on it; BUILD.json stays as it is)
//
// An entry is a file of src/ with a default export; the others are parts of them. `BUILD.json` holds the hash of all
// sources, so that a test without Node sees a bundle that is older than its sources.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "static");
const sources = readdirSync(join(here, "src")).filter((name) => name.endsWith(".js")).sort();
const entries = sources.filter((name) => /^export default/m.test(readFileSync(join(here, "src", name), "utf8")));

function digest() {
  const hash = createHash("sha256");
  for (const name of [...sources.map((each) => `src/${each}`), "build.mjs", "package-lock.json"]) {
    hash.update(name).update("\0").update(readFileSync(join(here, name))).update("\0");
  }
  return hash.digest("hex");
}

function licences(inputs) {
  const names = new Set(inputs.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]).filter(Boolean));
  return [...names].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
    return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
  });
}

const only = process.argv.slice(2).map((name) => `${name}.js`);
const built = entries.filter((name) => !only.length || only.includes(name));
const result = await build({
  absWorkingDir: here,
  entryPoints: built.map((name) => `src/${name}`),
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  metafile: true,
});
for (const [path, { bytes }] of Object.entries(result.metafile.outputs)) console.log(`${path} ${bytes} bytes`);
if (only.length) process.exit();
for (const name of readdirSync(out)) if (name.endsWith(".js") && !entries.includes(name)) rmSync(join(out, name));
const rule = `\n${"-".repeat(80)}\n\n`;
writeFileSync(join(out, "LICENSES.txt"), licences(Object.keys(result.metafile.inputs)).join(rule));
writeFileSync(join(out, "BUILD.json"), `${JSON.stringify({ sources: digest(), entries }, null, 2)}\n`);
