import { randomUUID } from "node:crypto";
import { constants, type Stats } from "node:fs";
import {
  type FileHandle,
  lstat,
  mkdir,
  open,
  readlink,
  realpath,
  rename,
  rm,
} from "node:fs/promises";
import { isAbsolute, join, relative, resolve } from "node:path";
import { codeOf } from "../../runtime/errors.ts";

/**
 * Opens files of the workspace and never one outside, also when a command exchanges a folder of the
 * path for a link meanwhile. Each folder of a path is opened by itself, below the handle of the one
 * before it, and links are not followed by the kernel but read and walked in the same way. Node has
 * no `openat`; a path that begins with /proc/self/fd/<handle> is the same.
 */

/** As many links as Linux follows. */
const MAX_LINKS = 40;
const NEW_FOLDER_MODE = 0o700;
const NEW_FILE_MODE = 0o600;
const FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** A pipe without a writer must not hold us. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const NEW_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** What keeps a tool from its work, in words for the model. */
export class FileProblem extends Error {
  override name = "FileProblem";
}

/** A place in the workspace: an open folder, and a name in it that was no link; no name for the root itself. */
export interface Place {
  folder: FileHandle;
  name: string | undefined;
  /** Where it is, links resolved. */
  path: string;
}

export class Workspace {
  readonly root: string;

  constructor(root: string) {
    this.root = resolve(root);
  }

  /** Finds the place, gives it to `work` and closes it. Throws FileProblem for a path that leads outside. */
  async at<T>(
    path: string,
    work: (place: Place) => Promise<T>,
    options: { makeFolders?: boolean } = {},
  ): Promise<T> {
    const realRoot = await realpath(this.root);
    const names = namesBelow([this.root, realRoot], resolve(this.root, path));
    if (names === undefined) throw outside(path);
    const walk = new Walk(path, realRoot, options.makeFolders === true);
    try {
      return await work(await walk.to(names));
    } finally {
      await walk.close();
    }
  }
}

/** The path of a name in an open folder; without a name, of the folder. */
export function pathIn(folder: FileHandle, name = "."): string {
  return `/proc/self/fd/${folder.fd}/${name}`;
}

/** Opens what is at the place to read it; throws FileProblem unless it is a regular file. */
export async function openFile(place: Place, path: string): Promise<FileHandle> {
  const file = await open(pathIn(place.folder, place.name), READ_FLAGS);
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new FileProblem(`${path} is not a regular file`);
}

export async function openFolder(parent: FileHandle, name: string): Promise<FileHandle> {
  return await open(pathIn(parent, name), FOLDER_FLAGS);
}

/** Puts a whole new content in the place of the old; permissions stay. */
export async function replaceFile(place: Place, path: string, content: Buffer): Promise<void> {
  const { folder, name } = place;
  const existing = name === undefined ? undefined : await statIn(folder, name);
  if (name === undefined || (existing !== undefined && !existing.isFile())) {
    throw new FileProblem(`${path} is not a regular file`);
  }
  const temporary = pathIn(folder, `.tmp-${randomUUID()}`);
  try {
    const file = await open(temporary, NEW_FLAGS, NEW_FILE_MODE);
    try {
      if (existing !== undefined) await file.chmod(existing.mode & 0o777);
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, pathIn(folder, name));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}

/** Undefined when there is nothing of that name. */
export async function statIn(folder: FileHandle, name: string): Promise<Stats | undefined> {
  try {
    return await lstat(pathIn(folder, name));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** In the same words whatever the system says; no path but the one that was asked for. */
export function describeFileError(error: unknown, path: string): string {
  if (error instanceof FileProblem) return error.message;
  const code = codeOf(error);
  return `${path}: ${(code === undefined ? undefined : WORDS[code]) ?? `i/o error (${code ?? "unknown"})`}`;
}

const WORDS: Record<string, string> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOTDIR: "not a directory",
  EISDIR: "is a directory",
  // A link that came after we looked.
  ELOOP: "too many levels of symbolic links",
  ENAMETOOLONG: "file name too long",
  ENOSPC: "no space left on device",
  EDQUOT: "no space left on device",
  EMFILE: "too many open files",
  ENFILE: "too many open files",
  // A pipe or socket that nobody serves.
  ENXIO: "not a regular file",
};

class Walk {
  readonly #path: string;
  readonly #root: string;
  readonly #makeFolders: boolean;
  /** The folders from the root to where the walk is; the way back for `..`. */
  readonly #folders: { handle: FileHandle; name: string }[] = [];
  #links = 0;

  constructor(path: string, root: string, makeFolders: boolean) {
    this.#path = path;
    this.#root = root;
    this.#makeFolders = makeFolders;
  }

  async to(names: readonly string[]): Promise<Place> {
    await this.#enterRoot();
    const left = [...names];
    for (let name = left.shift(); name !== undefined; name = left.shift()) {
      if (name === "..") {
        await this.#leave();
        continue;
      }
      const link = await this.#linkAt(name);
      if (link !== undefined) left.unshift(...(await this.#follow(link)));
      else if (left.length === 0) return this.#place(name);
      else await this.#enter(name);
    }
    return this.#place(undefined);
  }

  async close(): Promise<void> {
    await Promise.all(this.#folders.splice(0).map(({ handle }) => handle.close()));
  }

  get #here(): FileHandle {
    const last = this.#folders.at(-1);
    if (last === undefined) throw outside(this.#path);
    return last.handle;
  }

  #place(name: string | undefined): Place {
    const folders = this.#folders.slice(1).map((folder) => folder.name);
    return { folder: this.#here, name, path: join(this.#root, ...folders, name ?? "") };
  }

  async #enterRoot(): Promise<void> {
    await this.close();
    const handle = await open(this.#root, constants.O_RDONLY | constants.O_DIRECTORY);
    this.#folders.push({ handle, name: "" });
  }

  async #enter(name: string): Promise<void> {
    const here = this.#here;
    let handle: FileHandle;
    try {
      handle = await openFolder(here, name);
    } catch (error) {
      if (codeOf(error) !== "ENOENT" || !this.#makeFolders) throw error;
      await mkdir(pathIn(here, name), { mode: NEW_FOLDER_MODE });
      handle = await openFolder(here, name);
    }
    this.#folders.push({ handle, name });
  }

  async #leave(): Promise<void> {
    if (this.#folders.length === 1) throw outside(this.#path);
    await this.#folders.pop()?.handle.close();
  }

  async #linkAt(name: string): Promise<string | undefined> {
    const found = await statIn(this.#here, name);
    if (found?.isSymbolicLink() !== true) return undefined;
    return await readlink(pathIn(this.#here, name));
  }

  /** The names that a link stands for; an absolute one begins at the root again. */
  async #follow(link: string): Promise<string[]> {
    this.#links += 1;
    if (this.#links > MAX_LINKS) {
      throw new FileProblem(`${this.#path}: too many levels of symbolic links`);
    }
    if (!isAbsolute(link)) return namesOf(link);
    const names = namesBelow([this.#root], resolve(link));
    if (names === undefined) throw outside(this.#path);
    await this.#enterRoot();
    return names;
  }
}

/** Undefined when the path is below none of the roots. */
function namesBelow(roots: readonly string[], path: string): string[] | undefined {
  for (const root of roots) {
    const names = namesOf(relative(root, path));
    if (names[0] !== "..") return names;
  }
  return undefined;
}

function namesOf(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}

function outside(path: string): FileProblem {
  return new FileProblem(`path ${JSON.stringify(path)} is outside the session's working directory`);
}
