import { AppError } from "../runtime/errors.ts";

/**
 * Which vault entry serves which MCP server (docs/design/security.md#which-credential): equal
 * normalised URLs and nothing looser, so a credential never goes to a neighbour of the server it
 * was made for.
 */
export interface ServerUrl {
  protocol: "http:" | "https:";
  host: string;
  port: string;
  /** Without one trailing slash. */
  path: string;
  /** With its `?`; may hold something private, so it is compared but never shown. */
  query: string;
}

/** Throws INPUT_INVALID that names what is not accepted; the text itself is not repeated. */
export function parseServerUrl(text: string): ServerUrl {
  const refuse = (what: string) =>
    new AppError("INPUT_INVALID", `the URL of the MCP server ${what}`);
  if (!/^[\u0021-\u005b\u005d-\u007e\u0080-\uffff]+$/.test(text)) {
    throw refuse("has spaces, control characters or a backslash");
  }
  if (/^[a-z]+:\/\/[^/?#]*@/i.test(text)) throw refuse("has a user part");
  const url = URL.parse(text);
  if (url === null) throw refuse("is not a URL");
  // Without the two slashes the parser takes it all the same.
  if (url.username !== "" || url.password !== "") throw refuse("has a user part");
  if (url.protocol !== "https:" && url.protocol !== "http:") throw refuse("is not http or https");
  if (url.hostname.endsWith(".")) throw refuse("has a host that ends with a dot");
  if (!/^(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])$/.test(url.hostname)) throw refuse("has an odd host");
  return {
    protocol: url.protocol,
    host: url.hostname,
    port: url.port === "" ? (url.protocol === "https:" ? "443" : "80") : url.port,
    path: url.pathname.replace(/\/$/, ""),
    query: url.search,
  };
}

function isSameServer(a: ServerUrl, b: ServerUrl): boolean {
  return (
    a.protocol === b.protocol &&
    a.host === b.host &&
    a.port === b.port &&
    a.path === b.path &&
    a.query === b.query
  );
}

interface VaultLike<E> {
  name: string;
  entries: readonly E[];
}

export type Match<E> =
  | { found: true; vault: string; entry: E }
  /** One sentence per entry that was nearly meant, for the error message. */
  | { found: false; nearMisses: string[] };

/** The first entry for `target` in the order of the session's vaults; `urlOf` is undefined for other kinds. */
export function matchEntry<E extends { name: string }>(
  target: ServerUrl,
  vaults: readonly VaultLike<E>[],
  urlOf: (entry: E) => string | undefined,
): Match<E> {
  const nearMisses: string[] = [];
  for (const vault of vaults) {
    for (const entry of vault.entries) {
      const text = urlOf(entry);
      if (text === undefined) continue;
      const url = tryParse(text);
      if (url !== undefined && isSameServer(target, url)) {
        return { found: true, vault: vault.name, entry };
      }
      const difference = url === undefined ? brokenUrl(text, target) : differenceOf(target, url);
      if (difference !== undefined) {
        nearMisses.push(`entry "${entry.name}" of vault "${vault.name}": ${difference}`);
      }
    }
  }
  return { found: false, nearMisses };
}

/** Undefined when the two URLs have nothing to do with each other. */
function differenceOf(server: ServerUrl, entry: ServerUrl): string | undefined {
  if (server.host !== entry.host) {
    const related =
      server.host.endsWith(`.${entry.host}`) || entry.host.endsWith(`.${server.host}`);
    return related
      ? `the host differs (the server is ${server.host}, the entry is for ${entry.host})`
      : undefined;
  }
  if (server.protocol !== entry.protocol) {
    return `the scheme differs (the server has ${server.protocol}//, the entry ${entry.protocol}//)`;
  }
  if (server.port !== entry.port) {
    return `the port differs (the server has ${server.port}, the entry ${entry.port})`;
  }
  if (server.path === entry.path) return "the query differs";
  return server.path.toLowerCase() === entry.path.toLowerCase()
    ? "the path differs in upper and lower case"
    : `the path differs (the server has "${server.path || "/"}", the entry "${entry.path || "/"}")`;
}

/** An entry that cannot be used is worth a word only when it names this host. */
function brokenUrl(text: string, target: ServerUrl): string | undefined {
  return text.toLowerCase().includes(target.host)
    ? "its URL cannot be used (a user part, a space, a dot after the host)"
    : undefined;
}

function tryParse(text: string): ServerUrl | undefined {
  try {
    return parseServerUrl(text);
  } catch {
    return undefined;
  }
}
