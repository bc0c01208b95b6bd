import { Agent, fetch as fetchWith } from "undici";

/**
 * A `fetch` that waits as long as its caller does: the built-in one gives up after five minutes of
 * silence, and takes no agent of the package's version.
 */
export function patientFetch(silenceMs: number): typeof fetch {
  const dispatcher = new Agent({ headersTimeout: silenceMs, bodyTimeout: silenceMs });
  const patient = (input: string | URL, init: RequestInit = {}) => {
    const { body, headers, method = "GET", signal } = init;
    return fetchWith(input, {
      method,
      dispatcher,
      headers: [...new Headers(headers)],
      body: typeof body === "string" ? body : null,
      signal: signal ?? null,
    });
  };
  // The package's types and the global ones are two names of one API.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return patient as unknown as typeof fetch;
}
