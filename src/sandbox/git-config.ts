import { join } from "node:path";
import type { RepositoriesRequest } from "../protocol/sandbox-api.ts";

/**
 * How git in a sandbox reaches its repositories: every process of the tools reads a file that sends
 * the repositories' own URLs to the edge, with the token the edge asks for. So `git clone`, `pull` and
 * `push` work with the URL people know, and no token stands in a `.git/config`, an environment or an
 * argument list. Pure.
 */

export interface GitFiles {
  /** Read after all others: whatever a repository says, its host is reached by the edge. */
  transport: string;
  /** Read before all others: what a repository or the home folder says wins. */
  defaults: string;
}

export function gitFiles(stateDir: string): GitFiles {
  return {
    transport: join(stateDir, "git", "config"),
    defaults: join(stateDir, "git", "defaults"),
  };
}

/** Variables for every process that may call git; a file that is not there yet is no error to git. */
export function gitEnvironment({ transport, defaults }: GitFiles): Record<string, string> {
  return {
    GIT_CONFIG_COUNT: "1",
    GIT_CONFIG_KEY_0: "include.path",
    GIT_CONFIG_VALUE_0: transport,
    GIT_CONFIG_SYSTEM: defaults,
    // Nobody is there to type a password: git says so at once.
    GIT_TERMINAL_PROMPT: "0",
  };
}

/** Without a name git refuses to commit. The image's own settings are read last, so they win. */
export const GIT_DEFAULTS = `[user]
	name = Drover agent
	email = agent@drover.invalid
[include]
	path = /etc/gitconfig
`;

/**
 * The URL at which the edge serves a repository. Git rewrites by prefix and appends what is left: the
 * dot, which no name holds, ends this one, so that a neighbour's URL (`app` and `app-x`) becomes a path
 * the edge does not know, never another repository of the session.
 */
export function edgeUrlOf({ edgeUrl }: Pick<RepositoriesRequest, "edgeUrl">, name: string): string {
  return `${edgeUrl}/git/${name}.git`;
}

export function renderGitConfig(request: RepositoriesRequest): string {
  const edge = quote(`${request.edgeUrl}/`);
  const sections = [
    `[http ${edge}]\n\textraHeader = ${quote(`Authorization: Bearer ${request.sandboxToken}`)}\n\tfollowRedirects = false\n`,
    `[credential ${edge}]\n\thelper =\n`,
    ...request.repositories.map(({ name, url }) => {
      // The longest match wins: without the second line, `app.git` would become `/git/app.git.git`.
      const bare = url.replace(/\.git$/, "");
      const lines = [bare, `${bare}.git`].map((from) => `\tinsteadOf = ${quote(from)}\n`);
      return `[url ${quote(edgeUrlOf(request, name))}]\n${lines.join("")}`;
    }),
  ];
  return sections.join("");
}

/** A value or subsection of git's config file; control characters are refused by the request's schema. */
function quote(text: string): string {
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}
