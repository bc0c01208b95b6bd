import { AppError } from "../../../runtime/errors.ts";

/** The two halves of smart HTTP: reading and pushing. */
export type GitService = "git-upload-pack" | "git-receive-pack";

export interface GitRoute {
  /** Name of the repository in the session: `/git/<name>/…`. */
  repository: string;
  service: GitService;
  /** `refs` is the advertisement with which git begins, `exchange` what follows. */
  step: "refs" | "exchange";
}

const PATH =
  /^\/git\/(?<name>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.git)?\/(?<rest>info\/refs|git-upload-pack|git-receive-pack)$/;
const QUERY = /^service=(git-upload-pack|git-receive-pack)$/;

/**
 * The three routes of smart HTTP (docs/design/security.md#git), compared as they came: nothing is
 * decoded or normalised on the way to a decision. Throws NOT_FOUND with a sentence for the person
 * at git.
 */
export function gitRouteOf(method: string, path: string, query: string): GitRoute {
  const { name: repository, rest } = PATH.exec(path)?.groups ?? {};
  if (repository === undefined || rest === undefined) throw noRoute(path);
  if (rest === "info/refs") {
    const service = asService(QUERY.exec(query)?.[1]);
    if (method === "GET" && service !== undefined) return { repository, service, step: "refs" };
    throw new AppError(
      "NOT_FOUND",
      "info/refs takes GET and one parameter, service=git-upload-pack or " +
        "service=git-receive-pack; the dumb protocol is not served",
    );
  }
  const service = asService(rest);
  if (method === "POST" && query === "" && service !== undefined) {
    return { repository, service, step: "exchange" };
  }
  throw new AppError("NOT_FOUND", `${rest} takes POST without parameters`);
}

/** True for requests of git-lfs, which reads errors in a form of its own. */
export function isLfsPath(path: string): boolean {
  return /^\/git\/[^/]+\/info\/lfs(\/|$)/.test(path);
}

function noRoute(path: string): AppError {
  if (isLfsPath(path)) {
    return new AppError(
      "NOT_FOUND",
      "Git LFS is not served: its answers hand out addresses and credentials. " +
        "Set GIT_LFS_SKIP_SMUDGE=1 to work without the large files",
    );
  }
  if (/^\/git\/[^/]+\/(HEAD|objects\/)/.test(path)) {
    return new AppError(
      "NOT_FOUND",
      "the dumb protocol is not served; git 1.6.6 and later has smart HTTP",
    );
  }
  return new AppError(
    "NOT_FOUND",
    "there is no such route; a repository of the session is at /git/<its name>",
  );
}

function asService(text: string | undefined): GitService | undefined {
  return text === "git-upload-pack" || text === "git-receive-pack" ? text : undefined;
}
