/**
 * Headers by which a request could spend another's account, or carry data to it
 * (docs/design/security.md#foreign-credentials).
 */
const HEADERS = [
  "x-api-key",
  "api-key",
  "x-goog-api-key",
  "private-token",
  "job-token",
  "deploy-token",
  "cookie",
  "proxy-authorization",
];
const NAME = /key|token|auth|secret|pass|sig/i;

/**
 * Where a request brings a credential of its own, or undefined: a header, or a parameter with such a
 * name. Never the value. `Authorization` is for each role to judge. Linear in the query's length,
 * since it may be asked before anybody is known to be there.
 */
export function foreignCredentialPlace(
  headers: Readonly<Record<string, unknown>>,
  query: string,
): string | undefined {
  const header = HEADERS.find((name) => headers[name] !== undefined);
  if (header !== undefined) return `header "${header}"`;
  return query.split(/[&;]/).some(isCredential) ? "the query" : undefined;
}

function isCredential(parameter: string): boolean {
  const end = parameter.indexOf("=");
  return end >= 0 && NAME.test(parameter.slice(0, end));
}
