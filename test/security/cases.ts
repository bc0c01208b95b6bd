import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Sabotage } from "./sabotage.ts";

/** The attacks of the suite, by their numbers in the plan of security tests. */
export const CASES: Readonly<Record<string, string>> = {
  T01: "A session of fifty steps with every kind of credential, which also tries to steal them",
  T02: "A tool's server echoes the credential, in every encoding",
  T03: "The echo is split at every byte, across events and packets",
  T04: "The echo is in errors, headers, trailers and compressed bodies",
  T05: "A harness that lost its session repeats a tool call",
  T06: "A proxy asks the vault for another session's credential",
  T09: "A name resolves to a public address when checked and to a private one when dialled",
  T10: "Host names that two parsers read differently",
  T12: "The caller brings a key of its own",
  T13: "A sandbox pod that mounts a secret, a token or the host",
  T14: "Code in the sandbox looks for secrets of the processes around it, or tries to take them over",
  T16: "Clone, fetch and push with git, then a search for the token",
  T17: "Paths that lead a git request to another repository",
  T18: "A git server that redirects, or points elsewhere",
  T22: "Line breaks in what becomes a header",
  T23: "Events forged inside a stream of events",
  T25: "Two hundred sessions on one server at once",
  T29: "Connections that take the places of others",
  T32: "Headers of the caller that must not reach the server",
  T36: "A vault that is sealed, slow, broken or forged",
  T37: "What is under way when its session, binding or credential is taken away",
  T41: "Redis users that reach for what is not theirs",
  T52: "What each service account may do, against the list",
  T56: "A folder of a path is exchanged for a link while a file tool works",
  T57: "A sandbox whose daemon is the attacker's",
  T66: "An MCP server that fills the harness or stops its loop",
  T67: "An entry of a CredentialVault is turned to another host, or to another value",
  T68: "What a tool, a model or a file makes a terminal do",
  T75: "Answers that cost far more than their bytes, and many of them at once",
  T76: "What the operator's account may make, change and delete",
  T80: "An audit log that somebody else wrote, cut, or took from another pod",
};

const FOLDERS = ["test/security", "test/security/api"];

/** Test files of a case, those with a real API server last. */
export function testsOf(id: string): string[] {
  const prefix = `${id.toLowerCase()}-`;
  return FOLDERS.flatMap((folder) =>
    readdirSync(folder)
      .filter((name) => name.startsWith(prefix) && name.endsWith(".test.ts"))
      .toSorted()
      .map((name) => join(folder, name)),
  );
}

/** `docs/security/attack-suite.md`, of which the repository tests check that it is this. */
export function attackSuitePage(sabotages: readonly Sabotage[]): string {
  const sections = Object.entries(CASES).flatMap(([id, title]) => [
    `### ${id}: ${title}`,
    "",
    testsOf(id)
      .map((path) => `\`${path}\``)
      .join(", "),
    "",
    "It fails when one of these is turned off:",
    "",
    ...sabotages
      .filter((sabotage) => sabotage.case === id)
      .map(({ defence, file }) => `- ${defence} (\`${file}\`)`),
    "",
  ]);
  return [...INTRODUCTION, ...sections].join("\n");
}

const INTRODUCTION = [
  "# The attack suite",
  "",
  "<!-- Written by `npm run security:sabotage -- --page`. Edit test/security/, not this file. -->",
  "",
  "Each case plants markers in credentials, lets an attack run against the real processes, and",
  "searches for the markers wherever they must not be. Numbers are those of the plan of security tests.",
  "",
  "```bash",
  "make test                      # runs the suite, beside the other tests",
  "make api                       # runs T13 and T52, which need a real API server",
  "npm run security:sabotage      # turns each defence off and shows that its case then fails",
  "```",
  "",
  "Three things keep a case from passing on nothing:",
  "",
  "- **A positive control**: the legitimate call worked, and the one place that must see the marker saw it.",
  "- **Its sabotages**: each defence below is turned off in turn in a copy of the source tree (the",
  "  product has no switch for it), and the case must then fail by an assertion.",
  "- **A tested search**: the sweep looks in texts, files, git objects, Redis, environments, command lines",
  "  and memory, for the marker raw, hex, base64 at three alignments, URL-encoded, JSON-escaped, in UTF-16 and",
  "  compressed. Its own test plants markers in every place and encoding and demands that it finds them.",
  "",
  "What the suite does not show is listed in the threat model, beside what is not protected.",
  "",
  "## Cases",
  "",
];
