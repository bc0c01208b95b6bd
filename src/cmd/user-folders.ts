import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

type Env = Readonly<Record<string, string | undefined>>;

/** Where this user's data is kept; XDG says that an empty or relative value counts as none. */
export function dataHome(env: Env): string {
  return folder(env["XDG_DATA_HOME"], [".local", "share"]);
}

/** Where this user's settings are kept. */
export function configHome(env: Env): string {
  return folder(env["XDG_CONFIG_HOME"], [".config"]);
}

function folder(given: string | undefined, fallback: readonly string[]): string {
  return given !== undefined && isAbsolute(given) ? given : join(homedir(), ...fallback);
}
