import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** Of this installation, from the package.json above `src/` or `dist/`; the images hold it there too. */
export const VERSION = readVersion(join(import.meta.dirname, "../../package.json"));

function readVersion(path: string): string {
  return z.object({ version: z.string() }).parse(JSON.parse(readFileSync(path, "utf8"))).version;
}
