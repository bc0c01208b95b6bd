import { link, readFile, rename, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { AppError, codeOf } from "../../runtime/errors.ts";
import { isAlive, startOf } from "../../runtime/process-identity.ts";

/**
 * One process uses a data directory. The lock names pid *and* start time, so that a lock left by
 * kill -9 is taken over at once, also when its pid has been given to another process since. It
 * does not see processes of another machine or container that shares the directory.
 */
export interface DirectoryLock {
  release(): Promise<void>;
}

/** Distinguishes what one process tries at the same time. */
let drafts = 0;

const holder = z.object({ pid: z.int(), started: z.string() });

/** LOG_DIRECTORY_IN_USE while its holder lives. */
export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  const path = join(directory, "lock");
  const own = JSON.stringify({ pid: process.pid, started: await startOf(process.pid) });
  drafts += 1;
  const draft = join(directory, `lock.${process.pid}.${drafts}`);
  await writeFile(draft, own);
  try {
    while (!(await linked(draft, path))) await removeStale(path, `${draft}.stale`, directory);
  } finally {
    await unlink(draft);
  }
  let isHeld = true;
  return {
    async release() {
      if (!isHeld) return;
      isHeld = false;
      if ((await textOf(path)) === own) await unlink(path);
    },
  };
}

/** Removes the lock of a dead process; throws when the holder lives. */
async function removeStale(path: string, aside: string, directory: string): Promise<void> {
  const found = await textOf(path);
  if (found === undefined) return;
  const parsed = holder.safeParse(parseJson(found));
  if (parsed.success && (await isAlive(parsed.data))) throw inUse(parsed.data.pid, directory);
  try {
    await rename(path, aside);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return;
    throw error;
  }
  // Another process may have taken the lock over between reading and renaming: give it back.
  if ((await textOf(aside)) !== found) await linked(aside, path);
  await unlink(aside);
}

function inUse(pid: number, directory: string): AppError {
  return new AppError(
    "LOG_DIRECTORY_IN_USE",
    `the data directory ${directory} is used by process ${pid}; stop that process or use another directory`,
    { details: { pid } },
  );
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

async function textOf(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
