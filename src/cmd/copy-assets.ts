import { copyFileSync, globSync, mkdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";

/** Copies what the compiler does not: the Lua scripts, beside the code that loads them. */
for (const source of globSync("src/**/*.lua")) {
  const target = join("dist", relative("src", source));
  mkdirSync(dirname(target), { recursive: true });
  copyFileSync(source, target);
}
