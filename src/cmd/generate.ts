/**
 * Writes what is made from the sources: CRDs and users of Redis, the chart's copies of both, the
 * pages of the kinds and the reference. With `--verify` it writes nothing, lists what is not up to
 * date and exits 1.
 */
import { join } from "node:path";
import { runProcess } from "../runtime/process.ts";
import { findDrift, renderOutputs, writeOutputs } from "./generate/outputs.ts";

const root = join(import.meta.dirname, "../..");

await runProcess(async () => {
  const outputs = await renderOutputs(root);
  const drift = findDrift(root, outputs);
  if (process.argv.includes("--verify")) {
    for (const path of drift.differing) {
      console.error(`${path} is not up to date; run npm run generate`);
    }
    for (const path of drift.leftOver) {
      console.error(`${path} is not generated any more; run npm run generate`);
    }
    return drift.differing.length + drift.leftOver.length === 0 ? 0 : 1;
  }
  writeOutputs(root, outputs, drift);
  for (const path of drift.differing) console.log(`wrote ${path}`);
  for (const path of drift.leftOver) console.log(`removed ${path}`);
  return 0;
});
