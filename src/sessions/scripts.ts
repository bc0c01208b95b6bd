import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** One Lua file each in the folder `scripts`, which stands beside this file in `src` and in `dist`. */
export const SCRIPT_NAMES = [
  "create",
  "append",
  "append-leased",
  "claim",
  "renew",
  "release",
  "barrier",
  "wake",
  "settle",
  "delete",
  "ack-state",
  "register-pool",
] as const;
export type ScriptName = (typeof SCRIPT_NAMES)[number];

interface Script {
  lua: string;
  /** Name under which Redis caches it. */
  sha1: string;
}

export type Scripts = Readonly<Record<ScriptName, Script>>;

/** Reads the scripts; the prelude they share stands in front of each. */
export function loadScripts(): Scripts {
  const prelude = readScript("prelude");
  const load = (name: ScriptName): Script => {
    const lua = `${prelude}\n${readScript(name)}`;
    return { lua, sha1: createHash("sha1").update(lua).digest("hex") };
  };
  return {
    create: load("create"),
    append: load("append"),
    "append-leased": load("append-leased"),
    claim: load("claim"),
    renew: load("renew"),
    release: load("release"),
    barrier: load("barrier"),
    wake: load("wake"),
    settle: load("settle"),
    delete: load("delete"),
    "ack-state": load("ack-state"),
    "register-pool": load("register-pool"),
  };
}

function readScript(name: string): string {
  return readFileSync(new URL(`scripts/${name}.lua`, import.meta.url), "utf8");
}
