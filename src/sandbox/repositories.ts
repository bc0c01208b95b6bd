import { randomUUID } from "node:crypto";
import { lstat, mkdir, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { RepositoriesRequest, RepositoriesResponse } from "../protocol/sandbox-api.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { cloneRepository } from "./git-clone.ts";
import { GIT_DEFAULTS, type GitFiles, renderGitConfig } from "./git-config.ts";

/** Clones run here and are moved to their place when they are whole. No repository can have this path. */
const CLONE_FOLDER = ".drover-clone";
/** Memory of a small sandbox allows for two at once. */
const LANES = 2;

type RepositoryState = RepositoriesResponse["repositories"][number];
type Repository = RepositoriesRequest["repositories"][number];

export interface RepositoriesOptions {
  workspace: string;
  files: GitFiles;
  /** Environment of git: that of the tools, marker included. */
  env: Record<string, string>;
  clock: Clock;
  logger: Logger;
}

/**
 * The repositories of the session this sandbox belongs to: keeps git's way to the edge current and
 * clones what is not there. Whoever asks while a clone runs joins it.
 */
export class Repositories {
  readonly #options: RepositoriesOptions;
  readonly #running = new Map<string, Promise<RepositoryState>>();
  readonly #lanes: Promise<unknown>[] = Array.from({ length: LANES }, () => Promise.resolve());
  readonly #stop = new AbortController();
  #next = 0;

  constructor(options: RepositoriesOptions) {
    this.#options = options;
  }

  /** Removes what a killed daemon left half done. Call once, first. */
  async recover(): Promise<void> {
    const { workspace, files } = this.#options;
    await rm(join(workspace, CLONE_FOLDER), { recursive: true, force: true });
    await writeWhole(files.defaults, GIT_DEFAULTS);
  }

  /** The state of each repository when all are settled, or after `waitMs` (undefined: no limit). */
  async set(
    request: RepositoriesRequest,
    waitMs: number | undefined,
  ): Promise<RepositoriesResponse> {
    if (this.#stop.signal.aborted) {
      throw new AppError("UNAVAILABLE", "the sandbox is stopping", { retryable: true });
    }
    await this.#writeConfig(request);
    const settled = new Map<string, RepositoryState>();
    const all = request.repositories.map(async (repository) => {
      settled.set(repository.name, await this.#ensure(repository, request));
    });
    await this.#within(waitMs, Promise.all(all));
    return {
      repositories: request.repositories.map(
        ({ name }) => settled.get(name) ?? { name, state: "cloning" },
      ),
    };
  }

  /** Ends the clones that run; nothing of them is left. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#running.values());
  }

  async #writeConfig(request: RepositoriesRequest): Promise<void> {
    try {
      await writeWhole(this.#options.files.transport, renderGitConfig(request));
    } catch (cause) {
      const message = "git's settings cannot be written";
      throw new AppError("UNAVAILABLE", message, { cause, retryable: true });
    }
  }

  async #within(waitMs: number | undefined, all: Promise<unknown>): Promise<void> {
    if (waitMs === undefined) {
      await all;
      return;
    }
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const cancel = this.#options.clock.timer(waitMs, resolve);
    await Promise.race([all, late]).finally(cancel);
  }

  #ensure(repository: Repository, request: RepositoriesRequest): Promise<RepositoryState> {
    const running = this.#running.get(repository.name);
    if (running !== undefined) return running;
    const lane = this.#next++ % LANES;
    const state = (this.#lanes[lane] ?? Promise.resolve())
      .then(() => this.#cloneUnlessThere(repository, request))
      .finally(() => this.#running.delete(repository.name));
    this.#lanes[lane] = state;
    this.#running.set(repository.name, state);
    return state;
  }

  /** Never rejects: whatever keeps a repository from being there is its state. */
  async #cloneUnlessThere(
    repository: Repository,
    request: RepositoriesRequest,
  ): Promise<RepositoryState> {
    const { workspace, logger } = this.#options;
    const { name, path } = repository;
    try {
      if (await isThere(workspace, path)) return { name, state: "ready" };
      await this.#clone(repository, request);
      logger.info({ repository: name }, "repository cloned");
      return { name, state: "ready" };
    } catch (error) {
      const message =
        error instanceof AppError
          ? error.message
          : `its folder cannot be made (${codeOf(error) ?? "unknown error"})`;
      logger.warn({ repository: name, reason: codeOf(error) }, "repository not cloned");
      return { name, state: "failed", message };
    }
  }

  async #clone(repository: Repository, request: RepositoriesRequest): Promise<void> {
    const { workspace, env, clock } = this.#options;
    const folder = join(CLONE_FOLDER, repository.name);
    const place = join(workspace, repository.path);
    await mkdir(join(workspace, CLONE_FOLDER), { recursive: true });
    try {
      const clone = { workspace, env, clock, request, repository, folder };
      await cloneRepository(clone, this.#stop.signal);
      await mkdir(dirname(place), { recursive: true });
      await rename(join(workspace, folder), place);
    } finally {
      await rm(join(workspace, folder), { recursive: true, force: true });
      // Stays while another clone is in it.
      await rmdir(join(workspace, CLONE_FOLDER)).catch(() => {});
    }
  }
}

/**
 * Whether the folder is there; whatever is in it belongs to the session. Throws CONFLICT when a link
 * or a file is in the way: a clone must not end up where the path does not say.
 */
async function isThere(workspace: string, path: string): Promise<boolean> {
  let place = workspace;
  for (const part of path.split("/")) {
    place = join(place, part);
    const found = await lstat(place).catch((error: unknown) => {
      if (codeOf(error) === "ENOENT") return undefined;
      throw error;
    });
    if (found === undefined) return false;
    if (!found.isDirectory()) {
      throw new AppError("CONFLICT", `\`${relative(workspace, place)}\` is there and not a folder`);
    }
  }
  return true;
}

/** By rename, so that git reads the old file or the new one. */
async function writeWhole(file: string, text: string): Promise<void> {
  const draft = `${file}.${randomUUID()}`;
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await writeFile(draft, text, { mode: 0o600 });
  await rename(draft, file);
}
