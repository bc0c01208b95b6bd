import { z } from "zod";
import type { CommitMode } from "./session-log.ts";

/** The setting DROVER_REDIS_COMMIT, kept as text: the operator hands it on to its pools. */
export const commitSetting = z
  .string()
  .regex(/^(fsync|provider|replicas:[1-9])$/, "must be fsync, provider or replicas:N")
  .default("fsync")
  .meta({
    env: "DROVER_REDIS_COMMIT",
    description: "What a committed write survives: fsync, replicas:N or provider.",
  });

/** What an accepted setting says. */
export function parseCommitMode(text: string): CommitMode {
  if (text === "fsync" || text === "provider") return { mode: text };
  return { mode: "replicas", n: Number(text.slice("replicas:".length)) };
}
