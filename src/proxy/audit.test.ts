import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { AuditCheckpoint } from "../protocol/proxy-ports.ts";
import { silentLogger } from "../runtime/logger.ts";
import { Registry } from "../runtime/metrics.ts";
import { AuditLog, type ServedUse } from "./audit.ts";
import { auditRecord, hashOf } from "./audit-record.ts";
import { AuditVerification, type KnownCheckpoint } from "./audit-verify.ts";
import { createProxyMetrics } from "./metrics.ts";

const use: ServedUse = {
  role: "mcp",
  tenant: "team-a",
  session: "sesn_1",
  method: "tools/call",
  tool: "echo",
  allowedBy: "always_allow",
  bytesIn: 10,
  bytesOut: 20,
  ms: 1.4,
  redactions: 0,
};

function auditLog(checkpointsFail = false) {
  const clock = new FakeClock();
  const lines: string[] = [];
  const kept: AuditCheckpoint[] = [];
  const state = { sinkFails: false, checkpointsFail };
  const registry = new Registry();
  const log = new AuditLog({
    sink: {
      write: (line) => {
        if (state.sinkFails) throw new Error("ENOSPC");
        lines.push(line);
      },
    },
    checkpoints: {
      keepCheckpoint: async (checkpoint) => {
        if (state.checkpointsFail) throw new Error("no Redis");
        kept.push(checkpoint);
      },
    },
    process: "proxy",
    podUid: "pod-1",
    clock,
    logger: silentLogger,
    metrics: createProxyMetrics(registry),
  });
  const record = (times: number) => {
    for (let each = 0; each < times; each += 1) log.record({ ...use, ms: each });
  };
  return { log, lines, kept, clock, state, registry, record };
}

function problemsOf(lines: readonly string[], checkpoints: readonly KnownCheckpoint[] = []) {
  const verification = new AuditVerification(checkpoints);
  for (const line of lines) verification.add(line);
  return verification.report().problems;
}

describe("the audit log", () => {
  it("is a chain in which nothing is wrong, between other lines of the log", () => {
    const { lines, record } = auditLog();
    record(3);
    const verification = new AuditVerification([]);
    for (const line of ['{"level":"info","msg":"x"}', "not JSON", ...lines]) verification.add(line);

    const { records, heads, problems } = verification.report();
    expect({ records, problems }).toEqual({ records: 3, problems: [] });
    expect(heads).toEqual([expect.objectContaining({ podUid: "pod-1", seq: 3 })]);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      audit: true,
      seq: 1,
      prev_hash: "",
      decision: "allow",
      rule: "always_allow",
      tenant: "team-a",
    });
  });

  it("names the error that refused a use, and the one by which an allowed use failed", () => {
    const { log, lines } = auditLog();
    const { allowedBy, ...refused } = use;
    log.record({ ...refused, error: "FORBIDDEN" });
    log.record({ ...use, error: "UNAVAILABLE" });

    const [first, second] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(first).toMatchObject({ decision: "deny", rule: "FORBIDDEN" });
    expect(first).not.toHaveProperty("error");
    expect(second).toMatchObject({ decision: "allow", rule: allowedBy, error: "UNAVAILABLE" });
  });

  it.each<[string, (lines: string[]) => string[], RegExp]>([
    ["a record was dropped", ([a, , c]) => [a ?? "", c ?? ""], /record 3 follows 1/],
    ["the first was dropped", ([, b, c]) => [b ?? "", c ?? ""], /record 2 follows 0/],
    ["two changed places", ([a, b, c]) => [a ?? "", c ?? "", b ?? ""], /record 2 stands after/],
    ["one is there twice", ([a, b, c]) => [a ?? "", b ?? "", b ?? "", c ?? ""], /stands after/],
    [
      "a field was edited",
      (all) => all.map((l) => l.replace('"ms":1,', '"ms":9,')),
      /2 was edited/,
    ],
    [
      "a field was added",
      (all) => all.map((l) => l.replace('"ms":1,', '"ms":1,"x":1,')),
      /no audit record/,
    ],
    [
      "a field was taken out",
      (all) => all.map((l) => l.replace('"tool":"echo",', "")),
      /was edited/,
    ],
    [
      "a line was cut",
      (all) => all.map((l, i) => (i === 1 ? l.slice(0, 90) : l)),
      /no audit record/,
    ],
  ])("shows that %s", (_name, change, problem) => {
    const { lines, record } = auditLog();
    record(3);

    expect(problemsOf(change(lines)).join("\n")).toMatch(problem);
  });

  it("shows that a record was edited although its own hash was made anew", () => {
    const { lines, record } = auditLog();
    record(3);
    const { hash, ...rest } = auditRecord.parse(JSON.parse(lines[1] ?? ""));
    const edited = { ...rest, ms: 9 };
    lines[1] = JSON.stringify({ ...edited, hash: hashOf(edited) });

    expect(hash).not.toBe(hashOf(edited));
    expect(problemsOf(lines)).toEqual([expect.stringMatching(/record 3 does not fit/)]);
  });

  it("shows a cut end, a forged record and a forged chain by its checkpoints", async () => {
    const { log, lines, kept, clock, record } = auditLog();
    const stop = new AbortController();
    const running = log.run(stop.signal);
    record(2);
    await clock.advance(5000);
    record(1);
    stop.abort();
    await running;

    expect(kept.map(({ seq }) => seq)).toEqual([2, 3]);
    expect(problemsOf(lines, kept)).toEqual([]);
    expect(problemsOf(lines.slice(0, 2), kept)).toEqual([
      expect.stringMatching(/record 3 .* missing/),
    ]);
    expect(problemsOf(lines.slice(2), kept)).toEqual([]);
    const other = kept.map((checkpoint) => ({ ...checkpoint, hash: "0".repeat(64) }));
    expect(problemsOf(lines, other).join()).toContain("differs from its checkpoint");
  });

  it("shows a chain that somebody made up beside one with checkpoints", async () => {
    const { log, lines, kept, clock, record } = auditLog();
    const stop = new AbortController();
    const running = log.run(stop.signal);
    record(2);
    await clock.advance(5000);
    stop.abort();
    await running;
    const { hash: _hash, ...rest } = auditRecord.parse(JSON.parse(lines[0] ?? ""));
    const made = { ...rest, chain: "made-up" };
    const forged = JSON.stringify({ ...made, hash: hashOf(made) });

    expect(problemsOf([...lines, forged])).toEqual([]);
    expect(problemsOf(lines, kept)).toEqual([]);
    expect(problemsOf([...lines, forged], kept)).toEqual([
      expect.stringMatching(/chain made-up of pod pod-1 has no checkpoint/),
    ]);
  });

  it("keeps a checkpoint later when the store does not answer", async () => {
    const { log, kept, clock, state, record } = auditLog(true);
    const stop = new AbortController();
    const running = log.run(stop.signal);
    record(1);
    await clock.advance(5000);
    state.checkpointsFail = false;
    await clock.advance(5000);
    stop.abort();
    await running;

    expect(kept.map(({ seq }) => seq)).toEqual([1]);
  });

  it("refuses effects while it cannot be written, and has lost nothing when it can", () => {
    const { log, lines, state, record } = auditLog();
    record(1);
    state.sinkFails = true;
    record(2);

    expect(() => log.check({ hasEffect: true })).toThrow("the audit log cannot be written");
    log.check({ hasEffect: false });
    state.sinkFails = false;
    log.check({ hasEffect: true });
    expect(lines).toHaveLength(3);
    expect(problemsOf(lines)).toEqual([]);
  });

  it("refuses everything once too much waits, and counts what it could not record", async () => {
    const { log, lines, state, registry, record } = auditLog();
    state.sinkFails = true;
    record(1000);
    expect(() => log.check({ hasEffect: false })).toThrow("the audit log cannot be written");
    record(1);
    state.sinkFails = false;
    log.check({ hasEffect: false });

    expect(lines).toHaveLength(1000);
    expect(problemsOf(lines)).toEqual([]);
    expect(await registry.metrics()).toContain('audit_records_total{outcome="lost"} 1');
  });
});
