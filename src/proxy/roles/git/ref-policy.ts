/** One line of a push: `<old> <new> <ref>`. */
export interface RefCommand {
  oldId: string;
  newId: string;
  ref: string;
}

const BRANCHES = "refs/heads/";
/** What a client may ask of a host besides its refs; all it does is to change form and report. */
const CAPABILITIES: ReadonlySet<string> = new Set([
  "report-status",
  "report-status-v2",
  "side-band-64k",
  "quiet",
  "atomic",
  "ofs-delta",
  "agent",
  "object-format",
  "session-id",
  "delete-refs",
]);

/**
 * Which updates of a push the session may not make (docs/design/security.md#git), by ref; empty
 * when it may go through. A push is all or nothing: one refused ref refuses the others too, so that
 * what reaches the git host is what was asked for or nothing.
 */
export function refusedRefs(
  {
    commands,
    capabilities,
  }: { commands: readonly RefCommand[]; capabilities: ReadonlySet<string> },
  pushBranches: readonly string[],
): ReadonlyMap<string, string> {
  const refused = new Map<string, string>();
  const ofCapabilities = capabilityRefusal(capabilities);
  for (const command of commands) {
    const reason = ofCapabilities ?? refusal(command, pushBranches);
    if (reason !== undefined) refused.set(command.ref, reason);
  }
  if (refused.size === 0) return refused;
  for (const { ref } of commands) {
    if (!refused.has(ref)) {
      refused.set(ref, "policy: not pushed, because another ref of this push is refused");
    }
  }
  return refused;
}

function capabilityRefusal(capabilities: ReadonlySet<string>): string | undefined {
  // A host may act on other branches for an option: "merge this into main".
  if (capabilities.has("push-options")) return "policy: push options (-o) are not passed on";
  const unknown = [...capabilities].find((name) => !CAPABILITIES.has(name));
  return unknown === undefined
    ? undefined
    : `policy: the push asks for "${unknown.slice(0, 64)}", which is not passed on`;
}

function refusal({ newId, ref }: RefCommand, pushBranches: readonly string[]): string | undefined {
  if (ref.startsWith("refs/tags/")) return "policy: this session may not push tags";
  if (!ref.startsWith(BRANCHES)) return "policy: this session may push to branches only";
  if (/^0+$/.test(newId)) return "policy: this session may not delete branches";
  const branch = ref.slice(BRANCHES.length);
  if (pushBranches.some((pattern) => matches(pattern, branch))) return undefined;
  return pushBranches.length === 0
    ? "policy: this session may not push to this repository"
    : `policy: this session may push to ${pushBranches.join(", ")} only`;
}

/** `agent/**` is every branch below `agent/`; anything else is one branch. Both are case-sensitive. */
function matches(pattern: string, branch: string): boolean {
  return pattern.endsWith("/**") ? branch.startsWith(pattern.slice(0, -2)) : branch === pattern;
}
