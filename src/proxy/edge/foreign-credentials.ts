import { AppError } from "../../runtime/errors.ts";

const HEADERS = [
  "proxy-authorization",
  "cookie",
  "x-api-key",
  "api-key",
  "x-goog-api-key",
  "private-token",
  "job-token",
  "deploy-token",
];
const PARAMETER = /(?:^|[&;])[^=&;]*(?:token|key|secret|password|auth|sig)[^=&;]*=/i;

/**
 * Whoever brings a credential of their own could act as somebody else through an allowed
 * destination, or carry data to an account of theirs (security §10). The one that belongs here is the
 * sandbox token. Throws FOREIGN_CREDENTIAL that names the place, never the value.
 */
export function checkForeignCredentials(
  headers: Readonly<Record<string, readonly string[] | undefined>>,
  query: string,
): void {
  const where = foreignPlace(headers, query);
  if (where === undefined) return;
  throw new AppError(
    "FOREIGN_CREDENTIAL",
    `the request brings a credential in ${where}; remove it, the edge adds the repository's own`,
  );
}

function foreignPlace(
  headers: Readonly<Record<string, readonly string[] | undefined>>,
  query: string,
): string | undefined {
  const header = HEADERS.find((name) => headers[name] !== undefined);
  if (header !== undefined) return `header "${header}"`;
  if (PARAMETER.test(query)) return "its query";
  const authorization = headers["authorization"] ?? [];
  // Three parts with dots between them: whether it is a token of ours is checked later.
  const isToken = (value: string) => /^Bearer [\w-]+\.[\w-]+\.[\w-]+$/.test(value);
  if (authorization.length > 1 || !authorization.every(isToken)) {
    return 'header "authorization" (a user and password in the URL, or a second one)';
  }
  return undefined;
}
