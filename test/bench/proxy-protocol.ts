/** What the benchmark's client, its MCP server and the Secrets agree upon. */
export const CREDENTIAL_PREFIX = "bench-credential-";
export const TOOL = "search";
/** An argument that makes the server answer with the credential it was given. */
export const LEAK = "say-what-you-know";

export const credentialOf = (index: number): string =>
  `${CREDENTIAL_PREFIX}${String(index).padStart(24, "0")}`;
