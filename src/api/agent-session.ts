import { z } from "zod";
import { AGENT_TOOLSET, agentRefField, agentSpec } from "./agent.ts";
import {
  conditions,
  entryName,
  formatted,
  immutable,
  keyedBy,
  objectName,
  observedGeneration,
  optionalTime,
  repositoryUrl,
  rules,
} from "./fields.ts";

const OPERATING_MODES = ["Running", "Suspended", "Stopped"] as const;

export const sessionRepository = z
  .object({
    name: entryName("Name of the repository in this session; its folder when `path` is not set."),
    url: repositoryUrl().describe(
      "The repository. Its token comes from an entry of `vaultRefs` with the same `repositoryUrl`; without one it is read anonymously.",
    ),
    path: formatted(
      256,
      "^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$",
      "must be a path below the workspace such as `code/app`: no part may begin with `.` or `-`",
    )
      .optional()
      .describe("Folder below the workspace."),
    branch: formatted(
      255,
      "^[A-Za-z0-9_][A-Za-z0-9._/-]*$",
      "must be the name of a branch or tag: letters, digits, `.`, `_`, `/` and `-`",
    )
      .optional()
      .describe("Branch or tag that is checked out; the repository's own default when not set."),
    pushBranches: z
      .array(
        formatted(
          255,
          "^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*(/[*][*])?$",
          "must be the name of a branch, or a beginning followed by `/**`, such as `agent/**`",
        ).describe("A branch, or all branches below a name (`agent/**`)."),
      )
      .max(16)
      .default([])
      .describe("Branches the session may push to; none by default. Nothing can be deleted."),
  })
  .describe("One git repository.");

export type SessionRepository = z.output<typeof sessionRepository>;

export const agentSessionSpec = z
  .object({
    agentRef: agentRefField.optional(),
    agent: agentSpec.optional(),
    messages: z
      .array(
        z
          .object({
            text: formatted(32_768, "[^\\s]", "must hold more than white space").describe(
              "The message's text.",
            ),
          })
          .describe("One user message."),
      )
      .min(1)
      .max(16)
      .meta(
        rules({
          rule: "self == oldSelf",
          message: "`messages` must not be changed; send later messages to the session",
        }),
      )
      .describe(
        "First user messages; the session starts working on them at once. More than about 250 KiB in all need `kubectl apply --server-side`.",
      ),
    sandboxTemplateRef: z
      .object({ name: objectName("SandboxTemplate") })
      .optional()
      .describe(
        "The recipe of this session's sandbox; needed when the agent uses the agent toolset.",
      ),
    vaultRefs: z
      .array(
        z
          .object({ name: objectName("CredentialVault") })
          .describe("A CredentialVault in this namespace."),
      )
      .max(10)
      .optional()
      .meta(
        rules({
          rule: "self.all(a, self.exists_one(b, b.name == a.name))",
          message: "each `name` in `vaultRefs` must be there once only",
        }),
      )
      .describe("Credentials this session may use, searched in this order."),
    repositories: z
      .array(sessionRepository)
      .max(16)
      .optional()
      .meta({
        ...keyedBy("name"),
        ...rules(
          {
            rule: "self.all(a, self.exists_one(b, b.url == a.url))",
            message: "each `url` in `repositories` must be there once only",
          },
          {
            rule: "self.all(a, self.exists_one(b, ((has(b.path) ? b.path : b.name) + '/').startsWith((has(a.path) ? a.path : a.name) + '/')))",
            message:
              "each repository must have a folder of its own, not inside another's: `path`, or `name` without it",
          },
        ),
      })
      .describe(
        "Git repositories that are cloned into each sandbox of the session before its first tool call.",
      ),
    harnessPoolRef: z
      .object({ name: objectName("HarnessPool").default("default") })
      .default({ name: "default" })
      .meta(
        rules({
          rule: "self == oldSelf",
          message: "`harnessPoolRef` must not be changed; create a new AgentSession",
        }),
      )
      .describe("The HarnessPool, in the install namespace, whose workers run this session."),
    operatingMode: z
      .enum(OPERATING_MODES)
      .default("Running")
      .meta(
        rules({
          rule: "oldSelf != 'Stopped' || self == 'Stopped'",
          message: "`operatingMode` must stay `Stopped` once it is; create a new AgentSession",
        }),
      )
      .describe("`Suspended` pauses the session and keeps everything; `Stopped` ends it for good."),
    activeDeadlineSeconds: z
      .int()
      .min(60)
      .max(31_536_000)
      .optional()
      .describe("Seconds after creation at which the session is ended as Failed."),
    ttlSecondsAfterFinished: z
      .int()
      .min(0)
      .max(31_536_000)
      .optional()
      .describe("Seconds after completion at which the object, its pods and its log are deleted."),
  })
  .meta(
    rules(
      {
        rule: "has(self.agentRef) != has(self.agent)",
        message: "exactly one of `agentRef` and `agent` must be set",
      },
      {
        rule: `has(self.sandboxTemplateRef) || !has(self.agent) || !has(self.agent.tools) || !self.agent.tools.exists(t, t.type == '${AGENT_TOOLSET}')`,
        message: `\`sandboxTemplateRef\` must be set, because the agent declares \`${AGENT_TOOLSET}\``,
      },
      immutable("agentRef", "AgentSession"),
      immutable("agent", "AgentSession"),
      immutable("sandboxTemplateRef", "AgentSession"),
      immutable("vaultRefs", "AgentSession"),
      immutable("repositories", "AgentSession"),
      {
        rule: "!has(self.repositories) || self.repositories.size() == 0 || has(self.sandboxTemplateRef)",
        message:
          "`sandboxTemplateRef` must be set, because `repositories` are cloned into the sandbox",
      },
    ),
  )
  .describe("What the session works on, with which agent, and where.");

export const SESSION_STATES = [
  "Pending",
  "Running",
  "Idle",
  "WaitingForApproval",
  "WaitingForClientTool",
  "Suspended",
  "Stopped",
  "Failed",
  "Quarantined",
] as const;

export const agentSessionStatus = z
  .object({
    observedGeneration,
    state: z
      .enum(SESSION_STATES)
      .optional()
      .describe("For printing and field selectors only; conditions are the interface."),
    sessionId: z.string().max(128).optional().describe("Id of the session's log."),
    resolved: z
      .object({
        agent: z.string().max(253).optional().describe("Name of the Agent, or `inline`."),
        agentRevision: z
          .string()
          .max(64)
          .optional()
          .describe("Hash of the agent as it was pinned."),
        template: z.string().max(253).optional().describe("Name of the SandboxTemplate."),
        templateRevision: z.string().max(64).optional().describe("Hash of the template as pinned."),
        pool: z.string().max(253).optional().describe("Name of the HarnessPool."),
      })
      .optional()
      .describe("What the references meant when the session was created."),
    startTime: optionalTime("When the log was created."),
    completionTime: optionalTime("When `Completed` last became True."),
    conditions,
  })
  .describe("The coarse state of the session; written at transitions only.");

export type AgentSessionSpec = z.output<typeof agentSessionSpec>;
export type AgentSessionStatus = z.output<typeof agentSessionStatus>;
export type SessionStateName = (typeof SESSION_STATES)[number];
