import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { codeOf } from "../runtime/errors.ts";

/**
 * What local mode keeps between runs, so that the same manifest after SIGKILL is the same session
 * (docs/design/operations.md#local-mode): a random id of the directory and, per object, an
 * incarnation number. An object's UID is derived from both; a finished session's next run gets the
 * next incarnation.
 */
interface Identity {
  id: string;
  incarnations: Record<string, number>;
}

export interface DataDirectory {
  /** Folder of the file session log. */
  logDirectory: string;
  /** Folder of one sandbox: `workspace/`, `tmp/` and `journal/` are made below it. */
  sandboxDirectory(sandboxId: string): string;
  examplesDirectory: string;
  /** The object's UID in its present incarnation. */
  uidOf(object: ObjectKey): string;
  /** Ends the present incarnation: the object's next UID is a new one. */
  nextIncarnation(object: ObjectKey): Promise<void>;
}

interface ObjectKey {
  kind: string;
  namespace: string;
  name: string;
}

export async function openDataDirectory(path: string): Promise<DataDirectory> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const file = join(path, "identity.json");
  const identity = await readIdentity(file);
  return {
    logDirectory: join(path, "log"),
    sandboxDirectory: (sandboxId) => join(path, "sandboxes", sandboxId),
    examplesDirectory: join(path, "examples"),
    uidOf: (object) => {
      const key = keyOf(object);
      return uuidv5(identity.id, `${key}/${identity.incarnations[key] ?? 1}`);
    },
    nextIncarnation: async (object) => {
      const key = keyOf(object);
      identity.incarnations[key] = (identity.incarnations[key] ?? 1) + 1;
      await writeIdentity(file, identity);
    },
  };
}

function keyOf(object: ObjectKey): string {
  return `${object.kind}/${object.namespace}/${object.name}`;
}

async function readIdentity(file: string): Promise<Identity> {
  try {
    const stored: Identity = JSON.parse(await readFile(file, "utf8"));
    return stored;
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
    const fresh: Identity = { id: randomUUID(), incarnations: {} };
    await writeIdentity(file, fresh);
    return fresh;
  }
}

/** By rename, so that a kill leaves the old file or the new one. */
async function writeIdentity(file: string, identity: Identity): Promise<void> {
  await writeFile(`${file}.new`, JSON.stringify(identity), { mode: 0o600 });
  await rename(`${file}.new`, file);
}

/** UUID version 5 (RFC 9562 §5.5): the same name in the same namespace is the same id. */
export function uuidv5(namespace: string, name: string): string {
  const bytes = createHash("sha1")
    .update(Buffer.from(namespace.replaceAll("-", ""), "hex"))
    .update(name)
    .digest()
    .subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x50;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return [8, 12, 16, 20, 32].map((end, i) => hex.slice([0, 8, 12, 16, 20][i], end)).join("-");
}
