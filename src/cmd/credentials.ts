import { join, resolve } from "node:path";
import type { CredentialsAction } from "../cli/program.ts";
import { valueProblem } from "../credentials/credential-value.ts";
import { EncryptedFile, type LocalSecrets } from "../credentials/local-file/encrypted-file.ts";
import { AppError } from "../runtime/errors.ts";
import { visibleLine } from "../runtime/visible.ts";
import { configHome, dataHome } from "./user-folders.ts";

/** More than any credential may have. */
const MAX_INPUT_BYTES = 64 * 1024;

/**
 * The credentials file of local mode, `given` or the one of this user; its key is kept elsewhere, so
 * that a copy of the one folder does not hold both.
 */
export function localCredentials(
  env: Readonly<Record<string, string | undefined>>,
  given: string | undefined,
): EncryptedFile {
  return new EncryptedFile({
    path: resolve(given ?? join(dataHome(env), "drover", "credentials")),
    keyPath: join(configHome(env), "drover", "credentials.key"),
  });
}

/** `drover credentials …`: what is in the credentials file of local mode; never prints a value. */
export async function credentialsMain(
  action: CredentialsAction,
  env: Readonly<Record<string, string | undefined>>,
  io: { input: NodeJS.ReadStream; output: { write(text: string): unknown } },
): Promise<number> {
  const file = localCredentials(env, action.file);
  if (action.name === "list") {
    const content = await file.read();
    for (const place of placesOf(content?.secrets ?? {}))
      io.output.write(`${visibleLine(place)}\n`);
    return 0;
  }
  const { namespace, secret, key } = action;
  if (action.name === "set") {
    const value = await readValue(io.input);
    await file.change((secrets) => {
      const keys = { ...secrets[namespace]?.[secret], [key]: value };
      return { ...secrets, [namespace]: { ...secrets[namespace], [secret]: keys } };
    });
    return 0;
  }
  await file.change((secrets) => without(secrets, { namespace, secret, key }));
  return 0;
}

function placesOf(secrets: LocalSecrets): string[] {
  return Object.entries(secrets)
    .flatMap(([namespace, names]) =>
      Object.entries(names).flatMap(([secret, keys]) =>
        Object.keys(keys).map((key) => `${namespace} ${secret} ${key}`),
      ),
    )
    .toSorted();
}

/** From standard input only: arguments are seen by every process of the machine. */
async function readValue(input: NodeJS.ReadStream): Promise<string> {
  if (input.isTTY) {
    throw new AppError("INPUT_INVALID", "the value comes from standard input: add `< FILE`");
  }
  let text = "";
  input.setEncoding("utf8");
  for await (const chunk of input) {
    text += String(chunk);
    if (text.length > MAX_INPUT_BYTES) break;
  }
  const value = text.replace(/\r?\n$/, "");
  const problem = valueProblem(value);
  if (problem === undefined) return value;
  throw new AppError(
    "INPUT_INVALID",
    `the value on standard input ${problem}; nothing was changed`,
  );
}

function without(
  secrets: LocalSecrets,
  { namespace, secret, key }: { namespace: string; secret: string; key: string },
): LocalSecrets {
  if (secrets[namespace]?.[secret]?.[key] === undefined) {
    const message = `there is no "${key}" of "${secret}" in namespace "${namespace}"`;
    throw new AppError("NOT_FOUND", message);
  }
  const { [key]: _removed, ...keys } = secrets[namespace][secret];
  const { [secret]: _emptied, ...others } = secrets[namespace];
  const left = Object.keys(keys).length === 0 ? others : { ...others, [secret]: keys };
  return { ...secrets, [namespace]: left };
}
