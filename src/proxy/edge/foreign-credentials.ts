import { AppError } from "../../runtime/errors.ts";
import { foreignCredentialPlace } from "../foreign-credentials.ts";

/**
 * Whoever brings a credential of their own could act as somebody else through an allowed
 * destination, or carry data to an account of theirs (docs/design/security.md#foreign-credentials).
 * The one that belongs here is the sandbox token. Throws FOREIGN_CREDENTIAL that names the place,
 * never the value.
 */
export function checkForeignCredentials(
  headers: Readonly<Record<string, readonly string[] | undefined>>,
  query: string,
): void {
  const where = foreignCredentialPlace(headers, query) ?? foreignAuthorization(headers);
  if (where === undefined) return;
  throw new AppError(
    "FOREIGN_CREDENTIAL",
    `the request brings a credential in ${where}; remove it, the edge adds the repository's own`,
  );
}

function foreignAuthorization(
  headers: Readonly<Record<string, readonly string[] | undefined>>,
): string | undefined {
  const authorization = headers["authorization"] ?? [];
  // Three parts with dots between them: whether it is a token of ours is checked later.
  const isToken = (value: string) => /^Bearer [\w-]+\.[\w-]+\.[\w-]+$/.test(value);
  if (authorization.length <= 1 && authorization.every(isToken)) return undefined;
  return 'header "authorization" (a user and password in the URL, or a second one)';
}
