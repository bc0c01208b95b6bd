import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { auditRecord } from "../../src/proxy/audit-record.ts";

/** Other words for what a field of the log is called: docs/design/house-style.md#logging. */
const SYNONYMS: Readonly<Record<string, string>> = {
  ts: "time",
  timestamp: "time",
  session: "sessionId",
  tenant: "namespace",
  key: "namespace and name",
  toolUseId: "toolCallId",
  callId: "toolCallId",
  pod: "podUid or sandbox",
  sandboxId: "sandbox",
  tries: "attempt",
  ms: "durationMs",
  error: "err",
  message: "err",
  how: "reason",
  why: "reason",
};

function problemsOf(fields: readonly string[]): string[] {
  return fields.flatMap((name) => {
    const better = SYNONYMS[name];
    if (better !== undefined) return [`${name}: it is called ${better}`];
    return /^[a-z][A-Za-z0-9]*$/.test(name) ? [] : [`${name}: it is not in camelCase`];
  });
}

/** Names of the fields that a call of a logger, or the object of fields before it, gives. */
function fieldsIn(source: string): string[] {
  const objects = source.matchAll(
    /(?:logger(?:\.\w+|\[level\])\(|\bfields = |\.child\()\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}/g,
  );
  return [...objects].flatMap(([, text = ""]) =>
    text
      .replaceAll(/\([^()]*(?:\([^()]*\)[^()]*)*\)|\{[^{}]*\}|\[[^\]]*\]|"[^"]*"|`[^`]*`/g, "")
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "" && !part.startsWith("..."))
      .map((part) => /^[\w$]+/.exec(part)?.[0] ?? part),
  );
}

const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter(
  (name) => name.endsWith(".ts") && !name.endsWith(".test.ts"),
);

describe("fields of the log", () => {
  it("are read from calls, from objects before them and from children", () => {
    const source = `
      logger.warn({ sessionId: ref.id, err: describeError(a, { b: 1 }) }, "x");
      const fields = { attempt, ...more };
      const own = logger.child({ component: "runner" });
    `;

    expect(fieldsIn(source)).toEqual(["sessionId", "err", "attempt", "component"]);
    expect(problemsOf(["ts", "cred_id", "reason"])).toHaveLength(2);
  });

  it("have one name each in all processes", () => {
    const found = files.flatMap((file) =>
      problemsOf(fieldsIn(readFileSync(join("src", file), "utf8"))).map(
        (what) => `${file}: ${what}`,
      ),
    );

    expect(found).toEqual([]);
  });

  it("have the same names in records of the audit", () => {
    expect(problemsOf(Object.keys(auditRecord.shape))).toEqual([]);
  });
});
