import { AppError, codeOf } from "../runtime/errors.ts";

/** Where sandboxes reach the edge. */
export interface EdgeLocator {
  /** `http://<IP address>:<port>`; throws UNAVAILABLE when the name has no address at the moment. */
  url(): Promise<string>;
}

export interface EdgeAddressDeps {
  /** As configured; its host may be a name. */
  url: string;
  lookup: (host: string) => Promise<{ address: string; family: number }>;
}

/**
 * A sandbox resolves no names (docs/design/sandbox-pod.md#names-are-not-resolved), so a harness
 * does it, whenever one is set up.
 */
export class EdgeAddress implements EdgeLocator {
  readonly #deps: EdgeAddressDeps;

  constructor(deps: EdgeAddressDeps) {
    this.#deps = deps;
  }

  async url(): Promise<string> {
    const { protocol, hostname, port } = new URL(this.#deps.url);
    const host = hostname.replace(/^\[|\]$/g, "");
    const found = await this.#deps.lookup(host).catch((cause: unknown) => {
      const message = `the edge "${host}" has no address (${codeOf(cause) ?? "unknown error"})`;
      throw new AppError("UNAVAILABLE", message, { cause, retryable: true });
    });
    const address = found.family === 6 ? `[${found.address}]` : found.address;
    return `${protocol}//${address}${port === "" ? "" : `:${port}`}`;
  }
}
